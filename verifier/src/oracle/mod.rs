//! The linear oracle: the meaning of a ruleset, by walking its chains as the kernel does.
//!
//! ```text
//!   at the next rule of this chain whose IP part holds:
//!       each match, in order:   header cut off?  ─▶ DROP at once, nothing counts
//!                               does not hold?   ─▶ on to the next rule
//!       the rule has matched; its target:
//!           verdict   ─▶ the end
//!           effect    ─▶ change the packet, on to the next rule
//!           -j CHAIN  ─▶ push the next rule, go to CHAIN
//!           -g CHAIN  ─▶ go to CHAIN
//!           RETURN    ─▶ to the end of the chain
//!   at the end of the chain:    pop, or the policy when nothing was pushed
//! ```
//!
//! [`Oracle::new`] resolves names and looks meanings up once, and refuses what no kernel would load (a
//! missing chain, a loop), so that an evaluation cannot fail. The walk keeps its own stack: chains may call
//! each other as deep as there are chains.
//!
//! # Cost
//!
//! Building is linear in the rules. An evaluation is linear in the rules it passes; most of them are passed
//! by their IP part, which is kept apart in a compact array for that reason (`head.rs`). Chains that call
//! each other over and over can make an evaluation exponential, in the kernel too; [`STEPS_MAX`] and
//! [`EVENTS_MAX`] end it.

mod build;
mod head;
#[cfg(test)]
mod tests;

use hipac_classifier::{Answer, L4, Packet};
use hipac_rules::{
    Clause, Effect, Family, Hook, L4Need, MatchMeaning, Policy, Residual, Ruleset, TableKind, Test, ValueSet,
};

pub(crate) use build::Meanings;
pub use build::OracleError;

use crate::fields::{self, Value};
use crate::members;
use crate::outcomes::Outcomes;
use crate::rule_id::RuleId;
use crate::subject::{Evaluation, Event, Subject, Verdict};
use head::{Heads, Key};

/// Rules that one evaluation passes at most: a thousand times a large ruleset, and under a second.
pub const STEPS_MAX: usize = 1 << 28;

/// Events of one evaluation at most. Each takes 32 bytes: 32 MB.
pub const EVENTS_MAX: usize = 1 << 20;

/// A ruleset ready to be evaluated rule by rule.
#[derive(Debug)]
pub struct Oracle<'r> {
    ruleset: &'r Ruleset,
    tables: Vec<Table>,
}

/// A table with its names resolved.
#[derive(Debug)]
struct Table {
    kind: TableKind,
    /// By position, as in the ruleset.
    chains: Vec<Chain>,
    /// The built-in chain of each hook, by the hook's number.
    entries: [Option<usize>; Hook::ALL.len()],
}

/// A chain: rule `i` is `heads` at `i` and then `bodies[i]`.
#[derive(Debug)]
struct Chain {
    heads: Heads,
    bodies: Vec<Body>,
    policy: Policy,
}

/// A rule without its IP part.
#[derive(Debug)]
struct Body {
    matches: Vec<MatchMeaning>,
    target: Target,
}

/// What a rule that matched does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Verdict(&'static str),
    Continue(Effect),
    Return,
    Jump(usize),
    Goto(usize),
}

/// How the matches of a rule came out.
pub(crate) enum Outcome {
    Held,
    NotHeld,
    HeaderCutOff,
}

/// The next rule to look at.
#[derive(Debug, Clone, Copy)]
struct Place {
    chain: usize,
    rule: usize,
}

impl<'r> Oracle<'r> {
    /// The oracle of a ruleset, by the meanings that the registry gives its matches and targets.
    ///
    /// # Errors
    ///
    /// A jump to a chain that the table does not have or to a built-in one, chains that call each other in a
    /// loop, or a meaning that this crate cannot evaluate.
    pub fn new(ruleset: &'r Ruleset) -> Result<Oracle<'r>, OracleError> {
        Oracle::with_meanings(ruleset, &build::REGISTRY)
    }

    /// The oracle by other meanings.
    pub(crate) fn with_meanings(
        ruleset: &'r Ruleset,
        meanings: &Meanings<'_>,
    ) -> Result<Oracle<'r>, OracleError> {
        build::build(ruleset, meanings)
    }

    /// The rules it speaks for.
    pub fn ruleset(&self) -> &'r Ruleset {
        self.ruleset
    }

    /// The family of its packets.
    pub fn family(&self) -> Family {
        self.ruleset.family
    }

    /// What the matches of a rule mean, in order; nothing for a rule that the ruleset does not have.
    pub fn meanings(&self, rule: RuleId) -> &[MatchMeaning] {
        self.table(rule.table())
            .and_then(|t| t.chains.get(rule.chain())?.bodies.get(rule.rule()))
            .map_or(&[], |body| &body.matches)
    }

    /// What a rule does when it matches, chains by position; `None` for a rule that is not there.
    pub(crate) fn target(&self, rule: RuleId) -> Option<Target> {
        Some(self.table(rule.table())?.chains.get(rule.chain())?.bodies.get(rule.rule())?.target)
    }

    /// The position of the built-in chain at a hook, with its policy.
    pub(crate) fn entry(&self, table: TableKind, hook: Hook) -> Option<(usize, Policy)> {
        let table = self.table(table)?;
        let chain = table.entries[hook as usize]?;
        Some((chain, table.chains[chain].policy))
    }

    /// How many rules a chain has.
    pub(crate) fn rule_count(&self, table: TableKind, chain: usize) -> usize {
        self.table(table).and_then(|t| t.chains.get(chain)).map_or(0, |c| c.bodies.len())
    }

    /// What the residual part of a match depends on; `None` when it has none.
    pub fn residual(&self, rule: RuleId, match_index: usize) -> Option<Residual> {
        self.meanings(rule).get(match_index)?.residual
    }

    /// Evaluates a packet of this family at a built-in chain: a [`Subject`]'s contract.
    pub fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        let entry = self.table(table).and_then(|t| Some((t, t.entries[hook as usize]?)));
        let Some((table, chain)) = entry else {
            return Evaluation { events: Vec::new(), verdict: Verdict::policy(Policy::Accept.name()) };
        };
        let mut walk = Walk { table, packet: *packet, outcomes, events: Vec::new(), steps: 0 };
        let verdict = walk.run(chain);
        Evaluation { events: walk.events, verdict }
    }

    fn table(&self, kind: TableKind) -> Option<&Table> {
        self.tables.iter().find(|t| t.kind == kind)
    }
}

