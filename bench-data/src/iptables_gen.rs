//! Makes rulesets as the text that `iptables-save` would print.
//!
//! ```text
//!   raw ── mangle ── nat ── filter          a few, a few, a few, most of the rules
//!                              │
//!           INPUT   FORWARD   OUTPUT        built-in chains
//!             │ ╲   ╱  │         │
//!             │  zone  │        site        chains of level 1, called from above
//!             ╰─▶ │ ◀──╯         │
//!                svc ─────▶ …   …           levels 2 to 4
//! ```
//!
//! - The kernel's own tools take every text of any size and either family, and print it again
//!   the same but for the order of user chains and the line of the comment. (A test asks them.)
//! - A chain calls only chains of a higher level, so there are no loops; and only chains that
//!   know all its hooks, so a match or target that some hook forbids never gets there.
//! - Nearly every user chain is called, from one place or a few; a few are called from nowhere, as
//!   in real dumps.
//! - Addresses come from networks that the whole ruleset shares, so rules overlap.

mod rule;

use std::fmt::Write as _;

use hipac_rules::{Family, Hook, TableKind};

use crate::hostile::TooMany;
use crate::random::Draw;
use crate::text::LINES_MAX;
use rule::Author;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Of the addresses.
    pub family: Family,
    /// Rules of all tables, as many as this exactly.
    pub rules: u32,
    /// Decides all that is left to chance.
    pub seed: u64,
    /// Packet and byte counters before each rule, as `iptables-save -c` prints them.
    pub counters: bool,
}

impl Options {
    /// So many rules, without counters.
    pub fn new(family: Family, rules: u32, seed: u64) -> Options {
        Options { family, rules, seed, counters: false }
    }
}

/// The text of a ruleset.
///
/// # Errors
///
/// When more rules are asked for than a file of this crate may have lines.
///
/// # Cost
///
/// About a microsecond and 100 bytes of text a rule.
pub fn generate(options: &Options) -> Result<String, TooMany> {
    if options.rules > LINES_MAX {
        return Err(TooMany(options.rules));
    }
    let mut author = Author::new(options);
    let mut text = format!("# {} rules of hipac-bench-data, seed {}\n", options.rules, options.seed);
    let mut left = options.rules;
    for (kind, percent) in [(TableKind::Raw, 3), (TableKind::Mangle, 7), (TableKind::Nat, 8)] {
        let rules = options.rules * percent / 100;
        left -= rules;
        write_table(&mut text, &Table::new(kind, rules, &mut author), options.counters, &mut author.draw);
    }
    write_table(
        &mut text,
        &Table::new(TableKind::Filter, left, &mut author),
        options.counters,
        &mut author.draw,
    );
    Ok(text)
}

fn write_table(text: &mut String, table: &Table, counters: bool, draw: &mut Draw) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "*{}", table.kind.name());
    for chain in &table.chains {
        let policy = if chain.level > 0 {
            "-"
        } else if chain.name == "INPUT" && table.kind == TableKind::Filter {
            "DROP"
        } else {
            "ACCEPT"
        };
        let _ = writeln!(text, ":{} {policy} [0:0]", chain.name);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            if counters {
                let magnitude = draw.below(30);
                let packets = draw.below(1 << magnitude);
                let _ = write!(text, "[{packets}:{}] ", packets * draw.below(1500));
            }
            let _ = writeln!(text, "-A {}{rule}", chain.name);
        }
    }
    text.push_str("COMMIT\n");
}

/// A set of hooks, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hooks(u8);

impl Hooks {
    const fn of(hooks: &[Hook]) -> Hooks {
        let mut set = 0;
        let mut i = 0;
        while i < hooks.len() {
            set |= 1 << hooks[i] as u8;
            i += 1;
        }
        Hooks(set)
    }

    /// All of these hooks are among `others`.
    fn within(self, others: Hooks) -> bool {
        self.0 & !others.0 == 0
    }
}

/// Deepest level of user chains.
const LEVEL_MAX: u32 = 4;

/// Rules for each user chain, on average.
const RULES_PER_CHAIN: u32 = 12;

