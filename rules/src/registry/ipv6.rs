//! Matches on IPv6 extension headers.

use crate::meaning::{Field, Residual};
use crate::model::{Family, Hook, Setting};
use crate::value::Value;

use super::headers6;
use super::kind::{CustomKind, ValueFault, ValueKind, number_within, parse_number};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, OptionSpec, Quirks, flag, option, setting};

const U32: u64 = u32::MAX as u64;

const V6: ExtensionSpec = ExtensionSpec {
    families: Families::Only(Family::V6),
    residual: Some(Residual::Pure),
    ..ExtensionSpec::MATCH
};

const fn length(name: &'static str) -> OptionSpec {
    option(name, ValueKind::number(U32), "length of the header").not()
}

const fn byte(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, ValueKind::number(255), help).not()
}

const fn sid(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, ValueKind::Network { full_shown: true, host_bits_kept: true }, help).not()
}

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "eui64",
        help: "the source address is made of the Ethernet address",
        hooks: &[Hook::Prerouting, Hook::Input, Hook::Forward],
        ..V6
    },
    ExtensionSpec {
        name: "frag",
        help: "the fragment header",
        options: &[
            option("fragid", ValueKind::range(U32), "identification")
                .not()
                .hidden("0:4294967295")
                .tests(Field::FragId),
            option("fraglen", ValueKind::number(U32), "length of the header, which the kernel ignores").not(),
            flag("fragres", "the reserved field is zero").tests(Field::FragFlags),
            flag("fragfirst", "the first fragment").tests(Field::FragFlags),
            flag("fragmore", "more fragments follow").tests(Field::FragFlags),
            flag("fraglast", "the last fragment").tests(Field::FragFlags),
        ],
        laws: &[Law::OneOf(&["fragmore", "fraglast"])],
        residual: None,
        quirks: Quirks::meaning(headers6::frag),
        ..V6
    },
    ExtensionSpec {
        name: "hbh",
        help: "the hop-by-hop options header",
        options: &[
            length("hbh-len").tests(Field::HbhLength),
            option("hbh-opts", ValueKind::Custom(&TLV_LIST), "options, with their lengths").pure(),
        ],
        residual: None,
        quirks: Quirks::partly(headers6::hbh),
        ..V6
    },
    ExtensionSpec {
        name: "dst",
        help: "the destination options header",
        options: &[
            length("dst-len").tests(Field::DstLength),
            option("dst-opts", ValueKind::Custom(&TLV_LIST), "options, with their lengths").pure(),
        ],
        residual: None,
        quirks: Quirks::partly(headers6::dst),
        ..V6
    },
    ExtensionSpec {
        name: "mh",
        help: "the mobility header",
        protocols: &[135],
        options: &[option("mh-type", ValueKind::Custom(&MH_TYPE), "type or range of types")
            .not()
            .hidden("0:255")],
        ..V6
    },
    ExtensionSpec {
        name: "rt",
        help: "the routing header",
        options: &[
            option("rt-type", ValueKind::number(U32), "type").not().tests(Field::RtType),
            option("rt-segsleft", ValueKind::range(U32), "segments left")
                .not()
                .hidden("0:4294967295")
                .tests(Field::RtSegments),
            length("rt-len").tests(Field::RtLength),
            flag("rt-0-res", "the reserved field of type 0 is zero").pure(),
            option("rt-0-addrs", ValueKind::text(1024), "addresses of type 0").pure(),
            flag("rt-0-not-strict", "the addresses need not be all there are").pure(),
        ],
        laws: &[
            Law::Needs("rt-0-res", "rt-type"),
            Law::Needs("rt-0-addrs", "rt-type"),
            Law::Needs("rt-0-not-strict", "rt-0-addrs"),
        ],
        residual: None,
        quirks: Quirks { finish: Some(rt_finish), ..Quirks::partly(headers6::rt) },
        ..V6
    },
    ExtensionSpec {
        name: "ipv6header",
        help: "which extension headers there are",
        options: &[
            option("header", ValueKind::ExactSet(HEADERS), "these").not().required().tests(Field::ExtHeaders),
            flag("soft", "and maybe others"),
        ],
        residual: None,
        quirks: Quirks::meaning(headers6::ipv6header),
        ..V6
    },
    ExtensionSpec {
        name: "srh",
        help: "the segment routing header",
        options: &[
            byte("srh-next-hdr", "next header"),
            byte("srh-hdr-len-eq", "header length equals"),
            byte("srh-hdr-len-gt", "header length is above"),
            byte("srh-hdr-len-lt", "header length is below"),
            byte("srh-segs-left-eq", "segments left equal"),
            byte("srh-segs-left-gt", "segments left are above"),
            byte("srh-segs-left-lt", "segments left are below"),
            byte("srh-last-entry-eq", "last entry equals"),
            byte("srh-last-entry-gt", "last entry is above"),
            byte("srh-last-entry-lt", "last entry is below"),
            option("srh-tag", ValueKind::number(65535), "tag").not(),
            sid("srh-psid", "previous segment"),
            sid("srh-nsid", "next segment"),
            sid("srh-lsid", "last segment"),
        ],
        ..V6
    },
];

