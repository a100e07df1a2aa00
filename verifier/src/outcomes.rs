//! What residual matches come out as.
//!
//! Nothing in a packet says whether `limit` lets it pass. For a comparison it need not be known: it is enough
//! that both sides get the same answer to the same question. A question is (rule, which of its matches, the
//! n-th time in this evaluation), and an answer is drawn by hashing it with a seed.

use std::collections::HashMap;

use hipac_classifier::{Answer, Packet};
use hipac_host::{Arrival, State};
use hipac_rules::Residual;

use crate::rule_id::RuleId;

/// Answers for residual matches, during the evaluation of one packet.
pub trait Outcomes {
    /// How the residual part of match `match_index` (from 0) of `rule` comes out this time. `packet` is as the
    /// rules so far have left it.
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, packet: &Packet) -> Answer;

    /// The last answer was worked out, and not taken for granted.
    fn is_known(&self) -> bool {
        false
    }

    /// `rule` has matched.
    fn matched(&mut self, rule: RuleId, packet: &Packet) {
        let _ = (rule, packet);
    }
}

/// Where a comparison takes its outcomes from; [`Script::play`] makes the [`Outcomes`] of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Script {
    /// Every residual match holds.
    AllHold,
    /// None holds.
    NoneHolds,
    /// As drawn from this seed.
    Drawn(u64),
}

impl Script {
    /// Outcomes for one evaluation: the same questions give the same answers each time it is played.
    pub fn play(self) -> Playing {
        Playing { script: self, asked: HashMap::new() }
    }
}

/// A [`Script`] during one evaluation.
#[derive(Debug, Clone)]
pub struct Playing {
    script: Script,
    /// How often each question was asked so far.
    asked: HashMap<(RuleId, usize), u64>,
}

impl Playing {
    /// How often this was asked before; counts this time.
    fn count(&mut self, rule: RuleId, match_index: usize) -> u64 {
        let times = self.asked.entry((rule, match_index)).or_insert(0);
        *times += 1;
        *times - 1
    }
}

impl Outcomes for Playing {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, _: &Packet) -> Answer {
        Answer::from(match self.script {
            Script::AllHold => true,
            Script::NoneHolds => false,
            Script::Drawn(seed) => {
                // A pure match is a function of the packet: its answer must not depend on how often it was
                // asked.
                let time = if kind == Residual::Pure { 0 } else { self.count(rule, match_index) };
                let words =
                    [rule.table() as u64, rule.chain() as u64, rule.rule() as u64, match_index as u64, time];
                words.into_iter().fold(mix(seed), |h, w| mix(h ^ w)) & 1 == 1
            }
        })
    }
}

/// Outcomes as the kernel works them out, from what the rules of a [`State`] keep; what is not known comes out as
/// a script says.
#[derive(Debug)]
pub struct Exact<'a> {
    state: &'a mut State,
    arrival: Arrival<'a>,
    otherwise: Playing,
    is_known: bool,
    assumed: usize,
}

impl<'a> Exact<'a> {
    /// Outcomes for one packet, which changes the state.
    pub fn new(state: &'a mut State, arrival: Arrival<'a>, otherwise: Script) -> Exact<'a> {
        Exact { state, arrival, otherwise: otherwise.play(), is_known: false, assumed: 0 }
    }

    /// How many answers so far were not known.
    pub fn assumed(&self) -> usize {
        self.assumed
    }
}

impl Outcomes for Exact<'_> {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, packet: &Packet) -> Answer {
        let place = (rule.table(), rule.chain(), rule.rule());
        let known = self.state.ask(place, match_index, packet, &self.arrival);
        self.is_known = known.is_some();
        known.unwrap_or_else(|| {
            self.assumed += 1;
            self.otherwise.residual(rule, match_index, kind, packet)
        })
    }

    fn is_known(&self) -> bool {
        self.is_known
    }

    fn matched(&mut self, rule: RuleId, packet: &Packet) {
        self.state.matched((rule.table(), rule.chain(), rule.rule()), packet, &mut self.arrival);
    }
}

/// A bijection of 64 bits in which every input bit moves about half of the output bits (the
/// finishing step of SplitMix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_rules::TableKind;

    fn id(rule: usize) -> RuleId {
        RuleId::new(TableKind::Filter, 0, rule).unwrap()
    }

    fn ask(playing: &mut Playing, kind: Residual, times: usize) -> Vec<bool> {
        let packet = Packet::default();
        let mut ask = || playing.residual(id(3), 1, kind, &packet) == Answer::Holds;
        (0..times).map(|_| ask()).collect()
    }

    #[test]
    fn the_same_questions_get_the_same_answers() {
        let script = Script::Drawn(7);
        let first = ask(&mut script.play(), Residual::Stateful, 64);
        assert_eq!(first, ask(&mut script.play(), Residual::Stateful, 64));
        assert!(first.contains(&true) && first.contains(&false), "the n-th time matters");
    }

    #[test]
    fn a_pure_match_answers_alike_however_often_it_is_asked() {
        for seed in 0..32 {
            let answers = ask(&mut Script::Drawn(seed).play(), Residual::Pure, 16);
            assert!(answers.iter().all(|&a| a == answers[0]));
        }
    }

    #[test]
    fn answers_do_not_depend_on_questions_about_other_rules() {
        let mut disturbed = Script::Drawn(7).play();
        for rule in 10..20 {
            disturbed.residual(id(rule), 0, Residual::Stateful, &Packet::default());
        }
        let alone = ask(&mut Script::Drawn(7).play(), Residual::Stateful, 16);
        assert_eq!(ask(&mut disturbed, Residual::Stateful, 16), alone);
    }
}
