//! The checker: walks rules and image, and follows the steps that a [`Guide`] says.

use std::collections::HashMap;
use std::rc::Rc;

use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::{NODE_BYTES, Node};
use hipac_classifier::forest::root::{Bits, Root, TreeRecord, cell_at, fold};
use hipac_classifier::forest::{DEPTH_MAX, Kind, PENDING_MAX, Ref, UNIT};
use hipac_classifier::image::{EntryRecord, Flat as FlatRecord, Section};
use hipac_classifier::program::{Change, Op, Reader, ResidualKind};
use hipac_classifier::{Dim, EntryId, Image, OriginId};
use hipac_rules::{Clause, Effect, Family, Residual, Rule, Ruleset, Table, TableKind, Target, TargetMeaning};

use super::meaning::{self, Region, Space};
use super::{Refused, Step};
use crate::agree::Compared;

/// Regions that wait, at most.
const WAITING_MAX: usize = 1 << 22;

/// Says the next step.
pub(super) trait Guide {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused>;
}

/// What the next step is about.
pub(super) enum Asked<'q> {
    /// A rule, and whether the next flat rule can be its.
    Rule { fits: bool, clauses: &'q [Rc<Clause>], may_be_left_out: bool },
    /// A region.
    Region(Question<'q>),
}

/// A region in which a rule must be found, or must not be looked for.
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

/// A place in a forest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) at: Ref,
    tree: Option<TreeRecord>,
    gate: u32,
    smallest: u32,
    waiting: usize,
    depth: u32,
}

impl Spot {
    /// Where lookups begin.
    pub(super) fn back_at(self, root: Ref) -> Spot {
        Spot { at: root, waiting: 0, depth: 0, smallest: 0, ..self }
    }
}

/// A flat rule.
pub(super) struct Flat {
    pub(super) clauses: Vec<Rc<Clause>>,
    pub(super) checked: Vec<bool>,
    end: Op,
    is_plain: bool,
    changes: bool,
}

