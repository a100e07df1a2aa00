//! The state of a ruleset, and how it is asked.

use std::collections::HashMap;
use std::fmt;

use hipac_classifier::{Answer, Packet};
use hipac_rules::{Extension, Ruleset, TableKind, Target};

use crate::calendar::Calendar;
use crate::chunks::Chunks;
use crate::clock::{Hz, Time};
use crate::connection::{ConnBytes, ConnLimit, Tracking};
use crate::counted::{Quota, Statistic};
use crate::ecn::TcpBits;
use crate::hashlimit::{self, HashLimit};
use crate::headers6::{self, Mobility, OptionList};
use crate::limit::Limit;
use crate::options::{DccpOption, TcpOption};
use crate::rateest::{Compare, Estimator};
use crate::recent::{List, Recent};
use crate::route::{Policy, Receiver, RpFilter, TypeByInterface};
use crate::routing::Hops;
use crate::segments::Segments;
use crate::settings::Settings;
use crate::text::Text;
use crate::words::Words;
use crate::{bpf, wire};

/// What the kernel that is followed was built and set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Ticks a second.
    pub hz: Hz,
    /// What `statistic --mode random` draws from; without it, its answers are not known.
    pub seed: Option<u64>,
    /// The kernel's time zone, which `time --kerneltz` counts in: minutes west of Greenwich.
    pub minutes_west: i32,
    /// Addresses that a list of `recent` holds: the module's `ip_list_tot`.
    pub recent_addresses_max: u32,
    /// Stamps that an address has at least: the module's `ip_pkt_list_tot`; 0: as many as the rules count.
    pub recent_stamps: u32,
}

impl Default for Options {
    /// A kernel of 250 ticks a second in UTC with its modules' own defaults, and no seed.
    fn default() -> Options {
        Options { hz: Hz::DEFAULT, seed: None, minutes_west: 0, recent_addresses_max: 100, recent_stamps: 0 }
    }
}

/// What is known about a packet besides its fields.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// When it came.
    pub at: Time,
    /// Its bytes from the IP header on, as they came. More may follow.
    pub wire: Option<&'a [u8]>,
    /// What connection tracking knows.
    pub tracking: Option<&'a dyn Tracking>,
    /// A rule has changed the packet behind its IP header: `wire` does not hold any more.
    pub is_rewritten: bool,
}

impl Arrival<'_> {
    /// At that moment; nothing else is known.
    pub fn at(at: Time) -> Arrival<'static> {
        Arrival { at, wire: None, tracking: None, is_rewritten: false }
    }
}

impl fmt::Debug for Arrival<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arrival { at, wire, tracking, is_rewritten } = self;
        let mut f = f.debug_struct("Arrival");
        f.field("at", at).field("wire", wire).field("tracking", &tracking.is_some());
        f.field("is_rewritten", is_rewritten).finish()
    }
}

/// A rule that the kernel would not load. Displays with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    place: String,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the kernel would refuse this rule: {}", self.place, self.why)
    }
}

impl std::error::Error for Refused {}

/// All that a ruleset's residual matches keep, and their parameters. States are equal when they will answer alike.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    options: Options,
    /// Where the rules of a chain begin in a count of all, by table and position of the chain.
    starts: Vec<(TableKind, Vec<u32>)>,
    matches: HashMap<(u32, u8), Kept>,
    targets: HashMap<u32, Act>,
    shared: Shared,
    /// The latest tick so far: a kernel's ticks never go back.
    latest: u64,
}

/// What rules share by name.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shared {
    buckets: Vec<hashlimit::Table>,
    lists: Vec<List>,
    estimators: Vec<Estimator>,
    names: HashMap<(Kind, String), usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Buckets,
    List,
    Estimator,
}

/// What one match keeps.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Limit(Limit),
    HashLimit(HashLimit),
    Recent(Recent),
    Statistic(Statistic),
    Quota(Quota),
    ConnBytes(ConnBytes),
    ConnLimit(ConnLimit),
    Text(Box<Text>),
    Words(Words),
    Program(bpf::Program),
    Calendar(Calendar),
    Compare(Compare),
    Chunks(Box<Chunks>),
    RpFilter(RpFilter),
    Receiver(Receiver),
    Policy(Policy),
    TypeByInterface(TypeByInterface),
    TcpOption(TcpOption),
    TcpBits(TcpBits),
    DccpOption(DccpOption),
    Mobility(Mobility),
    Eui64,
    OptionList(OptionList),
    Hops(Hops),
    Segments(Segments),
}

