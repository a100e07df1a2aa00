//! Targets that change the packet, its marks, or how its connection is tracked.

use crate::meaning::{Effect, Field};
use crate::model::{Extension, Family, Hook, Setting, TableKind};
use crate::value::Value;

use super::kind::{CustomKind, Quote, ValueFault, ValueKind, parse_number};
use super::packet::{DSCP_CLASSES, DSCP_NUMBER, TOS};
use super::proto::{HEX8, TCP_OPTION_LIST};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, OptionSpec, Quirks, flag, option, setting};

const MANGLE: ExtensionSpec = ExtensionSpec { tables: &[TableKind::Mangle], ..ExtensionSpec::TARGET };

const BITS: ValueKind = ValueKind::hex(u32::MAX as u64, 0);

const fn mark_options() -> [OptionSpec; 5] {
    [
        option("set-xmark", ValueKind::XMARK, "clear the mask's bits, then flip the value's").effect(xmark),
        option("set-mark", ValueKind::XMARK, "clear the mask's bits, then set the value's")
            .short_for("set-xmark", set_mark),
        option("and-mark", BITS, "keep these bits only").short_for("set-xmark", and_mark),
        option("or-mark", BITS, "set these bits").short_for("set-xmark", or_mark),
        option("xor-mark", BITS, "flip these bits").short_for("set-xmark", xor_mark),
    ]
}

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "MARK",
        help: "sets the packet's mark",
        options: &mark_options(),
        laws: &[Law::AnyOf(&["set-xmark"])],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "CONNMARK",
        help: "sets the connection's mark, or copies it from or to the packet's",
        options: &CONNMARK,
        laws: &[
            Law::AnyOf(&["set-xmark", "save-mark", "restore-mark"]),
            Law::OneOf(&["set-xmark", "save-mark", "restore-mark"]),
            Law::OneOf(&["mask", "nfmask"]),
            Law::OneOf(&["mask", "ctmask"]),
        ],
        quirks: Quirks { finish: Some(connmark_finish), effect: Some(connmark_effect), ..Quirks::NONE },
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "CT",
        help: "says how the connection is tracked",
        tables: &[TableKind::Raw],
        options: &[
            flag("notrack", "it is not").effect(untrack),
            option(
                "helper",
                ValueKind::Text { min: 0, max: 15, cut: true, quote: Quote::Needed },
                "by this helper",
            ),
            option("timeout", ValueKind::text(31), "with these timeouts"),
            option("ctevents", ValueKind::ExactSet(CT_EVENTS), "with these events"),
            option("expevents", ValueKind::ExactSet(&[("new", 0)]), "with these events of expectations"),
            option("zone-orig", ValueKind::Custom(&ZONE), "in this zone, first direction").hidden("0"),
            option("zone-reply", ValueKind::Custom(&ZONE), "in this zone, reply direction").hidden("0"),
            option("zone", ValueKind::Custom(&ZONE), "in this zone").hidden("0"),
        ],
        laws: &[Law::OneOf(&["zone", "zone-orig"]), Law::OneOf(&["zone", "zone-reply"])],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "NOTRACK",
        help: "the connection is not tracked",
        tables: &[TableKind::Raw],
        effect: Effect::Untrack,
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "TOS",
        help: "sets the type of service or traffic class",
        options: &[
            option(
                "set-tos",
                ValueKind::Custom(&TOS_OR_NAME),
                "clear the mask's bits, then flip the value's",
            )
            .effect(set_tos),
            option("and-tos", ValueKind::hex(255, 2), "keep these bits only").short_for("set-tos", and_tos),
            option("or-tos", ValueKind::hex(255, 2), "set these bits").short_for("set-tos", or_tos),
            option("xor-tos", ValueKind::hex(255, 2), "flip these bits").short_for("set-tos", xor_tos),
        ],
        laws: &[Law::AnyOf(&["set-tos"])],
        ..MANGLE
    },
    ExtensionSpec {
        name: "DSCP",
        help: "sets the differentiated services code point",
        options: &[
            option("set-dscp", DSCP_NUMBER, "code point").effect(set_dscp),
            option("set-dscp-class", ValueKind::Choice(DSCP_CLASSES), "class")
                .short_for("set-dscp", Value::clone),
        ],
        laws: &[Law::AnyOf(&["set-dscp"])],
        ..MANGLE
    },
    ExtensionSpec {
        name: "TTL",
        help: "changes the time to live",
        families: Families::Only(Family::V4),
        options: &[
            option("ttl-set", ValueKind::number(255), "sets it").effect(ttl_set),
            option("ttl-dec", ValueKind::number_in(1, 255), "lowers it").effect(ttl_dec),
            option("ttl-inc", ValueKind::number_in(1, 255), "raises it").effect(ttl_inc),
        ],
        laws: &[
            Law::AnyOf(&["ttl-set", "ttl-dec", "ttl-inc"]),
            Law::OneOf(&["ttl-set", "ttl-dec", "ttl-inc"]),
        ],
        ..MANGLE
    },
    ExtensionSpec {
        name: "HL",
        help: "changes the hop limit",
        families: Families::Only(Family::V6),
        options: &[
            option("hl-set", ValueKind::number(255), "sets it").effect(ttl_set),
            option("hl-dec", ValueKind::number_in(1, 255), "lowers it").effect(ttl_dec),
            option("hl-inc", ValueKind::number_in(1, 255), "raises it").effect(ttl_inc),
        ],
        laws: &[Law::AnyOf(&["hl-set", "hl-dec", "hl-inc"]), Law::OneOf(&["hl-set", "hl-dec", "hl-inc"])],
        ..MANGLE
    },
    ExtensionSpec {
        name: "ECN",
        help: "takes congestion notification out of a TCP header",
        families: Families::Only(Family::V4),
        protocols: &[6],
        options: &[flag("ecn-tcp-remove", "clears the bits").required()],
        ..MANGLE
    },
    ExtensionSpec {
        name: "TCPMSS",
        help: "sets the maximum segment size of a TCP SYN",
        alters: &[Field::Mss],
        protocols: &[6],
        options: &[
            option("set-mss", ValueKind::number(65535), "to this size"),
            flag("clamp-mss-to-pmtu", "to what the path takes"),
        ],
        laws: &[Law::AnyOf(&["set-mss", "clamp-mss-to-pmtu"]), Law::OneOf(&["set-mss", "clamp-mss-to-pmtu"])],
        quirks: Quirks::finish(tcpmss_finish),
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "TCPOPTSTRIP",
        help: "takes options out of a TCP header",
        protocols: &[6],
        options: &[option("strip-options", ValueKind::Custom(&TCP_OPTION_LIST), "these")],
        ..MANGLE
    },
    ExtensionSpec {
        name: "CHECKSUM",
        help: "fills in the checksum",
        options: &[flag("checksum-fill", "fills it in").required()],
        ..MANGLE
    },
    ExtensionSpec {
        name: "CLASSIFY",
        help: "sets the packet's traffic class",
        hooks: &[Hook::Forward, Hook::Output, Hook::Postrouting, Hook::Input],
        options: &[option("set-class", ValueKind::Custom(&CLASS), "class, in hexadecimal").required()],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "SECMARK",
        help: "sets the security mark",
        tables: &[TableKind::Mangle, TableKind::Security],
        options: &[option("selctx", ValueKind::text(255), "SELinux context").required()],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "CONNSECMARK",
        help: "copies the security mark from or to the connection",
        tables: &[TableKind::Mangle, TableKind::Security],
        options: &[flag("save", "to the connection"), flag("restore", "from it")],
        laws: &[Law::AnyOf(&["save", "restore"]), Law::OneOf(&["save", "restore"])],
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "HMARK",
        help: "sets the mark to a hash of the packet",
        alters: &[Field::Mark],
        options: &[
            option("hmark-src-prefix", ValueKind::number(128), "prefix length of the source"),
            option("hmark-dst-prefix", ValueKind::number(128), "prefix length of the destination"),
            option("hmark-sport-mask", ValueKind::hex(65535, 4), "bits of the source port"),
            option("hmark-dport-mask", ValueKind::hex(65535, 4), "bits of the destination port"),
            option("hmark-spi-mask", HEX8, "bits of the security parameter index"),
            option("hmark-sport", ValueKind::hex(65535, 4), "bits set in the source port"),
            option("hmark-dport", ValueKind::hex(65535, 4), "bits set in the destination port"),
            option("hmark-spi", HEX8, "bits set in the security parameter index"),
            option("hmark-proto-mask", ValueKind::hex(65535, 2), "bits of the protocol"),
            option("hmark-rnd", HEX8, "seed of the hash").required(),
            option("hmark-mod", ValueKind::number_in(1, u32::MAX as u64), "hash modulo this").required(),
            option("hmark-offset", ValueKind::number(u32::MAX as u64), "added to the hash"),
            option("hmark-tuple", ValueKind::ExactSet(HMARK_PARTS), "what is hashed"),
        ],
        laws: &[Law::AnyOf(&[
            "hmark-tuple",
            "hmark-src-prefix",
            "hmark-dst-prefix",
            "hmark-sport-mask",
            "hmark-dport-mask",
            "hmark-spi-mask",
            "hmark-sport",
            "hmark-dport",
            "hmark-spi",
            "hmark-proto-mask",
        ])],
        quirks: Quirks::finish(hmark_finish),
        ..ExtensionSpec::TARGET
    },
];

