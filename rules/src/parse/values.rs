//! Values of the tool's own options: addresses, interfaces, protocols, counters.

use std::ops::Range;

use crate::model::{AddressTest, Counters, Family, FragmentTest, InterfaceTest, ProtocolTest};
use crate::names::protocol_number;
use crate::registry::parse_network;

use super::draft::Addresses;
use super::line::Line;
use super::reader::Reader;
use super::words::Word;

impl Reader<'_> {
    /// Addresses with commas between: one rule for each.
    pub(super) fn addresses(
        &mut self,
        (text, span): &(&str, Range<usize>),
        negated: bool,
        tests: &mut Addresses,
    ) {
        tests.clear();
        let is_list = text.bytes().any(|b| b == b',');
        if !is_list && let Ok((address, mask)) = parse_network(text, self.family) {
            tests.push(AddressTest { address, mask, negated });
            return;
        }
        let mut start = span.start;
        for part in text.split(',') {
            let at = start..(start + part.len()).min(span.end.max(start));
            start += part.len() + 1;
            match parse_network(part, self.family) {
                Ok((address, mask)) => tests.push(AddressTest { address, mask, negated }),
                Err(_) if self.host(part, negated, tests) => {}
                Err(fault) => self.error(if is_list { at } else { span.clone() }, fault.message, fault.help),
            }
        }
        if negated && tests.len() > 1 {
            let help = "write a chain that returns on each of them";
            self.error(span.clone(), "`!` cannot stand before several addresses", Some(help.into()));
        }
    }

    /// The addresses of a host by name, with `/mask` where one is given. False: nobody said what it means.
    fn host(&mut self, text: &str, negated: bool, tests: &mut Addresses) -> bool {
        let Some(hosts) = self.options.hosts.clone() else { return false };
        let (name, mask) = text.split_once('/').map_or((text, None), |(name, mask)| (name, Some(mask)));
        let mask = match mask {
            None => self.family.full_mask(),
            // The mask alone, of any address.
            Some(mask) => {
                let any = if self.family == Family::V4 { "255.255.255.255" } else { "::" };
                match parse_network(&format!("{any}/{mask}"), self.family) {
                    Ok((_, mask)) => mask,
                    Err(_) => return false,
                }
            }
        };
        let before = tests.len();
        for address in hosts.addresses(name, self.family) {
            tests.push(AddressTest { address: address & mask, mask, negated });
        }
        tests.len() > before
    }

    pub(super) fn interface(&mut self, (text, span): &(&str, Range<usize>), negated: bool) -> InterfaceTest {
        const NAME_BYTES_MAX: usize = 15;
        if text.is_empty() {
            self.error(span.clone(), "an interface without a name", None);
            return InterfaceTest::default();
        }
        if text.len() > NAME_BYTES_MAX {
            let message = format!("interface name of {} bytes is above {NAME_BYTES_MAX}", text.len());
            self.error(span.clone(), message, None);
        } else if text.contains(['/', ' ']) {
            self.warn(span.clone(), format!("`{text}` is no name that an interface can have"), None);
        }
        match text.strip_suffix('+') {
            // Every interface, and none at all: no test, and none is printed.
            Some("") if !negated => InterfaceTest::default(),
            Some(name) => InterfaceTest { name: Some(self.name(name)), prefix: true, negated },
            None => InterfaceTest { name: Some(self.name(text)), prefix: false, negated },
        }
    }

    pub(super) fn protocol(&mut self, (text, span): &(&str, Range<usize>), negated: bool) -> ProtocolTest {
        let Some(number) = protocol_number(text) else {
            let help = "write its number, or a name such as tcp";
            self.error(span.clone(), format!("`{text}` is no known protocol"), Some(help.into()));
            return ProtocolTest::default();
        };
        if number == 0 && negated {
            self.error(span.clone(), "no packet has any other protocol than `all`", None);
        }
        let header = self.family == Family::V6 && matches!(number, 43 | 44 | 60) && !negated;
        if header {
            let help = "test the header by -m rt, frag or dst";
            self.warn(
                span.clone(),
                format!("{text} is an extension header, not a protocol"),
                Some(help.into()),
            );
        }
        ProtocolTest { number, negated }
    }

    pub(super) fn fragment(&mut self, line: &mut Line<'_, '_>, word: &Word<'_>, negated: bool) {
        if self.family == Family::V6 {
            let help = "test the fragment header by -m frag";
            self.error(word.span.clone(), "-f is for IPv4", Some(help.into()));
            return;
        }
        line.draft.ip.fragment = if negated { FragmentTest::NotLater } else { FragmentTest::Later };
    }

    /// `-c packets bytes` or `-c packets,bytes`
    pub(super) fn set_counters(&mut self, line: &mut Line<'_, '_>, packets: &str, span: Range<usize>) {
        let counters = match packets.split_once(',') {
            Some((packets, bytes)) => (packets.parse().ok(), bytes.parse().ok()),
            None => {
                let bytes = line.words.get(line.next).filter(|w| !w.text.starts_with('-'));
                line.next += usize::from(bytes.is_some());
                (packets.parse().ok(), bytes.and_then(|w| w.text.parse().ok()))
            }
        };
        match counters {
            (Some(packets), Some(bytes)) => line.draft.counters = Some(Counters { packets, bytes }),
            _ => self.error(span, "-c needs packets and bytes", Some("write -c PACKETS BYTES".into())),
        }
    }
}
