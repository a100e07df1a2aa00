//! Connections made to order, so that packets of all states can be driven: a packet of a connection that has
//! seen both directions is ESTABLISHED, one of a connection that another expected is RELATED.

use std::io;

use hipac_classifier::{InterfaceName, Packet};
use rustix::net::netlink::NETFILTER;

use super::craft::ICMP_ID;
use super::netlink::{CREATE, Message, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const DELETE: u16 = SUBSYSTEM | 2;

/// The connections of this namespace.
#[derive(Debug)]
pub(super) struct Connections {
    socket: Socket,
    is_v6: bool,
    /// Some were made, or packets may have made some, since they were last forgotten.
    pub(super) made: usize,
}

impl Connections {
    pub(super) fn new(is_v6: bool) -> io::Result<Connections> {
        Ok(Connections { socket: Socket::open(Some(NETFILTER))?, is_v6, made: 0 })
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        Message::new(kind, flags).fixed(&[if self.is_v6 { 10 } else { 2 }, 0, 0, 0])
    }

    /// Makes the connection of a packet in its original direction, with replies seen; one that another
    /// connection expected, when `is_related` or when the packet names the helper of that one.
    ///
    /// # Errors
    /// Connection tracking does not take it: it is there already, or of a protocol that is not tracked so.
    pub(super) fn make(&mut self, packet: &Packet, is_related: bool) -> io::Result<()> {
        const SEEN_REPLY: u32 = 1 << 1;
        const CONFIRMED: u32 = 1 << 3;
        self.made += 1;
        let status = if is_related { CONFIRMED } else { SEEN_REPLY | CONFIRMED };
        if is_related || !packet.helper.is_none() {
            let source_port = if packet.helper.is_none() { 9 } else { 10 };
            let master = Packet { protocol: 17, source_port, destination_port: 9, ..*packet };
            // There already, from the packet before, is as good.
            let _ = self.add(&master, SEEN_REPLY | CONFIRMED, None);
            return self.add(&Packet { helper: InterfaceName::NONE, ..*packet }, status, Some(&master));
        }
        self.add(packet, status, None)
    }

    fn add(&mut self, packet: &Packet, status: u32, master: Option<&Packet>) -> io::Result<()> {
        const TIMEOUT_SECONDS: u32 = 600;
        let mut message = self
            .message(NEW, CREATE)
            .nest(1, |m| tuple(m, packet, false))
            .nest(2, |m| tuple(m, packet, true))
            .attribute(3, &status.to_be_bytes())
            .attribute(7, &TIMEOUT_SECONDS.to_be_bytes());
        if packet.connmark != 0 {
            message = message.attribute(8, &packet.connmark.to_be_bytes());
        }
        if packet.protocol == 6 {
            const ESTABLISHED: u8 = 3;
            const LIBERAL: [u8; 2] = [8, 8];
            message = message.nest(4, |m| {
                m.nest(1, |m| m.attribute(1, &[ESTABLISHED]).attribute(4, &LIBERAL).attribute(5, &LIBERAL))
            });
        }
        if !packet.helper.is_none() {
            let name = [packet.helper.as_bytes(), &[0]].concat();
            message = message.nest(5, |m| m.attribute(1, &name));
        }
        if let Some(master) = master {
            message = message.nest(14, |m| tuple(m, master, false));
        }
        self.socket.ask(message)
    }

    /// Forgets all of them.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.made = 0;
        self.socket.ask(self.message(DELETE, 0))
    }
}

/// What identifies a connection, in the packet's direction or in that of its replies.
fn tuple(message: Message, packet: &Packet, is_reply: bool) -> Message {
    let turn = |a: u128, b: u128| if is_reply { (b, a) } else { (a, b) };
    let (source, destination) = turn(packet.source, packet.destination);
    let (sport, dport) = turn(packet.source_port.into(), packet.destination_port.into());
    let port = |port: u128| (port as u16).to_be_bytes();
    message
        .nest(1, |m| match packet.is_v6 {
            false => m
                .attribute(1, &(source as u32).to_be_bytes())
                .attribute(2, &(destination as u32).to_be_bytes()),
            true => m.attribute(3, &source.to_be_bytes()).attribute(4, &destination.to_be_bytes()),
        })
        .nest(2, |m| {
            let m = m.attribute(1, &[packet.protocol]);
            let [kind, code] = packet.destination_port.to_be_bytes();
            let kind = if is_reply { icmp_reply(packet.protocol, kind) } else { kind };
            match packet.protocol {
                1 => m.attribute(4, &ICMP_ID.to_be_bytes()).attribute(5, &[kind]).attribute(6, &[code]),
                58 => m.attribute(7, &ICMP_ID.to_be_bytes()).attribute(8, &[kind]).attribute(9, &[code]),
                6 | 17 | 33 | 132 | 136 => m.attribute(2, &port(sport)).attribute(3, &port(dport)),
                _ => m,
            }
        })
}

/// The type of the answer to an ICMP request.
fn icmp_reply(protocol: u8, kind: u8) -> u8 {
    match (protocol, kind) {
        (1, 8) => 0,
        (1, 13 | 15 | 17) => kind + 1,
        (58, 128) => 129,
        (58, 139) => 140,
        _ => kind,
    }
}
