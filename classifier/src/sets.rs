//! IP sets in an image: is the packet in a set that some rule names?
//!
//! ```text
//!   packet ─▶ source 192.0.2.7 ─▶ in `blocked`?  one bit ─▶ dimension Set0 of the key
//!          ─▶ source, tcp:80   ─▶ in `open`?     one bit ─▶ dimension Set1
//! ```
//!
//! A *use* is a set, looked up by certain fields (`--match-set blocked src`). Each use that rules
//! name is one bit of a packet's key, worked out once when the key is made, as the ranks of interface names are.
//! To the search it is a dimension with two values: a rule over 120,000 addresses is one box, a
//! hundred rules over them are a hundred boxes, and a set costs its entries once. The other way, a
//! box an entry, is as fast for one rule over one set; but it multiplies the set by the rules behind
//! it (a jump that a set guards lends its boxes to every rule of the chain), and by other columns.
//!
//! A use is stored in one of two forms:
//!
//! - **ranges**, for sets of one column: the bounds at which membership changes, rising. A value is
//!   in the set when an odd number of bounds are at or below it. 4 bytes a bound for IPv4 and ports, 16
//!   for IPv6. IPv4 has a small table of the upper bits before it, so that a search ends within few lines.
//! - **tuples**, for the others: *profiles*, each a mask and the masked rows of bytes that it is for,
//!   sorted. The first profile with a row decides. Rows say whether what they hold is in the set.
//!
//! ```text
//!  section "sets"        words of 32 bits, little-endian
//!  0        count of uses, then 3 zero
//!  16       32 bytes a use: name; dimension u8, bit u8, form u8, zero; four columns u8 (255: none);
//!           where its data begin; count of bounds or profiles; bytes of a bound or a row;
//!           where its table of upper bits is, or 0; zero
//!  data     form 0: bounds.  Table: 4097 counts of bounds below each value of the upper 12 bits.
//!           form 1: profiles of 48 bytes: mask (40), count of rows, where they begin.
//!                   Rows: the values, then 1 (in the set) or 0.
//! ```
//!
//! # Cost
//! A binary search for each use in ranges, one for each profile otherwise: 10 to 60 ns where a set
//! fits a cache. Uses that no dimension of the key asks for cost nothing.

use crate::dim::Dim;
use crate::forest::u32_at;
use crate::packet::{InterfaceName, L4, Packet};

/// Bytes before the first use.
pub const HEAD_BYTES: usize = 16;
/// Bytes of a use's record.
pub const USE_BYTES: usize = 32;
/// Bytes of a profile's record.
pub const PROFILE_BYTES: usize = 48;
/// Bytes that a row's values may take.
pub const ROW_BYTES_MAX: usize = 40;
/// Upper bits of an IPv4 address that have a table.
pub const TABLE_BITS: u32 = 12;

/// What a column looks at. Addresses take 4 or 16 bytes, ports 3 (with their protocol), names 16, an
/// Ethernet address 6, a mark 4; all big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the fields of a packet that have these names
pub enum Column {
    Source,
    Destination,
    /// With the protocol.
    SourcePort,
    /// With the protocol.
    DestinationPort,
    InInterface,
    OutInterface,
    Mac,
    Mark,
    /// Of TCP and UDP, without the protocol.
    BareSourcePort,
    /// The same.
    BareDestinationPort,
}

impl Column {
    const ALL: [Column; 10] = {
        use Column::*;
        [
            Source,
            Destination,
            SourcePort,
            DestinationPort,
            InInterface,
            OutInterface,
            Mac,
            Mark,
            BareSourcePort,
            BareDestinationPort,
        ]
    };

    /// The column of that number.
    pub fn from_number(number: u8) -> Option<Column> {
        Column::ALL.get(usize::from(number)).copied()
    }

    /// Bytes of its values in a row.
    pub fn bytes(self, is_v6: bool) -> usize {
        match self {
            Column::Source | Column::Destination => {
                if is_v6 {
                    16
                } else {
                    4
                }
            }
            Column::SourcePort | Column::DestinationPort => 3,
            Column::InInterface | Column::OutInterface => 16,
            Column::Mac => 6,
            Column::Mark => 4,
            Column::BareSourcePort | Column::BareDestinationPort => 2,
        }
    }

