//! Evaluation: one packet's way through an entry, exactly as the rules would take it.
//!
//! Most packets meet one plain verdict and never come here twice. A rule that counts, has a
//! residual match, an effect, or a jump resumes the search at the next position: the *cursor*.

use crate::forest::lookup::{Forest, NO_MATCH};
use crate::image::{EntryId, Flat, Image, OriginId, Section};
use crate::key::{Key, KeyMaker};
use crate::packet::{CtState, Packet};
use crate::program::{BACK_BEHIND, Change, Op, Reader, ResidualKind, Step};

/// What the classifier asks of, and tells, whoever runs it.
pub trait Host {
    /// Does residual match `match_index` of rule `rule` hold for the packet? Stateful ones are
    /// asked exactly when, and in the order in which, the kernel would evaluate them.
    fn residual(&mut self, rule: OriginId, match_index: u8, kind: ResidualKind, packet: &Packet) -> Answer;

    /// Rule `rule` matched: its counters go up, its target runs. In order.
    fn matched(&mut self, rule: OriginId, packet: &Packet) {
        let _ = (rule, packet);
    }
}

/// How a residual match came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It does not, and drops the packet at once: nothing counts any more. (A table of `hashlimit` that is
    /// full does so.)
    Drops,
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Answer {
        if holds { Answer::Holds } else { Answer::Fails }
    }
}

/// A host for rules without residual matches: every one holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn residual(&mut self, _: OriginId, _: u8, _: ResidualKind, _: &Packet) -> Answer {
        Answer::Holds
    }
}

/// How an evaluation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A rule gave a verdict.
    Rule {
        /// See [`Image::verdict_name`].
        verdict: u8,
        /// The rule.
        rule: OriginId,
    },
    /// No rule did: the entry's default.
    Default {
        /// See [`Image::verdict_name`].
        verdict: u8,
    },
    /// A match found the packet malformed, or the host dropped it ([`Answer::Drops`]): at once, nothing counted.
    Malformed {
        /// The rule whose match it was.
        rule: OriginId,
    },
}

/// Why an evaluation could not be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The image holds something that no compiler writes.
    #[error("image is damaged at position {position}: audit it, then compile the rules again")]
    Damaged {
        /// The flat rule.
        position: u32,
    },
    /// More rules than [`STEPS_MAX`] matched.
    #[error("evaluation stopped after {STEPS_MAX} matching rules: chains call each other too often")]
    TooLong,
}

/// Matching rules in one evaluation, at most: chains that call each other twice, thirty deep,
/// would take a day.
pub const STEPS_MAX: u32 = 1 << 22;

/// Where an evaluation goes after one flat rule.
enum Next {
    Verdict(u8),
    Malformed,
    /// The position after it: it did not match, or counts only.
    Following,
    Skip(u32),
    Call {
        entry: u32,
        back: u32,
    },
    Return,
}

/// What an evaluation walks: an image, or a live table as of one version.
pub(crate) trait Rules {
    /// Makes keys of packets.
    fn keys(&self) -> KeyMaker<'_>;

    /// How many entries there are.
    fn entry_count(&self) -> usize;

    /// An entry's verdict at its end, and the first position of its flat rules.
    fn ends(&self, entry: EntryId) -> Option<(u8, u32)>;

    /// An entry's forest for packets whose transport header is sound, or for the others.
    fn forest_of(&self, entry: EntryId, is_sound: bool) -> Option<Forest<'_>>;

    /// The flat rule that such a forest found, and the rule it comes from.
    fn flat_at(&self, entry: EntryId, position: u32) -> Option<(Flat, OriginId)>;

    /// The words of the programs.
    fn programs(&self) -> &[u8];
}

impl<B: AsRef<[u8]>> Rules for Image<B> {
    fn keys(&self) -> KeyMaker<'_> {
        self.key_maker()
    }

    fn entry_count(&self) -> usize {
        Image::entry_count(self)
    }

    fn ends(&self, entry: EntryId) -> Option<(u8, u32)> {
        self.entry(entry).map(|record| (record.default_verdict, record.first))
    }

    #[inline]
    fn forest_of(&self, entry: EntryId, is_sound: bool) -> Option<Forest<'_>> {
        self.entry(entry).map(|record| self.forest(&record, is_sound))
    }

    #[inline]
    fn flat_at(&self, _: EntryId, position: u32) -> Option<(Flat, OriginId)> {
        self.flat(position)
    }

    fn programs(&self) -> &[u8] {
        self.section(Section::Programs)
    }
}

impl<B: AsRef<[u8]>> Image<B> {
    /// Evaluates a packet from the beginning of `entry`. Effects change `packet`.
    ///
    /// # Errors
    /// The image is damaged (audit it first), or the evaluation has no end in sight.
    pub fn evaluate(
        &self,
        entry: EntryId,
        packet: &mut Packet,
        host: &mut impl Host,
    ) -> Result<Decision, EvaluateError> {
        evaluate(self, entry, packet, host)
    }
}

