//! A host of our own: devices that packets come in by, addresses, and one route that is moved as needed.
//!
//! ```text
//!   ┌ network namespace ───────────────────────────────────────────┐
//!   │  a TAP device for each interface that rules name, `lo` too   │
//!   │  a TUN device: packets without an Ethernet address           │      the loopback device is renamed,
//!   │  default route:  out by one of them  │  to this host         │      so that rules' `lo` can be driven
//!   └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing here touches the host's own network: the thread enters its namespace first, and everything goes
//! with it when the thread ends, whatever ends it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hipac_rules::Family;

use super::KernelError;
use super::netlink::{CREATE, Message, REPLACE, Socket};
use super::sys;

/// What the loopback device is called here.
pub(super) const LOOPBACK: &str = "hipac-lo";
/// The TUN device, for packets of no interface that rules name.
pub(super) const TUN: &str = "hipac-tun";
/// Devices made at most: what rules name beyond this is not driven.
pub(super) const DEVICES_MAX: usize = 64;
/// How long one of the tools may take. Large rulesets take seconds.
const TOOL_PATIENCE: Duration = Duration::from_secs(60);

/// The Ethernet address of every device. (Locally administered.)
pub(super) const ETHERNET: [u8; 6] = [0x02, 0x68, 0x69, 0x70, 0x61, 0x63];

/// Where the default route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Out by the device at this position.
    Out(usize),
    /// To this host, whatever the destination.
    Local,
}

/// A device that packets come in by.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) has_ethernet: bool,
    file: File,
}

impl Device {
    /// Brings a frame, or a packet of a TUN device, in by it. The kernel has done all with it when this returns.
    pub(super) fn inject(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write_all(frame)
    }
}

/// The namespace that this thread has entered.
#[derive(Debug)]
pub(super) struct Host {
    family: Family,
    pub(super) devices: Vec<Device>,
    routes: Socket,
    route: Option<Route>,
    loopback: u32,
}

impl Host {
    /// Enters a new namespace and sets it up, with a device for each of `names`.
    pub(super) fn enter(family: Family, names: &[String]) -> Result<Host, KernelError> {
        sys::enter_network_namespace().map_err(KernelError::Namespace)?;
        let failed = |what: &'static str| move |error| KernelError::Setup { what, error };
        let mut routes = Socket::open(None).map_err(failed("open a netlink socket"))?;
        settings(family)?;
        let loopback = routes.index_of("lo").map_err(failed("find the loopback device"))?;
        routes.rename(loopback, LOOPBACK).map_err(failed("rename the loopback device"))?;
        routes.set_up(loopback, false).map_err(failed("set the loopback device up"))?;
        let mut host = Host { family, devices: Vec::new(), routes, route: None, loopback };
        host.add_device(TUN, false)?;
        for name in names.iter().take(DEVICES_MAX) {
            // A name that the kernel refuses is not driven: whoever compares counts those.
            if is_device_name(name) {
                host.add_device(name, true)?;
            }
        }
        Ok(host)
    }

    fn add_device(&mut self, name: &str, has_ethernet: bool) -> Result<(), KernelError> {
        let file = sys::device(name, has_ethernet).map_err(KernelError::Tun)?;
        let failed = |error| KernelError::Setup { what: "set a device up", error };
        let index = self.routes.index_of(name).map_err(failed)?;
        if has_ethernet {
            self.routes.set_ethernet(index).map_err(failed)?;
        }
        self.routes.set_up(index, true).map_err(failed)?;
        // MASQUERADE and REDIRECT want an address to use.
        let number = self.devices.len() as u8 + 1;
        let address = match self.family {
            Family::V4 => Ipv4Addr::new(198, 18, 0, number).octets().to_vec(),
            Family::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, number.into()).octets().to_vec(),
        };
        self.routes.add_address(self.family, index, &address).map_err(failed)?;
        self.devices.push(Device { name: name.to_owned(), index, has_ethernet, file });
        Ok(())
    }

    /// Moves the default route.
    pub(super) fn route(&mut self, route: Route) -> Result<(), KernelError> {
        if self.route != Some(route) {
            let out = match route {
                Route::Out(device) => self.devices.get(device).map_or(self.loopback, |d| d.index),
                Route::Local => self.loopback,
            };
            self.routes
                .set_default_route(self.family, out, route == Route::Local)
                .map_err(|error| KernelError::Setup { what: "set the default route", error })?;
            self.route = Some(route);
        }
        Ok(())
    }

    /// The device of that name.
    pub(super) fn device_named(&self, name: &[u8]) -> Option<usize> {
        self.devices.iter().position(|d| d.name.as_bytes() == name)
    }

    /// The name of a device by its index.
    pub(super) fn name_of(&self, index: u32) -> &str {
        self.devices.iter().find(|d| d.index == index).map_or(LOOPBACK, |d| &d.name)
    }

    /// Whether an address is this host's.
    pub(super) fn is_local(&self, address: u128) -> bool {
        let host = match self.family {
            Family::V4 => address.checked_sub(u32::from(Ipv4Addr::new(198, 18, 0, 0)).into()),
            Family::V6 => address.checked_sub(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).into()),
        };
        host.is_some_and(|host| (1..=self.devices.len() as u128).contains(&host))
    }

    /// Where all packets are this host's: addresses outside of its own are then too.
    pub(super) fn is_all_local(&self) -> bool {
        self.route == Some(Route::Local)
    }
}

/// Whether the kernel takes it for a device's name.
pub(super) fn is_device_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && !matches!(name, "." | ".." | LOOPBACK | TUN)
        && !name.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_ascii_whitespace())
}

