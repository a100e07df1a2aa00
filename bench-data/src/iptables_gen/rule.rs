//! The words of a rule, in the order and form in which `iptables-save` prints them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use hipac_rules::{Family, Hook, TableKind};

use super::{Hooks, Options};
use crate::random::Draw;

/// Hooks at which a packet has an input interface.
const ARRIVING: Hooks = Hooks::of(&[Hook::Prerouting, Hook::Input, Hook::Forward]);
/// Hooks at which it has an output interface.
const LEAVING: Hooks = Hooks::of(&[Hook::Forward, Hook::Output, Hook::Postrouting]);
/// Hooks at which the sending process may be known.
const LOCAL_OUT: Hooks = Hooks::of(&[Hook::Output, Hook::Postrouting]);
/// Hooks at which destinations may be translated.
const BEFORE_ROUTING: Hooks = Hooks::of(&[Hook::Prerouting, Hook::Output]);
/// Hooks at which sources may be translated.
const AFTER_ROUTING: Hooks = Hooks::of(&[Hook::Postrouting]);

const INTERFACES: [&str; 12] = [
    "eth0", "eth1", "eth+", "ppp0", "ppp+", "br-lan", "wg0", "tun+", "eth0.100", "eth0.20", "bond0",
    "docker0",
];
const ZONES: [&str; 8] = ["lan", "wan", "dmz", "guest", "mgmt", "vpn", "voip", "lab"];
const SERVICES: [&str; 8] = ["web", "mail", "dns", "ssh", "db", "backup", "monitor", "block"];
const PORTS: [u16; 20] =
    [22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 465, 587, 993, 1194, 3306, 3389, 5432, 8080, 51820];

/// The transport protocol that a rule asks for, as far as its other words depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Any,
    Tcp,
    Udp,
    Other,
}

/// Writes rules. Knows the networks that a ruleset is about.
pub(super) struct Author {
    pub(super) draw: Draw,
    family: Family,
    /// Address and prefix length.
    networks: Vec<(u128, u32)>,
}

impl Author {
    pub(super) fn new(options: &Options) -> Author {
        let name = match options.family {
            Family::V4 => "iptables rules",
            Family::V6 => "ip6tables rules",
        };
        let mut draw = Draw::new(options.seed, name);
        let count = 16 + options.rules / 10;
        let networks = (0..count).map(|_| network(options.family, &mut draw)).collect();
        Author { draw, family: options.family, networks }
    }

    pub(super) fn chain_name(&mut self, number: u32) -> String {
        let (zone, service) = (self.draw.pick(&ZONES), self.draw.pick(&SERVICES));
        match self.draw.below(3) {
            0 => format!("{zone}-{service}-{number}"),
            1 => format!("{zone}_{number}"),
            _ => format!("{}.{service}.{number}", zone.to_uppercase()),
        }
    }

    /// In how many places a user chain is called: in 3 % nowhere, mostly in one.
    pub(super) fn call_count(&mut self) -> u32 {
        *self.draw.pick(&[1, 1, 1, 2, 3]) * u32::from(!self.draw.percent(3))
    }

    /// What the filter table begins with: chain (by the order of its hooks) and rule.
    pub(super) fn openings(&mut self) -> Vec<(usize, String)> {
        let seen = " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        let invalid = " -m conntrack --ctstate INVALID -j DROP";
        [
            (0, " -i lo -j ACCEPT"),
            (0, seen),
            (0, invalid),
            (1, seen),
            (1, invalid),
            (2, " -o lo -j ACCEPT"),
            (2, seen),
        ]
        .map(|(chain, rule)| (chain, rule.to_owned()))
        .into()
    }

    /// A rule that calls or goes to a user chain.
    pub(super) fn call(&mut self, table: TableKind, hooks: Hooks, callee: &str) -> String {
        let mut rule = String::new();
        if self.draw.percent(85) {
            self.ip_part(&mut rule, hooks, 30);
            let transport = self.transport(&mut rule, 35);
            if self.draw.percent(25) {
                self.port_words(&mut rule, transport);
            }
        }
        if table != TableKind::Raw && self.draw.percent(15) {
            self.connection_state(&mut rule);
        }
        let verb = if self.draw.percent(10) { "-g" } else { "-j" };
        let _ = write!(rule, " {verb} {callee}");
        rule
    }

