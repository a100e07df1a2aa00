//! Targets that translate addresses and ports, or lead packets elsewhere.

use crate::meaning::Field;
use crate::model::{Family, Hook, Setting, TableKind};
use crate::value::{Nat, Value};

use super::address::{parse_address, write_address};
use super::kind::{CustomKind, ValueFault, ValueKind, number_within, parse_number, parse_port};
use super::spec::{Ending, ExtensionSpec, Families, FinishContext, Law, Quirks, flag, option};

const NAT: ExtensionSpec =
    ExtensionSpec { ending: Ending::Verdict, tables: &[TableKind::Nat], ..ExtensionSpec::TARGET };

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "DNAT",
        help: "gives the connection another destination",
        hooks: &[Hook::Prerouting, Hook::Output],
        options: &[
            option("to-destination", ValueKind::Custom(&NAT_RANGE), "where to").required(),
            flag("random", "a random port"),
            flag("persistent", "the same address for a client each time"),
        ],
        quirks: Quirks::finish(ports_need_protocol),
        ..NAT
    },
    ExtensionSpec {
        name: "SNAT",
        help: "gives the connection another source",
        hooks: &[Hook::Input, Hook::Postrouting],
        options: &[
            option("to-source", ValueKind::Custom(&NAT_RANGE), "where from").required(),
            flag("random", "a random port"),
            flag("random-fully", "a truly random port"),
            flag("persistent", "the same address for a client each time"),
        ],
        quirks: Quirks::finish(ports_need_protocol),
        ..NAT
    },
    ExtensionSpec {
        name: "MASQUERADE",
        help: "gives the connection the address of its output interface",
        hooks: &[Hook::Postrouting],
        options: &[
            option("to-ports", ValueKind::NatPorts, "source ports"),
            flag("random", "a random port"),
            flag("random-fully", "a truly random port"),
        ],
        quirks: Quirks::finish(ports_need_protocol),
        ..NAT
    },
    ExtensionSpec {
        name: "REDIRECT",
        help: "leads the connection to this host",
        hooks: &[Hook::Prerouting, Hook::Output],
        options: &[
            option("to-ports", ValueKind::NatPorts, "destination ports"),
            flag("random", "a random port"),
        ],
        quirks: Quirks::finish(ports_need_protocol),
        ..NAT
    },
    ExtensionSpec {
        name: "NETMAP",
        help: "maps one network onto another, host by host",
        options: &[option("to", ValueKind::NETWORK, "the other network").required()],
        ..NAT
    },
    ExtensionSpec {
        name: "TPROXY",
        help: "leads the packet to a local socket, unchanged",
        tables: &[TableKind::Mangle],
        hooks: &[Hook::Prerouting],
        ending: Ending::Verdict,
        options: &[
            option("on-port", ValueKind::Custom(&PORT), "port of the socket").required(),
            option("on-ip", ValueKind::Address, "address of the socket").shown("unspecified"),
            option("tproxy-mark", ValueKind::XMARK, "mark it gets").shown("0/0"),
        ],
        quirks: Quirks::finish(tproxy_finish),
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "DNPT",
        help: "translates the prefix of an IPv6 destination, without state",
        alters: &[Field::Destination],
        families: Families::Only(Family::V6),
        tables: &[TableKind::Mangle],
        options: PREFIXES,
        laws: PREFIX_LAWS,
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "SNPT",
        help: "translates the prefix of an IPv6 source, without state",
        alters: &[Field::Source],
        families: Families::Only(Family::V6),
        tables: &[TableKind::Mangle],
        options: PREFIXES,
        laws: PREFIX_LAWS,
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec {
        name: "CLUSTERIP",
        help: "shares an address among the nodes of a cluster",
        families: Families::Only(Family::V4),
        hooks: &[Hook::Input],
        ending: Ending::Continue,
        options: &[
            flag("new", "makes the cluster"),
            option(
                "hashmode",
                ValueKind::Choice(&[
                    ("sourceip", 0),
                    ("sourceip-sourceport", 1),
                    ("sourceip-sourceport-destport", 2),
                ]),
                "what chooses the node",
            ),
            option("clustermac", ValueKind::Mac, "Ethernet address of the cluster"),
            option("total-nodes", ValueKind::number_in(1, 16), "how many nodes"),
            option("local-node", ValueKind::number_in(1, 16), "number of this node"),
            option("hash-init", ValueKind::number(u32::MAX as u64), "seed of the hash"),
        ],
        ..ExtensionSpec::TARGET
    },
];

const PREFIXES: &[super::spec::OptionSpec] = &[
    option("src-pfx", ValueKind::Custom(&PREFIX), "prefix before").required(),
    option("dst-pfx", ValueKind::Custom(&PREFIX), "prefix after").required(),
];

const PREFIX_LAWS: &[Law] = &[Law::Needs("src-pfx", "dst-pfx")];

