//! The checker: walks rules and image, and follows the steps that a [`Guide`] says.

use std::collections::HashMap;
use std::rc::Rc;

use hipac_classifier::forest::Ref;
use hipac_classifier::image::{EntryRecord, Flat as FlatRecord, Section};
use hipac_classifier::program::{Change, Op, Reader, ResidualKind};
use hipac_classifier::{Dim, EntryId, Image, OriginId};
use hipac_rules::{Clause, Effect, Family, Residual, Rule, Ruleset, Table, TableKind, Target, TargetMeaning};

use super::meaning::{self, Region, Space};
use super::place::{Shared, Spot};
use super::{Refused, Step, wrong};
use crate::agree::Compared;

/// Says the next step.
pub(super) trait Guide {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused>;
}

/// What the next step is about.
pub(super) enum Asked<'q> {
    /// A rule, or a match of it that drops cut headers, and whether the next flat rule can be its.
    Rule { fits: bool, drops: bool, clauses: &'q [Rc<Clause>], may_be_left_out: bool },
    /// A region.
    Region(Question<'q>),
}

/// A region in which a rule must be found, or must not be looked for.
#[derive(Clone, Copy)]
pub(super) struct Question<'q> {
    pub(super) list: &'q List,
    pub(super) root: Ref,
    pub(super) position: u32,
    pub(super) clauses: &'q [Rc<Clause>],
    /// By clause: the program looks.
    pub(super) checked: &'q [bool],
    pub(super) region: &'q Region,
    pub(super) spot: Spot,
    pub(super) must: Must,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    /// Wherever it holds it is stored, or hidden.
    BeStored,
    /// It does not hold, or is hidden.
    BeHidden,
    /// A lane holds the region: it holds there, or is hidden.
    Hold,
}

/// A flat rule.
pub(super) struct Flat {
    pub(super) clauses: Vec<Rc<Clause>>,
    pub(super) checked: Vec<bool>,
    end: Op,
    is_plain: bool,
    changes: bool,
    /// Of an unfolded chain.
    is_unfolded: bool,
}

/// The flat rules of an entry.
pub(super) struct List {
    pub(super) record: EntryRecord,
    pub(super) flats: Vec<Flat>,
    /// What has no flat rule, and before which position.
    pub(super) absent: Vec<(u32, Vec<Rc<Clause>>)>,
    until: Vec<u32>,
}

impl List {
    pub(super) fn flat(&self, position: u32) -> Option<&Flat> {
        self.flats.get(position.checked_sub(self.record.first)? as usize)
    }

    /// What satisfies a flat rule never looks for another one before this position.
    pub(super) fn until(&self, position: u32) -> u32 {
        self.until.get(position.wrapping_sub(self.record.first) as usize).copied().unwrap_or(0)
    }
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// The rules that match on both sides, as the certificate says.
    pub compared: Compared,
    /// Lists of flat rules.
    pub lists: usize,
    /// Flat rules.
    pub flat_rules: usize,
    /// Boxes in leaves.
    pub stored: u64,
    /// Steps followed.
    pub steps: u64,
}

pub(super) struct Checker<'a, B, G> {
    ruleset: &'a Ruleset,
    compared: Compared,
    pub(super) on: Shared<'a, B>,
    guide: &'a mut G,
    /// The chain of each entry that packets come to.
    meant: HashMap<u32, (usize, usize)>,
    waiting: Vec<(u32, (usize, usize))>,
    /// The chain of each name of the image.
    chains: HashMap<u32, Option<(usize, usize)>>,
    pub(super) checked: Checked,
}

/// A chain under way.
struct Frame {
    chain: usize,
    next: usize,
    path: Vec<Rc<Clause>>,
    /// Where its end and RETURN lead: a label, or out of the list.
    label: Option<usize>,
    /// A rule has ended it for all packets: what follows may be missing.
    is_over: bool,
}

/// A chain to go on in, and what was tested on the way there.
type Unfolded = (usize, Vec<Rc<Clause>>);

