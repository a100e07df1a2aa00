//! Packets drawn, sent, and held against the oracle, one after the other.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use hipac_classifier::{CtState, L4, Packet};
use hipac_rules::{Extension, Hook, Rule, Ruleset, TableKind, Target};

use super::cause::{self, Cause};
use super::host::{DEVICES_MAX, ETHERNET, Route, is_device_name};
use super::judge::{self, Sent, goes_on, judge};
use super::probe::Looks;
use super::report::{Difference, Report};
use super::session::{self, MARKS_MAX, Session, Traversal};
use super::{KernelError, Options, craft};
use crate::draw::Random;
use crate::subject::Subject;
use crate::{Case, Drawer, Event, Oracle, RuleId};

/// Connections made before they are forgotten.
const CONNECTIONS_MAX: usize = 256;
/// Where rules are many, the lines themselves are compared for one packet in so many; elsewhere always.
const FULL_EVERY: u64 = 16;
/// So many rules are many.
const RULES_MANY: usize = 500;

pub(super) fn check(
    text: &[u8],
    oracle: &Oracle<'_>,
    subject: Option<&dyn Subject>,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Report, KernelError> {
    let ruleset = oracle.ruleset();
    let drawer = Drawer::new(oracle, options.seed);
    let looks = Looks::of(oracle);
    let session = Session::open(text, ruleset, looks, marks(&drawer))?;
    let mut run = Run {
        oracle,
        subject,
        options,
        session,
        random: Random::new(options.seed, u64::MAX),
        tables: session::tables(ruleset),
        tracks: looks.at_connections,
        reads_options: tables_with(ruleset, |extension| {
            matches!(extension.name(), "tcpmss" | "TCPMSS" | "TCPOPTSTRIP")
                || extension.settings.iter().any(|s| s.option.name == "tcp-option")
        }),
        counts_connections: tables_with(ruleset, |extension| extension.name() == "connlimit"),
        matched: HashSet::new(),
        places: HashSet::new(),
        report: Report {
            packets_all: options.packets,
            rules: ruleset.rule_count(),
            not_driven: not_driven(ruleset),
            ..Report::default()
        },
    };
    let begin = Instant::now();
    'blocks: for number in 0.. {
        let cases = drawer.block(number);
        for case in &cases {
            if run.report.packets >= options.packets || begin.elapsed() > options.time_max {
                break 'blocks;
            }
            run.case(case)?;
        }
        progress(run.report.packets);
        if cases.is_empty() {
            break;
        }
    }
    run.report.time = begin.elapsed();
    run.report.rules_matched = run.matched.len();
    Ok(run.report)
}

/// Marks that drawn packets have: those that can be driven.
fn marks(drawer: &Drawer<'_>) -> Vec<u32> {
    let mut marks = BTreeSet::new();
    for block in 0..8 {
        marks.extend(drawer.block(block).iter().map(|c| c.packet.mark).filter(|&m| m != 0));
    }
    // Small ones are those that rules set and test; uniform ones are rather large.
    marks.into_iter().take(MARKS_MAX).collect()
}

/// What no packet from outside can be made to have.
fn not_driven(ruleset: &Ruleset) -> Vec<String> {
    let mut words = Vec::new();
    let names = session::interfaces(ruleset);
    let refused: Vec<&str> = names.iter().map(String::as_str).filter(|n| !is_device_name(n)).collect();
    if !refused.is_empty() {
        words.push(format!("interfaces that no device can be named: {}", refused.join(", ")));
    }
    if names.len() > DEVICES_MAX {
        words.push(format!("{} interfaces beyond {DEVICES_MAX}", names.len() - DEVICES_MAX));
    }
    let output: usize = ruleset
        .tables
        .iter()
        .flat_map(|t| &t.chains)
        .filter(|c| c.hook == Some(Hook::Output))
        .map(|c| c.rules.len())
        .sum();
    if output > 0 {
        words.push(format!("{output} rules of OUTPUT chains: nothing is sent from this host"));
    }
    words
}

/// Tables of which some rule has such a match or target.
fn tables_with(ruleset: &Ruleset, has: impl Fn(&Extension) -> bool) -> BTreeSet<TableKind> {
    let rule_has = |rule: &Rule| {
        rule.matches.iter().any(&has) || matches!(&rule.target, Target::Extension(target) if has(target))
    };
    let tables = ruleset.tables.iter();
    tables.filter(|t| t.chains.iter().flat_map(|c| &c.rules).any(rule_has)).map(|t| t.kind).collect()
}

