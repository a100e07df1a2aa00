//! Matches that count, remember or draw: evaluating one changes something.

use crate::meaning::Residual;
use crate::model::{Family, Setting};
use crate::value::Value;

use super::kind::{CustomKind, Quote, ValueFault, ValueKind, number_within};
use super::spec::{ExtensionSpec, FinishContext, Law, Quirks, flag, option, setting};

const U32: u64 = u32::MAX as u64;

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "limit",
        help: "a token bucket: holds at most so often",
        residual: Some(Residual::Stateful),
        options: &[
            option("limit", ValueKind::Rate, "average rate").shown("3/hour"),
            option("limit-burst", ValueKind::number_in(1, 10000), "size of the bucket").hidden("5"),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "hashlimit",
        help: "a token bucket for each host, port or pair",
        residual: Some(Residual::Stateful),
        options: &[
            option("hashlimit-upto", ValueKind::Custom(&HASH_RATE), "holds up to this rate")
                .or(&["hashlimit"])
                .not(),
            option("hashlimit-above", ValueKind::Custom(&HASH_RATE), "holds above this rate").not(),
            option("hashlimit-burst", ValueKind::Custom(&BURST), "size of the bucket"),
            option("hashlimit-mode", ValueKind::ExactSet(HASH_MODES), "what has a bucket of its own"),
            option("hashlimit-name", ValueKind::text(255), "name of the table").required(),
            option("hashlimit-htable-size", ValueKind::number(U32), "buckets of the hash table").hidden("0"),
            option("hashlimit-htable-max", ValueKind::number(U32), "entries at most").hidden("0"),
            option(
                "hashlimit-htable-gcinterval",
                ValueKind::number_in(1, U32),
                "milliseconds between cleanings",
            )
            .hidden("1000"),
            option(
                "hashlimit-htable-expire",
                ValueKind::number_in(1, U32),
                "milliseconds an idle entry lives",
            ),
            option("hashlimit-srcmask", ValueKind::number(128), "prefix length of sources"),
            option("hashlimit-dstmask", ValueKind::number(128), "prefix length of destinations"),
            flag("hashlimit-rate-match", "the rate is measured, not paid for by tokens"),
            option("hashlimit-rate-interval", ValueKind::number_in(1, U32), "seconds measured").hidden("1"),
        ],
        laws: &[
            Law::AnyOf(&["hashlimit-upto", "hashlimit-above"]),
            Law::OneOf(&["hashlimit-upto", "hashlimit-above"]),
        ],
        quirks: Quirks::finish(hashlimit_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "recent",
        help: "a list of addresses seen",
        residual: Some(Residual::Stateful),
        options: &[
            flag("set", "put the address on the list").not(),
            flag("rcheck", "the address is on the list").not(),
            flag("update", "the address is on the list, and was seen now").not(),
            flag("remove", "the address was on the list, and is taken off").not(),
            option("seconds", ValueKind::number_in(1, U32), "seen within so many seconds"),
            flag("reap", "forget what is older than --seconds"),
            option("hitcount", ValueKind::number(65535), "seen so often").hidden("0"),
            flag("rttl", "with the same TTL"),
            option(
                "name",
                ValueKind::Text { min: 0, max: 199, cut: true, quote: Quote::Needed },
                "name of the list",
            )
            .shown("DEFAULT"),
            option("mask", ValueKind::Netmask, "bits of the address that count").shown("full"),
            flag("rsource", "the source address (default)"),
            flag("rdest", "the destination address"),
        ],
        laws: &[
            Law::AnyOf(&["set", "rcheck", "update", "remove"]),
            Law::OneOf(&["set", "rcheck", "update", "remove"]),
            Law::OneOf(&["rsource", "rdest"]),
            Law::Needs("reap", "seconds"),
        ],
        quirks: Quirks::finish(recent_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "statistic",
        help: "every n-th packet, or a random share of them",
        residual: Some(Residual::Stateful),
        options: &[
            option("mode", ValueKind::Exact(&[("random", 0), ("nth", 1)]), "which of the two").required(),
            option("probability", ValueKind::Custom(&PROBABILITY), "share of 0 to 1").not(),
            option("every", ValueKind::number_in(1, U32), "one packet of so many").not(),
            option("packet", ValueKind::number(U32), "which one, from 0"),
        ],
        laws: &[
            Law::AnyOf(&["probability", "every"]),
            Law::OneOf(&["probability", "every"]),
            Law::Needs("every", "packet"),
            Law::Needs("packet", "every"),
        ],
        quirks: Quirks::finish(statistic_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "quota",
        help: "holds until so many bytes have passed",
        residual: Some(Residual::Stateful),
        options: &[option("quota", ValueKind::number(u64::MAX), "bytes").not().required()],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "nfacct",
        help: "counts the packet on a named account",
        residual: Some(Residual::Stateful),
        options: &[option(
            "nfacct-name",
            ValueKind::Text { min: 1, max: 31, cut: false, quote: Quote::Needed },
            "name of the account",
        )
        .required()],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "rateest",
        help: "compares what rate estimators have measured",
        residual: Some(Residual::Pure),
        options: &[
            flag("rateest-delta", "compare the difference to the rates given"),
            option("rateest1", ValueKind::text(15), "name of the first estimator of two"),
            option("rateest", ValueKind::text(15), "name of the estimator"),
            option(
                "rateest-bps1",
                ValueKind::Custom(&BIT_RATE),
                "bits a second, by which the first is lowered",
            ),
            option("rateest-pps1", ValueKind::number(U32), "packets a second, by which the first is lowered"),
            flag("rateest-lt", "lower").not(),
            flag("rateest-gt", "higher").not(),
            flag("rateest-eq", "equal").not(),
            option("rateest-bps", ValueKind::Custom(&BIT_RATE), "than so many bits a second")
                .value_optional(),
            option("rateest-pps", ValueKind::number(U32), "than so many packets a second").value_optional(),
            option("rateest-bps2", ValueKind::Custom(&BIT_RATE), "than so many bits a second")
                .value_optional(),
            option("rateest-pps2", ValueKind::number(U32), "than so many packets a second").value_optional(),
            option("rateest2", ValueKind::text(15), "name of the second estimator"),
        ],
        laws: &[
            Law::AnyOf(&["rateest", "rateest1"]),
            Law::OneOf(&["rateest", "rateest1"]),
            Law::AnyOf(&["rateest-lt", "rateest-gt", "rateest-eq"]),
            Law::OneOf(&["rateest-lt", "rateest-gt", "rateest-eq"]),
        ],
        quirks: Quirks::finish(rateest_finish),
        ..ExtensionSpec::MATCH
    },
];

const HASH_MODES: &[(&str, u64)] = &[("srcip", 1), ("srcport", 3), ("dstip", 0), ("dstport", 2)];

/// Rates of `hashlimit` count in microseconds.
const HASH_SCALE: u64 = 1_000_000;

/// Units by rising length: what is printed, what is read, seconds.
const UNITS: [(&str, &str, u64); 4] =
    [("sec", "second", 1), ("min", "minute", 60), ("hour", "hour", 3600), ("day", "day", 86400)];

/// `3/min` as [`Value::Range`]`(period, unit)` and `512kb/s` as [`Value::Number`] of bytes.
static HASH_RATE: CustomKind = CustomKind {
    hint: "NUMBER/second|minute|hour|day or NUMBERb|kb|mb/s",
    parse: |text, _| {
        if let Some(bytes) = parse_byte_rate(text)? {
            return Ok(Value::Number(bytes));
        }
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let begins = |long: &str| {
            !unit.is_empty() && long.get(..unit.len()).is_some_and(|s| s.eq_ignore_ascii_case(unit))
        };
        let Some((_, _, seconds)) = UNITS.iter().find(|(_, long, _)| begins(long)) else {
            return Err(ValueFault::new(
                format!("`{unit}` is no unit of time"),
                "one of second, minute, hour, day",
            ));
        };
        match HASH_SCALE * seconds / number_within(count, 1, U32)? {
            0 => Err(format!("rate {text} is too fast").into()),
            period => Ok(Value::Range(period, *seconds)),
        }
    },
    write: |value, _, out| match value {
        Value::Number(bytes) => {
            write_bytes(*bytes, out);
            out.push_str("/s");
        }
        Value::Range(period, _) => {
            let (name, seconds) = shown_unit((*period).max(1));
            out.push_str(&format!("{}/{name}", HASH_SCALE * seconds / (*period).max(1)));
        }
        _ => {}
    },
};

/// The unit in which a period is printed: the longest in which the rate is whole, or nearly so.
fn shown_unit(period: u64) -> (&'static str, u64) {
    let mut unit = UNITS[3];
    for &candidate in UNITS[..3].iter().rev() {
        let long = HASH_SCALE * candidate.2;
        if period > long || long / period < long % period {
            break;
        }
        unit = candidate;
    }
    (unit.0, unit.2)
}

/// `512kb/s` in bytes a second; `None` when the text is no such rate.
fn parse_byte_rate(text: &str) -> Result<Option<u64>, ValueFault> {
    let Some(size) = text.strip_suffix("/s").and_then(|t| t.strip_suffix('b')) else { return Ok(None) };
    parse_size(size).map(Some)
}

/// Bytes with a factor `k` or `m`.
fn parse_size(text: &str) -> Result<u64, ValueFault> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1024),
        Some(b'm') => (&text[..text.len() - 1], 1024 * 1024),
        _ => (text, 1),
    };
    Ok(number_within(digits, 1, U32 / factor)? * factor)
}