/// What a target does to the state.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// Counts for an estimator.
    Estimate(usize),
    /// Changes the packet behind its IP header.
    Rewrite,
}

impl State {
    /// The state after `ruleset` was loaded at that moment: buckets full, lists empty.
    ///
    /// # Errors
    /// The kernel would refuse a rule.
    pub fn new(ruleset: &Ruleset, options: Options, loaded: Time) -> Result<State, Refused> {
        let mut state = State {
            options,
            starts: Vec::new(),
            matches: HashMap::new(),
            targets: HashMap::new(),
            shared: Shared::default(),
            latest: options.hz.jiffies(loaded),
        };
        let mut number = 0u32;
        for table in &ruleset.tables {
            let mut starts = Vec::with_capacity(table.chains.len());
            for chain in &table.chains {
                starts.push(number);
                for (i, rule) in chain.rules.iter().enumerate() {
                    let refused = |why: String| {
                        let (table, chain, rule_number, line) =
                            (table.kind.name(), &chain.name, i + 1, rule.line);
                        Refused { place: format!("{table}/{chain} rule {rule_number} (line {line})"), why }
                    };
                    for (index, extension) in (0u8..).zip(&rule.matches) {
                        let kept = state.keep(extension, ruleset, (number, index));
                        let kept = kept.map_err(|why| refused(format!("{}: {why}", extension.name())))?;
                        state.matches.extend(kept.map(|kept| ((number, index), kept)));
                    }
                    if let Target::Extension(extension) = &rule.target {
                        let act = state
                            .act(extension)
                            .map_err(|why| refused(format!("{}: {why}", extension.name())))?;
                        state.targets.extend(act.map(|act| (number, act)));
                    }
                    number += 1;
                }
            }
            state.starts.push((table.kind, starts));
        }
        Ok(state)
    }

    /// What a match keeps; `None`: it is not known here.
    fn keep(
        &mut self,
        extension: &Extension,
        ruleset: &Ruleset,
        (rule, index): (u32, u8),
    ) -> Result<Option<Kept>, String> {
        let Options { hz, seed, .. } = self.options;
        let (settings, family, now) = (Settings(extension), ruleset.family, self.latest);
        if extension.known_spec().is_none() {
            return Ok(None);
        }
        Ok(Some(match extension.name() {
            "limit" => Kept::Limit(Limit::new(settings, hz, now)?),
            "hashlimit" => {
                let (mut rule, table) = HashLimit::new(settings, family, hz, now)?;
                let name = settings.text("hashlimit-name").unwrap_or("");
                rule.table = match self.shared.named(Kind::Buckets, name) {
                    Ok(known) => known,
                    Err(new) => {
                        self.shared.buckets.push(table);
                        new.insert(self.shared.buckets.len() - 1, &mut self.shared.names)
                    }
                };
                Kept::HashLimit(rule)
            }
            "recent" => {
                let Options { recent_stamps, recent_addresses_max, .. } = self.options;
                let (mut rule, list) = Recent::new(settings, family, recent_stamps, recent_addresses_max)?;
                let name = settings.text("name").unwrap_or("DEFAULT");
                rule.list = match self.shared.named(Kind::List, name) {
                    Ok(known) => {
                        self.shared.lists[known].join(&list);
                        known
                    }
                    Err(new) => {
                        self.shared.lists.push(list);
                        new.insert(self.shared.lists.len() - 1, &mut self.shared.names)
                    }
                };
                Kept::Recent(rule)
            }
            "statistic" => {
                let stream = u64::from(rule) << 8 | u64::from(index);
                Kept::Statistic(Statistic::new(settings, seed, stream)?)
            }
            "quota" => Kept::Quota(Quota::new(settings)),
            "connbytes" => Kept::ConnBytes(ConnBytes::new(settings)?),
            "connlimit" => Kept::ConnLimit(ConnLimit::new(settings, family)?),
            "string" => Kept::Text(Box::new(Text::new(settings)?)),
            "u32" => Kept::Words(Words::new(settings)?),
            "bpf" => match settings.text("bytecode") {
                Some(text) => Kept::Program(bpf::Program::parse(text)?),
                None => return Ok(None),
            },
            "sctp" => match Chunks::new(settings)? {
                Some(chunks) => Kept::Chunks(Box::new(chunks)),
                None => return Ok(None),
            },
            "rpfilter" => Kept::RpFilter(RpFilter::new(settings)),
            "socket" => match Receiver::new(settings) {
                Some(receiver) => Kept::Receiver(receiver),
                None => return Ok(None),
            },
            "policy" => Kept::Policy(Policy::new(settings)),
            "addrtype" => Kept::TypeByInterface(TypeByInterface::new(settings)),
            "tcp" => match TcpOption::new(settings) {
                Some(option) => Kept::TcpOption(option),
                None => return Ok(None),
            },
            "ecn" => match TcpBits::new(settings) {
                Some(bits) => Kept::TcpBits(bits),
                None => return Ok(None),
            },
            "dccp" => match DccpOption::new(settings) {
                Some(option) => Kept::DccpOption(option),
                None => return Ok(None),
            },
            "mh" => Kept::Mobility(Mobility::new(settings)),
            "eui64" => Kept::Eui64,
            name @ ("hbh" | "dst") => {
                let (option, header) = if name == "hbh" { ("hbh-opts", 0) } else { ("dst-opts", 60) };
                match OptionList::new(settings, option, header) {
                    Some(options) => Kept::OptionList(options),
                    None => return Ok(None),
                }
            }
            "rt" => match Hops::new(settings)? {
                Some(hops) => Kept::Hops(hops),
                None => return Ok(None),
            },
            "srh" => match Segments::new(settings) {
                Some(segments) => Kept::Segments(segments),
                None => return Ok(None),
            },
            "time" => Kept::Calendar(Calendar::new(settings)),
            "rateest" => {
                let shared = &self.shared;
                Kept::Compare(Compare::new(settings, |name| shared.named(Kind::Estimator, name).ok())?)
            }
            _ => return Ok(None),
        }))
    }