/// The flat rules of an entry.
pub(super) struct List {
    record: EntryRecord,
    pub(super) flats: Vec<Flat>,
    /// What has no flat rule, and before which position.
    absent: Vec<(u32, Vec<Rc<Clause>>)>,
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

/// What all of a check looks at.
pub(super) struct Shared<'a, B> {
    pub(super) image: &'a Image<B>,
    pub(super) space: Space,
    pub(super) arena: &'a [u8],
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
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
    on: Shared<'a, B>,
    guide: &'a mut G,
    /// The chain of each entry that packets come to.
    meant: HashMap<u32, (usize, usize)>,
    waiting: Vec<(u32, (usize, usize))>,
    /// The chain of each name of the image.
    chains: HashMap<u32, Option<(usize, usize)>>,
    checked: Checked,
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

/// A list under way.
struct Walk<'t> {
    table: (usize, &'t Table),
    list: List,
    at: u32,
    end: u32,
    /// No packet comes to the rule.
    is_over: bool,
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

/// How it ends.
#[derive(Clone, Copy)]
enum Goes {
    Verdict(&'static str),
    Malformed,
    Next,
    Back(Option<usize>),
    Call(usize, Option<Option<usize>>),
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Wrong(what.into()))
}

impl<'a, B: AsRef<[u8]>, G: Guide> Checker<'a, B, G> {
    pub(super) fn new(
        ruleset: &'a Ruleset,
        image: &'a Image<B>,
        compared: Compared,
        guide: &'a mut G,
    ) -> Result<Self, Refused> {
        let space = Space::new(image, ruleset.family).filter(|_| image.is_v6() == (ruleset.family == Family::V6));
        let Some(space) = space else { return wrong("the keys of the image make no sense") };
        let on = Shared { image, space, arena: image.section(Section::Arena) };
        let (meant, waiting, chains, checked) = (HashMap::new(), vec![], HashMap::new(), Checked::default());
        Ok(Checker { ruleset, compared, on, guide, meant, waiting, chains, checked })
    }

    pub(super) fn run(mut self) -> Result<Checked, Refused> {
        for (t, table) in self.ruleset.tables.iter().enumerate() {
            for (c, chain) in table.chains.iter().enumerate().filter(|(_, chain)| chain.hook.is_some()) {
                let name = format!("{}/{}", table.kind.name(), chain.name);
                let entry = self.on.image.find_entry(&name).and_then(|id| Some((id, self.on.image.entry(id)?)));
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
        while let Some(&more) = order.iter().find(|&e| {
            !changing[*e as usize] && lists[e].flats.iter().any(|flat| changes(flat, &changing))
        }) {
            changing[more as usize] = true;
        }
        for entry in order {
            let Some(mut list) = lists.remove(&entry) else { continue };
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

    fn step(&mut self, asked: &Asked<'_>) -> Result<Step, Refused> {
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
        let mut walk =
            Walk { table: (chain.0, table), list, at: first, end, is_over: false, labels: vec![], landings: vec![] };
        let mut frames = vec![Frame { chain: chain.1, next: 0, path: vec![], label: None, is_over: false }];
        while let Some(frame) = frames.last_mut() {
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
    ) -> Result<Option<(usize, Vec<Rc<Clause>>)>, Refused> {
        let family = self.ruleset.family;
        clauses.extend(meaning::of_ip_part(&rule.ip).into_iter().map(|test| Rc::new(vec![test])));
        let (mut does, mut pure): (Vec<Does>, Vec<u8>) = (vec![], vec![]);
        for (number, extension) in rule.matches.iter().enumerate() {
            let number = number as u8;
            let meaning = extension.match_meaning(family);
            if let Some((drops, passes)) = meaning::need(meaning.l4) {
                if does.is_empty() {
                    let cut = clauses.iter().cloned().chain([Rc::new(meaning::in_states(drops))]).collect();
                    let asks = pure.iter().map(|&n| Does::Ask(n, ResidualKind::Pure)).collect();
                    self.flat(walk, here, cut, asks, None, Goes::Malformed, false)?;
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
            && !does.iter().any(|d| !matches!(d, Does::Ask(_, ResidualKind::Pure)));
        let step = self.flat(walk, here, clauses.clone(), does, change(effect), goes, left_out)?;
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
    fn flat(
        &mut self,
        walk: &mut Walk<'_>,
        here: (usize, usize),
        clauses: Vec<Rc<Clause>>,
        does: Vec<Does>,
        change: Option<Change>,
        goes: Goes,
        may_be_left_out: bool,
    ) -> Result<Step, Refused> {
        let at = walk.at;
        let ops = if at < walk.end { self.program(walk, here, at) } else { None };
        let is_malformed = ops.as_ref().is_some_and(|ops| ops.last() == Some(&Op::Malformed));
        let fits = ops.is_some() && is_malformed == matches!(goes, Goes::Malformed);
        let step = self.step(&Asked::Rule { fits, clauses: &clauses, may_be_left_out })?;
        match (step, ops) {
            (Step::Present, Some(ops)) if fits => {
                let differs =
                    || Refused::Wrong(format!("position {at} does something else than its rule"));
                let (checked, end) = self.does(walk, &ops, &clauses, &does, change, goes).ok_or_else(differs)?;
                if let (Op::Call { entry, .. }, Goes::Call(chain, _)) = (&end, goes) {
                    self.enter(*entry, (walk.table.0, chain))?;
                }
                let is_plain = ops.len() == 1;
                walk.list.flats.push(Flat { clauses, checked, end, is_plain, changes: change.is_some() });
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
            // One clause of the rules, or all that are about the same fields.
            let one = (0..clauses.len()).find(|&i| same(&[&*clauses[i]], std::slice::from_ref(said)));
            let dims: Vec<Dim> = said.iter().flatten().map(|test| test.dim).collect();
            let is_about = |clause: &Clause| {
                let mut words = clause.iter().flat_map(|t| meaning::words(t.field, space.family));
                words.all(|dim| dims.contains(dim))
            };
            let all: Vec<usize> = (0..clauses.len()).filter(|&i| is_about(&clauses[i])).collect();
            let together: Vec<&Clause> = all.iter().map(|&i| &*clauses[i]).collect();
            match one {
                Some(one) => checked[one] = true,
                None if same(&together, std::slice::from_ref(said)) => all.iter().for_each(|&i| checked[i] = true),
                None => return None,
            }
            ops = rest;
        }
        let mut wanted = does;
        loop {
            let behind = wanted.iter().take_while(|d| matches!(d, Does::Clause(_))).count();
            let said = ops.iter().take_while(|op| matches!(op, Op::Clause(_))).count();
            let rules: Vec<&Clause> =
                wanted[..behind].iter().filter_map(|d| if let Does::Clause(c) = d { Some(c) } else { None }).collect();
            let program: Vec<Vec<_>> =
                ops[..said].iter().filter_map(|op| if let Op::Clause(c) = op { Some(c.clone()) } else { None }).collect();
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
                ([Does::Need(d, p), w @ ..], [Op::Need { drops, passes }, o @ ..]) if (d, p) == (drops, passes) => {
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

    /// One root of a list: what is stored holds, and what holds is stored.
    fn forest(&mut self, list: &List, root: Ref, states: (u32, u32)) -> Result<(), Refused> {
        let mut everything: Region = self.on.space.axes.iter().map(|axis| axis.range).collect();
        if let Some(axis) = self.on.space.axis(Dim::L4) {
            everything[axis] = match everything[axis].1 {
                6 => states,
                _ => return wrong("states of the transport header are thrown together"),
            };
        }
        let spot = Spot { at: root, tree: None, gate: u32::MAX >> 8, smallest: 0, waiting: 0, depth: 0 };
        let mut waiting = vec![(everything.clone(), spot)];
        if root.is_root() {
            waiting.clear();
            let Some(view) = Root::view(self.on.arena, root.offset()) else { return wrong("a root is not there") };
            for tree in (0..view.tree_count()).map(|t| view.tree(t)) {
                self.on.cells(&everything, spot, tree, &mut waiting)?;
            }
        }
        let mut visits = 64 + 64 * (self.on.arena.len() / UNIT) as u64;
        while let Some((region, spot)) = waiting.pop() {
            visits = visits.saturating_sub(1);
            if visits == 0 || waiting.len() > WAITING_MAX {
                return wrong("the forest leads to the same places over and over");
            }
            if spot.at.is_empty() {
                continue;
            }
            if spot.at.kind() == Kind::Node {
                let Some(node) = self.on.node(spot) else { return wrong("a node makes no sense") };
                self.on.children(&node, &region, spot, &mut waiting);
                waiting.extend(self.on.part(&node, spot).map(|spot| (region, spot)));
            } else {
                self.leaf(list, root, &region, spot)?;
            }
        }
        for (position, flat) in (list.record.first..).zip(&list.flats) {
            let of = (&*flat.clauses, &*flat.checked);
            self.derive(list, root, position, of, everything.clone(), spot, Must::BeStored)?;
        }
        for (position, clauses) in &list.absent {
            let none = vec![false; clauses.len()];
            self.derive(list, root, *position, (clauses, &none), everything.clone(), spot, Must::BeHidden)?;
        }
        Ok(())
    }

    /// All lanes of a leaf, in order.
    fn leaf(&mut self, list: &List, root: Ref, region: &Region, spot: Spot) -> Result<(), Refused> {
        let mut last = 0;
        for lane in 0.. {
            let Some((leaf, rule)) = self.on.lane(spot.at, lane) else { return Ok(()) };
            let position = leaf.position(rule);
            let Some(flat) = list.flat(position).filter(|_| last <= position) else {
                return wrong(format!("the leaf at {} is not in order", spot.at.offset()));
            };
            last = position;
            let mut held = region.clone();
            // Twice: what a window says of an axis may hang on one that is looked at later.
            let space = &self.on.space;
            let narrow = |(at, bytes, range): (usize, usize, (u32, u32))| space.narrow(&mut held, at, bytes, range);
            if !(0..leaf.columns()).chain(0..leaf.columns()).map(|c| leaf.column(c, rule)).all(narrow) {
                continue;
            }
            self.checked.stored += 1;
            let mut clauses = flat.clauses.iter().zip(&flat.checked);
            if !clauses.all(|(clause, &checked)| checked || space.is_inside(clause, &held)) {
                self.derive(list, root, position, (&flat.clauses, &flat.checked), held, spot, Must::Hold)?;
            }
        }
        Ok(())
    }

    /// Follows steps until nothing is left of a region.
    fn derive(
        &mut self,
        list: &List,
        root: Ref,
        position: u32,
        (clauses, checked): (&[Rc<Clause>], &[bool]),
        region: Region,
        spot: Spot,
        must: Must,
    ) -> Result<(), Refused> {
        let mut waiting = vec![(region, spot)];
        while let Some((mut region, spot)) = waiting.pop() {
            let question = Question { list, root, position, clauses, checked, region: &region, spot, must };
            let step = self.step(&Asked::Region(question))?;
            let (space, seeks) = (&self.on.space, must == Must::BeStored);
            let fails = |clause: u32, region: &Region| {
                must != Must::Hold && clauses.get(clause as usize).is_some_and(|c| space.is_outside(c, region))
            };
            let is_true = match step {
                Step::Keep { axis, lo, hi, clause } if (axis as usize) < region.len() => {
                    let axis = axis as usize;
                    let (first, last) = region[axis];
                    let mut cut = |from: u32, to: u32| {
                        region[axis] = (from, to);
                        fails(clause, &region)
                    };
                    let is_so = first <= lo && lo <= hi && hi <= last
                        && (first == lo || cut(first, lo - 1))
                        && (hi == last || cut(hi + 1, last));
                    region[axis] = (lo, hi);
                    waiting.push((region, spot));
                    is_so
                }
                Step::Split { axis, at } if (axis as usize) < region.len() => {
                    let (first, last) = region[axis as usize];
                    let is_so = first <= at && at < last;
                    region[axis as usize] = (at.saturating_add(1), last);
                    waiting.push((region.clone(), spot));
                    region[axis as usize] = (first, at);
                    waiting.push((region, spot));
                    is_so
                }
                Step::Outside { clause } => fails(clause, &region),
                Step::Hidden { position: by } => {
                    let hides = by < position && position < list.until(by);
                    hides
                        && list.flat(by).is_some_and(|flat| flat.clauses.iter().all(|c| space.is_inside(c, &region)))
                }
                Step::Inside => {
                    let mut clauses = clauses.iter().zip(checked);
                    must == Must::Hold && clauses.all(|(c, &checked)| checked || space.is_inside(c, &region))
                }
                Step::Shut => {
                    must == Must::Hold && spot.tree.is_some_and(|t| self.on.filter(&t, &region) & spot.gate == 0)
                }
                Step::Tree { tree } if seeks && spot.at == root && root.is_root() => {
                    let view = Root::view(self.on.arena, root.offset());
                    let tree = view.filter(|v| (tree as usize) < v.tree_count()).map(|v| v.tree(tree as usize));
                    match tree {
                        Some(tree) => {
                            self.on.cells(&region, spot, tree, &mut waiting)?;
                            true
                        }
                        None => false,
                    }
                }
                Step::Down if seeks && spot.at.kind() == Kind::Node && !spot.at.is_root() => {
                    let node = self.on.node(spot);
                    node.is_some_and(|node| {
                        self.on.children(&node, &region, spot, &mut waiting);
                        true
                    })
                }
                Step::Part if seeks && spot.at.kind() == Kind::Node && !spot.at.is_root() => {
                    let part = self.on.node(spot).and_then(|node| self.on.part(&node, spot));
                    waiting.extend(part.map(|spot| (region, spot)));
                    part.is_some()
                }
                Step::Lane { lane } if seeks => {
                    let scale = Root::view(self.on.arena, root.offset()).filter(|_| root.is_root()).map(|v| v.scale());
                    let is_open = spot.tree.is_none_or(|tree| self.on.filter(&tree, &region) & !spot.gate == 0);
                    let in_time = scale.is_none_or(|scale| spot.gate >> 24 <= scale.scaled(position));
                    let holds = self.on.lane(spot.at, lane as usize).is_some_and(|(leaf, rule)| {
                        leaf.position(rule) == position
                            && (0..leaf.columns()).all(|c| {
                                let (at, bytes, (lo, hi)) = leaf.column(c, rule);
                                let (first, last) = space.values(&region, at, bytes);
                                lo <= first && last <= hi
                            })
                    });
                    holds && is_open && in_time && spot.smallest <= position
                }
                _ => false,
            };
            if !is_true {
                return wrong(format!("position {position}: it is not so that {step:?}"));
            }
            if waiting.len() > WAITING_MAX {
                return wrong("too many regions wait");
            }
        }
        Ok(())
    }
}

/// A leaf of either kind.
pub(super) enum Lanes<'a> {
    Lean(Leaf<'a>),
    Fat(FatLeaf<'a>),
}

impl Lanes<'_> {
    fn rules(&self) -> usize {
        match self {
            Lanes::Lean(leaf) => leaf.layout.rules,
            Lanes::Fat(leaf) => leaf.layout.rules,
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Lanes::Lean(leaf) => leaf.layout.columns(),
            Lanes::Fat(leaf) => leaf.layout.columns(),
        }
    }

    pub(super) fn position(&self, rule: usize) -> u32 {
        match self {
            Lanes::Lean(leaf) => leaf.position(rule),
            Lanes::Fat(leaf) => leaf.position(rule),
        }
    }

    /// Where in the key a column looks, at how many bytes, and what a rule wants of it.
    pub(super) fn column(&self, column: usize, rule: usize) -> (usize, usize, (u32, u32)) {
        match self {
            Lanes::Lean(leaf) => {
                let (lo, hi) = leaf.range(column, rule);
                (leaf.window(column).into(), 2, (lo.into(), hi.into()))
            }
            Lanes::Fat(leaf) => {
                let bytes = if leaf.is_wide(column) { 4 } else { 2 };
                (leaf.window(column).into(), bytes, leaf.range(column, rule))
            }
        }
    }
}

impl<B: AsRef<[u8]>> Shared<'_, B> {
    /// A lane of a leaf and its continuations.
    pub(super) fn lane(&self, mut at: Ref, mut lane: usize) -> Option<(Lanes<'_>, usize)> {
        for _ in 0..1 << 20 {
            let leaf = match at.kind() {
                _ if at.is_empty() => return None,
                Kind::Node => return None,
                Kind::Fat => Lanes::Fat(FatLeaf::view(self.arena, at.offset())?),
                _ => Lanes::Lean(Leaf::view(self.arena, at.offset())?),
            };
            if lane < leaf.rules() {
                return Some((leaf, lane));
            }
            lane -= leaf.rules();
            let Lanes::Fat(leaf) = leaf else { return None };
            at = Some(leaf.next()).filter(|next| next.kind() == Kind::Fat)?;
        }
        None
    }

    pub(super) fn node(&self, spot: Spot) -> Option<Node> {
        let bytes = self.arena.get(spot.at.offset()..)?.first_chunk::<NODE_BYTES>()?;
        let node = Node::decode(bytes);
        let is_sound = spot.depth + 1 < DEPTH_MAX && node.encode() == *bytes;
        (is_sound && node.bounds.is_sorted_by(|a, b| a < b)).then_some(node)
    }

    /// The deferred part of a node.
    pub(super) fn part(&self, node: &Node, spot: Spot) -> Option<Spot> {
        let unit = (node.base as usize & Ref::UNITS_MAX).checked_sub(1).filter(|_| node.has_deferred)? * UNIT;
        let bytes = self.arena.get(unit..unit + 8)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let smallest = spot.smallest.max(word(4));
        // What would be one too many to wait is never looked at.
        let at = if spot.waiting < PENDING_MAX { Ref(word(0)) } else { Ref::EMPTY };
        Some(Spot { at, smallest, depth: spot.depth + 1, ..spot })
    }

    /// The children of a node that keys of a region come to, the first on top.
    pub(super) fn children(&self, node: &Node, region: &Region, spot: Spot, out: &mut Vec<(Region, Spot)>) {
        let waiting = spot.waiting + usize::from(node.has_deferred);
        for slot in (0..node.children.len()).rev() {
            let lo = slot.checked_sub(1).map_or(0, |before| u32::from(node.bounds[before]) + 1);
            let hi = node.bounds.get(slot).map_or(0xffff, |&bound| u32::from(bound));
            let mut inner = region.clone();
            if self.space.narrow(&mut inner, node.window.into(), 2, (lo, hi)) {
                out.push((inner, Spot { at: node.child(slot), waiting, depth: spot.depth + 1, ..spot }));
            }
        }
    }

    /// The cells of a tree that keys of a region come to, the first on top.
    pub(super) fn cells(
        &self,
        region: &Region,
        spot: Spot,
        tree: TreeRecord,
        out: &mut Vec<(Region, Spot)>,
    ) -> Result<(), Refused> {
        if !tree.is_sound() {
            return wrong("a tree has bits that are no run");
        }
        let [a, b] = tree.index;
        let before = out.len();
        for (high, region) in self.each_value(a, region) {
            for (low, region) in self.each_value(b, &region) {
                let cell = cell_at(self.arena, tree.cells, (high << b.count() | low) as usize);
                out.push((region, Spot { at: cell.reference, gate: cell.gate, tree: Some(tree), ..spot }));
            }
        }
        out[before..].reverse();
        Ok(())
    }

    /// Values that some bits have in a region, each with its part of the region where that is one.
    fn each_value(&self, bits: Bits, region: &Region) -> Vec<(u32, Region)> {
        let (mask, count) = (u32::from(bits.mask), bits.count());
        let all = || (0..=mask).map(|value| (value, region.clone())).collect();
        let Some((axis, low)) = self.place_of(bits) else { return all() };
        let shift = low + u32::from(bits.shift);
        let (first, last) = (u64::from(region[axis].0) >> shift, u64::from(region[axis].1) >> shift);
        if mask == 0 || last - first >> count != 0 {
            return all();
        }
        let part = |value: u64| {
            let mut region = region.clone();
            let (lo, hi) = ((value << shift) as u32, (value << shift | ((1 << shift) - 1)) as u32);
            region[axis] = (region[axis].0.max(lo), region[axis].1.min(hi));
            (value as u32 & mask, region)
        };
        (first..=last).map(part).collect()
    }

    /// The axis that bits lie in.
    fn place_of(&self, bits: Bits) -> Option<(usize, u32)> {
        let fits = u32::from(bits.shift & 15) + bits.count() <= 16 && bits.shift < 16;
        self.space.place(bits.window.into(), 2).flatten().filter(|_| fits)
    }

    /// Filter bits that keys of a region have.
    fn filter(&self, tree: &TreeRecord, region: &Region) -> u32 {
        let values = |bits: Bits| -> Vec<u32> {
            let mask = u32::from(bits.mask);
            let Some((axis, low)) = self.place_of(bits) else { return (0..=mask).collect() };
            let shift = low + u32::from(bits.shift);
            let (first, last) = (u64::from(region[axis].0) >> shift, u64::from(region[axis].1) >> shift);
            match last - first >= mask.into() {
                true => (0..=mask).collect(),
                false => (first..=last).map(|value| value as u32 & mask).collect(),
            }
        };
        let [a, b] = tree.filter.map(values);
        let count = tree.filter[1].count();
        a.iter().flat_map(|&x| b.iter().map(move |&y| 1 << fold(x << count | y))).fold(0, |all, bit| all | bit)
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