/// The way of a packet from the beginning of `entry`.
pub(crate) fn evaluate(
    rules: &impl Rules,
    entry: EntryId,
    packet: &mut Packet,
    host: &mut impl Host,
) -> Result<Decision, EvaluateError> {
    let damaged = |position| EvaluateError::Damaged { position };
    let mut here = entry;
    let (default, first) = rules.ends(entry).ok_or(damaged(NO_MATCH))?;
    let mut key = rules.keys().key(packet);
    let is_sound = packet.l4.is_sound();
    // Where calls come back to. Allocates at the first call.
    let mut callers: Vec<(EntryId, u32)> = Vec::new();
    let mut from = first;
    let mut forest = rules.forest_of(here, is_sound).ok_or(damaged(NO_MATCH))?;
    for _ in 0..STEPS_MAX {
        let position = forest.first_match(&key, from);
        let (next, rule) = if position == NO_MATCH {
            (Next::Return, OriginId(NO_MATCH))
        } else {
            let (flat, rule) = rules.flat_at(here, position).ok_or(damaged(position))?;
            (act(rules, flat, rule, packet, &mut key, host).ok_or(damaged(position))?, rule)
        };
        match next {
            Next::Verdict(verdict) => return Ok(Decision::Rule { verdict, rule }),
            Next::Malformed => return Ok(Decision::Malformed { rule }),
            Next::Following => from = position + 1,
            Next::Skip(to) if to > position => from = to,
            // Calls form no cycle in an audited image, so no chain waits twice.
            Next::Call { entry, back }
                if (back > position || back == BACK_BEHIND) && callers.len() < rules.entry_count() =>
            {
                callers.push((here, if back == BACK_BEHIND { position + 1 } else { back }));
                here = EntryId(entry);
                from = rules.ends(here).ok_or(damaged(position))?.1;
                forest = rules.forest_of(here, is_sound).ok_or(damaged(position))?;
            }
            Next::Return => {
                let Some((caller, back)) = callers.pop() else {
                    return Ok(Decision::Default { verdict: default });
                };
                here = caller;
                forest = rules.forest_of(here, is_sound).ok_or(damaged(position))?;
                from = back;
            }
            Next::Skip(_) | Next::Call { .. } => return Err(damaged(position)),
        }
    }
    Err(EvaluateError::TooLong)
}

/// What a flat rule whose box holds the packet does. `None` on damage.
#[inline]
fn act(
    rules: &impl Rules,
    flat: Flat,
    rule: OriginId,
    packet: &mut Packet,
    key: &mut Key,
    host: &mut impl Host,
) -> Option<Next> {
    let next = match flat {
        Flat::Verdict(verdict) => Next::Verdict(verdict),
        Flat::Return => Next::Return,
        Flat::Continue => Next::Following,
        Flat::Program(at) => return run(rules, at, rule, packet, key, host),
    };
    host.matched(rule, packet);
    Some(next)
}

/// Runs a program. `None` on damage.
fn run(
    rules: &impl Rules,
    at: u32,
    rule: OriginId,
    packet: &mut Packet,
    key: &mut Key,
    host: &mut impl Host,
) -> Option<Next> {
    let keys = rules.keys();
    let mut reader = Reader::new(rules.programs(), at as usize);
    let mut change = None;
    let next = loop {
        match reader.step(|dim| keys.raw(packet, dim))? {
            Step::Judged(true) => {}
            Step::Judged(false) => return Some(Next::Following),
            Step::Op(Op::Residual { match_index, kind }) => {
                match host.residual(rule, match_index, kind, packet) {
                    Answer::Holds => {}
                    Answer::Fails => return Some(Next::Following),
                    Answer::Drops => return Some(Next::Malformed),
                }
            }
            Step::Op(Op::Need { drops, passes }) => {
                let state = 1u8 << packet.l4 as u8;
                if drops & state != 0 {
                    return Some(Next::Malformed);
                }
                if passes & state == 0 {
                    return Some(Next::Following);
                }
            }
            Step::Op(Op::Effect(effect)) => change = Some(effect),
            Step::Op(Op::Malformed) => return Some(Next::Malformed),
            Step::Op(Op::Verdict(verdict)) => break Next::Verdict(verdict),
            Step::Op(Op::Continue) => break Next::Following,
            Step::Op(Op::Skip(to)) => break Next::Skip(to),
            Step::Op(Op::Call { entry, back }) => break Next::Call { entry, back },
            Step::Op(Op::Return) => break Next::Return,
            Step::Op(Op::Clause(_)) => return None, // clauses come judged
        }
    };
    host.matched(rule, packet);
    if let Some(change) = change {
        apply(change, packet);
        *key = keys.key(packet);
    }
    Some(next)
}

/// Makes a change to a packet. What touches the connection mark does nothing to a packet without
/// a connection.
pub fn apply(change: Change, packet: &mut Packet) {
    let has_connection = !matches!(packet.ct_state, CtState::Invalid | CtState::Untracked);
    match change {
        Change::ConnMark { .. } | Change::SaveMark { .. } | Change::RestoreMark { .. } if !has_connection => {
        }
        Change::Mark { clear, flip } => packet.mark = (packet.mark & !clear) ^ flip,
        Change::ConnMark { clear, flip } => packet.connmark = (packet.connmark & !clear) ^ flip,
        Change::SaveMark { ctmask, nfmask } => {
            packet.connmark = (packet.connmark & !ctmask) ^ (packet.mark & nfmask);
        }
        Change::RestoreMark { ctmask, nfmask } => {
            packet.mark = (packet.mark & !nfmask) ^ (packet.connmark & ctmask);
        }
        Change::Tos { clear, flip } => packet.tos = (packet.tos & !clear) ^ flip,
        Change::TtlSet(ttl) => packet.ttl = ttl,
        Change::TtlAdd(by) => packet.ttl = packet.ttl.saturating_add(by),
        Change::TtlSub(by) => packet.ttl = packet.ttl.saturating_sub(by),
        Change::Untrack => packet.ct_state = CtState::Untracked,
    }
}
