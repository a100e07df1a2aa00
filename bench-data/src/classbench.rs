//! Readers and writers of ClassBench's two formats, so that inputs of the literature serve here
//! and ours serve elsewhere.
//!
//! A filter a line, the first line the most important; a packet a line, all decimal:
//!
//! ```text
//! @10.0.0.0/8⇥192.168.1.0/24⇥0 : 65535⇥80 : 80⇥0x06/0xFF⇥0x1000/0x1000⇥
//! 167772161⇥3232235777⇥40000⇥80⇥6⇥0
//! ```
//!
//! - A protocol's mask is 0xFF (this one) or 0x00 (all). The flags may be missing. They are kept
//!   and written again, but no filter tests them.
//! - The last field of a packet is the filter that it was made from, counted from 0, or -1.
//! - Fields are parted by tabs or spaces. A line may end in CR LF. Empty lines stand at the end
//!   only: filter `i` is on line `i + 1`, always.
//!
//! Cost: one pass, one buffer of a line, some 100 ns a filter.

use std::io::{self, BufRead, Write};
use std::marker::PhantomData;

use crate::filter::{Filter, Flags, PortRange, Prefix, TracePacket};
use crate::text::{Cursor, Fault, Lines, ReadError};

/// The filters of a file, one after the other; ends at the first error.
pub fn filters<R: BufRead>(reader: R) -> Records<R, Filter> {
    Records::new(reader)
}

/// The packets of a trace, one after the other; ends at the first error.
pub fn packets<R: BufRead>(reader: R) -> Records<R, TracePacket> {
    Records::new(reader)
}

/// All filters of a file: filter `i` is on line `i + 1`.
///
/// # Errors
///
/// The first line that is not of the format.
pub fn read_filters(reader: impl BufRead) -> Result<Vec<Filter>, ReadError> {
    filters(reader).collect()
}

/// All packets of a trace.
///
/// # Errors
///
/// The first line that is not of the format.
pub fn read_packets(reader: impl BufRead) -> Result<Vec<TracePacket>, ReadError> {
    packets(reader).collect()
}

/// Writes filters, a line each.
///
/// # Errors
///
/// Those of `writer`.
pub fn write_filters(mut writer: impl Write, filters: &[Filter]) -> io::Result<()> {
    for filter in filters {
        let (sport, dport) = (filter.source_ports, filter.destination_ports);
        let (protocol, protocol_mask) = filter.protocol.map_or((0, 0), |p| (p, 0xff));
        writeln!(
            writer,
            "@{}\t{}\t{} : {}\t{} : {}\t0x{protocol:02x}/0x{protocol_mask:02X}\t0x{:04x}/0x{:04x}\t",
            filter.source,
            filter.destination,
            sport.low(),
            sport.high(),
            dport.low(),
            dport.high(),
            filter.flags.value,
            filter.flags.mask,
        )?;
    }
    writer.flush()
}

/// Writes packets, a line each.
///
/// # Errors
///
/// Those of `writer`.
pub fn write_packets(mut writer: impl Write, packets: &[TracePacket]) -> io::Result<()> {
    for p in packets {
        let filter = p.filter.map_or(-1, i64::from);
        let (source, destination) = (p.source, p.destination);
        let (sport, dport, protocol) = (p.source_port, p.destination_port, p.protocol);
        writeln!(writer, "{source}\t{destination}\t{sport}\t{dport}\t{protocol}\t{filter}")?;
    }
    writer.flush()
}

/// What a line of a file can be: [`Filter`] or [`TracePacket`].
pub trait Record: sealed::Parse {}
impl Record for Filter {}
impl Record for TracePacket {}

mod sealed {
    use super::{Cursor, Fault};

    pub trait Parse: Sized {
        fn parse(line: &mut Cursor<'_>) -> Result<Self, Fault>;
    }
}

/// The records of a file, one after the other; ends at the first error.
#[derive(Debug)]
pub struct Records<R, T> {
    lines: Lines<R>,
    done: bool,
    record: PhantomData<T>,
}

impl<R: BufRead, T: Record> Records<R, T> {
    fn new(reader: R) -> Self {
        Records { lines: Lines::new(reader), done: false, record: PhantomData }
    }

