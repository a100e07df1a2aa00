//! Boxes of keys: one inclusive interval an axis, many of them side by side.

/// A box, or what is left of one: an interval an axis.
pub(super) type Bounds = [(u32, u32)];

/// Boxes over the same axes, each a slice of one array.
#[derive(Debug, Clone, Default)]
pub(super) struct Boxes {
    axes: usize,
    bounds: Vec<(u32, u32)>,
    count: usize,
}

impl Boxes {
    pub(super) fn new(axes: usize) -> Boxes {
        Boxes { axes, bounds: Vec::new(), count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, bounds: &Bounds) {
        debug_assert_eq!(bounds.len(), self.axes);
        self.bounds.extend_from_slice(bounds);
        self.count += 1;
    }

    pub(super) fn pop(&mut self, into: &mut Vec<(u32, u32)>) -> bool {
        let Some(count) = self.count.checked_sub(1) else { return false };
        self.count = count;
        into.clear();
        into.extend_from_slice(&self.bounds[count * self.axes..]);
        self.bounds.truncate(count * self.axes);
        true
    }

    pub(super) fn clear(&mut self) {
        self.bounds.clear();
        self.count = 0;
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> &Bounds {
        &self.bounds[index * self.axes..][..self.axes]
    }

    pub(super) fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &Bounds> + Clone {
        range.map(|i| self.get(i))
    }
}

#[inline]
pub(super) fn holds(outer: &Bounds, inner: &Bounds) -> bool {
    outer.iter().zip(inner).all(|(o, i)| o.0 <= i.0 && i.1 <= o.1)
}

#[inline]
pub(super) fn holds_point(bounds: &Bounds, point: &[u32]) -> bool {
    bounds.iter().zip(point).all(|(b, &x)| b.0 <= x && x <= b.1)
}

pub(super) fn meet(a: &Bounds, b: &Bounds) -> bool {
    a.iter().zip(b).all(|(a, b)| a.0 <= b.1 && b.0 <= a.1)
}

/// Narrows `bounds` to `other`; false when nothing is left.
pub(super) fn narrow(bounds: &mut Bounds, other: &Bounds) -> bool {
    bounds.iter_mut().zip(other).all(|(b, o)| {
        *b = (b.0.max(o.0), b.1.min(o.1));
        b.0 <= b.1
    })
}

/// What of `piece` lies outside of `taken` on one axis goes to `rest`, what lies inside stays.
/// `taken` meets the piece there.
#[inline]
pub(super) fn cut(piece: &mut Bounds, axis: usize, taken: (u32, u32), rest: &mut Boxes) {
    let (lo, hi) = piece[axis];
    if lo < taken.0 {
        piece[axis] = (lo, taken.0 - 1);
        rest.push(piece);
    }
    if taken.1 < hi {
        piece[axis] = (taken.1 + 1, hi);
        rest.push(piece);
    }
    piece[axis] = (lo.max(taken.0), hi.min(taken.1));
}

/// `piece` without `taken`, which it meets, as boxes of `rest`. (Boxes may have further axes
/// behind those of `taken`.)
pub(super) fn subtract(piece: &mut Bounds, taken: &Bounds, rest: &mut Boxes) {
    for (axis, &interval) in taken.iter().enumerate() {
        cut(piece, axis, interval, rest);
    }
}

/// A part of `piece` that lies in none of `others`; `None` when there is none.
pub(super) fn outside<'b>(
    piece: &Bounds,
    others: impl Iterator<Item = &'b Bounds> + Clone,
) -> Option<Vec<(u32, u32)>> {
    let mut found = None;
    each_outside(piece, others, &mut |part| {
        found = Some(part.to_vec());
        false
    });
    found
}

/// Calls `f` with parts of `piece` that lie in none of `others` and make up all that does, as long as it
/// wants more.
pub(super) fn each_outside<'b>(
    piece: &Bounds,
    others: impl Iterator<Item = &'b Bounds> + Clone,
    f: &mut dyn FnMut(&Bounds) -> bool,
) {
    let mut rest = Boxes::new(piece.len());
    rest.push(piece);
    let mut now = Vec::new();
    while rest.pop(&mut now) {
        match others.clone().find(|o| meet(o, &now)) {
            Some(other) => subtract(&mut now, other, &mut rest),
            None if f(&now) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval() -> impl Strategy<Value = (u32, u32)> {
        (0u32..6, 0u32..6).prop_map(|(a, b)| (a.min(b), a.max(b)))
    }

    fn boxes() -> impl Strategy<Value = [(u32, u32); 3]> {
        [interval(), interval(), interval()]
    }

    proptest! {
        #[test]
        fn what_is_left_and_what_is_taken_share_out_the_points(
            piece in boxes(), taken in boxes(), point in [0u32..6, 0u32..6, 0u32..6]
        ) {
            prop_assume!(meet(&piece, &taken));
            let mut rest = Boxes::new(3);
            let mut inner = piece;
            subtract(&mut inner, &taken, &mut rest);
            let in_rest = rest.range(0..rest.len()).filter(|b| holds_point(b, &point)).count();
            let expected = holds_point(&piece, &point) && !holds_point(&taken, &point);
            prop_assert_eq!(in_rest, usize::from(expected));
            prop_assert_eq!(holds_point(&inner, &point), holds_point(&piece, &point) && holds_point(&taken, &point));
        }

        #[test]
        fn a_part_outside_is_found_when_there_is_one(
            piece in boxes(), others in prop::collection::vec(boxes(), 0..5)
        ) {
            let views = others.iter().map(|o| o.as_slice());
            let points = (0..6u32).flat_map(|a| (0..6u32).flat_map(move |b| (0..6u32).map(move |c| [a, b, c])));
            let mut parts = Boxes::new(3);
            each_outside(&piece, views.clone(), &mut |part| {
                parts.push(part);
                true
            });
            for point in points.clone() {
                let is_outside = holds_point(&piece, &point) && !others.iter().any(|o| holds_point(o, &point));
                let count = parts.range(0..parts.len()).filter(|part| holds_point(part, &point)).count();
                prop_assert_eq!(count, usize::from(is_outside));
            }
            let mut uncovered =
                points.filter(|p| holds_point(&piece, p) && !others.iter().any(|o| holds_point(o, p)));
            match outside(&piece, views.clone()) {
                None => prop_assert_eq!(uncovered.next(), None),
                Some(part) => {
                    prop_assert!(holds(&piece, &part));
                    prop_assert!(views.clone().all(|o| !meet(o, &part)));
                }
            }
        }
    }
}
