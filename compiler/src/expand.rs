//! From flat rules to boxes: which dimensions a key needs, and each rule's product of
//! intervals.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hipac_classifier::Dim;
use hipac_classifier::key::{KEY_BYTES_MAX, Slot};
use hipac_classifier::program::Op;

use crate::compile::CompileError;
use crate::condition::{Condition, DimBox, DimInterval, set_of};
use crate::forest::{Axis, Boxes, boxes::Bounds};
use crate::interval::IntervalSet;
use crate::lower::{FlatList, FlatRule, Lowered};
use crate::recode::{RECODED, Recode, Sets};

/// The boxes of one entry.
#[derive(Debug, Clone)]
pub struct EntryBoxes {
    /// For packets with a sound transport header.
    pub sound: Boxes,
    /// For the others; `None` when the same forest serves both.
    pub broken: Option<Boxes>,
}

/// The dimensions of an image's key.
#[derive(Debug, Clone)]
pub struct KeyPlan {
    dims: Vec<(Dim, Option<Recode>)>,
    /// Axis of each dimension.
    axis_of: [Option<u8>; Dim::COUNT],
}

impl KeyPlan {
    /// The dimensions that some flat rule constrains.
    ///
    /// # Errors
    /// They do not fit into a key.
    pub fn of(lowered: &Lowered) -> Result<KeyPlan, CompileError> {
        let mut used = [false; Dim::COUNT];
        let mut sets: Vec<Sets> = RECODED.iter().map(|_| Sets::default()).collect();
        for rule in lowered.lists.iter().flat_map(|l| &l.rules) {
            for (dim, set) in rule.condition.sets() {
                used[dim.index()] = true;
                if let Some(i) = RECODED.iter().position(|d| *d == dim) {
                    sets[i].add(&set_of(set));
                }
            }
            for &(dim, lo, hi) in rule.condition.unions().iter().flatten().flatten() {
                used[dim.index()] = true;
                if let Some(i) = RECODED.iter().position(|d| *d == dim) {
                    sets[i].add(&IntervalSet::range(lo, hi));
                }
            }
        }
        let recode = |dim: Dim| {
            let i = RECODED.iter().position(|d| *d == dim)?;
            Recode::of(dim, sets[i].as_slice())
        };
        let mut dims: Vec<_> =
            Dim::ALL.into_iter().filter(|d| used[d.index()]).map(|d| (d, recode(d))).collect();
        // Four-byte dimensions first: each then lies in one aligned word of the key.
        dims.sort_by_key(|(d, _)| std::cmp::Reverse(d.key_bytes()));
        let bytes: usize = dims.iter().map(|(d, _)| d.key_bytes()).sum();
        if bytes > KEY_BYTES_MAX {
            return Err(CompileError::KeyTooLong { bytes });
        }
        let mut axis_of = [None; Dim::COUNT];
        for (axis, (dim, _)) in dims.iter().enumerate() {
            axis_of[dim.index()] = Some(axis as u8);
        }
        Ok(KeyPlan { dims, axis_of })
    }

    /// Where each dimension lies in the key, and the recoding tables.
    pub fn slots(&self) -> (Vec<Slot>, Vec<[u8; 256]>) {
        let mut tables = Vec::new();
        let mut offset = 0;
        let slots = self.dims.iter().map(|(dim, recode)| {
            let recode = recode.as_ref().map(|r| {
                tables.push(r.table);
                tables.len() as u8 - 1
            });
            let slot = Slot { dim: *dim, offset, recode };
            offset += dim.key_bytes() as u8;
            slot
        });
        let slots = slots.collect();
        (slots, tables)
    }

    /// How many intervals of the key a set of raw values of a dimension becomes.
    pub fn width(&self, dim: Dim, set: &[DimInterval]) -> usize {
        match self.recode(dim) {
            Some(recode) => recode.classes(&set_of(set)).intervals().len(),
            None => set.len(),
        }
    }

    /// The key tells apart all that a condition tells apart: its dimensions have a place, and no class
    /// of values is cut in two.
    pub(crate) fn suffices_for(&self, condition: &Condition) -> bool {
        let suffices = |dim: Dim, set: &IntervalSet| {
            self.axis_of[dim.index()].is_some()
                && self.recode(dim).is_none_or(|recode| recode.keeps_apart(dim, set))
        };
        let unions = condition.unions().iter().flatten().flatten();
        condition.sets().all(|(dim, set)| suffices(dim, &set_of(set)))
            && unions.into_iter().all(|&(dim, lo, hi)| suffices(dim, &IntervalSet::range(lo, hi)))
    }

