//! Programs: what a flat rule does once its box holds the packet, in a form that two of them can be
//! compared in.
//!
//! What counts is what can be seen: which stateful residual matches are asked, in order; where a cut
//! header drops the packet; what is changed; how it ends. These are *marks*. What stands between two
//! marks, clauses and pure residual matches, can be asked in any order.
//!
//! ```text
//!   clauses, pure matches ─ mark ─ clauses, pure matches ─ mark ─ … ─ effect, end
//!   └── segment 0 ───────┘        └── segment 1 ───────┘
//! ```

use hipac_classifier::image::{Flat, Section};
use hipac_classifier::program::{Change, Op, Reader, ResidualKind};
use hipac_classifier::{Dim, Image};
use hipac_rules::{Effect, Residual};

use super::condition::{Condition, Raw};
use super::ranges::Ranges;
use super::space::Space;

/// Operations of one program, at most. A rule has at most 256 matches.
const OPS_MAX: usize = 1 << 14;

/// What is asked between two marks.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    pub(super) condition: Condition,
    /// Pure residual matches, by number, each once.
    pub(super) pure: Vec<u8>,
}

/// What can be seen of a program before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// A residual match that is not pure is asked.
    Asks(u8, ResidualKind),
    /// In these states of the transport header the packet is dropped.
    Drops(u8),
}

/// How a flat rule ends. Positions count over the whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A verdict of the image's table.
    Verdict(u8),
    /// Goes on at a position; behind the last one the list ends.
    Resume(u32),
    /// Another entry, and where its end comes back to.
    Call { entry: u32, back: u32 },
    /// Drops the packet, uncounted.
    Malformed,
}

/// A flat rule's program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) first: Segment,
    pub(super) rest: Vec<(Mark, Segment)>,
    pub(super) effect: Option<Change>,
    pub(super) end: End,
}

impl Segment {
    pub(super) fn ask_pure(&mut self, number: u8) {
        if let Err(at) = self.pure.binary_search(&number) {
            self.pure.insert(at, number);
        }
    }

    fn is_empty(&self) -> bool {
        self.condition.is_all() && self.pure.is_empty()
    }
}

/// States of the transport header, a bit each, as a set.
pub(super) fn states(bits: u8) -> Ranges {
    Ranges::of((0..=Dim::L4.max()).filter(|s| bits >> s & 1 == 1).map(|s| (s, s)))
}

pub(super) fn kind_of(residual: Residual) -> ResidualKind {
    match residual {
        Residual::Pure => ResidualKind::Pure,
        Residual::Stateful => ResidualKind::Stateful,
        Residual::Unknown => ResidualKind::Unknown,
    }
}

/// A target's effect as programs name it.
pub(super) fn change_of(effect: Effect) -> Option<Change> {
    match effect {
        Effect::None => None,
        Effect::Mark { clear, flip } => Some(Change::Mark { clear, flip }),
        Effect::ConnMark { clear, flip } => Some(Change::ConnMark { clear, flip }),
        Effect::SaveMark { ctmask, nfmask } => Some(Change::SaveMark { ctmask, nfmask }),
        Effect::RestoreMark { ctmask, nfmask } => Some(Change::RestoreMark { ctmask, nfmask }),
        Effect::Tos { clear, flip } => Some(Change::Tos { clear, flip }),
        Effect::TtlSet(ttl) => Some(Change::TtlSet(ttl)),
        Effect::TtlAdd(by) => Some(Change::TtlAdd(by)),
        Effect::TtlSub(by) => Some(Change::TtlSub(by)),
        Effect::Untrack => Some(Change::Untrack),
    }
}

