//! From a ruleset to an oracle: names to positions, extensions to meanings, and a refusal of
//! what no kernel would load.

use std::fmt;

use hipac_rules::{
    Extension, Family, Field, Hook, IpPart, MatchMeaning, Name, Policy, Rule, Ruleset, TableKind,
    TargetMeaning, ValueSet,
};

use super::head::Heads;
use super::{Body, Chain, Oracle, Table, Target};
use crate::fields::{ASKED, INTERFACES, NUMBERS};
use crate::rule_id::RuleId;

/// Why a ruleset has no oracle. Displays with the place in the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleError {
    place: String,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    NoSuchChain { table: TableKind, chain: Name },
    BuiltInChain { chain: Name },
    Loop { chains: Vec<Name> },
    Meaning { extension: String },
    TooManyRules,
}

impl std::error::Error for OracleError {}

impl fmt::Display for OracleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.problem {
            Problem::NoSuchChain { table, chain } => {
                write!(f, "table {} has no chain {chain}: declare it with `:{chain} - [0:0]`", table.name())
            }
            Problem::BuiltInChain { chain } => {
                write!(f, "{chain} is a built-in chain: only the kernel enters it, rules cannot jump there")
            }
            Problem::Loop { chains } => {
                f.write_str("chains call each other in a loop: ")?;
                for chain in chains {
                    write!(f, "{chain} → ")?;
                }
                write!(f, "{}", chains.first().map_or("", |c| c))
            }
            Problem::Meaning { extension } => {
                write!(
                    f,
                    "the verifier cannot evaluate `-m {extension}`: it tests a field this version does not know"
                )
            }
            Problem::TooManyRules => f.write_str("more than 4294967295 chains or rules"),
        }
    }
}

/// Where meanings come from. The registry of `hipac-rules`, but for tests that state their own.
pub(crate) struct Meanings<'m> {
    pub(crate) of_match: &'m dyn Fn(&Extension, Family) -> MatchMeaning,
    pub(crate) of_target: &'m dyn Fn(&Extension, Family) -> TargetMeaning,
}

pub(super) const REGISTRY: Meanings<'static> =
    Meanings { of_match: &Extension::match_meaning, of_target: &Extension::target_meaning };

/// The id of a rule that building has numbered: it fits.
pub(super) fn id(table: TableKind, chain: usize, rule: usize) -> RuleId {
    RuleId::new(table, chain, rule).unwrap_or_else(|| unreachable!("{chain}/{rule} was numbered"))
}

pub(super) fn build<'r>(ruleset: &'r Ruleset, meanings: &Meanings<'_>) -> Result<Oracle<'r>, OracleError> {
    let tables = ruleset.tables.iter().map(|t| table(ruleset, t, meanings)).collect::<Result<Vec<_>, _>>()?;
    for table in &tables {
        refuse_loops(ruleset, table)?;
    }
    Ok(Oracle { ruleset, tables })
}

fn table(
    ruleset: &Ruleset,
    table: &hipac_rules::Table,
    meanings: &Meanings<'_>,
) -> Result<Table, OracleError> {
    let mut entries = [None; Hook::ALL.len()];
    let mut chains = Vec::with_capacity(table.chains.len());
    for (i, chain) in table.chains.iter().enumerate() {
        if let Some(hook) = chain.hook {
            entries[hook as usize] = Some(i);
        }
        if RuleId::new(table.kind, i, chain.rules.len()).is_none() {
            let place = format!("{}/{}", table.kind.name(), chain.name);
            return Err(OracleError { place, problem: Problem::TooManyRules });
        }
        let bodies = chain.rules.iter().enumerate().map(|(number, rule)| {
            body(ruleset.family, table, rule, meanings).map_err(|problem| {
                let place = id(table.kind, i, number).place(ruleset).to_string();
                OracleError { place, problem }
            })
        });
        chains.push(Chain {
            heads: Heads::new(ruleset.family, &chain.rules),
            bodies: bodies.collect::<Result<_, _>>()?,
            policy: chain.policy.unwrap_or(Policy::Accept),
        });
    }
    Ok(Table { kind: table.kind, chains, entries })
}

