//! Matches on where a packet comes from and goes to: address types and ranges, bridge ports,
//! sets, routes.

use std::sync::Arc;

use crate::ipset::Membership;
use crate::meaning::{Clause, Field, MatchMeaning, Residual, Test, ValueSet};
use crate::model::{Extension, Family, Hook, Setting, TableKind};
use crate::value::Value;

use super::kind::ValueKind;
use super::meaning::{test, value_set};
use super::spec::{ExtensionSpec, Families, FinishContext, Law, Quirks, flag, option, setting};

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "addrtype",
        help: "type of route that leads to an address",
        options: &[
            option("src-type", ValueKind::SetByStart(ROUTE_TYPES), "type of the source address").not(),
            option("dst-type", ValueKind::SetByStart(ROUTE_TYPES), "type of the destination address").not(),
            flag("limit-iface-in", "only by way of the input interface"),
            flag("limit-iface-out", "only by way of the output interface"),
        ],
        laws: &[Law::AnyOf(&["src-type", "dst-type"]), Law::OneOf(&["limit-iface-in", "limit-iface-out"])],
        quirks: Quirks::partly(addrtype),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "iprange",
        help: "any range of addresses",
        options: &[
            option("src-range", ValueKind::AddressRange, "source address").not().tests(Field::Source),
            option("dst-range", ValueKind::AddressRange, "destination address")
                .not()
                .tests(Field::Destination),
        ],
        laws: &[Law::AnyOf(&["src-range", "dst-range"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "physdev",
        help: "ports of a bridge",
        options: &[
            flag("physdev-is-in", "came in by a bridge port").not(),
            option("physdev-in", ValueKind::INTERFACE, "came in by this port").not(),
            flag("physdev-is-out", "leaves by a bridge port").not(),
            option("physdev-out", ValueKind::INTERFACE, "leaves by this port").not(),
            flag("physdev-is-bridged", "is bridged and not routed").not(),
        ],
        laws: &[Law::AnyOf(&[
            "physdev-is-in",
            "physdev-in",
            "physdev-is-out",
            "physdev-out",
            "physdev-is-bridged",
        ])],
        quirks: Quirks::meaning(physdev),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "set",
        help: "an ipset holds the packet's addresses or ports",
        laws: &[
            Law::OneOf(&["packets-eq", "packets-lt", "packets-gt"]),
            Law::OneOf(&["bytes-eq", "bytes-lt", "bytes-gt"]),
        ],
        quirks: Quirks { finish: Some(set_finish), ..Quirks::partly(set) },
        options: &[
            option("match-set", ValueKind::Pair("NAME src|dst[,…]"), "the set, and what is looked up")
                .or(&["set"])
                .not()
                .required(),
            flag("return-nomatch", "entries marked nomatch count as matches"),
            flag("update-counters", "matching counts on the entry").not(),
            flag("update-subcounters", "matching counts in member sets").not(),
            option("packets-eq", ValueKind::number(u64::MAX), "the entry's packet counter equals").not(),
            option("packets-lt", ValueKind::number(u64::MAX), "the entry's packet counter is below"),
            option("packets-gt", ValueKind::number(u64::MAX), "the entry's packet counter is above"),
            option("bytes-eq", ValueKind::number(u64::MAX), "the entry's byte counter equals").not(),
            option("bytes-lt", ValueKind::number(u64::MAX), "the entry's byte counter is below"),
            option("bytes-gt", ValueKind::number(u64::MAX), "the entry's byte counter is above"),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "devgroup",
        help: "group of an interface",
        options: &[
            option("src-group", ValueKind::MARK, "group of the input interface").not().tests(Field::InGroup),
            option("dst-group", ValueKind::MARK, "group of the output interface")
                .not()
                .tests(Field::OutGroup),
        ],
        laws: &[Law::AnyOf(&["src-group", "dst-group"])],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "rpfilter",
        help: "the route back to the source leads out by the input interface",
        tables: &[TableKind::Raw, TableKind::Mangle],
        hooks: &[Hook::Prerouting],
        residual: Some(Residual::Pure),
        options: &[
            flag("loose", "by any interface"),
            flag("validmark", "the mark takes part in the lookup"),
            flag("accept-local", "sources of this host are sound"),
            flag("invert", "the other packets"),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "realm",
        help: "routing realm",
        families: Families::Only(Family::V4),
        options: &[option("realm", ValueKind::MARK, "realm & MASK equals VALUE")
            .not()
            .required()
            .tests(Field::Realm)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "ipvs",
        help: "connection of a virtual server",
        residual: Some(Residual::Pure),
        options: &[
            flag("ipvs", "it belongs to one").not(),
            option("vproto", ValueKind::Protocol, "protocol of the server").not(),
            option(
                "vaddr",
                ValueKind::Network { full_shown: false, host_bits_kept: true },
                "address of the server",
            )
            .not(),
            option("vport", ValueKind::NatPorts, "port of the server").not(),
            option("vdir", ValueKind::Choice(&[("ORIGINAL", 0), ("REPLY", 1)]), "direction"),
            option(
                "vmethod",
                ValueKind::Choice(&[("GATE", 0), ("IPIP", 1), ("MASQ", 2)]),
                "forwarding method",
            )
            .not(),
            option("vportctl", ValueKind::NatPorts, "port of the controlling connection").not(),
        ],
        laws: &[Law::AnyOf(&["ipvs", "vproto", "vaddr", "vport", "vdir", "vmethod", "vportctl"])],
        quirks: Quirks::finish(ipvs_finish),
        ..ExtensionSpec::MATCH
    },
];

/// Route types by the kernel's numbers.
const ROUTE_TYPES: &[(&str, u64)] = &[
    ("UNSPEC", 0),
    ("UNICAST", 1),
    ("LOCAL", 2),
    ("BROADCAST", 3),
    ("ANYCAST", 4),
    ("MULTICAST", 5),
    ("BLACKHOLE", 6),
    ("UNREACHABLE", 7),
    ("PROHIBIT", 8),
    ("THROW", 9),
    ("NAT", 10),
    ("XRESOLVE", 11),
];

/// Counters are updated unless a rule says not to.
fn set_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    settings.retain(|s| s.negated || !s.option.name.starts_with("update-"));
    match setting(settings, "match-set").map(|s| &s.value) {
        Some(Value::Pair(pair)) => super::log::check_directions(&pair.1),
        _ => Ok(()),
    }
}

/// A set that is known is looked up; any other is asked for.
fn set(extension: &Extension, _: Family) -> MatchMeaning {
    let mut meaning = MatchMeaning::default();
    let Some(setting) = setting(&extension.settings, "match-set") else { return meaning };
    let Value::MatchSet(bound) = &setting.value else {
        return MatchMeaning { residual: Some(Residual::Pure), ..meaning };
    };
    let test = |membership: &Arc<Membership>| Test {
        field: Field::Membership,
        negated: setting.negated,
        set: ValueSet::Member(Arc::clone(membership)),
    };
    let tests = bound.any_of.iter().map(test);
    // In none of them, or in one of them.
    if setting.negated {
        meaning.clauses.extend(tests.map(|t| vec![t]))
    } else {
        meaning.clauses.push(tests.collect())
    }
    meaning
}

/// Types are fields; types by way of one interface need a route lookup of their own.
fn addrtype(extension: &Extension, _: Family) -> MatchMeaning {
    let settings = &extension.settings;
    if settings.iter().any(|s| s.option.name.starts_with("limit-iface")) {
        return MatchMeaning { residual: Some(Residual::Pure), ..MatchMeaning::default() };
    }
    let mut clauses = Vec::new();
    for (name, field) in [("src-type", Field::SourceType), ("dst-type", Field::DestinationType)] {
        if let Some(s) = setting(settings, name) {
            clauses.push(vec![test(field, s)]);
        }
    }
    MatchMeaning { clauses, ..MatchMeaning::default() }
}

/// A bridge port of that name: none when the name is empty.
fn port(field: Field, name: &str, negated: bool) -> Test {
    Test { field, negated, set: ValueSet::Interface { name: name.into(), prefix: false } }
}

/// A packet that never crossed a bridge has no ports: it satisfies the negated tests only. One
/// that came in by a bridge port and leaves by none (it was routed) satisfies no test of its
/// output port, negated or not.
fn physdev(extension: &Extension, _: Family) -> MatchMeaning {
    let mut clauses: Vec<Clause> = Vec::new();
    for s in &extension.settings {
        let negated = s.negated;
        match s.option.name {
            "physdev-is-in" => clauses.push(vec![port(Field::PhysIn, "", !negated)]),
            "physdev-is-out" => clauses.push(vec![port(Field::PhysOut, "", !negated)]),
            "physdev-is-bridged" => clauses.push(vec![Test {
                field: Field::Bridged,
                negated,
                set: ValueSet::Ranges(vec![(1, 1)]),
            }]),
            "physdev-in" => {
                if negated {
                    let named = Test { field: Field::PhysIn, negated: true, set: value_set(&s.value) };
                    clauses.push(vec![port(Field::PhysIn, "", false), named]);
                } else {
                    clauses.push(vec![port(Field::PhysIn, "", true)]);
                    clauses.push(vec![test(Field::PhysIn, s)]);
                }
            }
            "physdev-out" => {
                if negated {
                    clauses.push(vec![port(Field::PhysIn, "", false), port(Field::PhysOut, "", true)]);
                    let named = Test { field: Field::PhysOut, negated: true, set: value_set(&s.value) };
                    clauses.push(vec![port(Field::PhysOut, "", false), named]);
                } else {
                    clauses.push(vec![port(Field::PhysOut, "", true)]);
                    clauses.push(vec![test(Field::PhysOut, s)]);
                }
            }
            _ => {}
        }
    }
    MatchMeaning { clauses, ..MatchMeaning::default() }
}

/// The other options say `--ipvs` by themselves.
fn ipvs_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    if settings.len() > 1 {
        settings.retain(|s| s.option.name != "ipvs" || s.negated);
    }
    Ok(())
}
