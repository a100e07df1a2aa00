//! Kinds of values: which texts an option takes, and how its value is printed.
//!
//! A kind is both directions at once, and the law between them is that reading what was printed
//! gives the value back.

use std::fmt::Write;

use crate::model::Family;
use crate::names::{IcmpName, port_of_service, protocol_number};
use crate::value::Value;

use super::address::{parse_address, parse_network, parse_short_address, write_address, write_network};

/// A kind of value.
#[derive(Debug, Clone, Copy)]
pub enum ValueKind {
    /// No value.
    Flag,
    /// A number.
    Number {
        /// Lowest.
        min: u64,
        /// Highest.
        max: u64,
        /// How it is printed.
        radix: Radix,
    },
    /// `n`, `lo:hi`, `lo:`, `:hi`.
    Range {
        /// Highest.
        max: u64,
        /// What stands between the ends.
        between: char,
    },
    /// A port or `lo:hi`, by number or service name.
    Ports,
    /// A port or `lo-hi`.
    NatPorts,
    /// At most 15 ports, where a range takes two places.
    PortList,
    /// Text.
    Text {
        /// Shortest, in bytes.
        min: usize,
        /// Longest, in bytes.
        max: usize,
        /// What is longer is cut and not refused.
        cut: bool,
        /// When it is put in quotes.
        quote: Quote,
    },
    /// A name and a second word.
    Pair(&'static str),
    /// An address, or a network with `/length` or `/mask`.
    Network {
        /// The length of a single address is printed as well.
        full_shown: bool,
        /// Bits beyond the mask are kept, though they mean nothing.
        host_bits_kept: bool,
    },
    /// An address.
    Address,
    /// A mask in the form of an address.
    Netmask,
    /// `first-last`.
    AddressRange,
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
    /// `value[/mask]`.
    Masked {
        /// Highest value and mask.
        max: u32,
        /// The full mask is printed as well.
        full_shown: bool,
        /// Hexadecimal digits printed at least.
        digits: usize,
    },
    /// One of several names.
    Choice(&'static [(&'static str, u64)]),
    /// One of several names, in this case of letters.
    Exact(&'static [(&'static str, u64)]),
    /// One of several names, or the beginning of one: the first that begins so.
    ChoiceByStart(&'static [(&'static str, u64)]),
    /// One of several names or a number, printed as a number.
    NumberOrName {
        /// Highest number.
        max: u64,
        /// The names.
        names: &'static [(&'static str, u64)],
        /// How it is printed.
        radix: Radix,
    },
    /// Names with commas between; bit numbers.
    Set(&'static [(&'static str, u64)]),
    /// The same, in this case of letters.
    ExactSet(&'static [(&'static str, u64)]),
    /// Names or beginnings of names with commas between; bit numbers.
    SetByStart(&'static [(&'static str, u64)]),
    /// A protocol by number or name, printed as a number.
    Protocol,
    /// `mask comp`.
    TcpFlags,
    /// A type, `type/code`, or a name.
    Icmp(&'static [IcmpName]),
    /// `n/unit`.
    Rate,
    /// What one function reads and another one writes.
    Custom(&'static CustomKind),
}

/// A kind of its own.
#[derive(Debug)]
pub struct CustomKind {
    /// What a reader should write, for messages and help.
    pub hint: &'static str,
    /// Reads.
    pub parse: fn(&str, Family) -> Result<Value, ValueFault>,
    /// Writes.
    pub write: fn(&Value, Family, &mut String),
}

/// How a number is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Radix {
    /// `42`
    Decimal,
    /// `0x2a`, with at least so many digits.
    Hex(usize),
}

/// When text is put in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// When it holds anything besides letters, digits, `-` and `_`.
    Careful,
    /// When it would not be read as one word otherwise.
    Needed,
    /// Always.
    Always,
}

/// Why a text is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueFault {
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub help: Option<String>,
    /// What the text means nevertheless, so that reading can go on with it.
    pub meant: Option<Value>,
}

impl From<String> for ValueFault {
    fn from(message: String) -> ValueFault {
        ValueFault { message, help: None, meant: None }
    }
}

