//! Keys: a header's values side by side, as the forest compares them.
//!
//! Nodes and leaves compare 16-bit values at byte offsets of the key, nothing else (a rare
//! leaf column compares 32 bits). An image uses only the dimensions that its rules test; each
//! takes 2 or 4 bytes, little-endian:
//!
//! ```text
//!   IPv4 five-tuple   0      4      8   10  12
//!                     source destn  sp  dp  proto      14 bytes
//!   window of bits 8–23 of the source: the u16 at offset 1
//! ```
//!
//! A small dimension may be *recoded*: its raw value (at most 256 of them) is replaced by the
//! number of its class, where a class is a set of values that no rule tells apart. `--syn`
//! holds for 16 scattered values of the TCP flags byte; recoded it is one interval.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::dim::{Dim, Ranks, value_of};
use crate::packet::Packet;
use crate::sets::Sets;

/// Bytes of a key buffer: all dimensions of an IPv6 image fit, and a 16-bit read at any offset
/// below [`KEY_BYTES_MAX`] stays inside.
pub const KEY_BYTES: usize = 128;

/// Bytes that an image's dimensions may take.
pub const KEY_BYTES_MAX: usize = 112;

/// A packet's values on the dimensions of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Key(pub [u8; KEY_BYTES]);

impl Key {
    /// All zero.
    pub const ZERO: Key = Key([0; KEY_BYTES]);

    /// The 16-bit window at a byte offset, which is below [`KEY_BYTES_MAX`].
    #[inline(always)]
    pub fn window(&self, offset: u8) -> u16 {
        // The cut keeps the read inside without a branch; audited images need none.
        let at = usize::from(offset).min(KEY_BYTES - 2);
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// The 32-bit value at a byte offset, which is below [`KEY_BYTES_MAX`].
    #[inline(always)]
    pub fn wide(&self, offset: u8) -> u32 {
        u32::from(self.window(offset)) | u32::from(self.window(offset.wrapping_add(2))) << 16
    }

    fn put(&mut self, offset: u8, bytes: usize, value: u32) {
        let at = usize::from(offset);
        self.0[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

/// Many keys of one image, side by side: each takes only the bytes that the image's dimensions
/// need, a multiple of 16.
#[derive(Debug, Clone)]
pub struct Keys {
    stride: usize,
    /// The keys, and room for one whole [`Key`] behind the last.
    bytes: Vec<u8>,
}

impl Keys {
    /// No keys of `stride` bytes, a multiple of 16 up to [`KEY_BYTES`].
    pub fn new(stride: usize) -> Keys {
        assert!(stride.is_multiple_of(16) && (16..=KEY_BYTES).contains(&stride), "a key has 16 to 128 bytes");
        Keys { stride, bytes: vec![0; KEY_BYTES] }
    }

    /// Adds a key.
    pub fn push(&mut self, key: &Key) {
        let at = self.len() * self.stride;
        self.bytes.resize(at + self.stride + KEY_BYTES, 0);
        self.bytes[at..at + self.stride].copy_from_slice(&key.0[..self.stride]);
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        (self.bytes.len() - KEY_BYTES) / self.stride
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one key.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The key at `index`, in place: the bytes behind its own are its neighbours', which no
    /// window of its image reaches.
    #[inline]
    pub fn get(&self, index: usize) -> &Key {
        let bytes = self.bytes[index * self.stride..].first_chunk::<KEY_BYTES>();
        zerocopy::transmute_ref!(bytes.expect("a whole key follows every key"))
    }

    /// All bytes: keys side by side, then [`KEY_BYTES`] more.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where one dimension lies in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The dimension.
    pub dim: Dim,
    /// Byte offset of its least significant byte.
    pub offset: u8,
    /// Index of its recoding table, when it has one.
    pub recode: Option<u8>,
}

/// How an image makes keys of packets.
#[derive(Debug, Clone, Copy)]
pub struct KeyMaker<'a> {
    /// Slot records as in the image, see [`SLOT_BYTES`].
    slots: &'a [u8],
    /// Recoding tables, 256 bytes each.
    recodes: &'a [u8],
    ranks: Ranks<'a>,
    sets: Sets<'a>,
}

/// Bytes of a slot record: dimension, offset, recode index or 255, zero.
pub const SLOT_BYTES: usize = 4;

impl<'a> KeyMaker<'a> {
    /// Views the sections of an image. Records that make no sense are passed over: `audit`
    /// reports them.
    pub fn new(slots: &'a [u8], recodes: &'a [u8], ranks: Ranks<'a>, sets: Sets<'a>) -> KeyMaker<'a> {
        KeyMaker { slots, recodes, ranks, sets }
    }

    /// The raw value of a packet on a dimension.
    #[inline]
    pub fn raw(&self, packet: &Packet, dim: Dim) -> u32 {
        if dim.is_set() { self.sets.value(packet, dim) } else { value_of(packet, dim, self.ranks) }
    }

    /// The IP sets.
    pub fn sets(&self) -> Sets<'a> {
        self.sets
    }

    /// The slots in the order of the key.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + 'a {
        self.slots.chunks_exact(SLOT_BYTES).filter_map(|r| {
            let dim = Dim::from_number(r[0])?;
            let fits = usize::from(r[1]) + dim.key_bytes() <= KEY_BYTES_MAX;
            fits.then_some(Slot { dim, offset: r[1], recode: (r[2] != 255).then_some(r[2]) })
        })
    }

    /// Ranks of interface names.
    pub fn ranks(&self) -> Ranks<'a> {
        self.ranks
    }

    /// The class of a raw value of a recoded dimension.
    pub fn class(&self, table: u8, raw: u32) -> u32 {
        let at = usize::from(table) * 256 + (raw as usize & 255);
        self.recodes.get(at).copied().unwrap_or(0).into()
    }

    /// Bytes that the keys take, rounded up to 16.
    pub fn key_bytes(&self) -> usize {
        let end = self.slots().map(|s| usize::from(s.offset) + s.dim.key_bytes()).max().unwrap_or(0);
        end.next_multiple_of(16).max(16)
    }

    /// The keys of many packets.
    pub fn keys<'p>(&self, packets: impl IntoIterator<Item = &'p Packet>) -> Keys {
        let mut keys = Keys::new(self.key_bytes());
        packets.into_iter().for_each(|p| keys.push(&self.key(p)));
        keys
    }

    /// The key of a packet. Costs a few nanoseconds a dimension, and a binary search for each
    /// interface dimension.
    pub fn key(&self, packet: &Packet) -> Key {
        let mut key = Key::ZERO;
        for slot in self.slots() {
            let raw = self.raw(packet, slot.dim);
            let value = slot.recode.map_or(raw, |table| self.class(table, raw));
            key.put(slot.offset, slot.dim.key_bytes(), value);
        }
        key
    }
}
