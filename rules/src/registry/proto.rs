//! Matches on transport headers: ports, flags, ICMP types.
//!
//! All of them want a transport header, so a later fragment never matches.

use crate::meaning::{Clause, Field, L4Need, Test, ValueSet};
use crate::model::{Family, Setting};
use crate::names::{ICMP_TYPES, ICMPV6_TYPES};
use crate::value::Value;

use super::headers6;
use super::kind::{CustomKind, Radix, ValueFault, ValueKind, number_within, parse_number};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, OptionSpec, Quirks, flag, option, setting};

const fn reads(bytes: u8) -> L4Need {
    L4Need { bytes, drops_fragment_at_8: false }
}

const fn source_port() -> OptionSpec {
    option("sport", ValueKind::Ports, "source port or range of ports")
        .or(&["source-port"])
        .not()
        .tests(Field::SourcePort)
}

const fn destination_port() -> OptionSpec {
    option("dport", ValueKind::Ports, "destination port or range of ports")
        .or(&["destination-port"])
        .not()
        .tests(Field::DestinationPort)
}

const ALL_PORTS: &str = "0:65535";

const MULTIPORT_PROTOCOLS: &[u8] = &[6, 17, 136, 132, 33];

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "tcp",
        help: "TCP ports, flags and options",
        protocols: &[6],
        l4: L4Need { bytes: 20, drops_fragment_at_8: true },
        options: &[
            source_port().hidden(ALL_PORTS),
            destination_port().hidden(ALL_PORTS),
            option("tcp-option", ValueKind::number_in(1, 255), "a TCP option of that number is present")
                .not()
                .pure(),
            option("tcp-flags", ValueKind::TcpFlags, "of the first flags, exactly the second are set")
                .not()
                .tests(Field::TcpFlags),
            flag("syn", "short for --tcp-flags FIN,SYN,RST,ACK SYN").not().short_for("tcp-flags", syn),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "udp",
        help: "UDP ports",
        protocols: &[17],
        l4: reads(8),
        options: &[source_port().hidden(ALL_PORTS), destination_port().hidden(ALL_PORTS)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "udplite",
        help: "UDP-Lite ports",
        protocols: &[136],
        l4: reads(8),
        options: &[source_port().hidden(ALL_PORTS), destination_port().hidden(ALL_PORTS)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "icmp",
        help: "ICMP type and code",
        families: Families::Only(Family::V4),
        protocols: &[1],
        l4: reads(8),
        options: &[option("icmp-type", ValueKind::Icmp(ICMP_TYPES), "type, type/code, a name, or any")
            .not()
            .required()
            .clauses(icmp_clauses)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "icmp6",
        aliases: &["icmpv6", "ipv6-icmp"],
        help: "ICMPv6 type and code",
        families: Families::Only(Family::V6),
        protocols: &[58],
        l4: reads(8),
        options: &[option("icmpv6-type", ValueKind::Icmp(ICMPV6_TYPES), "type, type/code, or a name")
            .not()
            .required()
            .tests(Field::DestinationPort)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "multiport",
        help: "up to 15 ports of TCP, UDP, UDP-Lite, SCTP or DCCP",
        protocols: MULTIPORT_PROTOCOLS,
        l4: reads(4),
        options: &[
            option("sports", ValueKind::PortList, "source port is one of them")
                .or(&["source-ports", "source-port"])
                .not()
                .tests(Field::SourcePort),
            option("dports", ValueKind::PortList, "destination port is one of them")
                .or(&["destination-ports", "destination-port"])
                .not()
                .tests(Field::DestinationPort),
            option("ports", ValueKind::PortList, "source or destination port is one of them")
                .or(&["port"])
                .not()
                .tests_either(Field::SourcePort, Field::DestinationPort),
        ],
        laws: &[Law::AnyOf(&["sports", "dports", "ports"]), Law::OneOf(&["sports", "dports", "ports"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "sctp",
        help: "SCTP ports and chunks",
        protocols: &[132],
        l4: reads(12),
        options: &[
            source_port(),
            destination_port(),
            option("chunk-types", ValueKind::Pair("all|any|only CHUNK[,…]"), "the packet's chunks")
                .not()
                .pure(),
        ],
        quirks: Quirks::finish(sctp_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "dccp",
        help: "DCCP ports, packet types and options",
        protocols: &[33],
        l4: reads(12),
        options: &[
            source_port(),
            destination_port(),
            option("dccp-types", ValueKind::Set(DCCP_TYPES), "packet type is one of them")
                .not()
                .tests(Field::DccpType),
            option("dccp-option", ValueKind::number_in(1, 255), "a DCCP option of that number is present")
                .not()
                .pure(),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "esp",
        help: "security parameter index of ESP",
        protocols: &[50],
        l4: reads(8),
        options: &[spi("espspi")],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ah",
        help: "security parameter index of AH",
        families: Families::Only(Family::V4),
        protocols: &[51],
        l4: reads(12),
        options: &[spi("ahspi")],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ah",
        help: "the IPv6 authentication header",
        families: Families::Only(Family::V6),
        options: &[
            option("ahspi", ValueKind::range(u32::MAX as u64), "index or range of indexes")
                .not()
                .hidden("0:4294967295")
                .tests(Field::AhSpi),
            option("ahlen", ValueKind::number(u32::MAX as u64), "length of the header")
                .not()
                .tests(Field::AhLength)
                .hidden("0"),
            flag("ahres", "the reserved field is zero").tests(Field::AhReserved),
        ],
        quirks: Quirks::meaning(headers6::ah),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ipcomp",
        help: "compression parameter index of IPComp",
        protocols: &[108],
        l4: reads(4),
        options: &[
            spi("ipcompspi"),
            flag("compres", "asks for a reserved field of zero, which the kernel does not look at"),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "tcpmss",
        help: "maximum segment size of a TCP SYN",
        protocols: &[6],
        l4: reads(20),
        options: &[option("mss", ValueKind::range(65535), "size or range of sizes")
            .not()
            .required()
            .tests(Field::Mss)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ecn",
        help: "congestion notification bits of IP and TCP",
        options: &[
            flag("ecn-tcp-ece", "ECE is set").not().pure(),
            flag("ecn-tcp-cwr", "CWR is set").not().pure(),
            option("ecn-ip-ect", ValueKind::number(3), "the two ECN bits of the IP header")
                .not()
                .clauses(ecn_clauses),
        ],
        laws: &[Law::AnyOf(&["ecn-tcp-ece", "ecn-tcp-cwr", "ecn-ip-ect"])],
        quirks: Quirks::finish(ecn_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ports",
        help: "hipac's own, unknown to iptables: the raw port fields, for any protocol, which filter \
               sets such as ClassBench's test without a transport header",
        options: &[
            option("sport", ValueKind::Ports, "source port field").not().tests(Field::SourcePort),
            option("dport", ValueKind::Ports, "destination port field").not().tests(Field::DestinationPort),
        ],
        ..ExtensionSpec::MATCH
    },
];

/// Names of SCTP chunks, and what stands for all or none of them.
const CHUNKS: [&str; 23] = [
    "DATA",
    "INIT",
    "INIT_ACK",
    "SACK",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "ERROR",
    "COOKIE_ECHO",
    "COOKIE_ACK",
    "ECN_ECNE",
    "ECN_CWR",
    "SHUTDOWN_COMPLETE",
    "I_DATA",
    "RE_CONFIG",
    "PAD",
    "ASCONF",
    "ASCONF_ACK",
    "FORWARD_TSN",
    "ALL",
    "NONE",
];

/// Whether a word names a chunk, maybe with flags after a colon.
fn is_chunk(word: &str) -> bool {
    let name = word.split(':').next().unwrap_or("");
    CHUNKS.iter().any(|c| c.eq_ignore_ascii_case(name))
}

fn sctp_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    let Some(Value::Pair(pair)) = setting(settings, "chunk-types").map(|s| &s.value) else { return Ok(()) };
    let (which, chunks) = &**pair;
    if !["all", "any", "only"].iter().any(|w| w.eq_ignore_ascii_case(which)) {
        return Err(format!("`{which}` is none of all, any, only"));
    }
    if let Some(chunk) = chunks.split(',').find(|c| !is_chunk(c)) {
        return Err(format!("`{chunk}` is no SCTP chunk"));
    }
    let upper = |chunk: &str| match chunk.split_once(':') {
        Some((name, flags)) => format!("{}:{flags}", name.to_ascii_uppercase()),
        None => chunk.to_ascii_uppercase(),
    };
    let chunks: Vec<String> = match &**chunks {
        "ALL" | "NONE" => vec![chunks.to_string()],
        chunks => chunks.split(',').map(upper).collect(),
    };
    let canonical = Value::Pair(Box::new((which.to_ascii_lowercase().into(), chunks.join(",").into())));
    for s in settings.iter_mut().filter(|s| s.option.name == "chunk-types") {
        s.value = canonical.clone();
    }
    Ok(())
}

fn ecn_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let tcp = settings.iter().any(|s| s.option.name.starts_with("ecn-tcp"));
    if tcp && context.protocol != 6 {
        return Err("bits of TCP need `-p tcp`".into());
    }
    Ok(())
}

const DCCP_TYPES: &[(&str, u64)] = &[
    ("REQUEST", 0),
    ("RESPONSE", 1),
    ("DATA", 2),
    ("ACK", 3),
    ("DATAACK", 4),
    ("CLOSEREQ", 5),
    ("CLOSE", 6),
    ("RESET", 7),
    ("SYNC", 8),
    ("SYNCACK", 9),
    ("INVALID", 10),
];

const fn spi(name: &'static str) -> OptionSpec {
    option(name, ValueKind::range(u32::MAX as u64), "index or range of indexes")
        .not()
        .hidden("0:4294967295")
        .tests(Field::Spi)
}

fn syn(_: &Value) -> Value {
    Value::TcpFlags { mask: 0x17, set: 0x02 }
}

/// Type 255 of IPv4 is any type: no test, and negated one that never holds.
fn icmp_clauses(setting: &Setting, _: Family) -> Vec<Clause> {
    match setting.value {
        Value::IcmpType { kind: 255, .. } if setting.negated => {
            vec![vec![Test {
                field: Field::DestinationPort,
                negated: false,
                set: ValueSet::Ranges(Vec::new()),
            }]]
        }
        Value::IcmpType { kind: 255, .. } => Vec::new(),
        _ => vec![vec![super::meaning::test(Field::DestinationPort, setting)]],
    }
}

fn ecn_clauses(setting: &Setting, _: Family) -> Vec<Clause> {
    let Value::Number(ect) = setting.value else { return Vec::new() };
    let set = ValueSet::Masked { value: u128::from(ect), mask: 3 };
    vec![vec![Test { field: Field::Tos, negated: setting.negated, set }]]
}

/// TCP option numbers that have names, for `--strip-options`.
const TCP_OPTIONS: [(&str, u64); 6] =
    [("wscale", 3), ("mss", 2), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

/// `2,3,mss`: a list of TCP options, each with the bit of its number.
pub(super) static TCP_OPTION_LIST: CustomKind = CustomKind {
    hint: "OPTION[,…]",
    parse: |text, _| {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let named = TCP_OPTIONS.iter().find(|(name, _)| *name == part).map(|(_, n)| *n);
            let n = match named {
                Some(n) => n,
                None if parse_number(part).is_some() => number_within(part, 2, 255)?,
                None => {
                    return Err(ValueFault::new(format!("`{part}` is no TCP option"), "write its number"));
                }
            };
            ranges.push((n, n));
        }
        ranges.sort_unstable();
        ranges.dedup();
        Ok(Value::Ranges(ranges.into()))
    },
    write: |value, family, out| ValueKind::PortList.write(value, family, out),
};

/// A hexadecimal 32-bit number of eight digits.
pub(super) const HEX8: ValueKind = ValueKind::Number { min: 0, max: u32::MAX as u64, radix: Radix::Hex(8) };
