//! Recoding: a small dimension's values are replaced by classes that no rule tells apart.
//!
//! `--syn` holds for 16 scattered values of the 256 that TCP flags have. Among the rules of one
//! ruleset only a few sets of flags occur, so the values fall into a few classes; numbered well,
//! most sets are one interval of classes.

use std::collections::HashMap;

use hipac_classifier::Dim;

use crate::interval::IntervalSet;

/// Dimensions whose order means nothing, so that classes may be numbered at will.
pub const RECODED: [Dim; 7 + Dim::SETS] = {
    let flags = [
        Dim::TcpFlags,
        Dim::CtState,
        Dim::PacketType,
        Dim::SourceType,
        Dim::DestinationType,
        Dim::FragFlags,
        Dim::ExtHeaders,
    ];
    let mut all = [Dim::TcpFlags; 7 + Dim::SETS];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < 7 { flags[i] } else { Dim::ALL[Dim::Set0 as usize + i - 7] };
        i += 1;
    }
    all
};

/// The classes of one dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recode {
    /// The class of each raw value.
    pub table: [u8; 256],
    /// The largest class.
    pub max: u32,
}

impl Recode {
    /// Classes for the sets that rules use, each with how often; `None` when all of them are
    /// intervals already. Same sets in the same order, same classes.
    pub fn of(dim: Dim, sets: &[(IntervalSet, usize)]) -> Option<Recode> {
        if sets.iter().all(|(s, _)| s.intervals().len() <= 1) {
            return None;
        }
        // The most frequent set decides first: its values stand together, and so on inside.
        let mut by_use: Vec<&(IntervalSet, usize)> = sets.iter().collect();
        by_use.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut values: Vec<(Vec<bool>, u8)> = (0..=dim.max())
            .map(|x| (by_use.iter().map(|(s, _)| !s.contains(x)).collect(), x as u8))
            .collect();
        values.sort();
        let mut table = [0; 256];
        let mut class = 0;
        for i in 0..values.len() {
            if i > 0 && values[i].0 != values[i - 1].0 {
                class += 1;
            }
            table[usize::from(values[i].1)] = class;
        }
        Some(Recode { table, max: class.into() })
    }

    /// Each class has all or none of its values in the set.
    pub fn keeps_apart(&self, dim: Dim, set: &IntervalSet) -> bool {
        let mut seen = [None; 256];
        self.table.iter().zip(0..=dim.max()).all(|(&class, raw)| {
            let inside = set.contains(raw);
            *seen[usize::from(class)].get_or_insert(inside) == inside
        })
    }

    /// A set of raw values, each all or none of a class, as a set of classes.
    pub fn classes(&self, set: &IntervalSet) -> IntervalSet {
        let raw = set.intervals().iter().flat_map(|&(lo, hi)| lo..=hi.min(255));
        IntervalSet::from_ranges(raw.map(|x| self.table[x as usize].into()).map(|c: u32| (c, c)))
    }
}

/// Counts the sets that conditions put on one dimension, in order of first use.
#[derive(Debug, Clone, Default)]
pub struct Sets {
    seen: HashMap<IntervalSet, usize>,
    sets: Vec<(IntervalSet, usize)>,
}

impl Sets {
    /// One more use.
    pub fn add(&mut self, set: &IntervalSet) {
        let next = self.sets.len();
        let at = *self.seen.entry(set.clone()).or_insert(next);
        if at == next {
            self.sets.push((set.clone(), 0));
        }
        self.sets[at].1 += 1;
    }

    /// The sets with their uses.
    pub fn as_slice(&self) -> &[(IntervalSet, usize)] {
        &self.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(mask: u32, value: u32) -> IntervalSet {
        IntervalSet::of_small(255, |x| x & mask == value)
    }

    #[test]
    fn syn_becomes_one_interval() {
        let syn = masked(0x17, 0x02);
        let not_syn = syn.complement(255);
        let null = masked(0xff, 0);
        assert_eq!(syn.intervals().len(), 16);
        let recode =
            Recode::of(Dim::TcpFlags, &[(syn.clone(), 9), (not_syn.clone(), 3), (null.clone(), 1)]).unwrap();
        assert_eq!(recode.max, 2);
        for set in [syn, not_syn, null] {
            let classes = recode.classes(&set);
            assert_eq!(classes.intervals().len(), 1);
            for x in 0..256 {
                assert_eq!(classes.contains(recode.table[x as usize].into()), set.contains(x), "{x}");
            }
        }
    }

    #[test]
    fn intervals_need_no_classes() {
        assert_eq!(Recode::of(Dim::TcpFlags, &[(IntervalSet::range(3, 200), 1)]), None);
    }
}
