//! IP sets: what `ipset save` prints, and what `-m set` means by them.
//!
//! ```text
//!   create blocked hash:net family inet ┐        -m set --match-set blocked src
//!   add blocked 192.0.2.0/24            │ read      └──bind──▶ Membership: the set, and which
//!   add blocked 192.0.2.7 nomatch       ┘                      field each column looks at
//! ```
//!
//! A set is a table of entries with one *part* a column. A packet is looked up by its values in
//! the columns, and the first entry all of whose parts hold them decides: it is in the set,
//! or, where the entry says `nomatch`, it is not. First is the entry with the longest prefix in
//! the first column that has prefixes, then in the second one. A packet that lacks a value (a port of a
//! later fragment, the interface of one that is not yet routed, the address 0 in sets of single
//! addresses) is in no set.
//!
//! [`Sets::bind`] puts sets into the rules of a ruleset that name them. What it leaves alone stays what it
//! is without sets, a residual match: sets that are not given, those that rules themselves change
//! (`-j SET`), and what hangs on counters or on a destination's Ethernet address.
//!
//! The lookup stands in this module only as this text. The compiler and the verifier each build a
//! lookup of their own from the entries.
//!
//! Memory is linear in the entries: 48 bytes a part. Rules that name a set share it.

mod bind;
mod change;
mod entry;
mod read;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use bind::{Binder, Bound, Unbound, changed_by, names_set};
pub use read::{ENTRIES_MAX, Sets};

use crate::meaning::Field;
use crate::model::{Family, Name};

/// Columns of a set, at most.
pub const COLUMNS_MAX: usize = 3;

/// What a column of a set's type holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Single addresses.
    Ip,
    /// Networks.
    Net,
    /// A protocol with its port, or ICMP type and code.
    Port,
    /// A port of TCP or UDP (`bitmap:port`).
    BarePort,
    /// An Ethernet address.
    Mac,
    /// An interface.
    Interface,
    /// A packet mark.
    Mark,
}

/// A type of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetType {
    /// `hash:ip`.
    pub name: &'static str,
    /// Its columns; none for `list:set`.
    pub columns: &'static [ColumnKind],
    /// What it holds has no family.
    pub is_of_any_family: bool,
}

impl SetType {
    /// All types.
    pub const ALL: [SetType; 16] = {
        use ColumnKind::*;
        const fn of(name: &'static str, columns: &'static [ColumnKind]) -> SetType {
            SetType { name, columns, is_of_any_family: false }
        }
        const fn any(name: &'static str, columns: &'static [ColumnKind]) -> SetType {
            SetType { name, columns, is_of_any_family: true }
        }
        [
            of("bitmap:ip", &[Ip]),
            of("bitmap:ip,mac", &[Ip, Mac]),
            any("bitmap:port", &[BarePort]),
            of("hash:ip", &[Ip]),
            any("hash:mac", &[Mac]),
            of("hash:ip,mac", &[Ip, Mac]),
            of("hash:net", &[Net]),
            of("hash:net,net", &[Net, Net]),
            of("hash:ip,port", &[Ip, Port]),
            of("hash:net,port", &[Net, Port]),
            of("hash:ip,port,ip", &[Ip, Port, Ip]),
            of("hash:ip,port,net", &[Ip, Port, Net]),
            of("hash:ip,mark", &[Ip, Mark]),
            of("hash:net,port,net", &[Net, Port, Net]),
            of("hash:net,iface", &[Net, Interface]),
            any("list:set", &[]),
        ]
    };

    /// The type of that name; the old ones are read as well.
    pub fn from_name(name: &str) -> Option<&'static SetType> {
        static ALL: [SetType; 16] = SetType::ALL;
        let name = match name {
            "ipmap" => "bitmap:ip",
            "macipmap" => "bitmap:ip,mac",
            "portmap" => "bitmap:port",
            "iphash" => "hash:ip",
            "nethash" => "hash:net",
            "ipporthash" => "hash:ip,port",
            "ipportiphash" => "hash:ip,port,ip",
            "ipportnethash" => "hash:ip,port,net",
            "setlist" => "list:set",
            name => name,
        };
        ALL.iter().find(|t| t.name == name)
    }

    /// It is a list of sets.
    pub fn is_list(&self) -> bool {
        self.columns.is_empty()
    }

    /// The address 0 is never in it: the kernel refuses it where addresses stand alone.
    pub fn refuses_zero(&self) -> bool {
        self.name == "hash:ip"
    }
}

