//! Lowering: the chains of a table become lists of flat rules.
//!
//! ```text
//!   FORWARD                          filter/FORWARD, flat
//!     1 -p tcp -j web                  0  tcp                    continue (counts)
//!     2 -j DROP                        1  tcp ∩ dport 80         ACCEPT
//!   web                                2  tcp ∩ src 10/8         skip to 3
//!     1 --dport 80 -j ACCEPT           3                         DROP
//!     2 -s 10.0.0.0/8 -j RETURN
//! ```
//!
//! A flat rule is a condition, a program for what no interval decides, and an end. User chains
//! are *unfolded* where they are jumped to, intersected with the path, or *called*: compiled
//! once, as an entry of their own. A chain is called when unfolding would multiply it, when a
//! residual match guards the jump, when it is reached by goto, or when something in it changes
//! a dimension (what the path tested may no longer hold behind that).
//!
//! **Invariant:** the flat rules of a table are at most 5 × its rules + half of them again, and
//! one for every match that wants a transport header (it drops packets that lack one).
//!
//! Stateful residual matches are evaluated exactly when the kernel would: the condition holds
//! what stands before the first of them in its rule, everything behind goes to the program.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hipac_classifier::Dim;
use hipac_classifier::program::{Change, Op, ResidualKind};
use hipac_rules::{
    Effect, Extension, IpPart, L4Need, MatchMeaning, Residual, Rule, Ruleset, Table, TableKind, Target,
    TargetMeaning,
};

use crate::condition::{Condition, Space};
use crate::interval::IntervalSet;
use crate::options::Counting;

/// Chains of up to this many flat rules are unfolded wherever they are jumped to.
const ALWAYS_UNFOLD: usize = 4;

/// Unfolded chains nested in each other, at most: bounds the recursion.
const UNFOLD_DEPTH_MAX: u32 = 16;

/// Matches of one rule, at most: a program names the one it asks for by a byte.
pub(crate) const MATCHES_MAX: usize = 256;

/// A flat rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatRule {
    /// What the index decides.
    pub condition: Condition,
    /// What is left, in order; no operation that ends.
    pub ops: Vec<Op>,
    /// What then happens.
    pub end: Op,
    /// The source rule, counted over all rules of the ruleset.
    pub origin: u32,
}

// Rulesets have hundreds of thousands; compiling holds them all for a while.
const _: () = assert!(size_of::<FlatRule>() <= 168);

impl FlatRule {
    /// Its end happens whenever its condition holds.
    pub fn is_plain(&self) -> bool {
        self.ops.is_empty() && self.condition.checks().is_empty()
    }

    /// It changes what rules behind it see.
    pub fn changes_packet(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Effect(_)))
    }
}

/// A list of flat rules with a name: a built-in chain, or a chain that is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatList {
    /// `filter/FORWARD`.
    pub name: String,
    /// Reached by calls only.
    pub called: bool,
    /// Verdict at its end (a called list has the number 0, which is never used).
    pub default_verdict: u8,
    /// Rules of its chain in the text.
    pub chain_rules: usize,
    /// The rules in order. Positions in them count from 0 within the list.
    pub rules: Vec<FlatRule>,
    /// Something in it, or in what it calls, changes a dimension.
    pub changes_packet: bool,
}

impl FlatList {
    /// A list that is called, still without rules.
    pub(crate) fn called() -> FlatList {
        FlatList {
            name: String::new(),
            called: true,
            default_verdict: 0,
            chain_rules: 0,
            rules: vec![],
            changes_packet: false,
        }
    }
}

/// All flat rules of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lowered {
    /// Entry points and called chains; calls refer to their indices.
    pub lists: Vec<FlatList>,
    /// Names of verdicts.
    pub verdicts: Vec<&'static str>,
}

/// Why a ruleset cannot be lowered. (A parsed ruleset without faults can be.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// A jump leads to a chain that is not there.
    #[error("line {line}: chain `{chain}` does not exist in table {table}")]
    NoSuchChain {
        /// Where.
        line: u32,
        /// The chain wanted.
        chain: String,
        /// The table.
        table: &'static str,
    },
    /// Chains jump to each other in a circle.
    #[error("table {table}: chain `{chain}` can come back to itself")]
    Loop {
        /// The table.
        table: &'static str,
        /// A chain of the circle.
        chain: String,
    },
    /// A rule has more matches than a program can tell apart.
    #[error("line {line}: the rule has {count} matches; at most {MATCHES_MAX} fit: split it by a jump")]
    TooManyMatches {
        /// Where.
        line: u32,
        /// How many.
        count: usize,
    },
    /// More than 255 different verdicts.
    #[error("line {line}: target `{target}` is one verdict too many (at most 256 different ones)")]
    TooManyVerdicts {
        /// Where.
        line: u32,
        /// The target.
        target: &'static str,
    },
}