/// A prefix of at most 64 bits; its length must be written.
static PREFIX: CustomKind = CustomKind {
    hint: "ADDRESS/LENGTH",
    parse: |text, family| {
        if !text.contains('/') {
            return Err(ValueFault::new(
                format!("`{text}` has no prefix length"),
                format!("write {text}/64 or a shorter prefix"),
            ));
        }
        let kept = ValueKind::Network { full_shown: true, host_bits_kept: true }.parse(&[text], family)?;
        let masked = ValueKind::NETWORK.parse(&[text], family)?;
        if kept != masked {
            return Err(format!("`{text}` has bits beyond its length").into());
        }
        Ok(masked)
    },
    write: |value, family, out| ValueKind::NETWORK.write(value, family, out),
};

static PORT: CustomKind = CustomKind {
    hint: "PORT",
    parse: |text, _| parse_port(text).map(Value::Number),
    write: |value, family, out| ValueKind::number(65535).write(value, family, out),
};

/// The protocols whose connections have ports, or what stands for them.
const NAT_PROTOCOLS: [u8; 7] = [6, 17, 132, 33, 136, 1, 58];

fn ports_need_protocol(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let with_ports = settings.iter().any(|s| match &s.value {
        Value::Nat(nat) => nat.ports.is_some(),
        Value::Range(..) => true,
        _ => false,
    });
    if with_ports && !NAT_PROTOCOLS.contains(&context.protocol) {
        return Err("ports need a protocol that has them: -p tcp, udp, sctp or dccp".into());
    }
    Ok(())
}

fn tproxy_finish(_: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    if matches!(context.protocol, 6 | 17) {
        Ok(())
    } else {
        Err("the rule needs `-p tcp` or `-p udp`".into())
    }
}

/// `[ADDRESS[-ADDRESS]][:PORT[-PORT[/BASE]]]`; in IPv6 the addresses stand in brackets when
/// ports follow.
static NAT_RANGE: CustomKind = CustomKind {
    hint: "[ADDRESS[-ADDRESS]][:PORT[-PORT[/PORT]]]",
    parse: |text, family| parse_nat(text, family).map(|nat| Value::Nat(Box::new(nat))),
    write: |value, family, out| {
        if let Value::Nat(nat) = value {
            write_nat(nat, family, out);
        }
    },
};

fn parse_nat(text: &str, family: Family) -> Result<Nat, ValueFault> {
    let (addresses, ports) = split_nat(text, family)?;
    let mut nat = Nat::default();
    if !addresses.is_empty() {
        let (lo, hi) = addresses.split_once('-').unwrap_or((addresses, addresses));
        nat.addresses = Some((parse_address(lo, family)?, parse_address(hi, family)?));
    }
    if let Some(ports) = ports {
        let (range, base) = ports.split_once('/').map_or((ports, None), |(r, b)| (r, Some(b)));
        nat.ports = Some(port_range(range)?);
        nat.base_port = base.map(nonzero_port).transpose()?;
    }
    if nat == Nat::default() {
        return Err(format!("`{text}` names neither an address nor a port").into());
    }
    Ok(nat)
}

fn split_nat(text: &str, family: Family) -> Result<(&str, Option<&str>), ValueFault> {
    if family == Family::V4 {
        return Ok(text.split_once(':').map_or((text, None), |(a, p)| (a, Some(p))));
    }
    let Some(inner) = text.strip_prefix('[') else {
        return Ok(text
            .strip_prefix(':')
            .filter(|p| !p.contains(':'))
            .map_or((text, None), |p| ("", Some(p))));
    };
    let Some((addresses, rest)) = inner.split_once(']') else {
        return Err(format!("the [ of `{text}` has no partner").into());
    };
    match rest.strip_prefix(':') {
        Some(ports) => Ok((addresses, Some(ports))),
        None if rest.is_empty() => Ok((addresses, None)),
        None => Err(format!("`{rest}` is no port").into()),
    }
}

fn nonzero_port(text: &str) -> Result<u16, ValueFault> {
    let port = match parse_number(text) {
        Some(_) => number_within(text, 1, 65535)?,
        None => parse_port(text)?,
    };
    Ok(port as u16)
}

/// `lo-hi` by number; a single port by number or name.
fn port_range(text: &str) -> Result<(u16, u16), ValueFault> {
    let numbers = text.split_once('-').filter(|(lo, _)| parse_number(lo).is_some());
    let Some((lo, hi)) = numbers else {
        let port = nonzero_port(text)?;
        return Ok((port, port));
    };
    let (lo, hi) = (number_within(lo, 1, 65535)? as u16, number_within(hi, 1, 65535)? as u16);
    if lo > hi {
        return Err(ValueFault::new(
            format!("the range {lo} to {hi} holds nothing"),
            format!("put the lower port first: {hi}-{lo}"),
        ));
    }
    Ok((lo, hi))
}

fn write_nat(nat: &Nat, family: Family, out: &mut String) {
    let brackets = family == Family::V6 && nat.ports.is_some();
    if let Some((lo, hi)) = nat.addresses {
        out.push_str(if brackets { "[" } else { "" });
        write_address(lo, family, out);
        if hi != lo {
            out.push('-');
            write_address(hi, family, out);
        }
        out.push_str(if brackets { "]" } else { "" });
    }
    if let Some((lo, hi)) = nat.ports {
        out.push(':');
        out.push_str(&lo.to_string());
        if hi != lo {
            out.push('-');
            out.push_str(&hi.to_string());
        }
        if let Some(base) = nat.base_port {
            out.push('/');
            out.push_str(&base.to_string());
        }
    }
}
