//! Reading ahead: the rules of a stretch of text, before anything is known of the lines above it.
//!
//! ```text
//!   text   │ *filter, :chains │ -A a … │ -A a … │ -A b … │ -I a … │ -A b … │
//!   pieces │     in turn      │     run of a    │ run b  │in turn │ run b  │
//! ```
//!
//! Nearly every line of a dump appends a rule, and what such a line says does not hang on other
//! lines but for three things: a table is open, the chains it names are there, and match, target
//! and interfaces may stand there. So lines are read by several threads, a batch of the text at a
//! time, and applied in their order once those three are known.
//!
//! **Invariant:** a run is applied as a whole only when each of its lines, read in its turn, would
//! do the same without a fault. In every other case its lines *are* read in their turn: what a
//! text means, and its faults, hang neither on the stretches nor on the threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::model::{Hook, Rule, TableKind, Target};

use super::Tables;
use super::build::leads_to;
use super::commands::{forbids_interface, may_stand};
use super::line::{Line, whole};
use super::reader::{Chains, Reader};
use super::scan::Parser;
use super::words::{self, Word};

/// Bytes of the text that one thread reads at a time: what it makes of them stays in its cache.
pub(super) const STRETCH_BYTES: usize = 256 << 10;

/// Shorter stretches are not worth the trouble.
const STRETCH_BYTES_MIN: usize = 32 << 10;

/// Whole lines of the text.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) span: Range<usize>,
    /// The number of the line before the first.
    pub(crate) before: u32,
}

/// A piece of a stretch.
#[derive(Debug)]
pub(crate) struct Piece<'t> {
    lines: Lines,
    /// The chain that its lines add `rules` rules to; `None`: its lines are to be read in turn.
    run: Option<(&'t str, usize)>,
}

/// Reads stretches of a text of sound characters, and keeps what the last one says. One a thread.
struct Ahead<'t> {
    reader: Reader<'t>,
    text: &'t str,
    pieces: Vec<Piece<'t>>,
    /// The rules of all runs.
    rules: Vec<Rule>,
}

impl<'t> Ahead<'t> {
    fn read(&mut self, lines: Lines) {
        let mut words = Vec::new();
        self.pieces.clear();
        self.reader.line = lines.before;
        let mut start = lines.span.start;
        while start < lines.span.end {
            let end = super::line_end(self.text.as_bytes(), start);
            self.reader.line = self.reader.line.saturating_add(1);
            self.reader.line_start = start;
            let line = &self.text[start..end];
            let next = (end + 1).min(lines.span.end);
            match line.as_bytes().first() {
                None | Some(b'#') => self.extend(next),
                Some(b'-' | b'[') if line.len() <= self.reader.options.line_bytes_max => {
                    let run = self.rules_of(line, start, &mut words);
                    self.add(start..next, run);
                }
                _ => self.add(start..next, None),
            }
            start = next;
        }
    }

    /// The chain that a line adds rules to, and how many. `None`: it does something else, or has
    /// a fault.
    fn rules_of(
        &mut self,
        line: &'t str,
        offset: usize,
        words: &mut Vec<Word<'t>>,
    ) -> Option<(&'t str, usize)> {
        if line.ends_with('\r') || words::split(line, offset, words).is_some() {
            return None;
        }
        let before = self.rules.len();
        let chain = self.append(words);
        if chain.is_none() || !self.reader.faults.is_empty() {
            self.reader.faults.clear();
            self.rules.truncate(before);
            return None;
        }
        // The chain's name as a piece of the text; one in quotes is not worth the trouble.
        let chain = chain?;
        Some((line.get(chain.start - offset..chain.end - offset)?, self.rules.len() - before))
    }

