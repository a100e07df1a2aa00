//! The one table of matches and targets.
//!
//! An entry ([`ExtensionSpec`]) *declares* an extension: its options in the order in which they
//! are printed, which values they take, what holds when they are left out, and what they mean.
//! Parsing, checking, printing and meaning are each one function over that table, so a new
//! simple extension is one more literal in the file of its theme:
//!
//! ```text
//!   proto       tcp udp icmp multiport …      verdict   ACCEPT DROP REJECT NFQUEUE …
//!   conntrack   state conntrack connmark …    nat       DNAT SNAT MASQUERADE REDIRECT …
//!   rate        limit hashlimit recent …      alter     MARK CONNMARK TOS TTL CT …
//!   packet      mark length ttl mac string …  log       LOG NFLOG TRACE SET …
//!   place       addrtype iprange set …
//!   host        owner comment time …
//!   ipv6        frag rt hbh mh …
//! ```

// All `finish` functions have one signature, whether or not they add and remove settings.
#![allow(clippy::ptr_arg)]

mod address;
mod alter;
mod checked;
mod conntrack;
mod describe;
mod headers6;
mod host;
mod ipv6;
mod kind;
mod log;
mod meaning;
mod nat;
mod packet;
mod place;
mod proto;
mod rate;
mod spec;
mod verdict;

use std::collections::HashMap;
use std::sync::OnceLock;

pub use address::{
    parse_address, parse_network, parse_short_address, prefix_length, prefix_mask, write_address,
    write_network,
};
pub use checked::{KernelCheck, kernel_check};
pub use describe::{Accepted, Evaluation, document, words};
pub(crate) use kind::split_at;
pub use kind::{
    CustomKind, Quote, Radix, ValueFault, ValueKind, number_within, parse_number, parse_port, write_text,
};
pub(crate) use meaning::{l4_need, match_meaning, may_test, target_meaning};
pub use spec::{
    Ending, ExtensionSpec, Families, Finish, FinishContext, Kind, Law, Means, OptionSpec, Quirks, ShortFor,
    WhenAbsent, flag, option,
};

use crate::model::Family;

/// The entries by theme, in reading order.
static THEMES: &[&[ExtensionSpec]] = &[
    proto::ENTRIES,
    conntrack::ENTRIES,
    rate::ENTRIES,
    packet::ENTRIES,
    place::ENTRIES,
    host::ENTRIES,
    ipv6::ENTRIES,
    verdict::ENTRIES,
    nat::ENTRIES,
    alter::ENTRIES,
    log::ENTRIES,
];

/// Every match and target, by theme. A name may stand more than once, with other families.
pub fn all() -> impl Iterator<Item = &'static ExtensionSpec> {
    THEMES.iter().flat_map(|theme| theme.iter())
}

/// The match or target of that name or alias in that family.
pub fn find(kind: Kind, name: &str, family: Family) -> Option<&'static ExtensionSpec> {
    type ByName = HashMap<&'static str, Vec<&'static ExtensionSpec>, foldhash::fast::RandomState>;
    static BY_NAME: OnceLock<ByName> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| {
        let mut map = ByName::default();
        for spec in all() {
            for name in std::iter::once(spec.name).chain(spec.aliases.iter().copied()) {
                map.entry(name).or_default().push(spec);
            }
        }
        map
    });
    by_name.get(name)?.iter().find(|s| s.kind == kind && s.families.has(family)).copied()
}

/// The match that options after `-p PROTOCOL` belong to when no `-m` names one.
pub fn match_of_protocol(protocol: u8, family: Family) -> Option<&'static ExtensionSpec> {
    let name = match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        108 => "ipcomp",
        132 => "sctp",
        135 => "mh",
        136 => "udplite",
        _ => return None,
    };
    find(Kind::Match, name, family)
}

/// The names nearest to a name that is not in the registry, for a remedy.
pub fn nearest(kind: Kind, name: &str, family: Family) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase();
    let candidates = all().filter(|s| s.kind == kind && s.families.has(family));
    let (distance, found) = candidates
        .map(|s| (edit_distance(&wanted, &s.name.to_ascii_lowercase()), s.name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance * 2 < wanted.len().max(2)).then_some(found)
}

/// Insertions, deletions and replacements that make one short text the other.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 || a.len() > 40 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
