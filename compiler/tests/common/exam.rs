//! Cases with the oracle's answers: drawn once for a ruleset, asked of every image of it.

use hipac_compiler::Counting;
use hipac_rules::{Residual, Target};
use hipac_verifier::draw::BLOCK_CASES;
use hipac_verifier::{By, Case, Drawer, Evaluation, Event, Oracle, RuleId, Subject};

/// Cases and what the oracle says of them.
pub(crate) struct Exam<'o> {
    oracle: &'o Oracle<'o>,
    cases: Vec<(Case, Evaluation)>,
}

/// A case that a subject answers otherwise.
pub(crate) struct Difference<'e> {
    pub(crate) what: &'static str,
    pub(crate) case: &'e Case,
    pub(crate) expected: &'e Evaluation,
    pub(crate) found: Evaluation,
}

impl<'o> Exam<'o> {
    /// These cases.
    pub(crate) fn new(oracle: &'o Oracle<'o>, cases: impl Iterator<Item = Case>) -> Exam<'o> {
        Exam { oracle, cases: cases.map(|case| (case, answer(oracle, &case))).collect() }
    }

    /// Cases drawn for the rules; none when there is no table.
    pub(crate) fn drawn(oracle: &'o Oracle<'o>, packets: u64) -> Exam<'o> {
        let drawer = Drawer::new(oracle, 1);
        let blocks = (0..packets.div_ceil(BLOCK_CASES)).flat_map(|block| drawer.block(block));
        Exam::new(oracle, blocks.take(packets as usize))
    }

    /// The first case that a subject answers otherwise.
    pub(crate) fn first_difference(
        &self,
        subject: &dyn Subject,
        counting: Counting,
    ) -> Option<Difference<'_>> {
        self.cases.iter().find_map(|(case, expected)| {
            let found = answer(subject, case);
            let what = match counting {
                Counting::Exact if *expected == found => return None,
                Counting::Exact => "they differ",
                Counting::Deciding => self.compare_deciding(expected, &found).err()?,
            };
            let is_given_up = [expected, &found].iter().any(|e| e.verdict.by == By::GivenUp);
            (!is_given_up).then_some(Difference { what, case, expected, found })
        })
    }

    /// What [`Counting::Deciding`] promises: the same verdict by the same rule, the same residual
    /// matches, and every rule that matches and does something; what only counts may be left out.
    fn compare_deciding(&self, expected: &Evaluation, found: &Evaluation) -> Result<(), &'static str> {
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

/// One answer to a case.
pub(crate) fn answer(subject: &dyn Subject, case: &Case) -> Evaluation {
    subject.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play())
}
