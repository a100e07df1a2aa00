//! Matches on the IP header, the payload, the frame and the packet's marks.

use crate::meaning::{Clause, Field, Residual, Test, ValueSet};
use crate::model::{Family, Setting};
use crate::value::Value;

use super::kind::{CustomKind, Quote, Radix, ValueFault, ValueKind, parse_number};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, Quirks, flag, option};

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "mark",
        help: "mark of the packet",
        options: &[option("mark", ValueKind::MARK, "mark & MASK equals VALUE")
            .not()
            .required()
            .tests(Field::Mark)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "length",
        help: "length of the IP packet",
        options: &[option("length", ValueKind::range(65535), "bytes").not().required().tests(Field::Length)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ttl",
        help: "time to live",
        families: Families::Only(Family::V4),
        options: &[
            option("ttl-eq", ValueKind::number(255), "equal").or(&["ttl"]).not().tests(Field::Ttl),
            option("ttl-lt", ValueKind::number(255), "below").clauses(below),
            option("ttl-gt", ValueKind::number(255), "above").clauses(above),
        ],
        laws: &[Law::AnyOf(&["ttl-eq", "ttl-lt", "ttl-gt"]), Law::OneOf(&["ttl-eq", "ttl-lt", "ttl-gt"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "hl",
        help: "hop limit",
        families: Families::Only(Family::V6),
        options: &[
            option("hl-eq", ValueKind::number(255), "equal").not().tests(Field::Ttl),
            option("hl-lt", ValueKind::number(255), "below").clauses(below),
            option("hl-gt", ValueKind::number(255), "above").clauses(above),
        ],
        laws: &[Law::AnyOf(&["hl-eq", "hl-lt", "hl-gt"]), Law::OneOf(&["hl-eq", "hl-lt", "hl-gt"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "dscp",
        help: "differentiated services code point",
        options: &[
            option("dscp", DSCP_NUMBER, "code point").not().clauses(dscp),
            option("dscp-class", ValueKind::Choice(DSCP_CLASSES), "class")
                .not()
                .short_for("dscp", Value::clone),
        ],
        laws: &[Law::AnyOf(&["dscp"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "tos",
        help: "type of service or traffic class",
        options: &[option("tos", ValueKind::Custom(&TOS), "tos & MASK equals VALUE")
            .not()
            .required()
            .tests(Field::Tos)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "pkttype",
        help: "link-layer packet type",
        options: &[option("pkt-type", ValueKind::Choice(PACKET_TYPES), "type")
            .not()
            .required()
            .tests(Field::PacketType)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "mac",
        help: "Ethernet source address",
        options: &[option("mac-source", ValueKind::Mac, "address").not().required().clauses(mac)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "string",
        help: "the packet holds a text",
        residual: Some(Residual::Pure),
        options: &[
            option("string", PATTERN, "text").not(),
            option("hex-string", PATTERN, "text with |hexadecimal bytes| in it").not(),
            option("algo", ValueKind::Exact(&[("bm", 0), ("kmp", 1)]), "how it is searched").required(),
            option("from", ValueKind::number(65535), "first byte looked at").hidden("0"),
            option("to", ValueKind::number(65535), "last byte looked at").hidden("65535"),
            flag("icase", "upper and lower case are the same"),
        ],
        laws: &[Law::AnyOf(&["string", "hex-string"]), Law::OneOf(&["string", "hex-string"])],
        quirks: Quirks::finish(string_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "u32",
        help: "arithmetic on the packet's bytes",
        residual: Some(Residual::Pure),
        options: &[option("u32", ValueKind::Custom(&U32_TEST), "LOCATION=RANGE[,…][&&…]").not().required()],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "bpf",
        help: "a BPF program says so",
        residual: Some(Residual::Pure),
        options: &[
            option("bytecode", ValueKind::Custom(&BYTECODE), "the program, as COUNT,CODE JT JF K,…"),
            option("object-pinned", ValueKind::text(511), "path of a pinned program"),
        ],
        laws: &[Law::AnyOf(&["bytecode", "object-pinned"]), Law::OneOf(&["bytecode", "object-pinned"])],
        ..ExtensionSpec::MATCH
    },
];

fn within(field: Field, lo: u128, hi: u128) -> Vec<Clause> {
    let set = if lo <= hi { vec![(lo, hi)] } else { Vec::new() };
    vec![vec![Test { field, negated: false, set: ValueSet::Ranges(set) }]]
}

fn below(setting: &Setting, _: Family) -> Vec<Clause> {
    match setting.value {
        Value::Number(0) => within(Field::Ttl, 1, 0),
        Value::Number(n) => within(Field::Ttl, 0, u128::from(n) - 1),
        _ => Vec::new(),
    }
}

fn above(setting: &Setting, _: Family) -> Vec<Clause> {
    match setting.value {
        Value::Number(n) => within(Field::Ttl, u128::from(n) + 1, 255),
        _ => Vec::new(),
    }
}

/// A code point, printed as two hexadecimal digits.
pub(super) const DSCP_NUMBER: ValueKind = ValueKind::Number { min: 0, max: 63, radix: Radix::Hex(2) };

/// Classes and their code points.
pub(super) const DSCP_CLASSES: &[(&str, u64)] = &[
    ("CS0", 0x00),
    ("CS1", 0x08),
    ("CS2", 0x10),
    ("CS3", 0x18),
    ("CS4", 0x20),
    ("CS5", 0x28),
    ("CS6", 0x30),
    ("CS7", 0x38),
    ("BE", 0x00),
    ("AF11", 0x0a),
    ("AF12", 0x0c),
    ("AF13", 0x0e),
    ("AF21", 0x12),
    ("AF22", 0x14),
    ("AF23", 0x16),
    ("AF31", 0x1a),
    ("AF32", 0x1c),
    ("AF33", 0x1e),
    ("AF41", 0x22),
    ("AF42", 0x24),
    ("AF43", 0x26),
    ("EF", 0x2e),
];

/// The code point is the upper six bits.
fn dscp(setting: &Setting, _: Family) -> Vec<Clause> {
    let Value::Number(n) = setting.value else { return Vec::new() };
    let set = ValueSet::Masked { value: u128::from(n) << 2, mask: 0xfc };
    vec![vec![Test { field: Field::Tos, negated: setting.negated, set }]]
}

/// A type of service by number, or by a name that leaves the upper two bits alone.
pub(super) static TOS: CustomKind = CustomKind {
    hint: "VALUE[/MASK]",
    parse: |text, family| {
        let named = TOS_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        match named {
            Some((_, value)) => Ok(Value::Masked { value: *value, mask: 0x3f }),
            None => TOS_NUMBER.parse(&[text], family),
        }
    },
    write: |value, family, out| TOS_NUMBER.write(value, family, out),
};

const TOS_NUMBER: ValueKind = ValueKind::Masked { max: 0xff, full_shown: true, digits: 2 };

const TOS_NAMES: [(&str, u32); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];

const PACKET_TYPES: &[(&str, u64)] =
    &[("unicast", 0), ("broadcast", 1), ("multicast", 2), ("host", 0), ("bcast", 1), ("mcast", 2)];

/// Negated or not, a packet without an Ethernet header does not match.
fn mac(setting: &Setting, _: Family) -> Vec<Clause> {
    const PRESENT: u128 = 1 << 48;
    let Value::Mac(bytes) = setting.value else { return Vec::new() };
    let address = bytes.iter().fold(PRESENT >> 48, |n, &b| n << 8 | u128::from(b));
    let equal =
        Test { field: Field::Mac, negated: setting.negated, set: ValueSet::Ranges(vec![(address, address)]) };
    if !setting.negated {
        return vec![vec![equal]];
    }
    let present =
        Test { field: Field::Mac, negated: false, set: ValueSet::Ranges(vec![(PRESENT, 2 * PRESENT - 1)]) };
    vec![vec![present], vec![equal]]
}

/// A program of classic BPF: how many instructions, then each as four numbers.
static BYTECODE: CustomKind = CustomKind {
    hint: "COUNT,CODE JT JF K,…",
    parse: |text, _: Family| {
        const PROGRAM_MAX: usize = 64;
        let mut parts = text.split(',');
        let count = parts.next().and_then(|n| n.trim().parse::<usize>().ok());
        let count = count.filter(|n| (1..=PROGRAM_MAX).contains(n));
        let Some(count) = count else {
            return Err(format!("a program begins with its length, 1 to {PROGRAM_MAX}").into());
        };
        let parts: Vec<&str> = parts.filter(|p| !p.trim().is_empty()).collect();
        if parts.len() != count {
            return Err(format!("the program has {} instructions and says {count}", parts.len()).into());
        }
        for part in parts {
            let numbers: Vec<u64> = part.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let words = part.split_whitespace().count();
            let sound = matches!(numbers[..], [code, jt, jf, k]
                if code <= 0xffff && jt <= 0xff && jf <= 0xff && k <= 0xffff_ffff);
            if !sound || words != 4 {
                return Err(format!("`{part}` is no instruction: CODE JT JF K").into());
            }
        }
        Ok(Value::Text(text.into()))
    },
    write: |value, family, out| {
        ValueKind::Text { min: 0, max: 0, cut: false, quote: Quote::Always }.write(value, family, out);
    },
};

const PATTERN: ValueKind = ValueKind::Text { min: 0, max: 1024, cut: false, quote: Quote::Always };

/// The longest text that the kernel looks for.
const PATTERN_BYTES_MAX: usize = 128;

/// A text of printable characters is a `--string`, any other one a `--hex-string`.
fn string_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let Some(s) = settings.iter_mut().find(|s| matches!(s.option.name, "string" | "hex-string")) else {
        return Ok(());
    };
    let Value::Text(text) = &s.value else { return Ok(()) };
    let bytes = if s.option.name == "string" { text.as_bytes().to_vec() } else { hex_pattern(text)? };
    if bytes.len() > PATTERN_BYTES_MAX {
        return Err(format!("a text of {} bytes is above {PATTERN_BYTES_MAX}", bytes.len()));
    }
    let printable = bytes.iter().all(|b| (b.is_ascii_graphic() || *b == b' ') && *b != b'\\');
    let (name, shown) = if printable {
        ("string", String::from_utf8_lossy(&bytes).into_owned())
    } else {
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        ("hex-string", format!("|{digits}|"))
    };
    if let Some(option) = context.spec.option(name) {
        s.option = option;
    }
    s.value = Value::Text(shown.into());
    Ok(())
}

/// The bytes of `text|0a 0b|text`.
fn hex_pattern(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (i, part) in text.split('|').enumerate() {
        if i % 2 == 0 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|b| *b != b' ').collect();
        for pair in digits.chunks(2) {
            let byte = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2);
            match byte.and_then(|p| u8::from_str_radix(p, 16).ok()) {
                Some(byte) => bytes.push(byte),
                None => return Err(format!("`{part}` is no sequence of hexadecimal bytes")),
            }
        }
    }
    if text.matches('|').count() % 2 == 1 {
        return Err("a | of the hexadecimal part has no partner".into());
    }
    Ok(bytes)
}

/// Tests of `u32`: numbers become hexadecimal, blanks vanish.
static U32_TEST: CustomKind = CustomKind {
    hint: "LOCATION=RANGE[,…][&&…]",
    parse: |text, _| canonical_u32(text).map(|t| Value::Text(t.into())),
    write: |value, family, out| {
        if let Value::Text(_) = value {
            ValueKind::Text { min: 0, max: 0, cut: false, quote: Quote::Always }.write(value, family, out);
        }
    },
};

/// ```text
/// tests    := test { "&&" test }        test     := location "=" range { "," range }
/// location := number { operator number }   operator := "&" "<<" ">>" "@"
/// range    := number [ ":" number ]
/// ```
fn canonical_u32(text: &str) -> Result<String, ValueFault> {
    let mut out = String::new();
    for (i, test) in text.split("&&").enumerate() {
        if i > 0 {
            out.push_str("&&");
        }
        let Some((location, ranges)) = test.split_once('=') else {
            return Err(ValueFault::new(format!("`{}` is no test", test.trim()), "write LOCATION=VALUE"));
        };
        push_location(location, &mut out)?;
        for (j, range) in ranges.split(',').enumerate() {
            out.push(if j == 0 { '=' } else { ',' });
            let (lo, hi) = range.split_once(':').map_or((range, None), |(lo, hi)| (lo, Some(hi)));
            push_u32(lo, &mut out)?;
            if let Some(hi) = hi {
                out.push(':');
                push_u32(hi, &mut out)?;
            }
        }
    }
    Ok(out)
}

fn push_location(location: &str, out: &mut String) -> Result<(), ValueFault> {
    let mut rest = location;
    loop {
        let end = rest.find(['&', '<', '>', '@']).unwrap_or(rest.len());
        push_u32(&rest[..end], out)?;
        rest = &rest[end..];
        let Some(operator) = ["<<", ">>", "&", "@"].into_iter().find(|op| rest.starts_with(op)) else {
            if rest.is_empty() {
                return Ok(());
            }
            return Err(format!("`{}` is no operator of u32", &rest[..1]).into());
        };
        out.push_str(operator);
        rest = &rest[operator.len()..];
    }
}

fn push_u32(text: &str, out: &mut String) -> Result<(), ValueFault> {
    match parse_number(text.trim()).and_then(|n| u32::try_from(n).ok()) {
        Some(n) => {
            out.push_str(&format!("{n:#x}"));
            Ok(())
        }
        None => Err(format!("`{}` is no number of 32 bits", text.trim()).into()),
    }
}