/// One part of an entry: the values of a column for which it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Addresses, or bare ports, from the first to the last: in sets of one column only.
    Range(u128, u128),
    /// Addresses, or marks, `x` with `x & mask == value`.
    Masked {
        /// Wanted bits.
        value: u128,
        /// Bits looked at.
        mask: u128,
    },
    /// A protocol and its port; for ICMP and ICMPv6 `type << 8 | code`; 0 for what has no ports.
    Port {
        /// Protocol number.
        protocol: u8,
        /// Port.
        port: u16,
    },
    /// An Ethernet address; `None`: any.
    Mac(Option<[u8; 6]>),
    /// An interface, or all whose name begins so.
    Interface {
        /// The name, without a sign for the rest.
        name: Box<str>,
        /// Every name that begins so.
        is_prefix: bool,
    },
}

// Sets hold hundreds of thousands.
const _: () = assert!(size_of::<Part>() <= 48);

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpSet {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: &'static SetType,
    /// The family of its addresses; `None` where it has none.
    pub family: Option<Family>,
    /// All parts, entry by entry; an entry has one for each column.
    pub parts: Vec<Part>,
    /// Whether each entry says `nomatch`.
    pub is_nomatch: Vec<bool>,
    /// The names of a list's sets, in order.
    pub members: Vec<Name>,
    /// An entry is of a kind that no packet's field decides (a bridge port): the set is not bound.
    pub is_opaque: bool,
}

impl IpSet {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        if self.kind.is_list() { self.members.len() } else { self.is_nomatch.len() }
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, each with its parts and whether it says `nomatch`.
    pub fn entries(&self) -> impl Iterator<Item = (&[Part], bool)> {
        self.parts.chunks(self.kind.columns.len().max(1)).zip(self.is_nomatch.iter().copied())
    }
}

/// What a column of a [`Membership`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// An address.
    Address(Field),
    /// The protocol and a port. A packet has it when its transport header is there as far as the kernel
    /// reads it: 20 bytes of TCP, 12 of SCTP, 8 of UDP, UDPLite, ICMP and ICMPv6. Of other
    /// protocols every packet has it, with port 0. Of ICMP and ICMPv6 it is type and code, whatever the
    /// direction.
    Port(Field),
    /// The same, of TCP and UDP alone, without the protocol.
    BarePort(Field),
    /// An interface. A packet without one has no value.
    Interface(Field),
    /// The Ethernet source address. A packet without an Ethernet header, or with the address 0, has
    /// no value.
    Mac,
    /// The packet mark.
    Mark,
}

/// "The packet is in this set", looked up by these columns.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The set; no list.
    pub set: Arc<IpSet>,
    /// What each of its columns looks at.
    pub columns: Vec<Column>,
    /// Packets that an entry marked `nomatch` decides about are in it, and no others.
    pub wants_nomatch: bool,
}

impl Membership {
    /// It looks at the packet mark, which rules change.
    pub fn looks_at_mark(&self) -> bool {
        self.columns.contains(&Column::Mark)
    }
}

impl PartialEq for Membership {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns
            && self.wants_nomatch == other.wants_nomatch
            && (Arc::ptr_eq(&self.set, &other.set) || self.set == other.set)
    }
}

impl Eq for Membership {}

impl Hash for Membership {
    /// Of what is short: a set's entries may be hundreds of thousands.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.set.name, self.set.len(), &self.columns, self.wants_nomatch).hash(state);
    }
}

impl fmt::Display for Membership {
    /// `blocked src,dst`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.set.name)?;
        for (i, column) in self.columns.iter().enumerate() {
            let is_source = match column {
                Column::Address(field) | Column::Port(field) | Column::BarePort(field) => {
                    matches!(field, Field::Source | Field::SourcePort)
                }
                Column::Interface(field) => *field == Field::InInterface,
                Column::Mac | Column::Mark => true,
            };
            f.write_str(if i > 0 { "," } else { "" })?;
            f.write_str(if is_source { "src" } else { "dst" })?;
        }
        f.write_str(if self.wants_nomatch { " nomatch" } else { "" })
    }
}

/// `--match-set NAME src,dst`, bound to the sets that it means: the set of that name, or those of a
/// list. The packet is in it when it is in one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MatchSet {
    /// The two words as they are written.
    pub words: (Box<str>, Box<str>),
    /// The sets that can hold a packet of this family looked up so; none: no packet is in it.
    pub any_of: Vec<Arc<Membership>>,
}
