//! The walk: the chains behind one entry, rule by rule as the oracle goes, beside the image's list
//! of flat rules.
//!
//! ```text
//!   chain walk   FORWARD 1 ▸ web 1 ▸ web 2 ▸ back ▸ FORWARD 2 …     what each rule wants there
//!   flat list        0          1       2              3      …     what the image has there
//! ```
//!
//! The image decides whether a chain is *unfolded* into the list or *called*, and the walk follows:
//! behind a jump it expects the rules of the chain on a narrower path, or checks that the call leads to
//! an entry that is that chain's. Each flat rule is paired with what the rules want at its place; a flat
//! rule that no rule wants must never be found, and what a rule wants and no flat rule does must be
//! hidden by earlier ones. Both become questions about boxes, which [`cover`](super::cover) answers.
//!
//! The walk keeps its own stack, and every step takes a rule or a flat rule: it is linear in the two.

use std::rc::Rc;

use hipac_classifier::{Dim, EntryId, Image};
use hipac_rules::{Family, IpPart, MatchMeaning, Residual, Rule, Ruleset, Table, Target, TargetMeaning};

use super::boxes::{self, Bounds, Boxes};
use super::condition::Condition;
use super::program::{End, Mark, Program, Segment, change_of, kind_of, states};
use super::space::{Expanded, Space, TooManyBoxes};
use crate::RuleId;

/// Flat rules that a walk expects for each one that the image has, at most: unfolding what the image
/// calls would multiply them.
const STEPS_PER_FLAT: usize = 64;

/// A flat rule with what the rules want at its place.
#[derive(Debug)]
pub(super) struct Slot {
    /// The rule; none for a flat rule that no rule wants here.
    pub(super) rule: Option<RuleId>,
    /// Where it must and may be stored.
    pub(super) expanded: Expanded,
    /// What it does.
    pub(super) end: End,
    /// Where the rules lead behind it, when it goes on.
    pub(super) wanted: Option<u32>,
    /// It does that whenever its box holds the packet.
    pub(super) is_plain: bool,
    /// It changes what rules behind it see.
    pub(super) changes: bool,
    /// Its rule is of an unfolded chain.
    pub(super) is_unfolded: bool,
}

/// Something about a flat rule that is not as the rules want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The rule has no flat rule.
    Missing(RuleId),
    /// It does something else.
    Differs(RuleId),
    /// It goes on elsewhere: where the rules lead.
    Lands(RuleId, u32),
    /// It changes packets in an unfolded chain. Flat rules behind it test anew what the jump has tested
    /// of the packet as it was.
    Changes(RuleId),
}

/// A list of flat rules beside the chain that it stands for.
#[derive(Debug)]
pub(super) struct List {
    pub(super) entry: EntryId,
    /// Position of its table in the ruleset, and of its chain there.
    pub(super) chain: (usize, usize),
    pub(super) first: u32,
    /// By position.
    pub(super) slots: Vec<Slot>,
    /// Boxes of `slots` and `faults`.
    pub(super) boxes: Boxes,
    /// By position: what is not as it should be there. What is missing stands before the position.
    pub(super) faults: Vec<(u32, Expanded, Fault)>,
    /// Entries called, where from, and the chains they must be.
    pub(super) calls: Vec<(u32, u32, usize)>,
    /// See [`until`], which fills it.
    pub(super) until: Vec<u32>,
    /// Boxes of all keys with which packets come here: see [`find_domains`].
    pub(super) domain: Boxes,
}

/// Why a walk was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// A rule that becomes too many boxes.
    Boxes(RuleId),
    /// A rule of more matches than a program can name.
    Matches(RuleId),
    /// The image has far fewer flat rules than the rules want.
    Steps,
}

/// What all walks of one proof share.
pub(super) struct Walks<'a, B> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) image: &'a Image<B>,
    pub(super) space: &'a Space,
    /// The rule of each origin of the image.
    pub(super) rules: &'a [Option<RuleId>],
    /// Rules that only count need no flat rule.
    pub(super) may_leave_out: bool,
}

