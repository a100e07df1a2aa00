//! Flat rules by label: a hash table in the generation's memory.
//!
//! ```text
//!  bucket: one cache line of four    key u64             value u64
//!                                    label │ entry ≪ 32  what it does │ rule ≪ 32
//! ```
//!
//! A key's bucket is found by hashing; when it is full the next ones take it, up to
//! [`REACH`] further. A free place has key 0: entries count from 1 here.

use super::memory::Memory;
use crate::forest::LINE;
use crate::image::Flat;

/// Bytes of a place.
const PLACE: usize = 16;

/// Places of a bucket.
const PLACES: usize = LINE / PLACE;

/// Buckets that a search looks at.
const REACH: usize = 64;

/// The key of a flat rule: its label in an entry.
#[inline]
pub fn flat_key(entry: u32, label: u32) -> u64 {
    u64::from(entry + 1) << 32 | u64::from(label)
}

/// Where the table lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlatTable {
    /// Cache line at which it begins.
    line: u32,
    /// Buckets.
    buckets: u32,
}

impl FlatTable {
    /// The table of so many buckets at byte `at`, a multiple of a cache line.
    pub fn new(at: usize, buckets: u32) -> FlatTable {
        FlatTable { line: (at / LINE) as u32, buckets }
    }

    /// Byte offset.
    pub fn at(self) -> usize {
        self.line as usize * LINE
    }

    /// Bytes.
    pub fn bytes(self) -> usize {
        self.buckets as usize * LINE
    }

    /// Keys that have room at best.
    pub fn places(self) -> usize {
        self.buckets as usize * PLACES
    }

    /// As one word.
    pub fn word(self) -> u64 {
        u64::from(self.line) | u64::from(self.buckets) << 32
    }

    /// From a word.
    pub fn from_word(word: u64) -> FlatTable {
        FlatTable { line: word as u32, buckets: (word >> 32) as u32 }
    }

    /// The places in which a key may be, nearest first.
    fn places_of(self, key: u64) -> impl Iterator<Item = usize> {
        let buckets = self.buckets as usize;
        let hash = mixed(key);
        let first = (((hash >> 32) * u64::from(self.buckets)) >> 32) as usize;
        let wrapped = move |b: usize| if b >= buckets { b - buckets } else { b };
        let places = (0..REACH.min(buckets)).map(move |i| wrapped(first + i));
        places.flat_map(move |b| (0..PLACES).map(move |p| self.at() + LINE * b + PLACE * p))
    }

    /// What a key's flat rule does, and its rule.
    #[inline]
    pub fn get(self, memory: &Memory, key: u64) -> Option<(Flat, u32)> {
        let at = self.places_of(key).find(|&at| memory.load(at) == key)?;
        let value = memory.load(at + 8);
        Some((Flat::decode(value as u32)?, (value >> 32) as u32))
    }

    /// A key is in the table, if none of its keys is more than so many buckets behind its own: without
    /// that, one that is not there is looked for in all that are within reach.
    pub fn has(self, memory: &Memory, key: u64, buckets: usize) -> bool {
        self.places_of(key).take((buckets + 1) * PLACES).any(|at| memory.load(at) == key)
    }

    /// Puts a key in; how many buckets behind its own, or `None` when there is no room near it. For the
    /// writer.
    pub fn insert(self, memory: &Memory, key: u64, flat: Flat, rule: u32) -> Option<usize> {
        self.insert_word(memory, key, u64::from(flat.encode()) | u64::from(rule) << 32)
    }

    /// The same with a value as [`FlatTable::entries`] gives it.
    pub fn insert_word(self, memory: &Memory, key: u64, value: u64) -> Option<usize> {
        let mut places = self.places_of(key).enumerate();
        let (i, at) = places.find(|&(_, at)| memory.load(at) == 0)?;
        memory.store(at + 8, value);
        memory.store(at, key);
        Some(i / PLACES)
    }

    /// Takes a key out that no reader can ask for any more. For the writer.
    pub fn remove(self, memory: &Memory, key: u64) -> bool {
        let at = self.places_of(key).find(|&at| memory.load(at) == key);
        at.inspect(|&at| memory.store(at, 0)).is_some()
    }

    /// All keys with their values, as words.
    pub fn entries(self, memory: &Memory) -> impl Iterator<Item = (u64, u64)> {
        let places = (0..self.places()).map(move |i| self.at() + PLACE * i);
        places.map(|at| (memory.load(at), memory.load(at + 8))).filter(|(key, _)| *key != 0)
    }
}

/// Labels are evenly spaced, and one multiplication alone would keep them so: the finalizer of
/// MurmurHash3 (Austin Appleby, public domain) does not.
#[inline]
fn mixed(key: u64) -> u64 {
    let key = (key ^ key >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let key = (key ^ key >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key ^ key >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_back_what_was_put_in() {
        let memory = Memory::new(64 * 60 + 128);
        let table = FlatTable::from_word(FlatTable::new(128, 60).word());
        let keys: Vec<u64> = (0..150).map(|i| flat_key(i % 3, i * 77)).collect();
        for (i, &key) in keys.iter().enumerate() {
            let behind = table.insert(&memory, key, Flat::Verdict(i as u8), i as u32).expect("there is room");
            assert!(table.has(&memory, key, behind));
            assert!(behind == 0 || !table.has(&memory, key, behind - 1), "{i}");
        }
        for (i, &key) in keys.iter().enumerate() {
            assert_eq!(table.get(&memory, key), Some((Flat::Verdict(i as u8), i as u32)));
        }
        assert_eq!(table.get(&memory, flat_key(0, 1)), None);
        assert!(table.remove(&memory, keys[7]) && !table.remove(&memory, keys[7]));
        assert_eq!(table.get(&memory, keys[7]), None);
        assert_eq!(table.entries(&memory).count(), 149);
    }

    #[test]
    fn evenly_spaced_labels_find_room() {
        for (step, count) in
            [(1u32, 4000u32), (4096, 4000), (0x1_0000, 4000), (1_073_741, 3999), (2_654_435, 900)]
        {
            let buckets = (count as f64 / 0.8 / 4.0).ceil() as u32;
            let memory = Memory::new(64 * buckets as usize);
            let table = FlatTable::new(0, buckets);
            let put = |i: u32| table.insert(&memory, flat_key(3, i.wrapping_mul(step)), Flat::Return, i);
            assert!((1..=count).all(|i| put(i).is_some()), "step {step}");
        }
    }

    #[test]
    fn a_full_table_refuses() {
        let memory = Memory::new(128);
        let table = FlatTable::new(0, 2);
        let put = |i: u32| table.insert(&memory, flat_key(0, i), Flat::Return, i);
        let taken = (0..100).filter(|&i| put(i).is_some()).count();
        assert_eq!(taken, 8);
    }
}
