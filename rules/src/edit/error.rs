//! Why an edit cannot be made: in the meaning of iptables' messages, with the place.

use std::fmt;
use std::ops::Range;

use crate::fault::{Fault, Severity, place_in};
use crate::model::{Name, TableKind};
use crate::parse::commands::counted_rules;

/// Why an edit cannot be made. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditError {
    /// The table of the edit.
    pub table: TableKind,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The line of the edit, from 1; 0 for one made by hand.
    pub line: u32,
    /// What of the text it is about; empty for an edit made by hand.
    pub span: Range<usize>,
}

/// What is wrong with an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The table has no chain of that name.
    NoChain {
        /// The name.
        chain: Name,
    },
    /// A rule leads to a chain that the table does not have, by a name that is no target either.
    NoTarget {
        /// The name.
        name: Name,
        /// What was meant, perhaps.
        near: Option<&'static str>,
    },
    /// A rule leads to a built-in chain.
    LeadsToBuiltIn {
        /// The chain.
        chain: Name,
    },
    /// A chain of that name is there already.
    ChainExists {
        /// The name.
        chain: Name,
    },
    /// A chain cannot be called that.
    ChainName {
        /// The name.
        chain: Name,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A chain that still has rules cannot be deleted.
    ChainNotEmpty {
        /// The chain.
        chain: Name,
        /// How many rules it has.
        rules: usize,
    },
    /// A chain that rules lead to cannot be deleted.
    ChainInUse {
        /// The chain.
        chain: Name,
        /// The chain of the first rule that leads to it.
        by: Name,
        /// The position of that rule.
        at: usize,
        /// How many rules lead to it.
        references: usize,
    },
    /// A built-in chain can be neither deleted nor renamed.
    BuiltIn {
        /// The chain.
        chain: Name,
        /// `deleted` or `renamed`.
        cannot_be: &'static str,
    },
    /// A user chain has no policy.
    NoPolicy {
        /// The chain.
        chain: Name,
    },
    /// There is no such position.
    Index {
        /// Of what: `insertion`, `deletion`, `replacement`, `counter`.
        of: &'static str,
        /// The chain.
        chain: Name,
        /// The position, from 0.
        at: usize,
        /// How many rules the chain has.
        length: usize,
    },
    /// No rule of the chain equals the one that is given.
    NoSuchRule {
        /// The chain.
        chain: Name,
    },
    /// A chain that packets reach leads back to itself.
    Loop {
        /// The chains, in the order in which rules lead through them; at most nine.
        chains: Vec<Name>,
        /// The position in the last of them of the rule that leads back to the first.
        at: usize,
    },
    /// More than a limit allows.
    Limit {
        /// Of what.
        of: &'static str,
        /// The limit.
        max: u64,
        /// Its name among the options of parsing.
        option: &'static str,
    },
}

/// What kind of failure the kernel's tools make of it: their exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitClass {
    /// 1: the table does not take it.
    Other,
    /// 2: the words of the command are wrong.
    Parameter,
}

impl ExitClass {
    /// 1 or 2.
    pub fn code(self) -> u8 {
        match self {
            ExitClass::Other => 1,
            ExitClass::Parameter => 2,
        }
    }
}

impl ErrorKind {
    /// The exit status of `iptables-legacy`.
    pub fn exit_class(&self) -> ExitClass {
        match self {
            ErrorKind::NoTarget { .. } | ErrorKind::ChainName { .. } => ExitClass::Parameter,
            _ => ExitClass::Other,
        }
    }

