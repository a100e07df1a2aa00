//! One rule as flat rules: one for packets whose transport header is sound, one for the others.
//!
//! A live chain is always a list of its own, and a jump a call: what is added to a chain is seen by
//! all that jump there, and a rule is one flat rule a list, so that a change of a rule is a change of
//! one. Where the transport header matters, malformed packets have a list of their own, in which a
//! rule's program drops them exactly when the kernel's match would.

use hipac_classifier::program::{BACK_BEHIND, BACK_TO_END, Op};
use hipac_rules::{Family, L4Need, Rule, Target, TargetMeaning};

use crate::condition::{Condition, Space};
use crate::lower::{
    Draft, FlatRule, LowerError, MATCHES_MAX, Malformed, Matched, change_of, keeps_continue, verdict_id,
};
use crate::options::Counting;

/// What lowering a rule needs to know besides the rule.
pub(super) struct Lowering<'a> {
    pub(super) space: Space<'a>,
    pub(super) counting: Counting,
    /// The entry of the chain that the rule leads to.
    pub(super) entry: Option<u32>,
}

impl Lowering<'_> {
    /// The flat rule of a rule in a list; `None`: it has none, since no packet meets it, or nobody
    /// would notice.
    pub(super) fn rule(
        &self,
        rule: &Rule,
        malformed: Malformed,
        verdicts: &mut Vec<&'static str>,
    ) -> Result<Option<FlatRule>, LowerError> {
        if rule.matches.len() > MATCHES_MAX {
            return Err(LowerError::TooManyMatches { line: rule.line, count: rule.matches.len() });
        }
        let family = self.space.family;
        let mut matched = Matched::new(Condition::default(), malformed);
        matched.condition.and_ip_part(&rule.ip, &self.space);
        let mut nowhere = Draft::default();
        for (number, extension) in rule.matches.iter().enumerate() {
            if matched.condition.is_empty() {
                return Ok(None);
            }
            let meaning = extension.match_meaning(family);
            matched.and_match(&meaning, number as u8, 0, &self.space, &mut nowhere);
        }
        if matched.condition.is_empty() {
            return Ok(None);
        }
        let Matched { condition, pure, mut ops, .. } = matched;
        ops.extend(pure);
        let end = match (&rule.target, self.entry) {
            (Target::Jump(_), Some(entry)) => Op::Call { entry, back: BACK_BEHIND },
            (Target::Goto(_), Some(entry)) => Op::Call { entry, back: BACK_TO_END },
            (Target::Jump(name) | Target::Goto(name), None) => {
                let chain = name.to_string();
                return Err(LowerError::NoSuchChain { line: rule.line, chain, table: "its" });
            }
            (Target::None, _) => {
                if !keeps_continue(self.counting, &ops) {
                    return Ok(None);
                }
                Op::Continue
            }
            (Target::Extension(extension), _) => match extension.target_meaning(family) {
                TargetMeaning::Verdict(name) => Op::Verdict(verdict_id(verdicts, name, rule.line)?),
                TargetMeaning::Return => Op::Return,
                TargetMeaning::Continue(effect) => {
                    ops.extend(change_of(effect).map(Op::Effect));
                    Op::Continue
                }
            },
        };
        Ok(Some(FlatRule { condition, ops, end, origin: 0 }))
    }
}

/// A rule looks at the transport header, so that malformed packets matter to it.
pub(super) fn needs_header(rule: &Rule, family: Family) -> bool {
    rule.matches.iter().any(|m| m.l4_need(family) != L4Need::default())
}

/// A rule changes packets by itself.
pub(super) fn changes_packet(rule: &Rule, family: Family) -> bool {
    matches!(&rule.target, Target::Extension(e)
        if matches!(e.target_meaning(family), TargetMeaning::Continue(effect) if change_of(effect).is_some()))
}
