//! What the integration tests share: text in, compiled at several sizes, held against the oracle.
//!
//! Each test file uses a part of it.
#![allow(dead_code)]

pub(crate) mod exam;
pub(crate) mod live_subject;
pub(crate) mod nasty;
pub(crate) mod seal;
pub(crate) mod twins;

use std::path::{Path, PathBuf};

use exam::Exam;
use hipac_classifier::Image;
use hipac_compiler::{CompileError, Compiled, Counting, Options, compile};
use hipac_rules::{Family, ParseOptions, Policy, Rule, Ruleset, Target, parse};
use hipac_verifier::{Compared, Evaluation, ImageSubject, Oracle};
use nasty::{Nasty, nasty};
use proptest::prelude::{ProptestConfig, Strategy, any};

/// So many cases. A failing one prints its rules: they become a test of their own.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Any small nasty ruleset.
pub(crate) fn any_nasty() -> impl Strategy<Value = Nasty> {
    proptest::collection::vec(any::<u8>(), 0..500).prop_map(|choices| nasty(&choices))
}

/// The folder of real rulesets and filter sets that `HIPAC_CORPUS` names.
pub(crate) fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("HIPAC_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HIPAC_CORPUS is not set");
    }
    folder
}

/// The files of a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the corpus has this folder");
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

/// What of an image can be compared that was compiled with this counting.
pub(crate) fn compared(counting: Counting) -> Compared {
    match counting {
        Counting::Exact => Compared::All,
        Counting::Deciding => Compared::Deciding,
    }
}

/// Numbers in no order, the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * n as u128) >> 64) as usize
    }

    /// A value near an old one: beside it, a bit of it turned, an end of the range, or another one.
    pub(crate) fn beside(&mut self, old: u16, other: u16) -> u16 {
        match self.below(8) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => old.wrapping_add(0x100),
            3 => 0,
            4 => u16::MAX,
            5 => other,
            _ => old ^ 1 << self.below(16),
        }
    }
}

/// Rules with one thing changed; none when there was nothing of the kind to change.
pub(crate) fn changed_rules(ruleset: &Ruleset, numbers: &mut Numbers) -> Option<Ruleset> {
    let mut changed = ruleset.clone();
    let table = numbers.below(changed.tables.len().max(1));
    let table = changed.tables.get_mut(table)?;
    let chain = numbers.below(table.chains.len());
    let chain = &mut table.chains[chain];
    let count = chain.rules.len();
    if count == 0 {
        let policy = chain.policy.as_mut()?;
        *policy = if *policy == Policy::Drop { Policy::Accept } else { Policy::Drop };
        return Some(changed);
    }
    let (at, way) = (numbers.below(count), numbers.below(9));
    let other = chain.rules[numbers.below(count)].clone();
    change(&mut chain.rules[at], way, &other).then_some(changed)
}

/// Changes one thing about a rule; false when there is nothing of the kind to change.
fn change(rule: &mut Rule, way: usize, other: &Rule) -> bool {
    let before = rule.clone();
    match way {
        0 => rule.ip.source.address ^= rule.ip.source.mask & rule.ip.source.mask.wrapping_neg(),
        1 => rule.ip.destination.mask &= rule.ip.destination.mask << 1,
        2 => rule.ip.protocol.number ^= 1,
        3 => rule.ip.source.negated ^= rule.ip.source.mask != 0,
        4 => rule.matches.clone_from(&other.matches),
        5 => drop(rule.matches.pop()),
        6 if matches!((&rule.target, &other.target), (Target::Extension(_), Target::Extension(_))) => {
            rule.target = other.target.clone();
        }
        7 => rule.ip = other.ip.clone(),
        _ => rule.ip.in_interface = other.ip.in_interface.clone(),
    }
    rule.ip.destination.address &= rule.ip.destination.mask;
    *rule != before
}

/// The ruleset of a text that must have no error.
#[track_caller]
pub(crate) fn read(text: &str) -> Ruleset {
    read_as(text, None)
}