struct Chain {
    name: String,
    /// The hooks from which it may be reached.
    hooks: Hooks,
    /// 0: built-in.
    level: u32,
    /// Everything after `-A NAME`, with a blank before.
    rules: Vec<String>,
    /// Rules at the beginning that stay there.
    openings: usize,
}

struct Table {
    kind: TableKind,
    chains: Vec<Chain>,
}

impl Table {
    fn new(kind: TableKind, rules: u32, author: &mut Author) -> Table {
        let mut table = Table { kind, chains: Vec::new() };
        for &hook in kind.hooks() {
            let hooks = Hooks::of(&[hook]);
            table.chains.push(Chain {
                name: hook.name().into(),
                hooks,
                level: 0,
                rules: Vec::new(),
                openings: 0,
            });
        }
        let user_chains = rules / RULES_PER_CHAIN;
        for number in 0..user_chains {
            let hooks = *author.draw.pick(hook_groups(kind));
            let name = author.chain_name(number);
            let level = 1 + number * LEVEL_MAX / user_chains;
            table.chains.push(Chain { name, hooks, level, rules: Vec::new(), openings: 0 });
        }
        table.write_rules(rules, author);
        table
    }

    /// Writes `rules` rules: first those that a ruleset begins with, then calls, then all others,
    /// each at a random place of its chain behind the first ones.
    fn write_rules(&mut self, rules: u32, author: &mut Author) {
        let mut left = rules;
        let openings =
            if self.kind == TableKind::Filter && rules >= 20 { author.openings() } else { Vec::new() };
        for (chain, rule) in openings {
            self.chains[chain].rules.push(rule);
            self.chains[chain].openings += 1;
            left -= 1;
        }
        for callee in self.kind.hooks().len()..self.chains.len() {
            for _ in 0..author.call_count() {
                let caller = self.caller_of(callee, &mut author.draw);
                let call = author.call(self.kind, self.chains[caller].hooks, &self.chains[callee].name);
                self.insert(caller, call, &mut author.draw);
                left -= 1;
            }
        }
        for _ in 0..left {
            let chain = self.any_chain(&mut author.draw);
            let rule = author.rule(self.kind, self.chains[chain].hooks);
            self.insert(chain, rule, &mut author.draw);
        }
    }

    fn insert(&mut self, chain: usize, rule: String, draw: &mut Draw) {
        let Chain { rules, openings, .. } = &mut self.chains[chain];
        // Near the end: a long chain is not moved for each of its rules.
        let first = rules.len().saturating_sub(64).max(*openings);
        let place = first + draw.index(rules.len() - first + 1);
        rules.insert(place, rule);
    }

    /// A chain of a lower level whose hooks the callee knows. There always is one: the built-in
    /// chain of any of its hooks, unless the callee knows several.
    fn caller_of(&self, callee: usize, draw: &mut Draw) -> usize {
        let built_in = self.kind.hooks().len();
        let Chain { hooks, level, .. } = self.chains[callee];
        let fits =
            |&chain: &usize| self.chains[chain].level < level && self.chains[chain].hooks.within(hooks);
        // Mostly a user chain: they are in the order of their levels, so those before.
        if callee > built_in && draw.percent(70) {
            for _ in 0..8 {
                let chain = built_in + draw.index(callee - built_in);
                if fits(&chain) {
                    return chain;
                }
            }
        }
        let fitting: Vec<usize> = (0..built_in).filter(fits).collect();
        *draw.pick(&fitting)
    }

    /// A chain to get a rule: any, built-in ones as often as the first of the user's.
    fn any_chain(&self, draw: &mut Draw) -> usize {
        let chain = draw.index(self.chains.len());
        if draw.percent(10) { chain % self.kind.hooks().len() } else { chain }
    }
}

