//! The registry as answers to questions: what exists, which values it takes, how it is evaluated.
//!
//! `hipac matches`, shell completion, `docs/extensions.md` and the dictionary of the fuzzer are all
//! made of this, so that none of them can tell another story than the parser.

use std::fmt::Write;

use crate::meaning::{Field, Residual};
use crate::model::{Extension, ExtensionRef, Family, Hook, TableKind};
use crate::names::{PROTOCOL_NAMES, protocol_name};

use super::kind::ValueKind;
use super::spec::{Ending, ExtensionSpec, Families, Kind, Law, Means, OptionSpec, WhenAbsent};

/// How a match is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evaluation {
    /// Fields of the packet decide, in the search structure.
    Native,
    /// Some options are native; with others a rule asks for the rest.
    Partly,
    /// A function of the packet and of the host that no field holds.
    Residual,
    /// It counts, records or draws: it is asked exactly when the kernel would ask it.
    Stateful,
}

impl Evaluation {
    /// `native`, `partly native`, `residual` or `stateful`.
    pub fn name(self) -> &'static str {
        match self {
            Evaluation::Native => "native",
            Evaluation::Partly => "partly native",
            Evaluation::Residual => "residual",
            Evaluation::Stateful => "stateful",
        }
    }
}

impl ExtensionSpec {
    /// How it is evaluated; `None` for a target.
    pub fn evaluation(&'static self) -> Option<Evaluation> {
        if self.kind == Kind::Target {
            return None;
        }
        let of = |residual: Residual| match residual {
            Residual::Pure => Evaluation::Residual,
            Residual::Stateful | Residual::Unknown => Evaluation::Stateful,
        };
        if let Some(residual) = self.residual {
            return Some(of(residual));
        }
        if self.quirks.meaning.is_some() {
            return Some(if self.quirks.is_partly { Evaluation::Partly } else { Evaluation::Native });
        }
        let residuals = self.options.iter().filter_map(|o| match o.means {
            Means::Residual(residual) => Some(of(residual)),
            _ => None,
        });
        let worst = residuals.max();
        let tests =
            |o: &OptionSpec| matches!(o.means, Means::Tests(_) | Means::TestsEither(..) | Means::Clauses(_));
        let is_native = self.options.iter().any(tests);
        Some(match worst {
            None => Evaluation::Native,
            Some(_) if is_native => Evaluation::Partly,
            Some(worst) => worst,
        })
    }

    /// What a target does to the evaluation, in a word or two; `None` for a match.
    pub fn ending_name(&self) -> Option<&'static str> {
        let ending = match self.ending {
            Ending::Verdict => "decides",
            Ending::Return => "returns",
            Ending::Continue => "goes on",
        };
        (self.kind == Kind::Target).then_some(ending)
    }

    /// `IPv4`, `IPv6` or both.
    pub fn family_names(&self) -> &'static str {
        match self.families {
            Families::Both => "IPv4, IPv6",
            Families::Only(Family::V4) => "IPv4",
            Families::Only(Family::V6) => "IPv6",
        }
    }

    /// What its rule must be besides: tables, chains and protocols, each when it matters which.
    pub fn conditions(&self) -> Vec<String> {
        let mut out = Vec::new();
        let join = |names: Vec<&str>| names.join(", ");
        if !self.tables.is_empty() {
            out.push(format!("table {}", join(self.tables.iter().map(|t: &TableKind| t.name()).collect())));
        }
        if !self.hooks.is_empty() {
            out.push(format!("from {}", join(self.hooks.iter().map(|h: &Hook| h.name()).collect())));
        }
        if !self.protocols.is_empty() {
            let names = self.protocols.iter().map(|&p| protocol_name(p).unwrap_or("?"));
            out.push(format!("-p {}", names.collect::<Vec<_>>().join(" or ")));
        }
        out
    }

    /// The laws between its options, each as a sentence.
    pub fn law_sentences(&self) -> Vec<String> {
        let list = |names: &[&str], between: &str| {
            names.iter().map(|n| format!("--{n}")).collect::<Vec<_>>().join(between)
        };
        let of = |law: &Law| match law {
            Law::AnyOf(names) => format!("one or more of {} must be given", list(names, ", ")),
            Law::OneOf(names) => format!("{} exclude each other", list(names, ", ")),
            Law::Needs(one, other) => format!("--{one} needs --{other}"),
        };
        self.laws.iter().map(of).collect()
    }

    /// An extension of it without options, for questions about its meaning.
    pub fn bare(&'static self) -> Extension {
        Extension { spec: ExtensionRef::Known(self), settings: Vec::new(), words: Vec::new() }
    }
}

