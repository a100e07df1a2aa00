//! The rules behind each entry, as the kernel walks them, beside the entry's flat rules.

use std::rc::Rc;

use hipac_classifier::EntryId;
use hipac_classifier::forest::Ref;
use hipac_classifier::image::{EntryRecord, Flat as FlatRecord, Section};
use hipac_classifier::program::{Op, Reader};
use hipac_rules::{
    Clause, Effect, Field, FragmentTest, IpPart, L4Need, Residual, Rule, Target, TargetMeaning,
};
use hipac_rules::{Test, ValueSet};

use super::forest::Place;
use super::{Alternatives, Asked, Checker, Clauses, Guide, Kind, Must, Question};
use crate::agree::Compared;
use crate::certificate::{Refused, wrong};

/// A flat rule.
pub(in crate::certificate) struct Flat {
    pub(in crate::certificate) clauses: Clauses,
    pub(in crate::certificate) checked: Vec<u32>,
    /// What satisfies it never looks for another flat rule before this position.
    pub(in crate::certificate) until: u32,
    /// Where it leads when it matches.
    lands: u32,
    calls: Option<u32>,
    is_plain: bool,
    changes: bool,
    is_unfolded: bool,
}

/// The flat rules of an entry.
pub(in crate::certificate) struct List {
    pub(in crate::certificate) record: EntryRecord,
    pub(in crate::certificate) flats: Vec<Flat>,
    /// What has no flat rule, and before which position.
    pub(super) absent: Vec<(u32, Clauses)>,
}

