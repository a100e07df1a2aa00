//! Sets of values on one dimension.

use smallvec::SmallVec;

/// A set of `u32` values: disjoint inclusive intervals in rising order, never two that touch.
/// Negation is the complement, so it costs at most one interval more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntervalSet(SmallVec<[(u32, u32); 2]>);

impl IntervalSet {
    /// No value.
    pub fn empty() -> IntervalSet {
        IntervalSet(SmallVec::new())
    }

    /// The values from `lo` to `hi`; none when `lo > hi`.
    pub fn range(lo: u32, hi: u32) -> IntervalSet {
        if lo > hi { IntervalSet::empty() } else { IntervalSet(SmallVec::from_slice(&[(lo, hi)])) }
    }

    /// The union of any intervals.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> IntervalSet {
        let mut sorted: SmallVec<[(u32, u32); 2]> = ranges.into_iter().filter(|r| r.0 <= r.1).collect();
        if sorted.len() < 2 {
            return IntervalSet(sorted);
        }
        sorted.sort_unstable();
        let mut out: SmallVec<[(u32, u32); 2]> = SmallVec::new();
        for (lo, hi) in sorted {
            match out.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => out.push((lo, hi)),
            }
        }
        IntervalSet(out)
    }

    /// The values `x` in `0..=max` for which `holds` is true. Costs `max` calls.
    pub fn of_small(max: u32, holds: impl Fn(u32) -> bool) -> IntervalSet {
        let mut out: SmallVec<[(u32, u32); 2]> = SmallVec::new();
        for x in (0..=max).filter(|&x| holds(x)) {
            match out.last_mut() {
                Some(last) if last.1 + 1 == x => last.1 = x,
                _ => out.push((x, x)),
            }
        }
        IntervalSet(out)
    }

    /// The intervals.
    pub fn intervals(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// No value is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of `0..=max` is in it.
    pub fn is_full(&self, max: u32) -> bool {
        self.0.first().is_some_and(|r| r.0 == 0 && r.1 >= max)
    }

    /// `x` is in it.
    pub fn contains(&self, x: u32) -> bool {
        self.0.iter().any(|r| r.0 <= x && x <= r.1)
    }

    /// The values of `0..=max` that are not in it.
    pub fn complement(&self, max: u32) -> IntervalSet {
        let mut out = SmallVec::new();
        let mut next = 0;
        for &(lo, hi) in &self.0 {
            if next < lo {
                out.push((next, lo - 1));
            }
            if hi >= max {
                return IntervalSet(out);
            }
            next = hi + 1;
        }
        out.push((next, max));
        IntervalSet(out)
    }

    /// The values in both.
    pub fn intersection(&self, other: &IntervalSet) -> IntervalSet {
        let (mut i, mut j) = (0, 0);
        let mut out = SmallVec::new();
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (lo, hi) = (a.0.max(b.0), a.1.min(b.1));
            if lo <= hi {
                out.push((lo, hi));
            }
            if a.1 < b.1 { i += 1 } else { j += 1 }
        }
        IntervalSet(out)
    }

    /// The values in either.
    pub fn union(&self, other: &IntervalSet) -> IntervalSet {
        IntervalSet::from_ranges(self.0.iter().chain(&other.0).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = IntervalSet> {
        prop::collection::vec((0u32..=16, 0u32..=16), 0..5).prop_map(IntervalSet::from_ranges)
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in set(), b in set()) {
            let (complement, both, either) = (a.complement(16), a.intersection(&b), a.union(&b));
            for x in 0..=16 {
                prop_assert_eq!(complement.contains(x), !a.contains(x));
                prop_assert_eq!(both.contains(x), a.contains(x) && b.contains(x));
                prop_assert_eq!(either.contains(x), a.contains(x) || b.contains(x));
            }
            for s in [&complement, &both, &either] {
                prop_assert!(s.intervals().windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", s);
            }
            prop_assert_eq!(a.is_full(16), (0..=16).all(|x| a.contains(x)));
            prop_assert_eq!(IntervalSet::of_small(16, |x| a.contains(x)), a.intersection(&IntervalSet::range(0, 16)));
        }
    }

    #[test]
    fn the_last_value_has_no_successor() {
        let all = IntervalSet::range(0, u32::MAX);
        assert!(all.complement(u32::MAX).is_empty());
        assert_eq!(
            IntervalSet::range(u32::MAX, u32::MAX).complement(u32::MAX).intervals(),
            &[(0, u32::MAX - 1)]
        );
        assert_eq!(IntervalSet::from_ranges([(0, u32::MAX), (3, 4)]), all);
    }
}
