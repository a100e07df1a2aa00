//! `ecn --ecn-tcp-ece` and `--ecn-tcp-cwr`: the two bits of congestion notification in a TCP header.
//!
//! The kernel asks for the header where it has found the transport header to begin, and asks nothing else: in a later
//! IPv4 fragment it reads what stands in its place, in a later IPv6 fragment, of which it notes no such place, the IP
//! header itself. Where there are fewer bytes than a header has, the match fails and nothing is dropped.

use hipac_classifier::{L4, Packet};

use crate::settings::Settings;
use crate::{Arrival, wire};

/// Bytes of a TCP header without options.
const HEADER_BYTES: usize = 20;

/// The byte of the flags, and the bits in it.
const FLAGS: usize = 13;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// The bits looked at, and those that are set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TcpBits {
    mask: u8,
    set: u8,
}

impl TcpBits {
    /// `None`: the match asks for none.
    pub(crate) fn new(settings: Settings<'_>) -> Option<TcpBits> {
        let mut bits = TcpBits { mask: 0, set: 0 };
        for (name, bit) in [("ecn-tcp-ece", ECE), ("ecn-tcp-cwr", CWR)] {
            if settings.has(name) {
                bits.mask |= bit;
                bits.set |= if settings.is_negated(name) { 0 } else { bit };
            }
        }
        (bits.mask != 0).then_some(bits)
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn holds(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<bool> {
        let bytes = wire::bytes(packet, arrival)?;
        let is_later = matches!(packet.l4, L4::Fragment | L4::FragmentAt8);
        let at = if packet.is_v6 && is_later { 0 } else { wire::transport(packet, &bytes)? };
        let header = bytes.get(at..).and_then(|rest| rest.get(..HEADER_BYTES));
        Some(header.is_some_and(|header| header[FLAGS] & self.mask == self.set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, ipv4, ipv6, outcomes, rule_of};

    /// What each option says of the packet: ECE, not ECE, CWR, not CWR, both.
    fn told(wire: &[u8]) -> String {
        let packet = Packet::from_ip_bytes(wire).unwrap();
        let options = ["--ecn-tcp-ece", "! --ecn-tcp-ece", "--ecn-tcp-cwr", "! --ecn-tcp-cwr"];
        outcomes(options.into_iter().chain(["--ecn-tcp-ece --ecn-tcp-cwr"]).map(|options| {
            let rule = rule_of(&format!("-p tcp -m ecn {options}"));
            let bits = TcpBits::new(Settings(&rule.matches[0])).expect("bits");
            bits.holds(&packet, &arrival(wire)).expect("known")
        }))
    }

    /// So many bytes of a TCP header with these flags.
    fn tcp(flags: u8, bytes: usize) -> Vec<u8> {
        let mut header = vec![0; bytes];
        header[13] = flags;
        header
    }

    #[test]
    fn the_bits_are_those_of_the_header() {
        assert_eq!(told(&ipv4(6, 0, &tcp(0x00, 20))), "-+-+-");
        assert_eq!(told(&ipv4(6, 0, &tcp(0x42, 20))), "+--+-");
        assert_eq!(told(&ipv4(6, 0, &tcp(0x80, 20))), "-++--");
        assert_eq!(told(&ipv6(6, &tcp(0xc0, 24))), "+-+-+");
        // A destination header before it.
        assert_eq!(told(&ipv6(60, &[&[6, 0, 1, 4, 0, 0, 0, 0], &tcp(0xc0, 20)[..]].concat())), "+-+-+");
    }

    #[test]
    fn a_header_that_is_cut_off_matches_nothing() {
        assert_eq!(told(&ipv4(6, 0, &tcp(0xc0, 19))), "-----");
        assert_eq!(told(&ipv4(6, 0, &[])), "-----");
        assert_eq!(told(&ipv6(6, &tcp(0xc0, 19))), "-----");
        // Behind the end of the packet.
        assert_eq!(told(&ipv6(60, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 255])), "-----");
    }

    #[test]
    fn in_a_later_fragment_the_kernel_reads_what_it_takes_for_the_header() {
        assert_eq!(told(&ipv4(6, 1, &tcp(0x40, 20))), "+--+-");
        assert_eq!(told(&ipv4(6, 2, &tcp(0x80, 20))), "-++--");
        assert_eq!(told(&ipv4(6, 2, &tcp(0x80, 19))), "-----");
        let mut later = ipv6(44, &[&[6, 0, 0, 8, 0, 0, 0, 9], &tcp(0xc0, 20)[..]].concat());
        assert_eq!(told(&later), "-+-+-");
        // A byte of the source address.
        later[13] = 0x80;
        assert_eq!(told(&later), "-++--");
    }
}