/// Parts of a packet; `ct` takes them from the connection.
const HMARK_PARTS: &[(&str, u64)] =
    &[("src", 0), ("dst", 1), ("sport", 2), ("dport", 3), ("spi", 4), ("ct", 5)];

/// Names of parts are short for masks of all their bits; only `ct` stays a name.
fn hmark_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    const CT: u64 = 1 << 5;
    let bits = u64::from(context.family.address_bits());
    let masks = [
        ("hmark-src-prefix", bits),
        ("hmark-dst-prefix", bits),
        ("hmark-sport-mask", 0xffff),
        ("hmark-dport-mask", 0xffff),
        ("hmark-spi-mask", 0xffff_ffff),
    ];
    if let Some(&Setting { value: Value::Set(parts), .. }) = setting(settings, "hmark-tuple") {
        for (part, (name, all)) in masks.into_iter().enumerate().filter(|(part, _)| parts >> part & 1 == 1) {
            if setting(settings, name).is_some() {
                return Err(format!("--hmark-tuple {} and --{name} say the same", HMARK_PARTS[part].0));
            }
            context.add_missing(settings, name, Value::Number(all));
        }
        settings.retain(|s| s.option.name != "hmark-tuple" || parts & CT != 0);
        for s in settings.iter_mut().filter(|s| s.option.name == "hmark-tuple") {
            s.value = Value::Set(CT);
        }
    }
    for s in settings.iter_mut().filter(|s| s.option.name.ends_with("-prefix")) {
        if let Value::Number(n) = &mut s.value {
            *n = (*n).min(bits);
        }
    }
    let has = |name| setting(settings, name).is_some();
    if has("hmark-spi-mask") && (has("hmark-sport-mask") || has("hmark-dport-mask")) {
        return Err("--hmark-spi-mask cannot stand with a mask of ports".into());
    }
    Ok(())
}