    fn act(&mut self, extension: &Extension) -> Result<Option<Act>, String> {
        Ok(match extension.name() {
            "RATEEST" if extension.known_spec().is_some() => {
                let settings = Settings(extension);
                let estimator = Estimator::new(settings, self.options.hz, self.latest)?;
                let name = settings.text("rateest-name").unwrap_or("");
                Some(Act::Estimate(match self.shared.named(Kind::Estimator, name) {
                    Ok(known) if self.shared.estimators[known].is_like(&estimator) => known,
                    Ok(_) => return Err(format!("`{name}` has another interval or time constant already")),
                    Err(new) => {
                        self.shared.estimators.push(estimator);
                        new.insert(self.shared.estimators.len() - 1, &mut self.shared.names)
                    }
                }))
            }
            "TCPMSS" | "TCPOPTSTRIP" | "ECN" | "CHECKSUM" | "DNPT" | "SNPT" => Some(Act::Rewrite),
            _ => None,
        })
    }

    fn number(&self, table: TableKind, chain: usize, rule: usize) -> Option<u32> {
        let (_, starts) = self.starts.iter().find(|(kind, _)| *kind == table)?;
        starts.get(chain)?.checked_add(u32::try_from(rule).ok()?)
    }

    /// Evaluates the residual part of match `match_index` of the rule at that position (as in
    /// [`Ruleset::tables`]), as the kernel does when it gets there; `None`: the answer is not known.
    pub fn ask(
        &mut self,
        (table, chain, rule): (TableKind, usize, usize),
        match_index: usize,
        packet: &Packet,
        arrival: &Arrival<'_>,
    ) -> Option<Answer> {
        let number = self.number(table, chain, rule)?;
        let now = self.tick(arrival.at);
        let Options { hz, minutes_west, .. } = self.options;
        let Shared { buckets, lists, estimators, .. } = &mut self.shared;
        let kept = self.matches.get_mut(&(number, u8::try_from(match_index).ok()?))?;
        let held = match kept {
            Kept::HashLimit(rule) => return rule.ask(buckets.get_mut(rule.table)?, packet, arrival, hz, now),
            Kept::Recent(rule) => return Some(rule.ask(lists.get_mut(rule.list)?, packet, hz, now)),
            Kept::Chunks(chunks) => return chunks.ask(packet, arrival),
            Kept::TcpOption(option) => return option.ask(packet, arrival),
            Kept::DccpOption(option) => return option.ask(packet, arrival),
            Kept::Mobility(types) => return types.ask(packet, arrival),
            Kept::Eui64 => headers6::is_eui64(packet)?,
            Kept::OptionList(options) => options.holds(packet, arrival)?,
            Kept::Hops(hops) => hops.holds(packet, arrival)?,
            Kept::Segments(segments) => segments.holds(packet, arrival)?,
            Kept::TcpBits(bits) => bits.holds(packet, arrival)?,
            Kept::Policy(policy) => policy.holds(packet)?,
            Kept::TypeByInterface(types) => types.holds(packet)?,
            Kept::RpFilter(filter) => filter.holds(packet)?,
            Kept::Receiver(receiver) => receiver.holds(packet)?,
            Kept::Limit(limit) => limit.holds(now),
            Kept::Statistic(statistic) => statistic.holds()?,
            Kept::Quota(quota) => quota.holds(packet.length),
            Kept::ConnBytes(bytes) => bytes.holds(packet, arrival.tracking)?,
            Kept::ConnLimit(limit) => limit.holds(packet, arrival.tracking)?,
            Kept::Text(text) => text.holds(&wire::bytes(packet, arrival)?),
            Kept::Words(words) => words.holds(&wire::bytes(packet, arrival)?),
            Kept::Program(program) => program.run(&wire::bytes(packet, arrival)?, packet)? != 0,
            Kept::Calendar(calendar) => calendar.holds(arrival.at.secs(), minutes_west),
            Kept::Compare(compare) => compare.holds(estimators, now)?,
        };
        Some(Answer::from(held))
    }

