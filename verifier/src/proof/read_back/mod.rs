//! An image read back as rules.
//!
//! An image holds no rules: boxes, programs, and of each rule its chain, number and line. To compare what is
//! deployed with a file, rules are *guessed* and then *proved*:
//!
//! ```text
//!   image ──▶ what is stored for each rule ─┐
//!   other file ──▶ rules that would fit ────┴─▶ a ruleset ──proof──▶ equal to the image for every packet
//!                                                   └──diff──▶ other file
//! ```
//!
//! A rule of the image that a rule of the other file fits, in order, is taken to be that rule. Any other is
//! written anew from the boxes that are stored for it. Nothing rests on the guess: [`prove`] holds the ruleset
//! against the image as it holds any other. A rule that its proof refutes is guessed again, without the file.
//!
//! What an image does not keep (what a residual match asks, a target's options, LOG) comes from the rule of the
//! other file that fits. Where none does, a residual match is given a *stand-in*: a match that has its kind and is
//! the same as no other. What hangs on one is not known, and [`Difference`](crate::diff::Difference)s that do name
//! it by [`NOT_KEPT`]. Beside another image all of its residual matches are such: of two images nobody knows whether
//! they ask the same.
//!
//! # Cost
//!
//! The boxes of the image once, a look at each rule of the file, and a proof for each time that a guess was
//! wrong.

mod align;
mod guess;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use hipac_classifier::{EntryId, Image};
use hipac_rules::{Chain, Counters, Family, Hook, Name, Policy, Rule, Ruleset, Table, TableKind, Target};

use super::members::Members;
use super::names::Names;
use super::program::End;
use super::space::Space;
use super::{Options, Proof, Refutation, prove, walk};
use crate::subject::By;
use crate::{Event, RuleId};
use align::Wanted;
use guess::Guess;
use stored::{Origins, Stored};

/// Part of the name of what stands for a match that an image does not keep.
pub const NOT_KEPT: &str = "not-kept-by-image";

/// Times that rules are guessed again.
const TRIES_MAX: usize = 64;

/// Rules that do for every packet what an image does.
#[derive(Debug)]
pub struct ReadBack {
    /// The rules. Lines are those of the file that the image was compiled from.
    pub ruleset: Ruleset,
    /// How many of them are no rules of the other file.
    pub own: usize,
    /// That they are the image's.
    pub proof: Proof,
}

/// Why an image cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Its keys, sets or entries make no sense beside the other rules.
    Strange(String),
    /// A rule that is not in the other file says what an image does not keep, or cannot be written as one rule.
    Rule {
        /// `filter/INPUT rule 4 (line 20)`.
        place: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// The rules that were found are not the image's.
    Refuted(String),
}

impl std::error::Error for Unreadable {}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Strange(what) => f.write_str(what),
            Unreadable::Rule { place, why } => {
                write!(f, "what {place} says is not in the other file, and {why}")
            }
            Unreadable::Refuted(what) => write!(f, "no rules were found that do what the image does: {what}"),
        }
    }
}

/// Finds rules that an image was compiled from, or might have been: `other` says what most of them may be.
///
/// # Errors
///
/// When none are found: see [`Unreadable`].
pub fn read_back<B: AsRef<[u8]>>(
    image: &Image<B>,
    other: &Ruleset,
    options: &Options,
) -> Result<ReadBack, Unreadable> {
    let family = if image.is_v6() { Family::V6 } else { Family::V4 };
    let tested = walk::names_tested(other);
    let names = Names::new(tested.iter().map(|(n, p)| (&**n, *p)), image.key_maker().ranks());
    let space = Space::new(image, names, Members::new(other, image), family)
        .ok_or_else(|| Unreadable::Strange("the slots of the key make no sense".into()))?;
    let stored = Stored::new(image, &space);
    let mut others =
        other.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules).flat_map(|r| &r.matches);
    let is_second = others.any(guess::is_stand_in);
    let tag = if is_second { "b" } else { "a" };
    let reader = Reader { image, other, space: &space, family, stored, tag };
    let mut guesses = reader.first_guesses();
    let mut refuted = String::new();
    // Most often it is an image of the very file.
    if let Some(proof) = (!is_second).then(|| prove(other, image, options).ok()).flatten() {
        return Ok(ReadBack { ruleset: other.clone(), own: 0, proof });
    }
    for _ in 0..TRIES_MAX {
        let (ruleset, numbers) = reader.ruleset(&guesses)?;
        match prove(&ruleset, image, options) {
            Ok(proof) => {
                let own = guesses.values().filter(|g| g.taken.is_none()).count();
                return Ok(ReadBack { ruleset, own, proof });
            }
            Err(refutation) => {
                refuted = refutation.show(&ruleset).to_string();
                if !guess_again(&refutation, &numbers, &mut guesses) {
                    break;
                }
            }
        }
    }
    Err(Unreadable::Refuted(refuted))
}

