//! A rule written from what an image stores for it.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use hipac_classifier::program::{Change, ResidualKind};
use hipac_classifier::{CtState, Dim};
use hipac_rules::registry::{self, Kind};
use hipac_rules::{
    Counters, Extension, ExtensionRef, Family, InterfaceTest, IpPart, ParseOptions, Rule, TableKind, Target,
    parse,
};

use super::align::{Pair, residuals};
use super::stored::StoredRule;
use super::{NOT_KEPT, Reader};
use crate::proof::condition::{Condition, Wants};
use crate::proof::program::{End, kind_of};
use crate::proof::ranges::Ranges;

/// Ways to write the tests of a transport header.
const VARIANTS: u8 = 3;
/// Gaps that are cut out of a range of addresses, one match each.
const GAPS_MAX: usize = 24;

/// What a rule of the image is taken for.
#[derive(Debug, Clone)]
pub(super) struct Guess {
    /// A rule of the other file.
    pub(super) taken: Option<usize>,
    /// It fits in all that it says: others are doubted first.
    pub(super) is_whole: bool,
    /// The rule that stands in its place there.
    pub(super) beside: Option<usize>,
    /// Without one: how it is written.
    pub(super) variant: u8,
}

impl Guess {
    pub(super) fn new(pair: Pair) -> Guess {
        // A rule that stands there is tried although it does not seem to fit.
        Guess { taken: pair.taken.or(pair.beside), is_whole: pair.is_whole, beside: pair.beside, variant: 0 }
    }

    /// Guesses anew; false when there is no other guess.
    pub(super) fn again(&mut self) -> bool {
        if self.taken.is_some() {
            self.beside = self.taken.take();
            self.is_whole = false;
            return true;
        }
        self.variant += 1;
        self.variant < VARIANTS
    }
}

type Why = &'static str;

/// Writes a rule. `beside`: a rule of the other file that may say what an image does not keep.
pub(super) fn rule<B: AsRef<[u8]>>(
    reader: &Reader<'_, B>,
    stored: &StoredRule,
    beside: Option<&Rule>,
    variant: u8,
) -> Result<Rule, Why> {
    let Some(shape) = stored.shape.as_ref().filter(|_| !stored.sets.is_empty()) else {
        return Ok(never(stored.line, stored.shape.is_some().then_some(()).and(reader.jumps_to(stored))));
    };
    let mut words = Words { family: reader.family, ip: String::new(), matches: vec![] };
    words.write(reader, stored, variant)?;
    words.checks(&shape.program.first.condition)?;
    let mut rule = words.rule("")?;
    // Residual matches stand at their numbers: what stands before them is moved there, or filled up.
    let asked = residuals(&shape.program);
    if !asked.is_empty() {
        let mut own = std::mem::take(&mut rule.matches).into_iter();
        for &(number, kind) in &asked {
            while rule.matches.len() < usize::from(number) {
                let next = own.next();
                rule.matches.push(next.map_or_else(filler, Ok)?);
            }
            let is_it = |e: &&Extension| e.match_meaning(reader.family).residual.map(kind_of) == Some(kind);
            let extension = beside.and_then(|rule| rule.matches.get(usize::from(number))).filter(is_it);
            rule.matches.push(match extension {
                Some(extension) => reader.own(extension, stored.line, number)?,
                None => reader.stand_in(kind, stored.line, number)?,
            });
        }
        rule.matches.extend(own);
    }
    rule.line = stored.line;
    rule.target = target(reader, stored, beside)?;
    Ok(rule)
}