    /// A set of raw values of a dimension as the key has them.
    fn classes<'s>(&self, dim: Dim, set: &'s [DimInterval]) -> Cow<'s, [DimInterval]> {
        match self.recode(dim) {
            Some(recode) => {
                let classes = recode.classes(&set_of(set));
                classes.intervals().iter().map(|&(lo, hi)| (dim, lo, hi)).collect()
            }
            None => Cow::Borrowed(set),
        }
    }

    pub(crate) fn recode(&self, dim: Dim) -> Option<&Recode> {
        self.dims[usize::from(self.axis_of[dim.index()]?)].1.as_ref()
    }

    pub(crate) fn axes(&self) -> Vec<Axis> {
        let (slots, _) = self.slots();
        let axis = |(slot, (dim, recode)): (&Slot, &(Dim, Option<Recode>))| Axis {
            offset: slot.offset,
            is_wide: dim.key_bytes() == 4,
            max: recode.as_ref().map_or(Dim::max(*dim), |r| r.max),
        };
        slots.iter().zip(&self.dims).map(axis).collect()
    }

    /// The boxes of list `index`, whose first position is `first`.
    pub fn expand(&self, lowered: &Lowered, index: usize, first: u32) -> EntryBoxes {
        let axes = self.axes();
        let list = &lowered.lists[index];
        let until = hides_until(list, &lowered.lists);
        let global = |local: u32| if local == u32::MAX { local } else { first + local };
        let full: Vec<(u32, u32)> = axes.iter().map(|a| (0, a.max)).collect();
        let fill = |boxes: &mut Boxes, within: Option<(u32, u32)>| {
            let mut bounds = full.clone();
            // Counted first: boxes stay to the end, and there may be hundreds of thousands.
            let mut count = 0;
            for rule in &list.rules {
                let Some(states) = narrowed(&rule.condition, within) else { continue };
                if rule.condition.box_count() == 1 && states.as_ref().is_none_or(|s| s.len() == 1) {
                    count += 1;
                    continue;
                }
                bounds.copy_from_slice(&full);
                self.product(&rule.condition, states.as_deref(), &mut bounds, &mut |_| count += 1);
            }
            boxes.reserve_exact(count);
            for (local, rule) in list.rules.iter().enumerate() {
                let Some(states) = narrowed(&rule.condition, within) else { continue };
                let (position, until) = (first + local as u32, global(until[local]));
                bounds.copy_from_slice(&full);
                self.product(&rule.condition, states.as_deref(), &mut bounds, &mut |bounds| {
                    boxes.push(bounds, position, until)
                });
            }
        };
        let mut sound = Boxes::new(axes.clone());
        if !splits(list) {
            fill(&mut sound, None);
            return EntryBoxes { sound, broken: None };
        }
        let mut broken = Boxes::new(axes);
        fill(&mut sound, Some(SOUND));
        fill(&mut broken, Some(BROKEN));
        EntryBoxes { sound, broken: Some(broken) }
    }

    /// All boxes of a condition. `bounds` are the key's full ones, and are written to.
    pub(crate) fn product(
        &self,
        condition: &Condition,
        states: Option<&[DimInterval]>,
        bounds: &mut Bounds,
        push: &mut dyn FnMut(&Bounds),
    ) {
        // What is one interval holds for all boxes; what is several, or a union, is chosen from.
        let mut parts: Vec<Vec<DimBox>> = Vec::new();
        for (dim, set) in condition.sets() {
            let set = if dim == Dim::L4 { states.unwrap_or(set) } else { set };
            let classes = self.classes(dim, set);
            match *classes {
                [interval] if !self.narrow(bounds, interval) => return,
                [_] => {}
                _ => parts.push(classes.iter().map(|&interval| DimBox::from_slice(&[interval])).collect()),
            }
        }
        for union in condition.unions() {
            parts.push(union.iter().flat_map(|b| self.recoded(b)).collect());
        }
        if parts.is_empty() {
            return push(bounds);
        }
        let common = bounds.to_vec();
        let mut choice = vec![0; parts.len()];
        'boxes: loop {
            bounds.copy_from_slice(&common);
            let mut chosen = parts.iter().zip(&choice).flat_map(|(part, &i)| &part[i]);
            if chosen.all(|&interval| self.narrow(bounds, interval)) {
                push(bounds);
            }
            for (part, i) in parts.iter().zip(&mut choice) {
                *i += 1;
                if *i < part.len() {
                    continue 'boxes;
                }
                *i = 0;
            }
            return;
        }
    }

    /// Cuts bounds down to an interval; `false`: nothing is left.
    fn narrow(&self, bounds: &mut Bounds, (dim, lo, hi): DimInterval) -> bool {
        let Some(axis) = self.axis_of[dim.index()] else { return true };
        let b = &mut bounds[usize::from(axis)];
        *b = (b.0.max(lo), b.1.min(hi));
        b.0 <= b.1
    }

    /// A box of raw values as the key has them: several, where its values' classes scatter.
    fn recoded(&self, raw: &DimBox) -> Vec<DimBox> {
        let mut boxes = vec![DimBox::new()];
        for &(dim, lo, hi) in raw {
            let raw = [(dim, lo, hi)];
            let classes = self.classes(dim, &raw);
            let with = |b: &DimBox, interval| {
                let mut b = b.clone();
                b.push(interval);
                b
            };
            boxes = boxes.iter().flat_map(|b| classes.iter().map(|&i| with(b, i))).collect();
        }
        boxes
    }
}

