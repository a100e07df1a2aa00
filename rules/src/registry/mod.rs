//! The one table of matches and targets.

use crate::meaning::{MatchMeaning, TargetMeaning};
use crate::model::{Extension, Family};

/// A match or target that hipac knows.
#[derive(Debug)]
pub struct ExtensionSpec {
    /// Name after `-m` or `-j`.
    pub name: &'static str,
}

/// One option of a match or target.
#[derive(Debug)]
pub struct OptionSpec {
    /// Name without dashes.
    pub name: &'static str,
}

pub(crate) fn match_meaning(_extension: &Extension, _family: Family) -> MatchMeaning {
    MatchMeaning::default()
}

pub(crate) fn target_meaning(_extension: &Extension, _family: Family) -> TargetMeaning {
    TargetMeaning::Return
}
