//! Loops between chains.
//!
//! The kernel refuses a table in which a chain that a packet can reach leads back to itself.
//! The search is depth-first with a stack of its own, so depth costs memory and no stack frames;
//! each chain is walked once.

use crate::fault::Severity;
use crate::model::{IpPart, Name, Rule, Table, Target};

use super::Tables;
use super::build::{TableBuilder, leads_to};
use super::scan::Parser;

/// Loops named one by one; more are rarely read.
const LOOPS_REPORTED_MAX: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    Open,
    Done,
}

/// A rule that closes a loop.
pub(crate) struct Closing {
    /// Its chain and position.
    pub(crate) chain: usize,
    pub(crate) at: usize,
    line: u32,
    /// The chains from where it leads to where it stands, at most nine.
    pub(crate) chains: Vec<Name>,
    /// Packets can get there.
    pub(crate) reachable: bool,
}

/// Chains by number, built-in ones first, and rules that lead from one to another.
pub(crate) trait Graph {
    fn chain_count(&self) -> usize;
    fn built_in_count(&self) -> usize;
    fn index(&self, name: &str) -> Option<usize>;
    fn name(&self, chain: usize) -> &Name;
    fn rule(&self, chain: usize, at: usize) -> Option<&Rule>;
}

impl Graph for Table {
    fn chain_count(&self) -> usize {
        self.chains.len()
    }

    fn built_in_count(&self) -> usize {
        self.chains.iter().take_while(|c| c.hook.is_some()).count()
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.chain_index(name)
    }

    fn name(&self, chain: usize) -> &Name {
        &self.chains[chain].name
    }

    fn rule(&self, chain: usize, at: usize) -> Option<&Rule> {
        self.chains[chain].rules.get(at)
    }
}

impl Parser<'_, Tables> {
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

/// Where each line begins.
pub(super) fn line_starts(text: &[u8]) -> Vec<usize> {
    let after = text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    std::iter::once(0).chain(after).collect()
}

/// Rules that close loops. Costs a pass over the rules.
pub(crate) fn find(table: &impl Graph) -> Vec<Closing> {
    let mut marks = vec![Mark::Unseen; table.chain_count()];
    let mut found = Vec::new();
    let built_in = table.built_in_count();
    for start in 0..table.chain_count() {
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
fn walk(table: &impl Graph, start: usize, reachable: bool, marks: &mut [Mark], found: &mut Vec<Closing>) {
    if marks[start] != Mark::Unseen {
        return;
    }
    marks[start] = Mark::Open;
    let mut stack = vec![(start, 0usize)];
    while let Some((chain, done)) = stack.last_mut() {
        let (from, at) = (*chain, *done);
        let Some(rule) = table.rule(from, at) else {
            marks[*chain] = Mark::Done;
            stack.pop();
            continue;
        };
        *done += 1;
        if ends_chain(rule) {
            *done = usize::MAX;
        }
        let Some(next) = leads_to(rule).and_then(|name| table.index(name)) else { continue };
        match marks[next] {
            Mark::Done => {}
            Mark::Unseen => {
                marks[next] = Mark::Open;
                stack.push((next, 0));
            }
            Mark::Open if found.len() < LOOPS_REPORTED_MAX => {
                let line = rule.line;
                let first = stack.iter().position(|(c, _)| *c == next).unwrap_or(0);
                let chains = stack[first..].iter().take(9).map(|(c, _)| table.name(*c).clone()).collect();
                found.push(Closing { chain: from, at, line, chains, reachable });
            }
            Mark::Open => {}
        }
    }
}
