//! Lines in turn: what kind each is, and who does what it says.
//!
//! The lines of a ruleset and those of a text of changes are the same language. They are read
//! here, once, and handed to a [`Sink`]: tables being built, or edits being noted.

use std::borrow::Cow;
use std::ops::Range;

use crate::fault::Severity;
use crate::model::{Counters, Policy, TableKind};

use super::ahead::Lines;
use super::commands::Order;
use super::line::{self, Line};
use super::reader::{Chains, Reader};
use super::words::{self, Word};
use super::{line_end, parse_counters};

/// The state of reading a text.
pub(crate) struct Parser<'t, S> {
    pub(crate) reader: Reader<'t>,
    pub(crate) to: S,
}

/// Who does what lines say.
pub(crate) trait Sink: Sized {
    /// The table that is open.
    fn open(&self) -> Option<TableKind>;

    /// Where a `-j` or `-g` may lead.
    fn chains(&self) -> Chains<'_>;

    /// `*TABLE`, whose line begins at a byte.
    fn begin(&mut self, kind: TableKind, line: u32, offset: usize);

    /// `:CHAIN POLICY [counters]`
    fn declare(
        parser: &mut Parser<'_, Self>,
        name: &str,
        span: Range<usize>,
        policy: Option<Policy>,
        counters: Counters,
    );

    /// A command of the open table.
    fn carry_out(parser: &mut Parser<'_, Self>, order: Order);

    /// COMMIT, which stands at a place; or what stands there needs one before it.
    fn commit(parser: &mut Parser<'_, Self>, span: Range<usize>);

    /// A line that begins with none of the signs of a ruleset's lines; `false`: it is no business
    /// of this sink.
    fn other_line(parser: &mut Parser<'_, Self>, line: &str, offset: usize) -> bool {
        _ = (parser, line, offset);
        false
    }
}

impl<S: Sink> Parser<'_, S> {
    /// Notes an error of the current line.
    pub(crate) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.reader.error(span, message, help);
    }

    /// Notes a warning of the current line.
    pub(crate) fn warn(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.reader.warn(span, message, help);
    }

    /// Whether the text is short enough to be read; it is a fault when not.
    pub(crate) fn takes_length(&mut self) -> bool {
        let (length, max) = (self.reader.text.len(), self.reader.options.text_bytes_max);
        if length > max {
            let message = format!("text of {length} bytes is above {max}");
            let help = Some("raise text_bytes_max".into());
            self.reader.fault(Severity::Error, (1, 0), 0..0, message, help);
        }
        length <= max
    }

    /// Reads lines and does what they say, one after the other.
    pub(crate) fn read_lines(&mut self, lines: Lines) {
        let text = self.reader.text;
        let mut words = Vec::new();
        self.reader.line = lines.before;
        let mut start = lines.span.start;
        while start < lines.span.end {
            let end = line_end(text, start);
            self.reader.line = self.reader.line.saturating_add(1);
            self.reader.line_start = start;
            self.read_line(&text[start..end], start, &mut words);
            start = end + 1;
        }
    }

    fn read_line<'b>(&mut self, bytes: &'b [u8], offset: usize, words: &mut Vec<Word<'b>>) {
        if bytes.is_empty() || bytes[0] == b'#' {
            return;
        }
        let max = self.reader.options.line_bytes_max;
        if bytes.len() > max {
            let message = format!("line of {} bytes is above {max}", bytes.len());
            self.error(offset..offset + 1, message, Some("split it into several rules".into()));
            return;
        }
        match self.as_text(bytes, offset) {
            Cow::Borrowed(line) => self.read_text(line, offset, words),
            Cow::Owned(line) => self.read_text(&line, offset, &mut Vec::new()),
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
            Some(first) if !matches!(first, b'-' | b'[') && S::other_line(self, line, offset) => {}
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
        if self.to.open().is_some() {
            let help = "put COMMIT before it";
            self.error(span.clone(), "a table begins before the one above is committed", Some(help.into()));
            S::commit(self, span.clone());
        }
        let Some(kind) = TableKind::from_name(name) else {
            let names: Vec<&str> = TableKind::ALL.iter().map(|t| t.name()).collect();
            self.error(span, format!("`{name}` is no table"), Some(format!("one of {}", names.join(", "))));
            return;
        };
        self.to.begin(kind, self.reader.line, offset);
    }

    /// `:CHAIN POLICY [packets:bytes]`
    fn chain_line(&mut self, line: &str, offset: usize) {
        let mut words = Vec::new();
        words::split(&line[1..], offset + 1, &mut words);
        let Some(name) = words.first() else {
            self.error(offset..offset + 1, "a chain without a name", None);
            return;
        };
        self.in_table(offset..name.span.end);
        let (policy, counters) = self.policy_and_counters(&words, offset..name.span.end);
        S::declare(self, &name.text, name.span.clone(), policy, counters);
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
        if self.to.open().is_none() {
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
            self.error(span.clone(), "blanks after COMMIT, which the kernel's tools do not take", None);
        }
        S::commit(self, span);
    }

    /// Makes sure that a table is open. When none is, `filter` is taken, which is said once.
    fn in_table(&mut self, span: Range<usize>) {
        if self.to.open().is_none() {
            let help = "put a line such as *filter before it; filter is assumed";
            self.error(span.clone(), "it stands in no table", Some(help.into()));
            self.to.begin(TableKind::Filter, self.reader.line, span.start);
        }
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
        self.in_table(first.span.clone());
        let Some(kind) = self.to.open() else { return };
        let mut line = Line::new(words, self.to.chains());
        let command = self.reader.command_line(&mut line);
        let draft = line.draft;
        if let Some(command) = command
            && let Some(order) = self.reader.order(kind, command, draft, line::whole(words))
        {
            S::carry_out(self, order);
        }
    }

    /// Notes that the table which began at a byte of a line has no COMMIT.
    pub(crate) fn never_committed(&mut self, kind: TableKind, line: u32, start: usize) {
        let name = kind.name();
        let message = format!("table {name} is never committed");
        let end = start + 1 + name.len();
        let help = Some("end it with a line COMMIT".into());
        self.reader.fault(Severity::Error, (line, start), start..end, message, help);
    }
}