    /// Appends a packet's value to a row; `None`: it has none.
    fn put(self, packet: &Packet, row: &mut Row) -> Option<()> {
        let address = |x: u128, row: &mut Row| {
            if packet.is_v6 { row.put(&x.to_be_bytes()) } else { row.put(&(x as u32).to_be_bytes()) }
        };
        let name = |name: InterfaceName, row: &mut Row| {
            (name != InterfaceName::NONE).then(|| row.put(&name.as_number().to_be_bytes()))
        };
        match self {
            Column::Source => address(packet.source, row),
            Column::Destination => address(packet.destination, row),
            Column::SourcePort | Column::DestinationPort => {
                let (protocol, port) = port_of(packet, self == Column::SourcePort)?;
                row.put(&[protocol]);
                row.put(&port.to_be_bytes());
            }
            Column::BareSourcePort | Column::BareDestinationPort => {
                row.put(&bare_port(packet, self == Column::BareSourcePort)?.to_be_bytes());
            }
            Column::InInterface => name(packet.in_interface, row)?,
            Column::OutInterface => name(packet.out_interface, row)?,
            Column::Mac => row.put(&packet.mac.filter(|mac| *mac != [0; 6])?),
            Column::Mark => row.put(&packet.mark.to_be_bytes()),
        }
        Some(())
    }

    /// A packet's value as a number, for ranges.
    fn number(self, packet: &Packet) -> Option<u128> {
        match self {
            Column::Source => Some(packet.source),
            Column::Destination => Some(packet.destination),
            Column::BareSourcePort | Column::BareDestinationPort => {
                bare_port(packet, self == Column::BareSourcePort).map(u128::from)
            }
            _ => None,
        }
    }
}

/// Protocol and port as sets see them; `None` when the kernel finds none.
fn port_of(packet: &Packet, is_source: bool) -> Option<(u8, u16)> {
    let needed = match packet.protocol {
        6 => 20,
        132 => 12,
        17 | 136 | 1 | 58 => 8,
        _ => 0,
    };
    let bytes = match packet.l4 {
        // IPv6 looks at no later fragment, IPv4 only at those of protocols without ports.
        L4::Fragment | L4::FragmentAt8 if packet.is_v6 || needed > 0 => return None,
        L4::Fragment | L4::FragmentAt8 => 0,
        L4::Whole => 20,
        L4::Under4 => 0,
        L4::Under8 => 4,
        L4::Under12 => 8,
        L4::Under20 => 12,
    };
    // Nothing follows protocol 59.
    if bytes < needed || packet.is_v6 && packet.protocol == 59 {
        return None;
    }
    let port = match packet.protocol {
        1 | 58 => packet.destination_port,
        _ if needed == 0 => 0,
        _ if is_source => packet.source_port,
        _ => packet.destination_port,
    };
    Some((packet.protocol, port))
}

fn bare_port(packet: &Packet, is_source: bool) -> Option<u16> {
    port_of(packet, is_source).filter(|(protocol, _)| matches!(protocol, 6 | 17)).map(|(_, port)| port)
}

/// A packet's values in the columns of a use.
#[derive(Clone, Copy)]
struct Row {
    bytes: [u8; ROW_BYTES_MAX],
    len: usize,
}

impl Row {
    fn put(&mut self, bytes: &[u8]) {
        // Columns of an audited image fit; of another one, what does not is left out.
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// How a use is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bounds, rising.
    Ranges,
    /// Profiles of rows.
    Tuples,
}

/// The section of an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sets<'a> {
    bytes: &'a [u8],
}

/// One use.
#[derive(Debug, Clone, Copy)]
pub struct SetUse<'a> {
    bytes: &'a [u8],
    /// Index of its name.
    pub name: u32,
    /// The dimension that holds its bit.
    pub dim: Dim,
    /// The bit, 0 to 7.
    pub bit: u8,
    /// How it is stored.
    pub form: Form,
    columns: [u8; 4],
    data: usize,
    count: usize,
    width: usize,
    table: usize,
}

impl<'a> Sets<'a> {
    /// Views a section; nothing in it means no sets.
    pub fn new(bytes: &'a [u8]) -> Sets<'a> {
        Sets { bytes }
    }

    /// How many uses there are.
    pub fn count(&self) -> usize {
        if self.bytes.len() < HEAD_BYTES { 0 } else { u32_at(self.bytes, 0) as usize }
    }

    /// The use of that number; `None` when its record makes no sense.
    pub fn get(&self, index: usize) -> Option<SetUse<'a>> {
        let at = HEAD_BYTES.checked_add(index.checked_mul(USE_BYTES)?)?;
        let record = self.bytes.get(at..)?.first_chunk::<USE_BYTES>()?;
        let word = |i: usize| u32_at(record, 4 * i) as usize;
        let form = match record[6] {
            0 => Form::Ranges,
            1 => Form::Tuples,
            _ => return None,
        };
        let dim = Dim::from_number(record[4]).filter(|dim| dim.is_set())?;
        Some(SetUse {
            bytes: self.bytes,
            name: u32_at(record, 0),
            dim,
            bit: record[5] & 7,
            form,
            columns: [record[8], record[9], record[10], record[11]],
            data: word(3),
            count: word(4),
            width: word(5),
            table: word(6),
        })
    }