/// Gives up what was taken for the rules that a packet has shown to be others; false when there are none.
fn guess_again(
    refutation: &Refutation,
    numbers: &HashMap<RuleId, usize>,
    guesses: &mut BTreeMap<usize, Guess>,
) -> bool {
    let Some(witness) = refutation.witness() else { return false };
    let (ours, theirs) = (&witness.expected, &witness.found);
    let by = |by: By| match by {
        By::Rule(rule) | By::Malformed(rule) => Some(rule),
        By::Policy | By::GivenUp => None,
    };
    let alike = ours.events.iter().zip(&theirs.events).take_while(|(a, b)| a == b).count();
    let at = |events: &[Event]| match events.get(alike)? {
        Event::Matched(rule) | Event::Residual { rule, .. } => Some(*rule),
    };
    let suspects = [
        at(&ours.events),
        at(&theirs.events),
        by(ours.verdict.by).filter(|_| ours.events.len() == alike),
        by(theirs.verdict.by).filter(|_| theirs.events.len() == alike),
    ];
    let suspects: BTreeSet<usize> =
        suspects.iter().flatten().filter_map(|rule| numbers.get(rule)).copied().collect();
    // What fits only as far as is stored is the first to be doubted.
    [false, true].into_iter().any(|whole_too| {
        let mut is_changed = false;
        for origin in &suspects {
            let guess = guesses.get_mut(origin).filter(|g| whole_too || g.taken.is_some() && !g.is_whole);
            is_changed |= guess.is_some_and(Guess::again);
        }
        is_changed
    })
}

struct Reader<'a, B> {
    image: &'a Image<B>,
    other: &'a Ruleset,
    space: &'a Space,
    family: Family,
    stored: Stored,
    /// Tells stand-ins of two images apart.
    tag: &'static str,
}