fn write_bytes(bytes: u64, out: &mut String) {
    let shown = if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{}mb", bytes >> 20)
    } else if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) {
        format!("{}kb", bytes >> 10)
    } else {
        format!("{bytes}b")
    };
    out.push_str(&shown);
}

/// A count of packets as [`Value::Number`], or bytes as [`Value::Range`]`(bytes, bytes)`.
static BURST: CustomKind = CustomKind {
    hint: "NUMBER or NUMBERb|kb|mb",
    parse: |text, _| match text.strip_suffix('b') {
        Some(size) => parse_size(size).map(|bytes| Value::Range(bytes, bytes)),
        None => number_within(text, 1, U32).map(Value::Number),
    },
    write: |value, _, out| match value {
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::Range(bytes, _) => write_bytes(*bytes, out),
        _ => {}
    },
};

/// A packet rate has a burst of 5, and entries expire after the unit of their rate.
fn hashlimit_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    for s in settings.iter_mut() {
        let other = match s.option.name {
            "hashlimit-upto" => "hashlimit-above",
            "hashlimit-above" => "hashlimit-upto",
            _ => continue,
        };
        if s.negated
            && let Some(option) = context.spec.option(other)
        {
            (s.option, s.negated) = (option, false);
        }
    }
    no_file_name(settings, "hashlimit-name")?;
    if setting(settings, "hashlimit-rate-match").is_none() {
        settings.retain(|s| s.option.name != "hashlimit-rate-interval");
    }
    let full = Value::Number(u64::from(context.family.address_bits()));
    settings.retain(|s| !(s.option.name.ends_with("mask") && s.value == full));
    let rate = setting(settings, "hashlimit-upto").or(setting(settings, "hashlimit-above"));
    let Some(Value::Range(period, unit)) = rate.map(|s| s.value.clone()) else { return Ok(()) };
    context.add_missing(settings, "hashlimit-burst", Value::Number(5));
    let shown = shown_unit(period).1;
    if unit != shown {
        context.add_missing(settings, "hashlimit-htable-expire", Value::Number(unit * 1000));
    }
    settings.retain(|s| s.option.name != "hashlimit-htable-expire" || s.value != Value::Number(shown * 1000));
    // The unit that was written is spent: two rates that print alike are equal.
    for s in settings.iter_mut().filter(|s| matches!(s.option.name, "hashlimit-upto" | "hashlimit-above")) {
        s.value = Value::Range(period, shown);
    }
    Ok(())
}