/// [`read`] for rules that do not show their family.
#[track_caller]
pub(crate) fn read_as(text: &str, family: Option<Family>) -> Ruleset {
    let parsed = parse(text, &ParseOptions { family, ..ParseOptions::default() });
    assert!(!parsed.has_errors(), "{}", hipac_rules::render_all(&parsed.faults, "rules", text.as_bytes()));
    parsed.ruleset
}

/// An image that has passed its audit, paired with its rules.
#[track_caller]
pub(crate) fn subject_of(image: Vec<u8>, ruleset: &Ruleset) -> ImageSubject<Vec<u8>> {
    let image = Image::open(image).expect("the compiler writes images that open");
    image.audit().expect("the compiler writes images that pass the audit");
    ImageSubject::new(image, ruleset).expect("the image says where its rules come from")
}

/// Compiles with much memory.
#[track_caller]
pub(crate) fn compile_roomy(ruleset: &Ruleset, counting: Counting) -> Compiled {
    let options = Options { counting, memory_bytes_max: 1 << 30 };
    compile(ruleset, &options).expect("rules without errors compile")
}

/// The bytes that the smallest image of these rules takes, as a refusal names them.
#[track_caller]
pub(crate) fn bytes_needed(ruleset: &Ruleset, counting: Counting) -> usize {
    match compile(ruleset, &Options { counting, memory_bytes_max: 0 }) {
        Err(CompileError::Memory { needed, limit: 0, .. }) => needed,
        other => panic!("nothing fits into 0 bytes, yet: {:?}", other.map(|c| c.cost)),
    }
}

/// Different images of these rules from the fastest to the smallest.
#[track_caller]
pub(crate) fn images_of_all_sizes(ruleset: &Ruleset, counting: Counting) -> Vec<Compiled> {
    let needed = bytes_needed(ruleset, counting);
    let mut images = vec![compile_roomy(ruleset, counting)];
    // Each compilation gets less than the last image took; halving keeps them few.
    for halve in [false, true, true] {
        let bytes = images.last().map_or(0, |c| c.image.len());
        if bytes <= needed {
            return images;
        }
        let below = bytes - 1;
        let memory_bytes_max = if halve { needed + (below - needed) / 2 } else { below };
        let options = Options { counting, memory_bytes_max };
        let compiled = compile(ruleset, &options).expect("more than the least is enough");
        assert!(compiled.image.len() <= memory_bytes_max, "the budget is a contract");
        images.push(compiled);
    }
    let options = Options { counting, memory_bytes_max: needed };
    images.push(compile(ruleset, &options).expect("the size that a refusal names is enough"));
    images
}

/// Holds an image against the rules.
#[track_caller]
pub(crate) fn agree(exam: &Exam<'_>, ruleset: &Ruleset, image: Vec<u8>, counting: Counting) {
    let subject = subject_of(image, ruleset);
    let Some(difference) = exam.first_difference(&subject, counting) else { return };
    let events = |evaluation: &Evaluation| {
        let shown: Vec<String> = evaluation.events.iter().map(|e| e.show(ruleset).to_string()).collect();
        format!("{}: {}", evaluation.verdict.show(ruleset), shown.join(", "))
    };
    panic!(
        "{}, counting {counting:?}: {:?}\noracle  {}\nsubject {}\n{}",
        difference.what,
        difference.case,
        events(difference.expected),
        events(&difference.found),
        shown(ruleset)
    );
}

/// Compiles at every size and counting, and holds each image against the rules.
#[track_caller]
pub(crate) fn agree_at_every_size(ruleset: &Ruleset, packets: u64) {
    let oracle = Oracle::new(ruleset).expect("rules without errors have an oracle");
    let exam = Exam::drawn(&oracle, packets);
    for counting in [Counting::Exact, Counting::Deciding] {
        for compiled in images_of_all_sizes(ruleset, counting) {
            agree(&exam, ruleset, compiled.image, counting);
        }
    }
}

/// The rules as text, when they are few enough to read.
fn shown(ruleset: &Ruleset) -> String {
    if ruleset.rule_count() > 100 {
        return format!("({} rules)", ruleset.rule_count());
    }
    hipac_rules::print(ruleset, &hipac_rules::PrintOptions::default())
}
