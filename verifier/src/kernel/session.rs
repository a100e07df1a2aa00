//! A ruleset loaded into a kernel of its own, and what it does with one packet.
//!
//! The rules go in unchanged, by the kernel's tools. Before them, in every built-in chain, stands one rule more
//! that tests nothing and does nothing: its line says that the chain was entered, and holds the packet as it was
//! then. So the lines of a chain are known apart from the chains around it, a drop without a line shows, and
//! the oracle can be asked about exactly the packet that the kernel saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use hipac_rules::{Family, Hook, Ruleset, TableKind, Value};

use super::KernelError;
use super::conntrack::Connections;
use super::host::{self, Host, LOOPBACK};
use super::observe::{Line, Observer, Seen};
use super::probe::{Looks, Probe};

/// Marks that packets can be given.
pub(super) const MARKS_MAX: usize = 16;
/// The identification of the packets that get the first mark.
const MARK_ID: u16 = 0x4d00;

/// A kernel with the rules in it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) host: Host,
    pub(super) connections: Connections,
    observer: Observer,
    /// The rules of ours that begin each built-in chain.
    ours: BTreeMap<(TableKind, Hook), Vec<Ours>>,
    marks: Vec<u32>,
}

/// A rule of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ours {
    /// Prepares the packet: its line says nothing.
    Prepare,
    /// Asks something.
    Ask(Probe),
    /// The last: its line says that the chain was entered.
    Enter,
}

/// A packet's way through one built-in chain.
#[derive(Debug, Clone)]
pub(super) struct Traversal {
    pub(super) table: TableKind,
    pub(super) hook: Hook,
    /// The packet when it came in.
    pub(super) entry: Seen,
    /// What the kernel said yes to then.
    pub(super) probed: Vec<Probe>,
    /// Numbered as in the ruleset.
    pub(super) lines: Vec<Line>,
}

impl Session {
    /// Loads `text`, whose rules are `ruleset`, into a new namespace that the calling thread enters.
    pub(super) fn open(
        text: &[u8],
        ruleset: &Ruleset,
        looks: Looks,
        marks: Vec<u32>,
    ) -> Result<Session, KernelError> {
        let family = ruleset.family;
        let names: Vec<String> = interfaces(ruleset).into_iter().collect();
        let host = Host::enter(family, &names)?;
        let restore = match family {
            Family::V4 => "iptables-legacy-restore",
            Family::V6 => "ip6tables-legacy-restore",
        };
        let sets = sets(ruleset);
        if !sets.is_empty() {
            host::run_tool("ipset", &["restore"], create_sets(&sets, family).as_bytes())?;
        }
        host::run_tool(restore, &[], text)?;
        let (ours, script) = first_rules(ruleset, looks, &marks);
        host::run_tool(restore, &["--noflush"], script.as_bytes())?;
        let failed = |what: &'static str| move |error| KernelError::Setup { what, error };
        Ok(Session {
            host,
            observer: Observer::new().map_err(failed("bind the kernel's log"))?,
            connections: Connections::new(family == Family::V6).map_err(failed("open a netlink socket"))?,
            ours,
            marks,
        })
    }

    /// The identification that gives a packet this mark, when some does.
    pub(super) fn id_for_mark(&self, mark: u32) -> Option<u16> {
        let place = self.marks.iter().position(|&m| m == mark)?;
        Some(MARK_ID + place as u16)
    }

    /// Brings a frame in by a device, and says which built-in chains it went through.
    pub(super) fn send(&mut self, device: usize, frame: &[u8]) -> Result<Vec<Traversal>, KernelError> {
        let failed = |what: &'static str| move |error| KernelError::Setup { what, error };
        if let Some(device) = self.host.devices.get(device) {
            match device.inject(frame) {
                // What the device itself refuses is dropped before everything else.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
                other => other.map_err(failed("write a packet"))?,
            }
        }
        let lines = self.observer.lines().map_err(failed("read the kernel's log"))?;
        Ok(self.traversals(lines))
    }

