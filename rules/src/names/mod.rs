//! Names of protocols, services and ICMP types.
//!
//! All tables are built in: a text means the same whether or not the machine that reads it has
//! `/etc/protocols` and `/etc/services`.

mod hosts;
mod icmp;
mod services;

pub use hosts::Hosts;
pub use icmp::{ICMP_TYPES, ICMPV6_TYPES, IcmpName};
pub use services::port_of_service;

/// The number of a protocol: by number, or by name in any case.
pub fn protocol_number(text: &str) -> Option<u8> {
    if let Some(number) = crate::registry::parse_number(text) {
        return u8::try_from(number).ok();
    }
    let named = PROTOCOL_NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(n, _)| *n);
    named.or_else(|| ALIASES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n))
}

/// The name under which `iptables-save` prints a protocol; `None`: by number.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOL_NAMES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

/// Names as printed, by number.
pub static PROTOCOL_NAMES: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (3, "ggp"),
    (4, "ipencap"),
    (5, "st"),
    (6, "tcp"),
    (8, "egp"),
    (9, "igp"),
    (12, "pup"),
    (17, "udp"),
    (20, "hmp"),
    (22, "xns-idp"),
    (27, "rdp"),
    (29, "iso-tp4"),
    (33, "dccp"),
    (36, "xtp"),
    (37, "ddp"),
    (38, "idpr-cmtp"),
    (41, "ipv6"),
    (43, "ipv6-route"),
    (44, "ipv6-frag"),
    (45, "idrp"),
    (46, "rsvp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (57, "skip"),
    (58, "ipv6-icmp"),
    (59, "ipv6-nonxt"),
    (60, "ipv6-opts"),
    (73, "rspf"),
    (81, "vmtp"),
    (88, "eigrp"),
    (89, "ospf"),
    (93, "ax.25"),
    (94, "ipip"),
    (97, "etherip"),
    (98, "encap"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (115, "l2tp"),
    (124, "isis"),
    (132, "sctp"),
    (133, "fc"),
    (135, "mobility-header"),
    (136, "udplite"),
    (137, "mpls-in-ip"),
    (138, "manet"),
    (139, "hip"),
    (140, "shim6"),
    (141, "wesp"),
    (142, "rohc"),
    (143, "ethernet"),
];

/// Further names that are read.
static ALIASES: &[(&str, u8)] = &[
    ("ip-encap", 4),
    ("ipsec-esp", 50),
    ("ipsec-ah", 51),
    ("cphb", 73),
    ("ospfigp", 89),
    ("icmpv6", 58),
    ("ipv6-mh", 135),
    ("mh", 135),
    ("all", 0),
    ("ip", 0),
    ("hopopt", 0),
    ("ipv4", 4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_name_alias_and_number() {
        assert_eq!(protocol_number("tcp"), Some(6));
        assert_eq!(protocol_number("TCP"), Some(6));
        assert_eq!(protocol_number("icmpv6"), Some(58));
        assert_eq!(protocol_number("0x2f"), Some(47));
        assert_eq!(protocol_number("256"), None);
        assert_eq!(protocol_number("tcpp"), None);
        assert_eq!(protocol_name(47), Some("gre"));
        assert_eq!(protocol_name(200), None);
    }
}
