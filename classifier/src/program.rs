//! Programs: what happens when a flat rule's box holds a packet and the answer is not a plain
//! verdict.
//!
//! A program is a list of operations, encoded as little-endian words:
//!
//! ```text
//!  operation        first word           further words
//!  ────────────────────────────────────────────────────────────────────────────
//!  Clause           1  alternatives≪8    per alternative: tests, then per test
//!                                        kind | dim≪8 | negated≪16, a, b
//!  Residual         2  match≪8 | kind≪24
//!  Need             3  drops≪8 | passes≪16
//!  Effect           4  kind≪8            a, b
//!  Verdict          8  verdict≪8
//!  Continue         9
//!  Skip            10                    position
//!  Call            11                    entry, position to come back to
//!  Return          12
//!  Malformed       13
//! ```
//!
//! Operations from `Verdict` on end the program; when it is reached the rule has matched.

use crate::dim::Dim;

/// A test of one dimension's raw value (not of its class).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DimTest {
    /// The dimension.
    pub dim: Dim,
    /// The test holds for the complement.
    pub negated: bool,
    /// What is wanted.
    pub wanted: Wanted,
}

/// A set of raw values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// From the first to the second, inclusive.
    Range(u32, u32),
    /// `x & mask == value`.
    Masked {
        /// Wanted bits.
        value: u32,
        /// Bits looked at.
        mask: u32,
    },
}

impl DimTest {
    /// The test holds for this raw value.
    #[inline]
    pub fn holds(&self, x: u32) -> bool {
        let inside = match self.wanted {
            Wanted::Range(lo, hi) => lo <= x && x <= hi,
            Wanted::Masked { value, mask } => x & mask == value,
        };
        inside != self.negated
    }
}

/// What a residual match depends on: how freely it may be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidualKind {
    /// Evaluating it changes nothing.
    Pure,
    /// It must be evaluated exactly when the rules say.
    Stateful,
    /// Not known: treated as stateful.
    Unknown,
}

/// A change to the packet that later rules see. Those of the connection mark do nothing when the
/// packet has no connection (INVALID, UNTRACKED).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// `mark = (mark & !clear) ^ flip`
    Mark {
        /// Bits set to zero first.
        clear: u32,
        /// Bits then inverted.
        flip: u32,
    },
    /// `connmark = (connmark & !clear) ^ flip`
    ConnMark {
        /// Bits set to zero first.
        clear: u32,
        /// Bits then inverted.
        flip: u32,
    },
    /// `connmark = (connmark & !ctmask) ^ (mark & nfmask)`
    SaveMark {
        /// Bits of the connection mark replaced.
        ctmask: u32,
        /// Bits of the packet mark taken.
        nfmask: u32,
    },
    /// `mark = (mark & !nfmask) ^ (connmark & ctmask)`
    RestoreMark {
        /// Bits of the connection mark taken.
        ctmask: u32,
        /// Bits of the packet mark replaced.
        nfmask: u32,
    },
    /// `tos = (tos & !clear) ^ flip`
    Tos {
        /// Bits set to zero first.
        clear: u8,
        /// Bits then inverted.
        flip: u8,
    },
    /// TTL or hop limit set.
    TtlSet(u8),
    /// Raised, to 255 at most.
    TtlAdd(u8),
    /// Lowered, to 0 at least.
    TtlSub(u8),
    /// UNTRACKED from here on.
    Untrack,
}

/// Where a call comes back to in a program that several flat rules share: the position behind the
/// one that calls. For live tables; images name the position.
pub const BACK_BEHIND: u32 = 0;

/// Where a goto of a live table comes back to: behind the last position that a rule can have.
pub const BACK_TO_END: u32 = u32::MAX - 1;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// Goes on when all tests of one alternative hold; else the rule does not match.
    Clause(Vec<Vec<DimTest>>),
    /// Asks the host; goes on when the match holds.
    Residual {
        /// Which match of the rule, from 0.
        match_index: u8,
        /// How it may be evaluated.
        kind: ResidualKind,
    },
    /// Looks at the state of the transport header ([`L4`](crate::L4)): a bit a state.
    Need {
        /// States in which the packet is malformed: it is dropped at once.
        drops: u8,
        /// States in which the rule may match.
        passes: u8,
    },
    /// Changes the packet, once the rule has matched.
    Effect(Change),
    /// Ends the evaluation.
    Verdict(u8),
    /// The next position.
    Continue,
    /// A later position.
    Skip(u32),
    /// Another entry; its end comes back to `back`.
    Call {
        /// The entry.
        entry: u32,
        /// The position after it.
        back: u32,
    },
    /// Ends this entry: back to the caller, or to the entry's default.
    Return,
    /// The packet is malformed and dropped; the rule has not matched.
    Malformed,
}