impl<B: AsRef<[u8]>> Reader<'_, B> {
    /// For each rule of the image the rule of the other file that stands where it stands.
    fn first_guesses(&self) -> BTreeMap<usize, Guess> {
        let mut out = BTreeMap::new();
        for ((table, chain), origins) in &self.stored.chains {
            let other = self.other.table(*table).and_then(|t| t.chain(chain)).map_or(&[][..], |c| &c.rules);
            let wanted: Vec<Wanted> =
                other.iter().map(|rule| Wanted::of(rule, self.space, self.family)).collect();
            let pairs = align::pairs(origins.len(), wanted.len(), &mut |i, j| {
                wanted[j].fits(self.image, &self.stored.rules[origins[i]])
            });
            for (&origin, pair) in origins.iter().zip(pairs) {
                out.insert(origin, Guess::new(pair));
            }
        }
        out
    }

    /// The rules that are guessed, and which rule of the image each is.
    fn ruleset(
        &self,
        guesses: &BTreeMap<usize, Guess>,
    ) -> Result<(Ruleset, HashMap<RuleId, usize>), Unreadable> {
        let mut tables = Vec::new();
        let mut numbers = HashMap::new();
        for kind in TableKind::ALL {
            let mut chains = self.built_in(kind)?;
            if chains.is_empty() {
                continue;
            }
            let mut users: BTreeMap<Name, Vec<Rule>> = BTreeMap::new();
            for name in self.stored.called.iter().filter(|(table, _)| *table == kind) {
                users.entry(name.1.clone()).or_default();
            }
            let mut mentioned: BTreeSet<Name> = BTreeSet::new();
            for ((_, chain), origins) in
                self.stored.chains.range((kind, "".into())..).take_while(|c| c.0.0 == kind)
            {
                let mut rules = Vec::with_capacity(origins.len());
                for &origin in origins {
                    let rule = self.rule(kind, chain, origin, guesses)?;
                    if let Target::Jump(name) | Target::Goto(name) = &rule.target {
                        mentioned.insert(name.clone());
                    }
                    rules.push(rule);
                }
                match chains.iter_mut().find(|c| c.name == *chain) {
                    Some(built_in) => built_in.rules = rules,
                    None => {
                        users.insert(chain.clone(), rules);
                    }
                }
            }
            for name in mentioned.into_iter().filter(|name| !chains.iter().any(|c| c.name == *name)) {
                users.entry(name).or_default();
            }
            chains.extend(users.into_iter().map(|(name, rules)| Chain {
                name,
                hook: None,
                policy: None,
                counters: Counters::default(),
                rules,
                line: 0,
            }));
            for (index, chain) in chains.iter().enumerate() {
                let Some(origins) = self.stored.chains.get(&(kind, chain.name.clone())) else { continue };
                for (number, &origin) in origins.iter().enumerate() {
                    numbers.extend(RuleId::new(kind, index, number).map(|id| (id, origin)));
                }
            }
            tables.push(Table { kind, chains });
        }
        Ok((Ruleset { family: self.family, tables }, numbers))
    }

    /// The built-in chains of a table, without rules.
    fn built_in(&self, kind: TableKind) -> Result<Vec<Chain>, Unreadable> {
        let mut chains = Vec::new();
        for &hook in kind.hooks() {
            let name = format!("{}/{}", kind.name(), hook.name());
            let Some(record) = self.image.find_entry(&name).and_then(|entry| self.image.entry(entry)) else {
                continue;
            };
            let policy = match self.image.verdict_name(record.default_verdict) {
                "ACCEPT" => Policy::Accept,
                "DROP" => Policy::Drop,
                other => return Err(Unreadable::Strange(format!("the policy of {name} is {other}"))),
            };
            chains.push(Chain {
                name: hook.name().into(),
                hook: Some(hook),
                policy: Some(policy),
                counters: Counters::default(),
                rules: vec![],
                line: 0,
            });
        }
        Ok(chains)
    }

    fn rule(
        &self,
        table: TableKind,
        chain: &Name,
        origin: usize,
        guesses: &BTreeMap<usize, Guess>,
    ) -> Result<Rule, Unreadable> {
        let stored = &self.stored.rules[origin];
        let other = |index: usize| self.other.table(table).and_then(|t| t.chain(chain))?.rules.get(index);
        let guess = guesses.get(&origin).cloned().unwrap_or(Guess::new(align::Pair::default()));
        let unreadable = |why| Unreadable::Rule {
            place: format!("{}/{chain} rule {} (line {})", table.name(), stored.number, stored.line),
            why,
        };
        if let Some(rule) = guess.taken.and_then(other) {
            let own = (0u8..).zip(&rule.matches).map(|(number, m)| self.own(m, stored.line, number));
            let matches = own.collect::<Result<_, _>>().map_err(unreadable)?;
            return Ok(Rule { line: stored.line, matches, ..rule.clone() });
        }
        let beside = guess.beside.and_then(other);
        guess::rule(self, stored, beside, guess.variant).map_err(unreadable)
    }

    /// The chain that an entry stands for.
    fn chain_of(&self, entry: u32) -> Option<Name> {
        stored::chain_of(self.image, EntryId(entry)).map(|(_, chain)| chain)
    }

    fn is_built_in(name: &str) -> bool {
        Hook::from_name(name).is_some()
    }

    /// Where a rule of the image jumps, when it does.
    fn jumps_to(&self, rule: &stored::StoredRule) -> Option<Target> {
        match rule.shape.as_ref()?.program.end {
            End::Call { entry, back } => {
                let chain = self.chain_of(entry)?;
                let is_jump = back == rule.shape.as_ref()?.position + 1;
                Some(if is_jump { Target::Jump(chain) } else { Target::Goto(chain) })
            }
            End::Resume(_) => rule.leads_to.clone().filter(|name| !Self::is_built_in(name)).map(Target::Jump),
            _ => None,
        }
    }
}

/// Rules of an image by table and chain.
type Chains = BTreeMap<(TableKind, Name), Origins>;