impl ValueFault {
    /// A fault with its remedy.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> ValueFault {
        ValueFault { message: message.into(), help: Some(help.into()), meant: None }
    }
}

impl ValueKind {
    /// A decimal number up to `max`.
    pub const fn number(max: u64) -> ValueKind {
        ValueKind::Number { min: 0, max, radix: Radix::Decimal }
    }

    /// A decimal number within bounds.
    pub const fn number_in(min: u64, max: u64) -> ValueKind {
        ValueKind::Number { min, max, radix: Radix::Decimal }
    }

    /// A number up to `max`, printed in hexadecimal with at least so many digits.
    pub const fn hex(max: u64, digits: usize) -> ValueKind {
        ValueKind::Number { min: 0, max, radix: Radix::Hex(digits) }
    }

    /// `lo:hi` up to `max`.
    pub const fn range(max: u64) -> ValueKind {
        ValueKind::Range { max, between: ':' }
    }

    /// Text of at most `max` bytes, quoted when it has to be.
    pub const fn text(max: usize) -> ValueKind {
        ValueKind::Text { min: 0, max, cut: false, quote: Quote::Needed }
    }

    /// Text of at most `max` bytes, quoted when it holds anything unusual.
    pub const fn careful_text(max: usize) -> ValueKind {
        ValueKind::Text { min: 0, max, cut: false, quote: Quote::Careful }
    }

    /// A network that is masked, printed with its length.
    pub const NETWORK: ValueKind = ValueKind::Network { full_shown: true, host_bits_kept: false };

    /// `value/mask` of 32 bits, whose full mask is not printed.
    pub const MARK: ValueKind = ValueKind::Masked { max: u32::MAX, full_shown: false, digits: 0 };

    /// `value/mask` of 32 bits, whose mask is always printed.
    pub const XMARK: ValueKind = ValueKind::Masked { max: u32::MAX, full_shown: true, digits: 0 };

    /// An interface name.
    pub const INTERFACE: ValueKind = ValueKind::text(15);

    /// How many words a value is.
    pub fn word_count(&self) -> usize {
        match self {
            ValueKind::Flag => 0,
            ValueKind::Pair(_) | ValueKind::TcpFlags => 2,
            _ => 1,
        }
    }