    /// A rule with a target of the table, or with none.
    pub(super) fn rule(&mut self, table: TableKind, hooks: Hooks) -> String {
        match table {
            TableKind::Nat => self.nat_rule(hooks),
            TableKind::Mangle if hooks.within(LEAVING) && self.draw.percent(4) => self.clamp_rule(hooks),
            _ => self.plain_rule(table, hooks),
        }
    }

    fn plain_rule(&mut self, table: TableKind, hooks: Hooks) -> String {
        let mut rule = String::new();
        self.ip_part(&mut rule, hooks, 45);
        let transport = self.transport(&mut rule, 72);
        self.port_words(&mut rule, transport);
        self.matches(&mut rule, table, hooks);
        let target = match table {
            TableKind::Raw => self.raw_target(),
            TableKind::Mangle => self.mangle_target(),
            TableKind::Nat | TableKind::Filter | TableKind::Security => self.filter_target(transport),
        };
        rule.push_str(&target);
        rule
    }

    // ---- The IP part ----

    /// Source, destination, interfaces; addresses in `percent` of the rules each.
    fn ip_part(&mut self, rule: &mut String, hooks: Hooks, percent: u32) {
        for option in ["-s", "-d"] {
            if self.draw.percent(percent) {
                let not = self.not(6);
                let network = self.network();
                let _ = write!(rule, "{not} {option} {network}");
            }
        }
        let in_interface = hooks.within(ARRIVING) && self.draw.percent(20);
        let out_interface = hooks.within(LEAVING) && self.draw.percent(15);
        for (option, wanted) in [("-i", in_interface), ("-o", out_interface)] {
            if wanted {
                let not = self.not(7);
                let name = self.draw.pick(&INTERFACES);
                let _ = write!(rule, "{not} {option} {name}");
            }
        }
    }

