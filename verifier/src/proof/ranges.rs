//! Sets of values of one dimension.

use smallvec::SmallVec;

/// Inclusive ranges, rising, neither overlapping nor touching.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Ranges(SmallVec<[(u32, u32); 2]>);

impl Ranges {
    /// No value.
    pub(super) fn none() -> Ranges {
        Ranges::default()
    }

    /// All values up to `max`.
    pub(super) fn all(max: u32) -> Ranges {
        Ranges::one(0, max)
    }

    /// One range; no value when it runs backwards.
    pub(super) fn one(lo: u32, hi: u32) -> Ranges {
        if lo <= hi { Ranges(SmallVec::from_slice(&[(lo, hi)])) } else { Ranges::none() }
    }

    /// The union of any ranges.
    pub(super) fn of(ranges: impl IntoIterator<Item = (u32, u32)>) -> Ranges {
        let mut all: SmallVec<[(u32, u32); 8]> = ranges.into_iter().filter(|r| r.0 <= r.1).collect();
        all.sort_unstable();
        let mut out: SmallVec<[(u32, u32); 2]> = SmallVec::new();
        for (lo, hi) in all {
            match out.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => out.push((lo, hi)),
            }
        }
        Ranges(out)
    }

    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds all values up to `max`.
    pub(super) fn is_all(&self, max: u32) -> bool {
        matches!(self.0.as_slice(), [(0, hi)] if *hi >= max)
    }

    pub(super) fn contains(&self, x: u32) -> bool {
        let at = self.0.partition_point(|r| r.1 < x);
        self.0.get(at).is_some_and(|r| r.0 <= x)
    }

    /// The first value at or above `x`.
    pub(super) fn first_from(&self, x: u32) -> Option<u32> {
        let at = self.0.partition_point(|r| r.1 < x);
        self.0.get(at).map(|r| r.0.max(x))
    }

    /// From the first value to the last.
    pub(super) fn hull(&self) -> Ranges {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => Ranges::one(first.0, last.1),
            _ => Ranges::none(),
        }
    }

    pub(super) fn and(&self, other: &Ranges) -> Ranges {
        let (mut i, mut j) = (0, 0);
        let mut out = SmallVec::new();
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (lo, hi) = (a.0.max(b.0), a.1.min(b.1));
            if lo <= hi {
                out.push((lo, hi));
            }
            if a.1 <= b.1 { i += 1 } else { j += 1 }
        }
        Ranges(out)
    }

    pub(super) fn or(&self, other: &Ranges) -> Ranges {
        Ranges::of(self.0.iter().chain(&other.0).copied())
    }

    /// The values up to `max` that it does not hold.
    pub(super) fn not(&self, max: u32) -> Ranges {
        let mut out = SmallVec::new();
        let mut next = Some(0);
        for &(lo, hi) in &self.0 {
            if let Some(from) = next.filter(|&from| from < lo && from <= max) {
                out.push((from, (lo - 1).min(max)));
            }
            next = hi.checked_add(1);
        }
        if let Some(from) = next.filter(|&from| from <= max) {
            out.push((from, max));
        }
        Ranges(out)
    }

    pub(super) fn is_within(&self, other: &Ranges) -> bool {
        self.and(other) == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..12, (u32::MAX - 3)..=u32::MAX]
    }

    fn any_ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((ends(), ends()), 0..4).prop_map(Ranges::of)
    }

    proptest! {
        #[test]
        fn operations_mean_what_they_mean_value_by_value(
            a in any_ranges(), b in any_ranges(), x in ends(), max in ends()
        ) {
            prop_assert_eq!(a.and(&b).contains(x), a.contains(x) && b.contains(x));
            prop_assert_eq!(a.or(&b).contains(x), a.contains(x) || b.contains(x));
            prop_assert_eq!(a.not(max).contains(x), x <= max && !a.contains(x));
            prop_assert!(!a.contains(x) || a.hull().contains(x));
            prop_assert!(!a.is_within(&b) || !a.contains(x) || b.contains(x));
            prop_assert!(a.and(&b).is_within(&a) && a.is_within(&a.or(&b)));
            prop_assert_eq!(a.not(u32::MAX).not(u32::MAX), a);
        }
    }
}