    /// What a reader should write in the value's place.
    pub fn hint(&self) -> &'static str {
        match self {
            ValueKind::Flag => "",
            ValueKind::Number { .. } => "NUMBER",
            ValueKind::Range { .. } => "NUMBER[:NUMBER]",
            ValueKind::Ports => "PORT[:PORT]",
            ValueKind::NatPorts => "PORT[-PORT]",
            ValueKind::PortList => "PORT[:PORT][,…]",
            ValueKind::Text { .. } => "TEXT",
            ValueKind::Pair(hint) => hint,
            ValueKind::Network { .. } => "ADDRESS[/MASK]",
            ValueKind::Address => "ADDRESS",
            ValueKind::Netmask => "MASK",
            ValueKind::AddressRange => "ADDRESS[-ADDRESS]",
            ValueKind::Mac => "XX:XX:XX:XX:XX:XX",
            ValueKind::Masked { .. } => "VALUE[/MASK]",
            ValueKind::Choice(_) | ValueKind::Exact(_) | ValueKind::ChoiceByStart(_) => "NAME",
            ValueKind::NumberOrName { .. } => "NUMBER|NAME",
            ValueKind::Set(_) | ValueKind::ExactSet(_) | ValueKind::SetByStart(_) => "NAME[,…]",
            ValueKind::Protocol => "PROTOCOL",
            ValueKind::TcpFlags => "FLAGS FLAGS",
            ValueKind::Icmp(_) => "TYPE[/CODE]",
            ValueKind::Rate => "NUMBER[/second|/minute|/hour|/day]",
            ValueKind::Custom(custom) => custom.hint,
        }
    }

    /// The value that the words (as many as [`word_count`](Self::word_count) says) mean.
    pub fn parse(&self, words: &[&str], family: Family) -> Result<Value, ValueFault> {
        let text = words.first().copied().unwrap_or("");
        match *self {
            ValueKind::Flag => Ok(Value::Flag),
            ValueKind::Number { min, max, .. } => number_within(text, min, max).map(Value::Number),
            ValueKind::Range { max, between } => parse_range(text, max, between),
            ValueKind::Ports => parse_ports(text),
            ValueKind::NatPorts => parse_nat_ports(text),
            ValueKind::PortList => parse_port_list(text),
            ValueKind::Text { min, max, cut, .. } => {
                if text.len() < min {
                    return Err(String::from("the text is empty").into());
                }
                parse_text(text, max, cut)
            }
            ValueKind::Pair(_) => Ok(Value::Pair(Box::new((text.into(), words[1].into())))),
            ValueKind::Network { host_bits_kept, .. } => {
                let (address, mask) = parse_whole_network(text, family)?;
                Ok(Value::Network { address: if host_bits_kept { address } else { address & mask }, mask })
            }
            ValueKind::Address => {
                let address = if text == "unspecified" { 0 } else { parse_address(text, family)? };
                Ok(Value::Network { address, mask: family.full_mask() })
            }
            ValueKind::Netmask => {
                let mask = if text == "full" { family.full_mask() } else { parse_address(text, family)? };
                Ok(Value::Network { address: mask, mask: family.full_mask() })
            }
            ValueKind::AddressRange => parse_address_range(text, family),
            ValueKind::Mac => parse_mac(text).map(Value::Mac),
            ValueKind::Masked { max, .. } => parse_masked(text, max),
            ValueKind::Choice(names) => parse_choice(text, names).map(Value::Number),
            ValueKind::Exact(names) => parse_exact(text, names).map(Value::Number),
            ValueKind::ChoiceByStart(names) => parse_choice_by_start(text, names).map(Value::Number),
            ValueKind::NumberOrName { max, names, .. } => match parse_number(text) {
                Some(_) => number_within(text, 0, max).map(Value::Number),
                None => parse_exact(text, names).map(Value::Number),
            },
            ValueKind::Set(names) => parse_set(text, names, parse_choice),
            ValueKind::ExactSet(names) => parse_set(text, names, parse_exact),
            ValueKind::SetByStart(names) => parse_set(text, names, parse_choice_by_start),
            ValueKind::Protocol => match protocol_number(text) {
                Some(number) => Ok(Value::Number(u64::from(number))),
                None => Err(format!("`{text}` is no protocol").into()),
            },
            ValueKind::TcpFlags => {
                Ok(Value::TcpFlags { mask: parse_flags(text)?, set: parse_flags(words[1])? })
            }
            ValueKind::Icmp(names) => parse_icmp(text, names),
            ValueKind::Rate => parse_rate(text),
            ValueKind::Custom(custom) => (custom.parse)(text, family),
        }
    }

    /// Writes a value as the words that mean it.
    pub fn write(&self, value: &Value, family: Family, out: &mut String) {
        match (*self, value) {
            (ValueKind::Number { radix, .. } | ValueKind::NumberOrName { radix, .. }, Value::Number(n)) => {
                write_number(*n, radix, out);
            }
            (ValueKind::Range { between, .. }, Value::Range(lo, hi)) => write_range(*lo, *hi, between, out),
            (ValueKind::Ports, Value::Range(lo, hi)) => write_range(*lo, *hi, ':', out),
            (ValueKind::NatPorts, Value::Range(lo, hi)) => write_range(*lo, *hi, '-', out),
            (ValueKind::PortList, Value::Ranges(ranges)) => {
                for (i, (lo, hi)) in ranges.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_range(*lo, *hi, ':', out);
                }
            }
            (ValueKind::Text { quote, .. }, Value::Text(text)) => write_text(text, quote, out),
            (ValueKind::Pair(_), Value::Pair(pair)) => {
                write_text(&pair.0, Quote::Needed, out);
                out.push(' ');
                write_text(&pair.1, Quote::Needed, out);
            }
            (ValueKind::Pair(_), Value::MatchSet(bound)) => {
                write_text(&bound.words.0, Quote::Needed, out);
                out.push(' ');
                write_text(&bound.words.1, Quote::Needed, out);
            }
            (ValueKind::Network { full_shown, .. }, Value::Network { address, mask }) => {
                if !full_shown && *mask == family.full_mask() {
                    write_address(*address, family, out);
                } else {
                    write_network(*address, *mask, family, out);
                }
            }
            (ValueKind::Address | ValueKind::Netmask, Value::Network { address, .. }) => {
                write_address(*address, family, out);
            }
            (ValueKind::AddressRange, Value::AddressRange(lo, hi)) => {
                write_address(*lo, family, out);
                out.push('-');
                write_address(*hi, family, out);
            }
            (ValueKind::Mac, Value::Mac(bytes)) => {
                for (i, byte) in bytes.iter().enumerate() {
                    let colon = if i == 0 { "" } else { ":" };
                    let _ = write!(out, "{colon}{byte:02x}");
                }
            }
            (ValueKind::Masked { max, full_shown, digits }, Value::Masked { value, mask }) => {
                write_number(u64::from(*value), Radix::Hex(digits), out);
                if full_shown || *mask != max {
                    out.push('/');
                    write_number(u64::from(*mask), Radix::Hex(digits), out);
                }
            }
            (
                ValueKind::Choice(names) | ValueKind::Exact(names) | ValueKind::ChoiceByStart(names),
                Value::Number(n),
            ) => match names.iter().find(|(_, value)| value == n) {
                Some((name, _)) => out.push_str(name),
                None => write_number(*n, Radix::Decimal, out),
            },
            (
                ValueKind::Set(names) | ValueKind::ExactSet(names) | ValueKind::SetByStart(names),
                Value::Set(set),
            ) => write_set(*set, names, out),
            (ValueKind::Protocol, Value::Number(n)) => write_number(*n, Radix::Decimal, out),
            (ValueKind::TcpFlags, Value::TcpFlags { mask, set }) => {
                write_flags(*mask, out);
                out.push(' ');
                write_flags(*set, out);
            }
            (ValueKind::Icmp(names), Value::IcmpType { kind, codes }) => {
                write_icmp(*kind, *codes, names, out);
            }
            (ValueKind::Rate, Value::Rate(period)) => write_rate(*period, out),
            (ValueKind::Custom(custom), value) => (custom.write)(value, family, out),
            // A value of another kind can only be made by hand; what it is, is printed.
            (_, Value::Flag) => {}
            (_, value) => {
                let _ = write!(out, "{value:?}");
            }
        }
    }
}

