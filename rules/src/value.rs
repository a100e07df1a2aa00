//! Typed values of options.
//!
//! A value is what an option says, not how it is written: `--dport ssh`, `--dport 22` and
//! `--dport 22:22` are all [`Value::Range`]`(22, 22)`. Which texts an option takes and how its
//! value is printed is the business of its [`ValueKind`](crate::registry::ValueKind).

use std::sync::Arc;

use crate::ipset::MatchSet;

/// The value of one option.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Value {
    /// The option takes no value, or an optional one that was left out.
    Flag,
    /// A number: also an index of a choice.
    Number(u64),
    /// An inclusive range; both ends equal for a single value.
    Range(u64, u64),
    /// Inclusive ranges, in the order written (`multiport`, lists of days, …).
    Ranges(Box<[(u64, u64)]>),
    /// Text.
    Text(Box<str>),
    /// Two words (`--match-set NAME src,dst`).
    Pair(Box<(Box<str>, Box<str>)>),
    /// The same words, with the sets that they mean: see [`Sets::bind`](crate::ipset::Sets::bind).
    MatchSet(Arc<MatchSet>),
    /// An address and its mask; IPv4 in the low 32 bits.
    Network {
        /// The address, masked.
        address: u128,
        /// The mask, which need not be contiguous.
        mask: u128,
    },
    /// Inclusive addresses.
    AddressRange(u128, u128),
    /// An Ethernet address.
    Mac([u8; 6]),
    /// `value/mask`.
    Masked {
        /// Wanted bits.
        value: u32,
        /// Bits looked at, or replaced.
        mask: u32,
    },
    /// A set of choices: bit `n` is the choice of number `n`.
    Set(u64),
    /// `--tcp-flags mask comp`.
    TcpFlags {
        /// Flags looked at.
        mask: u8,
        /// Flags among them that are set.
        set: u8,
    },
    /// An ICMP type and a range of codes.
    IcmpType {
        /// The type.
        kind: u8,
        /// Lowest and highest code.
        codes: (u8, u8),
    },
    /// Time between packets, in 1/10,000 seconds (`--limit`).
    Rate(u32),
    /// Addresses and ports of a translation.
    Nat(Box<Nat>),
    /// A fraction of 2³¹ (`--probability`).
    Fraction(u32),
}

/// Where an address translation leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Nat {
    /// First and last address.
    pub addresses: Option<(u128, u128)>,
    /// First and last port.
    pub ports: Option<(u16, u16)>,
    /// The port that the first one of the range stands for.
    pub base_port: Option<u16>,
}

// Rulesets hold hundreds of thousands of values; a larger one would be felt.
const _: () = assert!(size_of::<Value>() <= 48);
