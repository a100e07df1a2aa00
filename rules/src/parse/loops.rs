//! Loops between chains.
//!
//! The kernel refuses a table in which a chain that a packet can reach leads back to itself.
//! The search is depth-first with a stack of its own, so depth costs memory and no stack frames;
//! each chain is walked once.

use crate::fault::Severity;
use crate::model::{IpPart, Name, Rule, Target};

use super::Parser;
use super::build::{TableBuilder, leads_to};

/// Loops named one by one; more are rarely read.
const LOOPS_REPORTED_MAX: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    Open,
    Done,
}

/// A rule that closes a loop: its line, and the chains from where it leads to where it stands.
struct Closing {
    line: u32,
    chains: Vec<Name>,
    reachable: bool,
}

impl Parser<'_> {
    /// Reports loops: those that packets can reach as errors, others as warnings.
    pub(crate) fn report_loops(&mut self, table: &TableBuilder) {
        let found = find(table);
        if found.is_empty() {
            return;
        }
        let starts = line_starts(self.reader.text);
        for closing in found {
            let way: Vec<&str> = closing.chains.iter().take(8).map(|n| &**n).collect();
            let dots = if closing.chains.len() > 8 { " → …" } else { "" };
            let message = format!("the rule closes a loop: {}{dots} → {}", way.join(" → "), way[0]);
            let start = starts.get(closing.line.saturating_sub(1) as usize).copied().unwrap_or(0);
            let length = self.reader.text[start..].iter().position(|&b| b == b'\n');
            let end = length.map_or(self.reader.text.len(), |l| start + l);
            let (severity, help) = if closing.reachable {
                (Severity::Error, None)
            } else {
                (Severity::Warning, Some("no packet reaches these chains".into()))
            };
            self.reader.fault(severity, (closing.line, start), start..end, message, help);
        }
    }
}

fn line_starts(text: &[u8]) -> Vec<usize> {
    let after = text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    std::iter::once(0).chain(after).collect()
}

fn find(table: &TableBuilder) -> Vec<Closing> {
    let mut marks = vec![Mark::Unseen; table.chains.len()];
    let mut found = Vec::new();
    let built_in = table.kind.hooks().len();
    for start in 0..table.chains.len() {
        walk(table, start, start < built_in, &mut marks, &mut found);
    }
    found
}

/// No packet goes on behind the rule, as the kernel's own search sees it: only a rule that tests
/// nothing counts, and of the targets only the built-in ones.
fn ends_chain(rule: &Rule) -> bool {
    let Target::Extension(target) = &rule.target else { return false };
    if !rule.matches.is_empty() {
        return false;
    }
    let is_end = matches!(target.name(), "ACCEPT" | "DROP" | "QUEUE" | "RETURN");
    is_end && rule.ip == IpPart::default()
}

/// Walks from a chain; the stack holds chains and how many of their rules are done.
fn walk(table: &TableBuilder, start: usize, reachable: bool, marks: &mut [Mark], found: &mut Vec<Closing>) {
    if marks[start] != Mark::Unseen {
        return;
    }
    marks[start] = Mark::Open;
    let mut stack = vec![(start, 0usize)];
    while let Some((chain, done)) = stack.last_mut() {
        let draft = &table.chains[*chain];
        let Some(rule) = draft.rules.get(*done) else {
            marks[*chain] = Mark::Done;
            stack.pop();
            continue;
        };
        *done += 1;
        if ends_chain(rule) {
            *done = draft.rules.len();
        }
        let Some(next) = leads_to(rule).and_then(|name| table.index(name)) else { continue };
        let next = next as usize;
        match marks[next] {
            Mark::Done => {}
            Mark::Unseen => {
                marks[next] = Mark::Open;
                stack.push((next, 0));
            }
            Mark::Open if found.len() < LOOPS_REPORTED_MAX => {
                let from = stack.iter().position(|(c, _)| *c == next).unwrap_or(0);
                let chains =
                    stack[from..].iter().take(9).map(|(c, _)| table.chains[*c].name.clone()).collect();
                found.push(Closing { line: rule.line, chains, reachable });
            }
            Mark::Open => {}
        }
    }
}
