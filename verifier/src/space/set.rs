//! Sets of atoms on one axis: rising, disjoint intervals that do not touch.

/// The number of an atom on its axis.
pub(crate) type Atom = u32;

/// An inclusive interval of atoms.
pub(crate) type Interval = (Atom, Atom);

/// A set of atoms. Most rules say one interval an axis; a negation is two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Set(Box<[Interval]>);

/// How a set lies to an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The interval is inside of the set.
    Covers,
    /// They share nothing.
    Apart,
    /// They share a part: cut the interval in front of this atom.
    Cut(Atom),
}

impl Set {
    /// The set of these intervals, in any order.
    pub(crate) fn new(mut intervals: Vec<Interval>) -> Set {
        intervals.retain(|(lo, hi)| lo <= hi);
        intervals.sort_unstable();
        let mut out: Vec<Interval> = Vec::with_capacity(intervals.len());
        for (lo, hi) in intervals {
            match out.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => out.push((lo, hi)),
            }
        }
        Set(out.into())
    }

    pub(crate) fn intervals(&self) -> &[Interval] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many atoms.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|&(lo, hi)| u64::from(hi - lo) + 1).sum()
    }

    pub(crate) fn contains(&self, atom: Atom) -> bool {
        self.relation((atom, atom)) == Relation::Covers
    }

    pub(crate) fn intersect(&self, other: &Set) -> Set {
        let mut out = Vec::new();
        let (mut i, mut j) = (0, 0);
        while let (Some(&(a, b)), Some(&(c, d))) = (self.0.get(i), other.0.get(j)) {
            let (lo, hi) = (a.max(c), b.min(d));
            if lo <= hi {
                out.push((lo, hi));
            }
            if b < d { i += 1 } else { j += 1 }
        }
        Set(out.into())
    }

    pub(crate) fn union(&self, other: &Set) -> Set {
        Set::new(self.0.iter().chain(other.0.iter()).copied().collect())
    }

    /// The atoms of `0..len` that are not in the set.
    pub(crate) fn complement(&self, len: u32) -> Set {
        let mut out = Vec::new();
        let mut next = 0;
        for &(lo, hi) in &self.0 {
            if next < lo {
                out.push((next, lo - 1));
            }
            next = hi + 1;
        }
        if next < len {
            out.push((next, len - 1));
        }
        Set(out.into())
    }

    /// The first interval that ends at or behind `atom`.
    fn from(&self, atom: Atom) -> Option<&Interval> {
        match &*self.0 {
            [one] => Some(one).filter(|i| i.1 >= atom),
            many => many.get(many.partition_point(|i| i.1 < atom)),
        }
    }

    #[inline]
    pub(crate) fn meets(&self, (lo, hi): Interval) -> bool {
        self.from(lo).is_some_and(|i| i.0 <= hi)
    }

    #[inline]
    pub(crate) fn covers(&self, (lo, hi): Interval) -> bool {
        self.from(lo).is_some_and(|i| i.0 <= lo && hi <= i.1)
    }

    /// How the set lies to an interval, with the first place where a cut separates them.
    pub(crate) fn relation(&self, (lo, hi): Interval) -> Relation {
        match self.from(lo) {
            None => Relation::Apart,
            Some(&(a, _)) if a > hi => Relation::Apart,
            Some(&(a, _)) if a > lo => Relation::Cut(a),
            Some(&(_, b)) if b < hi => Relation::Cut(b + 1),
            Some(_) => Relation::Covers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u32 = 12;

    fn set(bits: u16) -> Set {
        Set::new((0..LEN).filter(|i| bits >> i & 1 == 1).map(|i| (i, i)).collect())
    }

    proptest! {
        #[test]
        fn sets_are_what_their_atoms_are(a in 0u16..1 << LEN, b in 0u16..1 << LEN, lo in 0..LEN, hi in 0..LEN) {
            let (x, y) = (set(a), set(b));
            prop_assert_eq!(x.intersect(&y), set(a & b));
            prop_assert_eq!(x.union(&y), set(a | b));
            prop_assert_eq!(x.complement(LEN), set(!a & ((1 << LEN) - 1)));
            prop_assert_eq!(x.len(), u64::from(a.count_ones()));
            let (lo, hi) = (lo.min(hi), lo.max(hi));
            let inside: Vec<bool> = (lo..=hi).map(|i| a >> i & 1 == 1).collect();
            prop_assert_eq!(x.meets((lo, hi)), inside.contains(&true));
            prop_assert_eq!(x.covers((lo, hi)), !inside.contains(&false));
            match x.relation((lo, hi)) {
                Relation::Covers => prop_assert!(!inside.contains(&false)),
                Relation::Apart => prop_assert!(!inside.contains(&true)),
                Relation::Cut(at) => {
                    prop_assert!(lo < at && at <= hi);
                    let at = (at - lo) as usize;
                    prop_assert!(inside[at] != inside[at - 1]);
                }
            }
        }
    }
}
