//! Every machine answers as the definition does, on values from the edges.

use proptest::prelude::*;

use super::*;
use crate::forest::leaf::{Column, LANES_MAX, RULES_MAX};
use crate::forest::root::{self, Bits, Cell, Scale, TreeRecord, fold};
use crate::forest::{ARENA_SLACK, fat, leaf};

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

fn column(rules: usize, may_be_wide: bool) -> impl Strategy<Value = Column> {
    let range = |v: BoxedStrategy<u32>| (v.clone(), v).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let narrow = range(edge().boxed());
    let wide = range(wide_edge().boxed());
    prop_oneof![4 => 0u8..13, 1 => 0u8..60].prop_flat_map(move |window| {
        let make = move |is_wide, ranges| Column { window, is_wide, ranges };
        prop_oneof![
            prop::collection::vec(narrow.clone(), rules).prop_map(move |r| make(false, r)),
            prop::collection::vec(edge().prop_map(|v| (v, v)), rules).prop_map(move |r| make(false, r)),
            narrow.clone().prop_map(move |r| make(false, vec![r; rules])),
            prop::collection::vec(wide.clone(), rules).prop_map(move |r| make(
                may_be_wide,
                r.iter().map(|r| if may_be_wide { *r } else { (r.0.min(0xffff), r.1.min(0xffff)) }).collect()
            )),
        ]
    })
}

/// A key with, in each column's window, an end of one of its ranges, or one beside it.
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

fn naive(columns: &[Column], rules: usize, key: &Key, from: u32) -> u32 {
    let holds = |p: u32| {
        columns.iter().all(|c| {
            let (lo, hi) = c.ranges[p as usize];
            let x = if c.is_wide { key.wide(c.window) } else { key.window(c.window).into() };
            lo <= x && x <= hi
        })
    };
    (from..rules as u32).find(|&p| holds(p)).unwrap_or(NO_MATCH)
}

/// All machines, with the leaf at the end of its arena, where vectors may not reach far, and with
/// bytes behind it that must not matter.
fn all_agree(
    leaf: &[u8],
    columns: &[Column],
    root: Ref,
    key: &Key,
    from: u32,
    wanted: u32,
) -> Result<(), TestCaseError> {
    // Short keys have kernels of their own.
    let is_short = columns.iter().all(|c| c.window + 2 * (1 + u8::from(c.is_wide)) <= 16);
    let end = leaf.len().next_multiple_of(UNIT) + ARENA_SLACK;
    for behind in [0, leaf::REACH] {
        let mut arena = leaf.to_vec();
        arena.resize(leaf.len().next_multiple_of(UNIT), 0);
        arena.resize(end + behind, 0xa5);
        let strides = if is_short { vec![16, 64] } else { vec![64] };
        for (machine, stride) in
            Machine::available().into_iter().flat_map(|m| strides.iter().map(move |&s| (m, s)))
        {
            let forest = Forest::new(machine, &arena, root, stride);
            prop_assert_eq!(forest.first_match(key, from), wanted, "{:?}", machine);
            if from == 0 {
                let mut keys = Keys::new(stride);
                (0..70).for_each(|_| keys.push(key));
                let mut out = [0; 67];
                forest.first_match_batch(&keys, 2..69, &mut out);
                prop_assert!(out.iter().all(|&o| o == wanted), "{:?}: {:?} not {}", machine, out, wanted);
            }
        }
    }
    Ok(())
}

