//! Names of hosts, from a file of the form of `/etc/hosts`.
//!
//! Rules with host names mean what a resolver said on the day they were loaded. hipac asks no resolver: a name
//! is refused, unless a file says what it means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::Family;

/// Addresses of each name, in any case of letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    by_name: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads lines of an address and the names that it has. A name may stand in several lines.
    ///
    /// # Errors
    /// The first line that begins with no address, by number, and the word.
    pub fn read(text: &str) -> Result<Hosts, (usize, String)> {
        let mut hosts = Hosts::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or("");
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            let address: IpAddr = first.parse().map_err(|_| (number, first.to_owned()))?;
            for name in words {
                let addresses = hosts.by_name.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Ok(hosts)
    }

    /// The addresses of a name in a family, in the order of the file.
    pub fn addresses(&self, name: &str, family: Family) -> impl Iterator<Item = u128> {
        let all = self.by_name.get(&name.to_ascii_lowercase());
        all.into_iter().flatten().filter_map(move |address| match (address, family) {
            (IpAddr::V4(a), Family::V4) => Some(u32::from(*a).into()),
            (IpAddr::V6(a), Family::V6) => Some((*a).into()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_addresses_of_their_family() {
        let text = "# here\n192.0.2.1 a.example A\n::1 a.example # and more\n192.0.2.2 a.example\n";
        let hosts = Hosts::read(text).unwrap();
        let of = |name, family| hosts.addresses(name, family).collect::<Vec<u128>>();
        assert_eq!(of("A.Example", Family::V4), [0xc000_0201, 0xc000_0202]);
        assert_eq!(of("a.example", Family::V6), [1]);
        assert_eq!(of("a", Family::V4), [0xc000_0201]);
        assert!(of("b", Family::V4).is_empty());
        assert_eq!(Hosts::read("\nlocal 127.0.0.1\n"), Err((2, "local".into())));
    }
}
