//! What the kernel says of a packet: its TRACE lines, and the packet as it was at each of them.
//!
//! The TRACE target makes the kernel log each rule that matches, through the socket that is bound for it. A
//! line is text (`TRACE: filter:FORWARD:rule:17 `), and beside it, as attributes, the hook, the devices, the
//! mark, and the packet's bytes as the rules so far have left them. (Its connection would be too, by a part of
//! the kernel that is often left out; `probe.rs` has it from rules.)

use std::io;

use hipac_rules::{Family, Hook, TableKind};
use rustix::net::netlink::NETFILTER;

use super::host::family_number;
use super::netlink::{Message, Socket, attributes, be32, messages};

/// A rule that matched, or the end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) table: TableKind,
    pub(super) hook: Hook,
    pub(super) chain: String,
    pub(super) kind: LineKind,
    /// From 1; one more than there are rules at the end of a chain.
    pub(super) number: usize,
    pub(super) seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineKind {
    Rule,
    Return,
    Policy,
}

impl LineKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            LineKind::Rule => "rule",
            LineKind::Return => "return",
            LineKind::Policy => "policy",
        }
    }
}

/// The packet at a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) bytes: Vec<u8>,
    pub(super) mark: u32,
    /// 0: none.
    pub(super) in_index: u32,
    pub(super) out_index: u32,
}

const SUBSYSTEM_LOG: u16 = 4;
const LOG_PACKET: u16 = SUBSYSTEM_LOG << 8;
const LOG_CONFIG: u16 = SUBSYSTEM_LOG << 8 | 1;

/// The socket that hears TRACE lines.
#[derive(Debug)]
pub(super) struct Observer(Socket);

impl Observer {
    /// Binds the log of this namespace to a new socket.
    pub(super) fn new() -> io::Result<Observer> {
        const COMMAND: u16 = 1;
        const MODE: u16 = 2;
        const BUFFER: u16 = 3;
        const THRESHOLD: u16 = 5;
        const BIND: u8 = 1;
        const PF_BIND: u8 = 3;
        const COPY_PACKET: u8 = 2;
        let mut socket = Socket::open(Some(NETFILTER))?;
        socket.hear_much()?;
        let config = |family: u8| Message::new(LOG_CONFIG, 0).fixed(&[family, 0, 0, 0]);
        for family in [Family::V4, Family::V6] {
            socket.ask(config(family_number(family)).attribute(COMMAND, &[PF_BIND]))?;
        }
        socket.ask(config(0).attribute(COMMAND, &[BIND]))?;
        let all = u32::from(u16::MAX).to_be_bytes();
        let mode = [all[0], all[1], all[2], all[3], COPY_PACKET, 0];
        socket.ask(
            config(0)
                .attribute(MODE, &mode)
                .attribute(BUFFER, &(96_u32 << 10).to_be_bytes())
                .attribute(THRESHOLD, &1_u32.to_be_bytes()),
        )?;
        Ok(Observer(socket))
    }

    /// The lines since the last call.
    pub(super) fn lines(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        while let Some(bytes) = self.0.hear()? {
            for message in messages(bytes).filter(|m| m.kind == LOG_PACKET) {
                lines.extend(message.body.get(4..).and_then(line));
            }
        }
        Ok(lines)
    }
}

/// The line that a log message holds; `None` when it is of another target than TRACE.
fn line(body: &[u8]) -> Option<Line> {
    let (mut hook, mut text, mut seen) = (None, &b""[..], Seen::default());
    for (kind, value) in attributes(body) {
        match kind {
            1 => hook = value.get(2).copied(),
            2 => seen.mark = be32(value),
            4 => seen.in_index = be32(value),
            5 => seen.out_index = be32(value),
            9 => seen.bytes = value.to_vec(),
            10 => text = value,
            _ => {}
        }
    }
    // A chain's name may hold colons: the last two count.
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0').strip_prefix("TRACE: ")?;
    let mut words = text.trim_end().rsplitn(3, ':');
    let (number, kind, place) = (words.next()?, words.next()?, words.next()?);
    let (table, chain) = place.split_once(':')?;
    let kind = match kind {
        "rule" => LineKind::Rule,
        "return" => LineKind::Return,
        "policy" => LineKind::Policy,
        _ => return None,
    };
    let hook = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
        .get(usize::from(hook?))
        .copied()?;
    Some(Line {
        table: TableKind::from_name(table)?,
        hook,
        chain: chain.to_owned(),
        kind,
        number: number.parse().ok()?,
        seen,
    })
}