impl Subject for Oracle<'_> {
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        Oracle::evaluate(self, table, hook, packet, outcomes)
    }
}

/// One evaluation under way.
struct Walk<'a> {
    table: &'a Table,
    /// The packet as the rules so far have left it.
    packet: Packet,
    outcomes: &'a mut dyn Outcomes,
    events: Vec<Event>,
    steps: usize,
}

impl Walk<'_> {
    fn run(&mut self, entry: usize) -> Verdict {
        let table = self.table;
        // No target changes what an IP part looks at, so the key is made once.
        let key = Key::new(&self.packet);
        let mut callers: Vec<Place> = Vec::new();
        let mut at = Place { chain: entry, rule: 0 };
        loop {
            let chain = &table.chains[at.chain];
            let held = chain.heads.next_that_holds(at.rule, &key);
            self.steps += held.unwrap_or(chain.bodies.len()) - at.rule + 1;
            if self.steps > STEPS_MAX || self.events.len() >= EVENTS_MAX {
                return Verdict::given_up();
            }
            let Some(rule) = held else {
                match callers.pop() {
                    Some(caller) => at = caller,
                    None => return Verdict::policy(table.chains[entry].policy.name()),
                }
                continue;
            };
            at.rule = rule + 1;
            let id = build::id(table.kind, at.chain, rule);
            let body = &chain.bodies[rule];
            match self.matches(id, &body.matches) {
                Outcome::HeaderCutOff => return Verdict::malformed(id),
                Outcome::NotHeld => continue,
                Outcome::Held => {
                    self.events.push(Event::Matched(id));
                    self.outcomes.matched(id, &self.packet);
                }
            }
            match body.target {
                Target::Verdict(name) => return Verdict::rule(name, id),
                Target::Continue(effect) => fields::apply(effect, &mut self.packet),
                Target::Return => at.rule = chain.bodies.len(),
                Target::Jump(chain) => {
                    callers.push(at);
                    at = Place { chain, rule: 0 };
                }
                Target::Goto(chain) => at = Place { chain, rule: 0 },
            }
        }
    }

    /// Looks at the matches of a rule, in order, up to the first that does not hold.
    fn matches(&mut self, rule: RuleId, matches: &[MatchMeaning]) -> Outcome {
        for (match_index, meaning) in matches.iter().enumerate() {
            match header(meaning.l4, self.packet.l4) {
                Outcome::Held => {}
                other => return other,
            }
            if !meaning.clauses.iter().all(|clause| clause_holds(clause, &self.packet)) {
                return Outcome::NotHeld;
            }
            match meaning.residual.map(|kind| self.residual(rule, match_index, kind)) {
                None | Some(Answer::Holds) => {}
                Some(Answer::Fails) => return Outcome::NotHeld,
                Some(Answer::Drops) => return Outcome::HeaderCutOff,
            }
        }
        Outcome::Held
    }

    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual) -> Answer {
        let answer = self.outcomes.residual(rule, match_index, kind, &self.packet);
        if kind != Residual::Pure {
            let held = answer == Answer::Holds;
            self.events.push(Event::Residual { rule, match_index, held });
        }
        answer
    }
}

/// Whether the packet has the transport header that a match reads.
pub(crate) fn header(need: L4Need, l4: L4) -> Outcome {
    let (is_later_fragment, bytes) = match l4 {
        L4::Whole => (false, u8::MAX),
        L4::Fragment | L4::FragmentAt8 => (true, 0),
        L4::Under4 => (false, 0),
        L4::Under8 => (false, 4),
        L4::Under12 => (false, 8),
        L4::Under20 => (false, 12),
    };
    if need.drops_fragment_at_8 && l4 == L4::FragmentAt8 {
        Outcome::HeaderCutOff
    } else if need.bytes == 0 {
        Outcome::Held
    } else if is_later_fragment {
        Outcome::NotHeld
    } else if bytes < need.bytes {
        Outcome::HeaderCutOff
    } else {
        Outcome::Held
    }
}

pub(crate) fn clause_holds(clause: &Clause, packet: &Packet) -> bool {
    clause.iter().any(|test| test_holds(test, packet))
}

/// Whether a test holds for a packet.
pub(crate) fn test_holds(test: &Test, packet: &Packet) -> bool {
    let is_in_set = match (&test.set, fields::read(packet, test.field)) {
        (ValueSet::Member(membership), _) => members::is_member(membership, packet),
        (ValueSet::Ranges(ranges), Some(Value::Number(x))) => {
            ranges.iter().any(|&(lo, hi)| lo <= x && x <= hi)
        }
        (ValueSet::Masked { value, mask }, Some(Value::Number(x))) => x & mask == *value,
        (ValueSet::Interface { name, prefix }, Some(Value::Interface(x))) => {
            let (name, x) = (name.as_bytes(), x.as_bytes());
            if *prefix { x.starts_with(name) } else { x == name }
        }
        // Building an oracle has refused a test whose set does not fit its field.
        _ => false,
    };
    is_in_set != test.negated
}
