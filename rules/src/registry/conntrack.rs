//! Matches on what connection tracking knows.

use crate::meaning::{Clause, Field, Residual, Test, ValueSet};
use crate::model::{Family, Setting};
use crate::value::Value;

use super::kind::{CustomKind, Quote, ValueKind, number_within};
use super::meaning::{merged, test};
use super::spec::{ExtensionSpec, FinishContext, Law, OptionSpec, Quirks, flag, option, setting};

/// The five states, each a packet's only one, then the two address translations of its
/// connection. Bit numbers are those of [`Field::CtState`].
const STATES: &[(&str, u64)] = &[
    ("INVALID", 0),
    ("NEW", 1),
    ("RELATED", 2),
    ("ESTABLISHED", 3),
    ("UNTRACKED", 4),
    ("SNAT", 5),
    ("DNAT", 6),
];

const STATUSES: &[(&str, u64)] =
    &[("EXPECTED", 0), ("SEEN_REPLY", 1), ("ASSURED", 2), ("CONFIRMED", 3), ("NONE", 63)];

const fn address(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, ValueKind::Network { full_shown: false, host_bits_kept: true }, help).not().pure()
}

const fn ports(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, ValueKind::Ports, help).not().pure()
}

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec {
        name: "conntrack",
        help: "state, addresses, ports, status and lifetime of the connection",
        options: &[
            option("ctstate", ValueKind::SetByStart(STATES), "the packet's state is one of them")
                .not()
                .clauses(states),
            option("ctproto", ValueKind::Protocol, "the connection's protocol").not().pure(),
            address("ctorigsrc", "source address of the first direction"),
            address("ctorigdst", "destination address of the first direction"),
            address("ctreplsrc", "source address of the reply direction"),
            address("ctrepldst", "destination address of the reply direction"),
            ports("ctorigsrcport", "source port of the first direction"),
            ports("ctorigdstport", "destination port of the first direction"),
            ports("ctreplsrcport", "source port of the reply direction"),
            ports("ctrepldstport", "destination port of the reply direction"),
            option("ctstatus", ValueKind::SetByStart(STATUSES), "the connection has one of these")
                .not()
                .pure(),
            option("ctexpire", ValueKind::range(u32::MAX as u64), "seconds left to live").not().pure(),
            option("ctdir", ValueKind::Choice(&[("ORIGINAL", 0), ("REPLY", 1)]), "direction of the packet")
                .pure(),
        ],
        laws: &[Law::AnyOf(&[
            "ctstate",
            "ctproto",
            "ctorigsrc",
            "ctorigdst",
            "ctreplsrc",
            "ctrepldst",
            "ctorigsrcport",
            "ctorigdstport",
            "ctreplsrcport",
            "ctrepldstport",
            "ctstatus",
            "ctexpire",
            "ctdir",
        ])],
        quirks: Quirks::finish(conntrack_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "state",
        help: "state of the connection, the older form of conntrack --ctstate",
        options: &[option(
            "state",
            ValueKind::SetByStart(STATES.split_at(5).0),
            "the packet's state is one of them",
        )
        .not()
        .required()
        .clauses(states)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "connmark",
        help: "mark of the connection",
        options: &[option("mark", ValueKind::MARK, "connmark & MASK equals VALUE")
            .not()
            .required()
            .clauses(connmark)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "connbytes",
        help: "bytes or packets that the connection has carried",
        options: &[
            option("connbytes", ValueKind::Custom(&BYTES), "lowest[:highest]").not().required().pure(),
            option(
                "connbytes-mode",
                ValueKind::Exact(&[("packets", 0), ("bytes", 1), ("avgpkt", 2)]),
                "what is counted",
            )
            .required(),
            option(
                "connbytes-dir",
                ValueKind::Exact(&[("original", 0), ("reply", 1), ("both", 2)]),
                "whose packets",
            )
            .required(),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "connlabel",
        help: "label of the connection",
        options: &[
            option("label", ValueKind::Custom(&LABEL), "the bit's number").not().required().pure(),
            flag("set", "sets the label as well").stateful(),
        ],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "connlimit",
        help: "connections of one host or network",
        residual: Some(Residual::Stateful),
        options: &[
            option("connlimit-upto", ValueKind::number(u32::MAX as u64), "so many or fewer").not(),
            option("connlimit-above", ValueKind::number(u32::MAX as u64), "more than that").not(),
            option("connlimit-mask", ValueKind::number(128), "prefix length that hosts are grouped by"),
            flag("connlimit-saddr", "group by source address (default)"),
            flag("connlimit-daddr", "group by destination address"),
        ],
        laws: &[
            Law::AnyOf(&["connlimit-upto", "connlimit-above"]),
            Law::OneOf(&["connlimit-upto", "connlimit-above"]),
            Law::OneOf(&["connlimit-saddr", "connlimit-daddr"]),
        ],
        quirks: Quirks::finish(connlimit_finish),
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "helper",
        help: "conntrack helper of the connection",
        options: &[option(
            "helper",
            ValueKind::Text { min: 0, max: 29, cut: true, quote: Quote::Careful },
            "its name, or NAME-PORT",
        )
        .not()
        .required()
        .clauses(helper)],
        ..ExtensionSpec::MATCH
    },
    ExtensionSpec {
        name: "cluster",
        help: "connections that this node of a cluster takes",
        options: &[
            option("cluster-local-nodemask", super::proto::HEX8, "nodes of this host, a bit each")
                .not()
                .pure(),
            option("cluster-local-node", ValueKind::number_in(1, 32), "number of this node")
                .not()
                .short_for("cluster-local-nodemask", node_mask),
            option("cluster-total-nodes", ValueKind::number_in(1, 32), "how many nodes").required(),
            option("cluster-hash-seed", super::proto::HEX8, "seed of the hash").required(),
        ],
        laws: &[Law::AnyOf(&["cluster-local-nodemask"])],
        quirks: Quirks::finish(cluster_finish),
        ..ExtensionSpec::MATCH
    },
];

/// SNAT and DNAT are further ways to be in the set: a packet is in it when its state is, or
/// when its connection is translated in a way that the set names.
fn states(setting: &Setting, _: Family) -> Vec<Clause> {
    let Value::Set(wanted) = setting.value else { return Vec::new() };
    let wants = |bit: u64| wanted >> bit & 1 == 1;
    let holds =
        |value: u64| wants(value & 7) || (value & 8 != 0 && wants(5)) || (value & 16 != 0 && wants(6));
    let values = (0..32).filter(|v| v & 7 <= 4 && holds(*v)).map(|v| (u128::from(v), u128::from(v)));
    vec![vec![Test { field: Field::CtState, negated: setting.negated, set: merged(values.collect()) }]]
}

/// Without a connection there is no mark to compare, negated or not.
fn connmark(setting: &Setting, _: Family) -> Vec<Clause> {
    let tracked = ValueSet::Ranges(vec![(1, 3), (9, 11), (17, 19), (25, 27)]);
    vec![
        vec![Test { field: Field::CtState, negated: false, set: tracked }],
        vec![test(Field::ConnMark, setting)],
    ]
}

fn conntrack_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    match setting(settings, "ctproto") {
        Some(Setting { negated: true, value: Value::Number(0), .. }) => {
            Err("`! --ctproto 0` can never hold".into())
        }
        _ => Ok(()),
    }
}

/// Every number from the lowest: the highest is printed only when it is one.
static BYTES: CustomKind = CustomKind {
    hint: "FROM[:TO]",
    parse: |text, _| {
        let (lo, hi) = text.split_once(':').unwrap_or((text, ""));
        let lo = if lo.is_empty() { 0 } else { number_within(lo, 0, u64::MAX)? };
        let hi = if hi.is_empty() { u64::MAX } else { number_within(hi, 0, u64::MAX)? };
        if lo > hi {
            return Err(format!("the range {lo} to {hi} holds nothing").into());
        }
        Ok(Value::Range(lo, hi))
    },
    write: |value, _, out| {
        if let Value::Range(lo, hi) = value {
            out.push_str(&lo.to_string());
            if *hi != u64::MAX {
                out.push(':');
                out.push_str(&hi.to_string());
            }
        }
    },
};

static LABEL: CustomKind = CustomKind {
    hint: "NUMBER",
    parse: |text, _| number_within(text, 0, 127).map(Value::Number),
    write: |value, _, out| {
        if let Value::Number(n) = value {
            out.push_str(&format!("\"{n}\""));
        }
    },
};

/// `! --connlimit-above` is `--connlimit-upto`; mask and grouping are always printed.
fn connlimit_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    for (name, other) in [("connlimit-above", "connlimit-upto"), ("connlimit-upto", "connlimit-above")] {
        if let Some(i) = settings.iter().position(|s| s.option.name == name && s.negated) {
            let value = settings.remove(i).value;
            context.add_missing(settings, other, value);
            break;
        }
    }
    let bits = context.family.address_bits();
    context.add_missing(settings, "connlimit-mask", Value::Number(u64::from(bits)));
    for s in settings.iter_mut().filter(|s| s.option.name == "connlimit-mask") {
        if let Value::Number(n) = &mut s.value {
            *n = (*n).min(bits.into());
        }
    }
    if setting(settings, "connlimit-daddr").is_none() {
        context.add_missing(settings, "connlimit-saddr", Value::Flag);
    }
    Ok(())
}

fn node_mask(value: &Value) -> Value {
    match value {
        Value::Number(n @ 1..=32) => Value::Number(1 << (n - 1)),
        other => other.clone(),
    }
}

fn cluster_finish(settings: &mut Vec<Setting>, _: &FinishContext<'_>) -> Result<(), String> {
    let number = |name| match setting(settings, name) {
        Some(Setting { value: Value::Number(n), .. }) => Some(*n),
        _ => None,
    };
    match (number("cluster-local-nodemask"), number("cluster-total-nodes")) {
        (Some(0), _) => Err("the mask of local nodes is empty".into()),
        (Some(mask), Some(total)) if mask >= 1 << total => {
            Err(format!("a node of the mask {mask:#x} is beyond the {total} nodes of the cluster"))
        }
        _ => Ok(()),
    }
}

/// The kernel compares as many bytes as the helper's own name has: it may be the first part of the one in the
/// rule, as `ftp` is of `ftp-2121`. No name in the rule means any helper.
fn helper(setting: &Setting, _: Family) -> Vec<Clause> {
    let Value::Text(name) = &setting.value else { return Vec::new() };
    let is = |name: &str, prefix, negated| Test {
        field: Field::Helper,
        negated,
        set: ValueSet::Interface { name: name.into(), prefix },
    };
    if name.is_empty() {
        return vec![vec![is("", false, !setting.negated)]];
    }
    let ends = (1..=name.len().min(HELPER_BYTES_MAX)).filter(|&end| name.is_char_boundary(end));
    let tests = ends.map(|end| is(&name[..end], false, setting.negated));
    if setting.negated { tests.map(|test| vec![test]).collect() } else { vec![tests.collect()] }
}

/// Bytes that the name of a helper has in the kernel.
const HELPER_BYTES_MAX: usize = 15;