/// Lowers all tables.
///
/// # Cost
/// Linear in the rules. User chains that no built-in chain reaches cost nothing.
///
/// # Errors
/// See [`LowerError`].
pub fn lower(ruleset: &Ruleset, space: &Space<'_>, counting: Counting) -> Result<Lowered, LowerError> {
    let mut out = Lowered::default();
    let mut origin = 0;
    for table in &ruleset.tables {
        let mut lowering = Lowering::new(ruleset, table, space, counting, origin, &mut out)?;
        lowering.run()?;
        origin += table.chains.iter().map(|c| c.rules.len() as u32).sum::<u32>();
    }
    Ok(out)
}

/// What is known of a chain before it is lowered.
#[derive(Debug, Clone, Default)]
struct ChainFacts {
    /// Jump targets of the rules up to the last that has one: chain index.
    targets: Vec<Option<usize>>,
    /// Flat rules it unfolds to.
    size: usize,
    /// Unfolded chains nested in it.
    height: u32,
    changes_packet: bool,
    unfold: bool,
    /// Origin of its first rule.
    first_origin: u32,
}

struct Lowering<'a> {
    ruleset: &'a Ruleset,
    table: &'a Table,
    space: &'a Space<'a>,
    counting: Counting,
    chains: Vec<ChainFacts>,
    out: &'a mut Lowered,
    /// Lists of called chains by chain index.
    called: HashMap<usize, usize>,
    /// Called chains that are still to be lowered.
    waiting: Vec<usize>,
}

/// Where RETURN and the end of a chain lead.
#[derive(Debug, Clone, Copy)]
enum Home {
    /// Out of the list: to the caller, or the policy.
    List,
    /// To a label of the list.
    Label(u32),
}

/// A list in the making: skips and calls refer to labels until it is complete.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) rules: Vec<FlatRule>,
    /// Position of each label.
    labels: Vec<u32>,
}

/// The label behind the last rule of a list.
const END_OF_LIST: u32 = u32::MAX;

impl Draft {
    /// A label whose place is not known yet.
    fn label(&mut self) -> u32 {
        self.labels.push(END_OF_LIST);
        self.labels.len() as u32 - 1
    }

    /// Puts a label behind the rules so far.
    fn place(&mut self, label: u32) {
        self.labels[label as usize] = self.rules.len() as u32;
    }

    /// The rules, with positions for labels.
    fn finish(mut self) -> Vec<FlatRule> {
        let end = self.rules.len() as u32;
        let position = |label: u32| if label == END_OF_LIST { end } else { self.labels[label as usize] };
        for rule in &mut self.rules {
            if let Op::Skip(to) | Op::Call { back: to, .. } = &mut rule.end {
                *to = position(*to);
            }
        }
        self.rules
    }
}

/// A rule's matches, as far as they have been looked at.
pub(crate) struct Matched {
    /// What the index decides: everything before the first stateful residual match.
    pub(crate) condition: Condition,
    /// Residual matches whose evaluation changes nothing, in order: it can wait.
    pub(crate) pure: Vec<Op>,
    /// What is evaluated one by one.
    pub(crate) ops: Vec<Op>,
    /// No stateful residual match so far.
    is_indexed: bool,
}

impl Matched {
    /// What holds before the first match is looked at.
    pub(crate) fn new(condition: Condition) -> Matched {
        Matched { condition, pure: vec![], ops: vec![], is_indexed: true }
    }

    pub(crate) fn and_match(
        &mut self,
        meaning: &MatchMeaning,
        number: u8,
        origin: u32,
        space: &Space<'_>,
        draft: &mut Draft,
    ) {
        self.need(meaning.l4, origin, draft);
        for clause in &meaning.clauses {
            if self.is_indexed {
                self.condition.and_clause(clause, space);
            } else {
                let mut behind = Condition::default();
                behind.and_clause(clause, space);
                self.ops.extend(behind.into_checks().into_iter().map(Op::Clause));
            }
        }
        let residual = |kind| Op::Residual { match_index: number, kind };
        match meaning.residual {
            None => {}
            Some(Residual::Pure) if self.is_indexed => self.pure.push(residual(ResidualKind::Pure)),
            Some(Residual::Pure) => self.ops.push(residual(ResidualKind::Pure)),
            Some(kind) => {
                self.ops.append(&mut self.pure);
                let kind = match kind {
                    Residual::Unknown => ResidualKind::Unknown,
                    _ => ResidualKind::Stateful,
                };
                self.ops.push(residual(kind));
                self.is_indexed = false;
            }
        }
    }

