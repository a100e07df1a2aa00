//! Rulesets for this crate's own tests, with matches and targets that state what they mean.
//!
//! The registry is another crate's business; what is tested here is how meanings are *evaluated*. So a match
//! is named after its meaning: `-m tcp` needs 20 bytes of header, `-m dport22` tests the port and needs none,
//! `-m limit` is a stateful residual match.

use hipac_rules::{
    AddressTest, Chain, Clause, Counters, Effect, Extension, ExtensionRef, Family, Field, FragmentTest, Hook,
    InterfaceTest, IpPart, L4Need, MatchMeaning, Policy, ProtocolTest, Residual, Rule, Ruleset, Table,
    TableKind, Target, TargetMeaning, Test, ValueSet,
};

use crate::oracle::{Meanings, Oracle, OracleError};

/// A ruleset of one table, from lines: `NAME` or `NAME POLICY` begins a chain, `-…` is a rule of it. Lines
/// number the rules as in a file.
pub(crate) fn ruleset(family: Family, kind: TableKind, text: &str) -> Ruleset {
    let mut chains: Vec<Chain> = kind.hooks().iter().map(|&hook| chain(hook.name(), Some(hook))).collect();
    let built_in = chains.len();
    let mut current = 0;
    for (line, text) in (1..).zip(text.lines()) {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [] => {}
            [first, ..] if first.starts_with(['-', '!']) => {
                chains[current].rules.push(rule(family, &words, line));
            }
            [name, ref policy @ ..] => {
                current = chains.iter().position(|c| &*c.name == name).unwrap_or_else(|| {
                    chains.push(chain(name, None));
                    chains.len() - 1
                });
                if policy == ["DROP"] {
                    chains[current].policy = Some(Policy::Drop);
                }
            }
        }
    }
    chains[built_in..].sort_by(|a, b| a.name.cmp(&b.name));
    Ruleset { family, tables: vec![Table { kind, chains }] }
}

/// The table `filter` of IPv4.
pub(crate) fn filter(text: &str) -> Ruleset {
    ruleset(Family::V4, TableKind::Filter, text)
}

/// The oracle by the meanings of [`match_meaning`] and [`target_meaning`].
pub(crate) fn oracle(ruleset: &Ruleset) -> Result<Oracle<'_>, OracleError> {
    let meanings = Meanings { of_match: &match_meaning, of_target: &target_meaning };
    Oracle::with_meanings(ruleset, &meanings)
}

fn chain(name: &str, hook: Option<Hook>) -> Chain {
    let policy = hook.map(|_| Policy::Accept);
    Chain { name: name.into(), hook, policy, counters: Counters::default(), rules: Vec::new(), line: 0 }
}

fn rule(family: Family, words: &[&str], line: u32) -> Rule {
    let mut rule = Rule {
        counters: Counters::default(),
        ip: IpPart::default(),
        matches: Vec::new(),
        target: Target::None,
        line,
    };
    let mut negated = false;
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || *words.next().unwrap_or_else(|| panic!("{word} wants a value"));
        let ip = &mut rule.ip;
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-s" => ip.source = address(family, value(), negated),
            "-d" => ip.destination = address(family, value(), negated),
            "-i" => ip.in_interface = interface(value(), negated),
            "-o" => ip.out_interface = interface(value(), negated),
            "-p" => ip.protocol = ProtocolTest { number: value().parse().unwrap(), negated },
            "-f" => ip.fragment = if negated { FragmentTest::NotLater } else { FragmentTest::Later },
            "-m" => rule.matches.push(extension(value())),
            "-g" => rule.target = Target::Goto(value().into()),
            "-j" => {
                let name = value();
                let is_chain =
                    name.starts_with(|c: char| c.is_ascii_lowercase()) || Hook::from_name(name).is_some();
                rule.target =
                    if is_chain { Target::Jump(name.into()) } else { Target::Extension(extension(name)) };
            }
            _ => panic!("no such word: {word}"),
        }
        negated = false;
    }
    rule
}

fn address(family: Family, text: &str, negated: bool) -> AddressTest {
    let number = |text: &str| match text.parse() {
        Ok(std::net::IpAddr::V4(a)) => u128::from(u32::from(a)),
        Ok(std::net::IpAddr::V6(a)) => u128::from(a),
        Err(_) => panic!("{text} is no address"),
    };
    let (address, mask) = text.split_once('/').unwrap_or((text, ""));
    let mask = match mask.parse::<u32>() {
        Ok(bits) => {
            let host_bits = family.address_bits() - bits;
            family.full_mask().checked_shr(host_bits).map_or(0, |mask| mask << host_bits)
        }
        Err(_) if mask.is_empty() => family.full_mask(),
        Err(_) => number(mask),
    };
    AddressTest { address: number(address) & mask, mask, negated }
}

