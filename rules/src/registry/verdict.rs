//! Targets that decide, and RETURN.

use crate::model::{Family, Hook, Setting, TableKind};
use crate::value::Value;

use super::kind::{CustomKind, ValueKind, number_within};
use super::spec::{Ending, ExtensionSpec, Families, FinishContext, Law, Quirks, flag, option, setting};

const VERDICT: ExtensionSpec = ExtensionSpec { ending: Ending::Verdict, ..ExtensionSpec::TARGET };

pub(super) static ENTRIES: &[ExtensionSpec] = &[
    ExtensionSpec { name: "ACCEPT", help: "lets the packet pass this table", ..VERDICT },
    ExtensionSpec { name: "DROP", help: "drops the packet", ..VERDICT },
    ExtensionSpec {
        name: "RETURN",
        help: "goes back to the calling chain, or to the policy of a built-in one",
        ending: Ending::Return,
        ..ExtensionSpec::TARGET
    },
    ExtensionSpec { name: "QUEUE", help: "hands the packet to a program, by queue 0", ..VERDICT },
    ExtensionSpec {
        name: "NFQUEUE",
        help: "hands the packet to a program",
        options: &[
            option("queue-num", ValueKind::number(65535), "queue"),
            option("queue-balance", ValueKind::Custom(&QUEUES), "queues over which connections are spread"),
            flag("queue-bypass", "accepts when no program listens"),
            flag("queue-cpu-fanout", "the processor chooses the queue"),
        ],
        laws: &[Law::OneOf(&["queue-num", "queue-balance"]), Law::Needs("queue-cpu-fanout", "queue-balance")],
        quirks: Quirks::finish(nfqueue_finish),
        ..VERDICT
    },
    ExtensionSpec {
        name: "REJECT",
        help: "drops the packet and says so to its sender",
        families: Families::Only(Family::V4),
        tables: &[TableKind::Filter],
        hooks: &[Hook::Input, Hook::Forward, Hook::Output],
        options: &[option("reject-with", ValueKind::ChoiceByStart(REJECT_V4), "how it says so")
            .shown("icmp-port-unreachable")],
        quirks: Quirks::finish(reject_finish),
        ..VERDICT
    },
    ExtensionSpec {
        name: "REJECT",
        help: "drops the packet and says so to its sender",
        families: Families::Only(Family::V6),
        tables: &[TableKind::Filter],
        hooks: &[Hook::Input, Hook::Forward, Hook::Output],
        options: &[option("reject-with", ValueKind::ChoiceByStart(REJECT_V6), "how it says so")
            .shown("icmp6-port-unreachable")],
        quirks: Quirks::finish(reject_finish),
        ..VERDICT
    },
    ExtensionSpec {
        name: "SYNPROXY",
        help: "answers a TCP SYN in the server's place",
        tables: &[TableKind::Filter],
        hooks: &[Hook::Input, Hook::Forward],
        protocols: &[6],
        options: &[
            flag("sack-perm", "SACK is permitted"),
            flag("timestamp", "timestamps are sent"),
            option("wscale", ValueKind::number(14), "window scale"),
            option("mss", ValueKind::number(65535), "maximum segment size"),
            flag("ecn", "congestion notification is on"),
        ],
        ..VERDICT
    },
];

/// The code that stands for a TCP reset.
const TCP_RESET: u64 = 100;

const REJECT_V4: &[(&str, u64)] = &[
    ("icmp-net-unreachable", 0),
    ("net-unreach", 0),
    ("icmp-host-unreachable", 1),
    ("host-unreach", 1),
    ("icmp-proto-unreachable", 2),
    ("proto-unreach", 2),
    ("icmp-port-unreachable", 3),
    ("port-unreach", 3),
    ("icmp-net-prohibited", 9),
    ("net-prohib", 9),
    ("icmp-host-prohibited", 10),
    ("host-prohib", 10),
    ("tcp-reset", TCP_RESET),
    ("tcp-rst", TCP_RESET),
    ("icmp-admin-prohibited", 13),
    ("admin-prohib", 13),
];

const REJECT_V6: &[(&str, u64)] = &[
    ("icmp6-no-route", 0),
    ("no-route", 0),
    ("icmp6-adm-prohibited", 1),
    ("adm-prohibited", 1),
    ("icmp6-addr-unreachable", 3),
    ("addr-unreach", 3),
    ("icmp6-port-unreachable", 4),
    ("port-unreach", 4),
    ("icmp6-policy-fail", 5),
    ("policy-fail", 5),
    ("icmp6-reject-route", 6),
    ("reject-route", 6),
    ("tcp-reset", TCP_RESET),
];

fn reject_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    let reset = settings.iter().any(|s| s.value == Value::Number(TCP_RESET));
    if reset && context.protocol != 6 {
        return Err("tcp-reset answers TCP only: the rule needs `-p tcp`".into());
    }
    Ok(())
}

/// Queues `lo:hi`, of which there are two at least; an open end is 65534, for the kernel counts
/// them in 16 bits.
static QUEUES: CustomKind = CustomKind {
    hint: "FIRST:LAST",
    parse: |text, _| {
        let Some((lo, hi)) = text.split_once(':') else {
            return Err(format!("`{text}` is no range FIRST:LAST").into());
        };
        let lo = if lo.is_empty() { 0 } else { number_within(lo, 0, 65535)? };
        let hi = if hi.is_empty() { 65534 } else { number_within(hi, 0, 65535)? };
        if lo >= hi || hi - lo == 65535 {
            return Err(format!("queues {lo} to {hi} are no range of 2 to 65535 queues").into());
        }
        Ok(Value::Range(lo, hi))
    },
    write: |value, family, out| ValueKind::range(65535).write(value, family, out),
};

fn nfqueue_finish(settings: &mut Vec<Setting>, context: &FinishContext<'_>) -> Result<(), String> {
    if setting(settings, "queue-balance").is_none() {
        context.add_missing(settings, "queue-num", Value::Number(0));
    }
    Ok(())
}