/// A number as C reads it: decimal, `0x…` hexadecimal, or `0…` octal.
pub fn parse_number(text: &str) -> Option<u64> {
    let digits_in = |digits: &str, radix| {
        let sound = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        sound.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
    };
    match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => digits_in(&text[2..], 16),
        [b'0', _, ..] => digits_in(&text[1..], 8),
        few @ [b'0'..=b'9', ..] if few.len() < 10 => few.iter().try_fold(0, |n, b| match b {
            b'0'..=b'9' => Some(10 * n + u64::from(b - b'0')),
            _ => None,
        }),
        _ => digits_in(text, 10),
    }
}

/// The texts before and behind the first such byte, an ASCII character. The standard library's
/// search is made for long texts; those of values have a handful of bytes.
pub(crate) fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Like [`parse_network`], but every byte of the address must be written, and its bits beyond
/// the mask are kept.
fn parse_whole_network(text: &str, family: Family) -> Result<(u128, u128), ValueFault> {
    let (_, mask) = parse_network(text, family)?;
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    if mask == 0 {
        Ok((parse_address(address, family).unwrap_or(0), 0))
    } else {
        Ok((parse_address(address, family)?, mask))
    }
}

/// A number within bounds.
pub fn number_within(text: &str, min: u64, max: u64) -> Result<u64, ValueFault> {
    match parse_number(text) {
        Some(n) if min <= n && n <= max => Ok(n),
        Some(n) if n < min => Err(format!("{n} is below {min}").into()),
        Some(n) => Err(format!("{n} is above {max}").into()),
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("`{text}` is no number up to {max}").into())
        }
        None => Err(format!("`{text}` is no number").into()),
    }
}

