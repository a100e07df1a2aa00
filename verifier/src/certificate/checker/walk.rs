//! The rules behind each entry, as the kernel walks them, beside the entry's flat rules.

use std::rc::Rc;

use hipac_classifier::EntryId;
use hipac_classifier::forest::Ref;
use hipac_classifier::image::EntryRecord;
use hipac_classifier::program::Op;
use hipac_rules::{Clause, Effect, Field, L4Need, Residual, Rule, Target, TargetMeaning, Test, ValueSet};

use super::forest::Place;
use super::{Alternatives, Asked, Checker, Clauses, Guide, Kind, Must, Question, Step};
use crate::agree::Compared;
use crate::certificate::{Refused, wrong};

/// A flat rule.
pub(crate) struct Flat {
    pub(crate) clauses: Clauses,
    pub(crate) checked: Vec<u32>,
    /// What satisfies it never looks for another flat rule before this position.
    pub(crate) until: u32,
    /// Where it leads when it matches.
    lands: u32,
    calls: Option<u32>,
    is_plain: bool,
    changes: bool,
    is_unfolded: bool,
}

/// The flat rules of an entry.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) record: EntryRecord,
    pub(crate) flats: Vec<Flat>,
    /// What has no flat rule, and before which position.
    pub(crate) absent: Vec<(u32, Clauses)>,
}

impl List {
    pub(crate) fn flat(&self, position: u32) -> Option<&Flat> {
        self.flats.get(position.checked_sub(self.record.first)? as usize)
    }

    fn changes(&self, changing: &[bool]) -> impl Fn(&Flat) -> bool {
        |flat| flat.changes || flat.calls.is_some_and(|entry| changing[entry as usize])
    }

    /// Says of each flat rule until where it hides others: where it leads itself, where a jump over it lands,
    /// and behind the next change of the packet.
    fn find_until(&mut self, changing: &[bool]) {
        let mut over = std::collections::BTreeSet::new();
        for (next, flat) in (self.record.first + 1..).zip(&mut self.flats) {
            over = over.split_off(&next);
            let own = if flat.is_plain { flat.lands } else { next };
            flat.until = own.min(over.first().copied().unwrap_or(u32::MAX));
            over.insert(flat.lands);
        }
        let (mut changed, mut next) = (u32::MAX, self.record.first + self.flats.len() as u32);
        let changes: Vec<bool> = self.flats.iter().map(self.changes(changing)).collect();
        for (flat, changes) in self.flats.iter_mut().zip(changes).rev() {
            flat.until = flat.until.min(changed).max(next);
            changed = if changes { next } else { changed };
            next -= 1;
        }
    }
}

/// A chain under way.
struct Frame {
    chain: usize,
    next: usize,
    path: Clauses,
    /// Where its end and RETURN lead, among the labels.
    label: usize,
    /// A rule has ended it for all packets: what follows may be missing.
    is_over: bool,
}

/// A list under way.
struct Walk {
    /// Position of its table.
    table: usize,
    /// Chain and number of the rule.
    here: (usize, usize),
    list: List,
    at: u32,
    is_over: bool,
    is_unfolded: bool,
    /// Positions; the first is the end.
    labels: Vec<u32>,
    /// Labels that flat rules lead to, and where they do.
    landings: Vec<(usize, u32)>,
}

/// What a flat rule must be: what it asks, each with what is looked at then, and how it ends.
#[derive(Clone, Default)]
struct Wanted {
    /// The first asks nothing.
    parts: Vec<(String, Clauses)>,
    drops: bool,
    verdict: Option<&'static str>,
    calls: Option<usize>,
    /// To a label, or on.
    label: Option<usize>,
    may_be_left_out: bool,
}

