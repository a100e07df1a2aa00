//! Changes of a ruleset as data: what a command line asks for, and what it does to a [`Ruleset`](crate::Ruleset).
//!
//! ```text
//!   -I FORWARD 3 -s 192.0.2.7 -j DROP        text: `iptables-restore --noflush`, or a shell's
//!        │ parse_edits
//!        ▼
//!   Edit { table, change: Insert { chain, at: 2, rules }, place }
//!        │ apply, apply_all
//!        ▼
//!   Ruleset, or an EditError that says what iptables says, with the place
//! ```
//!
//! A line is read by the code that reads the lines of a ruleset, so both mean the same. What can
//! be said without looking at chains is a fault of the text; what hangs on them (is there such a
//! chain, a rule at that number, a loop) shows when the edit is applied.
//!
//! This is the slow and obvious twin of every faster way to change rules: vectors are searched
//! and moved. Positions count from 0 here, from 1 in texts.

mod apply;
mod error;
mod print;
mod read;

use std::ops::Range;

use crate::fault::{Fault, Severity};
use crate::model::{Counters, Family, Name, Policy, Rule, TableKind};

pub use apply::{Applied, At, Failed, apply, apply_all, check_length, check_loops, check_name};
pub use error::{EditError, ErrorKind, ExitClass};
pub use print::{print_edit, print_groups};
pub use read::parse_edits;

/// One change of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The table.
    pub table: TableKind,
    /// What is changed in it.
    pub change: Change,
    /// Where the edit stands in its text.
    pub place: Place,
}

impl Edit {
    /// An edit that stands in no text.
    pub fn new(table: TableKind, change: Change) -> Edit {
        Edit { table, change, place: Place::default() }
    }
}

/// What is changed. A list of rules is what one line stands for: one rule for each pair of its
/// addresses, nearly always a single one.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `-A`: rules at the end of a chain.
    Append {
        /// The chain.
        chain: Name,
        /// The rules, in their order.
        rules: Vec<Rule>,
    },
    /// `-I`: each rule put at the same position, so that the last one comes first.
    Insert {
        /// The chain.
        chain: Name,
        /// The position, at most the chain's length.
        at: usize,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// `-R`: a rule in place of another one, with the counters that it brings.
    Replace {
        /// The chain.
        chain: Name,
        /// The position.
        at: usize,
        /// The new rule.
        rule: Box<Rule>,
    },
    /// `-D` with a number.
    Delete {
        /// The chain.
        chain: Name,
        /// The position.
        at: usize,
    },
    /// `-D` with a rule: the first one of the chain that equals it, counters aside, for each.
    DeleteRules {
        /// The chain.
        chain: Name,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// `-C`: nothing is changed, and it fails unless the chain has such rules.
    Check {
        /// The chain.
        chain: Name,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// `-F`: no rules any more.
    Flush {
        /// The chain; `None`: all of the table.
        chain: Option<Name>,
    },
    /// `-Z`: counters of rules and of the policy back to zero.
    Zero {
        /// The chain; `None`: all of the table.
        chain: Option<Name>,
        /// The position of the only rule that is meant.
        at: Option<usize>,
    },
    /// `:CHAIN POLICY [packets:bytes]`: a user chain made, or emptied when it is there; a built-in
    /// chain's policy and its counters.
    Declare {
        /// The chain.
        chain: Name,
        /// The policy; `None`, as `-` says, changes nothing about a built-in chain.
        policy: Option<Policy>,
        /// Counters of the policy.
        counters: Counters,
    },
    /// `-N`.
    NewChain {
        /// The chain.
        chain: Name,
    },
    /// `-X`: a chain without rules that no rule leads to.
    DeleteChain {
        /// The chain; `None`: all user chains of the table.
        chain: Option<Name>,
    },
    /// `-E`: rules that lead to the chain lead to it under its new name.
    RenameChain {
        /// The chain.
        chain: Name,
        /// Its new name.
        to: Name,
    },
    /// `-P`.
    SetPolicy {
        /// The built-in chain.
        chain: Name,
        /// The policy.
        policy: Policy,
        /// Its counters, which begin at zero unless the edit says them.
        counters: Option<Counters>,
    },
}

impl Change {
    /// The chain that is changed; `None`: all of the table.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Change::Append { chain, .. }
            | Change::Insert { chain, .. }
            | Change::Replace { chain, .. }
            | Change::Delete { chain, .. }
            | Change::DeleteRules { chain, .. }
            | Change::Check { chain, .. }
            | Change::Declare { chain, .. }
            | Change::NewChain { chain }
            | Change::RenameChain { chain, .. }
            | Change::SetPolicy { chain, .. } => Some(chain),
            Change::Flush { chain } | Change::Zero { chain, .. } | Change::DeleteChain { chain } => {
                chain.as_ref()
            }
        }
    }

    /// The rules that it brings or looks for.
    pub fn rules(&self) -> &[Rule] {
        match self {
            Change::Append { rules, .. }
            | Change::Insert { rules, .. }
            | Change::DeleteRules { rules, .. }
            | Change::Check { rules, .. } => rules,
            Change::Replace { rule, .. } => std::slice::from_ref(rule),
            _ => &[],
        }
    }
}

/// Where an edit stands in its text, by bytes; empty for one made by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1; 0 for an edit made by hand.
    pub line: u32,
    /// All of the line.
    pub whole: Range<usize>,
    /// The chain's name, or the command when it names none.
    pub chain: Range<usize>,
    /// What follows the chain's name: a number, a policy, a new name.
    pub argument: Range<usize>,
    /// The name after `-j` or `-g`, where it is a chain's.
    pub target: Range<usize>,
}

/// The edits of one table up to its COMMIT: they take effect together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The table.
    pub table: TableKind,
    /// The edits, all of this table, in their order.
    pub edits: Vec<Edit>,
    /// The line that makes them take effect, where a loop shows: COMMIT, or the only command.
    pub commit: Place,
}

/// What a text asks for, and what is wrong with it.
#[derive(Debug)]
pub struct ParsedEdits {
    /// The family of its addresses.
    pub family: Family,
    /// Its edits, in their order.
    pub groups: Vec<Group>,
    /// The faults by their place; none: the kernel's tools would read the text.
    pub faults: Vec<Fault>,
}

impl ParsedEdits {
    /// Whether a fault makes the kernel's tools refuse the text.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(|f| f.severity == Severity::Error)
    }

    /// The groups of a text without errors, or the faults.
    pub fn into_result(self) -> Result<Vec<Group>, Vec<Fault>> {
        if self.has_errors() { Err(self.faults) } else { Ok(self.groups) }
    }

    /// All edits of all groups, in their order.
    pub fn edits(&self) -> impl Iterator<Item = &Edit> {
        self.groups.iter().flat_map(|group| &group.edits)
    }
}