    /// Reads `-A CHAIN …` and says where the chain's name stands.
    fn append(&mut self, words: &[Word<'_>]) -> Option<Range<usize>> {
        let mut line = Line::new(words, Chains::Assumed);
        let command = self.reader.command_line(&mut line)?;
        if command.letter != 'A' || command.chain?.len() != command.span.len() {
            return None;
        }
        self.reader.finish_rules(&mut line.draft, whole(words), &mut self.rules);
        Some(command.span)
    }

    /// Lines that say nothing go to the piece before them.
    fn extend(&mut self, end: usize) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.lines.span.end = end;
        }
    }

    fn add(&mut self, span: Range<usize>, run: Option<(&'t str, usize)>) {
        if let Some(piece) = self.pieces.last_mut() {
            let joins = match (&mut piece.run, run) {
                (None, None) => true,
                (Some((chain, rules)), Some((name, more))) if *chain == name => {
                    *rules += more;
                    true
                }
                _ => false,
            };
            if joins {
                piece.lines.span.end = span.end;
                return;
            }
        }
        let before = self.reader.line - 1;
        self.pieces.push(Piece { lines: Lines { span, before }, run });
    }
}

impl<'t> Parser<'t, Tables> {
    /// Reads a text of sound characters: ahead, batch by batch, and each batch then in order.
    pub(super) fn read_ahead(&mut self, text: &'t str, stretch_bytes: usize) {
        let threads = rayon::current_num_threads();
        // A short text has a stretch for each thread, too, if that is worth the trouble.
        let stretch_bytes = stretch_bytes.min((text.len() / (2 * threads)).max(STRETCH_BYTES_MIN));
        let threads = if text.len() <= stretch_bytes { 1 } else { threads };
        let (options, family) = (self.reader.options, self.reader.family);
        let ahead = |_| {
            let reader = Reader::new(text.as_bytes(), family, options);
            Ahead { reader, text, pieces: Vec::new(), rules: Vec::new() }
        };
        // While one half of the readers' stretches is applied, the other half reads on.
        let mut readers: Vec<Ahead<'t>> = (0..2 * threads).map(ahead).collect();
        let (mut applied, mut reading) = readers.split_at_mut(threads);
        let mut next = Lines { span: 0..0, before: 0 };
        let mut waiting = 0;
        loop {
            let stretch = |_: &Ahead<'t>| stretch(text.as_bytes(), stretch_bytes, &mut next);
            let batch: Vec<Lines> = reading.iter().map_while(stretch).collect();
            let count = batch.len();
            let mut apply = || applied[..waiting].iter_mut().for_each(|reader| self.apply(reader));
            let read = || match (&mut *reading, &batch[..]) {
                (_, []) => {}
                ([reader, ..], [lines]) => reader.read(lines.clone()),
                (readers, _) => {
                    let pairs = readers.par_iter_mut().zip(batch);
                    pairs.for_each(|(reader, lines)| reader.read(lines));
                }
            };
            match (waiting, count) {
                (0, 0) => break,
                (0, _) => read(),
                (_, 0) => apply(),
                _ => drop(rayon::join(apply, read)),
            }
            waiting = count;
            std::mem::swap(&mut applied, &mut reading);
        }
    }

    /// Does what a stretch says.
    fn apply(&mut self, ahead: &mut Ahead<'t>) {
        let mut rules = ahead.rules.drain(..);
        for Piece { lines, run } in ahead.pieces.drain(..) {
            let Some((chain, count)) = run else {
                self.read_lines(lines);
                continue;
            };
            let chain = self.takes(chain, &rules.as_slice()[..count]);
            let run = rules.by_ref().take(count);
            match chain {
                Some(chain) => self.append(chain, run, lines.span),
                None => {
                    run.for_each(drop);
                    self.read_lines(lines);
                }
            }
        }
    }

    /// The chain of that name, when it takes these rules and none of them is at fault.
    fn takes(&self, chain: &str, rules: &[Rule]) -> Option<u32> {
        let room = self.reader.options.rule_count_max.saturating_sub(self.to.counts.rules);
        let table = self.to.current.as_ref()?;
        let index = table.index(chain)?;
        let (kind, hook) = (table.kind, table.chains[index as usize].hook);
        let leads_well = |rule| {
            leads_to(rule).is_none_or(|name| table.chain(name).is_some_and(|chain| chain.hook.is_none()))
        };
        let is_sound =
            rules.len() <= room && rules.iter().all(|rule| leads_well(rule) && stands_well(rule, kind, hook));
        is_sound.then_some(index)
    }

