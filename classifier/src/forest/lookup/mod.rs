//! Lookup: the smallest position at or after `from` of a rule whose box holds the key.
//!
//! One walk serves every machine; a [`Kernel`] supplies its two steps, the interval of a node
//! and the matches of a leaf. [`Scalar`] is the definition, the others are proved equal to it
//! by property tests. The machine is chosen once, when an image is opened.
//!
//! A walk over bytes that nobody audited may answer nonsense, but ends (references lead
//! upward, and visits are counted) and stays inside the bytes.
#![allow(unsafe_code)] // kernels need the right machine: stated and kept here

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use super::leaf::Leaf;
use super::node::{self, NODE_BYTES, NodeBytes};
use super::{PENDING_MAX, Ref, UNIT, u32_at};
use crate::key::Key;
pub use scalar::Scalar;

/// No rule matches.
pub const NO_MATCH: u32 = u32::MAX;

/// Nodes and leaves visited in one lookup, at most; audited forests stay far below.
const VISITS_MAX: u32 = 1 << 20;

/// The two steps of a walk, as one machine does them.
pub trait Kernel {
    /// The interval of `value` in a node: [`node::slot`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize;

    /// The rules of a leaf that hold the key: [`Leaf::matches`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn matches(leaf: &Leaf<'_>, key: &Key) -> u64;
}

/// What the processor offers. Values come from [`Machine::detect`] and [`Machine::SCALAR`]
/// alone, so that having one proves that its instructions run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Machine {
    /// Plain code, everywhere.
    pub const SCALAR: Machine = Machine(Kind::Scalar);

    /// The best machine of this processor. Costs a look at a cached flag.
    pub fn detect() -> Machine {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("popcnt")
        {
            return Machine(Kind::Avx2);
        }
        Machine::SCALAR
    }

    /// All that run here: for tests that compare them.
    pub fn available() -> Vec<Machine> {
        let best = Machine::detect();
        if best == Machine::SCALAR { vec![best] } else { vec![Machine::SCALAR, best] }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
        }
    }
}

/// What a lookup cost, counted by [`first_match_counted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visits {
    /// Nodes visited.
    pub nodes: u32,
    /// Leaves visited.
    pub leaves: u32,
}

