//! `rt --rt-0-res`, `--rt-0-addrs` and `--rt-0-not-strict`: the addresses of a routing header of type 0.
//!
//! ```text
//!   ┌─────────────────┬──────────┬────────────┬────────────┬───
//!   │ next len 0 left │ reserved │ address    │ address    │ …     as many as its length has room for
//!   └─────────────────┴──────────┴────────────┴────────────┴───
//!           4              4           16           16
//! ```
//!
//! All addresses are those wanted, in that order; or (not strict) those wanted are found among them, in that order.
//! What the fields of the header say is tested before.

use std::net::Ipv6Addr;

use hipac_classifier::Packet;

use crate::settings::Settings;
use crate::{Arrival, wire};

/// The number of the routing header.
const ROUTING: u8 = 43;

/// As many addresses as the kernel has room for in a rule.
const ADDRESSES_MAX: usize = 16;

/// What is asked of a header of type 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hops {
    wants_reserved_zero: bool,
    wanted: Option<Vec<[u8; 16]>>,
    is_strict: bool,
}

impl Hops {
    /// `Ok(None)`: nothing is asked that no field holds.
    pub(crate) fn new(settings: Settings<'_>) -> Result<Option<Hops>, String> {
        let wanted = match settings.text("rt-0-addrs") {
            None => None,
            Some(text) => {
                let address =
                    |word: &str| word.parse::<Ipv6Addr>().map_err(|_| format!("`{word}` is no IPv6 address"));
                let list = text.split(',').map(|word| Ok(address(word)?.octets()));
                Some(list.collect::<Result<Vec<_>, String>>()?)
            }
        };
        if wanted.as_ref().is_some_and(|list| list.len() > ADDRESSES_MAX) {
            return Err(format!("more than {ADDRESSES_MAX} addresses"));
        }
        let (wants_reserved_zero, is_strict) = (settings.has("rt-0-res"), !settings.has("rt-0-not-strict"));
        let asks = wants_reserved_zero || wanted.is_some();
        Ok(asks.then_some(Hops { wants_reserved_zero, wanted, is_strict }))
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn holds(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<bool> {
        let bytes = wire::bytes(packet, arrival)?;
        let parts = wire::extension(&bytes, ROUTING).and_then(|header| header.split_at_checked(8));
        let Some((head, rest)) = parts else { return Some(false) };
        if self.wants_reserved_zero && head[4..] != [0; 4] {
            return Some(false);
        }
        let (addresses, _) = rest.as_chunks::<16>();
        Some(match &self.wanted {
            None => true,
            Some(wanted) if self.is_strict => wanted == addresses,
            Some(wanted) => {
                let mut addresses = addresses.iter();
                wanted.iter().all(|one| addresses.any(|address| address == one))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, extension6_of, ipv6};

    /// Of a header with these bytes behind the first four.
    #[track_caller]
    fn check(options: &str, behind: &[u8], expected: bool) {
        let extension = extension6_of(&format!("-m rt --rt-type 0 {options}"));
        let hops = Hops::new(Settings(&extension)).unwrap().expect("something");
        let wire = ipv6(ROUTING, &[&[59, (behind.len() / 8) as u8, 0, 0], behind].concat());
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        assert_eq!(hops.holds(&packet, &arrival(&wire)), Some(expected), "{options} of {behind:?}");
    }

    /// A reserved word of zero, and the addresses `::n`.
    fn addresses(of: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        of.iter().for_each(|&n| bytes.extend(u128::from(n).to_be_bytes()));
        bytes
    }

    #[test]
    fn reserved_bytes_are_zero_or_not() {
        check("--rt-0-res", &[0; 4], true);
        check("--rt-0-res --rt-0-addrs ::1", &addresses(&[1]), true);
        for at in 0..4 {
            let mut behind = addresses(&[1]);
            behind[at] = 1;
            check("--rt-0-res", &behind, false);
            check("--rt-0-res --rt-0-addrs ::1", &behind, false);
            check("--rt-0-addrs ::1", &behind, true);
        }
    }

    #[test]
    fn strictly_the_addresses_are_those_wanted() {
        check("--rt-0-addrs ::1,::2", &addresses(&[1, 2]), true);
        check("--rt-0-addrs ::1,::2", &addresses(&[2, 1]), false);
        check("--rt-0-addrs ::1,::2", &addresses(&[1, 2, 3]), false);
        check("--rt-0-addrs ::1,::2", &addresses(&[1]), false);
        check("--rt-0-addrs ::1", &addresses(&[]), false);
        // Half an address behind them.
        check("--rt-0-addrs ::1", &[addresses(&[1]), vec![0; 8]].concat(), true);
    }

    #[test]
    fn else_they_are_found_in_that_order() {
        check("--rt-0-addrs ::1,::2 --rt-0-not-strict", &addresses(&[1, 2]), true);
        check("--rt-0-addrs ::1,::2 --rt-0-not-strict", &addresses(&[3, 1, 4, 2, 5]), true);
        check("--rt-0-addrs ::1,::2 --rt-0-not-strict", &addresses(&[2, 1]), false);
        check("--rt-0-addrs ::1,::1 --rt-0-not-strict", &addresses(&[1, 2]), false);
        check("--rt-0-addrs ::1 --rt-0-not-strict", &addresses(&[]), false);
    }

    #[test]
    fn a_header_that_is_not_there_has_no_addresses() {
        let extension = extension6_of("-m rt --rt-type 0 --rt-0-res");
        let hops = Hops::new(Settings(&extension)).unwrap().expect("something");
        let wire = ipv6(59, &[0; 8]);
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        assert_eq!(hops.holds(&packet, &arrival(&wire)), Some(false));
        assert_eq!(hops.holds(&packet, &arrival(&wire[..47])), None);
    }

    #[test]
    fn what_the_tools_refuse_is_refused() {
        let many = vec!["::1"; 17].join(",");
        for list in ["::1,,::2", "host", "10.0.0.1", &many] {
            let extension = extension6_of(&format!("-m rt --rt-type 0 --rt-0-addrs {list}"));
            assert!(Hops::new(Settings(&extension)).is_err(), "{list}");
        }
        let extension = extension6_of("-m rt --rt-type 0");
        assert_eq!(Hops::new(Settings(&extension)), Ok(None));
    }
}
