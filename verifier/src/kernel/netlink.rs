//! Netlink: messages made and read, and a socket that asks the kernel and hears what it answers.
//!
//! ```text
//!   message    length u32 │ kind u16 │ flags u16 │ sequence u32 │ port u32 │ body
//!   body       a fixed part of the family, then attributes
//!   attribute  length u16 │ kind u16 │ value │ padding to 4 bytes        (a value may hold attributes)
//! ```
//!
//! Numbers of the headers have the machine's byte order, those of netfilter's attributes the network's.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
    sockopt,
};

/// It asks for something.
pub(super) const REQUEST: u16 = 1;
/// It wants an answer, whatever comes out.
pub(super) const ACK: u16 = 4;
/// What is there already is replaced.
pub(super) const REPLACE: u16 = 0x100;
/// What is not there is made.
pub(super) const CREATE: u16 = 0x400;

const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// A message under way.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST | ACK).to_ne_bytes());
        Message(bytes)
    }

    /// The fixed part that follows the header; as long as a multiple of 4.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Message {
        self.0.extend(bytes);
        self
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        // No attribute here is longer than an address, a name or a handful of those.
        let length = (value.len() + 4) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// An attribute that holds those that `fill` adds.
    pub(super) fn nest(self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let inner = fill(Message(Vec::new()));
        self.attribute(kind | NESTED, &inner.0)
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is heard and not yet read: one packet's way through a large ruleset.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

impl Socket {
    /// A socket of a netlink protocol; `None`: of rtnetlink, whose number is 0.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Socket> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; 1 << 17] })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Makes room for a burst of messages.
    pub(super) fn hear_much(&self) -> io::Result<()> {
        // Beyond the system's limit with the right to it, up to it without.
        if sockopt::set_socket_recv_buffer_size_force(&self.fd, RECEIVE_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&self.fd, RECEIVE_BUFFER_BYTES)?;
        }
        Ok(())
    }

    /// Sends a request and waits until the kernel has done it.
    pub(super) fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let (_, length) = recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                if message.kind == ERROR && message.sequence == self.sequence {
                    let code = message.body.first_chunk::<4>().map_or(0, |&code| i32::from_ne_bytes(code));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                    };
                }
            }
        }
    }

    /// What has come in, without waiting; `None` when there is nothing.
    pub(super) fn hear(&mut self) -> io::Result<Option<&[u8]>> {
        match recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, length)) => Ok(self.buffer.get(..length)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A message as read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages that `bytes` hold; ends at the first that is not whole.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let length = u32_at(header, 0)? as usize;
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Heard { kind: u16::from_ne_bytes([header[4], header[5]]), sequence: u32_at(header, 8)?, body })
    })
}

/// Kinds and values of the attributes that `bytes` hold; ends at the first that is not whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d, ..] = bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !NESTED, value))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number in the network's byte order.
pub(super) fn be32(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_made_reads_back() {
        let message = Message::new(7, CREATE)
            .fixed(&[1, 2, 3, 4])
            .attribute(5, b"odd")
            .nest(6, |m| m.attribute(8, &[9; 4]));
        let bytes = message.finish(42);
        let heard: Vec<Heard<'_>> = messages(&bytes).collect();
        assert_eq!((heard.len(), heard[0].kind, heard[0].sequence), (1, 7, 42));
        let found: Vec<_> = attributes(&heard[0].body[4..]).collect();
        assert_eq!(found[0], (5, b"odd".as_slice()));
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), [(8, [9; 4].as_slice())]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= 13);
            prop_assert!(attributes(&bytes).count() <= 50);
        }
    }
}