/// States of the transport header of sound packets, and of the others.
pub(crate) const SOUND: (u32, u32) = (0, 1);
pub(crate) const BROKEN: (u32, u32) = (2, 6);

/// The states of a condition within a range of them. `None`: none of them. Packets outside of
/// the range never come to its forest, so what covers the range is widened to all values.
pub(crate) fn narrowed(condition: &Condition, within: Option<(u32, u32)>) -> Option<Option<DimBox>> {
    let (Some((lo, hi)), Some(set)) = (within, condition.set(Dim::L4)) else { return Some(None) };
    let inside = set.iter().map(|&(_, from, to)| (from.max(lo), to.min(hi))).filter(|r| r.0 <= r.1);
    let widen =
        |(from, to)| (Dim::L4, if from == lo { 0 } else { from }, if to == hi { Dim::L4.max() } else { to });
    let states: DimBox = inside.map(widen).collect();
    (!states.is_empty()).then_some(Some(states))
}

/// Malformed packets get a forest of their own when that keeps more out of the other one than
/// it repeats: rules that look at no transport header are in both.
fn splits(list: &FlatList) -> bool {
    let is_broken = |r: &&FlatRule| r.condition.set(Dim::L4).is_some_and(|s| s[0].1 >= BROKEN.0);
    let broken = list.rules.iter().filter(is_broken).count();
    let both = list.rules.iter().filter(|r| r.condition.set(Dim::L4).is_none()).count();
    broken > 0 && both <= 2 * broken + 64
}

/// For each rule of a list, the first position that a packet may still need once the rule's
/// condition has held: `u32::MAX` behind a verdict, the rule's own position plus one when
/// evaluation goes on, and in between where a skip over the verdict lands or a changed packet
/// comes back with another header.
fn hides_until(list: &FlatList, lists: &[FlatList]) -> Vec<u32> {
    let n = list.rules.len();
    let mut out = vec![0; n];
    // Skips over a position: where they land, the nearest first.
    let mut landings = BinaryHeap::new();
    for (q, rule) in list.rules.iter().enumerate() {
        let q = q as u32;
        while landings.peek().is_some_and(|Reverse(to)| *to <= q) {
            landings.pop();
        }
        let landing = landings.peek().map_or(u32::MAX, |Reverse(to)| *to);
        out[q as usize] = match rule.end {
            Op::Verdict(_) | Op::Return | Op::Malformed if rule.is_plain() => landing,
            Op::Skip(to) if rule.is_plain() => to.min(landing),
            _ => q + 1,
        };
        if let Op::Skip(to) | Op::Call { back: to, .. } = rule.end {
            landings.push(Reverse(to));
        }
    }
    // A packet that changed at p > q goes on behind p with a header that may not have met q.
    let mut next_change = u32::MAX;
    for (q, rule) in list.rules.iter().enumerate().rev() {
        let plain_end = q as u32 + 1;
        out[q] = out[q].min(next_change).max(plain_end);
        let calls_change = matches!(rule.end, Op::Call { entry, .. } if lists[entry as usize].changes_packet);
        if rule.changes_packet() || calls_change {
            next_change = plain_end;
        }
    }
    out
}
