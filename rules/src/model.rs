//! What a ruleset is: tables of chains of rules, as the text says them.

use std::fmt;
use std::sync::Arc;

use crate::meaning::{Field, L4Need, MatchMeaning, TargetMeaning};
use crate::registry::{ExtensionSpec, OptionSpec};
use crate::value::Value;

/// A name: of a chain, an interface, an extension. Cheap to clone; names compare bytewise.
pub type Name = Arc<str>;

/// The family of all addresses of a ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Bits of an address: 32 or 128.
    pub fn address_bits(self) -> u32 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The other family.
    pub fn other(self) -> Family {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }

    /// `IPv4` or `IPv6`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The mask of a single address.
    pub fn full_mask(self) -> u128 {
        match self {
            Family::V4 => u32::MAX as u128,
            Family::V6 => u128::MAX,
        }
    }
}

/// The tables that the kernel has, in the order in which a packet meets them at one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableKind {
    /// Before connection tracking.
    Raw,
    /// Packet alteration.
    Mangle,
    /// Address translation: sees the first packet of a connection only.
    Nat,
    /// The default table.
    Filter,
    /// Mandatory access control marks.
    Security,
}

/// The places where a built-in chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Every packet that arrives.
    Prerouting,
    /// Packets for this host.
    Input,
    /// Packets that pass through.
    Forward,
    /// Packets that this host sends.
    Output,
    /// Every packet that leaves.
    Postrouting,
}

impl TableKind {
    /// All tables, in the order in which a packet meets them.
    pub const ALL: [TableKind; 5] =
        [TableKind::Raw, TableKind::Mangle, TableKind::Nat, TableKind::Filter, TableKind::Security];

    /// The name as in `*filter`.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Raw => "raw",
            TableKind::Mangle => "mangle",
            TableKind::Nat => "nat",
            TableKind::Filter => "filter",
            TableKind::Security => "security",
        }
    }

    /// The table of that name.
    pub fn from_name(name: &str) -> Option<TableKind> {
        TableKind::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The built-in chains, in the order in which `iptables-save` prints them.
    pub fn hooks(self) -> &'static [Hook] {
        use Hook::*;
        match self {
            TableKind::Raw => &[Prerouting, Output],
            TableKind::Mangle => &[Prerouting, Input, Forward, Output, Postrouting],
            TableKind::Nat => &[Prerouting, Input, Output, Postrouting],
            TableKind::Filter | TableKind::Security => &[Input, Forward, Output],
        }
    }
}

impl Hook {
    /// All hooks, in the order of a packet's way.
    pub const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// The name of the built-in chain.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "PREROUTING",
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
            Hook::Output => "OUTPUT",
            Hook::Postrouting => "POSTROUTING",
        }
    }

    /// The hook of that name.
    pub fn from_name(name: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|h| h.name() == name)
    }
}

/// A ruleset: what one `iptables-save` prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    /// The family of all its addresses.
    pub family: Family,
    /// Its tables, at most one of a kind, in the order of their first appearance.
    pub tables: Vec<Table>,
}

impl Ruleset {
    /// The table of that kind, when the ruleset has it.
    pub fn table(&self, kind: TableKind) -> Option<&Table> {
        self.tables.iter().find(|t| t.kind == kind)
    }

    /// All rules of all tables.
    pub fn rule_count(&self) -> usize {
        self.tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum()
    }
}

/// A table: its chains, built-in ones first in the order of [`TableKind::hooks`], then the
/// user's in the order of their names, as the kernel's tools keep them. Every built-in chain is
/// present, whether the text names it or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Which table.
    pub kind: TableKind,
    /// Its chains.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chain_index(name).map(|i| &self.chains[i])
    }

    /// The index of the chain of that name. Costs a binary search over user chains.
    pub fn chain_index(&self, name: &str) -> Option<usize> {
        let built_in = self.chains.iter().take_while(|c| c.hook.is_some()).count();
        if let Some(i) = self.chains[..built_in].iter().position(|c| &*c.name == name) {
            return Some(i);
        }
        self.chains[built_in..].binary_search_by(|c| (*c.name).cmp(name)).ok().map(|i| i + built_in)
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: Name,
    /// The hook, for a built-in chain.
    pub hook: Option<Hook>,
    /// The policy, for a built-in chain; `None` for a user's.
    pub policy: Option<Policy>,
    /// Counters of the policy; zero for a user chain.
    pub counters: Counters,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// Line of the declaration, from 1; 0 when the text does not declare it.
    pub line: u32,
}

/// What a built-in chain does at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Let the packet pass.
    Accept,
    /// Drop it.
    Drop,
}

impl Policy {
    /// `ACCEPT` or `DROP`.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Accept => "ACCEPT",
            Policy::Drop => "DROP",
        }
    }
}

/// Packets and bytes counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl fmt::Display for Counters {
    /// `[packets:bytes]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:{}]", self.packets, self.bytes)
    }
}

/// A rule: its IP part, its matches in the order written, and its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Packets and bytes that matched it.
    pub counters: Counters,
    /// What every rule can test.
    pub ip: IpPart,
    /// The matches, in the order written; one module may stand more than once.
    pub matches: Vec<Extension>,
    /// What happens to a packet that matches.
    pub target: Target,
    /// Line of the text, from 1; 0 for a rule made by hand.
    pub line: u32,
}

impl Rule {
    /// Whether it says what the other one says: their counters and lines do not matter, nor does
    /// `-i +`, which says nothing, nor what an IP set that both name holds.
    pub fn is_same(&self, other: &Rule) -> bool {
        self.ip.is_same(&other.ip)
            && self.target == other.target
            && self.matches.len() == other.matches.len()
            && self.matches.iter().zip(&other.matches).all(|(a, b)| a.is_same(b))
    }
}