    /// Puts a run's rules at the end of a chain, and makes room for more of them when it seems that
    /// the rest of the text is the same.
    fn append(&mut self, chain: u32, rules: impl ExactSizeIterator<Item = Rule>, span: Range<usize>) {
        let Some(table) = self.to.current.as_mut() else { return };
        let (bytes, count) = (span.len(), rules.len());
        let left = self.reader.text.len() - span.end;
        let more = if bytes < STRETCH_BYTES / 2 { 0 } else { left / (bytes / count.max(1)).max(1) };
        if table.append(chain, rules, more) {
            self.to.counts.rules += count;
        }
    }
}

/// Nothing of the rule is forbidden where it stands.
fn stands_well(rule: &Rule, kind: TableKind, hook: Option<Hook>) -> bool {
    let forbidden = |letter| hook.is_some_and(|hook| forbids_interface(hook, letter));
    let target = match &rule.target {
        Target::Extension(target) => Some(target),
        _ => None,
    };
    (rule.ip.in_interface.name.is_none() || !forbidden('i'))
        && (rule.ip.out_interface.name.is_none() || !forbidden('o'))
        && rule.matches.iter().chain(target).all(|e| e.known_spec().is_none_or(|s| may_stand(s, kind, hook)))
}

/// The next stretch of about so many bytes: whole lines behind the last one, which it replaces.
fn stretch(text: &[u8], bytes: usize, last: &mut Lines) -> Option<Lines> {
    let start = last.span.end;
    if start >= text.len() {
        return None;
    }
    let end = super::line_end(text, (start + bytes).min(text.len()));
    let end = (end + 1).min(text.len());
    let before = last.before.saturating_add(line_count(&text[last.span.clone()]));
    *last = Lines { span: start..end, before };
    Some(last.clone())
}

fn line_count(text: &[u8]) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', text).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::{ParseOptions, parse_by};

    /// Lines that hang on each other, sound and not.
    const LINES: &[&str] = &[
        "*filter",
        "*nat",
        "COMMIT",
        ":one - [0:0]",
        ":two - [0:0]",
        "# nothing",
        "",
        "-A INPUT -j ACCEPT",
        "-A INPUT -s 10.0.0.0/8,192.168.0.0/16 -d 1.1.1.1,2.2.2.2 -p tcp --dport 80 -j DROP",
        "[3:4] -A one -p udp -m udp --sport 53 -i eth0 -j two",
        "-A one -o eth1 -j RETURN",
        "-A INPUT -o eth1 -j RETURN",
        "-A two -g one",
        "-A two -j INPUT",
        "-A two -j nowhere --with words",
        "-A nowhere -j one",
        "-A \"one\" -m comment --comment \"a b\" -j DROP",
        "-A one -j DNAT --to-destination 1.2.3.4",
        "-A one -j REJECT",
        "-4 -A one -j ACCEPT",
        "-6 -A one -j ACCEPT",
        "-A one -p tcp -j",
        "-A one -m unheard-of --of it -j ACCEPT",
        "-A one -p tcp --dport 70000 -j ACCEPT\r",
        "-I one 1 -s 3.3.3.3 -j two",
        "-D one 1",
        "-D INPUT -j ACCEPT",
        "-R one 1 -j DROP",
        "-F one",
        "-X two",
        "-E one three",
        "-Z",
        "-P INPUT DROP",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_read_ahead_means_the_same_as_what_is_read_in_turn(
            lines in prop::collection::vec(prop::sample::select(LINES), 0..40),
            stretch_bytes in prop_oneof![Just(1usize), 20usize..600],
            is_in_table: bool,
            fault_count_max in prop_oneof![Just(0usize), Just(3), Just(1000)],
            rule_count_max in prop_oneof![Just(4usize), Just(1000)],
        ) {
            let head = if is_in_table { "*filter\n:one - [0:0]\n:two - [0:0]\n" } else { "" };
            let text = head.to_owned() + &lines.join("\n");
            let options = ParseOptions { fault_count_max, rule_count_max, ..ParseOptions::default() };
            let whole = Lines { span: 0..text.len(), before: 0 };
            let in_turn = parse_by(text.as_bytes(), &options, |parser| parser.read_lines(whole));
            let ahead = parse_by(text.as_bytes(), &options, |parser| parser.read_ahead(&text, stretch_bytes));
            prop_assert_eq!(in_turn.faults, ahead.faults, "{}", text);
            prop_assert_eq!(in_turn.ruleset, ahead.ruleset, "{}", text);
        }
    }
}
