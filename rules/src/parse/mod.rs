//! From text to [`Ruleset`], with every fault placed.
//!
//! ```text
//!   lines ─▶ words ─▶ a command and a draft of its rule ─▶ tables being built ─▶ Ruleset
//!   └──────── read ahead, by all cores ────────┘ └──────── in turn ────────┘
//! ```
//!
//! The text is applied to an empty ruleset as `iptables-legacy-restore` applies it: commands in
//! order, a table said twice replaced. Where that tool would stop, a fault is noted and reading
//! goes on: a faulty rule is kept as far as its meaning is clear, and never hides later faults.
//! An unknown match or target is kept word by word.
//!
//! Costs one pass over the text; memory is linear in it. What could grow beyond the text (lists
//! of addresses that multiply) or cost more than the text (deletions that search, insertions
//! that move) is limited by [`ParseOptions`].

pub(crate) mod ahead;
pub(crate) mod build;
pub(crate) mod commands;
mod core_options;
mod draft;
mod family;
pub(crate) mod line;
pub(crate) mod loops;
pub(crate) mod reader;
mod rule;
mod rule_list;
pub(crate) mod scan;
mod unsettled;
mod values;
pub(crate) mod words;

use std::ops::Range;
use std::sync::Arc;

use crate::fault::{Fault, Severity};
use crate::model::{Counters, Family, Hook, Policy, Ruleset, Table, TableKind};
use crate::names::Hosts;

use ahead::Lines;
use build::TableBuilder;
use commands::Order;
use reader::{Chains, Reader};
use scan::{Parser, Sink};

/// What [`parse`] takes for granted, and its limits.
#[derive(Debug, Clone)]
pub struct ParseOptions {
    /// The family; `None`: what the text shows, IPv4 when it shows nothing.
    pub family: Option<Family>,
    /// Names of hosts; without them a name is a fault.
    pub hosts: Option<Arc<Hosts>>,
    /// Bytes of the text at most: far above any real ruleset, far below what exhausts memory.
    pub text_bytes_max: usize,
    /// Bytes of a line at most. The kernel's tools stop at 10,240.
    pub line_bytes_max: usize,
    /// Rules of the whole ruleset at most.
    pub rule_count_max: usize,
    /// Chains of the whole ruleset at most.
    pub chain_count_max: usize,
    /// Rules that one line with lists of addresses makes at most.
    pub rules_of_line_max: usize,
    /// Matches of one rule at most. The kernel's limit is 64 KiB for all of them together, each
    /// 40 bytes or more.
    pub matches_of_rule_max: usize,
    /// Faults reported; a last one counts the others.
    pub fault_count_max: usize,
    /// Rules looked at or moved by all `-D`, `-I` and `-R` together: above it, they are faults.
    pub edit_steps_max: u64,
}

impl Default for ParseOptions {
    fn default() -> ParseOptions {
        ParseOptions {
            family: None,
            hosts: None,
            text_bytes_max: 1 << 30,
            line_bytes_max: 1 << 16,
            rule_count_max: 4_000_000,
            chain_count_max: 1_000_000,
            rules_of_line_max: 65_536,
            matches_of_rule_max: 256,
            fault_count_max: 1_000,
            edit_steps_max: 1 << 28,
        }
    }
}

/// What a text says, and what is wrong with it.
#[derive(Debug)]
pub struct Parsed {
    /// The ruleset, as far as the text is clear.
    pub ruleset: Ruleset,
    /// The faults by their place; none: the kernel's tools would load the text.
    pub faults: Vec<Fault>,
}

impl Parsed {
    /// Whether a fault makes the kernel's tools refuse the text.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(|f| f.severity == Severity::Error)
    }

    /// The ruleset of a text without errors, or the faults.
    pub fn into_result(self) -> Result<Ruleset, Vec<Fault>> {
        if self.has_errors() { Err(self.faults) } else { Ok(self.ruleset) }
    }
}

