//! Why a rule does not decide about a packet, and the smallest change for which it would.
//!
//! ```text
//!   the packet ──▶ one field free, all others as they are: a line through the space
//!                  two fields free: a plane, …
//! ```
//!
//! On each line it is asked whether some packet there is one that the rule matches, then on each plane: the
//! first answer is the smallest change. In the same way the smallest change is found for which the verdict is
//! another. Both are answered for *all* values of the free fields, so "no single field" is proved.

use hipac_classifier::Packet;

use super::trace::{Step as TraceStep, failure, trace};
use crate::diff::Entry;
use crate::diff::report::condition;
use crate::oracle::{Outcome, clause_holds, header, test_holds};
use crate::outcomes::Script;
use crate::partition::reach::{Reach, hunt};
use crate::partition::{Head, Known, Side};
use crate::query::{self, Question};
use crate::space::{Region, Space};
use crate::subject::Verdict;
use crate::unfold::{Course, Detail, TooManySteps, World};
use crate::{Oracle, RuleId};

/// Fields that are changed together, at most.
const FIELDS_MAX: usize = 3;
/// Steps looked at for one line or plane.
const WORK_MAX: u64 = 4_000_000;

/// Why a rule does not decide.
#[derive(Debug)]
pub struct WhyNot {
    /// How it ends.
    pub verdict: Verdict,
    /// The rule matches the packet already.
    pub is_matched: bool,
    /// The rule's own tests that fail, in words.
    pub failing: Vec<String>,
    /// The packet gets to the rule: its own tests are all there is.
    pub is_tried: bool,
    /// The nearest packet that the rule matches.
    pub nearest: Option<Change>,
    /// The nearest packet that ends otherwise.
    pub flip: Option<Change>,
}

/// A packet near another.
#[derive(Debug)]
pub struct Change {
    /// The packet.
    pub packet: Packet,
    /// Fields that differ.
    pub fields: Vec<&'static str>,
    /// Residual matches on which it hangs.
    pub conditions: Vec<String>,
    /// How it ends, residual matches as in the conditions, others failing.
    pub verdict: Verdict,
}

/// Answers for one packet and one rule.
///
/// # Errors
///
/// Chains that unfold into too many steps.
pub fn why_not(
    oracle: &Oracle<'_>,
    entry: Entry,
    packet: &Packet,
    rule: RuleId,
    script: Script,
) -> Result<WhyNot, TooManySteps> {
    let seen = trace(oracle, entry.0, entry.1, packet, &mut script.play());
    let is_at = |step: &TraceStep| match step {
        TraceStep::Passed { rule: r, .. } | TraceStep::Matched { rule: r, .. } => *r == rule,
        _ => false,
    };
    let is_matched = seen.steps.iter().any(|s| matches!(s, TraceStep::Matched { rule: r, .. } if *r == rule));
    let space = Space::new(oracle.family(), &[(oracle, entry.0)], &[]);
    let mut world = World::new(space);
    world.text_id(hipac_rules::Policy::Drop.name());
    let course = world.unfold(oracle, entry.0, entry.1, Detail::Rules)?;
    let near = Near { world: &world, course: &course, oracle, entry, packet };
    Ok(WhyNot {
        is_matched,
        failing: failing(oracle, rule, packet),
        is_tried: seen.steps.iter().any(is_at),
        nearest: if is_matched { None } else { near.smallest(&|region| near.reaches(rule, region)) },
        flip: near.smallest(&|region| near.flips(&seen.verdict, region)),
        verdict: seen.verdict,
    })
}

/// A rule's own tests that fail for a packet.
fn failing(oracle: &Oracle<'_>, id: RuleId, packet: &Packet) -> Vec<String> {
    let Some(rule) = id.of(oracle.ruleset()) else { return Vec::new() };
    let ip = rule.ip.tests(oracle.family()).into_iter().filter(|t| !test_holds(t, packet));
    let mut failing: Vec<String> = ip.map(|test| failure(&vec![test], packet)).collect();
    for meaning in oracle.meanings(id) {
        if !matches!(header(meaning.l4, packet.l4), Outcome::Held) {
            failing.push("the transport header is not whole".to_owned());
        }
        failing
            .extend(meaning.clauses.iter().filter(|c| !clause_holds(c, packet)).map(|c| failure(c, packet)));
    }
    failing
}

struct Near<'a, 'o> {
    world: &'a World,
    course: &'a Course,
    oracle: &'a Oracle<'o>,
    entry: Entry,
    packet: &'a Packet,
}