    fn traversals(&self, lines: Vec<Line>) -> Vec<Traversal> {
        let mut traversals: Vec<Traversal> = Vec::new();
        let mut probed = Vec::new();
        for mut line in lines {
            let place = (line.table, line.hook);
            if line.chain == line.hook.name() {
                let ours = self.ours.get(&place).map_or(&[][..], Vec::as_slice);
                match ours.get(line.number.wrapping_sub(1)) {
                    Some(Ours::Prepare) => continue,
                    Some(Ours::Ask(probe)) => {
                        probed.push(*probe);
                        continue;
                    }
                    Some(Ours::Enter) => {
                        traversals.push(Traversal {
                            table: line.table,
                            hook: line.hook,
                            entry: line.seen,
                            probed: std::mem::take(&mut probed),
                            lines: Vec::new(),
                        });
                        continue;
                    }
                    None => line.number = line.number.saturating_sub(ours.len()),
                }
            }
            // A copy of a packet (TEE) can be on its way within another's.
            if let Some(of) = traversals.iter_mut().rev().find(|t| (t.table, t.hook) == place) {
                of.lines.push(line);
            }
        }
        traversals
    }
}

/// Tables that are there: those of the rules, and two to see by where a packet got to.
pub(super) fn tables(ruleset: &Ruleset) -> BTreeSet<TableKind> {
    ruleset.tables.iter().map(|t| t.kind).chain([TableKind::Raw, TableKind::Mangle]).collect()
}

/// The rules of ours that each built-in chain begins with, and the text that adds them.
fn first_rules(
    ruleset: &Ruleset,
    looks: Looks,
    marks: &[u32],
) -> (BTreeMap<(TableKind, Hook), Vec<Ours>>, String) {
    let mut ours = BTreeMap::new();
    let mut script = String::new();
    for table in tables(ruleset) {
        let _ = writeln!(script, "*{}", table.name());
        for &hook in table.hooks() {
            let chain = hook.name();
            let mut rules = Vec::new();
            match (table, hook) {
                (TableKind::Raw, Hook::Prerouting) => {
                    rules.push((Ours::Prepare, format!("! -i {LOOPBACK} -j TRACE")));
                }
                (TableKind::Mangle, Hook::Prerouting) => rules.extend(
                    marks
                        .iter()
                        .enumerate()
                        .map(|(i, mark)| (Ours::Prepare, mark_rule(ruleset.family, i, *mark))),
                ),
                _ => {}
            }
            rules.extend(looks.probes().into_iter().map(|probe| (Ours::Ask(probe), probe.rule())));
            rules.push((Ours::Enter, String::new()));
            for (i, (_, rule)) in rules.iter().enumerate() {
                let _ = writeln!(script, "-I {chain} {} {rule}", i + 1);
            }
            ours.insert((table, hook), rules.into_iter().map(|(kind, _)| kind).collect());
        }
        script.push_str("COMMIT\n");
    }
    (ours, script)
}

/// The rule that gives its mark to packets of the identification or flow label for it.
fn mark_rule(family: Family, place: usize, mark: u32) -> String {
    let id = usize::from(MARK_ID) + place;
    match family {
        Family::V4 => format!("-m u32 --u32 2&0xffff={id:#x} -j MARK --set-mark {mark:#x}"),
        Family::V6 => format!("-m u32 --u32 0&0xfffff={id:#x} -j MARK --set-mark {mark:#x}"),
    }
}

/// Names of interfaces that rules test, with a member for each prefix.
pub(super) fn interfaces(ruleset: &Ruleset) -> BTreeSet<String> {
    let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    rules
        .flat_map(|rule| [&rule.ip.in_interface, &rule.ip.out_interface])
        .filter_map(|test| {
            let name = test.name.as_deref()?;
            Some(if test.prefix { format!("{name}0") } else { name.to_owned() })
        })
        .collect()
}

/// The sets that rules name, with how many fields they are asked about.
fn sets(ruleset: &Ruleset) -> BTreeMap<String, usize> {
    let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    let extensions = rules.flat_map(|rule| {
        rule.matches.iter().chain(match &rule.target {
            hipac_rules::Target::Extension(target) => Some(target),
            _ => None,
        })
    });
    let mut sets = BTreeMap::new();
    for setting in extensions.flat_map(|extension| &extension.settings) {
        if !matches!(setting.option.name, "match-set" | "add-set" | "del-set" | "map-set") {
            continue;
        }
        if let Value::Pair(pair) = &setting.value {
            let fields = pair.1.split(',').count();
            let known = sets.entry(pair.0.to_string()).or_insert(fields);
            *known = fields.max(*known);
        }
    }
    sets
}

/// Makes the sets, empty: what they hold is not part of the text.
fn create_sets(sets: &BTreeMap<String, usize>, family: Family) -> String {
    let family = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let mut script = String::new();
    for (name, fields) in sets {
        let kind = ["hash:net", "hash:ip,port", "hash:ip,port,ip"][fields.saturating_sub(1).min(2)];
        let _ = writeln!(script, "create {name} {kind} family {family}");
    }
    script
}
