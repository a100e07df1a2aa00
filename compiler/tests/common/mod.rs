//! What the integration tests share: text in, compiled at several sizes, held against the oracle.
//!
//! Each test file uses a part of it.
#![allow(dead_code)]

pub(crate) mod nasty;
pub(crate) mod seal;

use std::num::NonZeroUsize;

use hipac_classifier::Image;
use hipac_compiler::{CompileError, Compiled, Counting, Options, compile};
use hipac_rules::{Family, ParseOptions, Residual, Ruleset, Target, parse};
use hipac_verifier::draw::BLOCK_CASES;
use hipac_verifier::{By, Case, Drawer, Evaluation, Event, ImageSubject, Oracle, RuleId, Subject, check};

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

/// The bytes that the smallest image of these rules takes: a refusal names them, and they do.
#[track_caller]
pub(crate) fn bytes_needed(ruleset: &Ruleset, counting: Counting) -> usize {
    let at = |memory_bytes_max| compile(ruleset, &Options { counting, memory_bytes_max });
    let Err(CompileError::Memory { needed, limit: 0, .. }) = at(0) else {
        panic!("no image fits into 0 bytes");
    };
    let smallest = at(needed).expect("the size that a refusal names is enough");
    assert!(smallest.image.len() <= needed);
    match at(needed - 1) {
        Err(CompileError::Memory { needed: again, limit, .. }) => {
            assert_eq!((again, limit), (needed, needed - 1));
        }
        other => panic!("the size that a refusal names is not the smallest: {:?}", other.map(|c| c.cost)),
    }
    needed
}

/// The different images of these rules between much memory and the least: every step that the
/// compiler takes to save some.
#[track_caller]
pub(crate) fn images_of_all_sizes(ruleset: &Ruleset, counting: Counting) -> Vec<Compiled> {
    let needed = bytes_needed(ruleset, counting);
    let mut images = vec![compile_roomy(ruleset, counting)];
    // Each compilation gets less than the last image took; halving keeps them few.
    for halve in [false, false, true, true, true] {
        let bytes = images.last().map_or(0, |c| c.image.len());
        if bytes <= needed {
            break;
        }
        let below = bytes - 1;
        let memory_bytes_max = if halve { needed + (below - needed) / 2 } else { below };
        let options = Options { counting, memory_bytes_max };
        let compiled = compile(ruleset, &options).expect("more than the least is enough");
        assert!(compiled.image.len() <= memory_bytes_max, "the budget is a contract");
        images.push(compiled);
    }
    let options = Options { counting, memory_bytes_max: needed };
    let smallest = compile(ruleset, &options).expect("the size that a refusal names is enough");
    if images.iter().all(|c| c.image != smallest.image) {
        images.push(smallest);
    }
    images
}

/// Holds an image that counts exactly against the rules.
#[track_caller]
pub(crate) fn agree(ruleset: &Ruleset, image: Vec<u8>, packets: u64) {
    let oracle = Oracle::new(ruleset).expect("rules without errors have an oracle");
    let options = hipac_verifier::Options {
        packets,
        // Tests run side by side already.
        threads: NonZeroUsize::new(1),
        ..hipac_verifier::Options::default()
    };
    let report = check(&oracle, &subject_of(image, ruleset), &options, &mut |_| {});
    assert!(report.is_agreement(), "{}\n{}", report.show(ruleset), shown(ruleset));
}

/// Holds an image that counts only what decides against the rules: see [`Deciding`].
#[track_caller]
pub(crate) fn agree_deciding(ruleset: &Ruleset, image: Vec<u8>, packets: u64) {
    let oracle = Oracle::new(ruleset).expect("rules without errors have an oracle");
    let subject = subject_of(image, ruleset);
    let deciding = Deciding { oracle: &oracle };
    let drawer = Drawer::new(&oracle, 1);
    // Without a table, blocks are empty.
    let blocks = packets.div_ceil(BLOCK_CASES);
    for case in (0..blocks).flat_map(|block| drawer.block(block)).take(packets as usize) {
        let (expected, found) = (answer(&oracle, &case), answer(&subject, &case));
        if let Err(what) = deciding.compare(&expected, &found) {
            panic!(
                "{what}\n{case:?}\noracle  {}\nsubject {}\n{}",
                events(&expected, ruleset),
                events(&found, ruleset),
                shown(ruleset)
            );
        }
    }
}

/// Compiles at every size and counting, and holds each image against the rules.
#[track_caller]
pub(crate) fn agree_at_every_size(ruleset: &Ruleset, packets: u64) {
    for compiled in images_of_all_sizes(ruleset, Counting::Exact) {
        agree(ruleset, compiled.image, packets);
    }
    for compiled in images_of_all_sizes(ruleset, Counting::Deciding) {
        agree_deciding(ruleset, compiled.image, packets);
    }
}

/// One answer to a case.
pub(crate) fn answer(subject: &dyn Subject, case: &Case) -> Evaluation {
    subject.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play())
}

/// What [`Counting::Deciding`] promises: the same verdict by the same rule, the same residual
/// matches, and every rule that matches and does something; what only counts may be left out.
struct Deciding<'o> {
    oracle: &'o Oracle<'o>,
}

impl Deciding<'_> {
    fn compare(&self, expected: &Evaluation, found: &Evaluation) -> Result<(), &'static str> {
        if expected.verdict.by == By::GivenUp || found.verdict.by == By::GivenUp {
            return Ok(());
        }
        if expected.verdict != found.verdict {
            return Err("the verdicts differ");
        }
        let mut theirs = found.events.iter().peekable();
        for event in &expected.events {
            if theirs.peek() == Some(&event) {
                theirs.next();
            } else if !matches!(event, Event::Matched(rule) if self.only_counts(*rule)) {
                return Err("an event is missing");
            }
        }
        if theirs.next().is_some() { Err("an event is one too many") } else { Ok(()) }
    }

    /// A jump, or a rule without a target and without a match that changes something.
    fn only_counts(&self, id: RuleId) -> bool {
        let Some(rule) = id.of(self.oracle.ruleset()) else { return false };
        let changes = |i| !matches!(self.oracle.residual(id, i), None | Some(Residual::Pure));
        match rule.target {
            Target::Jump(_) | Target::Goto(_) => true,
            Target::None => !(0..rule.matches.len()).any(changes),
            Target::Extension(_) => false,
        }
    }
}

fn events(evaluation: &Evaluation, ruleset: &Ruleset) -> String {
    let shown: Vec<String> = evaluation.events.iter().map(|e| e.show(ruleset).to_string()).collect();
    format!("{}: {}", evaluation.verdict.show(ruleset), shown.join(", "))
}

/// The rules as text, when they are few enough to read.
fn shown(ruleset: &Ruleset) -> String {
    if ruleset.rule_count() > 100 {
        return format!("({} rules)", ruleset.rule_count());
    }
    hipac_rules::print(ruleset, &hipac_rules::PrintOptions::default())
}