/// A chain under way.
struct Frame {
    chain: usize,
    next: usize,
    /// What the jumps that led here tested.
    path: Rc<Condition>,
    /// Where its end and RETURN lead; out of the list without one.
    label: Option<usize>,
    /// A rule before this one ends the chain for all packets.
    is_over: bool,
}

/// What one rule wants of the image.
struct Want {
    rule: RuleId,
    program: Program,
    /// Where it goes on, once known.
    lands: Lands,
    verdict: Option<&'static str>,
    /// It only counts.
    may_be_left_out: bool,
    calls: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Lands {
    Nowhere,
    Following,
    Label(Option<usize>),
}

struct Walk<'a, 'w, B> {
    on: &'w Walks<'a, B>,
    table: &'a Table,
    list: List,
    frames: Vec<Frame>,
    /// Position of each label, once it is placed.
    labels: Vec<u32>,
    /// Where flat rules must lead, checked when all labels are placed.
    landings: Vec<(u32, Lands)>,
    at: u32,
    end: u32,
    steps: usize,
}

impl<'a, B: AsRef<[u8]>> Walks<'a, B> {
    /// Walks a chain beside an entry.
    pub(super) fn list(&self, entry: EntryId, chain: (usize, usize)) -> Result<List, GaveUp> {
        let record = self.image.entry(entry);
        let (first, count) = record.map_or((0, 0), |r| (r.first, r.count));
        // A record that is damaged may name positions that are not there.
        let end = first.saturating_add(count).min(self.image.flat_count() as u32).max(first);
        let mut walk = Walk {
            on: self,
            table: &self.ruleset.tables[chain.0],
            list: List {
                entry,
                chain,
                first,
                slots: Vec::with_capacity((end - first) as usize),
                boxes: Boxes::new(self.space.axes.len()),
                faults: vec![],
                calls: vec![],
                until: vec![],
                domain: Boxes::new(self.space.axes.len()),
            },
            frames: vec![Frame { chain: chain.1, next: 0, path: Rc::default(), label: None, is_over: false }],
            labels: vec![],
            landings: vec![],
            at: first,
            end,
            steps: 0,
        };
        walk.run()?;
        walk.finish();
        Ok(walk.list)
    }
}

impl<B: AsRef<[u8]>> Walk<'_, '_, B> {
    fn run(&mut self) -> Result<(), GaveUp> {
        let table = self.table;
        while let Some(frame) = self.frames.last_mut() {
            let (chain, number) = (frame.chain, frame.next);
            let Some(rule) = table.chains[chain].rules.get(number) else {
                if let Some(label) = frame.label {
                    self.labels[label] = self.at;
                }
                self.frames.pop();
                continue;
            };
            frame.next += 1;
            self.steps += 1;
            if self.steps
                > STEPS_PER_FLAT
                    * (self.list.slots.len() + table.chains[self.list.chain.1].rules.len() + 1024)
            {
                return Err(GaveUp::Steps);
            }
            // A parsed ruleset has no more chains or rules than ids: the oracle has seen to it.
            let Some(id) = RuleId::new(table.kind, chain, number) else { continue };
            self.rule(id, rule)?;
            if is_end_for_all(rule, self.on.ruleset.family)
                && let Some(frame) = self.frames.last_mut()
            {
                frame.is_over = true;
            }
        }
        // What is left in the list no rule wants.
        while self.at < self.end {
            self.unwanted();
        }
        Ok(())
    }