/// The sets of hooks that user chains of a table are made for.
fn hook_groups(kind: TableKind) -> &'static [Hooks] {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    const RAW: &[Hooks] = &[Hooks::of(&[Prerouting]), Hooks::of(&[Output])];
    const MANGLE: &[Hooks] = &[
        Hooks::of(&[Prerouting]),
        Hooks::of(&[Forward]),
        Hooks::of(&[Forward, Postrouting]),
        Hooks::of(&[Output]),
    ];
    const NAT: &[Hooks] =
        &[Hooks::of(&[Prerouting]), Hooks::of(&[Prerouting, Output]), Hooks::of(&[Postrouting])];
    const FILTER: &[Hooks] =
        &[Hooks::of(&[Input]), Hooks::of(&[Forward]), Hooks::of(&[Input, Forward]), Hooks::of(&[Output])];
    match kind {
        TableKind::Raw => RAW,
        TableKind::Mangle => MANGLE,
        TableKind::Nat => NAT,
        TableKind::Filter | TableKind::Security => FILTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::digest;

    #[test]
    fn the_same_seed_makes_the_same_bytes_for_ever() {
        let digest_of = |family, counters| {
            let text = generate(&Options { counters, ..Options::new(family, 2000, 1) }).unwrap();
            digest(text.as_bytes())
        };
        assert_eq!(digest_of(Family::V4, false), 789403728596180753);
        assert_eq!(digest_of(Family::V6, true), 1292838418803250526);
    }

    #[test]
    fn sizes_are_exact() {
        for family in [Family::V4, Family::V6] {
            for rules in [0, 1, 5, 19, 20, 21, 100, 999, 20_000] {
                let text = generate(&Options::new(family, rules, 7)).unwrap();
                assert_eq!(text.lines().filter(|l| l.starts_with("-A ")).count(), rules as usize);
            }
        }
        assert_eq!(generate(&Options::new(Family::V4, u32::MAX, 1)), Err(TooMany(u32::MAX)));
    }

    /// The features that make rulesets hard, each present in a text of ordinary size.
    #[test]
    fn every_feature_occurs() {
        let v4 = generate(&Options::new(Family::V4, 3000, 1)).unwrap();
        let v6 = generate(&Options::new(Family::V6, 3000, 1)).unwrap();
        for word in [
            " -g ",
            " -j RETURN",
            " ! -s ",
            " ! -i ",
            " ! -p ",
            " ! --dport ",
            " ! --tcp-flags ",
            "-m multiport --dports ",
            "--ctstate ",
            "-m state --state ",
            "-m mark ",
            "--set-xmark ",
            "-j LOG",
            "-m limit ",
            "--comment ",
            "-j REJECT",
            "-j DNAT",
            "-j SNAT",
            "-j MASQUERADE",
            "-j REDIRECT",
            "-j CT --notrack",
            "-j TCPMSS",
            "-j DSCP",
            "-j TOS",
            "-j CONNMARK",
            "-m mac ",
            "-m owner ",
            "-m iprange ",
            "-m length ",
            "-m addrtype ",
            "-m pkttype ",
            "-m dscp ",
            "-m recent ",
            "-m statistic ",
            "-j NFLOG",
            "-p sctp",
            "-p esp",
            "+ ",
        ] {
            assert!(v4.contains(word) && v6.contains(word), "{word}");
        }
        for word in [" -f ", " ! -f ", "-m icmp ", "-m ttl ", "-j TTL", "-j NETMAP"] {
            assert!(v4.contains(word), "{word}");
        }
        for word in ["-m icmp6 ", "-m hl ", "-j HL"] {
            assert!(v6.contains(word), "{word}");
        }
    }

    #[test]
    fn chains_are_called_from_lower_levels_only() {
        let mut author = Author::new(&Options::new(Family::V4, 0, 3));
        let table = Table::new(TableKind::Filter, 2000, &mut author);
        let level = |name: &str| table.chains.iter().find(|c| c.name == name).map(|c| c.level);
        let mut calls = 0;
        for chain in &table.chains {
            for rule in &chain.rules {
                let target = rule.split([' ']).skip_while(|w| *w != "-j" && *w != "-g").nth(1);
                if let Some(callee) = target.and_then(level) {
                    assert!(callee > chain.level, "{}{rule}", chain.name);
                    calls += 1;
                }
            }
        }
        assert!(calls > 150, "{calls}");
    }
}