/// One estimator is called `rateest`, the first of two `rateest1`.
fn rateest_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let name = if setting(settings, "rateest2").is_some() { "rateest1" } else { "rateest" };
    for s in settings.iter_mut().filter(|s| matches!(s.option.name, "rateest" | "rateest1")) {
        if let Some(option) = context.spec.option(name) {
            s.option = option;
        }
    }
    Ok(())
}

/// The kernel makes a file of the name.
fn no_file_name(settings: &[Setting], name: &str) -> Result<(), String> {
    match setting(settings, name).map(|s| &s.value) {
        Some(Value::Text(text)) if text.is_empty() || text.contains('/') || matches!(&**text, "." | "..") => {
            Err(format!("--{name} `{text}` cannot be the name of a file"))
        }
        _ => Ok(()),
    }
}

/// Each mode has its options, and the packets of a round count from 0.
fn statistic_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    let number = |name| match setting(settings, name).map(|s| &s.value) {
        Some(Value::Number(n)) => Some(*n),
        _ => None,
    };
    let probability = setting(settings, "probability").is_some();
    match (number("mode"), number("every"), number("packet")) {
        (Some(1), _, _) if probability => Err("--mode nth takes --every and --packet".into()),
        (Some(0), Some(_), _) => Err("--mode random takes --probability".into()),
        (_, Some(every), Some(packet)) if packet >= every => {
            Err(format!("packet {packet} is not within 0 to {}", every - 1))
        }
        _ => Ok(()),
    }
}

