//! Answers that are measured are checked: a fast wrong lookup is worth nothing.

use hipac_classifier::image::Image;
use hipac_rules::{Hook, Ruleset, TableKind};
use hipac_verifier::{ImageSubject, Oracle, Script, Subject};

use crate::exit::Failure;
use crate::input::OpenImage;
use crate::measure::{Lookups, Visited};
use crate::traffic::Trace;

/// Rules walked by the linear oracle, at most: some seconds.
const RULES_WALKED_MAX: usize = 200_000_000;

/// What was compared, and what differed.
pub(super) struct Checked {
    /// Keys looked up one at a time, in batches, and by the plain definition.
    pub(super) keys: usize,
    /// Keys for which those three do not agree.
    pub(super) keys_differing: usize,
    /// Packets evaluated both on the image and by walking the rules one by one.
    pub(super) linear: usize,
    /// Packets for which those two do not agree.
    pub(super) linear_differing: usize,
    pub(super) visited: Visited,
}

impl Checked {
    pub(super) fn is_clean(&self) -> bool {
        self.keys_differing == 0 && self.linear_differing == 0
    }
}

pub(super) fn check(
    lookups: &Lookups<'_>,
    image: &OpenImage,
    ruleset: Option<&Ruleset>,
    (table, chain): (TableKind, &str),
    trace: &Trace,
) -> Result<Checked, Failure> {
    let answers = lookups.answers();
    let batched = lookups.batch_answers();
    let in_batches = answers.iter().zip(&batched).filter(|(a, b)| a != b).count();
    let (by_definition, visited) = lookups.compare_with_definition(&answers);
    let (linear, linear_differing) = match (ruleset, Hook::from_name(chain)) {
        (Some(ruleset), Some(hook)) => walk_rules(image, ruleset, (table, hook), trace)?,
        _ => (0, 0),
    };
    let keys_differing = in_batches + by_definition;
    Ok(Checked { keys: answers.len(), keys_differing, linear, linear_differing, visited })
}

/// Compares whole evaluations with the linear oracle's: packets spread over the sample, as many
/// as there is time for.
fn walk_rules(
    image: &OpenImage,
    ruleset: &Ruleset,
    (table, hook): (TableKind, Hook),
    trace: &Trace,
) -> Result<(usize, usize), Failure> {
    let oracle = Oracle::new(ruleset).map_err(Failure::new)?;
    let image = Image::open(image.bytes()).map_err(Failure::new)?.with_machine(image.machine());
    let subject = ImageSubject::new(image, ruleset).map_err(Failure::new)?;
    let count = (RULES_WALKED_MAX / ruleset.rule_count().max(1)).clamp(100, 100_000);
    let stride = trace.sample.len().div_ceil(count).max(1);
    let (mut compared, mut differing) = (0, 0);
    for packet in trace.sample.iter().step_by(stride) {
        let wanted = oracle.evaluate(table, hook, packet, &mut Script::AllHold.play());
        let found = subject.evaluate(table, hook, packet, &mut Script::AllHold.play());
        compared += 1;
        differing += usize::from(wanted != found);
    }
    Ok((compared, differing))
}
