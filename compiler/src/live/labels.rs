//! Order: labels with room between them.
//!
//! A rule's label is any number between those of its neighbours. When there is none, a few
//! neighbours move first, to one side, where the next gap is: in front of a place at which rule
//! after rule is put in, one neighbour moves once for hundreds of them.

/// The label of no rule: in front of all.
pub(super) const FIRST: u32 = 0;

/// Behind all labels, see `program::BACK_TO_END`.
pub(super) const END: u32 = u32::MAX - 1;

/// How far apart rules are put at either end of a chain, where there is room.
const STEP: u32 = 1024;

/// How far apart they are put at one place in the middle, again and again.
const NEAR: u32 = 64;

/// Neighbours that one insert moves, at most, before all labels of the chain are made anew.
const MOVES_MAX: usize = 256;

/// Room that moving must make for each rule moved.
const ROOM: u64 = 64;

/// A label that still means something to readers is passed over for one of so many behind it.
pub(super) const MOVED_NEAR: u32 = 12;

/// Labels that one rule takes besides its own, at most: those of the flat rules that drop malformed
/// packets stand just before it. Less than half of what is between rules that were moved.
pub(super) const BESIDES_MAX: usize = 16;

/// Where the last rules of a chain were put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Trend {
    /// Label of the last one.
    last: u32,
}

impl Trend {
    /// A label between two, which are [`FIRST`] and [`END`] where there is no neighbour, with
    /// `besides` more between it and the first; `None` when there is no room.
    pub(super) fn between(&mut self, before: u32, after: u32, besides: u32) -> Option<u32> {
        let gap = (after - before - 1).checked_sub(besides).filter(|gap| *gap > 0)?;
        let behind = before + besides;
        // Next to the last one more are to be expected on the same side: most of the room is kept
        // for them. Elsewhere the middle leaves most for whoever comes.
        let small = (gap / 32).max(1);
        let label = match (before, after) {
            (FIRST, END) => END / 2,
            (_, END) => behind + small.min(STEP),
            (FIRST, _) => after - small.min(STEP),
            _ if after == self.last => after - small.min(NEAR),
            _ if before == self.last => behind + small.min(NEAR),
            _ => behind + gap.div_ceil(2),
        };
        self.last = label;
        Some(label)
    }
}

/// Labels for so many rules of a chain that is made anew: evenly spread over the middle half of all
/// labels. A quarter is left at either end, where chains grow most.
pub(super) fn spread(count: usize) -> impl Iterator<Item = u32> {
    let step = u64::from(END) / 2 / (count as u64 + 1);
    (1..=count as u64).map(move |i| END / 4 + (i * step).max(1) as u32)
}

/// Neighbours to move so that there is room before position `at`: positions with their new labels, in
/// an order in which no two ever are the wrong way around. Empty: none within reach; all labels are
/// to be made anew. `label` is that of a rule, `first` the first that it takes.
pub(super) fn make_room(
    at: usize,
    len: usize,
    label: impl Fn(usize) -> u32,
    first: impl Fn(usize) -> u32,
) -> Vec<(usize, u32)> {
    for count in 1..=MOVES_MAX.min(len) {
        let needed = ROOM * (count as u64 + 1);
        // The `count` rules before `at` move down.
        if count <= at {
            let low = if count == at { FIRST } else { label(at - count - 1) };
            let room = u64::from(label(at - 1) - low);
            if room >= needed {
                let step = (room / (2 * count as u64)).max(1) as u32;
                return (0..count).map(|i| (at - count + i, low + step * (i as u32 + 1))).collect();
            }
        }
        // The `count` rules from `at` on move up.
        if at + count <= len {
            let high = if at + count == len { END } else { first(at + count) };
            let room = u64::from(high - first(at));
            if room >= needed {
                let step = (room / (2 * count as u64)).max(1) as u32;
                return (0..count).map(|i| (at + count - 1 - i, high - step * (i as u32 + 1))).collect();
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of labels into which rules are put at the positions that `next` says; the most
    /// neighbours that one insert moved, and how many all of them did.
    fn moved(start: usize, inserts: usize, mut next: impl FnMut(usize) -> usize) -> (usize, usize) {
        let mut labels: Vec<u32> = spread(start).collect();
        let mut trend = Trend::default();
        let (mut most, mut all) = (0, 0);
        for _ in 0..inserts {
            let at = next(labels.len());
            let ends = |labels: &[u32]| {
                let before = if at == 0 { FIRST } else { labels[at - 1] };
                (before, labels.get(at).copied().unwrap_or(END))
            };
            let (before, after) = ends(&labels);
            let label = trend.between(before, after, 0).unwrap_or_else(|| {
                let moves = make_room(at, labels.len(), |i| labels[i], |i| labels[i]);
                assert!(!moves.is_empty(), "no room at {at} of {}", labels.len());
                most = most.max(moves.len());
                all += moves.len();
                for (i, label) in moves {
                    labels[i] = label;
                    assert!(labels.is_sorted(), "moved past a neighbour");
                }
                let (before, after) = ends(&labels);
                trend.between(before, after, 0).expect("room was made")
            });
            labels.insert(at, label);
            assert!(labels.windows(2).all(|w| w[0] < w[1]));
        }
        (most, all)
    }

    #[test]
    fn the_same_place_again_and_again_moves_few() {
        for at in [0, 1, 1000, 1999] {
            let (most, all) = moved(2000, 20_000, |_| at);
            assert!(most <= 16 && all <= 2_000, "at {at}: {most} at once, {all} in all");
        }
    }

    #[test]
    fn appending_and_prepending_move_none() {
        assert_eq!(moved(0, 20_000, |len| len), (0, 0));
        assert_eq!(moved(0, 20_000, |_| 0), (0, 0));
    }

    #[test]
    fn random_places_move_hardly_any() {
        let mut state = 1u64;
        let (most, all) = moved(1000, 20_000, |len| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % (len + 1)
        });
        assert!(most <= 64 && all <= 400, "{most} at once, {all} in all");
    }

    #[test]
    fn behind_what_was_put_in_last() {
        // Each one behind the last, in the middle of others.
        let mut at = 500;
        let (most, all) = moved(1000, 20_000, |_| {
            at += 1;
            at - 1
        });
        assert!(most <= 64 && all <= 2_000, "{most} at once, {all} in all");
    }
}