fn recent_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    if setting(settings, "rdest").is_none() {
        context.add_missing(settings, "rsource", Value::Flag);
    }
    no_file_name(settings, "name")?;
    let changes = setting(settings, "set").or(setting(settings, "remove"));
    if let Some(command) = changes
        && let Some(detail) =
            ["seconds", "hitcount", "rttl"].into_iter().find(|n| setting(settings, n).is_some())
    {
        return Err(format!("--{detail} says nothing with --{}", command.option.name));
    }
    Ok(())
}

/// Shares are kept as the kernel keeps them, in 2⁻³¹.
static PROBABILITY: CustomKind = CustomKind {
    hint: "0…1",
    parse: |text, _: Family| match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => {
            Ok(Value::Fraction((share * f64::from(1u32 << 31)).round() as u32))
        }
        _ => Err(format!("`{text}` is no probability between 0 and 1").into()),
    },
    write: |value, _, out| {
        if let Value::Fraction(n) = value {
            out.push_str(&format!("{:.11}", f64::from(*n) / f64::from(1u32 << 31)));
        }
    },
};

/// Bits a second, with a unit.
static BIT_RATE: CustomKind = CustomKind {
    hint: "NUMBER[bit|kbit|mbit|gbit|bps|kbps|mbps]",
    parse: |text, _| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match text[digits..].to_ascii_lowercase().as_str() {
            "" | "bit" => 1,
            "kbit" => 1000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            "bps" => 8,
            "kbps" => 8000,
            "mbps" => 8_000_000,
            unit => return Err(format!("`{unit}` is no unit of a bit rate").into()),
        };
        Ok(Value::Number(number_within(&text[..digits], 0, u64::MAX / factor)? * factor))
    },
    write: |value, _, out| {
        if let Value::Number(n) = value {
            out.push_str(&format!("{n}bit"));
        }
    },
};