/// The smallest position at or after `from` whose rule holds the key, or [`NO_MATCH`].
#[inline]
pub fn first_match(machine: Machine, arena: &[u8], root: Ref, key: &Key, from: u32) -> u32 {
    match machine.0 {
        Kind::Scalar => scalar::first_match(arena, root, key, from),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Machine` of this kind comes from `detect` alone, which saw the features.
        Kind::Avx2 => unsafe { avx2::first_match(arena, root, key, from) },
    }
}

/// [`first_match`] by the definition, counting its visits.
pub fn first_match_counted(arena: &[u8], root: Ref, key: &Key, from: u32) -> (u32, Visits) {
    // SAFETY: the scalar kernel runs everywhere.
    unsafe { walk::<Scalar>(arena, root, key, from) }
}

/// A deferred reference that waits, and the smallest position behind it.
#[derive(Clone, Copy)]
struct Pending {
    reference: Ref,
    smallest: u32,
}

/// The walk of every machine.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn walk<K: Kernel>(arena: &[u8], root: Ref, key: &Key, from: u32) -> (u32, Visits) {
    let mut best = NO_MATCH;
    let mut visits = Visits::default();
    let mut pending = [Pending { reference: Ref::EMPTY, smallest: 0 }; PENDING_MAX];
    let mut waiting = 0;
    let mut here = root;
    loop {
        // Down to a leaf, or to where no rule is.
        while !here.is_leaf() && visits.nodes < VISITS_MAX {
            visits.nodes += 1;
            let offset = here.offset();
            let Some(bytes) = arena.get(offset..).and_then(|a| a.first_chunk::<NODE_BYTES>()) else { break };
            if node::has_deferred(bytes)
                && let Some(part) = deferred(arena, bytes)
                && part.smallest < best
                && waiting < PENDING_MAX
            {
                pending[waiting] = part;
                waiting += 1;
            }
            // SAFETY: passed on from the caller.
            let slot = unsafe { K::slot(bytes, key.window(node::window(bytes))) };
            let child = node::child(bytes, slot);
            // A reference that does not lead upward is damage: without this a walk could loop.
            here = if child.offset() > offset { child } else { Ref::EMPTY };
        }
        // Through the leaf and its continuations.
        while here.is_leaf() && !here.is_empty() && visits.leaves < VISITS_MAX {
            visits.leaves += 1;
            let Some(leaf) = Leaf::view(arena, here.offset()) else { break };
            // SAFETY: passed on from the caller.
            let found = first_from(&leaf, unsafe { K::matches(&leaf, key) }, from);
            if found != NO_MATCH {
                best = best.min(found);
                break;
            }
            let next = leaf.next();
            here = if next.is_leaf() && next.offset() > here.offset() { next } else { Ref::EMPTY };
        }
        // On to a deferred part that may hold an earlier rule.
        loop {
            if waiting == 0 {
                return (best, visits);
            }
            waiting -= 1;
            if pending[waiting].smallest < best {
                here = pending[waiting].reference;
                break;
            }
        }
    }
}

/// The deferred reference in the unit before a node's children.
#[inline(always)]
fn deferred(arena: &[u8], node: &NodeBytes) -> Option<Pending> {
    let at = (node::base(node) as usize & Ref::UNITS_MAX).checked_sub(1)? * UNIT;
    let unit = arena.get(at..at + UNIT)?;
    Some(Pending { reference: Ref(u32_at(unit, 0)), smallest: u32_at(unit, 4) })
}

/// The first rule of `mask` whose position is at or after `from`.
#[inline(always)]
fn first_from(leaf: &Leaf<'_>, mut mask: u64, from: u32) -> u32 {
    while mask != 0 {
        let position = leaf.position(mask.trailing_zeros() as usize);
        if position >= from {
            return position;
        }
        mask &= mask - 1;
    }
    NO_MATCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::ARENA_SLACK;
    use crate::forest::leaf::{self, Column};
    use proptest::prelude::*;

    /// Values on and beside the bounds that vectors get wrong: sign bits and ends.
    fn edge() -> impl Strategy<Value = u32> {
        prop_oneof![
            Just(0u32),
            Just(1),
            Just(0x7fff),
            Just(0x8000),
            Just(0x8001),
            Just(0xfffe),
            Just(0xffff),
            0u32..0x10000
        ]
    }

    fn wide_edge() -> impl Strategy<Value = u32> {
        prop_oneof![
            Just(0x7fff_ffff),
            Just(0x8000_0000),
            Just(u32::MAX),
            Just(u32::MAX - 1),
            edge(),
            any::<u32>()
        ]
    }

    fn column(rules: usize) -> impl Strategy<Value = Column> {
        let range = |v: BoxedStrategy<u32>| (v.clone(), v).prop_map(|(a, b)| (a.min(b), a.max(b)));
        let narrow = range(edge().boxed());
        let wide = range(wide_edge().boxed());
        (0u8..40).prop_flat_map(move |window| {
            prop_oneof![
                prop::collection::vec(narrow.clone(), rules).prop_map(move |ranges| Column {
                    window,
                    is_wide: false,
                    ranges
                }),
                prop::collection::vec(edge().prop_map(|v| (v, v)), rules).prop_map(move |ranges| Column {
                    window,
                    is_wide: false,
                    ranges
                }),
                narrow.clone().prop_map(move |r| Column { window, is_wide: false, ranges: vec![r; rules] }),
                prop::collection::vec(wide.clone(), rules).prop_map(move |ranges| Column {
                    window,
                    is_wide: true,
                    ranges
                }),
            ]
        })
    }

    fn key_for(columns: &[Column], picks: &[u16], shift: &[i8]) -> Key {
        let mut key = Key::ZERO;
        for (c, (pick, shift)) in columns.iter().zip(picks.iter().zip(shift)) {
            let range = c.ranges[usize::from(*pick) % c.ranges.len()];
            let value = if pick & 0x8000 == 0 { range.0 } else { range.1 };
            let value = value.wrapping_add_signed((*shift).into());
            let at = usize::from(c.window);
            if c.is_wide {
                key.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
            } else {
                key.0[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
            }
        }
        key
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_machine_answers_a_leaf_as_the_definition_does(
            (columns, picks, shift, from) in (1usize..=64).prop_flat_map(|rules| (
                prop::collection::vec(column(rules), 0..7),
                prop::collection::vec(any::<u16>(), 7),
                prop::collection::vec(-1i8..=1, 7),
                0u32..70,
            )), rules_hint in 1usize..=64
        ) {
            let rules = columns.first().map_or(rules_hint, |c| c.ranges.len());
            let positions: Vec<u32> = (0..rules as u32).collect();
            let mut arena = leaf::encode(&positions, &columns, None);
            arena.resize(arena.len().next_multiple_of(UNIT), 0);
            // What lies behind a leaf must not matter.
            arena.resize(arena.len() + ARENA_SLACK, 0xa5);
            let key = key_for(&columns, &picks, &shift);
            let naive = (from..rules as u32).find(|&p| columns.iter().all(|c| {
                let (lo, hi) = c.ranges[p as usize];
                let x = if c.is_wide { key.wide(c.window) } else { key.window(c.window).into() };
                lo <= x && x <= hi
            })).unwrap_or(NO_MATCH);
            for machine in Machine::available() {
                prop_assert_eq!(first_match(machine, &arena, Ref::leaf(0), &key, from), naive, "{:?}", machine);
            }
        }

        #[test]
        fn every_machine_finds_the_interval_of_the_definition(
            bounds in prop::collection::btree_set((0u32..0xffff).prop_map(|v| v as u16), 0..=14), value in edge()
        ) {
            let bounds: Vec<u16> = bounds.into_iter().collect();
            let deltas = (0..=bounds.len() as u16).collect();
            let bytes = node::Node {
                base: 0, window: 0, node_children: 0, has_deferred: false, bounds: bounds.clone(), deltas,
            }.encode();
            let wanted = bounds.iter().filter(|&&b| b < value as u16).count();
            prop_assert_eq!(node::slot(&bytes, value as u16), wanted);
            #[cfg(target_arch = "x86_64")]
            if Machine::detect().0 == Kind::Avx2 {
                // SAFETY: just seen to run here.
                prop_assert_eq!(unsafe { avx2::Avx2::slot(&bytes, value as u16) }, wanted);
            }
        }

        #[test]
        fn damaged_bytes_end_every_walk(arena in prop::collection::vec(any::<u8>(), 0..600), root: u32) {
            for machine in Machine::available() {
                first_match(machine, &arena, Ref(root), &Key::ZERO, 0);
                first_match(machine, &arena, Ref(root % 40), &Key::ZERO, 0);
            }
        }
    }
}
