//! Does the forest find what the flat rules say? Two questions, each about boxes:
//!
//! - **Is too much stored?** Every box in a leaf must lie in what its rule may hold.
//! - **Is enough stored?** What a rule must hold must be stored, box by box, or be *hidden*: lie in an
//!   earlier rule that lets no packet come to this one.
//!
//! ```text
//!   must hold    ├───────────────────────────────────┤
//!   stored           ├──── leaf 12 ───┤├─ leaf 13 ─┤
//!   hidden       ├───┤ by position 4                ├─┤ by position 9
//! ```
//!
//! The second is answered by *probing*: take the lowest key of what is left, look where the forest
//! stores the rule around it, or which earlier rule hides it, take that box away, and go on until
//! nothing is left. Boxes are taken away along the cuts of the tree, so that a rule copied into many
//! regions takes about as many probes. Most rules are stored in one box, which the first question
//! meets anyway: no probe.
//!
//! A lookup does not look everywhere: gates and smallest positions let it pass over what cannot
//! matter, and a leaf's first match ends it. Whether that passes over something that does matter is
//! checked at each stored box.

use std::cell::Cell;

use super::boxes::{self, Bounds, Boxes};
use super::forest::{Cut, Damage, Forest, LeafSeen, Seen, Spot};
use super::space::Space;
use super::walk::{Fault, List, Slot};

/// What is wrong around a piece of the space of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A rule is stored where it does not hold.
    Extra,
    /// A rule is not found where it holds.
    NotStored,
    /// The gate of the cell turns packets away that the rule holds for.
    TurnedAway,
    /// The gate or a smallest position is behind the rule's.
    Late,
    /// A later rule stands before it in the leaf.
    Disordered,
    /// Something about its flat rule.
    Flat(Fault),
    /// The verdict at the end.
    Default,
    /// More work than allowed.
    TooMuchWork,
}

/// Something wrong, for some packets of a piece.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) position: u32,
    /// Keys, and values of the axes of indices.
    pub(super) piece: Vec<(u32, u32)>,
    /// The leaf, when there is one.
    pub(super) at: Option<Spot>,
}

/// One list of flat rules and one of its roots.
pub(super) struct Cover<'a> {
    pub(super) space: &'a Space,
    pub(super) list: &'a List,
    pub(super) forest: &'a Forest<'a>,
    /// States of the transport header that come to this root.
    pub(super) states: u8,
    /// Probes allowed, and made.
    pub(super) probes_max: u64,
    pub(super) probes: Cell<u64>,
}