    /// The transport header that a match wants. A packet that has too little of it is dropped,
    /// when everything before this match holds: a flat rule of its own.
    fn need(&mut self, need: L4Need, origin: u32, draft: &mut Draft) {
        if need == L4Need::default() {
            return;
        }
        let (drops, passes) = need_states(need);
        if !self.is_indexed {
            self.ops.push(Op::Need { drops, passes });
            return;
        }
        let states = |bits: u8| IntervalSet::of_small(Dim::L4.max(), |x| bits >> x & 1 != 0);
        let mut condition = self.condition.clone();
        condition.and_set(Dim::L4, &states(drops));
        if !condition.is_empty() {
            draft.rules.push(FlatRule { condition, ops: self.pure.clone(), end: Op::Malformed, origin });
        }
        self.condition.and_set(Dim::L4, &states(passes));
    }
}

/// Bits of the states ([`L4`](hipac_classifier::L4)) in which a match drops the packet, and of
/// those in which it goes on to look.
fn need_states(need: L4Need) -> (u8, u8) {
    // Bytes that a packet of each state has at least, from state 3 on.
    const AT_LEAST: [u8; 4] = [0, 4, 8, 12];
    let mut drops = if need.drops_fragment_at_8 { 1 << 2 } else { 0 };
    let mut passes = 1;
    for (i, bytes) in AT_LEAST.into_iter().enumerate() {
        if bytes < need.bytes { drops |= 8 << i } else { passes |= 8 << i }
    }
    (drops, passes)
}

impl<'a> Lowering<'a> {
    fn new(
        ruleset: &'a Ruleset,
        table: &'a Table,
        space: &'a Space<'a>,
        counting: Counting,
        first_origin: u32,
        out: &'a mut Lowered,
    ) -> Result<Lowering<'a>, LowerError> {
        let chains = survey(ruleset, table, first_origin)?;
        Ok(Lowering { ruleset, table, space, counting, chains, out, called: HashMap::new(), waiting: vec![] })
    }

    fn run(&mut self) -> Result<(), LowerError> {
        for (index, chain) in self.table.chains.iter().enumerate() {
            let Some(policy) = chain.policy else { continue };
            let default_verdict = verdict_id(&mut self.out.verdicts, policy.name(), chain.line)?;
            self.list(index, false, default_verdict)?;
        }
        while let Some(index) = self.waiting.pop() {
            self.list(index, true, 0)?;
        }
        Ok(())
    }

    /// Lowers one chain into a list of its own.
    fn list(&mut self, index: usize, called: bool, default_verdict: u8) -> Result<(), LowerError> {
        let chain = &self.table.chains[index];
        let name = format!("{}/{}", self.table.kind.name(), chain.name);
        let list = FlatList {
            name,
            called,
            default_verdict,
            chain_rules: chain.rules.len(),
            rules: vec![],
            changes_packet: self.chains[index].changes_packet,
        };
        let at = if called {
            let at = self.called[&index];
            self.out.lists[at] = list;
            at
        } else {
            self.out.lists.push(list);
            self.out.lists.len() - 1
        };
        let mut draft = Draft::default();
        draft.rules.reserve(self.chains[index].size);
        self.chain(index, &Condition::default(), Home::List, &mut draft)?;
        self.out.lists[at].rules = draft.finish();
        Ok(())
    }

    /// The list of a called chain; it is lowered later.
    fn call(&mut self, index: usize) -> u32 {
        let lists = &mut self.out.lists;
        let waiting = &mut self.waiting;
        let at = *self.called.entry(index).or_insert_with(|| {
            waiting.push(index);
            lists.push(FlatList::called());
            lists.len() - 1
        });
        at as u32
    }

    fn chain(
        &mut self,
        index: usize,
        path: &Condition,
        home: Home,
        draft: &mut Draft,
    ) -> Result<(), LowerError> {
        let table = self.table;
        for (number, rule) in table.chains[index].rules.iter().enumerate() {
            let origin = self.chains[index].first_origin + number as u32;
            let target = self.chains[index].targets.get(number).copied().flatten();
            self.rule(rule, origin, target, path, home, draft)?;
        }
        Ok(())
    }

    fn rule(
        &mut self,
        rule: &Rule,
        origin: u32,
        target: Option<usize>,
        path: &Condition,
        home: Home,
        draft: &mut Draft,
    ) -> Result<(), LowerError> {
        if rule.matches.len() > MATCHES_MAX {
            return Err(LowerError::TooManyMatches { line: rule.line, count: rule.matches.len() });
        }
        let mut matched = Matched::new(path.clone());
        matched.condition.and_ip_part(&rule.ip, self.space);
        for (number, extension) in rule.matches.iter().enumerate() {
            if matched.condition.is_empty() {
                return Ok(());
            }
            let meaning = extension.match_meaning(self.ruleset.family);
            matched.and_match(&meaning, number as u8, origin, self.space, draft);
        }
        if matched.condition.is_empty() {
            return Ok(());
        }
        let Matched { condition, pure, mut ops, .. } = matched;
        ops.extend(pure); // empty when there are stateful ones
        let push = |draft: &mut Draft, condition, ops, end| {
            draft.rules.push(FlatRule { condition, ops, end, origin });
        };
        match (&rule.target, target) {
            (Target::Jump(_), Some(chain)) => {
                let unfold = self.chains[chain].unfold && ops.is_empty() && condition.checks().is_empty();
                if unfold && condition.unions().is_empty() && condition.box_count() <= 4 {
                    // The jump's own counters.
                    if self.counting == Counting::Exact {
                        push(draft, condition.clone(), vec![], Op::Continue);
                    }
                    let label = draft.label();
                    self.chain(chain, &condition, Home::Label(label), draft)?;
                    draft.place(label);
                } else {
                    let entry = self.call(chain);
                    let label = draft.label();
                    push(draft, condition, ops, Op::Call { entry, back: label });
                    draft.place(label);
                }
            }
            (Target::Goto(_), Some(chain)) => {
                let entry = self.call(chain);
                let back = match home {
                    Home::List => END_OF_LIST,
                    Home::Label(label) => label,
                };
                push(draft, condition, ops, Op::Call { entry, back });
            }
            // No packet comes here: `survey` has refused a jump to nowhere.
            (Target::Jump(_) | Target::Goto(_), None) => {}
            (Target::None, _) => {
                if self.keeps_continue(&ops) {
                    push(draft, condition, ops, Op::Continue);
                }
            }
            (Target::Extension(extension), _) => match extension.target_meaning(self.ruleset.family) {
                TargetMeaning::Verdict(name) => {
                    let id = verdict_id(&mut self.out.verdicts, name, rule.line)?;
                    push(draft, condition, ops, Op::Verdict(id));
                }
                TargetMeaning::Return => {
                    let end = match home {
                        Home::List => Op::Return,
                        Home::Label(label) => Op::Skip(label),
                    };
                    push(draft, condition, ops, end);
                }
                TargetMeaning::Continue(effect) => {
                    // Kept whoever counts: the host acts on it (LOG), or a later rule sees it.
                    ops.extend(change_of(effect).map(Op::Effect));
                    push(draft, condition, ops, Op::Continue);
                }
            },
        }
        Ok(())
    }

    /// A rule that only goes on is kept when someone counts, or when evaluating it does
    /// something.
    fn keeps_continue(&self, ops: &[Op]) -> bool {
        keeps_continue(self.counting, ops)
    }
}

