//! Which matches and targets the kernel itself was asked about, packet by packet: the list that
//! `docs/extensions.md` shows. Whoever adds a case to the kernel's checks adds a line here.

use super::spec::{ExtensionSpec, Kind};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelCheck {
    /// A case that matches and one that does not were compared with the kernel.
    Checked,
    /// Not, and why not.
    Not(&'static str),
}

/// Those that were checked, and those that cannot be.
static CHECKED: &[(Kind, &str, KernelCheck)] = &[
    (Kind::Match, "addrtype", KernelCheck::Checked),
    (Kind::Match, "ah", KernelCheck::Checked),
    (Kind::Match, "bpf", KernelCheck::Checked),
    (
        Kind::Match,
        "cgroup",
        KernelCheck::Not("looks at the socket of a sender on this host: OUTPUT is not driven"),
    ),
    (Kind::Match, "cluster", KernelCheck::Checked),
    (Kind::Match, "comment", KernelCheck::Checked),
    (Kind::Match, "connbytes", KernelCheck::Checked),
    (Kind::Match, "connlabel", KernelCheck::Not("the tools want a file of labels that not every system has")),
    (Kind::Match, "connlimit", KernelCheck::Checked),
    (Kind::Match, "connmark", KernelCheck::Checked),
    (Kind::Match, "conntrack", KernelCheck::Checked),
    (Kind::Match, "cpu", KernelCheck::Checked),
    (Kind::Match, "dccp", KernelCheck::Checked),
    (Kind::Match, "devgroup", KernelCheck::Checked),
    (Kind::Match, "dscp", KernelCheck::Checked),
    (Kind::Match, "dst", KernelCheck::Checked),
    (Kind::Match, "ecn", KernelCheck::Checked),
    (Kind::Match, "esp", KernelCheck::Checked),
    (Kind::Match, "eui64", KernelCheck::Checked),
    (Kind::Match, "frag", KernelCheck::Checked),
    (Kind::Match, "hashlimit", KernelCheck::Checked),
    (Kind::Match, "hbh", KernelCheck::Checked),
    (Kind::Match, "helper", KernelCheck::Checked),
    (Kind::Match, "hl", KernelCheck::Checked),
    (Kind::Match, "icmp", KernelCheck::Checked),
    (Kind::Match, "icmp6", KernelCheck::Checked),
    (Kind::Match, "ipcomp", KernelCheck::Checked),
    (Kind::Match, "iprange", KernelCheck::Checked),
    (Kind::Match, "ipv6header", KernelCheck::Checked),
    (Kind::Match, "ipvs", KernelCheck::Not("wants a virtual server")),
    (Kind::Match, "length", KernelCheck::Checked),
    (Kind::Match, "limit", KernelCheck::Checked),
    (Kind::Match, "mac", KernelCheck::Checked),
    (Kind::Match, "mark", KernelCheck::Checked),
    (Kind::Match, "mh", KernelCheck::Checked),
    (Kind::Match, "multiport", KernelCheck::Checked),
    (
        Kind::Match,
        "nfacct",
        KernelCheck::Not("wants accounting objects that are made by a tool of their own"),
    ),
    (Kind::Match, "osf", KernelCheck::Not("wants fingerprints that are loaded by a tool of their own")),
    (
        Kind::Match,
        "owner",
        KernelCheck::Not("looks at the socket of a sender on this host: OUTPUT is not driven"),
    ),
    (Kind::Match, "physdev", KernelCheck::Checked),
    (Kind::Match, "pkttype", KernelCheck::Checked),
    (Kind::Match, "policy", KernelCheck::Checked),
    (Kind::Match, "ports", KernelCheck::Not("hipac's own: the tools have no such match")),
    (Kind::Match, "quota", KernelCheck::Checked),
    (Kind::Match, "rateest", KernelCheck::Not("wants an estimator that has seen seconds of traffic")),
    (Kind::Match, "realm", KernelCheck::Checked),
    (Kind::Match, "recent", KernelCheck::Checked),
    (Kind::Match, "rpfilter", KernelCheck::Checked),
    (Kind::Match, "rt", KernelCheck::Checked),
    (Kind::Match, "sctp", KernelCheck::Checked),
    (Kind::Match, "set", KernelCheck::Checked),
    (Kind::Match, "socket", KernelCheck::Not("wants an open socket")),
    (Kind::Match, "srh", KernelCheck::Checked),
    (Kind::Match, "state", KernelCheck::Checked),
    (Kind::Match, "statistic", KernelCheck::Checked),
    (Kind::Match, "string", KernelCheck::Checked),
    (Kind::Match, "tcp", KernelCheck::Checked),
    (Kind::Match, "tcpmss", KernelCheck::Checked),
    (Kind::Match, "time", KernelCheck::Checked),
    (Kind::Match, "tos", KernelCheck::Checked),
    (Kind::Match, "ttl", KernelCheck::Checked),
    (Kind::Match, "u32", KernelCheck::Checked),
    (Kind::Match, "udp", KernelCheck::Checked),
    (Kind::Match, "udplite", KernelCheck::Not("the tools have no such match")),
];

/// What is known of an extension; `None`: nobody has asked.
pub fn kernel_check(spec: &ExtensionSpec) -> Option<KernelCheck> {
    CHECKED.iter().find(|(kind, name, _)| (*kind, *name) == (spec.kind, spec.name)).map(|(.., check)| *check)
}