/// A list under way.
struct Walk<'t> {
    table: (usize, &'t Table),
    list: List,
    at: u32,
    end: u32,
    /// No packet comes to the rule.
    is_over: bool,
    /// The rule is an unfolded chain's.
    is_unfolded: bool,
    labels: Vec<u32>,
    /// Labels that flat rules lead to, and where they do.
    landings: Vec<(usize, u32)>,
}

/// What a rule does when the packet's fields have let it pass.
enum Does {
    Ask(u8, ResidualKind),
    Need(u8, u8),
    Clause(Clause),
}

/// What a flat rule must be.
struct Wanted {
    clauses: Vec<Rc<Clause>>,
    does: Vec<Does>,
    change: Option<Change>,
    goes: Goes,
    may_be_left_out: bool,
}

/// How it ends.
#[derive(Clone, Copy)]
enum Goes {
    Verdict(&'static str),
    Malformed,
    Next,
    Back(Option<usize>),
    Call(usize, Option<Option<usize>>),
}

impl<'a, B: AsRef<[u8]>, G: Guide> Checker<'a, B, G> {
    pub(super) fn new(
        ruleset: &'a Ruleset,
        image: &'a Image<B>,
        compared: Compared,
        guide: &'a mut G,
    ) -> Result<Self, Refused> {
        let space =
            Space::new(image, ruleset.family).filter(|_| image.is_v6() == (ruleset.family == Family::V6));
        let Some(space) = space else { return wrong("the keys of the image make no sense") };
        let on = Shared { image, space, arena: image.section(Section::Arena) };
        let (meant, waiting, chains, checked) =
            (HashMap::new(), vec![], HashMap::new(), Checked { compared, ..Checked::default() });
        Ok(Checker { ruleset, compared, on, guide, meant, waiting, chains, checked })
    }

    pub(super) fn run(mut self) -> Result<Checked, Refused> {
        for (t, table) in self.ruleset.tables.iter().enumerate() {
            for (c, chain) in table.chains.iter().enumerate().filter(|(_, chain)| chain.hook.is_some()) {
                let name = format!("{}/{}", table.kind.name(), chain.name);
                let entry =
                    self.on.image.find_entry(&name).and_then(|id| Some((id, self.on.image.entry(id)?)));
                let Some((id, record)) = entry else { return wrong(format!("the image has no {name}")) };
                let end = self.on.image.verdict_name(record.default_verdict);
                if chain.policy.is_some_and(|policy| policy.name() != end) {
                    return wrong(format!("{name} does not end with its policy"));
                }
                self.enter(id.0, (t, c))?;
            }
        }
        let entries = self.on.image.entries();
        let asked = entries.filter(|(_, record, _)| !record.called).count();
        if asked != self.meant.len() {
            return wrong("the image has other built-in chains");
        }
        let mut lists = HashMap::new();
        while let Some((entry, chain)) = self.waiting.pop() {
            let list = self.walk(entry, chain)?;
            lists.insert(entry, list);
        }
        let mut order: Vec<u32> = lists.keys().copied().collect();
        order.sort_unstable();
        // Entries in which something changes packets.
        let mut changing = vec![false; self.on.image.entry_count()];
        while let Some(&more) = order
            .iter()
            .find(|&e| !changing[*e as usize] && lists[e].flats.iter().any(|flat| changes(flat, &changing)))
        {
            changing[more as usize] = true;
        }
        for entry in order {
            let Some(mut list) = lists.remove(&entry) else { continue };
            // The rules behind it would test anew what the jump has tested of the packet as it was.
            if list.flats.iter().any(|flat| flat.is_unfolded && changes(flat, &changing)) {
                return wrong(format!("entry {entry}: an unfolded chain changes packets"));
            }
            list.until = until(&list, &changing);
            self.checked.lists += 1;
            self.checked.flat_rules += list.flats.len();
            let (root, broken) = (Ref(list.record.root), Ref(list.record.broken_root));
            if root == broken {
                self.forest(&list, root, (0, 6))?;
            } else {
                self.forest(&list, root, (0, 1))?;
                self.forest(&list, broken, (2, 6))?;
            }
        }
        Ok(self.checked)
    }