fn interface(text: &str, negated: bool) -> InterfaceTest {
    let prefix = text.ends_with('+');
    InterfaceTest { name: Some(text.trim_end_matches('+').into()), prefix, negated }
}

fn extension(name: &str) -> Extension {
    Extension { spec: ExtensionRef::Opaque(name.into()), settings: Vec::new(), words: Vec::new() }
}

/// What a match of these tests means.
fn match_meaning(extension: &Extension, _: Family) -> MatchMeaning {
    let need = |bytes| L4Need { bytes, drops_fragment_at_8: bytes == 20 };
    let l4 = |bytes| MatchMeaning { l4: need(bytes), ..MatchMeaning::default() };
    let clauses = |clauses| MatchMeaning { clauses, ..MatchMeaning::default() };
    let residual = |kind| MatchMeaning { residual: Some(kind), ..MatchMeaning::default() };
    match extension.name() {
        "tcp" => l4(20),
        "udp" => l4(8),
        "multiport" => l4(4),
        "limit" => residual(Residual::Stateful),
        "string" => residual(Residual::Pure),
        "strange" => residual(Residual::Unknown),
        "dport22" => clauses(vec![ports(&[Field::DestinationPort], &[(22, 22)])]),
        "ports" => {
            clauses(vec![ports(&[Field::SourcePort, Field::DestinationPort], &[(53, 53), (1024, 2047)])])
        }
        "tcp-dport22" => {
            MatchMeaning { l4: need(20), ..clauses(vec![ports(&[Field::DestinationPort], &[(22, 22)])]) }
        }
        "mark1" => clauses(vec![masked(Field::Mark, 1, 1)]),
        "connmark1" => clauses(vec![masked(Field::ConnMark, 1, 1)]),
        "untracked" => clauses(vec![ports(&[Field::CtState], &[(4, 4), (12, 12), (20, 20), (28, 28)])]),
        "ttl9" => clauses(vec![ports(&[Field::Ttl], &[(9, 9)])]),
        "tos8" => clauses(vec![ports(&[Field::Tos], &[(8, 8)])]),
        "physdev-eth" => {
            let set = ValueSet::Interface { name: "eth".into(), prefix: true };
            clauses(vec![vec![Test { field: Field::PhysIn, negated: false, set }]])
        }
        "port-of-interface" => clauses(vec![ports(&[Field::InInterface], &[(1, 1)])]),
        "never" => clauses(vec![ports(&[Field::Mark], &[])]),
        "not-mark1" => {
            let mut clause = masked(Field::Mark, 1, 1);
            clause[0].negated = true;
            clauses(vec![clause])
        }
        other => panic!("no meaning for the match {other}"),
    }
}

fn ports(fields: &[Field], ranges: &[(u128, u128)]) -> Clause {
    let set = ValueSet::Ranges(ranges.to_vec());
    fields.iter().map(|&field| Test { field, negated: false, set: set.clone() }).collect()
}

fn masked(field: Field, value: u128, mask: u128) -> Clause {
    vec![Test { field, negated: false, set: ValueSet::Masked { value, mask } }]
}

/// What a target of these tests means.
fn target_meaning(extension: &Extension, _: Family) -> TargetMeaning {
    TargetMeaning::Continue(match extension.name() {
        "ACCEPT" => return TargetMeaning::Verdict("ACCEPT"),
        "DROP" => return TargetMeaning::Verdict("DROP"),
        "REJECT" => return TargetMeaning::Verdict("REJECT"),
        "RETURN" => return TargetMeaning::Return,
        "LOG" => Effect::None,
        "MARK1" => Effect::Mark { clear: 1, flip: 1 },
        "FLIP1" => Effect::Mark { clear: 0, flip: 1 },
        "CONNMARK1" => Effect::ConnMark { clear: 1, flip: 1 },
        "SAVE" => Effect::SaveMark { ctmask: 0xff, nfmask: 0xff },
        "RESTORE" => Effect::RestoreMark { ctmask: 0xff, nfmask: 0xff },
        "NOTRACK" => Effect::Untrack,
        "TTL9" => Effect::TtlSet(9),
        "TTL+1" => Effect::TtlAdd(1),
        "TTL-1" => Effect::TtlSub(1),
        "TOS8" => Effect::Tos { clear: 0xff, flip: 8 },
        other => panic!("no meaning for the target {other}"),
    })
}