const MASK: ValueKind = ValueKind::hex(u32::MAX as u64, 0);

static CONNMARK: [OptionSpec; 10] = {
    let [set_xmark, set_mark, and, or, xor] = mark_options();
    [
        set_xmark,
        flag("save-mark", "copies the packet's mark to the connection"),
        flag("restore-mark", "copies the connection's mark to the packet"),
        option("nfmask", MASK, "bits of the packet's mark"),
        option("ctmask", MASK, "bits of the connection's mark"),
        option("mask", MASK, "both masks"),
        set_mark,
        and,
        or,
        xor,
    ]
};

fn masked(value: &Value) -> (u32, u32) {
    match value {
        Value::Masked { value, mask } => (*value, *mask),
        _ => (0, 0),
    }
}

fn bits(value: &Value) -> u32 {
    match value {
        Value::Number(n) => super::kind::low_u32(*n),
        _ => 0,
    }
}

fn xmark(value: &Value) -> Effect {
    let (flip, clear) = masked(value);
    Effect::Mark { clear, flip }
}

fn set_mark(value: &Value) -> Value {
    let (value, mask) = masked(value);
    Value::Masked { value, mask: value | mask }
}

fn and_mark(value: &Value) -> Value {
    Value::Masked { value: 0, mask: !bits(value) }
}

fn or_mark(value: &Value) -> Value {
    Value::Masked { value: bits(value), mask: bits(value) }
}

fn xor_mark(value: &Value) -> Value {
    Value::Masked { value: bits(value), mask: 0 }
}

fn and_tos(value: &Value) -> Value {
    Value::Masked { value: 0, mask: !bits(value) & 0xff }
}

fn or_tos(value: &Value) -> Value {
    or_mark(value)
}

fn xor_tos(value: &Value) -> Value {
    xor_mark(value)
}

/// A number without a mask replaces the whole byte; a name leaves the upper two bits alone.
static TOS_OR_NAME: CustomKind = CustomKind { hint: TOS.hint, parse: TOS.parse, write: TOS.write };