    fn not(&mut self, percent: u32) -> &'static str {
        if self.draw.percent(percent) { " !" } else { "" }
    }

    /// The protocol, in `percent` of the rules, and sometimes `-f`.
    fn transport(&mut self, rule: &mut String, percent: u32) -> Transport {
        let mut transport = Transport::Any;
        if self.draw.percent(percent) {
            let names = match self.family {
                Family::V4 => ["tcp", "udp", "icmp", "sctp", "esp", "ah"],
                Family::V6 => ["tcp", "udp", "ipv6-icmp", "sctp", "esp", "udplite"],
            };
            let name = names[*self.draw.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 5])];
            // A negated protocol gives no header to look into.
            let not = self.not(2);
            let _ = write!(rule, "{not} -p {name}");
            transport = match (not, name) {
                ("", "tcp") => Transport::Tcp,
                ("", "udp") => Transport::Udp,
                _ => Transport::Other,
            };
            if not.is_empty() && name.contains("icmp") && self.draw.percent(80) {
                self.icmp_type(rule);
                return transport;
            }
        }
        if self.family == Family::V4 && transport == Transport::Any && self.draw.percent(4) {
            let not = self.not(30);
            let _ = write!(rule, "{not} -f");
        }
        transport
    }

    fn icmp_type(&mut self, rule: &mut String) {
        let not = self.not(5);
        let _ = match self.family {
            Family::V4 => {
                let kind = self.draw.pick(&["8", "0", "3", "3/4", "11", "5", "13"]);
                write!(rule, " -m icmp{not} --icmp-type {kind}")
            }
            Family::V6 => {
                let kind = self.draw.pick(&["1", "2", "3", "1/4", "128", "129", "133", "134", "135", "136"]);
                write!(rule, " -m icmp6{not} --icmpv6-type {kind}")
            }
        };
    }

    // ---- Addresses ----

    /// A network of the ruleset's, or a host of one.
    fn network(&mut self) -> String {
        let (address, len) = *self.draw.pick(&self.networks);
        if self.draw.percent(60) {
            let host = self.host_of(address, len);
            return format!("{}/{}", self.text(host), self.family.address_bits());
        }
        format!("{}/{len}", self.text(address))
    }

    fn host(&mut self) -> u128 {
        let (address, len) = *self.draw.pick(&self.networks);
        self.host_of(address, len)
    }

    /// One of the first 256 hosts: so that the same ones come up again.
    fn host_of(&mut self, address: u128, len: u32) -> u128 {
        let host_bits = (self.family.address_bits() - len).min(8);
        address | u128::from(self.draw.below(1 << host_bits))
    }

    fn text(&self, address: u128) -> String {
        match self.family {
            Family::V4 => Ipv4Addr::from(address as u32).to_string(),
            Family::V6 => Ipv6Addr::from(address).to_string(),
        }
    }

    // ---- Matches ----

    fn port_words(&mut self, rule: &mut String, transport: Transport) {
        let module = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Any | Transport::Other => return,
        };
        match self.draw.below(20) {
            0..3 => self.multiport(rule),
            3 => {}
            _ => {
                let _ = write!(rule, " -m {module}");
                self.port_options(rule, transport);
            }
        }
    }

    /// Options of `-m tcp` or `-m udp`: one at least.
    fn port_options(&mut self, rule: &mut String, transport: Transport) {
        let flags = transport == Transport::Tcp && self.draw.percent(15);
        let sport = self.draw.percent(8);
        let dport = !(flags || sport) || self.draw.percent(60);
        for (option, wanted) in [("--sport", sport), ("--dport", dport)] {
            if wanted {
                let not = self.not(4);
                let ports = self.ports();
                let _ = write!(rule, "{not} {option} {ports}");
            }
        }
        if flags {
            let not = self.not(20);
            let wanted = self.draw.pick(&[
                "FIN,SYN,RST,ACK SYN",
                "FIN,SYN FIN,SYN",
                "SYN,RST SYN,RST",
                "FIN,SYN,RST,PSH,ACK,URG NONE",
                "FIN,SYN,RST,PSH,ACK,URG FIN,PSH,URG",
            ]);
            let _ = write!(rule, "{not} --tcp-flags {wanted}");
        }
    }

    fn port(&mut self) -> u16 {
        if self.draw.percent(70) { *self.draw.pick(&PORTS) } else { self.draw.port(1, 65535) }
    }

    fn ports(&mut self) -> String {
        if self.draw.percent(85) {
            return self.port().to_string();
        }
        let low = self.draw.port(0, 65000);
        let high = self.draw.port(low + 1, 65535);
        format!("{low}:{high}")
    }

    fn multiport(&mut self, rule: &mut String) {
        let option = self.draw.pick(&["--dports", "--dports", "--dports", "--sports", "--ports"]);
        let not = self.not(5);
        let count = 2 + self.draw.below(5);
        // At most fifteen ports, and a range counts for two: six entries always fit.
        let ports: Vec<String> = (0..count).map(|_| self.ports()).collect();
        let _ = write!(rule, " -m multiport{not} {option} {}", ports.join(","));
    }

    fn connection_state(&mut self, rule: &mut String) {
        let states = self.draw.pick(&[
            "NEW",
            "NEW",
            "RELATED,ESTABLISHED",
            "RELATED,ESTABLISHED",
            "INVALID",
            "ESTABLISHED",
            "INVALID,NEW",
            "NEW,UNTRACKED",
        ]);
        if self.draw.percent(25) {
            let _ = write!(rule, " -m state --state {states}");
        } else {
            let not = self.not(8);
            let _ = write!(rule, " -m conntrack{not} --ctstate {states}");
        }
    }

    /// Matches of all kinds, none in most rules.
    fn matches(&mut self, rule: &mut String, table: TableKind, hooks: Hooks) {
        if table != TableKind::Raw && self.draw.percent(18) {
            self.connection_state(rule);
        }
        if hooks.within(LOCAL_OUT) && self.draw.percent(8) {
            let user = self.draw.pick(&[0, 33, 1000, 1001, 65534]);
            let _ = write!(rule, " -m owner --uid-owner {user}");
        }
        if self.draw.percent(22) {
            self.rare_match(rule, hooks);
        }
        if self.draw.percent(6) {
            let rate = self.draw.pick(&["5/min", "10/min", "1/sec", "20/sec", "3/hour"]);
            let burst = self.draw.pick(&["", " --limit-burst 1", " --limit-burst 10", " --limit-burst 100"]);
            let _ = write!(rule, " -m limit --limit {rate}{burst}");
        }
        if self.draw.percent(10) {
            self.comment(rule);
        }
    }

    fn rare_match(&mut self, rule: &mut String, hooks: Hooks) {
        let choice = self.draw.below(12);
        let not = self.not(10);
        let _ = match choice {
            0..=2 => {
                let mark = self.mark();
                write!(rule, " -m mark{not} --mark {mark}")
            }
            3 => {
                let mark = self.mark();
                write!(rule, " -m connmark{not} --mark {mark}")
            }
            4 => {
                // IPv6 has no broadcasts, and the kernel refuses a rule about them.
                let kinds = match self.family {
                    Family::V4 => ["LOCAL", "MULTICAST", "UNICAST", "BROADCAST"],
                    Family::V6 => ["LOCAL", "MULTICAST", "UNICAST", "ANYCAST"],
                };
                let kind = self.draw.pick(&kinds);
                write!(rule, " -m addrtype{not} --dst-type {kind}")
            }
            5 if hooks.within(ARRIVING) => {
                let [a, b, c, ..] = self.draw.bits().to_le_bytes();
                write!(rule, " -m mac{not} --mac-source 02:00:5e:{a:02x}:{b:02x}:{c:02x}")
            }
            6 => {
                let (address, len) = *self.draw.pick(&self.networks);
                let last = address | u128::from(self.host_of(0, len) as u8);
                let (first, last) = (self.text(address), self.text(last));
                write!(rule, " -m iprange{not} --src-range {first}-{last}")
            }
            7 => {
                let low = self.draw.below(1000);
                write!(rule, " -m length{not} --length {low}:{}", low + 1 + self.draw.below(500))
            }
            8 => {
                let (module, option) = match self.family {
                    Family::V4 => ("ttl", "--ttl-lt"),
                    Family::V6 => ("hl", "--hl-lt"),
                };
                write!(rule, " -m {module} {option} {}", 1 + self.draw.below(64))
            }
            9 => write!(rule, " -m pkttype{not} --pkt-type {}", self.draw.pick(&["broadcast", "multicast"])),
            10 => write!(rule, " -m dscp{not} --dscp 0x{:02x}", self.draw.below(64)),
            _ => return self.stateful_match(rule),
        };
    }

    /// A match that counts or records.
    fn stateful_match(&mut self, rule: &mut String) {
        let mask = match self.family {
            Family::V4 => self.text(u32::MAX.into()),
            Family::V6 => self.text(u128::MAX),
        };
        let name = self.draw.pick(&["ssh", "scan", "DEFAULT"]);
        let _ = match self.draw.below(3) {
            0 => write!(rule, " -m recent --set --name {name} --mask {mask} --rsource"),
            1 => {
                write!(
                    rule,
                    " -m recent --update --seconds 60 --hitcount 4 --name {name} --mask {mask} --rsource"
                )
            }
            _ => write!(rule, " -m statistic --mode nth --every {} --packet 0", 2 + self.draw.below(9)),
        };
    }

    fn comment(&mut self, rule: &mut String) {
        let (zone, service) = (self.draw.pick(&ZONES), self.draw.pick(&SERVICES));
        let _ = match self.draw.below(4) {
            0 => write!(rule, " -m comment --comment {service}"),
            1 => write!(rule, " -m comment --comment \"the \\\"{service}\\\" of {zone}\""),
            _ => write!(rule, " -m comment --comment \"{service} for {zone}\""),
        };
    }

    fn mark(&mut self) -> String {
        let mark = self.draw.below(16);
        if self.draw.percent(50) { format!("0x{mark:x}") } else { format!("0x{:x}/0xf0", mark << 4) }
    }

    // ---- Targets ----

    fn filter_target(&mut self, transport: Transport) -> String {
        match self.draw.below(100) {
            0..46 => " -j ACCEPT".into(),
            46..72 => " -j DROP".into(),
            72..79 => self.reject(transport),
            79..86 => self.log(),
            86..96 => " -j RETURN".into(),
            96 => " -j NFLOG --nflog-prefix hipac --nflog-group 2".into(),
            _ => String::new(),
        }
    }

    fn reject(&mut self, transport: Transport) -> String {
        if transport == Transport::Tcp && self.draw.percent(50) {
            return " -j REJECT --reject-with tcp-reset".into();
        }
        let with = match self.family {
            Family::V4 => self.draw.pick(&["icmp-port-unreachable", "icmp-admin-prohibited"]),
            Family::V6 => self.draw.pick(&["icmp6-port-unreachable", "icmp6-adm-prohibited"]),
        };
        format!(" -j REJECT --reject-with {with}")
    }

    fn log(&mut self) -> String {
        let level = self.draw.pick(&["", " --log-level 6", " --log-level 7"]);
        format!(" -j LOG --log-prefix \"{} drop: \"{level}", self.draw.pick(&ZONES))
    }

    fn raw_target(&mut self) -> String {
        self.draw
            .pick(&[" -j CT --notrack", " -j CT --notrack", " -j ACCEPT", " -j DROP", " -j RETURN"])
            .to_string()
    }

    fn mangle_target(&mut self) -> String {
        let mark = self.draw.below(16);
        match self.draw.below(100) {
            0..30 => format!(" -j MARK --set-xmark 0x{mark:x}/0xffffffff"),
            30..42 => format!(" -j MARK --set-xmark 0x{:x}/0xf0", mark << 4),
            42..50 => " -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff".into(),
            50..56 => " -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff".into(),
            56..64 => format!(" -j DSCP --set-dscp 0x{:02x}", self.draw.below(64)),
            64..70 => " -j TOS --set-tos 0x10/0x3f".into(),
            70..76 => match self.family {
                Family::V4 => " -j TTL --ttl-set 64".into(),
                Family::V6 => " -j HL --hl-dec 1".into(),
            },
            76..86 => " -j ACCEPT".into(),
            86..94 => " -j RETURN".into(),
            94..97 => " -j DROP".into(),
            _ => String::new(),
        }
    }

    /// The one rule that every router has: it needs SYN pinned.
    fn clamp_rule(&mut self, hooks: Hooks) -> String {
        let mut rule = String::new();
        self.ip_part(&mut rule, hooks, 10);
        rule.push_str(" -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu");
        rule
    }

    /// Translations need their hook, and ports a protocol that has them.
    fn nat_rule(&mut self, hooks: Hooks) -> String {
        let mut rule = String::new();
        self.ip_part(&mut rule, hooks, 40);
        let transport = self.transport(&mut rule, 70);
        self.port_words(&mut rule, transport);
        if self.draw.percent(8) {
            self.comment(&mut rule);
        }
        let has_ports = matches!(transport, Transport::Tcp | Transport::Udp);
        let host = self.host();
        let port = self.port();
        let address = self.text(host);
        let choice = self.draw.below(10);
        let target = if hooks.within(BEFORE_ROUTING) {
            match choice {
                0..4 if has_ports => match self.family {
                    Family::V4 => format!("DNAT --to-destination {address}:{port}"),
                    Family::V6 => format!("DNAT --to-destination [{address}]:{port}"),
                },
                4..6 if has_ports => format!("REDIRECT --to-ports {port}"),
                0..7 => format!("DNAT --to-destination {address}"),
                7 => "RETURN".into(),
                _ => "ACCEPT".into(),
            }
        } else if hooks.within(AFTER_ROUTING) {
            match choice {
                0..4 => "MASQUERADE".into(),
                4..7 => format!("SNAT --to-source {address}"),
                7 if self.family == Family::V4 => "NETMAP --to 198.51.100.0/24".into(),
                8 => "RETURN".into(),
                _ => "ACCEPT".into(),
            }
        } else {
            "ACCEPT".into()
        };
        let _ = write!(rule, " -j {target}");
        rule
    }
}

