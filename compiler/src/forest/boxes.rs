//! Boxes: what the forest is built of.

use hipac_classifier::forest::node::FAN_MAX;

/// One dimension of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Byte offset in the key.
    pub offset: u8,
    /// Takes four bytes, not two.
    pub is_wide: bool,
    /// Largest value.
    pub max: u32,
}

/// A region of the space, or a box: one inclusive interval an axis.
pub type Bounds = [(u32, u32)];

/// A 16-bit window of an axis, chosen for a region: the bits above are the same in all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bits below the window.
    pub shift: u32,
    /// The bits above, in place.
    high: u32,
}

impl Window {
    /// The window on the most significant bits that differ within `range`.
    pub fn of(axis: &Axis, range: (u32, u32)) -> Window {
        let shift = match (axis.is_wide, range.0 ^ range.1) {
            (false, _) | (true, 0..=0xffff) => 0,
            (true, 0x1_0000..=0xff_ffff) => 8,
            _ => 16,
        };
        let high = (u64::from(range.0) >> (shift + 16) << (shift + 16)) as u32;
        Window { shift, high }
    }

    /// Offset in the key.
    pub fn offset(&self, axis: &Axis) -> u8 {
        axis.offset + (self.shift / 8) as u8
    }

    /// The window of a value of the region.
    pub fn of_value(&self, value: u32) -> u16 {
        (value >> self.shift) as u16
    }

    /// The smallest value with this window.
    pub fn first_value(&self, window: u16) -> u32 {
        self.high | u32::from(window) << self.shift
    }

    /// The largest value with this window.
    pub fn last_value(&self, window: u16) -> u32 {
        self.first_value(window) | ((1 << self.shift) - 1)
    }
}

/// Boxes with their rules' positions. A rule may have several, disjoint or not.
#[derive(Debug, Clone, Default)]
pub struct Boxes {
    /// The axes.
    pub axes: Vec<Axis>,
    /// `axes.len()` intervals a box.
    bounds: Vec<(u32, u32)>,
    /// The rule of each box.
    positions: Vec<u32>,
    /// For each box, the first position that a packet may still need behind it once the box
    /// has held: its own position plus one when it does not end anything.
    hides_until: Vec<u32>,
}

impl Boxes {
    /// No boxes over these axes.
    pub fn new(axes: Vec<Axis>) -> Boxes {
        Boxes { axes, ..Boxes::default() }
    }

    /// Makes room for so many boxes, and no more.
    pub fn reserve_exact(&mut self, count: usize) {
        self.bounds.reserve_exact(count * self.axes.len());
        self.positions.reserve_exact(count);
        self.hides_until.reserve_exact(count);
    }

    /// Adds a box. Positions must not fall.
    pub fn push(&mut self, bounds: &Bounds, position: u32, hides_until: u32) {
        self.push_all(bounds.iter().copied(), position, hides_until);
    }

    /// [`Boxes::push`] for bounds that come one by one.
    pub(crate) fn push_all(
        &mut self,
        bounds: impl Iterator<Item = (u32, u32)>,
        position: u32,
        hides_until: u32,
    ) {
        debug_assert!(self.positions.last().is_none_or(|&p| p <= position));
        self.bounds.extend(bounds);
        debug_assert_eq!(self.bounds.len(), (self.positions.len() + 1) * self.axes.len());
        self.positions.push(position);
        self.hides_until.push(hides_until);
    }

    /// Takes all boxes out.
    pub fn clear(&mut self) {
        self.bounds.clear();
        self.positions.clear();
        self.hides_until.clear();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The bounds of a box.
    #[inline]
    pub fn bounds(&self, index: u32) -> &Bounds {
        let d = self.axes.len();
        &self.bounds[index as usize * d..][..d]
    }

    /// The interval of a box on one axis.
    #[inline]
    pub fn interval(&self, index: u32, axis: usize) -> (u32, u32) {
        self.bounds[index as usize * self.axes.len() + axis]
    }

    /// The rule of a box.
    #[inline]
    pub fn position(&self, index: u32) -> u32 {
        self.positions[index as usize]
    }

    /// See the field.
    #[inline]
    pub fn hides_until(&self, index: u32) -> u32 {
        self.hides_until[index as usize]
    }

    /// Behind this box, in its place, later rules are not needed.
    #[inline]
    pub fn hides(&self, index: u32) -> bool {
        self.hides_until(index) > self.position(index) + 1
    }

    /// All of `region` lies in the box.
    #[inline]
    pub fn covers(&self, index: u32, region: &Bounds) -> bool {
        self.bounds(index).iter().zip(region).all(|(b, r)| b.0 <= r.0 && r.1 <= b.1)
    }

    /// All of `inner` that lies in `region` lies in `outer` too.
    #[inline]
    pub fn covers_box(&self, outer: u32, inner: u32, region: &Bounds) -> bool {
        self.bounds(outer)
            .iter()
            .zip(self.bounds(inner))
            .zip(region)
            .all(|((o, i), r)| o.0 <= i.0.max(r.0) && i.1.min(r.1) <= o.1)
    }
}

/// Cuts of a window: the last value of each interval but the last, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuts {
    bounds: [u16; FAN_MAX - 1],
    count: u8,
}

impl Cuts {
    /// No cut: one interval.
    pub const NONE: Cuts = Cuts { bounds: [0xffff; FAN_MAX - 1], count: 0 };

    /// Adds a cut behind `last`, which is above all before.
    pub fn push(&mut self, last: u16) {
        debug_assert!(last < 0xffff && self.as_slice().last().is_none_or(|&l| l < last));
        self.bounds[usize::from(self.count)] = last;
        self.count += 1;
    }

    /// The bounds.
    pub fn as_slice(&self) -> &[u16] {
        &self.bounds[..self.count.into()]
    }

    /// Intervals: one more than cuts.
    pub fn fan(&self) -> usize {
        usize::from(self.count) + 1
    }

    /// The interval of a window's value.
    #[inline]
    pub fn slot(&self, value: u16) -> usize {
        // All 14: the padding is never below a value, and a fixed count is a vector's work.
        self.bounds.iter().map(|&b| usize::from(b < value)).sum()
    }
}
