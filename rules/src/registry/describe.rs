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
            Law::Behind(one, other) => format!("--{one} stands behind --{other}"),
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
            | ValueKind::Exact(table)
            | ValueKind::ChoiceByStart(table)
            | ValueKind::Set(table)
            | ValueKind::ExactSet(table)
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

/// All matches and targets as a document in Markdown: `docs/extensions.md`.
pub fn document() -> String {
    let mut out = String::from(DOCUMENT_HEAD);
    for (kind, title) in [(Kind::Match, "Matches"), (Kind::Target, "Targets")] {
        let mut specs: Vec<&'static ExtensionSpec> = super::all().filter(|s| s.kind == kind).collect();
        specs.sort_by_key(|s| s.name);
        let how = if kind == Kind::Match { "evaluated" } else { "then" };
        let _ = write!(
            out,
            "\n## {title}\n\n| name | family | {how} | kernel-checked | what | options |\n|---|---|---|---|---|---|\n"
        );
        for spec in specs {
            let evaluated = spec.evaluation().map_or_else(|| spec.ending_name().unwrap_or(""), |e| e.name());
            let checked = match super::kernel_check(spec) {
                Some(super::KernelCheck::Checked) => "yes",
                Some(super::KernelCheck::Not(why)) => why,
                None => "",
            };
            let options =
                spec.options.iter().map(|o| format!("`--{}`", o.name)).collect::<Vec<_>>().join(" ");
            let names = std::iter::once(spec.name).chain(spec.aliases.iter().copied());
            let names = names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            let line = [&names, spec.family_names(), evaluated, checked, spec.help, &options];
            let _ = writeln!(out, "| {} |", line.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    out
}

const DOCUMENT_HEAD: &str = "\
# Matches and targets

Made of the registry (`rules/src/registry`) by a test, which also holds it to be up to date:
`HIPAC_WRITE_DOCS=1 cargo test -p hipac-rules --test extensions_doc` writes it anew. `hipac matches NAME` and `hipac targets NAME`
say more of each: options, values, laws. With `--format json` they print one object of schema `hipac.extension/1` a
line: `kind`, `name`, `aliases`, `help`, `families`, `tables`, `hooks`, `protocols`, `evaluation` (of a match) or `ending` (of a
target), `kernel_checked` (null: nobody has asked), `laws`, and `options`, each with `name`, `aliases`, `help`, `value` (its form),
`value_optional`, `negatable`, `required`, `repeats`, `default`, `field` (the field that it tests), `number_min`, `number_max`,
`text_bytes_max` and `names` (the words that it takes).

*Native* is what fields of the packet decide in the search structure. *Partly native*: with some options or values
a rule asks for the rest, too (`set`: when the set is not given). *Residual* is a function of the packet and
the host that no field holds, asked for when a rule gets there; *stateful* is what counts, records or draws when it is asked. An
extension that is not in the table is read, kept word by word and printed as it was; answers that hang on it say so.

Some that could be told by a few bits are residual all the same. `rpfilter`, `socket`, `policy` and `addrtype` by interface ask
what only the host knows: where the caller says it (`--way-back`, `--receiver`, `--ipsec`, `--own-interfaces` of a packet) they
are answered, else the answer says \"if\", which a dimension, having a value for every packet, could not. What SCTP's
`--chunk-types` does hangs on where the kernel's walk over the chunks stops, which depends on the rule: it is walked over
the packet's bytes when it is asked. Options within `hbh`, `dst` and `rt` headers have no end that a field could hold.
";