impl OptionSpec {
    /// The field that it tests, when one is declared.
    pub fn field(&self) -> Option<Field> {
        match self.means {
            Means::Tests(field) | Means::TestsEither(field, _) => Some(field),
            _ => None,
        }
    }

    /// What it says when it is not given; `None`: nothing.
    pub fn default_text(&self) -> Option<&'static str> {
        match self.when_absent {
            WhenAbsent::None => None,
            WhenAbsent::Hidden(text) | WhenAbsent::Shown(text) => Some(text),
        }
    }

    /// `[!] --ctstate NAME[,…]`
    pub fn synopsis(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "{}--{}", if self.negatable { "[!] " } else { "" }, self.name);
        let hint = self.value.hint();
        if !hint.is_empty() {
            let _ = if self.value_optional { write!(out, " [{hint}]") } else { write!(out, " {hint}") };
        }
        out
    }
}

/// Which values a kind takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Lowest and highest number, where it takes numbers.
    pub numbers: Option<(u64, u64)>,
    /// Names that it takes, each once, in the order of the table.
    pub names: Vec<&'static str>,
    /// Bytes of text, at most, where it takes text.
    pub text_bytes_max: Option<usize>,
}

impl ValueKind {
    /// Which values it takes, as far as that is a list or a range.
    pub fn accepted(&self) -> Accepted {
        let names = |table: &'static [(&'static str, u64)]| table.iter().map(|(name, _)| *name).collect();
        let numbers = |max: u64| Accepted { numbers: Some((0, max)), ..Accepted::default() };
        match *self {
            ValueKind::Number { min, max, .. } => {
                Accepted { numbers: Some((min, max)), ..Accepted::default() }
            }
            ValueKind::Range { max, .. } => numbers(max),
            ValueKind::Ports | ValueKind::NatPorts | ValueKind::PortList => numbers(65535),
            ValueKind::Masked { max, .. } => numbers(max.into()),
            ValueKind::Choice(table)
            | ValueKind::ChoiceByStart(table)
            | ValueKind::Set(table)
            | ValueKind::SetByStart(table) => Accepted { names: names(table), ..Accepted::default() },
            ValueKind::NumberOrName { max, names: table, .. } => {
                Accepted { numbers: Some((0, max)), names: names(table), ..Accepted::default() }
            }
            ValueKind::Text { max, .. } => Accepted { text_bytes_max: Some(max), ..Accepted::default() },
            ValueKind::Protocol => Accepted {
                numbers: Some((0, 255)),
                names: PROTOCOL_NAMES.iter().map(|(_, name)| *name).collect(),
                ..Accepted::default()
            },
            ValueKind::TcpFlags => Accepted {
                names: vec!["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ALL", "NONE"],
                ..Accepted::default()
            },
            ValueKind::Icmp(table) => Accepted {
                numbers: Some((0, 255)),
                names: table.iter().map(|n| n.name).collect(),
                ..Accepted::default()
            },
            ValueKind::Rate => {
                Accepted { names: vec!["second", "minute", "hour", "day"], ..Accepted::default() }
            }
            ValueKind::Flag
            | ValueKind::Pair(_)
            | ValueKind::Network { .. }
            | ValueKind::Address
            | ValueKind::Netmask
            | ValueKind::AddressRange
            | ValueKind::Mac
            | ValueKind::Custom(_) => Accepted::default(),
        }
    }
}

/// Every word that the language has, each once and sorted: names of matches, targets, options and values.
pub fn words() -> Vec<String> {
    let mut out = std::collections::BTreeSet::new();
    for spec in super::all() {
        for name in std::iter::once(spec.name).chain(spec.aliases.iter().copied()) {
            out.insert(format!("{} {name}", if spec.kind == Kind::Match { "-m" } else { "-j" }));
        }
        for option in spec.options {
            for name in std::iter::once(option.name).chain(option.aliases.iter().copied()) {
                out.insert(format!("--{name}"));
            }
            out.extend(option.value.accepted().names.into_iter().map(str::to_owned));
        }
    }
    out.into_iter().collect()
}
