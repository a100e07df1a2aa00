//! Faults: what is wrong with a text, where, and what would mend it.
//!
//! A parser that stops at the first fault makes its user run it once per mistake. This one goes
//! on: each fault is placed by a byte span, and the rule it stands in is kept as far as its
//! meaning is clear. [`render`] shows faults as compilers do:
//!
//! ```text
//! error: port 65536 is above 65535
//!  --> rules.v4:3:25
//!   |
//! 3 | -A INPUT -p tcp --dport 65536 -j ACCEPT
//!   |                         ^^^^^
//! ```

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// How much a fault matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The kernel's tools load the text, but something about it deserves a look, or hipac knows
    /// less about it than they do.
    Warning,
    /// The kernel's tools refuse the text.
    Error,
}

impl Severity {
    /// `warning` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something wrong at a place of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How much it matters.
    pub severity: Severity,
    /// One sentence, without a full stop.
    pub message: String,
    /// The bytes of the text it is about.
    pub span: Range<usize>,
    /// Line of the first byte, from 1.
    pub line: u32,
    /// Column of the first byte in characters, from 1.
    pub column: u32,
    /// Characters underlined; at least 1.
    pub width: u32,
    /// What would mend it.
    pub help: Option<String>,
}

impl fmt::Display for Fault {
    /// `3:25: error: port 65536 is above 65535`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.line, self.column, self.severity.name(), self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// The faults found so far, and a count of those beyond the limit.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) list: Vec<Fault>,
    pub(crate) limit: usize,
    pub(crate) beyond: usize,
}

impl Faults {
    pub(crate) fn new(limit: usize) -> Faults {
        Faults { list: Vec::new(), limit, beyond: 0 }
    }

    /// None was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.beyond == 0
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.beyond = 0;
    }

    pub(crate) fn push(&mut self, fault: Fault) {
        if self.list.len() < self.limit {
            self.list.push(fault);
        } else {
            self.beyond += 1;
        }
    }

    /// The faults by their place, with a last one that counts those left out.
    pub(crate) fn finish(mut self) -> Vec<Fault> {
        self.list.sort_by_key(|f| (f.span.start, f.span.end));
        if self.beyond > 0 {
            let end = self.list.last().map_or(0..0, |f| f.span.clone());
            let (line, column) = self.list.last().map_or((1, 1), |f| (f.line, f.column));
            self.list.push(Fault {
                severity: Severity::Error,
                message: format!("and {} more faults", self.beyond),
                span: end,
                line,
                column,
                width: 1,
                help: None,
            });
        }
        self.list
    }
}

/// A span of a text, kept within it, with the column that it begins in, from 1, and how many
/// characters it is wide.
pub(crate) fn place_in(text: &[u8], span: &Range<usize>) -> (Range<usize>, u32, u32) {
    let start = span.start.min(text.len());
    let end = span.end.clamp(start, text.len());
    let line_start = text[..start].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let column = 1 + characters(&text[line_start..start]);
    (start..end, column, characters(&text[start..end]).max(1))
}

/// How many characters bytes are.
pub(crate) fn characters(bytes: &[u8]) -> u32 {
    let starts = bytes.iter().filter(|b| **b & 0xc0 != 0x80).count();
    u32::try_from(starts).unwrap_or(u32::MAX)
}

/// The longest piece of a line that [`render`] shows.
const SHOWN_BYTES_MAX: usize = 400;

/// One fault as text, underlined in its line. `source_name` is what the reader calls the text
/// (a file name), `text` the bytes that were parsed.
pub fn render(fault: &Fault, source_name: &str, text: &[u8]) -> String {
    let (shown, span) = shown_line(fault, text);
    let level = match fault.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let snippet = Snippet::source(shown.as_str())
        .path(source_name)
        .line_start(fault.line as usize)
        .annotation(AnnotationKind::Primary.span(span));
    let mut group: Group<'_> = level.primary_title(fault.message.as_str()).element(snippet);
    if let Some(help) = &fault.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Renderer::plain().render(&[group])
}

/// All faults as text, one under the other, with an empty line between.
pub fn render_all(faults: &[Fault], source_name: &str, text: &[u8]) -> String {
    let mut all = String::new();
    for fault in faults {
        if !all.is_empty() {
            all.push_str("\n\n");
        }
        all.push_str(&render(fault, source_name, text));
    }
    if !all.is_empty() {
        all.push('\n');
    }
    all
}

/// The line of a fault, cut to what a reader can take in, and the fault's span within it.
fn shown_line(fault: &Fault, text: &[u8]) -> (String, Range<usize>) {
    let at = fault.span.start.min(text.len());
    let line_start = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let line_end = text[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |i| at + i);
    let from = line_start.max(at.saturating_sub(SHOWN_BYTES_MAX / 2));
    let to = line_end.min(at.saturating_add(SHOWN_BYTES_MAX));
    let before = clean(&text[from..at]);
    let end = fault.span.end.clamp(at, to);
    let marked = clean(&text[at..end]);
    let after = clean(&text[end..to]);
    let span = before.len()..before.len() + marked.len();
    (before + &marked + &after, span)
}

/// Bytes as one line of printable text.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_underlined_in_its_line() {
        let text = b"*filter\n-A INPUT --dport 99999\nCOMMIT\n";
        let fault = Fault {
            severity: Severity::Error,
            message: "port 99999 is above 65535".into(),
            span: 25..30,
            line: 2,
            column: 18,
            width: 5,
            help: Some("ports are 0 to 65535".into()),
        };
        let shown = render(&fault, "rules.v4", text);
        assert!(shown.contains("rules.v4:2:18"), "{shown}");
        assert!(shown.contains("^^^^^"), "{shown}");
        assert!(shown.contains("ports are 0 to 65535"), "{shown}");
    }

    #[test]
    fn any_span_renders() {
        let text = "Ä\0\r\n\u{202e}xy".as_bytes();
        for start in 0..text.len() + 2 {
            for end in start..text.len() + 2 {
                let fault = Fault {
                    severity: Severity::Warning,
                    message: "m".into(),
                    span: start..end,
                    line: 1,
                    column: 1,
                    width: 1,
                    help: None,
                };
                let _ = render(&fault, "x", text);
            }
        }
    }
}
