//! One rule as flat rules.
//!
//! A live chain is always a list of its own, and a jump a call: what is added to a chain is seen by
//! all that jump there, and a change of a rule is a change of its own flat rules and no others.

use hipac_classifier::program::{BACK_BEHIND, BACK_TO_END, Op};
use hipac_rules::{Extension, Family, L4Need, Rule, TableKind, Target, TargetMeaning};

use crate::condition::{Condition, Space};
use crate::lower::{
    Draft, FlatRule, LowerError, MATCHES_MAX, Matched, change_of, keeps_continue, verdict_id,
};
use crate::options::Counting;

/// What lowering a rule needs to know besides the rule.
pub(super) struct Lowering<'a> {
    pub(super) space: Space<'a>,
    pub(super) counting: Counting,
    /// The table of its chain.
    pub(super) table: TableKind,
    /// The entry of the chain that the rule leads to.
    pub(super) entry: Option<u32>,
}

impl Lowering<'_> {
    /// The flat rules of a rule, in their order: those that drop packets whose transport header is
    /// cut off where a match wants to read it, then the one that does what the rule says. None: no
    /// packet meets it, or nobody would notice.
    pub(super) fn rule(
        &self,
        rule: &Rule,
        verdicts: &mut Vec<&'static str>,
    ) -> Result<Vec<FlatRule>, LowerError> {
        if rule.matches.len() > MATCHES_MAX {
            return Err(LowerError::TooManyMatches { line: rule.line, count: rule.matches.len() });
        }
        let family = self.space.family;
        let mut matched = Matched::new(Condition::default());
        matched.condition.and_ip_part(&rule.ip, &self.space);
        let mut draft = Draft::default();
        for (number, extension) in rule.matches.iter().enumerate() {
            if matched.condition.is_empty() {
                return Ok(draft.rules);
            }
            let meaning = extension.match_meaning(family);
            matched.and_match(&meaning, number as u8, 0, &self.space, &mut draft);
        }
        let mut flats = draft.rules;
        let Matched { condition, pure, mut ops, .. } = matched;
        if condition.is_empty() {
            return Ok(flats);
        }
        ops.extend(pure);
        let end = match (&rule.target, self.entry) {
            (Target::Jump(_), Some(entry)) => Op::Call { entry, back: BACK_BEHIND },
            (Target::Goto(_), Some(entry)) => Op::Call { entry, back: BACK_TO_END },
            (Target::Jump(name) | Target::Goto(name), None) => {
                let chain = name.to_string();
                return Err(LowerError::NoSuchChain { line: rule.line, chain, table: self.table.name() });
            }
            (Target::None, _) => {
                if !keeps_continue(self.counting, &ops) {
                    return Ok(flats);
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
        flats.push(FlatRule { condition, ops, end, origin: 0 });
        Ok(flats)
    }
}

/// A rule looks at the transport header, so that malformed packets matter to it.
pub(super) fn needs_header(rule: &Rule, family: Family) -> bool {
    rule.matches.iter().any(|m| needs_header_match(m, family))
}

/// A match looks at the transport header.
pub(super) fn needs_header_match(extension: &Extension, family: Family) -> bool {
    extension.l4_need(family) != L4Need::default()
}

/// A rule changes packets by itself.
pub(super) fn changes_packet(rule: &Rule, family: Family) -> bool {
    matches!(&rule.target, Target::Extension(e)
        if matches!(e.target_meaning(family), TargetMeaning::Continue(effect) if change_of(effect).is_some()))
}