fn write_number(n: u64, radix: Radix, out: &mut String) {
    let _ = match radix {
        Radix::Decimal => write!(out, "{n}"),
        Radix::Hex(digits) => write!(out, "0x{n:0digits$x}"),
    };
}

fn write_range(lo: u64, hi: u64, between: char, out: &mut String) {
    let _ = if lo == hi { write!(out, "{lo}") } else { write!(out, "{lo}{between}{hi}") };
}

fn rising(lo: u64, hi: u64) -> Result<Value, ValueFault> {
    if lo > hi {
        let help = format!("put the lower end first: {hi}, then {lo}");
        let fault = ValueFault::new(format!("the range {lo} to {hi} holds nothing"), help);
        return Err(ValueFault { meant: Some(Value::Range(lo, hi)), ..fault });
    }
    Ok(Value::Range(lo, hi))
}

fn parse_range(text: &str, max: u64, between: char) -> Result<Value, ValueFault> {
    let Some((lo, hi)) = text.split_once(between) else {
        let n = number_within(text, 0, max)?;
        return Ok(Value::Range(n, n));
    };
    let lo = if lo.is_empty() { 0 } else { number_within(lo, 0, max)? };
    let hi = if hi.is_empty() { max } else { number_within(hi, 0, max)? };
    rising(lo, hi)
}

/// A port by number or service name.
pub fn parse_port(text: &str) -> Result<u64, ValueFault> {
    match parse_number(text) {
        Some(n) if n <= 65535 => Ok(n),
        Some(n) => Err(format!("port {n} is above 65535").into()),
        None => match port_of_service(text) {
            Some(port) => Ok(u64::from(port)),
            None => Err(ValueFault::new(
                format!("`{text}` is no port and no known service"),
                "write the port's number",
            )),
        },
    }
}

fn parse_ports(text: &str) -> Result<Value, ValueFault> {
    let Some((lo, hi)) = split_at(text, b':') else {
        let port = parse_port(text)?;
        return Ok(Value::Range(port, port));
    };
    let lo = if lo.is_empty() { 0 } else { parse_port(lo)? };
    let hi = if hi.is_empty() { 65535 } else { parse_port(hi)? };
    rising(lo, hi)
}

/// `lo-hi` by number, or one port by number or name.
fn parse_nat_ports(text: &str) -> Result<Value, ValueFault> {
    if let Some((lo, hi)) = text.split_once('-')
        && parse_number(lo).is_some()
    {
        return rising(number_within(lo, 0, 65535)?, number_within(hi, 0, 65535)?);
    }
    let port = parse_port(text)?;
    Ok(Value::Range(port, port))
}

fn parse_port_list(text: &str) -> Result<Value, ValueFault> {
    let mut ranges = Vec::new();
    let mut places = 0;
    for part in text.split(',') {
        let (lo, hi) = part.split_once(':').unwrap_or((part, part));
        places += if part.contains(':') { 2 } else { 1 };
        let (lo, hi) = (parse_port(lo)?, parse_port(hi)?);
        rising(lo, hi)?;
        ranges.push((lo, hi));
    }
    if places > 15 {
        return Err(ValueFault::new(
            format!("{places} ports, where a range counts as two, are above 15"),
            "split the list over two rules",
        ));
    }
    Ok(Value::Ranges(ranges.into()))
}

fn parse_text(text: &str, max: usize, cut: bool) -> Result<Value, ValueFault> {
    if text.len() <= max {
        return Ok(Value::Text(text.into()));
    }
    if !cut {
        return Err(format!("text of {} bytes is above {max}", text.len()).into());
    }
    let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    Ok(Value::Text(text[..end].into()))
}

