//! Targets that tell somebody, and go on.

use crate::model::{Family, Setting, TableKind};
use crate::value::Value;

use super::kind::{CustomKind, Quote, Radix, ValueKind};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, Quirks, flag, option};

const U32: u64 = u32::MAX as u64;

/// Text that is cut, not refused, when it is too long.
const fn prefix(max: usize) -> ValueKind {
    ValueKind::Text { min: 1, max, cut: true, quote: Quote::Careful }
}

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "LOG",
        help: "logs the packet's header",
        options: &[
            option("log-prefix", prefix(29), "what the line begins with"),
            option(
                "log-level",
                ValueKind::NumberOrName { max: 7, names: LEVELS, radix: Radix::Decimal },
                "level",
            )
            .hidden("4"),
            flag("log-tcp-sequence", "with sequence numbers"),
            flag("log-tcp-options", "with TCP options"),
            flag("log-ip-options", "with IP options"),
            flag("log-uid", "with the user of the local socket"),
            flag("log-macdecode", "with addresses of the frame"),
        ],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "NFLOG",
        help: "hands a copy of the packet to a program",
        options: &[
            option("nflog-prefix", prefix(63), "what goes with it"),
            option("nflog-group", ValueKind::number(65535), "group of listeners").hidden("0"),
            option("nflog-range", ValueKind::number(U32), "has no effect").hidden("0"),
            option("nflog-size", ValueKind::number(U32), "bytes of the packet"),
            option("nflog-threshold", ValueKind::number(65535), "packets before the program is told")
                .hidden("0"),
        ],
        laws: &[Law::OneOf(&["nflog-range", "nflog-size"])],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "ULOG",
        help: "hands a copy of the packet to a program, the old way",
        families: Families::Only(Family::V4),
        options: &[
            option("ulog-prefix", prefix(31), "what goes with it"),
            option("ulog-nlgroup", ValueKind::number_in(1, 32), "group of listeners").hidden("1"),
            option("ulog-cprange", ValueKind::number(U32), "bytes of the packet").hidden("0"),
            option("ulog-qthreshold", ValueKind::number_in(1, 50), "packets before the program is told")
                .hidden("1"),
        ],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "TRACE",
        help: "every rule that the packet matches is logged",
        tables: &[TableKind::Raw],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "AUDIT",
        help: "writes an audit record",
        options: &[option(
            "type",
            ValueKind::Choice(&[("accept", 0), ("drop", 1), ("reject", 2)]),
            "its kind",
        )
        .required()],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "TEE",
        help: "sends a copy to another host",
        options: &[
            option("gateway", ValueKind::Address, "its address").required(),
            option("oif", ValueKind::INTERFACE, "by this interface"),
        ],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "SET",
        help: "adds to an ipset, or deletes from it",
        options: &[
            option("add-set", ValueKind::Pair("NAME src|dst[,…]"), "adds the packet's addresses or ports"),
            option("del-set", ValueKind::Pair("NAME src|dst[,…]"), "deletes them"),
            option(
                "map-set",
                ValueKind::Pair("NAME src|dst[,…]"),
                "takes mark, priority or queue from the entry",
            ),
            flag("exist", "an entry that is there starts anew"),
            option("timeout", ValueKind::number(U32 - 1), "seconds that the entry lives"),
            flag("map-mark", "the mark"),
            flag("map-prio", "the priority"),
            flag("map-queue", "the queue"),
        ],
        laws: &[
            Law::AnyOf(&["add-set", "del-set", "map-set"]),
            Law::Needs("exist", "add-set"),
            Law::Needs("timeout", "add-set"),
            Law::Needs("map-mark", "map-set"),
            Law::Needs("map-prio", "map-set"),
            Law::Needs("map-queue", "map-set"),
        ],
        quirks: Quirks::finish(set_finish),
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "RATEEST",
        help: "measures the rate of packets",
        options: &[
            option("rateest-name", ValueKind::text(15), "name of the estimator").required(),
            option("rateest-interval", ValueKind::Custom(&DURATION), "time between measurements").required(),
            option("rateest-ewmalog", ValueKind::Custom(&DURATION), "time constant of the average")
                .required(),
        ],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "IDLETIMER",
        help: "tells when no packet has come for a while",
        options: &[
            option("timeout", ValueKind::number_in(1, U32), "seconds").required(),
            option("label", ValueKind::text(27), "name of the timer").required(),
            flag("alarm", "wakes the host from sleep"),
        ],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "LED",
        help: "blinks",
        options: &[
            option(
                "led-trigger-id",
                ValueKind::Text { min: 0, max: 26, cut: false, quote: Quote::Always },
                "which",
            )
            .required(),
            option(
                "led-delay",
                ValueKind::NumberOrName { max: U32, names: &[("inf", U32)], radix: Radix::Decimal },
                "for so many milliseconds",
            )
            .hidden("0"),
            flag("led-always-blink", "also when it is on"),
        ],
        quirks: Quirks::NONE,
        ..ExtensionSpec::TARGET
    },
];

const LEVELS: &[(&str, u64)] = &[
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("error", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
    ("panic", 0),
];

/// A time in seconds, kept in microseconds.
static DURATION: CustomKind = CustomKind {
    hint: "NUMBER[s|ms|us]",
    parse: |text, _| {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let factor = match &text[digits..] {
            "" | "s" | "sec" | "secs" => 1_000_000.0,
            "ms" | "msec" | "msecs" => 1000.0,
            "us" | "usec" | "usecs" => 1.0,
            unit => return Err(format!("`{unit}` is no unit of time").into()),
        };
        match text[..digits].parse::<f64>() {
            Ok(n) if n * factor <= 1e12 => Ok(Value::Number((n * factor).round() as u64)),
            _ => Err(format!("`{text}` is no time").into()),
        }
    },
    write: |value, _, out| {
        let Value::Number(n) = value else { return };
        let us = *n as f64;
        let shown = if us >= 1_000_000.0 {
            format!("{:.1}s", us / 1_000_000.0)
        } else if us >= 1000.0 {
            format!("{:.1}ms", us / 1000.0)
        } else {
            format!("{us:.0}us")
        };
        out.push_str(&shown);
    },
};

/// What is looked up is a list of `src` and `dst`, and an entry says only what is asked of it.
fn set_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    for s in settings.iter() {
        if let Value::Pair(pair) = &s.value {
            check_directions(&pair.1)?;
        }
    }
    let has = |name: &str| settings.iter().any(|s| s.option.name == name);
    let takes = ["map-mark", "map-prio", "map-queue"];
    if has("map-set") && !takes.iter().any(|name| has(name)) {
        return Err("--map-set needs --map-mark, --map-prio or --map-queue".into());
    }
    Ok(())
}

/// `src`, `dst` and commas, six at most.
pub(super) fn check_directions(text: &str) -> Result<(), String> {
    const DIRECTIONS_MAX: usize = 6;
    if let Some(word) = text.split(',').find(|word| !matches!(*word, "src" | "dst")) {
        return Err(format!("`{word}` is neither src nor dst"));
    }
    match text.split(',').count() {
        0..=DIRECTIONS_MAX => Ok(()),
        count => Err(format!("{count} directions are above {DIRECTIONS_MAX}")),
    }
}