    /// What `iptables-legacy` says, without the name of a chain; `None`: it has no such limit.
    pub fn iptables_message(&self) -> Option<&'static str> {
        Some(match self {
            ErrorKind::NoChain { .. } => "No chain/target/match by that name",
            ErrorKind::NoTarget { .. } => "Couldn't load target",
            ErrorKind::LeadsToBuiltIn { .. } | ErrorKind::BuiltIn { .. } => "Invalid argument",
            ErrorKind::ChainExists { .. } => "Chain already exists",
            ErrorKind::ChainName { .. } => "Invalid chain name",
            ErrorKind::ChainNotEmpty { .. } => "Directory not empty",
            ErrorKind::ChainInUse { .. } => "Too many links",
            ErrorKind::NoPolicy { .. } => "Bad built-in chain name",
            ErrorKind::Index { of: "insertion", .. } => "Index of insertion too big",
            ErrorKind::Index { of: "deletion", .. } => "Index of deletion too big",
            ErrorKind::Index { of: "replacement", .. } => "Index of replacement too big",
            ErrorKind::Index { .. } => "Index of counter too big",
            ErrorKind::NoSuchRule { .. } => "Bad rule (does a matching rule exist in that chain?)",
            ErrorKind::Loop { .. } => "Too many levels of symbolic links",
            ErrorKind::Limit { .. } => return None,
        })
    }

    /// What would mend it.
    pub fn help(&self) -> Option<String> {
        match self {
            ErrorKind::NoChain { chain } => Some(format!("make it before: `-N {chain}`")),
            ErrorKind::NoTarget { near: Some(near), .. } => {
                Some(format!("{near} is a target of a similar name"))
            }
            ErrorKind::NoTarget { name, .. } => Some(format!("make a chain before: `-N {name}`")),
            ErrorKind::ChainNotEmpty { chain, .. } => Some(format!("put `-F {chain}` before")),
            ErrorKind::ChainInUse { by, at, .. } => Some(format!("put `-D {by} {}` before", at + 1)),
            ErrorKind::Limit { option, .. } => Some(format!("raise {option}")),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::NoChain { chain } => write!(f, "there is no chain {chain} in the table"),
            ErrorKind::NoTarget { name, .. } => {
                write!(f, "`{name}` is neither a target nor a chain of the table")
            }
            ErrorKind::LeadsToBuiltIn { chain } => {
                write!(f, "rules cannot lead to the built-in chain {chain}")
            }
            ErrorKind::ChainExists { chain } => write!(f, "there is a chain {chain} already"),
            ErrorKind::ChainName { chain, why } => write!(f, "no chain can be called `{chain}`: {why}"),
            ErrorKind::ChainNotEmpty { chain, rules } => {
                write!(f, "chain {chain} still has {}", counted_rules(*rules))
            }
            ErrorKind::ChainInUse { chain, by, at, references } => {
                write!(f, "chain {chain} is in use: {by} rule {} leads to it", at + 1)?;
                if *references > 1 { write!(f, ", the first of {references}") } else { Ok(()) }
            }
            ErrorKind::BuiltIn { chain, cannot_be } => {
                write!(f, "the built-in chain {chain} cannot be {cannot_be}")
            }
            ErrorKind::NoPolicy { chain } => write!(f, "`{chain}` is no built-in chain and has no policy"),
            ErrorKind::Index { of, chain, at, length } => {
                let number = at.saturating_add(1);
                write!(f, "{number} is too big for the {of}: chain {chain} has {}", counted_rules(*length))
            }
            ErrorKind::NoSuchRule { chain } => write!(f, "no rule of chain {chain} equals this one"),
            ErrorKind::Loop { chains, at } => {
                let names: Vec<&str> = chains.iter().take(8).map(|name| &**name).collect();
                let dots = if chains.len() > 8 { " → …" } else { "" };
                let back = names.first().copied().unwrap_or("");
                write!(f, "rules lead in a loop: {}{dots} → {back}", names.join(" → "))?;
                match chains.last() {
                    Some(last) if chains.len() <= 8 => write!(f, ", by {last} rule {}", at + 1),
                    _ => Ok(()),
                }
            }
            ErrorKind::Limit { of, max, .. } => write!(f, "the changes need more than {max} {of}"),
        }
    }
}

impl EditError {
    /// The error as a fault of the text that the edit was read from.
    pub fn fault(&self, text: &[u8]) -> Fault {
        let (span, column, width) = place_in(text, &self.span);
        Fault {
            severity: Severity::Error,
            message: self.kind.to_string(),
            span,
            line: self.line.max(1),
            column,
            width,
            help: self.kind.help(),
        }
    }
}

impl fmt::Display for EditError {
    /// `line 3: filter: there is no chain web in the table`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.table.name(), self.kind)
    }
}

impl std::error::Error for EditError {}