impl<B: AsRef<[u8]>> Reader<'_, B> {
    /// A match that stands for one of which an image keeps no more than that it is asked. No two are the same,
    /// and none is a match of a file, so nothing is taken to be equal that hangs on one.
    pub(super) fn stand_in(&self, kind: ResidualKind, line: u32, number: u8) -> Result<Extension, Why> {
        let name = format!("{NOT_KEPT}-{}-{line}-{number}", self.tag);
        let text = match kind {
            ResidualKind::Pure => format!("-m string --algo bm --string {name}"),
            ResidualKind::Stateful => format!("-m recent --rcheck --name {name}"),
            ResidualKind::Unknown => format!("-m {name}"),
        };
        let options = ParseOptions { family: Some(self.family), ..ParseOptions::default() };
        // Of an extension that nobody knows it is said that nobody does.
        let parsed = parse(format!("*filter\n:back -\n-A back {text}\nCOMMIT\n").as_bytes(), &options);
        let rule = parsed.ruleset.tables.into_iter().flat_map(|t| t.chains).find_map(|mut c| c.rules.pop());
        let found = rule.and_then(|mut rule| rule.matches.pop());
        let found = found.filter(|e| e.match_meaning(self.family).residual.map(kind_of) == Some(kind));
        found.ok_or("it asks a match of which an image keeps no more than that")
    }

    /// A match as this image has it: what stands for one of another image does not stand for one of this.
    pub(super) fn own(&self, extension: &Extension, line: u32, number: u8) -> Result<Extension, Why> {
        match extension.match_meaning(self.family).residual {
            Some(kind) if is_stand_in(extension) => self.stand_in(kind_of(kind), line, number),
            _ => Ok(extension.clone()),
        }
    }
}

/// The match stands for one that an image does not keep.
pub(super) fn is_stand_in(extension: &Extension) -> bool {
    format!("{extension:?}").contains(NOT_KEPT)
}

/// A rule that no packet matches.
fn never(line: u32, target: Option<Target>) -> Rule {
    let nothing = InterfaceTest { name: Some("".into()), prefix: true, negated: true };
    let ip = IpPart { in_interface: nothing, ..IpPart::default() };
    let target = target.unwrap_or(Target::None);
    Rule { counters: Counters::default(), ip, matches: vec![], target, line }
}

/// A match that says nothing.
fn filler() -> Result<Extension, Why> {
    let words =
        Words { family: Family::V4, ip: String::new(), matches: vec!["-m comment --comment -".into()] };
    words.rule("")?.matches.pop().ok_or("it has a match more than can be written")
}

fn target<B: AsRef<[u8]>>(
    reader: &Reader<'_, B>,
    stored: &StoredRule,
    beside: Option<&Rule>,
) -> Result<Target, Why> {
    let shape = stored.shape.as_ref().ok_or("it does nothing")?;
    if let Some(jump) = reader.jumps_to(stored) {
        return Ok(jump);
    }
    let text = match (shape.program.end, shape.program.effect) {
        (End::Verdict(id), None) => {
            let name = reader.image.verdict_name(id);
            let same = beside.filter(|rule| matches!(&rule.target, Target::Extension(e) if e.name() == name));
            match same {
                Some(rule) => return Ok(rule.target.clone()),
                None => format!("-j {name}"),
            }
        }
        (End::Resume(to), None) if to == shape.position + 1 => return Ok(Target::None),
        (End::Resume(_), None) => "-j RETURN".to_owned(),
        (End::Resume(to), Some(change)) if to == shape.position + 1 => effect(reader.family, change),
        _ => return Err("it changes the packet in a way that only its text says"),
    };
    let words = Words { family: reader.family, ip: String::new(), matches: vec![] };
    match words.rule(&text) {
        Ok(rule) => Ok(rule.target),
        Err(why) => verdict(reader.family, text.strip_prefix("-j ").unwrap_or_default()).ok_or(why),
    }
}

