//! The chains that a packet meets on its way through a host, in the kernel's order.

use hipac_classifier::{CtState, Packet};
use hipac_rules::{Hook, TableKind};

/// A way through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In by one interface, out by another.
    Forward,
    /// To this host.
    Input,
    /// From this host.
    Output,
}

impl Way {
    /// The hooks on the way, in order.
    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Way::Forward => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
            Way::Input => &[Hook::Prerouting, Hook::Input],
            Way::Output => &[Hook::Output, Hook::Postrouting],
        }
    }

    /// The built-in chains that `packet` meets, in order. The nat table sees the first packet of a connection
    /// only. At INPUT it is met last, at the other hooks between mangle and filter.
    pub fn chains(self, packet: &Packet) -> Vec<(TableKind, Hook)> {
        let mut chains = Vec::new();
        for &hook in self.hooks() {
            let mut tables: Vec<TableKind> =
                TableKind::ALL.into_iter().filter(|t| t.hooks().contains(&hook)).collect();
            if hook == Hook::Input {
                // Source NAT (priority 100) comes behind filter (0) and security (50).
                tables.sort_by_key(|&t| t == TableKind::Nat);
            }
            let begins_connection = matches!(packet.ct_state, CtState::New | CtState::Related);
            tables.retain(|&t| t != TableKind::Nat || begins_connection);
            chains.extend(tables.into_iter().map(|t| (t, hook)));
        }
        chains
    }
}

/// Whether a verdict lets the packet go on to the next table.
pub fn goes_on(verdict: &str) -> bool {
    !matches!(verdict, "DROP" | "REJECT" | "QUEUE" | "NFQUEUE" | "SYNPROXY" | "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_met_by_their_priorities() {
        let show = |way: Way, state| {
            let packet = Packet { ct_state: state, ..Packet::default() };
            let names = way.chains(&packet).into_iter().map(|(t, h)| format!("{}/{}", t.name(), h.name()));
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            show(Way::Forward, CtState::New),
            "raw/PREROUTING mangle/PREROUTING nat/PREROUTING mangle/FORWARD filter/FORWARD security/FORWARD \
             mangle/POSTROUTING nat/POSTROUTING"
        );
        assert_eq!(
            show(Way::Input, CtState::New),
            "raw/PREROUTING mangle/PREROUTING nat/PREROUTING mangle/INPUT filter/INPUT security/INPUT nat/INPUT"
        );
        assert_eq!(
            show(Way::Output, CtState::Established),
            "raw/OUTPUT mangle/OUTPUT filter/OUTPUT security/OUTPUT mangle/POSTROUTING"
        );
    }
}