    fn enter(&mut self, entry: u32, chain: (usize, usize)) -> Result<(), Refused> {
        match self.meant.insert(entry, chain) {
            None => self.waiting.push((entry, chain)),
            Some(old) if old == chain => {}
            Some(_) => return wrong(format!("entry {entry} stands for two chains")),
        }
        Ok(())
    }

    pub(super) fn step(&mut self, asked: &Asked<'_>) -> Result<Step, Refused> {
        self.checked.steps += 1;
        self.guide.next(&self.on, asked)
    }

    /// The rules behind an entry, as the kernel walks them, beside the entry's flat rules.
    fn walk(&mut self, entry: u32, chain: (usize, usize)) -> Result<List, Refused> {
        let Some(record) = self.on.image.entry(EntryId(entry)) else { return wrong("an entry is missing") };
        let (first, end) = (record.first, record.first.checked_add(record.count));
        let end = end.filter(|&end| end as usize <= self.on.image.flat_count());
        let Some(end) = end else { return wrong("an entry has flat rules that are not there") };
        let table = &self.ruleset.tables[chain.0];
        let list = List { record, flats: vec![], absent: vec![], until: vec![] };
        let mut walk = Walk {
            table: (chain.0, table),
            list,
            at: first,
            end,
            is_over: false,
            is_unfolded: false,
            labels: vec![],
            landings: vec![],
        };
        let mut frames = vec![Frame { chain: chain.1, next: 0, path: vec![], label: None, is_over: false }];
        while let Some(frame) = frames.last_mut() {
            walk.is_unfolded = frame.label.is_some();
            let here = (frame.chain, frame.next);
            let Some(rule) = table.chains[here.0].rules.get(here.1) else {
                if let Some(label) = frame.label {
                    walk.labels[label] = walk.at;
                }
                frames.pop();
                continue;
            };
            frame.next += 1;
            let (path, label) = (frame.path.clone(), frame.label);
            walk.is_over = frame.is_over;
            frame.is_over |= is_end(rule, self.ruleset.family);
            if let Some((chain, path)) = self.rule(&mut walk, here, rule, path, label)? {
                if frames.len() > table.chains.len() {
                    return wrong("chains jump in a circle");
                }
                walk.labels.push(walk.at);
                let label = Some(walk.labels.len() - 1);
                frames.push(Frame { chain, next: 0, path, label, is_over: false });
            }
        }
        if walk.at != end {
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
        walk: &mut Walk<'_>,
        here: (usize, usize),
        rule: &Rule,
        mut clauses: Vec<Rc<Clause>>,
        label: Option<usize>,
    ) -> Result<Option<Unfolded>, Refused> {
        let family = self.ruleset.family;
        clauses.extend(meaning::of_ip_part(&rule.ip).into_iter().map(|test| Rc::new(vec![test])));
        let (mut does, mut pure): (Vec<Does>, Vec<u8>) = (vec![], vec![]);
        for (number, extension) in rule.matches.iter().enumerate() {
            let Ok(number) = u8::try_from(number) else {
                return wrong("a rule has more matches than a program can name");
            };
            let meaning = extension.match_meaning(family);
            if let Some((drops, passes)) = meaning::need(meaning.l4) {
                if does.is_empty() {
                    let cut = clauses.iter().cloned().chain([Rc::new(meaning::in_states(drops))]).collect();
                    let asks = pure.iter().map(|&n| Does::Ask(n, ResidualKind::Pure)).collect();
                    let goes = Goes::Malformed;
                    self.flat(
                        walk,
                        here,
                        Wanted { clauses: cut, does: asks, change: None, goes, may_be_left_out: false },
                    )?;
                    clauses.push(Rc::new(meaning::in_states(passes)));
                } else {
                    does.push(Does::Need(drops, passes));
                }
            }
            match does.is_empty() {
                true => clauses.extend(meaning.clauses.into_iter().map(Rc::new)),
                false => does.extend(meaning.clauses.into_iter().map(Does::Clause)),
            }
            let kind = match meaning.residual {
                None => continue,
                Some(Residual::Pure) if does.is_empty() => {
                    pure.push(number);
                    continue;
                }
                Some(Residual::Pure) => ResidualKind::Pure,
                Some(Residual::Stateful) => ResidualKind::Stateful,
                Some(Residual::Unknown) => ResidualKind::Unknown,
            };
            does.extend(pure.drain(..).map(|n| Does::Ask(n, ResidualKind::Pure)));
            does.push(Does::Ask(number, kind));
        }
        does.extend(pure.drain(..).map(|n| Does::Ask(n, ResidualKind::Pure)));
        let chain = |name: &str| walk.table.1.chain_index(name);
        let (goes, effect) = match &rule.target {
            Target::None => (Goes::Next, Effect::None),
            Target::Jump(name) => match chain(name) {
                Some(chain) => (Goes::Call(chain, None), Effect::None),
                None => return wrong("a jump leads nowhere"),
            },
            Target::Goto(name) => match chain(name) {
                Some(chain) => (Goes::Call(chain, Some(label)), Effect::None),
                None => return wrong("a goto leads nowhere"),
            },
            Target::Extension(extension) => match extension.target_meaning(family) {
                TargetMeaning::Verdict(name) => (Goes::Verdict(name), Effect::None),
                TargetMeaning::Continue(effect) => (Goes::Next, effect),
                TargetMeaning::Return => (Goes::Back(label), Effect::None),
            },
        };
        let only_counts = matches!((&rule.target, goes), (Target::None, _) | (_, Goes::Call(_, None)));
        let left_out = self.compared == Compared::Deciding
            && only_counts
            && !walk.is_over
            && match rule.target {
                // What is asked decides nothing when the rule only counts.
                Target::None => does.iter().all(|d| matches!(d, Does::Ask(_, ResidualKind::Pure))),
                // The rules of an unfolded chain would not ask it.
                _ => does.is_empty(),
            };
        let wanted = Wanted {
            clauses: clauses.clone(),
            does,
            change: change(effect),
            goes,
            may_be_left_out: left_out,
        };
        let step = self.flat(walk, here, wanted)?;
        let is_unfolded = match step {
            Step::Present => !matches!(walk.list.flats.last(), Some(Flat { end: Op::Call { .. }, .. })),
            step => step == Step::Unfold,
        };
        Ok(match goes {
            Goes::Call(chain, None) if is_unfolded => Some((chain, clauses)),
            _ => None,
        })
    }

    /// The flat rule that something wants, or the step that says there is none.
    fn flat(&mut self, walk: &mut Walk<'_>, here: (usize, usize), wanted: Wanted) -> Result<Step, Refused> {
        let Wanted { clauses, does, change, goes, may_be_left_out } = wanted;
        let at = walk.at;
        let ops = if at < walk.end { self.program(walk, here, at) } else { None };
        let is_malformed = ops.as_ref().is_some_and(|ops| ops.last() == Some(&Op::Malformed));
        let drops = matches!(goes, Goes::Malformed);
        let fits = ops.is_some() && is_malformed == drops;
        let step = self.step(&Asked::Rule { fits, drops, clauses: &clauses, may_be_left_out })?;
        match (step, ops) {
            (Step::Present, Some(ops)) if fits => {
                let differs = || Refused::Wrong(format!("position {at} does something else than its rule"));
                let (checked, end) =
                    self.does(walk, &ops, &clauses, &does, change, goes).ok_or_else(differs)?;
                if let (Op::Call { entry, .. }, Goes::Call(chain, _)) = (&end, goes) {
                    self.enter(*entry, (walk.table.0, chain))?;
                }
                let (is_plain, changes, is_unfolded) = (ops.len() == 1, change.is_some(), walk.is_unfolded);
                walk.list.flats.push(Flat { clauses, checked, end, is_plain, changes, is_unfolded });
                walk.at += 1;
            }
            (Step::Absent, _) if walk.is_over => {}
            (Step::Absent, _) => walk.list.absent.push((at, clauses)),
            (Step::Unfold, _) if may_be_left_out => {}
            _ => return wrong(format!("position {at} is not of the rule that stands there")),
        }
        Ok(step)
    }

    /// The operations of a flat rule, when it comes from this rule.
    fn program(&mut self, walk: &Walk<'_>, here: (usize, usize), at: u32) -> Option<Vec<Op>> {
        let (flat, origin) = self.on.image.flat(at)?;
        let origin: OriginId = origin;
        let origin = self.on.image.origin(origin)?;
        let (ruleset, image) = (self.ruleset, self.on.image);
        let chain = *self.chains.entry(origin.list).or_insert_with(|| {
            let (table, chain) = image.name(origin.list).split_once('/')?;
            let table = ruleset.tables.iter().position(|t| TableKind::from_name(table) == Some(t.kind))?;
            Some((table, ruleset.tables[table].chain_index(chain)?))
        });
        let line = walk.table.1.chains[here.0].rules[here.1].line;
        if (chain, origin.number as usize, origin.line) != (Some((walk.table.0, here.0)), here.1 + 1, line) {
            return None;
        }
        let mut reader = match flat {
            FlatRecord::Verdict(id) => return Some(vec![Op::Verdict(id)]),
            FlatRecord::Return => return Some(vec![Op::Return]),
            FlatRecord::Continue => return Some(vec![Op::Continue]),
            FlatRecord::Program(word) => Reader::new(image.section(Section::Programs), word as usize),
        };
        let mut ops: Vec<Op> = Vec::new();
        while ops.len() < 1 << 14 && !ops.last().is_some_and(Op::is_end) {
            ops.push(reader.op()?);
        }
        Some(ops)
    }

    /// A program does what its rule wants: which clauses are left to it, and how it ends.
    fn does(
        &self,
        walk: &mut Walk<'_>,
        ops: &[Op],
        clauses: &[Rc<Clause>],
        does: &[Does],
        change: Option<Change>,
        goes: Goes,
    ) -> Option<(Vec<bool>, Op)> {
        let space = &self.on.space;
        let same = |rules: &[&Clause], program: &[Vec<_>]| space.are_same(rules, program) == Some(true);
        let (end, mut ops) = ops.split_last()?;
        let mut checked = vec![false; clauses.len()];
        while let [Op::Clause(said), rest @ ..] = ops {
            // A clause of the rules (or several that say the same), or all that are about these fields.
            let alone: Vec<usize> =
                (0..clauses.len()).filter(|&i| same(&[&*clauses[i]], std::slice::from_ref(said))).collect();
            let dims: Vec<Dim> = said.iter().flatten().map(|test| test.dim).collect();
            let is_about = |clause: &Clause| {
                let mut words = clause.iter().flat_map(|t| meaning::words(t.field, space.family));
                words.all(|dim| dims.contains(dim))
            };
            let all: Vec<usize> = (0..clauses.len()).filter(|&i| is_about(&clauses[i])).collect();
            let together: Vec<&Clause> = all.iter().map(|&i| &*clauses[i]).collect();
            let meant = match alone[..] {
                [] if same(&together, std::slice::from_ref(said)) => all,
                [] => return None,
                _ => alone,
            };
            meant.into_iter().for_each(|i| checked[i] = true);
            ops = rest;
        }
        let mut wanted = does;
        loop {
            let behind = wanted.iter().take_while(|d| matches!(d, Does::Clause(_))).count();
            let said = ops.iter().take_while(|op| matches!(op, Op::Clause(_))).count();
            let rules: Vec<&Clause> = wanted[..behind]
                .iter()
                .filter_map(|d| if let Does::Clause(c) = d { Some(c) } else { None })
                .collect();
            let program: Vec<Vec<_>> = ops[..said]
                .iter()
                .filter_map(|op| if let Op::Clause(c) = op { Some(c.clone()) } else { None })
                .collect();
            if behind + said > 0 && !same(&rules, &program) {
                return None;
            }
            (wanted, ops) = (&wanted[behind..], &ops[said..]);
            match (wanted, ops) {
                ([Does::Ask(n, kind), w @ ..], [Op::Residual { match_index, kind: k }, o @ ..])
                    if (n, kind) == (match_index, k) =>
                {
                    (wanted, ops) = (w, o);
                }
                ([Does::Need(d, p), w @ ..], [Op::Need { drops, passes }, o @ ..])
                    if (d, p) == (drops, passes) =>
                {
                    (wanted, ops) = (w, o);
                }
                ([], _) => break,
                _ => return None,
            }
        }
        let changed: Vec<Op> = change.into_iter().map(Op::Effect).collect();
        let mut lands = |to: u32, label: Option<usize>| match label {
            None => to == walk.end,
            Some(label) => {
                walk.landings.push((label, to));
                true
            }
        };
        let next = walk.at + 1;
        let is_so = match (goes, end) {
            (Goes::Verdict(name), Op::Verdict(id)) => self.on.image.verdict_name(*id) == name,
            (Goes::Malformed, Op::Malformed) => true,
            (Goes::Next | Goes::Call(_, None), Op::Continue) => true,
            (Goes::Back(label), Op::Skip(to)) => lands(*to, label),
            (Goes::Back(None), Op::Return) => true,
            (Goes::Call(_, None), Op::Call { back, .. }) => *back == next,
            (Goes::Call(_, Some(label)), Op::Call { back, .. }) => lands(*back, label),
            _ => false,
        };
        // What is unfolded has no program: the path behind it would not know.
        let is_unfolded = matches!((goes, end), (Goes::Call(_, None), Op::Continue));
        (is_so && ops == changed && !(is_unfolded && (!does.is_empty() || checked.contains(&true))))
            .then(|| (checked, end.clone()))
    }
}

/// No packet comes to what follows a rule in its chain.
fn is_end(rule: &Rule, family: Family) -> bool {
    let Target::Extension(extension) = &rule.target else { return false };
    let goes_on = matches!(extension.target_meaning(family), TargetMeaning::Continue(_));
    !goes_on && rule.matches.is_empty() && meaning::of_ip_part(&rule.ip).is_empty()
}

fn change(effect: Effect) -> Option<Change> {
    Some(match effect {
        Effect::None => return None,
        Effect::Mark { clear, flip } => Change::Mark { clear, flip },
        Effect::ConnMark { clear, flip } => Change::ConnMark { clear, flip },
        Effect::SaveMark { ctmask, nfmask } => Change::SaveMark { ctmask, nfmask },
        Effect::RestoreMark { ctmask, nfmask } => Change::RestoreMark { ctmask, nfmask },
        Effect::Tos { clear, flip } => Change::Tos { clear, flip },
        Effect::TtlSet(ttl) => Change::TtlSet(ttl),
        Effect::TtlAdd(by) => Change::TtlAdd(by),
        Effect::TtlSub(by) => Change::TtlSub(by),
        Effect::Untrack => Change::Untrack,
    })
}

fn changes(flat: &Flat, changing: &[bool]) -> bool {
    flat.changes || matches!(flat.end, Op::Call { entry, .. } if changing.get(entry as usize) != Some(&false))
}

/// For each flat rule, the first position behind it at which a packet that satisfies it can look for a
/// rule: where it leads itself, where a jump over it lands, and behind the next change of the packet.
fn until(list: &List, changing: &[bool]) -> Vec<u32> {
    let end = list.record.first + list.flats.len() as u32;
    let lands = |flat: &Flat, position: u32| match flat.end {
        Op::Verdict(_) | Op::Malformed => u32::MAX,
        Op::Skip(to) | Op::Call { back: to, .. } => to,
        Op::Return => end,
        _ => position + 1,
    };
    let mut out = Vec::with_capacity(list.flats.len());
    // Landings of jumps over a position: those still ahead, the nearest on top.
    let mut over: Vec<u32> = Vec::new();
    for (position, flat) in (list.record.first..).zip(&list.flats) {
        while over.last().is_some_and(|&to| to <= position) {
            over.pop();
        }
        let to = lands(flat, position);
        let own = if flat.is_plain { to } else { position + 1 };
        out.push(own.min(over.last().copied().unwrap_or(u32::MAX)));
        if to != u32::MAX && to > position + 1 {
            let at = over.partition_point(|&other| other > to);
            over.insert(at, to);
        }
    }
    let mut changed = u32::MAX;
    for (index, flat) in list.flats.iter().enumerate().rev() {
        let behind = list.record.first + index as u32 + 1;
        out[index] = out[index].min(changed).max(behind);
        if changes(flat, changing) {
            changed = behind;
        }
    }
    out
}