    /// What a rule wants, and whether the image has it.
    fn rule(&mut self, id: RuleId, rule: &Rule) -> Result<(), GaveUp> {
        let raw = self.on.space.raw();
        let family = self.on.ruleset.family;
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let mut program = Program {
            first: Segment { condition: (*frame.path).clone(), pure: vec![] },
            rest: vec![],
            effect: None,
            end: End::Resume(0),
        };
        for test in rule.ip.tests(family) {
            program.first.condition.and_tests(&[test], raw);
        }
        for (number, extension) in rule.matches.iter().enumerate() {
            if program.first.condition.is_none() {
                return Ok(());
            }
            let number = u8::try_from(number).map_err(|_| GaveUp::Matches(id))?;
            self.and_match(id, &extension.match_meaning(family), number, &mut program)?;
        }
        if program.first.condition.is_none() {
            return Ok(());
        }
        self.target(id, rule, program)
    }

    /// A match more: what a packet with a cut header meets is a flat rule of its own.
    fn and_match(
        &mut self,
        id: RuleId,
        meaning: &MatchMeaning,
        number: u8,
        program: &mut Program,
    ) -> Result<(), GaveUp> {
        let raw = self.on.space.raw();
        let (drops, passes) = meaning.l4.states();
        if drops != 0 && program.rest.is_empty() {
            let mut first = program.first.clone();
            first.condition.and_set(Dim::L4, &states(drops), raw);
            let dropping = Program { first, rest: vec![], effect: None, end: End::Malformed };
            self.want(Want {
                rule: id,
                program: dropping,
                lands: Lands::Nowhere,
                verdict: None,
                may_be_left_out: false,
                calls: None,
            })?;
            program.first.condition.and_set(Dim::L4, &states(passes), raw);
        } else {
            program.need(drops, passes, raw);
        }
        let segment = program.rest.last_mut().map_or(&mut program.first, |(_, segment)| segment);
        for clause in &meaning.clauses {
            segment.condition.and_tests(clause, raw);
        }
        match meaning.residual {
            None => {}
            Some(Residual::Pure) => segment.ask_pure(number),
            Some(kind) => program.rest.push((Mark::Asks(number, kind_of(kind)), Segment::default())),
        }
        Ok(())
    }

    fn target(&mut self, id: RuleId, rule: &Rule, mut program: Program) -> Result<(), GaveUp> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (label, is_over) = (frame.label, frame.is_over);
        let asks = program.rest.iter().any(|(mark, _)| matches!(mark, Mark::Asks(..)));
        let counts_only = self.on.may_leave_out && !asks && program.rest.is_empty();
        let want = |program: Program, lands, calls: Option<usize>, left_out| Want {
            rule: id,
            program,
            lands,
            verdict: None,
            may_be_left_out: left_out,
            calls,
        };
        match &rule.target {
            Target::Jump(name) => {
                // The oracle has refused jumps to nowhere.
                let Some(chain) = self.table.chain_index(name) else { return Ok(()) };
                let is_called = matches!(self.found(id, false), Some(End::Call { .. }));
                if is_called || is_over {
                    let want = want(program, Lands::Following, Some(chain), is_over && !is_called);
                    return self.want(want);
                }
                let path = program.first.condition.clone();
                let can_unfold = program.rest.is_empty() && program.first.pure.is_empty();
                if !can_unfold {
                    return self.want(want(program, Lands::Following, Some(chain), false));
                }
                self.want(want(program, Lands::Following, None, counts_only))?;
                self.labels.push(self.end);
                let label = Some(self.labels.len() - 1);
                self.frames.push(Frame { chain, next: 0, path: Rc::new(path), label, is_over: false });
                Ok(())
            }
            Target::Goto(name) => {
                let Some(chain) = self.table.chain_index(name) else { return Ok(()) };
                self.want(want(program, Lands::Label(label), Some(chain), is_over))
            }
            Target::None => self.want(want(program, Lands::Following, None, counts_only)),
            Target::Extension(extension) => match extension.target_meaning(self.on.ruleset.family) {
                TargetMeaning::Continue(effect) => {
                    program.effect = change_of(effect);
                    self.want(want(program, Lands::Following, None, false))
                }
                TargetMeaning::Return => self.want(want(program, Lands::Label(label), None, false)),
                TargetMeaning::Verdict(name) => {
                    let want = Want { verdict: Some(name), ..want(program, Lands::Nowhere, None, false) };
                    self.want(want)
                }
            },
        }
    }