/// See [`Lowering::keeps_continue`].
pub(crate) fn keeps_continue(counting: Counting, ops: &[Op]) -> bool {
    counting == Counting::Exact
        || ops.iter().any(|op| !matches!(op, Op::Residual { kind: ResidualKind::Pure, .. }))
}

pub(crate) fn verdict_id(
    verdicts: &mut Vec<&'static str>,
    name: &'static str,
    line: u32,
) -> Result<u8, LowerError> {
    let id = verdicts.iter().position(|v| *v == name).unwrap_or_else(|| {
        verdicts.push(name);
        verdicts.len() - 1
    });
    u8::try_from(id).map_err(|_| LowerError::TooManyVerdicts { line, target: name })
}

pub(crate) fn change_of(effect: Effect) -> Option<Change> {
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

/// Looks at a table as a graph: resolves jumps, refuses circles, and decides bottom-up which
/// chains are unfolded. Chains that no packet reaches are left alone: they may even be circles.
fn survey(ruleset: &Ruleset, table: &Table, first_origin: u32) -> Result<Vec<ChainFacts>, LowerError> {
    let mut facts = targets(ruleset, table, first_origin)?;
    let order = bottom_up(table.kind, table, &facts)?;
    let mut jumps_to = vec![0usize; facts.len()];
    order.iter().flat_map(|&i| facts[i].targets.iter().flatten()).for_each(|&t| jumps_to[t] += 1);
    let mut spare = order.iter().map(|&i| table.chains[i].rules.len()).sum::<usize>() / 2;
    for index in order {
        let mut fact = ChainFacts {
            size: facts[index].size,
            changes_packet: facts[index].changes_packet,
            ..ChainFacts::default()
        };
        for target in facts[index].targets.iter().flatten().copied() {
            fact.changes_packet |= facts[target].changes_packet;
            if facts[target].unfold {
                fact.size += facts[target].size;
                fact.height = fact.height.max(facts[target].height + 1);
            }
        }
        let copies = fact.size * jumps_to[index].saturating_sub(1);
        let is_cheap = jumps_to[index] <= 1 || fact.size <= ALWAYS_UNFOLD || copies <= spare;
        fact.unfold = is_cheap && !fact.changes_packet && fact.height < UNFOLD_DEPTH_MAX;
        if fact.unfold && fact.size > ALWAYS_UNFOLD {
            spare -= copies;
        }
        let old = &mut facts[index];
        (old.size, old.height, old.changes_packet, old.unfold) =
            (fact.size, fact.height, fact.changes_packet, fact.unfold);
    }
    Ok(facts)
}

/// Flat rules that a rule becomes, at most, without what it jumps to: itself, and a drop for each
/// match that wants a transport header.
fn flat_rules_of(rule: &Rule, ruleset: &Ruleset) -> usize {
    let wants_header = |m: &&Extension| m.l4_need(ruleset.family) != L4Need::default();
    1 + rule.matches.iter().filter(wants_header).count()
}

/// What later rules look at may be another thing behind this rule.
fn changes_packet(rule: &Rule, ruleset: &Ruleset) -> bool {
    matches!(&rule.target, Target::Extension(e)
        if matches!(e.target_meaning(ruleset.family), TargetMeaning::Continue(effect) if effect != Effect::None))
}

/// No packet goes on behind this rule.
fn ends_chain(rule: &Rule, ruleset: &Ruleset) -> bool {
    rule.matches.is_empty()
        && rule.ip == IpPart::default()
        && matches!(&rule.target, Target::Extension(e)
            if !matches!(e.target_meaning(ruleset.family), TargetMeaning::Continue(_)))
}

/// What each chain says by itself: its flat rules, and the chain that each rule jumps or goes to;
/// none for a rule that no packet comes to, because one before it ends the chain for all.
fn targets(ruleset: &Ruleset, table: &Table, first_origin: u32) -> Result<Vec<ChainFacts>, LowerError> {
    let names: HashMap<&str, usize, RandomState> =
        table.chains.iter().enumerate().map(|(i, c)| (&*c.name, i)).collect();
    let mut origin = first_origin;
    table
        .chains
        .iter()
        .map(|chain| {
            let mut facts = ChainFacts { first_origin: origin, ..ChainFacts::default() };
            let mut is_ended = false;
            for (number, rule) in chain.rules.iter().enumerate() {
                facts.size += flat_rules_of(rule, ruleset);
                facts.changes_packet |= changes_packet(rule, ruleset);
                is_ended |= ends_chain(rule, ruleset);
                let (Target::Jump(name) | Target::Goto(name)) = &rule.target else { continue };
                let index = *names.get(&**name).ok_or_else(|| LowerError::NoSuchChain {
                    line: rule.line,
                    chain: name.to_string(),
                    table: table.kind.name(),
                })?;
                if !is_ended {
                    facts.targets.resize(number, None);
                    facts.targets.push(Some(index));
                }
            }
            origin += chain.rules.len() as u32;
            Ok(facts)
        })
        .collect()
}

/// All chains that packets reach, each behind the ones it jumps to. Iterative: chains may be nested 10,000 deep.
fn bottom_up(kind: TableKind, table: &Table, facts: &[ChainFacts]) -> Result<Vec<usize>, LowerError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Color {
        New,
        Open,
        Done,
    }
    let mut color = vec![Color::New; facts.len()];
    let mut order = Vec::with_capacity(facts.len());
    for start in 0..facts.len() {
        if color[start] != Color::New || table.chains[start].hook.is_none() {
            continue;
        }
        color[start] = Color::Open;
        let mut open = vec![(start, 0)];
        while let Some((index, next)) = open.last_mut() {
            let Some(target) = facts[*index].targets.get(*next) else {
                color[*index] = Color::Done;
                order.push(*index);
                open.pop();
                continue;
            };
            *next += 1;
            match target.map(|t| (t, color[t])) {
                Some((t, Color::New)) => {
                    color[t] = Color::Open;
                    open.push((t, 0));
                }
                Some((t, Color::Open)) => {
                    return Err(LowerError::Loop {
                        table: kind.name(),
                        chain: table.chains[t].name.to_string(),
                    });
                }
                Some((_, Color::Done)) | None => {}
            }
        }
    }
    Ok(order)
}