impl Cover<'_> {
    /// Answers both questions. `report` says whether to go on.
    pub(super) fn run(&self, report: &mut dyn FnMut(Finding) -> bool) -> (Seen, Option<Damage>) {
        let is_over = Cell::new(false);
        let mut report = |finding| {
            is_over.set(is_over.get() || !report(finding));
            !is_over.get()
        };
        let mut is_stored = vec![false; self.list.boxes.len()];
        let answer = self.forest.walk(&mut |leaf| {
            if !is_over.get() {
                self.leaf(leaf, &mut is_stored, &mut report);
            }
        });
        for (position, slot) in (self.list.first..).zip(&self.list.slots) {
            if slot.expanded.states & self.states == 0 {
                continue;
            }
            for index in slot.expanded.must.clone().filter(|&index| !is_stored[index]) {
                if is_over.get() {
                    return answer;
                }
                if let Some(piece) = self.left_over(self.list.boxes.get(index), position, true, None) {
                    self.found(Kind::NotStored, position, piece, &mut report);
                }
            }
        }
        if !is_over.get() {
            self.faults(&mut report);
        }
        answer
    }

    fn found(
        &self,
        kind: Kind,
        position: u32,
        piece: Vec<(u32, u32)>,
        report: &mut dyn FnMut(Finding) -> bool,
    ) -> bool {
        if self.probes.get() > self.probes_max {
            report(Finding { kind: Kind::TooMuchWork, position, piece, at: None });
            return false;
        }
        report(Finding { kind, position, piece, at: None })
    }

    /// A box of keys, as far as packets with them come to this root, with all values of the axes of
    /// indices.
    fn within(&self, bounds: &Bounds) -> Boxes {
        let mut out = Boxes::new(self.forest.region.len());
        let domain = &self.list.domain;
        let mut piece = self.forest.region.clone();
        for domain in domain.range(0..domain.len()) {
            piece.copy_from_slice(&self.forest.region);
            let keys = &mut piece[..bounds.len()];
            if boxes::narrow(keys, bounds) && boxes::narrow(keys, domain) {
                out.push(&piece);
            }
        }
        out
    }

    fn slot(&self, position: u32) -> Option<&Slot> {
        self.list.slots.get(position.checked_sub(self.list.first)? as usize)
    }

    /// The first question, and whether lookups come by what is stored.
    fn leaf(&self, leaf: &LeafSeen<'_>, is_stored: &mut [bool], report: &mut dyn FnMut(Finding) -> bool) {
        let mut last = 0;
        for (lane, &position) in leaf.positions.iter().enumerate() {
            let stored = leaf.boxes.get(lane);
            if position < self.list.first {
                continue; // before all that is ever looked for
            }
            let Some(slot) = self.slot(position) else {
                self.too_much(position, stored, leaf.at, report);
                continue;
            };
            let is_doubtful = self.is_passed_over(leaf, lane, last, report);
            last = last.max(position);
            let list = &self.list.boxes;
            let may = slot.expanded.may.clone();
            let holds_here = slot.expanded.states & self.states;
            let allowed = if holds_here == self.states { may } else { 0..0 };
            let is_allowed = list.range(allowed.clone()).any(|b| boxes::holds(b, stored));
            if !is_allowed {
                // All that is outside: packets may come to any part of it.
                boxes::each_outside(stored, list.range(allowed), &mut |piece| {
                    !self.too_much(position, piece, leaf.at, report)
                });
            }
            let is_whole = leaf.at.cell.is_none_or(|(tree, _)| self.forest.is_in_one_cell(tree, stored));
            if leaf.is_loose || is_doubtful || !is_whole {
                continue;
            }
            for index in slot.expanded.must.clone() {
                let region = &self.forest.region;
                let mut all = list.get(index).iter().zip(stored).zip(region);
                is_stored[index] |= all.all(|((b, s), r)| s.0 <= b.0.max(r.0) && b.1.min(r.1) <= s.1);
            }
        }
    }

    /// A rule is stored where it does not hold: does a lookup come there?
    fn too_much(
        &self,
        position: u32,
        piece: &Bounds,
        at: Spot,
        report: &mut dyn FnMut(Finding) -> bool,
    ) -> bool {
        // What the gate turns away does not come.
        let pieces = match at.cell {
            Some((tree, _)) => self.pieces_with(tree, piece, at.gate),
            None => vec![piece.to_vec()],
        };
        for piece in pieces {
            if let Some(piece) = self.left_over(&piece, position, false, at.cell) {
                report(Finding { kind: Kind::Extra, position, piece, at: Some(at) });
                return true;
            }
        }
        false
    }

    /// Lookups may pass over what a lane stores although it is first. `last`: the largest position
    /// before it in the leaf.
    fn is_passed_over(
        &self,
        leaf: &LeafSeen<'_>,
        lane: usize,
        last: u32,
        report: &mut dyn FnMut(Finding) -> bool,
    ) -> bool {
        let (position, stored) = (leaf.positions[lane], leaf.boxes.get(lane));
        let mut is_doubtful = false;
        let mut doubt = |kind: Kind, piece: &Bounds| {
            if let Some(piece) = self.left_over(piece, position, false, leaf.at.cell) {
                is_doubtful = true;
                report(Finding { kind, position, piece, at: Some(leaf.at) });
            }
        };
        if position < last {
            for earlier in (0..lane).filter(|&l| leaf.positions[l] > position) {
                let mut both = stored.to_vec();
                if boxes::narrow(&mut both, leaf.boxes.get(earlier)) {
                    doubt(Kind::Disordered, &both);
                }
            }
        }
        let Some((tree, _)) = leaf.at.cell else {
            self.late(position, stored, leaf.at, None, &mut doubt);
            return is_doubtful;
        };
        // Whatever is behind the tree's gate in time: the first tree is looked at with no match yet.
        let gate = self.forest.scale.filter(|scale| leaf.at.gate >> 24 > scale.scaled(position));
        let gate = gate.filter(|_| tree > 0).map(|scale| (scale, leaf.at.gate >> 24));
        self.late(position, stored, leaf.at, gate, &mut doubt);
        let missing = self.forest.filter_bits(tree, stored) & !leaf.at.gate;
        if missing != 0 {
            for piece in self.pieces_with(tree, stored, !leaf.at.gate) {
                doubt(Kind::TurnedAway, &piece);
            }
        }
        is_doubtful
    }

    /// A rule may be passed over when a later one is found before: for packets that both hold.
    fn late(
        &self,
        position: u32,
        stored: &Bounds,
        at: Spot,
        gate: Option<(hipac_classifier::forest::root::Scale, u32)>,
        doubt: &mut dyn FnMut(Kind, &Bounds),
    ) {
        if at.smallest <= position && gate.is_none() {
            return;
        }
        for (later, slot) in
            (self.list.first..).zip(&self.list.slots).skip((position - self.list.first) as usize + 1)
        {
            let is_shut = gate.is_some_and(|(scale, gate)| scale.scaled(later) < gate);
            if later > at.smallest && !is_shut {
                continue;
            }
            for other in self.list.boxes.range(slot.expanded.must.clone()) {
                let mut both = stored.to_vec();
                if boxes::narrow(&mut both, other) {
                    doubt(Kind::Late, &both);
                }
            }
        }
    }

    /// Pieces of a box that have filter bits of a set. Splits the box until bits are alike.
    fn pieces_with(&self, tree: usize, stored: &Bounds, set: u32) -> Vec<Vec<(u32, u32)>> {
        let mut out = Vec::new();
        let mut rest = Boxes::new(stored.len());
        rest.push(stored);
        let mut now = Vec::new();
        // Enough to tell 32 values of two windows apart where they are the topmost bits.
        let mut left = 4096;
        while rest.pop(&mut now) {
            let bits = self.forest.filter_bits(tree, &now);
            if bits & set == 0 {
                continue;
            }
            let widest = self.forest.filter_axes(tree).max_by_key(|&axis| now[axis].1 - now[axis].0);
            let splits = (bits & !set != 0 && left > 0).then_some(widest).flatten();
            let Some(axis) = splits.filter(|&axis| now[axis].0 < now[axis].1) else {
                out.push(now.clone());
                continue;
            };
            left -= 1;
            // At the highest bit that differs: where windows change first.
            let (lo, hi) = now[axis];
            let middle = hi & (u32::MAX << (lo ^ hi).ilog2());
            for part in [(lo, middle - 1), (middle, hi)] {
                now[axis] = part;
                rest.push(&now);
            }
        }
        out
    }

    /// What is wrong about flat rules, where packets come to them.
    fn faults(&self, report: &mut dyn FnMut(Finding) -> bool) {
        for (position, expanded, fault) in &self.list.faults {
            if expanded.states & self.states == 0 && expanded.states != 0 {
                continue;
            }
            for bounds in self.list.boxes.range(expanded.must.clone()) {
                let pieces = match fault {
                    Fault::Lands(_, wanted) => self.landings(*position, *wanted, bounds),
                    _ => vec![bounds.to_vec()],
                };
                for piece in pieces {
                    if let Some(piece) = self.left_over(&piece, *position, false, None)
                        && !self.found(Kind::Flat(fault.clone()), *position, piece, report)
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Packets of a box for which it matters whether they go on at one place or another: those that a
    /// rule between the two holds.
    fn landings(&self, position: u32, wanted: u32, bounds: &Bounds) -> Vec<Vec<(u32, u32)>> {
        let Some(slot) = self.slot(position) else { return vec![] };
        let found = match slot.end {
            super::program::End::Resume(to) | super::program::End::Call { back: to, .. } => to,
            _ => return vec![],
        };
        if found <= position {
            return vec![bounds.to_vec()];
        }
        let mut out = Vec::new();
        for between in found.min(wanted)..found.max(wanted) {
            let Some(slot) = self.slot(between) else { break };
            for other in self.list.boxes.range(slot.expanded.must.clone()) {
                let mut both = bounds.to_vec();
                if boxes::narrow(&mut both, other) {
                    out.push(both);
                }
            }
        }
        out
    }

    /// Keys with which evaluations come to the end of the list.
    pub(super) fn reaches_end(&self) -> Option<Vec<(u32, u32)>> {
        let end = self.list.first + self.list.slots.len() as u32;
        self.left_over(&self.space.everything(), end, false, None)
    }

    /// A piece of a box that no earlier rule hides from `position` (and where it is not stored), among
    /// those that come to a cell;
    /// `None` when there is none.
    fn left_over(
        &self,
        bounds: &Bounds,
        position: u32,
        may_be_stored: bool,
        cell: Option<(usize, usize)>,
    ) -> Option<Vec<(u32, u32)>> {
        let mut rest = self.within(bounds);
        let piece = &self.forest.region;
        let mut now = Vec::with_capacity(piece.len());
        let mut cuts: Vec<Cut> = Vec::new();
        let mut point = Vec::with_capacity(piece.len());
        while rest.pop(&mut now) {
            if let Some(cell) = cell {
                self.forest.within_cell(cell, &mut now);
            }
            let is_empty = now.iter().any(|b| b.0 > b.1);
            if is_empty || !self.space.trim(&mut now) || !self.forest.tighten(&mut now) {
                continue;
            }
            self.probes.set(self.probes.get() + 1);
            if self.probes.get() > self.probes_max {
                return Some(now);
            }
            point.clear();
            point.extend(now.iter().map(|b| b.0));
            if may_be_stored && self.forest.find(&point, position, &mut cuts) {
                for &(axis, taken) in &cuts {
                    boxes::cut(&mut now, axis, taken, &mut rest);
                }
                continue;
            }
            if let Some(index) = self.hider(&point, &now, position) {
                boxes::subtract(&mut now, self.list.boxes.get(index), &mut rest);
                continue;
            }
            match self.forest.reconcile(&mut now, &mut rest) {
                Some(false) => return Some(now),
                Some(true) => rest.push(&now),
                None => {}
            }
        }
        None
    }

    /// A box of an earlier rule that hides `position` at a point: the one that takes most of the piece.
    fn hider(&self, point: &[u32], piece: &Bounds, position: u32) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        self.forest.each_at(point, &mut |earlier| {
            if earlier >= position || self.until(earlier) <= position {
                return;
            }
            let Some(slot) = self.slot(earlier) else { return };
            // Where only some states of the header are meant, it hides for those alone.
            if slot.expanded.states & self.states != self.states || slot.expanded.is_blind {
                return;
            }
            for index in slot.expanded.must.clone() {
                let bounds = self.list.boxes.get(index);
                if boxes::holds_point(bounds, point) {
                    let share = |(b, p): (&(u32, u32), &(u32, u32))| {
                        let (all, taken) = (p.1 - p.0, p.1.min(b.1) - p.0.max(b.0));
                        (f64::from(taken) + 1.0) / (f64::from(all) + 1.0)
                    };
                    let part: f64 = bounds.iter().zip(piece).map(share).product();
                    if best.is_none_or(|(most, _)| part > most) {
                        best = Some((part, index));
                    }
                }
            }
        });
        best.map(|(_, index)| index)
    }

    fn until(&self, position: u32) -> u32 {
        let index = position.checked_sub(self.list.first).map(|i| i as usize);
        index.and_then(|i| self.list.until.get(i)).copied().unwrap_or(0)
    }
}