impl Program {
    /// What the flat rule at `position` of a list that ends before `list_end` does; `None` when it
    /// makes no sense.
    pub(super) fn read<B: AsRef<[u8]>>(
        image: &Image<B>,
        flat: Flat,
        position: u32,
        list_end: u32,
        raw: Raw<'_>,
    ) -> Option<Program> {
        let mut program =
            Program { first: Segment::default(), rest: vec![], effect: None, end: End::Resume(list_end) };
        match flat {
            Flat::Verdict(id) => program.end = End::Verdict(id),
            Flat::Return => {}
            Flat::Continue => program.end = End::Resume(position + 1),
            Flat::Program(at) => {
                let mut reader = Reader::new(image.section(Section::Programs), at as usize);
                for _ in 0..OPS_MAX {
                    if let Some(end) = program.take(reader.op()?, position, list_end, raw) {
                        program.end = end;
                        return Some(program);
                    }
                }
                return None;
            }
        }
        Some(program)
    }

    /// One operation more; the end, when it is one.
    fn take(&mut self, op: Op, position: u32, list_end: u32, raw: Raw<'_>) -> Option<End> {
        let segment = self.rest.last_mut().map_or(&mut self.first, |(_, segment)| segment);
        match op {
            Op::Clause(alternatives) => segment.condition.and_program_clause(&alternatives, raw),
            Op::Residual { match_index, kind: ResidualKind::Pure } => segment.ask_pure(match_index),
            Op::Residual { match_index, kind } => {
                self.rest.push((Mark::Asks(match_index, kind), Segment::default()));
            }
            Op::Need { drops, passes } => self.need(drops, passes, raw),
            Op::Effect(change) => self.effect = Some(change),
            Op::Verdict(id) => return Some(End::Verdict(id)),
            Op::Continue => return Some(End::Resume(position + 1)),
            Op::Skip(to) => return Some(End::Resume(to)),
            Op::Call { entry, back } => return Some(End::Call { entry, back }),
            Op::Return => return Some(End::Resume(list_end)),
            Op::Malformed => return Some(End::Malformed),
        }
        None
    }

    /// A look at the transport header.
    pub(super) fn need(&mut self, drops: u8, passes: u8, raw: Raw<'_>) {
        if drops != 0 {
            self.rest.push((Mark::Drops(drops), Segment::default()));
        }
        let segment = self.rest.last_mut().map_or(&mut self.first, |(_, segment)| segment);
        segment.condition.and_set(Dim::L4, &states(passes & !drops), raw);
    }

    /// Its end happens whenever its box holds the packet.
    pub(super) fn is_plain(&self) -> bool {
        self.first.is_empty() && self.rest.is_empty()
    }

    /// All but the end does what `wanted` does, for packets in a box within the condition of
    /// `wanted`'s first segment or outside of what this one's clauses let through.
    pub(super) fn does(&self, wanted: &Program, space: &Space) -> bool {
        let raw = space.raw();
        // States that a mark has dropped do not come behind it.
        let behind = |(mark, segment): &(Mark, Segment)| {
            let mut condition = segment.condition.clone();
            if let Mark::Drops(drops) = mark {
                condition.and_set(Dim::L4, &states(!drops), raw);
            }
            condition
        };
        self.first.pure == wanted.first.pure
            && space.implies(&wanted.first.condition, &self.first.condition)
            && self.effect == wanted.effect
            && self.rest.len() == wanted.rest.len()
            && self
                .rest
                .iter()
                .zip(&wanted.rest)
                .all(|(a, b)| a.0 == b.0 && a.1.pure == b.1.pure && space.are_equal(&behind(a), &behind(b)))
    }
}

#[cfg(test)]
mod tests {
    use hipac_rules::L4Need;

    #[test]
    fn a_match_drops_what_it_cannot_read() {
        let need = |bytes, drops_fragment_at_8| L4Need { bytes, drops_fragment_at_8 }.states();
        assert_eq!(need(0, false), (0, 0b111_1111));
        assert_eq!(need(4, false), (0b000_1000, 0b111_0001));
        assert_eq!(need(12, false), (0b011_1000, 0b100_0001));
        assert_eq!(need(20, true), (0b111_1100, 0b000_0001));
    }
}