impl Op {
    /// Ends a program.
    pub fn is_end(&self) -> bool {
        !matches!(self, Op::Clause(_) | Op::Residual { .. } | Op::Need { .. } | Op::Effect(_))
    }
}

/// Appends the words of an operation.
pub fn encode(op: &Op, out: &mut Vec<u32>) {
    match op {
        Op::Clause(alternatives) => {
            out.push(1 | (alternatives.len() as u32) << 8);
            for tests in alternatives {
                out.push(tests.len() as u32);
                for t in tests {
                    let (kind, a, b) = match t.wanted {
                        Wanted::Range(lo, hi) => (0, lo, hi),
                        Wanted::Masked { value, mask } => (1, value, mask),
                    };
                    out.push(kind | u32::from(t.dim.number()) << 8 | u32::from(t.negated) << 16);
                    out.extend([a, b]);
                }
            }
        }
        Op::Residual { match_index, kind } => {
            let kind = match kind {
                ResidualKind::Pure => 0,
                ResidualKind::Stateful => 1,
                ResidualKind::Unknown => 2,
            };
            out.push(2 | u32::from(*match_index) << 8 | kind << 24);
        }
        Op::Need { drops, passes } => out.push(3 | u32::from(*drops) << 8 | u32::from(*passes) << 16),
        Op::Effect(change) => {
            let (kind, a, b) = match *change {
                Change::Mark { clear, flip } => (0, clear, flip),
                Change::ConnMark { clear, flip } => (1, clear, flip),
                Change::SaveMark { ctmask, nfmask } => (2, ctmask, nfmask),
                Change::RestoreMark { ctmask, nfmask } => (3, ctmask, nfmask),
                Change::Tos { clear, flip } => (4, clear.into(), flip.into()),
                Change::TtlSet(v) => (5, v.into(), 0),
                Change::TtlAdd(v) => (6, v.into(), 0),
                Change::TtlSub(v) => (7, v.into(), 0),
                Change::Untrack => (8, 0, 0),
            };
            out.extend([4 | kind << 8, a, b]);
        }
        Op::Verdict(id) => out.push(8 | u32::from(*id) << 8),
        Op::Continue => out.push(9),
        Op::Skip(to) => out.extend([10, *to]),
        Op::Call { entry, back } => out.extend([11, *entry, *back]),
        Op::Return => out.push(12),
        Op::Malformed => out.push(13),
    }
}

/// The largest dimension that programs test, which stand side by side in `words`.
pub(crate) fn dim_max(words: &[u32]) -> Option<Dim> {
    let mut max = None;
    let mut at = 0;
    let count = |at: usize| words.get(at).copied().unwrap_or(0);
    while let Some(&head) = words.get(at) {
        at += match head & 0xff {
            4 | 11 => 3,
            10 => 2,
            _ => 1,
        };
        for _ in 0..if head & 0xff == 1 { head >> 8 } else { 0 } {
            let tests = count(at);
            at += 1;
            for _ in 0..tests {
                max = max.max(Dim::from_number((count(at) >> 8) as u8));
                at += 3;
            }
            if at >= words.len() {
                return max;
            }
        }
    }
    max
}