/// Writes text as one word.
pub fn write_text(text: &str, quote: Quote, out: &mut String) {
    let usual = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let breaks_word = |b: u8| matches!(b, b' ' | b'\t' | b'"' | b'\\') || b.is_ascii_control();
    let quoted = text.is_empty()
        || text == "!"
        || match quote {
            Quote::Careful => !text.bytes().all(usual),
            Quote::Needed => text.bytes().any(breaks_word),
            Quote::Always => true,
        };
    if !quoted {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn parse_address_range(text: &str, family: Family) -> Result<Value, ValueFault> {
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    Ok(Value::AddressRange(parse_short_address(lo, family)?, parse_short_address(hi, family)?))
}

fn parse_mac(text: &str) -> Result<[u8; 6], ValueFault> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().unwrap_or("");
        let sound = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        match u8::from_str_radix(part, 16) {
            Ok(n) if sound => *byte = n,
            _ => {
                return Err(ValueFault::new(
                    format!("`{text}` is no Ethernet address"),
                    "write six bytes in hexadecimal, as 02:00:5e:00:00:01",
                ));
            }
        }
    }
    match parts.next() {
        None => Ok(bytes),
        Some(_) => Err(format!("`{text}` has more than six bytes").into()),
    }
}

fn parse_masked(text: &str, max: u32) -> Result<Value, ValueFault> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value, number_within(mask, 0, u64::from(max))?),
        None => (text, u64::from(max)),
    };
    let value = number_within(value, 0, u64::from(max))?;
    Ok(Value::Masked { value: low_u32(value), mask: low_u32(mask) })
}

/// The low 32 bits.
pub(super) fn low_u32(n: u64) -> u32 {
    (n & 0xffff_ffff) as u32
}

/// The number of a name, in this case of letters.
fn parse_exact(text: &str, names: &[(&str, u64)]) -> Result<u64, ValueFault> {
    match names.iter().find(|(name, _)| *name == text) {
        Some((_, n)) => Ok(*n),
        None => Err(ValueFault::new(format!("`{text}` is not among what may stand here"), name_list(names))),
    }
}

/// The number of a name, in any case.
fn parse_choice(text: &str, names: &[(&str, u64)]) -> Result<u64, ValueFault> {
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, n)| *n).ok_or_else(|| {
        ValueFault::new(format!("`{text}` is not among what may stand here"), name_list(names))
    })
}

/// The number of a name, or of the first name that begins so.
fn parse_choice_by_start(text: &str, names: &[(&str, u64)]) -> Result<u64, ValueFault> {
    let begins = |name: &str| {
        !text.is_empty() && name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
    };
    match names.iter().find(|(name, _)| begins(name)) {
        Some((_, n)) => Ok(*n),
        None => parse_choice(text, names),
    }
}

fn name_list(names: &[(&str, u64)]) -> String {
    let all: Vec<&str> = names.iter().map(|(name, _)| *name).take(24).collect();
    format!("one of {}", all.join(", "))
}

fn parse_set(text: &str, names: &[(&str, u64)], choice: ChoiceParser) -> Result<Value, ValueFault> {
    let mut set = 0;
    for part in text.split(',') {
        set |= 1u64 << (choice(part, names)? & 63);
    }
    Ok(Value::Set(set))
}

/// How the number of a name is found.
type ChoiceParser = fn(&str, &[(&str, u64)]) -> Result<u64, ValueFault>;

fn write_set(set: u64, names: &[(&str, u64)], out: &mut String) {
    let mut done = 0u64;
    for (name, n) in names {
        let bit = 1u64 << (n & 63);
        if set & bit != 0 && done & bit == 0 {
            if done != 0 {
                out.push(',');
            }
            out.push_str(name);
            done |= bit;
        }
    }
}

/// TCP flags by the order in which they are printed.
const FLAGS: [(&str, u8); 6] = [("FIN", 1), ("SYN", 2), ("RST", 4), ("PSH", 8), ("ACK", 16), ("URG", 32)];