/// What is said of type 0 needs type 0.
fn rt_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    let is_zero = setting(settings, "rt-type").is_some_and(|s| s.value == Value::Number(0) && !s.negated);
    match settings.iter().find(|s| s.option.name.starts_with("rt-0-")) {
        Some(s) if !is_zero => Err(format!("--{} needs --rt-type 0", s.option.name)),
        _ => Ok(()),
    }
}

/// Headers by the names that are printed, then the others that are read.
const HEADERS: &[(&str, u64)] = &[
    ("hop-by-hop", 7),
    ("ipv6-opts", 6),
    ("ipv6-route", 5),
    ("ipv6-frag", 4),
    ("ah", 3),
    ("esp", 2),
    ("ipv6-nonxt", 1),
    ("protocol", 0),
    ("hop", 7),
    ("dst", 6),
    ("route", 5),
    ("frag", 4),
    ("auth", 3),
    ("none", 1),
    ("prot", 0),
    ("60", 6),
    ("43", 5),
    ("44", 4),
    ("51", 3),
    ("50", 2),
    ("59", 1),
    ("0", 7),
    ("255", 0),
    ("ip", 7),
];

/// `TYPE[:LENGTH][,…]`, a length left out being `u64::MAX`.
static TLV_LIST: CustomKind = CustomKind {
    hint: "TYPE[:LENGTH][,…]",
    parse: |text, _| {
        let mut list = Vec::new();
        for part in text.split(',') {
            let (kind, length) = part.split_once(':').map_or((part, None), |(k, l)| (k, Some(l)));
            let length = length.map_or(Ok(u64::MAX), |l| number_within(l, 0, 255))?;
            list.push((number_within(kind, 0, 255)?, length));
        }
        if list.len() > 16 {
            return Err(format!("{} options are above 16", list.len()).into());
        }
        Ok(Value::Ranges(list.into()))
    },
    write: |value, _, out| {
        let Value::Ranges(list) = value else { return };
        for (i, (kind, length)) in list.iter().enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            out.push_str(&kind.to_string());
            if *length != u64::MAX {
                out.push(':');
                out.push_str(&length.to_string());
            }
        }
    },
};

const MH_NAMES: [(&str, u64); 16] = [
    ("binding-refresh-request", 0),
    ("brr", 0),
    ("home-test-init", 1),
    ("hoti", 1),
    ("careof-test-init", 2),
    ("coti", 2),
    ("home-test", 3),
    ("hot", 3),
    ("careof-test", 4),
    ("cot", 4),
    ("binding-update", 5),
    ("bu", 5),
    ("binding-acknowledgement", 6),
    ("ba", 6),
    ("binding-error", 7),
    ("be", 7),
];

/// Types of mobility headers, by number or name.
static MH_TYPE: CustomKind = CustomKind {
    hint: "TYPE[:TYPE]",
    parse: |text, _| {
        let one = |text: &str| match MH_NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, n)) => Ok(*n),
            None if parse_number(text).is_some() => number_within(text, 0, 255),
            None => Err(ValueFault::from(format!("`{text}` is no mobility header type"))),
        };
        let (lo, hi) = match text.split_once(':') {
            Some((lo, hi)) => {
                (if lo.is_empty() { 0 } else { one(lo)? }, if hi.is_empty() { 255 } else { one(hi)? })
            }
            None => (one(text)?, one(text)?),
        };
        if lo > hi {
            return Err(format!("the range {lo} to {hi} holds nothing").into());
        }
        Ok(Value::Range(lo, hi))
    },
    write: |value, family, out| ValueKind::range(255).write(value, family, out),
};