/// Reads operations from the programs section; ends at the first word that makes no sense.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    words: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `words` (the section's bytes) from word `at` on.
    pub fn new(words: &'a [u8], at: usize) -> Reader<'a> {
        Reader { words, at }
    }

    /// The word it stands at.
    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn word(&mut self) -> Option<u32> {
        let word = self.words.get(self.at.checked_mul(4)?..)?.first_chunk::<4>()?;
        self.at += 1;
        Some(u32::from_le_bytes(*word))
    }

    /// The next operation. Clauses are judged by `holds` as they are read, without allocating:
    /// `Ok(Step::Judged(answer))`. `None` on damage.
    #[inline]
    pub fn step(&mut self, mut value: impl FnMut(Dim) -> u32) -> Option<Step> {
        let head = self.word()?;
        let byte = |shift: u32| (head >> shift) as u8;
        Some(match head & 0xff {
            1 => {
                let mut any = false;
                for _ in 0..head >> 8 {
                    let mut all = true;
                    for _ in 0..self.word()? {
                        let test = self.test()?;
                        all = all && test.holds(value(test.dim));
                    }
                    any |= all;
                }
                Step::Judged(any)
            }
            2 => Step::Op(Op::Residual {
                match_index: byte(8),
                kind: match byte(24) {
                    0 => ResidualKind::Pure,
                    1 => ResidualKind::Stateful,
                    2 => ResidualKind::Unknown,
                    _ => return None,
                },
            }),
            3 => Step::Op(Op::Need { drops: byte(8), passes: byte(16) }),
            4 => {
                let (a, b) = (self.word()?, self.word()?);
                Step::Op(Op::Effect(change(byte(8), a, b)?))
            }
            8 => Step::Op(Op::Verdict(byte(8))),
            9 => Step::Op(Op::Continue),
            10 => Step::Op(Op::Skip(self.word()?)),
            11 => Step::Op(Op::Call { entry: self.word()?, back: self.word()? }),
            12 => Step::Op(Op::Return),
            13 => Step::Op(Op::Malformed),
            _ => return None,
        })
    }

    fn test(&mut self) -> Option<DimTest> {
        let head = self.word()?;
        let (a, b) = (self.word()?, self.word()?);
        let wanted = match head & 0xff {
            0 => Wanted::Range(a, b),
            1 => Wanted::Masked { value: a, mask: b },
            _ => return None,
        };
        Some(DimTest { dim: Dim::from_number((head >> 8) as u8)?, negated: head >> 16 & 1 != 0, wanted })
    }

    /// The next operation as data, for showing and checking.
    pub fn op(&mut self) -> Option<Op> {
        let start = self.at;
        let head = self.word()?;
        if head & 0xff != 1 {
            self.at = start;
            return match self.step(|_| 0)? {
                Step::Op(op) => Some(op),
                Step::Judged(_) => None,
            };
        }
        let mut alternatives = Vec::new();
        for _ in 0..head >> 8 {
            let mut tests = Vec::new();
            for _ in 0..self.word()? {
                tests.push(self.test()?);
            }
            alternatives.push(tests);
        }
        Some(Op::Clause(alternatives))
    }
}

/// What [`Reader::step`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A clause, judged.
    Judged(bool),
    /// Another operation.
    Op(Op),
}

fn change(kind: u8, a: u32, b: u32) -> Option<Change> {
    let byte = |v: u32| u8::try_from(v).ok();
    Some(match kind {
        0 => Change::Mark { clear: a, flip: b },
        1 => Change::ConnMark { clear: a, flip: b },
        2 => Change::SaveMark { ctmask: a, nfmask: b },
        3 => Change::RestoreMark { ctmask: a, nfmask: b },
        4 => Change::Tos { clear: byte(a)?, flip: byte(b)? },
        5 => Change::TtlSet(byte(a)?),
        6 => Change::TtlAdd(byte(a)?),
        7 => Change::TtlSub(byte(a)?),
        8 => Change::Untrack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_survives_its_words() {
        let test = |dim, negated, wanted| DimTest { dim, negated, wanted };
        let ops = vec![
            Op::Clause(vec![
                vec![test(Dim::Mark, true, Wanted::Masked { value: 4, mask: 12 })],
                vec![
                    test(Dim::Ttl, false, Wanted::Range(1, 9)),
                    test(Dim::MacLow, true, Wanted::Range(0, 0)),
                ],
            ]),
            Op::Residual { match_index: 200, kind: ResidualKind::Unknown },
            Op::Need { drops: 0x7c, passes: 1 },
            Op::Effect(Change::SaveMark { ctmask: u32::MAX, nfmask: 7 }),
            Op::Effect(Change::TtlSub(1)),
            Op::Effect(Change::Untrack),
            Op::Verdict(7),
            Op::Continue,
            Op::Skip(99),
            Op::Call { entry: 3, back: 12 },
            Op::Return,
            Op::Malformed,
        ];
        let mut words = Vec::new();
        ops.iter().for_each(|op| encode(op, &mut words));
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut reader = Reader::new(&bytes, 0);
        let read: Vec<Op> = std::iter::from_fn(|| reader.op()).collect();
        assert_eq!(read, ops);
    }

    #[test]
    fn clauses_are_judged_as_they_are_read() {
        let masked =
            DimTest { dim: Dim::Mark, negated: false, wanted: Wanted::Masked { value: 4, mask: 12 } };
        let ttl = DimTest { dim: Dim::Ttl, negated: true, wanted: Wanted::Range(5, 9) };
        let judge = |mark: u32, ttl_value: u32| {
            let mut words = Vec::new();
            encode(&Op::Clause(vec![vec![masked, ttl]]), &mut words);
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            Reader::new(&bytes, 0).step(|d| if d == Dim::Mark { mark } else { ttl_value })
        };
        assert_eq!(judge(0x35, 4), Some(Step::Judged(true)));
        assert_eq!(judge(0x35, 5), Some(Step::Judged(false)));
        assert_eq!(judge(0x38, 4), Some(Step::Judged(false)));
    }
}
