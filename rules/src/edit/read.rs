//! From text to edits.

use std::ops::Range;

use crate::model::{Counters, Family, Policy, TableKind};
use crate::parse::ParseOptions;
use crate::parse::ahead::Lines;
use crate::parse::commands::Order;
use crate::parse::line::{self, Line};
use crate::parse::reader::{Chains, Reader};
use crate::parse::scan::{Parser, Sink};
use crate::parse::words;

use super::{Change, Edit, Group, ParsedEdits, Place};

/// Reads changes: what `iptables-restore --noflush` takes, and lines such as
/// `iptables -t nat -F OUTPUT`, as a shell has them, each of which is a group of its own.
///
/// Without a family in the options it is IPv4. The limits of the options hold for the text; the
/// one of rules holds for edits and their rules together.
///
/// ```
/// use hipac_rules::{ParseOptions, apply_all, parse, parse_edits};
///
/// let options = ParseOptions::default();
/// let rules = parse("*filter\n-A INPUT -j DROP\nCOMMIT\n", &options).ruleset;
/// let edits = parse_edits("iptables -I INPUT -p tcp --dport 22 -j ACCEPT\n", &options);
/// let changed = apply_all(&rules, edits.edits()).unwrap();
/// assert_eq!(changed.rule_count(), 2);
/// ```
pub fn parse_edits(text: impl AsRef<[u8]>, options: &ParseOptions) -> ParsedEdits {
    let family = options.family.unwrap_or(Family::V4);
    let text = text.as_ref();
    let reader = Reader::new(text, family, options);
    let mut parser = Parser { reader, to: Edits { groups: Vec::new(), open: None, count: 0 } };
    if parser.takes_length() {
        parser.read_lines(Lines { span: 0..text.len(), before: 0 });
        parser.end_of_text();
    }
    ParsedEdits { family, groups: parser.to.groups, faults: parser.reader.faults.finish() }
}

/// Edits while they are read.
struct Edits {
    groups: Vec<Group>,
    /// The group of the open table, which begins on a line, at a byte.
    open: Option<(Group, u32, usize)>,
    /// Edits and their rules so far.
    count: usize,
}

impl Sink for Edits {
    fn open(&self) -> Option<TableKind> {
        self.open.as_ref().map(|(group, ..)| group.table)
    }

    fn chains(&self) -> Chains<'_> {
        Chains::Assumed
    }

    fn begin(&mut self, table: TableKind, line: u32, offset: usize) {
        self.open = Some((Group { table, edits: Vec::new(), commit: Place::default() }, line, offset));
    }

    fn declare(
        parser: &mut Parser<'_, Edits>,
        name: &str,
        span: Range<usize>,
        policy: Option<Policy>,
        counters: Counters,
    ) {
        let change = Change::Declare { chain: parser.reader.name(name), policy, counters };
        let place = parser.place(span);
        parser.add(change, place);
    }

    fn carry_out(parser: &mut Parser<'_, Edits>, Order { change, place, .. }: Order) {
        parser.add(change, place);
    }

    fn commit(parser: &mut Parser<'_, Edits>, span: Range<usize>) {
        let commit = parser.place(span);
        if let Some((group, ..)) = parser.to.open.take() {
            parser.to.groups.push(Group { commit, ..group });
        }
    }

    fn other_line(parser: &mut Parser<'_, Edits>, line: &str, offset: usize) -> bool {
        let first = line.trim_start().split([' ', '\t']).next().unwrap_or("");
        let Some(family) = family_of_tool(first) else { return false };
        parser.shell_line(line, offset, family);
        true
    }
}

/// The family of a command such as `/sbin/ip6tables`.
fn family_of_tool(word: &str) -> Option<Family> {
    match word.rsplit('/').next()? {
        "iptables" | "iptables-legacy" | "iptables-nft" => Some(Family::V4),
        "ip6tables" | "ip6tables-legacy" | "ip6tables-nft" => Some(Family::V6),
        _ => None,
    }
}

impl Parser<'_, Edits> {
    /// A place of the current line.
    fn place(&self, span: Range<usize>) -> Place {
        Place {
            line: self.reader.line,
            whole: span.clone(),
            chain: span.clone(),
            argument: span.clone(),
            target: span,
        }
    }

    fn add(&mut self, change: Change, place: Place) {
        let max = self.reader.options.rule_count_max;
        self.to.count += 1 + change.rules().len();
        if self.to.count > max {
            let message = format!("the text is above the limit of {max} changes and rules");
            self.error(place.whole, message, Some("raise rule_count_max".into()));
        } else if let Some((group, ..)) = &mut self.to.open {
            group.edits.push(Edit { table: group.table, change, place });
        }
    }

    /// `iptables -t TABLE …`
    fn shell_line(&mut self, line: &str, offset: usize, family: Family) {
        let whole = offset..offset + line.len();
        if let Some((group, ..)) = &self.to.open {
            let message = format!("a command of a shell stands within table {}", group.table.name());
            self.error(whole, message, Some("put COMMIT before it".into()));
            return;
        }
        if family != self.reader.family {
            let message =
                format!("a command for {} changes rules for {}", family.name(), self.reader.family.name());
            self.error(whole, message, None);
            return;
        }
        let mut words = Vec::new();
        if let Err((span, message)) = words::split_shell(line, offset, &mut words) {
            self.error(span, message, None);
            return;
        }
        let words = &words[1..];
        if words.is_empty() {
            self.error(whole, "the line has no command", None);
            return;
        }
        let mut line = Line::of_shell(words, Chains::Assumed);
        let Some(command) = self.reader.command_line(&mut line) else { return };
        let (table, span) = line.table.flatten().unwrap_or(("filter", whole));
        let Some(kind) = TableKind::from_name(table) else {
            let names: Vec<&str> = TableKind::ALL.iter().map(|t| t.name()).collect();
            let help = format!("one of {}", names.join(", "));
            self.error(span, format!("`{table}` is no table"), Some(help));
            return;
        };
        let (draft, whole) = (line.draft, line::whole(words));
        if let Some(order) = self.reader.order(kind, command, draft, whole.clone()) {
            self.to.begin(kind, self.reader.line, whole.start);
            Edits::carry_out(self, order);
            Edits::commit(self, whole);
        }
    }

    fn end_of_text(&mut self) {
        let Some((group, line, start)) = &self.to.open else { return };
        let (kind, line, start) = (group.table, *line, *start);
        self.never_committed(kind, line, start);
        Edits::commit(self, start..start);
    }
}