impl List {
    pub(in crate::certificate) fn flat(&self, position: u32) -> Option<&Flat> {
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

/// What a flat rule must be: what it looks at, what it asks and looks at then, and how it ends.
struct Wanted {
    clauses: Clauses,
    rest: Vec<(String, Clauses)>,
    /// None: the packet is malformed.
    verdict: Option<&'static str>,
    ends: bool,
    calls: Option<usize>,
    /// To a label, or on.
    label: Option<usize>,
    may_be_left_out: bool,
}

impl<B: AsRef<[u8]>, G: Guide> Checker<'_, B, G> {
    /// The lists of all entries that packets come to.
    pub(super) fn lists(&mut self) -> Result<Vec<List>, Refused> {
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
            frame.is_over |= !goes_on && rule.matches.is_empty() && of_ip_part(&rule.ip).is_empty();
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
        mut clauses: Clauses,
        back: usize,
    ) -> Result<Option<(usize, Clauses)>, Refused> {
        let family = self.ruleset.family;
        clauses.extend(of_ip_part(&rule.ip).into_iter().map(|test| Rc::new(vec![test])));
        let (mut rest, mut pure) = (vec![], vec![]);
        for (number, extension) in rule.matches.iter().enumerate() {
            let meaning = extension.match_meaning(family);
            let (drops, passes) = states(meaning.l4);
            if meaning.l4 != L4Need::default() && rest.is_empty() {
                let clauses = clauses.iter().cloned().chain([in_states(drops)]).collect();
                let (rest, verdict, ends) = (pure.clone(), None, true);
                let cut =
                    Wanted { clauses, rest, verdict, ends, calls: None, label: None, may_be_left_out: false };
                self.flat(walk, cut)?;
            }
            if meaning.l4 != L4Need::default() {
                match rest.is_empty() {
                    true => clauses.push(in_states(passes)),
                    false => rest.push((format!("{:?}", Op::Need { drops, passes }), vec![])),
                }
            }
            let to = rest.last_mut().map_or(&mut clauses, |(_, clauses)| clauses);
            to.extend(meaning.clauses.into_iter().map(Rc::new));
            // Asked as the program says it. What is pure is asked behind all that fields decide.
            let asks = |kind| (format!("Residual {{ match_index: {number}, kind: {kind:?} }}"), vec![]);
            match meaning.residual {
                None => {}
                Some(kind @ Residual::Pure) if rest.is_empty() => pure.push(asks(kind)),
                Some(kind) => rest.extend(pure.drain(..).chain([asks(kind)])),
            }
        }
        rest.append(&mut pure);
        let mut wanted = Wanted {
            clauses: clauses.clone(),
            rest,
            verdict: None,
            ends: false,
            calls: None,
            label: None,
            may_be_left_out: false,
        };
        match &rule.target {
            Target::None => {
                // What is asked decides nothing when the rule only counts.
                let pure = |(asks, clauses): &(String, Clauses)| asks.contains("Pure") && clauses.is_empty();
                wanted.may_be_left_out = wanted.rest.iter().all(pure);
            }
            Target::Jump(name) | Target::Goto(name) => {
                let chain = self.ruleset.tables[walk.table].chain_index(name);
                wanted.calls = Some(chain.ok_or(Refused::Wrong("a jump leads nowhere".into()))?);
                wanted.label = matches!(rule.target, Target::Goto(_)).then_some(back);
                // The rules of an unfolded chain would not ask it.
                wanted.may_be_left_out = wanted.label.is_none() && wanted.rest.is_empty();
            }
            Target::Extension(extension) => match extension.target_meaning(family) {
                TargetMeaning::Verdict(name) => (wanted.verdict, wanted.ends) = (Some(name), true),
                TargetMeaning::Continue(Effect::None) => {}
                TargetMeaning::Continue(effect) => wanted.rest.push((format!("Effect({effect:?})"), vec![])),
                TargetMeaning::Return => wanted.label = Some(back),
            },
        }
        wanted.may_be_left_out &= self.checked.compared == Compared::Deciding && !walk.is_over;
        let calls = wanted.calls.filter(|_| wanted.label.is_none());
        let is_unfolded = match self.flat(walk, wanted)? {
            Kind::Present => walk.list.flats.last().is_some_and(|flat| flat.calls.is_none()),
            kind => kind == Kind::Unfold,
        };
        Ok(calls.filter(|_| is_unfolded).map(|chain| (chain, clauses)))
    }

    /// The flat rule that something wants, or the step that says there is none.
    fn flat(&mut self, walk: &mut Walk, wanted: Wanted) -> Result<Kind, Refused> {
        let (at, clauses) = (walk.at, &wanted.clauses);
        let ops = if at < walk.labels[0] { self.program(walk) } else { None };
        let is_malformed = ops.as_ref().is_some_and(|ops| ops.last() == Some(&Op::Malformed));
        let drops = wanted.ends && wanted.verdict.is_none();
        let fits = ops.is_some() && is_malformed == drops;
        // What the program looks at, between what it asks and does.
        let mut parts: Vec<(String, Vec<Alternatives>)> = vec![(String::new(), vec![])];
        for op in ops.iter().flatten() {
            match (op, parts.last_mut()) {
                (Op::Clause(clause), Some((_, clauses))) => clauses.push(clause.clone()),
                _ => parts.push((format!("{op:?}"), vec![])),
            }
        }
        let may_be_left_out = wanted.may_be_left_out;
        let step = self.step(&Asked::Rule { fits, drops, clauses, may_be_left_out, program: &parts[0].1 })?;
        let end = match (step.0, ops) {
            (Kind::Present, Some(mut ops)) if fits => ops.pop(),
            (Kind::Absent, _) => {
                walk.list.absent.extend((!walk.is_over).then_some((at, wanted.clauses)));
                return Ok(step.0);
            }
            (Kind::Unfold, _) if may_be_left_out => return Ok(step.0),
            _ => return wrong(format!("position {at} is not of the rule that stands there")),
        };
        let mut checked = vec![];
        for _ in 0..step.1 {
            let asked = Asked::Rule { fits, drops, clauses, may_be_left_out, program: &parts[0].1 };
            match self.step(&asked)? {
                super::Step(Kind::Checks, clause, _) if (clause as usize) < clauses.len() => {
                    checked.push(clause)
                }
                _ => return wrong(format!("position {at}: a program looks at clauses")),
            }
        }
        let is_same = parts.len() == wanted.rest.len() + 2
            && wanted.rest.iter().zip(&parts[1..]).all(|((wanted, _), (is, _))| wanted == is);
        let (calls, to) = match end {
            Some(Op::Continue) => (None, at + 1),
            Some(Op::Skip(to)) => (None, to),
            Some(Op::Return) => (None, walk.labels[0]),
            Some(Op::Call { entry, back }) => (Some(entry), back),
            _ => (None, u32::MAX),
        };
        let is_right = match (&end, wanted.label) {
            (Some(Op::Verdict(id)), _) => wanted.verdict == Some(self.on.image.verdict_name(*id)),
            (Some(Op::Malformed), _) => drops,
            _ if wanted.ends || calls.is_some() && wanted.calls.is_none() => false,
            // What is unfolded has no program: the path behind it would not know.
            (_, label) if calls.is_none() && wanted.calls.is_some() => {
                label.is_none() && to == at + 1 && parts.len() == 2 && parts[0].1.is_empty()
            }
            (_, Some(label)) => {
                walk.landings.push((label, to));
                true
            }
            _ => to == at + 1,
        };
        if !is_same || !is_right {
            return wrong(format!("position {at} does something else than its rule"));
        }
        let first = [(String::new(), wanted.clauses.clone())];
        for ((n, (_, clauses)), (_, program)) in first.iter().chain(&wanted.rest).enumerate().zip(&parts) {
            let all: Vec<u32> = if n == 0 { checked.clone() } else { (0..clauses.len() as u32).collect() };
            let (list, must, checked, root) = (&walk.list, Must::Be(program), &*all, Ref::EMPTY);
            let question = Question { list, root, position: at, clauses, checked, must };
            if !all.is_empty() || !program.is_empty() {
                let everything = self.on.space.axes.iter().map(|axis| axis.all).collect();
                self.derive(&question, everything, Place { at: root, gate: None })?;
            }
        }
        if let (Some(entry), Some(chain)) = (calls, wanted.calls) {
            self.enter(entry, (walk.table, chain))?;
        }
        walk.list.flats.push(Flat {
            clauses: wanted.clauses,
            checked,
            until: 0,
            lands: to,
            calls,
            is_plain: parts.len() == 2 && parts[0].1.is_empty(),
            changes: parts.iter().any(|(name, _)| name.starts_with("Effect")),
            is_unfolded: walk.is_unfolded,
        });
        walk.at += 1;
        Ok(step.0)
    }

    /// The operations of the next flat rule, when it comes from this rule.
    fn program(&mut self, walk: &Walk) -> Option<Vec<Op>> {
        let (flat, origin) = self.on.image.flat(walk.at)?;
        let origin = self.on.image.origin(origin)?;
        let (table, (chain, number)) = (&self.ruleset.tables[walk.table], walk.here);
        let chain = &table.chains[chain];
        let (of_table, of_chain) = self.on.image.name(origin.list).split_once('/')?;
        let is_its = (of_table, of_chain) == (table.kind.name(), &*chain.name)
            && (origin.number as usize, origin.line) == (number + 1, chain.rules[number].line);
        let mut reader = match flat {
            _ if !is_its => return None,
            FlatRecord::Verdict(id) => return Some(vec![Op::Verdict(id)]),
            FlatRecord::Return => return Some(vec![Op::Return]),
            FlatRecord::Continue => return Some(vec![Op::Continue]),
            FlatRecord::Program(word) => Reader::new(self.on.image.section(Section::Programs), word as usize),
        };
        let mut ops: Vec<Op> = Vec::new();
        while ops.len() < 1 << 14 && !ops.last().is_some_and(Op::is_end) {
            ops.push(reader.op()?);
        }
        Some(ops)
    }
}

/// The tests of a rule's own part.
fn of_ip_part(ip: &IpPart) -> Vec<Test> {
    let masked = |test: &hipac_rules::AddressTest| ValueSet::Masked { value: test.address, mask: test.mask };
    let named = |test: &hipac_rules::InterfaceTest| {
        let (name, prefix) = (test.name.clone().unwrap_or_default(), test.prefix);
        ValueSet::Interface { name, prefix }
    };
    let (s, d, i, o, p) = (&ip.source, &ip.destination, &ip.in_interface, &ip.out_interface, &ip.protocol);
    let (is_f, number) = (ip.fragment != FragmentTest::Any, u128::from(p.number));
    let all = [
        (s.mask != 0 || s.negated, Field::Source, s.negated, masked(s)),
        (d.mask != 0 || d.negated, Field::Destination, d.negated, masked(d)),
        (i.name.is_some(), Field::InInterface, i.negated, named(i)),
        (o.name.is_some(), Field::OutInterface, o.negated, named(o)),
        (number != 0, Field::Protocol, p.negated, ValueSet::Ranges(vec![(number, number)])),
        (is_f, Field::L4, ip.fragment == FragmentTest::NotLater, ValueSet::Ranges(vec![(1, 2)])),
    ];
    let said = all.into_iter().filter(|(is_said, ..)| *is_said);
    said.map(|(_, field, negated, set)| Test { field, negated, set }).collect()
}

/// States of the transport header, a bit each: those in which a match drops a packet, and those in which
/// it looks on.
fn states(need: L4Need) -> (u8, u8) {
    let there = [255, 0, 0, 0, 4, 8, 12]; // bytes, by state; of later fragments none
    let cut = (3..7).filter(|&s| there[s] < need.bytes).map(|s| 1 << s).sum::<u8>();
    let drops = cut | if need.drops_fragment_at_8 { 1 << 2 } else { 0 };
    (drops, 0b111_1001 & !cut)
}

/// The transport header is in one of these states.
fn in_states(states: u8) -> Rc<Clause> {
    let set = (0..7u32).filter(|s| states >> s & 1 == 1).map(|s| (s.into(), s.into())).collect();
    Rc::new(vec![Test { field: Field::L4, negated: false, set: ValueSet::Ranges(set) }])
}