/// The target that makes a change.
fn effect(family: Family, change: Change) -> String {
    let hop = if family == Family::V4 { ("TTL", "ttl") } else { ("HL", "hl") };
    match change {
        Change::Mark { clear, flip } => format!("-j MARK --set-xmark {flip:#x}/{clear:#x}"),
        Change::ConnMark { clear, flip } => format!("-j CONNMARK --set-xmark {flip:#x}/{clear:#x}"),
        Change::SaveMark { ctmask, nfmask } => {
            format!("-j CONNMARK --save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
        }
        Change::RestoreMark { ctmask, nfmask } => {
            format!("-j CONNMARK --restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
        }
        Change::Tos { clear, flip } => format!("-j TOS --set-tos {flip:#x}/{clear:#x}"),
        Change::TtlSet(by) => format!("-j {} --{}-set {by}", hop.0, hop.1),
        Change::TtlAdd(by) => format!("-j {} --{}-inc {by}", hop.0, hop.1),
        Change::TtlSub(by) => format!("-j {} --{}-dec {by}", hop.0, hop.1),
        Change::Untrack => "-j CT --notrack".to_owned(),
    }
}

/// A target by name alone: its options are not kept. (Those without which nobody could write it are missing.)
fn verdict(family: Family, name: &str) -> Option<Target> {
    let spec = registry::find(Kind::Target, name, family)?;
    Some(Target::Extension(Extension { spec: ExtensionRef::Known(spec), settings: vec![], words: vec![] }))
}

/// The tests of one rule as text.
struct Words {
    family: Family,
    ip: String,
    matches: Vec<String>,
}

impl Words {
    /// Reads the text as a rule, in a table that takes its target.
    fn rule(&self, target: &str) -> Result<Rule, Why> {
        let options = ParseOptions { family: Some(self.family), ..ParseOptions::default() };
        let matches = self.matches.join(" ");
        for table in [TableKind::Filter, TableKind::Mangle, TableKind::Nat, TableKind::Raw] {
            let name = table.name();
            let text = format!("*{name}\n:back - [0:0]\n-A back {} {matches} {target}\nCOMMIT\n", self.ip);
            let parsed = parse(&text, &options);
            if parsed.faults.is_empty()
                && let Some(chain) = parsed.ruleset.table(table).and_then(|t| t.chain("back"))
                && let [rule] = &chain.rules[..]
            {
                return Ok(rule.clone());
            }
        }
        Err("its tests cannot be written as one rule")
    }

    fn write<B: AsRef<[u8]>>(
        &mut self,
        reader: &Reader<'_, B>,
        stored: &StoredRule,
        variant: u8,
    ) -> Result<(), Why> {
        let set = |dim: Dim| {
            let axis = reader.space.axis_of(dim)?;
            let set = &stored.sets[axis];
            (!set.is_all(reader.space.axes[axis].max)).then_some((axis, set))
        };
        let bounds = |dims: [Dim; 4]| addresses(self.family, &dims.map(|dim| set(dim).map(|s| s.1)));
        let source = bounds([Dim::Source3, Dim::Source2, Dim::Source1, Dim::Source0])?;
        let destination =
            bounds([Dim::Destination3, Dim::Destination2, Dim::Destination1, Dim::Destination0])?;
        self.address(source, "-s", "src")?;
        self.address(destination, "-d", "dst")?;
        for (dim, flag) in [(Dim::InInterface, "-i"), (Dim::OutInterface, "-o")] {
            if let Some((axis, set)) = set(dim) {
                let text = interface(reader, axis, set).ok_or("its interfaces are no single name")?;
                let (negation, name) = text;
                let _ = write!(self.ip, "{negation}{flag} {name} ");
            }
        }
        let mut protocol = None;
        if let Some((axis, set)) = set(Dim::Protocol) {
            let raw = raw_set(reader, axis, set);
            match (raw.as_slice(), raw.not(255).as_slice()) {
                (&[(a, b)], _) if a == b => {
                    protocol = Some(a);
                    let _ = write!(self.ip, "-p {a} ");
                }
                (_, &[(a, b)]) if a == b => {
                    let _ = write!(self.ip, "! -p {a} ");
                }
                _ => return Err("its protocols are no single one"),
            }
        }
        let raw_ports = |dim: Dim| set(dim).map(|(axis, set)| raw_set(reader, axis, set));
        let ports = (raw_ports(Dim::SourcePort), raw_ports(Dim::DestinationPort));
        let flags = set(Dim::TcpFlags).map(|(axis, set)| raw_set(reader, axis, set));
        self.header(protocol, ports, flags, stored.is_malformed, variant)?;
        if let Some((axis, set)) = set(Dim::CtState) {
            let text = states(&raw_set(reader, axis, set)).ok_or("its connection states are no list")?;
            self.matches.push(text);
        }
        for (dim, name) in [(Dim::Mark, "mark"), (Dim::ConnMark, "connmark")] {
            if let Some((axis, set)) = set(dim) {
                let raw = raw_set(reader, axis, set);
                let text = match (raw.as_slice(), raw.not(u32::MAX).as_slice()) {
                    (&[one], _) => masked(one).map(|m| format!("-m {name} --mark {m}")),
                    (_, &[one]) => masked(one).map(|m| format!("-m {name} ! --mark {m}")),
                    _ => None,
                };
                self.matches.push(text.ok_or("its marks are no value and mask")?);
            }
        }
        if let Some((axis, set)) = set(Dim::Length) {
            let raw = raw_set(reader, axis, set);
            let text = match (raw.as_slice(), raw.not(0xffff).as_slice()) {
                (&[(a, b)], _) => format!("-m length --length {a}:{}", b.min(0xffff)),
                (_, &[(a, b)]) => format!("-m length ! --length {a}:{b}"),
                _ => return Err("its lengths are no range"),
            };
            self.matches.push(text);
        }
        if let Some((axis, set)) = set(Dim::Ttl) {
            let name = if self.family == Family::V4 { "ttl" } else { "hl" };
            let raw = raw_set(reader, axis, set);
            let text = match (raw.as_slice(), raw.not(255).as_slice()) {
                (&[(a, b)], _) if a == b => format!("--{name}-eq {a}"),
                (_, &[(a, b)]) if a == b => format!("! --{name}-eq {a}"),
                (&[(0, b)], _) if b < 255 => format!("--{name}-lt {}", b + 1),
                (&[(a, 255)], _) if a > 0 => format!("--{name}-gt {}", a - 1),
                _ => return Err("its values of TTL are no range"),
            };
            self.matches.push(format!("-m {name} {text}"));
        }
        if let Some((axis, set)) = set(Dim::Tos) {
            let raw = raw_set(reader, axis, set);
            let found = mask_of(&raw, 255).ok_or("its types of service are no value and mask")?;
            let (negation, mask, value) = found;
            self.matches.push(format!("-m tos {negation}--tos {value:#x}/{mask:#x}"));
        }
        for (dim, side) in [(Dim::SourceType, "src"), (Dim::DestinationType, "dst")] {
            if let Some((axis, set)) = set(dim) {
                let raw = raw_set(reader, axis, set);
                self.matches.push(format!("-m addrtype {}", types(&raw, side)));
            }
        }
        let written = [
            Dim::Ttl,
            Dim::Tos,
            Dim::SourceType,
            Dim::DestinationType,
            Dim::Source0,
            Dim::Source1,
            Dim::Source2,
            Dim::Source3,
            Dim::Destination0,
            Dim::Destination1,
            Dim::Destination2,
            Dim::Destination3,
            Dim::InInterface,
            Dim::OutInterface,
            Dim::Protocol,
            Dim::SourcePort,
            Dim::DestinationPort,
            Dim::TcpFlags,
            Dim::CtState,
            Dim::Mark,
            Dim::ConnMark,
            Dim::Length,
            Dim::L4,
        ];
        let is_other =
            |axis: &crate::proof::space::Axis| !written.contains(&axis.dim) && set(axis.dim).is_some();
        if reader.space.axes.iter().any(is_other) {
            return Err("it tests a field that is not read back");
        }
        Ok(())
    }

    /// What the program checks, since boxes do not say it.
    fn checks(&mut self, condition: &Condition) -> Result<(), Why> {
        for clause in condition.clauses() {
            let [all] = &clause[..] else { return Err("it checks what no box says") };
            let text = match &all[..] {
                [(dim @ (Dim::Mark | Dim::ConnMark), Wants::Masked { value, mask, negated })] => {
                    let name = if *dim == Dim::Mark { "mark" } else { "connmark" };
                    let negation = if *negated { "! " } else { "" };
                    format!("-m {name} {negation}--mark {value:#x}/{mask:#x}")
                }
                _ => return Err("it checks what no box says"),
            };
            self.matches.push(text);
        }
        if condition.sets().is_empty() { Ok(()) } else { Err("it checks what no box says") }
    }

    fn address(&mut self, ranges: Vec<(u128, u128)>, flag: &str, side: &str) -> Result<(), Why> {
        let max = self.family.full_mask();
        let show = |x: u128| match self.family {
            Family::V4 => Ipv4Addr::from(x as u32).to_string(), // at most `max`
            Family::V6 => Ipv6Addr::from(x).to_string(),
        };
        let prefix = |(lo, hi): (u128, u128)| {
            let size = (hi - lo).checked_add(1);
            let is_prefix = size.is_none_or(|s| s.is_power_of_two() && lo.is_multiple_of(s));
            let bits = self.family.address_bits() - (hi - lo).count_ones();
            is_prefix.then(|| format!("{}/{bits}", show(lo)))
        };
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for &(lo, hi) in &ranges {
            gaps.extend(next.filter(|&n| n < lo).map(|n| (n, lo - 1)));
            next = hi.checked_add(1).filter(|&n| n <= max);
        }
        gaps.extend(next.map(|n| (n, max)));
        let (mut ip, mut matches) = (String::new(), Vec::new());
        let range = |(lo, hi): (u128, u128)| format!("--{side}-range {}-{}", show(lo), show(hi));
        match (&ranges[..], &gaps[..]) {
            (_, []) => {}
            (&[one], _) => match prefix(one) {
                Some(text) => ip = format!("{flag} {text} "),
                None => matches.push(format!("-m iprange {}", range(one))),
            },
            (_, &[one]) if prefix(one).is_some() => {
                ip = format!("! {flag} {} ", prefix(one).unwrap_or_default());
            }
            (_, gaps) if gaps.len() <= GAPS_MAX => {
                matches.extend(gaps.iter().map(|&gap| format!("-m iprange ! {}", range(gap))));
            }
            _ => return Err("its addresses are too many ranges"),
        }
        self.ip += &ip;
        self.matches.extend(matches);
        Ok(())
    }

    /// Tests of ports, of ICMP's type, of TCP's flags.
    fn header(
        &mut self,
        protocol: Option<u32>,
        (source, destination): (Option<Ranges>, Option<Ranges>),
        flags: Option<Ranges>,
        is_malformed: bool,
        variant: u8,
    ) -> Result<(), Why> {
        const NAMES: [(u32, &str); 5] =
            [(6, "tcp"), (17, "udp"), (132, "sctp"), (33, "dccp"), (136, "udplite")];
        let name = NAMES.iter().find(|(number, _)| Some(*number) == protocol).map(|(_, name)| *name);
        let mut own = String::new();
        if let Some(flags) = flags {
            let (negation, mask, value) = mask_of(&flags, 63).ok_or("its TCP flags are no mask and value")?;
            let _ = write!(own, "{negation}--tcp-flags {} {} ", flag_names(mask), flag_names(value));
        }
        let icmp = (
            self.family == Family::V4 && protocol == Some(1),
            self.family == Family::V6 && protocol == Some(58),
        );
        if let Some(types) = destination.as_ref().filter(|_| icmp.0 || icmp.1) {
            let (match_, option) = if icmp.0 { ("icmp", "--icmp-type") } else { ("icmp6", "--icmpv6-type") };
            let (negation, types) = match types.as_slice() {
                [one] => ("", *one),
                _ => match types.not(0xffff).as_slice() {
                    [one] => ("! ", *one),
                    _ => return Err("its ICMP types are no single one"),
                },
            };
            let text = match types {
                (a, b) if a == b => format!("{}/{}", a >> 8, a & 255),
                (a, b) if b == a | 255 && a & 255 == 0 => format!("{}", a >> 8),
                _ => return Err("its ICMP types are no single one"),
            };
            self.matches.push(format!("-m {match_} {negation}{option} {text}"));
            return Ok(());
        }
        for (ports, side) in [(source, "s"), (destination, "d")] {
            let Some(ports) = ports else { continue };
            let list = |ports: &Ranges| {
                let one = |&(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}:{b}") };
                let count: usize = ports.as_slice().iter().map(|r| 1 + usize::from(r.0 != r.1)).sum();
                (count <= 15).then(|| ports.as_slice().iter().map(one).collect::<Vec<_>>().join(","))
            };
            let outside = ports.not(0xffff);
            let is_one = ports.as_slice().len() == 1;
            let (negation, listed) = match (list(&ports), list(&outside)) {
                (Some(listed), _) if is_one || outside.as_slice().len() != 1 => ("", listed),
                (_, Some(listed)) => ("! ", listed),
                (Some(listed), None) => ("", listed),
                _ => return Err("its ports are too many ranges"),
            };
            let is_single = is_one || outside.as_slice().len() == 1;
            if is_single && variant != 1 && name.is_some() {
                let _ = write!(own, "{negation}--{side}port {listed} ");
            } else {
                self.matches.push(format!("-m multiport {negation}--{side}ports {listed}"));
            }
        }
        // A match that only looks at the header.
        let looks = is_malformed && self.matches.iter().all(|m| !m.starts_with("-m multiport"));
        if (!own.is_empty() || looks || variant == 2)
            && let Some(name) = name
        {
            self.matches.insert(0, format!("-m {name} {own}"));
        } else if !own.is_empty() {
            return Err("it tests TCP flags of other protocols");
        }
        Ok(())
    }
}

/// The addresses that words say, the highest first; `None` for a word: all values.
fn addresses(family: Family, words: &[Option<&Ranges>; 4]) -> Result<Vec<(u128, u128)>, Why> {
    if family == Family::V4 {
        let all = (0, u128::from(u32::MAX));
        return Ok(words[3].map_or(vec![all], |set| {
            set.as_slice().iter().map(|&(lo, hi)| (lo.into(), hi.into())).collect()
        }));
    }
    let (mut lo, mut hi, mut is_open) = (0u128, 0u128, false);
    for word in words {
        let bounds = match word.map(|set| set.as_slice()) {
            None => (0, u32::MAX),
            Some(&[one]) if !is_open => one,
            _ => return Err("its addresses are no range"),
        };
        is_open |= bounds.0 != bounds.1;
        (lo, hi) = (lo << 32 | u128::from(bounds.0), hi << 32 | u128::from(bounds.1));
    }
    Ok(vec![(lo, hi)])
}

/// Raw values of an axis whose keys are in a set.
fn raw_set<B: AsRef<[u8]>>(reader: &Reader<'_, B>, axis: usize, set: &Ranges) -> Ranges {
    let axis = &reader.space.axes[axis];
    if axis.is_same() {
        return set.clone();
    }
    let keys = set.as_slice().iter().flat_map(|&(lo, hi)| lo..=hi.min(axis.max));
    Ranges::of(keys.flat_map(|key| reader.space.raw_values(axis, key)).map(|x| (x, x)))
}

/// A test of a name whose ranks are the set: negation and name.
fn interface<B: AsRef<[u8]>>(
    reader: &Reader<'_, B>,
    axis: usize,
    set: &Ranges,
) -> Option<(&'static str, String)> {
    let ranks = reader.image.key_maker().ranks();
    let axis = &reader.space.axes[axis];
    let raw = reader.space.raw();
    // Every bound is where the names of some test begin, or end.
    let named = (0..ranks.count()).filter_map(|i| {
        let bytes = ranks.bound(i).to_be_bytes();
        let len = bytes.iter().position(|&b| b == 0).unwrap_or(16);
        let name = std::str::from_utf8(&bytes[..len]).ok()?;
        bytes[len..].iter().all(|&b| b == 0).then(|| name.to_owned())
    });
    for name in named {
        for prefix in [false, true] {
            let cells = raw.names.cells(&name, prefix);
            for negated in [false, true] {
                let cells = if negated { cells.not(raw.max(axis.dim)) } else { cells.clone() };
                let (must, may) = reader.space.keys_of(axis, &cells);
                if must.is_within(set) && set.is_within(&may) {
                    let plus = if prefix { "+" } else { "" };
                    return Some((if negated { "! " } else { "" }, format!("{name}{plus}")));
                }
            }
        }
    }
    None
}

/// `-m conntrack --ctstate …` for these states.
fn states(raw: &Ranges) -> Option<String> {
    const NAMES: [(u32, &str); 5] =
        [(0, "INVALID"), (1, "NEW"), (2, "RELATED"), (3, "ESTABLISHED"), (4, "UNTRACKED")];
    let possible = |x: &u32| (*x & 7) < CtState::ALL.len() as u32;
    let wanted: Vec<bool> = (0..32).filter(possible).map(|x| raw.contains(x)).collect();
    for list in 1u32..128 {
        let holds = |x: u32| {
            list >> (x & 7) & 1 == 1 || list & 32 != 0 && x & 8 != 0 || list & 64 != 0 && x & 16 != 0
        };
        let said: Vec<bool> = (0..32).filter(possible).map(holds).collect();
        let negation = if said == wanted {
            ""
        } else if said.iter().zip(&wanted).all(|(a, b)| a != b) {
            "! "
        } else {
            continue;
        };
        let nat = [(5, "SNAT"), (6, "DNAT")];
        let names = NAMES.into_iter().chain(nat).filter(|(bit, _)| list >> bit & 1 == 1).map(|n| n.1);
        return Some(format!("-m conntrack {negation}--ctstate {}", names.collect::<Vec<_>>().join(",")));
    }
    None
}

/// `--src-type …` for these types.
fn types(raw: &Ranges, side: &str) -> String {
    const NAMES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    // What is beyond the names is in the set when it is a complement.
    let is_negated = raw.contains(255);
    let is_named = |(x, _): &(u32, &&str)| raw.contains(*x) != is_negated;
    let names: Vec<&str> = (0..).zip(&NAMES).filter(is_named).map(|t| *t.1).collect();
    format!("{}--{side}-type {}", if is_negated { "! " } else { "" }, names.join(","))
}

/// Negation, mask and value that hold for exactly these bytes.
fn mask_of(raw: &Ranges, mask_max: u32) -> Option<(&'static str, u32, u32)> {
    let wanted: Vec<bool> = (0..256).map(|x| raw.contains(x)).collect();
    for mask in 1..=mask_max {
        // A value that the test holds for, or for which its negation does.
        for value in [raw.as_slice().first()?.0, raw.not(255).as_slice().first()?.0].map(|x| x & mask) {
            let said = |x: u32| x & mask == value;
            if (0..256).zip(&wanted).all(|(x, w)| said(x) == *w) {
                return Some(("", mask, value));
            }
            if (0..256).zip(&wanted).all(|(x, w)| said(x) != *w) {
                return Some(("! ", mask, value));
            }
        }
    }
    None
}

fn flag_names(bits: u32) -> String {
    const NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let names: Vec<&str> = (0..6).filter(|i| bits >> i & 1 == 1).map(|i| NAMES[i]).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// A range of values as value and mask.
fn masked((lo, hi): (u32, u32)) -> Option<String> {
    let free = lo ^ hi;
    let is_mask = free & free.wrapping_add(1) == 0 && lo & free == 0;
    is_mask.then(|| if free == 0 { format!("{lo:#x}") } else { format!("{lo:#x}/{:#x}", !free) })
}