/// Properties go over what is available: they would hold where the kernel was never asked.
#[cfg(all(target_arch = "aarch64", target_os = "linux", target_endian = "little"))]
#[test]
fn linux_on_aarch64_has_neon() {
    assert_eq!(Machine::available().iter().map(|m| m.name()).collect::<Vec<_>>(), ["scalar", "neon"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn every_machine_answers_a_lean_leaf_as_the_definition_does(
        (columns, picks, shift, from, rules) in (1usize..=RULES_MAX).prop_flat_map(|rules| (
            prop::collection::vec(column(rules, false), 0..=12),
            prop::collection::vec(any::<u16>(), 12),
            prop::collection::vec(-1i8..=1, 12),
            0u32..9,
            Just(rules),
        ))
    ) {
        let positions: Vec<u32> = (0..rules as u32).collect();
        let Some(bytes) = leaf::encode(&positions, &columns) else {
            let lanes = columns.iter().filter(|c| !c.is_guard()).count() * rules;
            prop_assert!(lanes > LANES_MAX - 8, "refused {} lanes", lanes);
            return Ok(());
        };
        let key = key_for(&columns, &picks, &shift);
        let layout = leaf::Layout::read(bytes.first_chunk().unwrap());
        prop_assert_eq!(layout.bytes(), bytes.len());
        let kind = if layout.lanes() <= leaf::VECTOR_LANES { Kind::Lean } else { Kind::Lean2 };
        let root = Ref::leaf(kind, 0, bytes.len());
        all_agree(&bytes, &columns, root, &key, from, naive(&columns, rules, &key, from))?;
        all_agree(&bytes, &columns, root, &key, 0, naive(&columns, rules, &key, 0))?;
        // What a reader of the leaf is told is what a lookup compares.
        let arena = [bytes.as_slice(), &[0; ARENA_SLACK]].concat();
        let leaf = leaf::Leaf::view(&arena, 0).unwrap();
        for rule in 0..rules {
            let holds = (0..leaf.layout.columns()).all(|column| {
                let (lo, hi) = leaf.range(column, rule);
                (lo..=hi).contains(&key.window(leaf.window(column)))
            });
            prop_assert_eq!(holds, leaf.matches(&key) >> rule & 1 == 1);
        }
    }

    #[test]
    fn every_machine_answers_a_fat_leaf_as_the_definition_does(
        (columns, picks, shift, from, rules) in (1usize..=64).prop_flat_map(|rules| (
            prop::collection::vec(column(rules, true), 0..7),
            prop::collection::vec(any::<u16>(), 7),
            prop::collection::vec(-1i8..=1, 7),
            0u32..70,
            Just(rules),
        ))
    ) {
        let positions: Vec<u32> = (0..rules as u32).collect();
        let bytes = fat::encode(&positions, &columns, None);
        let root = Ref::leaf(Kind::Fat, 0, bytes.len());
        let key = key_for(&columns, &picks, &shift);
        all_agree(&bytes, &columns, root, &key, from, naive(&columns, rules, &key, from))?;
        let arena = [bytes.as_slice(), &[0; ARENA_SLACK]].concat();
        let leaf = fat::FatLeaf::view(&arena, 0).unwrap();
        for rule in 0..rules {
            let holds = (0..leaf.layout.columns()).all(|column| {
                let (lo, hi) = leaf.range(column, rule);
                let window = leaf.window(column);
                let x = if leaf.is_wide(column) { key.wide(window) } else { key.window(window).into() };
                (lo..=hi).contains(&x)
            });
            prop_assert_eq!(holds, leaf.matches(&key) >> rule & 1 == 1);
        }
    }

    #[test]
    fn every_machine_finds_the_interval_of_the_definition(
        bounds in prop::collection::btree_set((0u32..0xffff).prop_map(|v| v as u16), 0..=14), value in edge()
    ) {
        let bounds: Vec<u16> = bounds.into_iter().collect();
        let children = (0..=bounds.len() as u16).collect();
        let value = value as u16;
        let node = node::Node { base: 0, window: 0, has_deferred: false, bounds, children };
        let bytes = node.encode();
        let wanted = node.bounds.iter().filter(|&&b| b < value).count();
        prop_assert_eq!(node::slot(&bytes, value), wanted);
        for machine in Machine::available() {
            let found = match machine.0 {
                Which::Scalar => node::slot(&bytes, value),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a machine that is available runs here.
                Which::Avx2 => unsafe { avx2::Avx2::<true>::slot(&bytes, value) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Which::Avx512 => unsafe { avx512::Avx512::<true>::slot(&bytes, value) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                Which::Neon => unsafe { neon::Neon::slot(&bytes, value) },
            };
            prop_assert_eq!(found, wanted, "{:?}", machine);
        }
    }

    #[test]
    fn every_machine_sorts_references_as_the_definition_does(
        // Of each kind the first and the last; the very last leads nowhere.
        words in prop::collection::vec(
            (0u32..4, prop_oneof![Just(0u32), Just(1), Just((1 << 30) - 2), Just((1 << 30) - 1), any::<u32>()]),
            BLOCK,
        )
    ) {
        let references: [u32; BLOCK] =
            std::array::from_fn(|i| words[i].0 << 30 | words[i].1 & ((1 << 30) - 1));
        // SAFETY: plain code runs everywhere.
        let wanted = unsafe { Scalar::kinds(&references) };
        for machine in Machine::available() {
            let found = match machine.0 {
                Which::Scalar => wanted,
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a machine that is available runs here.
                Which::Avx2 => unsafe { avx2::Avx2::<true>::kinds(&references) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Which::Avx512 => unsafe { avx512::Avx512::<true>::kinds(&references) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                Which::Neon => unsafe { neon::Neon::kinds(&references) },
            };
            prop_assert_eq!(found, wanted, "{:?}", machine);
        }
    }

    #[test]
    fn every_machine_passes_gates_as_the_definition_does(
        // Trees of guard leaves that hold everything: only gates decide.
        trees in prop::collection::vec((
            prop::collection::vec((prop_oneof![3 => 0u8..15, 1 => 0u8..30], 0u8..14, 0u32..3), 4),
            prop::collection::vec((any::<bool>(), any::<u32>(), 0u32..1000), 64),
        ), 1..=4),
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 32), 1..100),
        stride in prop_oneof![Just(16usize), Just(32), Just(48)],
        first in 0u32..2000,
    ) {
        let scale = Scale::of(first, 1000);
        let mut arena = vec![0; 256];
        arena[..16].copy_from_slice(&Root::encode_header(trees.len(), scale.first, scale.shift));
        for (t, (halves, cells)) in trees.iter().enumerate() {
            let window = |i: usize| if stride == 16 { halves[i].0 % 15 } else { halves[i].0 };
            let bits = |i: usize| Bits { window: window(i), shift: halves[i].1, mask: (1 << halves[i].2) - 1 };
            let record = TreeRecord {
                cells: (arena.len() / UNIT) as u32,
                index: [bits(0), bits(1)],
                filter: [bits(2), bits(3)],
            };
            prop_assert!(record.is_sound());
            arena[16 + 32 * t..][..32].copy_from_slice(&record.encode());
            let table = arena.len();
            arena.resize(table + (record.cell_count() * 8).next_multiple_of(UNIT), 0);
            for (i, &(is_full, filter, position)) in cells.iter().take(record.cell_count()).enumerate() {
                let mut cell = Cell::EMPTY;
                if is_full {
                    let position = first + position;
                    let bytes = leaf::encode(&[position], &[]).unwrap();
                    let at = arena.len();
                    arena.extend(&bytes);
                    arena.resize(arena.len().next_multiple_of(UNIT), 0);
                    let gate = scale.scaled(position) << 24 | filter & root::FILTER_ALL;
                    cell = Cell { reference: Ref::leaf(Kind::Lean, at, bytes.len()), gate };
                }
                arena[table + 8 * i..][..8].copy_from_slice(&cell.encode());
            }
        }
        arena.resize(arena.len() + ARENA_SLACK, 0);
        let mut packed = Keys::new(stride);
        for bytes in &keys {
            let mut key = Key::ZERO;
            key.0[..32].copy_from_slice(bytes);
            packed.push(&key);
        }
        let wanted: Vec<u32> = (0..packed.len())
            .map(|i| Forest::new(Machine::SCALAR, &arena, Ref::root(0), stride).first_match_counted(packed.get(i), 0).0)
            .collect();
        for machine in Machine::available() {
            let forest = Forest::new(machine, &arena, Ref::root(0), stride);
            let mut out = vec![0; packed.len()];
            forest.first_match_batch(&packed, 0..packed.len(), &mut out);
            prop_assert_eq!(&out, &wanted, "{:?}", machine);
            for (i, wanted) in wanted.iter().enumerate() {
                prop_assert_eq!(forest.first_match(packed.get(i), 0), *wanted, "{:?}", machine);
            }
        }
        prop_assert!(fold(31) < root::FILTER_VALUES);
    }

    #[test]
    fn damaged_bytes_end_every_walk(arena in prop::collection::vec(any::<u8>(), 0..3000), root: u32) {
        let mut keys = Keys::new(16);
        (0..5).for_each(|_| keys.push(&Key([0x5a; crate::key::KEY_BYTES])));
        for machine in Machine::available() {
            for root in [Ref(root), Ref(root % 50), Ref::root(0), Ref::root(16), Ref((root % 50) | (root & (3 << 30)))] {
                let mut out = [0; 5];
                let forest = Forest::new(machine, &arena, root, 64);
                forest.first_match(keys.get(4), 0);
                forest.first_match_batch(&keys, 0..5, &mut out);
            }
        }
    }
}