fn parse_flags(text: &str) -> Result<u8, ValueFault> {
    let mut flags = 0;
    for part in text.split(',') {
        flags |= match FLAGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)) {
            Some((_, bit)) => *bit,
            None if part.eq_ignore_ascii_case("ALL") => 0x3f,
            None if part.eq_ignore_ascii_case("NONE") => 0,
            None => {
                return Err(ValueFault::new(
                    format!("`{part}` is no TCP flag"),
                    "one of SYN, ACK, FIN, RST, URG, PSH, ALL, NONE",
                ));
            }
        };
    }
    Ok(flags)
}

fn write_flags(flags: u8, out: &mut String) {
    let mut between = "";
    for (name, bit) in FLAGS {
        if flags & bit != 0 {
            out.push_str(between);
            out.push_str(name);
            between = ",";
        }
    }
    if flags == 0 {
        out.push_str("NONE");
    }
}

fn parse_icmp(text: &str, names: &[IcmpName]) -> Result<Value, ValueFault> {
    let named = |n: &IcmpName| Value::IcmpType { kind: n.kind, codes: n.code.map_or((0, 255), |c| (c, c)) };
    if let Some(name) = names.iter().find(|n| n.name.eq_ignore_ascii_case(text)) {
        return Ok(named(name));
    }
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (text, None),
    };
    if let Some(n) = parse_number(kind) {
        let kind = u8::try_from(n).map_err(|_| format!("ICMP type {n} is above 255"))?;
        let codes = match code {
            Some(code) => {
                let code = number_within(code, 0, 255)? as u8;
                (code, code)
            }
            None => (0, 255),
        };
        return Ok(Value::IcmpType { kind, codes });
    }
    let begins = |n: &&IcmpName| {
        !text.is_empty() && n.name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
    };
    let mut found = names.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(named(name)),
        (Some(_), Some(_)) => Err(format!("ICMP type `{text}` may mean several").into()),
        (None, _) => Err(ValueFault::new(
            format!("`{text}` is no ICMP type"),
            "write a number, NUMBER/CODE, or a name such as echo-request",
        )),
    }
}

fn write_icmp(kind: u8, codes: (u8, u8), names: &[IcmpName], out: &mut String) {
    let any = names.first().is_some_and(|n| n.kind == 255);
    if any && kind == 255 && codes == (0, 255) {
        out.push_str("any");
        return;
    }
    let _ = write!(out, "{kind}");
    if codes != (0, 255) {
        let _ = write!(out, "/{}", codes.0);
    }
}

/// 1/10,000 seconds: what `limit` counts in.
const RATE_SCALE: u32 = 10_000;

/// Units of rates by rising length.
const UNITS: [(&str, &str, u32); 4] =
    [("sec", "second", 1), ("min", "minute", 60), ("hour", "hour", 3600), ("day", "day", 86400)];

fn parse_rate(text: &str) -> Result<Value, ValueFault> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    let begins = |long: &str| {
        !unit.is_empty() && long.get(..unit.len()).is_some_and(|start| start.eq_ignore_ascii_case(unit))
    };
    let Some((_, _, seconds)) = UNITS.iter().find(|(_, long, _)| begins(long)) else {
        return Err(ValueFault::new(
            format!("`{unit}` is no unit of time"),
            "one of second, minute, hour, day",
        ));
    };
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{count}` is no number").into());
    }
    match number_within(count.trim_start_matches('0'), 1, u64::from(u32::MAX))? {
        n if u64::from(RATE_SCALE * seconds) / n == 0 => Err(format!("rate {text} is too fast").into()),
        n => Ok(Value::Rate(low_u32(u64::from(RATE_SCALE * seconds) / n))),
    }
}

/// The longest unit in which the rate is a whole number, or nearly one.
fn write_rate(period: u32, out: &mut String) {
    let period = period.max(1);
    let rounds_badly = |long: u32| period > long || long / period < long % period;
    let mut unit = UNITS[3];
    for &(name, full, seconds) in UNITS[..3].iter().rev() {
        if rounds_badly(RATE_SCALE * seconds) {
            break;
        }
        unit = (name, full, seconds);
    }
    let _ = write!(out, "{}/{}", RATE_SCALE * unit.2 / period, unit.0);
}