    /// All uses.
    pub fn uses(&self) -> impl Iterator<Item = SetUse<'a>> {
        let sets = *self;
        (0..self.count().min(self.bytes.len() / USE_BYTES)).filter_map(move |i| sets.get(i))
    }

    /// The bits of a dimension for a packet.
    pub fn value(&self, packet: &Packet, dim: Dim) -> u32 {
        let of_dim = self.uses().filter(|u| u.dim == dim);
        of_dim.filter(|u| u.holds(packet)).fold(0, |bits, u| bits | 1 << u.bit)
    }
}

impl<'a> SetUse<'a> {
    /// Its columns.
    pub fn columns(&self) -> impl Iterator<Item = Column> {
        self.columns.into_iter().map_while(Column::from_number)
    }

    /// The packet is in the set.
    pub fn holds(&self, packet: &Packet) -> bool {
        match self.form {
            Form::Ranges => {
                let number = self.columns().next().and_then(|c| c.number(packet));
                number.is_some_and(|x| self.bounds_up_to(x) % 2 == 1)
            }
            Form::Tuples => {
                let mut row = Row { bytes: [0; ROW_BYTES_MAX], len: 0 };
                let has_all = self.columns().all(|c| c.put(packet, &mut row).is_some());
                has_all && self.profiles().find_map(|p| p.decides(&row.bytes)).unwrap_or(false)
            }
        }
    }

    /// Bounds, in the order in which they are stored.
    pub fn bounds(&self) -> impl Iterator<Item = u128> {
        let this = *self;
        (0..self.count).map_while(move |i| this.bound(i))
    }

    fn bound(&self, index: usize) -> Option<u128> {
        let at = self.data.checked_add(index.checked_mul(self.width)?)?;
        let bytes = self.bytes.get(at..)?;
        match self.width {
            4 => bytes.first_chunk::<4>().map(|b| u32::from_le_bytes(*b).into()),
            16 => bytes.first_chunk::<16>().map(|b| u128::from_le_bytes(*b)),
            _ => None,
        }
    }