    /// The rule of the flat rule at a position of the list, and what it does.
    fn flat(&self, position: u32) -> Option<(Option<RuleId>, Program)> {
        if position >= self.end {
            return None;
        }
        let (flat, origin) = self.on.image.flat(position)?;
        let rule = self.on.rules.get(origin.0 as usize).copied().flatten();
        Some((rule, Program::read(self.on.image, flat, position, self.end, self.on.space.raw())?))
    }

    /// The end of the next flat rule, when it is this rule's.
    fn found(&self, rule: RuleId, malformed: bool) -> Option<End> {
        let (found, program) = self.flat(self.at)?;
        (found == Some(rule) && (program.end == End::Malformed) == malformed).then_some(program.end)
    }

    fn want(&mut self, want: Want) -> Result<(), GaveUp> {
        if want.program.first.condition.is_none() {
            return Ok(()); // no packet: no flat rule
        }
        let is_malformed = want.calls.is_none() && want.verdict.is_none() && want.lands == Lands::Nowhere;
        let fits = |flat: &Option<(Option<RuleId>, Program)>| {
            flat.as_ref().is_some_and(|(rule, program)| {
                *rule == Some(want.rule) && (program.end == End::Malformed) == is_malformed
            })
        };
        let mut next = self.flat(self.at);
        if !fits(&next) && self.at < self.end {
            // One that nobody wants may stand before it.
            let behind = self.flat(self.at + 1);
            if fits(&behind) && !want.may_be_left_out {
                self.unwanted();
                next = behind;
            }
        }
        let too_many = |TooManyBoxes| GaveUp::Boxes(want.rule);
        let space = self.on.space;
        let is_there = fits(&next);
        let Some((_, found)) = next.filter(|_| is_there) else {
            if !want.may_be_left_out {
                let none = Condition::default();
                let expanded = space.expand(&want.program.first.condition, &none, &mut self.list.boxes);
                let fault = Fault::Missing(want.rule);
                self.list.faults.push((self.at, expanded.map_err(too_many)?, fault));
            }
            return Ok(());
        };
        let position = self.at;
        self.at += 1;
        let mut does = found.does(&want.program, space);
        match (found.end, want.calls, want.verdict) {
            (End::Call { entry, back }, Some(chain), _) => {
                self.list.calls.push((position, entry, chain));
                let lands = if want.lands == Lands::Following { Lands::Nowhere } else { want.lands };
                if lands == Lands::Nowhere {
                    does &= back == position + 1;
                } else {
                    self.landings.push((position, lands));
                }
            }
            (End::Verdict(id), None, Some(name)) => does &= self.on.image.verdict_name(id) == name,
            (End::Resume(_), None, None) => self.landings.push((position, want.lands)),
            (End::Malformed, None, None) => {}
            _ => does = false,
        }
        let checked = if does { found.first.condition.clone() } else { Condition::default() };
        let expanded = space.expand(&want.program.first.condition, &checked, &mut self.list.boxes);
        let expanded = expanded.map_err(too_many)?;
        if !does {
            let same = Expanded { must: expanded.must.clone(), may: 0..0, ..Expanded::default() };
            self.list.faults.push((position, same, Fault::Differs(want.rule)));
        }
        self.list.slots.push(Slot {
            rule: Some(want.rule),
            expanded,
            end: found.end,
            wanted: None,
            is_plain: found.is_plain(),
            changes: found.effect.is_some(),
            is_unfolded: self.frames.last().is_some_and(|frame| frame.label.is_some()),
        });
        Ok(())
    }

