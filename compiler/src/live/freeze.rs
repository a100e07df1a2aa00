//! Freezing: an image of a live table as it is.

use super::model::Model;
use super::writer::Writer;
use crate::compile::CompileError;

/// The image of what the writer has published.
pub(super) fn freeze(_: &Model, _: &Writer) -> Result<Vec<u8>, CompileError> {
    Ok(Vec::new())
}