impl Near<'_, '_> {
    /// The first answer with as few free axes as possible.
    fn smallest(&self, ask: &dyn Fn(&Region) -> Option<(Region, Known)>) -> Option<Change> {
        let point = self.world.space.point(self.packet)?;
        let all = self.world.space.all();
        let axes: Vec<usize> = (0..all.len()).filter(|&axis| all[axis].0 < all[axis].1).collect();
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new()];
        for _ in 0..FIELDS_MAX {
            let more = chosen.iter().flat_map(|free| {
                let behind = free.last().map_or(0, |&last| last + 1);
                axes.iter()
                    .filter(move |&&axis| axis >= behind)
                    .map(move |&axis| free.iter().copied().chain([axis]).collect::<Vec<usize>>())
            });
            chosen = more.collect();
            for free in &chosen {
                let mut region: Region = point.iter().map(|&atom| (atom, atom)).collect();
                for &axis in free {
                    region[axis] = all[axis];
                }
                if let Some((found, known)) = ask(&region) {
                    return Some(self.change(&found, &known));
                }
            }
        }
        None
    }

    fn change(&self, region: &Region, known: &Known) -> Change {
        let packet = self.world.space.near(region, self.packet);
        let differs = |field: &hipac_rules::Field| {
            crate::fields::read(&packet, *field) != crate::fields::read(self.packet, *field)
        };
        let fields = crate::fields::NUMBERS.into_iter().chain(crate::fields::INTERFACES);
        let mut outcomes =
            crate::diff::report::Assumed { world: self.world, oracle: self.oracle, known, asked: Vec::new() };
        Change {
            packet,
            fields: fields.filter(differs).map(hipac_rules::Field::name).collect(),
            conditions: known.iter().map(|k| condition(self.world, k)).collect(),
            verdict: self.oracle.evaluate(self.entry.0, self.entry.1, &packet, &mut outcomes).verdict,
        }
    }

    fn reaches(&self, rule: RuleId, region: &Region) -> Option<(Region, Known)> {
        let steps = (0..).zip(&self.course.steps).filter(|(_, s)| s.rule == rule && s.is_match);
        steps.filter(|(_, s)| self.world.condition_meets(&s.condition, region)).find_map(|(goal, _)| {
            let before: Vec<u32> = (0..goal).collect();
            match hunt(self.world, self.course, Some(goal), region, &before, WORK_MAX) {
                Reach::Yes(region, known) => Some((region, known)),
                Reach::No(_) | Reach::Unknown => None,
            }
        })
    }

    fn flips(&self, verdict: &Verdict, region: &Region) -> Option<(Region, Known)> {
        let question = Question {
            entry: self.entry,
            packets: Vec::new(),
            verdicts: vec![verdict.name.to_string()],
            work_max: WORK_MAX,
        };
        query::first_other(self.world, self.course, &question, region)
            .filter(|(region, known)| self.ends_otherwise(verdict, region, known))
    }

    /// Walks once more: an answer that is shown is an answer that was checked.
    fn ends_otherwise(&self, verdict: &Verdict, region: &Region, known: &Known) -> bool {
        let mut side = Side::new(self.world, self.course, region);
        match side.settle(self.world, self.course, region, known) {
            Head::End(end) => !self.world.text(end.text).starts_with(&*verdict.name),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_text;
    use crate::testing::{filter, oracle};
    use hipac_rules::{Hook, TableKind};

    const RULES: &str = "\
FORWARD DROP
-s 10.0.0.0/8 -j REJECT
-p 6 -m tcp-dport22 -j ACCEPT
-s 11.0.0.0/8 -p 17 -m dport22 -i eth0 -j ACCEPT";

    #[track_caller]
    fn check(number: usize, packet: &str, nearest: &str, flip: &str) {
        let rules = filter(RULES);
        let oracle = oracle(&rules).unwrap();
        let packet = packet_text::parse(packet, rules.family).unwrap();
        let rule = RuleId::find(&rules, TableKind::Filter, "FORWARD", number).unwrap();
        let entry = (TableKind::Filter, Hook::Forward);
        let found = why_not(&oracle, entry, &packet, rule, Script::AllHold).unwrap();
        let show = |change: &Option<Change>| {
            change.as_ref().map_or_else(String::new, |c| packet_text::show(&c.packet).to_string())
        };
        assert_eq!((show(&found.nearest).as_str(), show(&found.flip).as_str()), (nearest, flip));
    }

    #[test]
    fn the_smallest_change_is_found() {
        check(2, "-p tcp --dport 23", "-p tcp --dport 22", "-s 10.0.0.0 -p tcp --dport 23");
        check(2, "-s 10.0.0.1 -p tcp --dport 22", "-p tcp --dport 22", "-p tcp --dport 22");
        check(
            3,
            "-s 11.0.0.1 -p tcp --dport 22",
            "-i eth0 -s 11.0.0.1 -p udp --dport 22",
            "-s 10.0.0.0 -p tcp --dport 22",
        );
        check(2, "-p tcp --dport 22", "", "-s 10.0.0.0 -p tcp --dport 22");
    }
}