    /// Passes over a flat rule that must never be found.
    fn unwanted(&mut self) {
        let expanded = Expanded { is_blind: true, ..Expanded::default() };
        // What is never found leads nowhere.
        let end = End::Malformed;
        let (is_plain, changes, is_unfolded) = (false, false, false);
        let wanted = None;
        self.list.slots.push(Slot { rule: None, expanded, end, wanted, is_plain, changes, is_unfolded });
        self.at += 1;
    }

    /// Checks where flat rules lead, now that all labels are placed.
    fn finish(&mut self) {
        for &(position, lands) in &self.landings {
            let slot = &mut self.list.slots[(position - self.list.first) as usize];
            let (End::Resume(found) | End::Call { back: found, .. }) = slot.end else { continue };
            let wanted = match lands {
                Lands::Nowhere => continue,
                Lands::Following => position + 1,
                Lands::Label(None) => self.end,
                Lands::Label(Some(label)) => self.labels[label],
            };
            slot.wanted = Some(wanted);
            if let Some(rule) = slot.rule
                && found != wanted
            {
                let same = Expanded { must: slot.expanded.must.clone(), may: 0..0, ..Expanded::default() };
                self.list.faults.push((position, same, Fault::Lands(rule, wanted)));
            }
        }
    }
}

/// No packet goes on behind this rule.
fn is_end_for_all(rule: &Rule, family: Family) -> bool {
    let ends = matches!(&rule.target, Target::Extension(e)
        if !matches!(e.target_meaning(family), TargetMeaning::Continue(_)));
    ends && rule.matches.is_empty() && rule.ip == IpPart::default()
}

/// For each flat rule, the first position behind it at which a packet can look for the next rule
/// although it satisfies this one. Up to there, what this one covers is never found.
///
/// Such a packet has met the rule and been led on, or was led over it, or was another packet
/// before a rule behind it changed it.
///
/// Where a flat rule leads farther than its rule does, that is not what hides what stands between: a rule
/// without a flat rule may be among it, and whether the farther place is as good hangs on that.
///
/// `changing`: entries in which something changes packets.
pub(super) fn until(list: &List, changing: &[bool]) -> Vec<u32> {
    // Where it leads, and where its rule does.
    let led_to = |slot: &Slot, position: u32| match slot.end {
        End::Verdict(_) | End::Malformed => [u32::MAX; 2],
        End::Resume(to) | End::Call { back: to, .. } => {
            [to, slot.wanted.unwrap_or(to)].map(|to| to.max(position + 1))
        }
    };
    let changes = |slot: &Slot| slot.changes || calls_change(slot, changing);
    let mut out = Vec::with_capacity(list.slots.len());
    // Where packets are led over positions: the nearest landing on top.
    let mut landings = std::collections::BinaryHeap::new();
    for (position, slot) in (list.first..).zip(&list.slots) {
        while landings.peek().is_some_and(|std::cmp::Reverse(to)| *to <= position) {
            landings.pop();
        }
        let over = landings.peek().map_or(u32::MAX, |std::cmp::Reverse(to)| *to);
        let [found, wanted] = led_to(slot, position);
        let own = if slot.is_plain { found.min(wanted) } else { position + 1 };
        out.push(own.min(over));
        if found != u32::MAX {
            landings.extend([found, wanted].map(std::cmp::Reverse));
        }
    }
    let mut changed = u32::MAX;
    for (index, slot) in list.slots.iter().enumerate().rev() {
        let behind = list.first + index as u32 + 1;
        out[index] = out[index].min(changed).max(behind);
        if changes(slot) {
            changed = behind;
        }
    }
    out
}

fn calls_change(slot: &Slot, changing: &[bool]) -> bool {
    matches!(slot.end, End::Call { entry, .. } if changing.get(entry as usize).is_none_or(|&c| c))
}