    fn read_record(&mut self) -> Result<Option<T>, ReadError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        if self.lines.line().is_empty() {
            return self.expect_end().map(|()| None);
        }
        self.lines.parse(T::parse).map(Some)
    }

    /// After an empty line: nothing but empty lines may follow.
    fn expect_end(&mut self) -> Result<(), ReadError> {
        let empty = self.lines.malformed(0, Fault::EmptyLine);
        while self.lines.advance()? {
            if !self.lines.line().is_empty() {
                return Err(empty);
            }
        }
        Ok(())
    }
}

impl<R: BufRead, T: Record> Iterator for Records<R, T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.read_record().transpose();
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

impl Cursor<'_> {
    /// `10.0.0.0/8`
    pub(crate) fn prefix(&mut self) -> Result<Prefix, Fault> {
        let mut octets = [0; 4];
        for (i, octet) in octets.iter_mut().enumerate() {
            if i > 0 {
                self.expect(b'.', "a dot")?;
            }
            *octet = self.byte("a byte of an address")?;
        }
        self.expect(b'/', "a slash and a prefix length")?;
        let len = self.decimal("a prefix length", 32)? as u8;
        Ok(Prefix::new(u32::from_be_bytes(octets), len).unwrap_or(Prefix::ANY))
    }

    /// `80 : 443`
    pub(crate) fn port_range(&mut self) -> Result<PortRange, Fault> {
        let start = self.at;
        let low = self.port()?;
        self.skip_blanks();
        self.expect(b':', "a colon and the last port")?;
        self.skip_blanks();
        let high = self.port()?;
        PortRange::new(low, high).ok_or_else(|| {
            self.at = start;
            Fault::BackwardRange { low, high }
        })
    }

    /// `0x06/0xFF`
    pub(crate) fn protocol(&mut self) -> Result<Option<u8>, Fault> {
        let number = self.hexadecimal("a protocol", u8::MAX.into())? as u8;
        self.expect(b'/', "a slash and the protocol's mask")?;
        let start = self.at;
        match self.hexadecimal("a protocol mask", u8::MAX.into())? as u8 {
            0xff => Ok(Some(number)),
            0 => Ok(None),
            mask => {
                self.at = start;
                Err(Fault::ProtocolMask(mask))
            }
        }
    }

    /// `0x1000/0x1000`
    pub(crate) fn flags(&mut self) -> Result<Flags, Fault> {
        let value = self.hexadecimal("the value of flags", u16::MAX.into())? as u16;
        self.expect(b'/', "a slash and the mask of the flags")?;
        let mask = self.hexadecimal("the mask of flags", u16::MAX.into())? as u16;
        Ok(Flags { value, mask })
    }
}

impl sealed::Parse for Filter {
    fn parse(line: &mut Cursor<'_>) -> Result<Filter, Fault> {
        line.expect(b'@', "@ at the beginning of a filter")?;
        let source = line.prefix()?;
        line.next_field()?;
        let destination = line.prefix()?;
        line.next_field()?;
        let source_ports = line.port_range()?;
        line.next_field()?;
        let destination_ports = line.port_range()?;
        line.next_field()?;
        let protocol = line.protocol()?;
        line.skip_blanks();
        let flags = if line.peek().is_some() { line.flags()? } else { Flags::default() };
        Ok(Filter { source, destination, source_ports, destination_ports, protocol, flags })
    }
}

impl sealed::Parse for TracePacket {
    fn parse(line: &mut Cursor<'_>) -> Result<TracePacket, Fault> {
        let source = line.decimal("a source address in decimal", u32::MAX)?;
        line.next_field()?;
        let destination = line.decimal("a destination address in decimal", u32::MAX)?;
        line.next_field()?;
        let source_port = line.port()?;
        line.next_field()?;
        let destination_port = line.port()?;
        line.next_field()?;
        let protocol = line.byte("a protocol")?;
        line.next_field()?;
        let filter = if line.line[line.at..].starts_with(b"-1") {
            line.at += 2;
            None
        } else {
            Some(line.decimal("a filter's number", u32::MAX)?)
        };
        Ok(TracePacket { source, destination, source_port, destination_port, protocol, filter })
    }
}

#[cfg(test)]
mod tests;