/// What lets any packet through: no checks of sources, no answers, no chatter of devices.
fn settings(family: Family) -> Result<(), KernelError> {
    let v4: &[(&str, &str)] = &[
        ("ipv4/ip_forward", "1"),
        ("ipv4/icmp_echo_ignore_all", "1"),
        ("ipv4/conf/*/rp_filter", "0"),
        ("ipv4/conf/*/accept_local", "1"),
        ("ipv4/conf/*/route_localnet", "1"),
        ("ipv4/conf/*/send_redirects", "0"),
        ("ipv4/conf/*/log_martians", "0"),
        ("ipv4/conf/*/forwarding", "1"),
        ("ipv6/conf/*/disable_ipv6", "1"),
    ];
    let v6: &[(&str, &str)] = &[
        ("ipv6/conf/*/forwarding", "1"),
        ("ipv6/conf/*/accept_ra", "0"),
        ("ipv6/conf/*/accept_dad", "0"),
        ("ipv6/conf/*/router_solicitations", "0"),
        ("ipv6/conf/*/addr_gen_mode", "1"),
        ("ipv6/conf/*/mldv1_unsolicited_report_interval", "60000"),
    ];
    let settings = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    for (path, value) in settings {
        for of in ["all", "default"] {
            let path = format!("/proc/sys/net/{}", path.replace('*', of));
            let written = fs::write(&path, value);
            // A kernel without IPv6 has nothing to switch off.
            if family == Family::V6 || !path.contains("ipv6") {
                written.map_err(|error| KernelError::Setup { what: "set a sysctl", error })?;
            }
        }
    }
    Ok(())
}

/// Runs one of the kernel's tools in the thread's namespace, with `input` to read.
pub(super) fn run_tool(name: &'static str, arguments: &[&str], input: &[u8]) -> Result<(), KernelError> {
    let child = Command::new(name)
        .args(arguments)
        // Other namespaces' tools are no concern of this one: they need not wait for each other.
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KernelError::NoTool(name),
        _ => KernelError::Setup { what: "start a tool", error },
    })?;
    let failed = |error| KernelError::Setup { what: "talk to a tool", error };
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let said = thread::scope(|scope| {
        // It may end before it has read everything: what it says then is the reason.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        let said =
            scope.spawn(move || stderr.map(io::read_to_string).and_then(Result::ok).unwrap_or_default());
        let end = Instant::now() + TOOL_PATIENCE;
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = child.kill();
                    break child.wait().map_err(failed)?;
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        Ok((status, said.join().unwrap_or_default()))
    });
    match said? {
        (status, _) if status.success() => Ok(()),
        (_, said) => Err(KernelError::Refused { tool: name, said: said.trim().to_owned() }),
    }
}

/// Requests of rtnetlink.
impl Socket {
    fn index_of(&mut self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(self.fd(), name)?)
    }

    fn link(index: u32, flags: u32) -> Message {
        const NEW_LINK: u16 = 16;
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
        fixed[12..].copy_from_slice(&flags.to_ne_bytes());
        Message::new(NEW_LINK, 0).fixed(&fixed)
    }

    fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        const NAME: u16 = 3;
        let name = [name.as_bytes(), &[0]].concat();
        self.ask(Socket::link(index, 0).attribute(NAME, &name))
    }

    fn set_ethernet(&mut self, index: u32) -> io::Result<()> {
        const ADDRESS: u16 = 1;
        self.ask(Socket::link(index, 0).attribute(ADDRESS, &ETHERNET))
    }

    /// Sets a device up; as large as packets are and without neighbours to ask for when it is ours.
    fn set_up(&mut self, index: u32, is_ours: bool) -> io::Result<()> {
        const UP: u32 = 1;
        const NO_ARP: u32 = 0x80;
        const MTU: u16 = 4;
        let flags = if is_ours { UP | NO_ARP } else { UP };
        let message = Socket::link(index, flags);
        self.ask(if is_ours { message.attribute(MTU, &65_521_u32.to_ne_bytes()) } else { message })
    }

    fn add_address(&mut self, family: Family, index: u32, address: &[u8]) -> io::Result<()> {
        const NEW_ADDRESS: u16 = 20;
        const ADDRESS: u16 = 1;
        const LOCAL: u16 = 2;
        const NO_DUPLICATE_DETECTION: u8 = 2;
        let bits = address.len() as u8 * 8;
        let mut fixed = [family_number(family), bits, NO_DUPLICATE_DETECTION, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(NEW_ADDRESS, CREATE | REPLACE).fixed(&fixed);
        self.ask(message.attribute(LOCAL, address).attribute(ADDRESS, address))
    }

    fn set_default_route(&mut self, family: Family, out: u32, is_local: bool) -> io::Result<()> {
        const NEW_ROUTE: u16 = 24;
        const OUT: u16 = 4;
        const PRIORITY: u16 = 6;
        const MAIN: u8 = 254;
        const STATIC: u8 = 4;
        let (scope, kind) = if is_local { (254, 2) } else { (253, 1) };
        let scope = if family == Family::V6 { 0 } else { scope };
        let fixed = [family_number(family), 0, 0, 0, MAIN, STATIC, scope, kind, 0, 0, 0, 0];
        let message = Message::new(NEW_ROUTE, CREATE | REPLACE).fixed(&fixed);
        self.ask(message.attribute(OUT, &out.to_ne_bytes()).attribute(PRIORITY, &1024_u32.to_ne_bytes()))
    }
}

/// The number of the address family.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