    /// How many bounds are at or below `x`.
    fn bounds_up_to(&self, x: u128) -> usize {
        let (mut low, mut high) = (0, self.count);
        if self.table != 0 {
            let cell = (x as u32 >> (32 - TABLE_BITS)) as usize;
            let entry = |i: usize| {
                let bytes = self.bytes.get(self.table.checked_add(4 * i)?..)?.first_chunk::<4>()?;
                Some(u32::from_le_bytes(*bytes) as usize)
            };
            if let (Some(from), Some(to)) = (entry(cell), entry(cell + 1)) {
                (low, high) = (from.min(self.count), to.min(self.count));
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            // What lies outside counts as above: only in an image that was not audited.
            if self.bound(middle).is_some_and(|b| b <= x) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Its profiles, in order.
    pub fn profiles(&self) -> impl Iterator<Item = Profile<'a>> {
        let this = *self;
        (0..self.count).map_while(move |i| {
            let at = this.data.checked_add(i.checked_mul(PROFILE_BYTES)?)?;
            let record = this.bytes.get(at..)?.first_chunk::<PROFILE_BYTES>()?;
            let count = u32_at(record, ROW_BYTES_MAX) as usize;
            let start = u32_at(record, ROW_BYTES_MAX + 4) as usize;
            let stride = this.width.checked_add(1)?;
            let rows = this.bytes.get(start..start.checked_add(count.checked_mul(stride)?)?)?;
            let mask = *record.first_chunk::<ROW_BYTES_MAX>()?;
            (this.width <= ROW_BYTES_MAX).then_some(Profile { mask, rows, width: this.width })
        })
    }

    /// The bytes of the section that it has for itself.
    pub(crate) fn extents(&self) -> Vec<std::ops::Range<usize>> {
        match self.form {
            Form::Ranges => {
                let bounds = self.data..self.data + self.count * self.width;
                let table = self.table..self.table + 4 * ((1 << TABLE_BITS) + 1);
                std::iter::once(bounds).chain((self.table != 0).then_some(table)).collect()
            }
            Form::Tuples => {
                let profiles = self.data..self.data + self.count * PROFILE_BYTES;
                let rows = self.profiles().map(|p| {
                    let start = p.rows.as_ptr() as usize - self.bytes.as_ptr() as usize;
                    start..start + p.rows.len()
                });
                std::iter::once(profiles).chain(rows).collect()
            }
        }
    }

    /// Checks all that a lookup relies on.
    pub(crate) fn audit(&self, is_v6: bool) -> Result<(), String> {
        let known = self.columns().count();
        if known == 0 || self.columns[known..].iter().any(|&c| c != 255) {
            return Err("looks at a field that does not exist".into());
        }
        if !self.data.is_multiple_of(4) || !self.table.is_multiple_of(4) {
            return Err("has its data between words".into());
        }
        match self.form {
            Form::Ranges => {
                if known != 1
                    || self
                        .columns()
                        .any(|c| c.number(&Packet::default()).is_none() && c as u8 > 1 && (c as u8) < 8)
                {
                    return Err("has ranges of a field that has none".into());
                }
                let wide = is_v6 && self.columns[0] < 2;
                if self.width != if wide { 16 } else { 4 } {
                    return Err("has bounds of another width than its values".into());
                }
                if self.bounds().count() != self.count {
                    return Err("has bounds outside of the section".into());
                }
                let mut before = None;
                for bound in self.bounds() {
                    if before.is_some_and(|b| b >= bound) {
                        return Err("has bounds that do not rise".into());
                    }
                    before = Some(bound);
                }
                self.audit_table()
            }
            Form::Tuples => {
                let width: usize = self.columns().map(|c| c.bytes(is_v6)).sum();
                if width != self.width || self.table != 0 || width > ROW_BYTES_MAX {
                    return Err("has rows of another width than its values".into());
                }
                if self.profiles().count() != self.count {
                    return Err("has rows outside of the section".into());
                }
                for profile in self.profiles() {
                    if profile.mask[self.width..].iter().any(|&b| b != 0) {
                        return Err("has a mask that is wider than its rows".into());
                    }
                    let rows: Vec<&[u8]> = profile.rows().map(|(row, _)| row).collect();
                    let is_masked = |row: &&[u8]| row.iter().zip(&profile.mask).all(|(x, m)| x & !m == 0);
                    if !rows.windows(2).all(|w| w[0] < w[1]) || !rows.iter().all(is_masked) {
                        return Err("has rows out of order, or with bits that are not looked at".into());
                    }
                    if profile.rows.chunks(self.width + 1).any(|row| row[self.width] > 1) {
                        return Err("has a row that says neither yes nor no".into());
                    }
                }
                Ok(())
            }
        }
    }

    fn audit_table(&self) -> Result<(), String> {
        if self.table == 0 {
            return Ok(());
        }
        let bytes = self.bytes.get(self.table..).and_then(|b| b.get(..4 * ((1 << TABLE_BITS) + 1)));
        let Some(bytes) = bytes.filter(|_| self.width == 4 && self.columns[0] < 2) else {
            return Err("has a table outside of the section".into());
        };
        let mut bounds = self.bounds().peekable();
        let mut below = 0usize;
        for (cell, entry) in bytes.chunks_exact(4).enumerate() {
            let start = (cell as u128) << (32 - TABLE_BITS);
            while bounds.next_if(|&b| b < start).is_some() {
                below += 1;
            }
            if u32_at(entry, 0) as usize != below {
                return Err("has a table that counts wrong".into());
            }
        }
        Ok(())
    }
}

/// Rows under one mask.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    /// Bits of a row that are looked at.
    pub mask: [u8; ROW_BYTES_MAX],
    rows: &'a [u8],
    width: usize,
}

impl<'a> Profile<'a> {
    /// Rows, sorted, and what each says.
    pub fn rows(&self) -> impl Iterator<Item = (&'a [u8], bool)> {
        let width = self.width;
        self.rows.chunks_exact(width + 1).map(move |row| (&row[..width], row[width] != 0))
    }

    /// What the profile says of a packet's values; `None`: nothing.
    fn decides(&self, values: &[u8; ROW_BYTES_MAX]) -> Option<bool> {
        let wanted: [u8; ROW_BYTES_MAX] = std::array::from_fn(|i| values[i] & self.mask[i]);
        let (width, stride) = (self.width, self.width + 1);
        let (mut low, mut high) = (0, self.rows.len() / stride);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = &self.rows[middle * stride..][..stride];
            match row[..width].cmp(&wanted[..width]) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(row[width] != 0),
            }
        }
        None
    }
}