/// Reads a ruleset.
///
/// ```
/// use hipac_rules::{ParseOptions, parse};
///
/// let parsed = parse("*filter\n-A INPUT -p tcp --dport 65536 -j DROP\nCOMMIT\n", &ParseOptions::default());
/// assert_eq!(parsed.ruleset.rule_count(), 1);
/// assert_eq!(parsed.faults[0].to_string(), "2:25: error: port 65536 is above 65535");
/// ```
pub fn parse(text: impl AsRef<[u8]>, options: &ParseOptions) -> Parsed {
    parse_by(text.as_ref(), options, Parser::read)
}

/// Reads a ruleset as `read` does.
fn parse_by<'t>(
    text: &'t [u8],
    options: &'t ParseOptions,
    read: impl FnOnce(&mut Parser<'t, Tables>),
) -> Parsed {
    let family = options.family.unwrap_or_else(|| family::detect(text));
    let mut parser = Parser { reader: Reader::new(text, family, options), to: Tables::default() };
    read(&mut parser);
    parser.end_of_text();
    let ruleset = Ruleset { family, tables: parser.to.done };
    Parsed { ruleset, faults: parser.reader.faults.finish() }
}

/// What is counted against the limits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) rules: usize,
    pub(crate) chains: usize,
    pub(crate) edit_steps: u64,
}

/// The tables of a text while it is read.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Those that are committed.
    done: Vec<Table>,
    /// The one being read.
    pub(crate) current: Option<TableBuilder>,
    pub(crate) counts: Counts,
}

impl Sink for Tables {
    fn open(&self) -> Option<TableKind> {
        self.current.as_ref().map(|table| table.kind)
    }

    fn chains(&self) -> Chains<'_> {
        Chains::Of(self.current.as_ref())
    }

    fn begin(&mut self, kind: TableKind, line: u32, offset: usize) {
        self.current = Some(TableBuilder::new(kind, line, offset));
    }

    fn declare(
        parser: &mut Parser<'_, Tables>,
        name: &str,
        span: Range<usize>,
        policy: Option<Policy>,
        counters: Counters,
    ) {
        parser.declare_chain(name, span, policy, counters);
    }

    fn carry_out(parser: &mut Parser<'_, Tables>, order: Order) {
        parser.carry_out(order);
    }

    fn commit(parser: &mut Parser<'_, Tables>, _: Range<usize>) {
        let Some(builder) = parser.to.current.take() else { return };
        let table = parser.finish_table(builder);
        match parser.to.done.iter_mut().find(|t| t.kind == table.kind) {
            Some(earlier) => *earlier = table,
            None => parser.to.done.push(table),
        }
    }
}

impl Parser<'_, Tables> {
    fn read(&mut self) {
        if !self.takes_length() {
            return;
        }
        let text = self.reader.text;
        match std::str::from_utf8(text) {
            Ok(sound) if memchr::memchr(0, text).is_none() => self.read_ahead(sound, ahead::STRETCH_BYTES),
            _ => self.read_lines(Lines { span: 0..text.len(), before: 0 }),
        }
    }

    fn end_of_text(&mut self) {
        let Some(builder) = &self.to.current else { return };
        let (line, start, kind) = (builder.line, builder.offset, builder.kind);
        self.never_committed(kind, line, start);
        Tables::commit(self, start..start);
    }
}

/// The end of the line that holds the byte at `start`.
fn line_end(text: &[u8], start: usize) -> usize {
    memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |i| start + i)
}

/// `[packets:bytes]`
fn parse_counters(text: &str) -> Option<Counters> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let (packets, bytes) = inner.split_once(':')?;
    Some(Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

/// The hook of a built-in chain's name in that table.
fn built_in(kind: TableKind, name: &str) -> Option<Hook> {
    Hook::from_name(name).filter(|h| kind.hooks().contains(h))
}
