//! The tables of an image besides its forest: entries, flat rules, programs, names.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hipac_classifier::forest::Ref;
use hipac_classifier::image::{EntryRecord, Flat, Origin, Parts};
use hipac_classifier::program::{Op, encode};
use hipac_rules::{Family, Ruleset};

use crate::compile::CompileError;
use crate::expand::KeyPlan;
use crate::lower::{FlatRule, Lowered};
use crate::sets::SetPlan;

/// All parts but ranks and arena. Entries have no roots yet.
///
/// # Errors
/// There are more flat rules or program words than an image holds.
pub fn parts(
    ruleset: &Ruleset,
    lowered: &Lowered,
    plan: &KeyPlan,
    sets: &SetPlan,
) -> Result<Parts, CompileError> {
    let (slots, recodes) = plan.slots();
    let mut parts = Parts { is_v6: ruleset.family == Family::V6, slots, recodes, ..Parts::default() };
    let mut names = Names::default();
    parts.verdicts = lowered.verdicts.iter().map(|v| names.index(v)).collect();
    parts.origins.reserve_exact(ruleset.rule_count());
    for table in &ruleset.tables {
        for chain in &table.chains {
            let list = names.index(&format!("{}/{}", table.kind.name(), chain.name));
            let origins = chain.rules.iter().enumerate();
            parts.origins.extend(origins.map(|(i, rule)| Origin {
                list,
                number: i as u32 + 1,
                line: rule.line,
            }));
        }
    }
    let count: usize = lowered.lists.iter().map(|l| l.rules.len()).sum();
    // One less than all numbers: the greatest means "no rule".
    let limit = u32::MAX as usize - 1;
    if count > limit {
        return Err(CompileError::TooLarge { what: "flat rules", count, limit });
    }
    parts.flats.reserve_exact(count);
    let mut programs = Programs::default();
    for list in &lowered.lists {
        let first = parts.flats.len() as u32;
        parts.entries.push(EntryRecord {
            root: Ref::EMPTY.0,
            broken_root: Ref::EMPTY.0,
            default_verdict: list.default_verdict,
            called: list.called,
            first,
            count: list.rules.len() as u32,
            name: names.index(&list.name),
        });
        for rule in &list.rules {
            parts.flats.push((programs.flat(rule, first)?.encode(), rule.origin));
        }
    }
    parts.sets = sets.encode(ruleset.family, |name| names.index(name))?;
    parts.programs = programs.words;
    parts.names = names.names;
    Ok(parts)
}

/// Names, each stored once.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    index: HashMap<String, u32, RandomState>,
}

impl Names {
    fn index(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }
}

/// The words of a flat rule's program, which ends in `end`.
pub(crate) fn program(rule: &FlatRule, end: &Op, words: &mut Vec<u32>) {
    rule.condition.checks().iter().for_each(|check| encode(&Op::Clause(check.clone()), words));
    rule.ops.iter().for_each(|op| encode(op, words));
    encode(end, words);
}

/// Program words; equal programs are stored once.
#[derive(Default)]
struct Programs {
    words: Vec<u32>,
    index: HashMap<Box<[u32]>, u32, RandomState>,
    /// The program in the making.
    scratch: Vec<u32>,
}

impl Programs {
    /// What a flat rule of a list that begins at position `first` does.
    fn flat(&mut self, rule: &FlatRule, first: u32) -> Result<Flat, CompileError> {
        match rule.end {
            Op::Verdict(id) if rule.is_plain() => return Ok(Flat::Verdict(id)),
            Op::Return if rule.is_plain() => return Ok(Flat::Return),
            Op::Continue if rule.is_plain() => return Ok(Flat::Continue),
            _ => {}
        }
        let words = &mut self.scratch;
        words.clear();
        let end = match rule.end.clone() {
            Op::Skip(to) => Op::Skip(first + to),
            Op::Call { entry, back } => Op::Call { entry, back: first + back },
            end => end,
        };
        program(rule, &end, words);
        if let Some(&at) = self.index.get(&**words) {
            return Ok(Flat::Program(at));
        }
        let at = self.words.len();
        if at + words.len() > Flat::PROGRAM_WORDS_MAX {
            let limit = Flat::PROGRAM_WORDS_MAX;
            return Err(CompileError::TooLarge { what: "program words", count: at + words.len(), limit });
        }
        self.words.extend_from_slice(words);
        self.index.insert(words.as_slice().into(), at as u32);
        Ok(Flat::Program(at as u32))
    }
}