fn body(
    family: Family,
    table: &hipac_rules::Table,
    rule: &Rule,
    meanings: &Meanings<'_>,
) -> Result<Body, Problem> {
    let mut matches = Vec::with_capacity(rule.matches.len());
    for extension in &rule.matches {
        let meaning = (meanings.of_match)(extension, family);
        if !can_evaluate(&meaning) {
            return Err(Problem::Meaning { extension: extension.name().to_owned() });
        }
        matches.push(meaning);
    }
    let target = match &rule.target {
        hipac_rules::Target::None => Target::Continue(hipac_rules::Effect::None),
        hipac_rules::Target::Jump(name) => Target::Jump(user_chain(table, name)?),
        hipac_rules::Target::Goto(name) => Target::Goto(user_chain(table, name)?),
        hipac_rules::Target::Extension(extension) => match (meanings.of_target)(extension, family) {
            TargetMeaning::Verdict(name) => Target::Verdict(name),
            TargetMeaning::Continue(effect) => Target::Continue(effect),
            TargetMeaning::Return => Target::Return,
        },
    };
    Ok(Body { matches, target })
}

/// Whether every test is of a known field, with a set of the field's kind.
fn can_evaluate(meaning: &MatchMeaning) -> bool {
    meaning.clauses.iter().flatten().all(|test| match test.set {
        ValueSet::Interface { .. } => INTERFACES.contains(&test.field),
        ValueSet::Member(_) => test.field == Field::Membership,
        ValueSet::Ranges(_) | ValueSet::Masked { .. } => {
            NUMBERS.contains(&test.field) && !ASKED.contains(&test.field)
        }
    })
}

fn user_chain(table: &hipac_rules::Table, name: &Name) -> Result<usize, Problem> {
    let index = table
        .chain_index(name)
        .ok_or_else(|| Problem::NoSuchChain { table: table.kind, chain: name.clone() })?;
    if table.chains[index].hook.is_some() {
        return Err(Problem::BuiltInChain { chain: name.clone() });
    }
    Ok(index)
}

/// Whether no packet goes on to the next rule, as the kernel's own check for loops understands it: only a
/// rule that tests nothing counts.
fn ends_chain(rule: &Rule, body: &Body) -> bool {
    let ends = match body.target {
        Target::Verdict(name) => matches!(name, "ACCEPT" | "DROP" | "QUEUE"),
        Target::Return => true,
        _ => false,
    };
    ends && rule.matches.is_empty() && rule.ip == IpPart::default()
}

/// Refuses chains that can be entered again from within, when a built-in chain leads there. What no packet
/// can reach may loop; the kernel loads it too.
fn refuse_loops(ruleset: &Ruleset, table: &Table) -> Result<(), OracleError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnPath,
        Done,
    }
    let names = ruleset.table(table.kind).map_or(&[][..], |t| &t.chains);
    let mut seen = vec![Seen::No; table.chains.len()];
    for &entry in table.entries.iter().flatten() {
        // The path from the entry: each chain with the next rule to look at.
        let mut path = vec![(entry, 0)];
        seen[entry] = Seen::OnPath;
        while let Some((chain, next)) = path.last_mut() {
            let (chain, rule) = (*chain, *next);
            *next += 1;
            let rules = names.get(chain).map_or(&[][..], |c| &c.rules);
            let is_past_end = rule > 0 && ends_chain(&rules[rule - 1], &table.chains[chain].bodies[rule - 1]);
            let Some(body) = table.chains[chain].bodies.get(rule).filter(|_| !is_past_end) else {
                seen[chain] = Seen::Done;
                path.pop();
                continue;
            };
            let (Target::Jump(callee) | Target::Goto(callee)) = body.target else { continue };
            match seen[callee] {
                Seen::Done => {}
                Seen::No => {
                    seen[callee] = Seen::OnPath;
                    path.push((callee, 0));
                }
                Seen::OnPath => {
                    let on_loop = path.iter().map(|p| p.0).skip_while(|&c| c != callee);
                    return Err(OracleError {
                        place: id(table.kind, chain, rule).place(ruleset).to_string(),
                        problem: Problem::Loop { chains: on_loop.map(|c| names[c].name.clone()).collect() },
                    });
                }
            }
        }
    }
    Ok(())
}