fn set_tos(value: &Value) -> Effect {
    let (flip, clear) = masked(value);
    Effect::Tos { clear: clear as u8, flip: flip as u8 }
}

fn set_dscp(value: &Value) -> Effect {
    Effect::Tos { clear: 0xfc, flip: (bits(value) << 2) as u8 }
}

fn ttl_set(value: &Value) -> Effect {
    Effect::TtlSet(bits(value) as u8)
}

fn ttl_inc(value: &Value) -> Effect {
    Effect::TtlAdd(bits(value) as u8)
}

fn ttl_dec(value: &Value) -> Effect {
    Effect::TtlSub(bits(value) as u8)
}

fn untrack(_: &Value) -> Effect {
    Effect::Untrack
}

/// `--mask` is both masks, and both are always printed of a mark that is copied; of one that is
/// set, the connection's mask is its mask.
fn connmark_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let copies = setting(settings, "save-mark").or(setting(settings, "restore-mark")).is_some();
    let both = match setting(settings, "mask") {
        Some(s) => s.value.clone(),
        None => Value::Number(u64::from(u32::MAX)),
    };
    if let Some(Value::Number(mask)) =
        setting(settings, "mask").or(setting(settings, "ctmask")).map(|s| s.value.clone())
        && let Some(Setting { value: Value::Masked { mask: of_mark, .. }, .. }) =
            settings.iter_mut().find(|s| s.option.name == "set-xmark")
    {
        *of_mark = super::kind::low_u32(mask);
    }
    settings.retain(|s| match s.option.name {
        "mask" => false,
        "nfmask" | "ctmask" => copies,
        _ => true,
    });
    if copies {
        context.add_missing(settings, "nfmask", both.clone());
        context.add_missing(settings, "ctmask", both);
    }
    Ok(())
}

fn connmark_effect(extension: &Extension) -> Effect {
    let mask = |name| setting(&extension.settings, name).map_or(u32::MAX, |s| bits(&s.value));
    let (nfmask, ctmask) = (mask("nfmask"), mask("ctmask"));
    for s in &extension.settings {
        match s.option.name {
            "set-xmark" => {
                let (flip, clear) = masked(&s.value);
                return Effect::ConnMark { clear, flip };
            }
            "save-mark" => return Effect::SaveMark { ctmask, nfmask },
            "restore-mark" => return Effect::RestoreMark { ctmask, nfmask },
            _ => {}
        }
    }
    Effect::None
}

/// Only a SYN carries a segment size, so the rule must ask for one.
fn tcpmss_finish(_: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    const SYN: u8 = 2;
    let asks_for_syn = |s: &Setting| match s.value {
        Value::TcpFlags { set, .. } => !s.negated && set & SYN != 0,
        _ => false,
    };
    if context.matches.iter().any(|m| m.settings.iter().any(asks_for_syn)) {
        return Ok(());
    }
    Err("only a SYN carries a segment size: add `--tcp-flags SYN,RST SYN`".into())
}

const CT_EVENTS: &[(&str, u64)] = &[
    ("new", 0),
    ("related", 1),
    ("destroy", 2),
    ("reply", 3),
    ("assured", 4),
    ("protoinfo", 5),
    ("helper", 6),
    ("mark", 7),
    ("natseqinfo", 8),
    ("secmark", 9),
];

/// A zone by number, or `mark`: the packet's mark says it.
static ZONE: CustomKind = CustomKind {
    hint: "NUMBER|mark",
    parse: |text, _| match text {
        "mark" => Ok(Value::Flag),
        _ => super::kind::number_within(text, 0, 65535).map(Value::Number),
    },
    write: |value, _, out| match value {
        Value::Number(n) => out.push_str(&n.to_string()),
        _ => out.push_str("mark"),
    },
};

/// `major:minor`, both hexadecimal.
static CLASS: CustomKind = CustomKind {
    hint: "MAJOR:MINOR",
    parse: |text, _| {
        let part = |digits: &str| parse_number(&format!("0x{digits}")).filter(|n| *n <= 0xffff);
        let class = text.split_once(':').and_then(|(major, minor)| Some((part(major)?, part(minor)?)));
        match class {
            Some((major, minor)) => Ok(Value::Number(major << 16 | minor)),
            None => Err(ValueFault::new(
                format!("`{text}` is no traffic class"),
                "write MAJOR:MINOR in hexadecimal",
            )),
        }
    },
    write: |value, _, out| {
        if let Value::Number(n) = value {
            out.push_str(&format!("{:04x}:{:04x}", n >> 16, n & 0xffff));
        }
    },
};