impl<B: AsRef<[u8]>, G: Guide> Checker<'_, B, G> {
    /// The lists of all entries that packets come to.
    pub(crate) fn lists(&mut self) -> Result<Vec<List>, Refused> {
        let image = self.on.image;
        for (t, table) in self.ruleset.tables.iter().enumerate() {
            for (c, chain) in table.chains.iter().enumerate().filter(|(_, chain)| chain.hook.is_some()) {
                let name = format!("{}/{}", table.kind.name(), chain.name);
                let entry = image.find_entry(&name).and_then(|id| Some((id, image.entry(id)?)));
                let Some((id, record)) = entry else { return wrong(format!("the image has no {name}")) };
                let end = image.verdict_name(record.default_verdict);
                if chain.policy.is_some_and(|policy| policy.name() != end) {
                    return wrong(format!("{name} does not end with its policy"));
                }
                self.enter(id.0, (t, c))?;
            }
        }
        if image.entries().filter(|(_, record, _)| !record.called).count() != self.meant.len() {
            return wrong("the image has other built-in chains");
        }
        let (mut lists, mut entries) = (vec![], vec![]);
        while let Some(entry) = self.waiting.pop() {
            lists.push(self.walk(entry)?);
            entries.push(entry);
        }
        // Entries in which something changes packets.
        let mut changing = vec![false; image.entry_count()];
        while let Some((_, &more)) = lists.iter().zip(&entries).find(|(list, entry)| {
            !changing[**entry as usize] && list.flats.iter().any(list.changes(&changing))
        }) {
            changing[more as usize] = true;
        }
        for list in &mut lists {
            // The rules behind it would test anew what the jump has tested of the packet as it was.
            if list.flats.iter().filter(|flat| flat.is_unfolded).any(list.changes(&changing)) {
                return wrong("an unfolded chain changes packets");
            }
            list.find_until(&changing);
        }
        Ok(lists)
    }

    fn enter(&mut self, entry: u32, chain: (usize, usize)) -> Result<(), Refused> {
        match self.meant.insert(entry, chain) {
            None => self.waiting.push(entry),
            Some(old) if old == chain => {}
            Some(_) => return wrong(format!("entry {entry} stands for two chains")),
        }
        Ok(())
    }

    /// The rules behind an entry beside its flat rules.
    fn walk(&mut self, entry: u32) -> Result<List, Refused> {
        let record =
            self.on.image.entry(EntryId(entry)).ok_or(Refused::Wrong("an entry is missing".into()))?;
        let (table, chain) = self.meant[&entry];
        let (list, at) = (List { record, flats: vec![], absent: vec![] }, record.first);
        let (is_over, is_unfolded, labels) = (false, false, vec![record.first + record.count]);
        let mut walk =
            Walk { table, here: (chain, 0), list, at, is_over, is_unfolded, labels, landings: vec![] };
        let chains = &self.ruleset.tables[table].chains;
        let mut frames = vec![Frame { chain, next: 0, path: vec![], label: 0, is_over }];
        while let Some(frame) = frames.last_mut() {
            walk.here = (frame.chain, frame.next);
            let Some(rule) = chains[frame.chain].rules.get(frame.next) else {
                if frame.label > 0 {
                    walk.labels[frame.label] = walk.at;
                }
                frames.pop();
                continue;
            };
            frame.next += 1;
            (walk.is_over, walk.is_unfolded) = (frame.is_over, frame.label > 0);
            let (path, label) = (frame.path.clone(), frame.label);
            let mut goes_on = true;
            if let Target::Extension(extension) = &rule.target {
                let meaning = extension.target_meaning(self.ruleset.family);
                goes_on = matches!(meaning, TargetMeaning::Continue(_));
            }
            frame.is_over |=
                !goes_on && rule.matches.is_empty() && rule.ip.tests(self.ruleset.family).is_empty();
            if let Some((chain, path)) = self.rule(&mut walk, rule, path, label)? {
                if frames.len() > chains.len() {
                    return wrong("chains jump in a circle");
                }
                walk.labels.push(walk.at);
                frames.push(Frame { chain, next: 0, path, label: walk.labels.len() - 1, is_over: false });
            }
        }
        if walk.at != walk.labels[0] {
            return wrong(format!("no rule wants position {}", walk.at));
        }
        match walk.landings.iter().find(|(label, to)| walk.labels[*label] != *to) {
            Some((_, to)) => wrong(format!("a flat rule leads to {to}, its rule elsewhere")),
            None => Ok(walk.list),
        }
    }

    /// What one rule wants. The chain to go on in, when it is unfolded, and what was tested on the way.
    fn rule(
        &mut self,
        walk: &mut Walk,
        rule: &Rule,
        mut path: Clauses,
        back: usize,
    ) -> Result<Option<(usize, Clauses)>, Refused> {
        let family = self.ruleset.family;
        path.extend(rule.ip.tests(family).into_iter().map(|test| Rc::new(vec![test])));
        let mut wanted = Wanted { parts: vec![(String::new(), path)], ..Wanted::default() };
        let mut pure: Vec<(String, Clauses)> = vec![];
        for (number, extension) in rule.matches.iter().enumerate() {
            let meaning = extension.match_meaning(family);
            let (drops, passes) = meaning.l4.states();
            if meaning.l4 != L4Need::default() && wanted.parts.len() == 1 {
                let mut cut = Wanted { drops: true, ..wanted.clone() };
                cut.parts[0].1.push(in_states(drops));
                cut.parts.extend(pure.iter().cloned());
                self.flat(walk, cut)?;
                wanted.parts[0].1.push(in_states(passes));
            } else if meaning.l4 != L4Need::default() {
                wanted.parts.push((format!("{:?}", Op::Need { drops, passes }), vec![]));
            }
            let to = wanted.parts.iter_mut().next_back().map(|(_, clauses)| clauses);
            to.into_iter().for_each(|to| to.extend(meaning.clauses.iter().cloned().map(Rc::new)));
            // Asked as the program says it. Its types are others, with the same names: texts that are derived of
            // both are alike only when the values are. What is pure is asked behind all that fields decide.
            let asks = |kind| (format!("Residual {{ match_index: {number}, kind: {kind:?} }}"), vec![]);
            match meaning.residual {
                None => {}
                Some(kind @ Residual::Pure) if wanted.parts.len() == 1 => pure.push(asks(kind)),
                Some(kind) => wanted.parts.extend(pure.drain(..).chain([asks(kind)])),
            }
        }
        wanted.parts.append(&mut pure);
        match &rule.target {
            Target::None => {
                // What is asked decides nothing when the rule only counts.
                let pure = |(asks, clauses): &(String, Clauses)| asks.contains("Pure") && clauses.is_empty();
                wanted.may_be_left_out = wanted.parts[1..].iter().all(pure);
            }
            Target::Jump(name) | Target::Goto(name) => {
                let chain = self.ruleset.tables[walk.table].chain_index(name);
                wanted.calls = Some(chain.ok_or(Refused::Wrong("a jump leads nowhere".into()))?);
                wanted.label = matches!(rule.target, Target::Goto(_)).then_some(back);
                // The rules of an unfolded chain would not ask it.
                wanted.may_be_left_out = wanted.label.is_none() && wanted.parts.len() == 1;
            }
            Target::Extension(extension) => match extension.target_meaning(family) {
                TargetMeaning::Verdict(name) => wanted.verdict = Some(name),
                TargetMeaning::Continue(Effect::None) => {}
                TargetMeaning::Continue(effect) => wanted.parts.push((format!("Effect({effect:?})"), vec![])),
                TargetMeaning::Return => wanted.label = Some(back),
            },
        }
        wanted.may_be_left_out &= self.checked.compared == Compared::Deciding && !walk.is_over;
        let calls = wanted.calls.filter(|_| wanted.label.is_none());
        let path = wanted.parts[0].1.clone();
        let is_unfolded = match self.flat(walk, wanted)? {
            Kind::Present => walk.list.flats.last().is_some_and(|flat| flat.calls.is_none()),
            kind => kind == Kind::Unfold,
        };
        Ok(calls.filter(|_| is_unfolded).map(|chain| (chain, path)))
    }

    /// The flat rule that something wants, or the step that says there is none.
    fn flat(&mut self, walk: &mut Walk, mut wanted: Wanted) -> Result<Kind, Refused> {
        let (at, end) = (walk.at, walk.labels[0]);
        let ops = if at < end { self.program(walk).unwrap_or_default() } else { vec![] };
        let clauses = wanted.parts[0].1.clone();
        let (drops, may_be_left_out) = (wanted.drops, wanted.may_be_left_out);
        let asked = Asked::Rule { ops: &ops, drops, clauses: &clauses, may_be_left_out };
        let step = self.step(&asked)?;
        match step.0 {
            Kind::Present => {}
            Kind::Absent => {
                walk.list.absent.extend((!walk.is_over).then_some((at, clauses)));
                return Ok(step.0);
            }
            Kind::Unfold if may_be_left_out => return Ok(step.0),
            _ => return wrong(format!("position {at} is not of the rule that stands there")),
        }
        let mut checked = vec![];
        for _ in 0..step.1 {
            match self.step(&asked)? {
                Step(Kind::Checks, n, _) if (n as usize) < clauses.len() => checked.push(n),
                _ => return wrong(format!("position {at}: its program looks at other clauses")),
            }
        }
        wanted.parts[0].1 = checked.iter().map(|&n| clauses[n as usize].clone()).collect();
        // What the program looks at, between what it asks and does.
        let mut parts: Vec<(String, Vec<Alternatives>)> = vec![(String::new(), vec![])];
        for op in ops.iter().take(ops.len().saturating_sub(1)) {
            match (op, parts.last_mut()) {
                (Op::Clause(clause), Some((_, clauses))) => clauses.push(clause.clone()),
                _ => parts.push((format!("{op:?}"), vec![])),
            }
        }
        let (calls, to) = match ops.last() {
            Some(Op::Continue) => (None, at + 1),
            Some(Op::Skip(to)) => (None, *to),
            Some(Op::Return) => (None, end),
            Some(Op::Call { entry, back }) => (Some(*entry), *back),
            _ => (None, u32::MAX),
        };
        let is_plain = ops.len() == 1;
        let is_right = match (ops.last(), wanted.label) {
            (Some(Op::Verdict(id)), _) => wanted.verdict == Some(self.on.image.verdict_name(*id)),
            (Some(Op::Malformed), _) => drops,
            _ if drops || wanted.verdict.is_some() || calls.is_some() && wanted.calls.is_none() => false,
            // What is unfolded has no program: the path behind it would not know.
            (_, label) if calls.is_none() && wanted.calls.is_some() => {
                label.is_none() && to == at + 1 && is_plain
            }
            (_, Some(label)) => {
                walk.landings.push((label, to));
                true
            }
            _ => to == at + 1,
        };
        let asks_the_same = wanted.parts.iter().zip(&parts).all(|(wanted, is)| wanted.0 == is.0);
        if !is_right || wanted.parts.len() != parts.len() || !asks_the_same {
            return wrong(format!("position {at} does something else than its rule"));
        }
        for ((_, clauses), (_, program)) in wanted.parts.iter().zip(&parts) {
            if !clauses.is_empty() || !program.is_empty() {
                let (list, must, root) = (&walk.list, Must::Be(program), Ref::EMPTY);
                let question = Question { list, root, position: at, clauses, checked: &[], must };
                let everything = self.on.space.axes.iter().map(|axis| axis.all).collect();
                self.derive(&question, everything, Place { at: root, gate: None })?;
            }
        }
        if let (Some(entry), Some(chain)) = (calls, wanted.calls) {
            self.enter(entry, (walk.table, chain))?;
        }
        let changes = parts.iter().any(|(name, _)| name.starts_with("Effect"));
        let (until, lands, is_unfolded) = (0, to, walk.is_unfolded);
        walk.list.flats.push(Flat { clauses, checked, until, lands, calls, is_plain, changes, is_unfolded });
        walk.at += 1;
        Ok(step.0)
    }

    /// The operations of the next flat rule, when it comes from this rule.
    fn program(&self, walk: &Walk) -> Option<Vec<Op>> {
        let origin = self.on.image.origin(self.on.image.flat(walk.at)?.1)?;
        let (table, (chain, number)) = (&self.ruleset.tables[walk.table], walk.here);
        let chain = &table.chains[chain];
        let (of_table, of_chain) = self.on.image.name(origin.list).split_once('/')?;
        let is_its = (of_table, of_chain) == (table.kind.name(), &*chain.name)
            && (origin.number as usize, origin.line) == (number + 1, chain.rules[number].line);
        self.on.image.operations(walk.at).filter(|_| is_its)
    }
}

/// The transport header is in one of these states.
fn in_states(states: u8) -> Rc<Clause> {
    let set = (0..7u32).filter(|s| states >> s & 1 == 1).map(|s| (s.into(), s.into())).collect();
    Rc::new(vec![Test { field: Field::L4, negated: false, set: ValueSet::Ranges(set) }])
}