/// A network: mostly private ones, of the usual lengths.
fn network(family: Family, draw: &mut Draw) -> (u128, u32) {
    let bits = u128::from(draw.bits()) << 64 | u128::from(draw.bits());
    let (top, top_bits, len) = match family {
        Family::V4 => {
            let (top, top_bits) = *draw.pick(&[
                (0x0a00_0000_u128, 8),
                (0x0a00_0000, 8),
                (0xac10_0000, 12),
                (0xc0a8_0000, 16),
                (0xc0a8_0000, 16),
                (0xc633_6400, 24),
                (0x2d00_0000, 8),
                (0xb900_0000, 8),
            ]);
            (top, top_bits, *draw.pick(&[16, 20, 22, 24, 24, 24, 24, 26, 28, 30]))
        }
        Family::V6 => {
            let (top, top_bits) = *draw.pick(&[
                (0x2001_0db8_u128 << 96, 32),
                (0xfd00_u128 << 112, 8),
                (0x2a00_u128 << 112, 16),
            ]);
            (top, top_bits, *draw.pick(&[32, 48, 56, 64, 64, 64, 64, 96, 112, 120]))
        }
    };
    let len: u32 = len.max(top_bits);
    let width = family.address_bits();
    let mask = |len: u32| family.full_mask() & !(family.full_mask().checked_shr(len).unwrap_or(0));
    debug_assert!(len <= width);
    (top | bits & mask(len) & !mask(top_bits), len)
}
