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

mod ahead;
mod build;
mod commands;
mod core_options;
mod draft;
mod family;
mod line;
mod loops;
mod reader;
mod rule;
mod rule_list;
mod values;
mod words;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::fault::{Fault, Severity};
use crate::model::{Counters, Family, Hook, Policy, Ruleset, Table, TableKind};
use crate::names::Hosts;

use ahead::Lines;
use build::TableBuilder;
use line::Line;
use reader::{Chains, Reader};
use words::Word;

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
fn parse_by<'t>(text: &'t [u8], options: &'t ParseOptions, read: impl FnOnce(&mut Parser<'t>)) -> Parsed {
    let family = options.family.unwrap_or_else(|| family::detect(text));
    let mut parser = Parser {
        reader: Reader::new(text, family, options),
        tables: Vec::new(),
        current: None,
        counts: Counts { rules: 0, chains: 0, edit_steps: 0 },
    };
    read(&mut parser);
    parser.end_of_text();
    let ruleset = Ruleset { family, tables: parser.tables };
    Parsed { ruleset, faults: parser.reader.faults.finish() }
}

/// What is counted against the limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) rules: usize,
    pub(crate) chains: usize,
    pub(crate) edit_steps: u64,
}

/// The state of one [`parse`].
pub(crate) struct Parser<'t> {
    pub(crate) reader: Reader<'t>,
    /// Tables that are committed.
    tables: Vec<Table>,
    /// The table being read.
    pub(crate) current: Option<TableBuilder>,
    pub(crate) counts: Counts,
}