    /// The residual part of match `match_index` of that rule is evaluated here, when what it asks for is given.
    pub fn evaluates(&self, (table, chain, rule): (TableKind, usize, usize), match_index: usize) -> bool {
        let place = self.number(table, chain, rule).zip(u8::try_from(match_index).ok());
        place.is_some_and(|place| self.matches.contains_key(&place))
    }

    /// Some match of these rules may have no answer, for packets whose bytes are given or not: a caller who wants
    /// to ask what else could happen has to keep a copy of the state.
    pub fn may_not_know(&self, ruleset: &Ruleset, has_wire: bool) -> bool {
        let rewrites = self.targets.values().any(|act| matches!(act, Act::Rewrite));
        let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
        (0u32..).zip(chains.flat_map(|chain| &chain.rules)).any(|(number, rule)| {
            (0u8..).zip(&rule.matches).any(|(index, extension)| {
                extension.match_meaning(ruleset.family).residual.is_some()
                    && match self.matches.get(&(number, index)) {
                        None | Some(Kept::ConnBytes(_) | Kept::ConnLimit(_) | Kept::Program(_)) => true,
                        Some(
                            Kept::RpFilter(_)
                            | Kept::Receiver(_)
                            | Kept::Policy(_)
                            | Kept::TypeByInterface(_)
                            | Kept::Eui64,
                        ) => true,
                        Some(Kept::Statistic(statistic)) => statistic.clone().holds().is_none(),
                        Some(
                            Kept::Text(_)
                            | Kept::Words(_)
                            | Kept::Chunks(_)
                            | Kept::TcpOption(_)
                            | Kept::TcpBits(_)
                            | Kept::DccpOption(_)
                            | Kept::Mobility(_)
                            | Kept::OptionList(_)
                            | Kept::Hops(_)
                            | Kept::Segments(_),
                        ) => !has_wire || rewrites,
                        Some(Kept::HashLimit(limit)) => {
                            !has_wire || rewrites || !self.shared.buckets[limit.table].suits(limit)
                        }
                        Some(_) => false,
                    }
            })
        })
    }

    /// Rules without a residual match change the state as well: their target counts.
    pub fn counts_targets(&self) -> bool {
        self.targets.values().any(|act| matches!(act, Act::Estimate(_)))
    }

    /// Tells that a rule matched: its target may count, or change the packet's bytes.
    pub fn matched(
        &mut self,
        (table, chain, rule): (TableKind, usize, usize),
        packet: &Packet,
        arrival: &mut Arrival<'_>,
    ) {
        if self.targets.is_empty() {
            return;
        }
        let now = self.tick(arrival.at);
        let act = self.number(table, chain, rule).and_then(|number| self.targets.get(&number));
        match act {
            Some(&Act::Estimate(index)) => {
                if let Some(estimator) = self.shared.estimators.get_mut(index) {
                    estimator.count(packet.length, now);
                }
            }
            Some(Act::Rewrite) => arrival.is_rewritten = true,
            None => {}
        }
    }

    fn tick(&mut self, at: Time) -> u64 {
        self.latest = self.latest.max(self.options.hz.jiffies(at));
        self.latest
    }
}

/// A name that nothing has yet.
struct NewName(Kind, String);

impl NewName {
    fn insert(self, index: usize, names: &mut HashMap<(Kind, String), usize>) -> usize {
        names.insert((self.0, self.1), index);
        index
    }
}

impl Shared {
    fn named(&self, kind: Kind, name: &str) -> Result<usize, NewName> {
        self.names.get(&(kind, name.to_owned())).copied().ok_or_else(|| NewName(kind, name.to_owned()))
    }
}