struct Run<'a> {
    oracle: &'a Oracle<'a>,
    subject: Option<&'a dyn Subject>,
    options: &'a Options,
    session: Session,
    random: Random,
    tables: BTreeSet<TableKind>,
    /// Connection tracking is on.
    tracks: bool,
    /// Tables with rules that look into TCP options.
    reads_options: BTreeSet<TableKind>,
    /// Tables with rules that count connections.
    counts_connections: BTreeSet<TableKind>,
    matched: HashSet<RuleId>,
    places: HashSet<(TableKind, Hook, Option<String>, Option<String>)>,
    report: Report,
}

impl Run<'_> {
    fn case(&mut self, case: &Case) -> Result<(), KernelError> {
        let packet = self.possible(case.packet);
        let (device, sent) = self.link(&packet);
        let packet = Packet { packet_type: sent.packet_type, mac: sent.mac, ..packet };
        let id = self.session.id_for_mark(packet.mark).unwrap_or_else(|| self.random.below(0x4000) as u16);
        let bytes = craft::craft(&packet, id, &mut self.random);
        self.prepare(case.hook, &packet)?;
        let frame = match sent.mac {
            None => bytes.clone(),
            Some(source) => {
                [&destination(sent.packet_type)[..], &source, ether_type(packet.is_v6), &bytes].concat()
            }
        };
        let traversals = self.session.send(device, &frame)?;
        self.report.packets += 1;
        self.way(&packet, &bytes, &sent, &traversals);
        Ok(())
    }

    /// The packet, with what no packet can be made so far as to say something replaced.
    fn possible(&mut self, mut packet: Packet) -> Packet {
        let random = &mut self.random;
        let is_v6 = packet.is_v6;
        let some_address = |random: &mut Random, net: u8| match is_v6 {
            false => u128::from(u32::from_be_bytes([198, 51, 100, net + random.below(16) as u8])),
            true => 0x2001_0db8 << 96 | u128::from(net) << 64 | random.below(1 << 16) as u128,
        };
        // The default of fields that no rule tests: unspecified addresses, protocol 0.
        if packet.source == 0 && random.percent(95) {
            packet.source = some_address(random, 16);
        }
        if packet.destination == 0 && random.percent(95) {
            packet.destination = some_address(random, 64);
        }
        if packet.protocol == 0 && random.percent(90) {
            let icmp = if is_v6 { 58 } else { 1 };
            packet.protocol = *random.pick(&[6, 6, 17, 17, icmp, 47, 132]).unwrap_or(&6);
        }
        if is_v6 && matches!(packet.protocol, 0 | 43 | 44 | 51 | 60) && random.percent(80) {
            packet.protocol = 59;
        }
        if packet.ttl <= 1 && random.percent(70) {
            packet.ttl = 64;
        }
        // Connection tracking keeps them all.
        if self.tracks && matches!(packet.l4, L4::Fragment | L4::FragmentAt8) && random.percent(90) {
            packet.l4 = L4::Whole;
        }
        packet
    }

    /// The device that it comes in by, and how its frame is addressed.
    fn link(&mut self, packet: &Packet) -> (usize, Sent) {
        let host = &self.session.host;
        let named = host.device_named(packet.in_interface.as_bytes());
        let device = named.unwrap_or_else(|| match self.random.percent(50) {
            true => 0,
            false => self.random.below(host.devices.len()),
        });
        if !host.devices.get(device).is_some_and(|d| d.has_ethernet) {
            return (device, Sent { mac: None, packet_type: 0 });
        }
        let mac = packet.mac.unwrap_or([2, 0, 0, 0, 0, self.random.below(256) as u8]);
        // Most frames are for this host: others do not get far.
        let packet_type = if self.random.percent(60) { 0 } else { packet.packet_type.min(cause::OTHER_HOST) };
        (device, Sent { mac: Some(mac), packet_type })
    }

    /// The route and the connection that the packet shall meet.
    fn prepare(&mut self, hook: Hook, packet: &Packet) -> Result<(), KernelError> {
        let to_host = match hook {
            Hook::Input => true,
            Hook::Forward | Hook::Postrouting => false,
            Hook::Prerouting | Hook::Output => self.random.percent(50),
        };
        let host = &self.session.host;
        let out = host
            .device_named(packet.out_interface.as_bytes())
            .unwrap_or_else(|| self.random.below(host.devices.len()));
        self.session.host.route(if to_host { Route::Local } else { Route::Out(out) })?;
        if self.tracks {
            let connections = &mut self.session.connections;
            if connections.made >= CONNECTIONS_MAX
                || self.report.packets.is_multiple_of(CONNECTIONS_MAX as u64)
            {
                // That there are none to forget is no fault.
                let _ = connections.forget();
            }
            // What tracking does not take (an odd protocol, a broken address) is sent without.
            match packet.ct_state {
                CtState::Established => drop(connections.make(packet, false)),
                // Address translation takes related ICMP for errors about another connection.
                CtState::Related if !matches!(packet.protocol, 1 | 58) => {
                    drop(connections.make(packet, true))
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Compares each chain on the packet's way, then asks why the way ended.
    fn way(&mut self, sent_packet: &Packet, bytes: &[u8], sent: &Sent, traversals: &[Traversal]) {
        if traversals.is_empty() {
            match cause::before_all(sent_packet, bytes) {
                Some(cause) => self.count(cause),
                None => {
                    self.vanished((TableKind::Raw, Hook::Prerouting), "reached no chain", *sent_packet, bytes)
                }
            }
            return;
        }
        let mut before: Option<(&Traversal, Packet)> = None;
        let mut is_translated = false;
        for (i, traversal) in traversals.iter().enumerate() {
            let place = (traversal.table, traversal.hook);
            let seen = &traversal.entry;
            let packet = match judge::packet_of(traversal, &self.session.host, sent) {
                Ok(packet) => packet,
                Err(_) => {
                    self.report.packets_unread += 1;
                    return;
                }
            };
            if let Some((of, after)) = before.take()
                && of.hook == traversal.hook
                // Marks of packets are given by rules of ours before mangle's.
                && (after.mark != packet.mark && place != (TableKind::Mangle, Hook::Prerouting)
                    || (after.tos, after.ttl) != (packet.tos, packet.ttl))
            {
                let what = "the next chain sees another mark, TTL or type of service".to_owned();
                let words = |p: &Packet| vec![format!("mark {:#x} ttl {} tos {:#x}", p.mark, p.ttl, p.tos)];
                self.differs(place, what, packet, &seen.bytes, words(&packet), words(&after));
            }
            let in_full = self.report.rules <= RULES_MANY || self.report.packets.is_multiple_of(FULL_EVERY);
            let judged = judge(self.oracle, self.subject, traversal, packet, in_full);
            let is_of_rules = self.oracle.ruleset().table(traversal.table).is_some();
            if is_of_rules {
                let chain = self.report.chains.entry(place).or_default();
                chain.packets += 1;
                chain.hang += u64::from(judged.hangs);
            }
            self.matched.extend(judged.evaluation.events.iter().filter_map(|event| match event {
                Event::Matched(rule) => Some(*rule),
                Event::Residual { .. } => None,
            }));
            if judged.difference.is_some()
                && judged.kernel_dropped
                && let Some(cause) = self.at_match(traversal, &judged.packet)
            {
                return self.count(cause);
            }
            if let Some(difference) = judged.difference {
                let what = "rules matched differ".to_owned();
                self.differs(place, what, judged.packet, &seen.bytes, difference.kernel, difference.ours);
                return;
            }
            is_translated |= packet.ct_snat || packet.ct_dnat;
            is_translated |= place.0 == TableKind::Nat && judged.evaluation.verdict.name != "ACCEPT";
            let is_last = i + 1 == traversals.len();
            match (goes_on(&judged.evaluation), is_last) {
                (true, true) => self.ended(traversal, &judged.after, &seen.bytes, is_translated),
                (false, false) if !continues_elsewhere(&judged.evaluation.verdict.name) => {
                    let what = "a packet that ended goes on".to_owned();
                    let next = &traversals[i + 1];
                    let kernel = vec![format!("{}/{}", next.table.name(), next.hook.name())];
                    let ours = vec![judged.evaluation.verdict.show(self.oracle.ruleset()).to_string()];
                    self.differs(place, what, judged.packet, &seen.bytes, kernel, ours);
                    return;
                }
                _ => {}
            }
            before = Some((traversal, judged.after));
        }
    }

    /// Why the kernel drops a packet without a line, where a match or target of the table does so for what no
    /// field of ours says.
    fn at_match(&self, of: &Traversal, packet: &Packet) -> Option<Cause> {
        let has = |tables: &BTreeSet<TableKind>| tables.contains(&of.table);
        let options = has(&self.reads_options).then(|| cause::at_options(packet, &of.entry.bytes)).flatten();
        options.or_else(|| has(&self.counts_connections).then(|| cause::at_connlimit(packet)).flatten())
    }

    /// The last chain let the packet pass: it was delivered, sent, or the stack took it.
    fn ended(&mut self, last: &Traversal, packet: &Packet, bytes: &[u8], is_translated: bool) {
        let place = (last.table, last.hook);
        // Tables of this hook that come after, but nat, which sees first packets only.
        let next = tables_at(last.hook)
            .into_iter()
            .skip_while(|&t| t != last.table)
            .skip(1)
            .find(|t| *t != TableKind::Nat && self.tables.contains(t));
        if let Some(next) = next {
            // Connection tracking stands between these two, with the reassembly of fragments before both.
            if last.table == TableKind::Raw
                && let Some(cause) = cause::at_tracking(packet)
            {
                return self.count(cause);
            }
            if is_translated && last.table == TableKind::Nat {
                return self.count(Cause::Translation);
            }
            let what = format!("passed, and did not reach {}/{}", next.name(), last.hook.name());
            return self.vanished(place, &what, *packet, bytes);
        }
        let host = &self.session.host;
        let to_host = host.is_all_local() || packet.destination_type == judge::LOCAL;
        match (last.hook, cause::behind(last.hook, packet, bytes, is_translated, to_host)) {
            (Hook::Input | Hook::Output | Hook::Postrouting, _) => {}
            (_, Some(cause)) => self.count(cause),
            (_, None) => self.vanished(place, "passed, and reached no further hook", *packet, bytes),
        }
    }

    fn count(&mut self, cause: Cause) {
        *self.report.causes.entry(cause).or_insert(0) += 1;
    }

    fn vanished(&mut self, place: (TableKind, Hook), what: &str, packet: Packet, bytes: &[u8]) {
        self.differs(place, what.to_owned(), packet, bytes, Vec::new(), Vec::new());
    }

    fn differs(
        &mut self,
        (table, hook): (TableKind, Hook),
        what: String,
        packet: Packet,
        bytes: &[u8],
        kernel: Vec<String>,
        ours: Vec<String>,
    ) {
        self.report.differing += 1;
        self.report.chains.entry((table, hook)).or_default().differing += 1;
        let alike = kernel.iter().zip(&ours).take_while(|(a, b)| a == b).count();
        let key = (table, hook, kernel.get(alike).cloned(), ours.get(alike).cloned());
        if self.report.differences.len() < self.options.differences_max && self.places.insert(key) {
            let bytes = bytes.to_vec();
            self.report.differences.push(Difference { table, hook, what, packet, bytes, kernel, ours });
        }
    }
}

/// Verdicts after which a packet may come back, or a part of it goes on.
fn continues_elsewhere(verdict: &str) -> bool {
    matches!(verdict, "QUEUE" | "NFQUEUE")
}

/// The tables at a hook, in the order in which a packet meets them.
fn tables_at(hook: Hook) -> Vec<TableKind> {
    let mut tables: Vec<TableKind> =
        TableKind::ALL.into_iter().filter(|t| t.hooks().contains(&hook)).collect();
    if hook == Hook::Input {
        tables.sort_by_key(|&t| t == TableKind::Nat);
    }
    tables
}

fn ether_type(is_v6: bool) -> &'static [u8] {
    if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] }
}

/// The address that gives a frame its packet type.
fn destination(packet_type: u8) -> [u8; 6] {
    match packet_type {
        0 => ETHERNET,
        1 => [0xff; 6],
        2 => [1, 0, 0x5e, 0, 0, 1],
        _ => [2, 0, 0, 0, 0, 1],
    }
}