impl<'t> Parser<'t> {
    /// Notes an error of the current line.
    pub(crate) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.reader.error(span, message, help);
    }

    /// Notes a warning of the current line.
    pub(crate) fn warn(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.reader.warn(span, message, help);
    }

    fn read(&mut self) {
        let text = self.reader.text;
        let max = self.reader.options.text_bytes_max;
        if text.len() > max {
            let message = format!("text of {} bytes is above {max}", text.len());
            let help = Some("raise text_bytes_max".into());
            self.reader.fault(Severity::Error, (1, 0), 0..0, message, help);
            return;
        }
        match std::str::from_utf8(text) {
            Ok(sound) if memchr::memchr(0, text).is_none() => self.read_ahead(sound, ahead::STRETCH_BYTES),
            _ => self.read_lines(Lines { span: 0..text.len(), before: 0 }),
        }
    }

    /// Reads lines and does what they say, one after the other.
    fn read_lines(&mut self, lines: Lines) {
        let text = self.reader.text;
        let mut words = Vec::new();
        self.reader.line = lines.before;
        let mut start = lines.span.start;
        while start < lines.span.end {
            let end = line_end(text, start);
            self.reader.line = self.reader.line.saturating_add(1);
            self.reader.line_start = start;
            self.read_line(start..end, &mut words);
            start = end + 1;
        }
    }

    fn read_line(&mut self, span: Range<usize>, words: &mut Vec<Word<'t>>) {
        let bytes = &self.reader.text[span.clone()];
        if bytes.is_empty() || bytes[0] == b'#' {
            return;
        }
        let max = self.reader.options.line_bytes_max;
        if bytes.len() > max {
            let message = format!("line of {} bytes is above {max}", bytes.len());
            self.error(span.start..span.start + 1, message, Some("split it into several rules".into()));
            return;
        }
        match self.as_text(bytes, span.start) {
            Cow::Borrowed(line) => self.read_text(line, span.start, words),
            Cow::Owned(line) => self.read_text(&line, span.start, &mut Vec::new()),
        }
    }

    /// The line as text; bytes that are none are faults, and stand as `?`.
    fn as_text<'b>(&mut self, bytes: &'b [u8], offset: usize) -> Cow<'b, str> {
        let sound = std::str::from_utf8(bytes);
        let nul = bytes.iter().position(|&b| b == 0);
        if let (Ok(line), None) = (sound, nul) {
            return Cow::Borrowed(line);
        }
        let mut clean = String::with_capacity(bytes.len());
        let mut at = offset;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                clean.push(if c == '\0' { '?' } else { c });
            }
            at += chunk.valid().len();
            let invalid = chunk.invalid();
            if !invalid.is_empty() {
                self.error(at..at + invalid.len(), "bytes that are no UTF-8", None);
                clean.extend(std::iter::repeat_n('?', invalid.len()));
                at += invalid.len();
            }
        }
        if let Some(nul) = nul {
            self.error(offset + nul..offset + nul + 1, "a NUL byte, at which the kernel's tools stop", None);
        }
        Cow::Owned(clean)
    }

    fn read_text<'b>(&mut self, line: &'b str, offset: usize, words: &mut Vec<Word<'b>>) {
        let line = match line.strip_suffix('\r') {
            Some(rest) => {
                self.carriage_return(offset + rest.len());
                rest
            }
            None => line,
        };
        match line.as_bytes().first() {
            None => {}
            Some(b'*') => self.table_line(line, offset),
            Some(b':') => self.chain_line(line, offset),
            Some(_) if line.trim_end_matches([' ', '\t']) == "COMMIT" => self.commit_line(line, offset),
            Some(_) => {
                if let Some(quote) = words::split(line, offset, words) {
                    self.error(
                        quote..quote + 1,
                        "a quote that nothing closes",
                        Some("add a \" at its end".into()),
                    );
                }
                self.command_line(line, words);
            }
        }
    }

    /// Said once a text: a file from another system has one on every line.
    fn carriage_return(&mut self, at: usize) {
        const MESSAGE: &str =
            "a carriage return ends the line, which the kernel's tools take for a part of it";
        if self.reader.faults.list.iter().any(|f| f.message == MESSAGE) {
            return;
        }
        self.error(at..at + 1, MESSAGE, Some("convert the file to Unix line ends".into()));
    }

    /// `*TABLE`
    fn table_line(&mut self, line: &str, offset: usize) {
        let name = line[1..].split([' ', '\t']).next().unwrap_or("");
        let span = offset..offset + 1 + name.len();
        if self.current.is_some() {
            let help = "put COMMIT before it";
            self.error(span.clone(), "a table begins before the one above is committed", Some(help.into()));
            self.commit();
        }
        let Some(kind) = TableKind::from_name(name) else {
            let names: Vec<&str> = TableKind::ALL.iter().map(|t| t.name()).collect();
            self.error(span, format!("`{name}` is no table"), Some(format!("one of {}", names.join(", "))));
            return;
        };
        self.current = Some(TableBuilder::new(kind, self.reader.line, offset));
    }

    /// `:CHAIN POLICY [packets:bytes]`
    fn chain_line(&mut self, line: &str, offset: usize) {
        let mut words = Vec::new();
        words::split(&line[1..], offset + 1, &mut words);
        let Some(name) = words.first() else {
            self.error(offset..offset + 1, "a chain without a name", None);
            return;
        };
        if !self.in_table(offset..name.span.end) {
            return;
        }
        let (policy, counters) = self.policy_and_counters(&words, offset..name.span.end);
        self.declare_chain(&name.text, name.span.clone(), policy, counters);
    }

    /// The policy as written (`None` for `-`), and the counters.
    fn policy_and_counters(&mut self, words: &[Word<'_>], span: Range<usize>) -> (Option<Policy>, Counters) {
        let policy = match words.get(1) {
            None => {
                let help = "write ACCEPT or DROP after a built-in chain, `-` after another";
                self.error(span, "a chain without a policy", Some(help.into()));
                None
            }
            Some(word) => match &*word.text {
                "-" => None,
                "ACCEPT" => Some(Policy::Accept),
                "DROP" => Some(Policy::Drop),
                other => {
                    let message = format!("`{other}` is no policy");
                    self.error(word.span.clone(), message, Some("one of ACCEPT, DROP, -".into()));
                    None
                }
            },
        };
        let counters = words.iter().skip(1).find(|w| w.text.starts_with('['));
        let counters = match counters {
            None => Counters::default(),
            Some(word) => match parse_counters(&word.text) {
                Some(counters) => counters,
                None => {
                    let message = format!("`{}` are no counters", word.text);
                    self.error(word.span.clone(), message, Some("write [packets:bytes]".into()));
                    Counters::default()
                }
            },
        };
        (policy, counters)
    }

    fn commit_line(&mut self, line: &str, offset: usize) {
        let span = offset..offset + line.len();
        if self.current.is_none() {
            self.error(
                span,
                "COMMIT without a table",
                Some("put a line such as *filter before the rules".into()),
            );
            return;
        }
        if span.end == self.reader.text.len() {
            let help = "end the file with a newline";
            self.error(
                span.clone(),
                "COMMIT without an end of line, which the kernel's tools do not take",
                Some(help.into()),
            );
        }
        if line != "COMMIT" {
            self.error(span, "blanks after COMMIT, which the kernel's tools do not take", None);
        }
        self.commit();
    }

    /// Whether a table is being read. When none is, `filter` is taken, which is said once.
    fn in_table(&mut self, span: Range<usize>) -> bool {
        if self.current.is_none() {
            let help = "put a line such as *filter before it; filter is assumed";
            self.error(span.clone(), "it stands in no table", Some(help.into()));
            self.current = Some(TableBuilder::new(TableKind::Filter, self.reader.line, span.start));
        }
        true
    }

    /// A line that is a rule or another command.
    fn command_line(&mut self, line: &str, words: &[Word<'_>]) {
        let Some(first) = words.first() else {
            let start = self.reader.line_start;
            let end = start + line.len();
            self.error(start..end, "a line of blanks is no command", Some("leave it empty".into()));
            return;
        };
        let is_command = first.text.starts_with(['-', '[']);
        if !is_command {
            let message = "it is neither a rule, nor a chain, nor a table, nor a comment".to_owned();
            let last = words.last().map_or(first.span.end, |w| w.span.end);
            self.error(first.span.start..last, message, Some("begin a comment with #".into()));
            return;
        }
        if !self.in_table(first.span.clone()) {
            return;
        }
        let mut line = Line::new(words, Chains::Of(self.current.as_ref()));
        let command = self.reader.command_line(&mut line);
        let draft = line.draft;
        if let Some(command) = command {
            self.carry_out(command, draft, line::whole(words));
        }
    }

    /// Ends the table being read.
    fn commit(&mut self) {
        let Some(builder) = self.current.take() else { return };
        let table = self.finish_table(builder);
        match self.tables.iter_mut().find(|t| t.kind == table.kind) {
            Some(earlier) => *earlier = table,
            None => self.tables.push(table),
        }
    }

    fn end_of_text(&mut self) {
        let Some(builder) = &self.current else { return };
        let (line, start, name) = (builder.line, builder.offset, builder.kind.name());
        let message = format!("table {name} is never committed");
        let end = start + 1 + name.len();
        let help = Some("end it with a line COMMIT".into());
        self.reader.fault(Severity::Error, (line, start), start..end, message, help);
        self.commit();
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