/// The part of a rule that is tested before its matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpPart {
    /// `-s`.
    pub source: AddressTest,
    /// `-d`.
    pub destination: AddressTest,
    /// `-i`.
    pub in_interface: InterfaceTest,
    /// `-o`.
    pub out_interface: InterfaceTest,
    /// `-p`.
    pub protocol: ProtocolTest,
    /// `-f` (IPv4).
    pub fragment: FragmentTest,
}

impl IpPart {
    fn is_same(&self, other: &IpPart) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.in_interface.is_same(&other.in_interface)
            && self.out_interface.is_same(&other.out_interface)
            && self.protocol == other.protocol
            && self.fragment == other.fragment
    }
}

/// An address and a mask, which need not be contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddressTest {
    /// The address, masked; IPv4 in the low 32 bits.
    pub address: u128,
    /// The mask; 0 tests nothing (and, negated, holds for no packet).
    pub mask: u128,
    /// `!`
    pub negated: bool,
}

/// An interface name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct InterfaceTest {
    /// The name without a trailing `+`; `None` when the rule does not test it. (`! -i +`, which
    /// never holds, is `Some("")` with `prefix`; `-i +` tests nothing.)
    pub name: Option<Name>,
    /// A trailing `+`: every interface whose name begins with `name`.
    pub prefix: bool,
    /// `!`
    pub negated: bool,
}

impl InterfaceTest {
    /// Whether it tests something: `+` alone does not, unless it is negated.
    fn says_something(&self) -> bool {
        self.name.as_ref().is_some_and(|name| !name.is_empty() || !self.prefix || self.negated)
    }

    fn is_same(&self, other: &InterfaceTest) -> bool {
        self == other || !self.says_something() && !other.says_something()
    }
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ProtocolTest {
    /// Its number; 0 tests nothing.
    pub number: u8,
    /// `!`
    pub negated: bool,
}

/// `-f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FragmentTest {
    /// Not tested.
    #[default]
    Any,
    /// `-f`: later fragments only.
    Later,
    /// `! -f`: whole packets and first fragments.
    NotLater,
}

/// The target of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// None: the rule counts, and its matches may have side effects.
    None,
    /// `-j CHAIN`: call a user chain.
    Jump(Name),
    /// `-g CHAIN`: go to a user chain; its end leads to the caller of this chain.
    Goto(Name),
    /// A target of the registry (ACCEPT, DROP and RETURN among them) or an unknown one.
    Extension(Extension),
}

/// A match or a target with its options.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// Which.
    pub spec: ExtensionRef,
    /// Its options, in canonical order with canonical values; empty for an opaque one.
    pub settings: Vec<Setting>,
    /// The words of an opaque extension, verbatim and unquoted; empty for a known one.
    pub words: Vec<Box<str>>,
}

/// A registry entry, or the name of an extension that the registry does not have.
#[derive(Debug, Clone)]
pub enum ExtensionRef {
    /// An entry of the registry.
    Known(&'static ExtensionSpec),
    /// An extension kept verbatim.
    Opaque(Name),
}

impl PartialEq for ExtensionRef {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (ExtensionRef::Known(a), ExtensionRef::Known(b)) => std::ptr::eq(*a, *b),
            (ExtensionRef::Opaque(a), ExtensionRef::Opaque(b)) => a == b,
            _ => false,
        }
    }
}

impl Extension {
    /// The name as after `-m` or `-j`.
    pub fn name(&self) -> &str {
        match &self.spec {
            ExtensionRef::Known(spec) => spec.name,
            ExtensionRef::Opaque(name) => name,
        }
    }

    /// The registry's entry; `None` for an opaque one.
    pub fn known_spec(&self) -> Option<&'static ExtensionSpec> {
        match self.spec {
            ExtensionRef::Known(spec) => Some(spec),
            ExtensionRef::Opaque(_) => None,
        }
    }

    /// What this means as a match, for packets of `family`.
    pub fn match_meaning(&self, family: Family) -> MatchMeaning {
        crate::registry::match_meaning(self, family)
    }

    /// The transport header that this wants as a match: [`MatchMeaning::l4`] without the rest.
    pub fn l4_need(&self, family: Family) -> L4Need {
        crate::registry::l4_need(self, family)
    }

    /// Whether this may, as a match, test one of these fields. Cheaper than its meaning, and never
    /// `false` for one that does.
    pub fn may_test(&self, fields: &[Field]) -> bool {
        crate::registry::may_test(self, fields)
    }

    /// What this means as a target.
    pub fn target_meaning(&self, family: Family) -> TargetMeaning {
        crate::registry::target_meaning(self, family)
    }
}

/// One option of an extension as a rule gives it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The registry's entry of the option.
    pub option: &'static OptionSpec,
    /// `!`
    pub negated: bool,
    /// Its value.
    pub value: Value,
}

impl Extension {
    fn is_same(&self, other: &Extension) -> bool {
        self.spec == other.spec
            && self.words == other.words
            && self.settings.len() == other.settings.len()
            && self.settings.iter().zip(&other.settings).all(|(a, b)| a.is_same(b))
    }
}

impl Setting {
    fn is_same(&self, other: &Setting) -> bool {
        let words = |value: &Value| match value {
            Value::Pair(words) => Some(words.clone()),
            Value::MatchSet(bound) => Some(bound.words.clone().into()),
            _ => None,
        };
        std::ptr::eq(self.option, other.option)
            && self.negated == other.negated
            && match (words(&self.value), words(&other.value)) {
                (Some(a), Some(b)) => a == b,
                _ => self.value == other.value,
            }
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.option, other.option) && self.negated == other.negated && self.value == other.value
    }
}
