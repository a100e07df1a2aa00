//! Typed values of options.

/// The value of one option.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// The option takes no value.
    Flag,
}
