//! Lines of a text file and places in them: what the readers of this crate share.
//!
//! A reader goes through a [`Lines`], which bounds what a file can make it keep, and through each
//! line with a [`Cursor`], which stands at the fault after one. So an error always has its line
//! and column.

use std::fmt;
use std::io::{self, BufRead};

use crate::random::Share;

/// Bytes of a line at most. The longest line that the formats can make has under 120; the rest
/// is room for blanks.
pub(crate) const LINE_BYTES_MAX: usize = 1024;

/// Lines at most: well beyond any set in use, well below what would fill a memory.
pub const LINES_MAX: u32 = 1 << 24;

/// Why a file could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file failed.
    Io {
        /// The line that was being read, from 1.
        line: u32,
        /// What happened.
        source: io::Error,
    },
    /// A line is not of the format.
    Malformed {
        /// The line, from 1.
        line: u32,
        /// The byte of the line, from 1.
        column: usize,
        /// What is wrong there.
        fault: Fault,
    },
}

/// What is wrong at a place of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Something else should stand here.
    Wanted(&'static str),
    /// A number is over its limit.
    Over {
        /// What it counts.
        what: &'static str,
        /// The limit.
        max: u32,
    },
    /// The protocol's mask is neither 0xFF nor 0x00.
    ProtocolMask(u8),
    /// A range whose first port is over its last.
    BackwardRange {
        /// First port.
        low: u16,
        /// Last port.
        high: u16,
    },
    /// An empty line with lines after it.
    EmptyLine,
    /// The line goes on and on.
    LineTooLong,
    /// The file goes on and on.
    TooManyLines,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io { line, source } => write!(f, "line {line}: {source}"),
            ReadError::Malformed { line, column, fault } => {
                write!(f, "line {line}, column {column}: {fault}")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wanted(what) => write!(f, "wanted {what}"),
            Fault::Over { what, max } => write!(f, "{what} is over {max}"),
            Fault::ProtocolMask(mask) => {
                write!(f, "protocol mask 0x{mask:02x}: wanted 0xff (this protocol) or 0x00 (all)")
            }
            Fault::BackwardRange { low, high } => {
                write!(f, "the range {low} : {high} ends before it begins")
            }
            Fault::EmptyLine => write!(f, "empty line; they may stand only at the end"),
            Fault::LineTooLong => write!(f, "the line is longer than {LINE_BYTES_MAX} bytes"),
            Fault::TooManyLines => write!(f, "more than {LINES_MAX} lines"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io { source, .. } => Some(source),
            ReadError::Malformed { .. } => None,
        }
    }
}

/// The lines of a file, one after the other, without their ends.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u32,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Lines { reader, buffer: Vec::new(), number: 0 }
    }

    /// Goes on to the next line; `false` at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, ReadError> {
        self.number += 1;
        self.buffer.clear();
        let limit = LINE_BYTES_MAX as u64 + 2;
        let read = io::Read::take(&mut self.reader, limit).read_until(b'\n', &mut self.buffer);
        if read.map_err(|source| ReadError::Io { line: self.number, source })? == 0 {
            return Ok(false);
        }
        while let Some(b'\n' | b'\r') = self.buffer.last() {
            self.buffer.pop();
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(self.malformed(LINE_BYTES_MAX, Fault::LineTooLong));
        }
        if self.number > LINES_MAX {
            return Err(self.malformed(0, Fault::TooManyLines));
        }
        Ok(true)
    }

    /// The current line's number, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The current line.
    pub(crate) fn line(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads the whole current line by `parse`.
    pub(crate) fn parse<T>(
        &self,
        parse: impl FnOnce(&mut Cursor<'_>) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        let mut cursor = Cursor { line: &self.buffer, at: 0 };
        let parsed = parse(&mut cursor).and_then(|value| cursor.expect_end().map(|()| value));
        parsed.map_err(|fault| self.malformed(cursor.at, fault))
    }

    /// The error of a fault at byte `at` of the current line.
    pub(crate) fn malformed(&self, at: usize, fault: Fault) -> ReadError {
        ReadError::Malformed { line: self.number, column: at + 1, fault }
    }
}

/// A place in a line. After a fault it stands where the fault is. (Public since the sealed trait
/// of records names it; this module is not.)
#[derive(Debug)]
#[allow(unreachable_pub)]
pub struct Cursor<'a> {
    /// The line.
    pub(crate) line: &'a [u8],
    /// The byte to be read next.
    pub(crate) at: usize,
}

impl Cursor<'_> {
    pub(crate) fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    pub(crate) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes on to the next field.
    pub(crate) fn next_field(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b' ' | b'\t') => {
                self.skip_blanks();
                Ok(())
            }
            _ => Err(Fault::Wanted("a tab and a further field")),
        }
    }

    /// Goes on to the next field when there is one.
    pub(crate) fn has_more_fields(&mut self) -> bool {
        let parted = matches!(self.peek(), Some(b' ' | b'\t'));
        self.skip_blanks();
        parted && self.peek().is_some()
    }

    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(Fault::Wanted(what));
        }
        self.at += 1;
        Ok(())
    }

    pub(crate) fn expect_end(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if self.at == self.line.len() { Ok(()) } else { Err(Fault::Wanted("the end of the line")) }
    }

    /// A decimal number of at most `max`.
    pub(crate) fn decimal(&mut self, what: &'static str, max: u32) -> Result<u32, Fault> {
        self.digits(what, max, 10)
    }

    /// A number like `0x06` of at most `max`.
    pub(crate) fn hexadecimal(&mut self, what: &'static str, max: u32) -> Result<u32, Fault> {
        if self.line[self.at..].starts_with(b"0x") || self.line[self.at..].starts_with(b"0X") {
            self.at += 2;
            self.digits(what, max, 16)
        } else {
            Err(Fault::Wanted("a number that begins with 0x"))
        }
    }

    pub(crate) fn digits(&mut self, what: &'static str, max: u32, radix: u32) -> Result<u32, Fault> {
        let start = self.at;
        let mut value: u32 = 0;
        while let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(radix)) {
            let longer = value.checked_mul(radix).and_then(|v| v.checked_add(digit));
            match longer {
                Some(longer) if longer <= max => value = longer,
                _ => {
                    self.at = start;
                    return Err(Fault::Over { what, max });
                }
            }
            self.at += 1;
        }
        if self.at == start { Err(Fault::Wanted(what)) } else { Ok(value) }
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, Fault> {
        Ok(self.decimal(what, u8::MAX.into())? as u8)
    }

    pub(crate) fn port(&mut self) -> Result<u16, Fault> {
        Ok(self.decimal("a port", u16::MAX.into())? as u16)
    }

    /// A share from 0 to 1, like `0.25`. Digits behind the ninth are too small to matter.
    pub(crate) fn share(&mut self) -> Result<Share, Fault> {
        let start = self.at;
        let over = Fault::Over { what: "a share", max: 1 };
        let mut billionths = self.decimal("a share between 0 and 1", u32::MAX)?;
        if billionths > 1 {
            self.at = start;
            return Err(over);
        }
        billionths *= 1_000_000_000;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let mut unit = 100_000_000;
            while let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(10)) {
                billionths += digit * unit;
                unit /= 10;
                self.at += 1;
            }
        }
        Share::from_billionths(billionths).ok_or_else(|| {
            self.at = start;
            over
        })
    }
}
