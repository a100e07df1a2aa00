//! A set compiled and ready to be looked up in.

use hipac_bench_data::ruleset_of;
use hipac_classifier::forest::lookup::Forest;
use hipac_classifier::image::EntryRecord;
use hipac_classifier::{Image, Keys, Packet};
use hipac_compiler::{Compiled, Options};
use hipac_rules::Ruleset;

use crate::sets::Set;

/// Keys of one call of a batch.
const BATCH: usize = 256;

/// An image with the keys of its set's packets.
#[derive(Debug)]
pub struct Ready {
    /// The image.
    pub image: Image<Vec<u8>>,
    /// Its entry `filter/FORWARD`.
    pub entry: EntryRecord,
    /// What is looked up.
    pub keys: Keys,
    /// Bytes of the forest.
    pub structure_bytes: usize,
}

impl Set {
    /// Its filters as rules.
    ///
    /// # Panics
    /// When a filter wants protocol 0, which no rule can.
    pub fn ruleset(&self) -> Ruleset {
        ruleset_of(&self.filters).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Compiles it.
    ///
    /// # Panics
    /// When it cannot be: there is nothing to measure.
    pub fn ready(&self) -> Ready {
        Ready::new(compile(&self.ruleset()), self)
    }
}

/// Compiles without a limit that matters.
pub(crate) fn compile(ruleset: &Ruleset) -> Compiled {
    let options = Options { memory_bytes_max: 1 << 30, ..Options::default() };
    hipac_compiler::compile(ruleset, &options).unwrap_or_else(|e| panic!("{e}"))
}

impl Ready {
    /// Opens what was compiled, and makes the keys of the set's packets.
    ///
    /// # Panics
    /// When the compiler wrote no image.
    pub fn new(compiled: Compiled, set: &Set) -> Ready {
        let image = Image::open(compiled.image).expect("the compiler writes images");
        let id = image.find_entry("filter/FORWARD").expect("filters become rules of FORWARD");
        let entry = image.entry(id).expect("it was just found");
        let packets: Vec<Packet> = set.packets.iter().copied().map(Packet::from).collect();
        let keys = image.key_maker().keys(&packets);
        Ready { image, entry, keys, structure_bytes: compiled.cost.structure_bytes }
    }

    fn forest(&self) -> Forest<'_> {
        self.image.forest(&self.entry, true)
    }

    /// Looks all keys up, one at a time; gives something that hangs on every answer.
    pub fn walk_single(&self) -> u64 {
        let forest = self.forest();
        let answer = |i| u64::from(forest.first_match(self.keys.get(i), 0));
        (0..self.keys.len()).map(answer).sum()
    }

    /// As many lookups, each of a key that the answer before chose.
    pub fn walk_dependent(&self) -> u64 {
        let forest = self.forest();
        let (mut at, mut sum) = (0, 0);
        for _ in 0..self.keys.len() {
            let answer = forest.first_match(self.keys.get(at), 0);
            sum += u64::from(answer);
            at = (at + 1 + (answer & 1) as usize).min(self.keys.len());
            if at == self.keys.len() {
                at = 0;
            }
        }
        sum
    }

    /// Looks all keys up in batches.
    pub fn walk_batch(&self) -> u64 {
        let forest = self.forest();
        let mut out = [0; BATCH];
        let mut sum = 0;
        for first in (0..self.keys.len()).step_by(BATCH) {
            let range = first..(first + BATCH).min(self.keys.len());
            let out = &mut out[..range.len()];
            forest.first_match_batch(&self.keys, range, out);
            sum += out.iter().copied().map(u64::from).sum::<u64>();
        }
        sum
    }

    /// For each key the number of the filter that holds it, from 1; 0 for none.
    pub fn filters_found(&self) -> Vec<u32> {
        let mut out = vec![0; self.keys.len()];
        self.forest().first_match_batch(&self.keys, 0..self.keys.len(), &mut out);
        let number = |position| {
            let (_, origin) = self.image.flat(position)?;
            Some(self.image.origin(origin)?.number)
        };
        out.into_iter().map(|position| number(position).unwrap_or(0)).collect()
    }
}