/// Notes as faults what changes packets in unfolded chains.
pub(super) fn note_changes(list: &mut List, changing: &[bool]) {
    for (position, slot) in (list.first..).zip(&list.slots) {
        if let Some(rule) = slot.rule
            && slot.is_unfolded
            && (slot.changes || calls_change(slot, changing))
        {
            let same = Expanded { must: slot.expanded.must.clone(), ..Expanded::default() };
            list.faults.push((position, same, Fault::Changes(rule)));
        }
    }
}

/// The entries in which a rule changes packets, or in what they call. `entries`: how many there are.
pub(super) fn changing(lists: &[List], entries: usize) -> Vec<bool> {
    let mut out = vec![false; entries];
    loop {
        let before = out.clone();
        for list in lists {
            let changes = list.slots.iter().any(|slot| slot.changes || calls_change(slot, &before));
            if let Some(entry) = out.get_mut(list.entry.0 as usize) {
                *entry |= changes;
            }
        }
        if out == before {
            return out;
        }
    }
}

/// Boxes that a domain may have; with more of them it is everything.
const DOMAIN_MAX: usize = 32;

/// Dimensions that effects change.
pub(super) const CHANGEABLE: [Dim; 5] = [Dim::Mark, Dim::ConnMark, Dim::Ttl, Dim::Tos, Dim::CtState];

/// Finds for each list with which keys packets come to it. To a built-in chain all do; to what is
/// called, those that the calls let through; where something in it changes packets on the way, they
/// may have other values on the axes `changeable`.
pub(super) fn find_domains(lists: &mut [List], changing: &[bool], everything: &Bounds, changeable: &[usize]) {
    let changes = |list: &List| changing.get(list.entry.0 as usize).is_none_or(|&c| c);
    let mut is_done = vec![false; lists.len()];
    // Callers first. Calls in a circle, which only a damaged image has, are left for the end.
    for last in [false, true] {
        while let Some(at) = (0..lists.len()).find(|&at| {
            let entry = lists[at].entry.0;
            let calls = |l: &List| l.calls.iter().any(|c| c.1 == entry);
            !is_done[at] && (last || (0..lists.len()).all(|by| is_done[by] || !calls(&lists[by])))
        }) {
            is_done[at] = true;
            let entry = lists[at].entry.0;
            let mut domain = Boxes::new(everything.len());
            let callers =
                lists.iter().flat_map(|l| l.calls.iter().filter(|c| c.1 == entry).map(move |c| (l, c.0)));
            let mut is_all = last;
            let is_open = changes(&lists[at]);
            let mut is_called = false;
            for (caller, position) in callers {
                is_called = true;
                let slot = &caller.slots[(position - caller.first) as usize];
                for call in caller.boxes.range(slot.expanded.must.clone()) {
                    for outer in caller.domain.range(0..caller.domain.len()) {
                        let mut both = call.to_vec();
                        if !boxes::narrow(&mut both, outer) {
                            continue;
                        }
                        if is_open {
                            changeable.iter().for_each(|&axis| both[axis] = everything[axis]);
                        }
                        is_all |= domain.len() >= DOMAIN_MAX;
                        if !is_all {
                            domain.push(&both);
                        }
                    }
                }
                // What the walk could not follow lets anything through.
                is_all |= slot.expanded.is_blind;
            }
            if is_all || !is_called {
                domain.clear();
                domain.push(everything);
            }
            lists[at].domain = domain;
        }
    }
}

/// All tests of interface names in a ruleset.
pub(super) fn names_tested(ruleset: &Ruleset) -> Vec<(hipac_rules::Name, bool)> {
    let mut out = std::collections::BTreeSet::new();
    for rule in ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
        for test in [&rule.ip.in_interface, &rule.ip.out_interface] {
            out.extend(test.name.clone().map(|name| (name, test.prefix)));
        }
        for extension in &rule.matches {
            for test in extension.match_meaning(ruleset.family).clauses.into_iter().flatten() {
                if let hipac_rules::ValueSet::Interface { name, prefix } = test.set {
                    out.insert((name, prefix));
                }
            }
        }
    }
    out.into_iter().collect()
}
