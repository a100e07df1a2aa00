//! Witnesses: packets that oracle and image treat differently.
//!
//! A proof that fails has found a piece of the space of keys where something is wrong. A packet of it is
//! made, led through the calls that come to the list in question, and given to both. Only a packet
//! that they really treat differently is a witness.

use std::fmt;

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer, CtState, Decision, Dim, EntryId, Host, Image, L4, OriginId, Packet};
use hipac_rules::{Hook, Residual, Ruleset, TableKind, Target, TargetMeaning, Test};

use super::boxes::{self, Bounds};
use super::space::Space;
use super::walk::List;
use crate::agree::Compared;
use crate::draw::{self, Random};
use crate::fields::{self, INTERFACES, NUMBERS};
use crate::members;
use crate::outcomes::{Outcomes, Script};
use crate::subject::{Evaluation, Event, Verdict};
use crate::{Oracle, RuleId, packet_text};

/// Packets made of one piece, at most.
const PACKETS_MAX: usize = 96;

/// Ways of calls tried to one list.
const WAYS_MAX: usize = 24;

/// What residual matches come out as for a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assumed {
    /// As this script says.
    Script(Script),
    /// Those of these rules hold, others do not.
    Only(Vec<RuleId>),
}

impl Outcomes for Assumed {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, packet: &Packet) -> Answer {
        match self {
            Assumed::Script(script) => script.play().residual(rule, match_index, kind, packet),
            Assumed::Only(rules) => Answer::from(rules.contains(&rule)),
        }
    }
}

/// A packet that the rules and the image treat differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Where it enters.
    pub table: TableKind,
    /// See `table`.
    pub hook: Hook,
    /// The packet.
    pub packet: Packet,
    /// What residual matches come out as.
    pub assumed: Assumed,
    /// What the rules do.
    pub expected: Evaluation,
    /// What the image does.
    pub found: Evaluation,
    /// The packet as each leaves it, where that differs.
    pub left: Option<Box<(Packet, Packet)>>,
}

impl Witness {
    /// The packet in `iptables`' flags and where the two part, like
    /// [`Mismatch::show`](crate::Mismatch::show).
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "{}/{}: ", self.table.name(), self.hook.name())?;
            if self.packet == fields::default_packet(ruleset.family) {
                f.write_str("(every field at its default)")?;
            }
            write!(f, "{}", packet_text::show(&self.packet))?;
            let asks = |e: &Evaluation| e.events.iter().any(|e| matches!(e, Event::Residual { .. }));
            if asks(&self.expected) || asks(&self.found) {
                match &self.assumed {
                    Assumed::Script(Script::AllHold) => {
                        f.write_str("\n    when every residual match holds")?
                    }
                    Assumed::Script(Script::NoneHolds) => {
                        f.write_str("\n    when no residual match holds")?
                    }
                    Assumed::Script(Script::Drawn(seed)) => {
                        write!(f, "\n    with residual matches drawn from seed {seed}")?;
                    }
                    Assumed::Only(rules) => {
                        f.write_str("\n    when residual matches hold for these alone:")?;
                        rules.iter().try_for_each(|rule| write!(f, " {};", rule.place(ruleset)))?;
                    }
                }
            }
            let (ours, theirs) = (&self.expected.events, &self.found.events);
            let alike = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            if alike > 0 {
                write!(f, "\n    both     … {alike} events alike")?;
            }
            for (name, evaluation) in [("rules", &self.expected), ("image", &self.found)] {
                write!(f, "\n  ▶ {name}    ")?;
                if let Some(event) = evaluation.events.get(alike) {
                    write!(f, "{}, … ", event.show(ruleset))?;
                }
                write!(f, "{}", evaluation.verdict.show(ruleset))?;
            }
            if let Some(left) = &self.left {
                for (name, packet) in [("rules", &left.0), ("image", &left.1)] {
                    write!(f, "\n    {name}    leave {}", packet_text::show(packet))?;
                }
            }
            Ok(())
        })
    }
}

/// The two that a witness tells apart.
pub(super) struct Sides<'a, B> {
    pub(super) oracle: &'a Oracle<'a>,
    pub(super) image: &'a Image<B>,
    /// The rule of each origin.
    pub(super) rules: &'a [Option<RuleId>],
    pub(super) compared: Compared,
}

/// One evaluation: what happened, and the packet as it was left.
type Outcome = (Evaluation, Packet);

/// What an image does, noted down.
struct Notes<'a> {
    rules: &'a [Option<RuleId>],
    assumed: Assumed,
    events: Vec<Event>,
    /// It named a rule that the ruleset does not have.
    is_strange: bool,
}

impl Host for Notes<'_> {
    fn residual(&mut self, origin: OriginId, number: u8, kind: ResidualKind, packet: &Packet) -> Answer {
        let Some(rule) = self.rules.get(origin.0 as usize).copied().flatten() else {
            self.is_strange = true;
            return Answer::Fails;
        };
        let asked = match kind {
            ResidualKind::Pure => Residual::Pure,
            ResidualKind::Stateful => Residual::Stateful,
            ResidualKind::Unknown => Residual::Unknown,
        };
        let match_index = number.into();
        let answer = self.assumed.residual(rule, match_index, asked, packet);
        if kind != ResidualKind::Pure {
            let held = answer == Answer::Holds;
            self.events.push(Event::Residual { rule, match_index, held });
        }
        answer
    }

    fn matched(&mut self, origin: OriginId, _: &Packet) {
        match self.rules.get(origin.0 as usize).copied().flatten() {
            Some(rule) => self.events.push(Event::Matched(rule)),
            None => self.is_strange = true,
        }
    }
}

impl<B: AsRef<[u8]>> Sides<'_, B> {
    fn ruleset(&self) -> &Ruleset {
        self.oracle.ruleset()
    }

    fn of_rules(&self, table: TableKind, hook: Hook, packet: &Packet, assumed: &Assumed) -> Outcome {
        let mut evaluation = self.oracle.evaluate(table, hook, packet, &mut assumed.clone());
        let mut left = *packet;
        for event in &evaluation.events {
            if let Event::Matched(rule) = event
                && let Some(rule) = rule.of(self.ruleset())
                && let Target::Extension(target) = &rule.target
                && let TargetMeaning::Continue(effect) = target.target_meaning(self.ruleset().family)
            {
                fields::apply(effect, &mut left);
            }
        }
        self.leave_out(&mut evaluation);
        (evaluation, left)
    }

    fn of_image(&self, table: TableKind, hook: Hook, packet: &Packet, assumed: &Assumed) -> Outcome {
        let name = format!("{}/{}", table.name(), hook.name());
        let mut left = *packet;
        let mut notes =
            Notes { rules: self.rules, assumed: assumed.clone(), events: vec![], is_strange: false };
        let decision = self.image.find_entry(&name).map(|e| self.image.evaluate(e, &mut left, &mut notes));
        let rule = |origin: OriginId| self.rules.get(origin.0 as usize).copied().flatten();
        let verdict_name = |verdict| self.image.verdict_name(verdict).to_owned();
        let verdict = match decision {
            Some(Ok(Decision::Rule { verdict, rule: origin })) => {
                rule(origin).map(|r| Verdict::rule(verdict_name(verdict), r))
            }
            Some(Ok(Decision::Default { verdict })) => Some(Verdict::policy(verdict_name(verdict))),
            Some(Ok(Decision::Malformed { rule: origin })) => rule(origin).map(Verdict::malformed),
            Some(Err(EvaluateError::TooLong)) => Some(Verdict::given_up()),
            Some(Err(EvaluateError::Damaged { .. })) => Some(Verdict::policy("(damaged image)")),
            None => Some(Verdict::policy("(no such chain in the image)")),
        };
        let verdict = verdict.filter(|_| !notes.is_strange);
        let verdict = verdict.unwrap_or_else(|| Verdict::policy("(of a rule that is not there)"));
        let mut evaluation = Evaluation { events: notes.events, verdict };
        self.leave_out(&mut evaluation);
        (evaluation, left)
    }

    /// Takes out what an image that only reports deciding rules leaves out.
    fn leave_out(&self, evaluation: &mut Evaluation) {
        if self.compared == Compared::Deciding {
            evaluation.events.retain(|event| {
                let Event::Matched(rule) = event else { return true };
                let target = rule.of(self.ruleset()).map(|rule| &rule.target);
                !matches!(target, Some(Target::Jump(_) | Target::Goto(_) | Target::None))
            });
        }
    }

    /// The witness that a packet is, if it is one.
    pub(super) fn tell(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        assumed: &Assumed,
    ) -> Option<Witness> {
        let (expected, ours) = self.of_rules(table, hook, packet, assumed);
        let (found, theirs) = self.of_image(table, hook, packet, assumed);
        let gave_up = [&expected, &found].iter().any(|e| e.verdict == Verdict::given_up());
        let is_different = !gave_up && (expected != found || ours != theirs);
        is_different.then(|| Witness {
            table,
            hook,
            packet: *packet,
            assumed: assumed.clone(),
            expected,
            found,
            left: (ours != theirs).then(|| Box::new((ours, theirs))),
        })
    }

    /// The same witness with as many fields as can be at their defaults.
    pub(super) fn plainer(&self, mut witness: Witness) -> Witness {
        let default = fields::default_packet(self.ruleset().family);
        for field in NUMBERS.into_iter().chain(INTERFACES) {
            let mut packet = witness.packet;
            if !fields::write_number(&mut packet, field, fields::number(&default, field)) {
                fields::write_interface(&mut packet, field, fields::interface(&default, field));
            }
            if packet != witness.packet
                && let Some(other) = self.tell(witness.table, witness.hook, &packet, &witness.assumed)
            {
                witness = other;
            }
        }
        witness
    }
}

/// A list of a proof and a way to it.
#[derive(Debug, Clone)]
struct Way {
    table: TableKind,
    hook: Hook,
    piece: Vec<(u32, u32)>,
    /// The jumps, and last the rule in question.
    rules: Vec<RuleId>,
}

/// What makes packets of pieces.
pub(super) struct Seeker<'a, B> {
    pub(super) sides: &'a Sides<'a, B>,
    pub(super) space: &'a Space,
    pub(super) lists: &'a [List],
}

impl<B: AsRef<[u8]>> Seeker<'_, B> {
    /// A witness among the packets of a piece that come to a list. `states`: of the transport header,
    /// where keys do not say. `rule`: the one that it is about.
    pub(super) fn seek(
        &self,
        list: usize,
        piece: &Bounds,
        states: u8,
        rule: Option<RuleId>,
        settle: &dyn Fn(&mut [u32], &Bounds) -> bool,
    ) -> Option<Witness> {
        let mut random = Random::new(1, 1);
        for way in self.ways(list, piece, rule) {
            let scripts = [
                Assumed::Only(way.rules.clone()),
                Assumed::Script(Script::AllHold),
                Assumed::Script(Script::NoneHolds),
                Assumed::Script(Script::Drawn(1)),
            ];
            for number in 0..PACKETS_MAX {
                let Some(packet) = self.packet(&way, states, number, settle, &mut random) else { continue };
                for assumed in &scripts {
                    if let Some(witness) = self.sides.tell(way.table, way.hook, &packet, assumed) {
                        return Some(self.sides.plainer(witness));
                    }
                }
            }
        }
        None
    }

    /// Ways from built-in chains to a list, with what of the piece can go them.
    fn ways(&self, list: usize, piece: &Bounds, rule: Option<RuleId>) -> Vec<Way> {
        let ruleset = self.sides.ruleset();
        let mut out = Vec::new();
        let mut open = vec![(list, piece.to_vec(), Vec::from_iter(rule))];
        let mut steps = 0;
        while let Some((at, piece, rules)) = open.pop() {
            steps += 1;
            if out.len() >= WAYS_MAX || steps > 64 * WAYS_MAX || rules.len() > 64 {
                break;
            }
            let here = &self.lists[at];
            let table = &ruleset.tables[here.chain.0];
            if let Some(hook) = table.chains[here.chain.1].hook {
                let rules = rules.iter().rev().copied().collect();
                out.push(Way { table: table.kind, hook, piece, rules });
                continue;
            }
            for (caller, list) in self.lists.iter().enumerate() {
                for &(position, entry, _) in list.calls.iter().filter(|c| c.1 == here.entry.0) {
                    debug_assert_eq!(entry, here.entry.0);
                    let slot = &list.slots[(position - list.first) as usize];
                    for bounds in list.boxes.range(slot.expanded.must.clone()) {
                        let mut piece = piece.clone();
                        if boxes::narrow(&mut piece[..bounds.len()], bounds) && open.len() < 4 * WAYS_MAX {
                            let rules = rules.iter().copied().chain(slot.rule).collect();
                            open.push((caller, piece, rules));
                        }
                    }
                }
            }
        }
        out
    }

    /// Packet `number` of a way: its corners first, then at random.
    fn packet(
        &self,
        way: &Way,
        states: u8,
        number: usize,
        settle: &dyn Fn(&mut [u32], &Bounds) -> bool,
        random: &mut Random,
    ) -> Option<Packet> {
        let axes = self.space.axes.len();
        let pick = |b: &(u32, u32), random: &mut Random| match number {
            0 => b.0,
            1 => b.1,
            _ => match random.below(4) {
                0 => b.0,
                1 => b.1,
                _ => random.between(b.0.into(), b.1.into()) as u32,
            },
        };
        let mut point: Vec<u32> = way.piece.iter().map(|b| pick(b, random)).collect();
        // Values of the axes of indices follow from the others, but for the first packet.
        if number.is_multiple_of(2) {
            point[axes..].iter_mut().zip(&way.piece[axes..]).for_each(|(x, b)| *x = b.0);
            settle(&mut point, &way.piece);
        }
        let mut packet = fields::default_packet(self.space.family);
        let wanted = (0..7).filter(|s| states >> s & 1 == 1).collect::<Vec<usize>>();
        packet.l4 =
            L4::ALL[*wanted.get(if number < wanted.len() { number } else { random.below(wanted.len()) })?];
        // What keys do not say: as the rules on the way want it, in every other packet.
        let as_wanted = number % 4 > 1 || number == 0;
        if as_wanted {
            for &rule in &way.rules {
                let clauses = draw::clauses(self.sides.oracle, rule);
                let mut tests: Vec<_> = clauses.iter().filter_map(|c| random.pick(c).cloned()).collect();
                // Or as the rule in question does not want it, in one respect.
                if number % 8 > 5
                    && way.rules.last() == Some(&rule)
                    && let Some(clause) = random.pick(&clauses)
                {
                    tests.retain(|test| !clause.contains(test));
                    tests.extend(clause.iter().map(|test| Test { negated: !test.negated, ..test.clone() }));
                }
                let l4 = packet.l4;
                draw::satisfy(&mut packet, &tests, random);
                packet.l4 = l4;
            }
        }
        // Into the sets that the piece wants, before its own values: those come last.
        for (axis, &value) in self.space.axes.iter().zip(&point).filter(|(axis, _)| axis.dim.is_set()) {
            let raw = self.space.raw_values(axis, value).first().copied().unwrap_or(0);
            for membership in self.space.members.of_bits(axis.dim, raw) {
                members::enter(membership, &mut packet, random);
            }
        }
        for (at, (axis, &value)) in self.space.axes.iter().zip(&point).enumerate() {
            // Where the piece is all there is, what the rules want stays in every other of those packets.
            if as_wanted && number % 8 > 3 && way.piece[at] == (0, axis.max) {
                continue;
            }
            let raw = self.space.raw_values(axis, value);
            let raw = if number < 2 { raw.first() } else { random.pick(&raw) };
            self.put(&mut packet, axis.dim, *raw?);
        }
        if packet.mac.is_none() && self.space.axis_of(Dim::MacLow).is_some_and(|axis| point[axis] != 0) {
            return None;
        }
        Some(packet)
    }

    /// Gives a packet a raw value.
    fn put(&self, packet: &mut Packet, dim: Dim, raw: u32) {
        let word = |old: u128, at: u32| old & !(0xffff_ffff << (32 * at)) | u128::from(raw) << (32 * at);
        let byte = raw as u8;
        let mac = packet.mac.unwrap_or_default();
        let name = self.space.names.sample(raw);
        match dim {
            Dim::Source0 => packet.source = word(packet.source, 0),
            Dim::Source1 => packet.source = word(packet.source, 1),
            Dim::Source2 => packet.source = word(packet.source, 2),
            Dim::Source3 => packet.source = word(packet.source, 3),
            Dim::Destination0 => packet.destination = word(packet.destination, 0),
            Dim::Destination1 => packet.destination = word(packet.destination, 1),
            Dim::Destination2 => packet.destination = word(packet.destination, 2),
            Dim::Destination3 => packet.destination = word(packet.destination, 3),
            Dim::SourcePort => packet.source_port = raw as u16,
            Dim::DestinationPort => packet.destination_port = raw as u16,
            Dim::Protocol => packet.protocol = byte,
            Dim::L4 => packet.l4 = L4::ALL.get(raw as usize).copied().unwrap_or(L4::Whole),
            Dim::InInterface => packet.in_interface = name.unwrap_or(packet.in_interface),
            Dim::OutInterface => packet.out_interface = name.unwrap_or(packet.out_interface),
            Dim::PhysIn => packet.phys_in = name.unwrap_or(packet.phys_in),
            Dim::PhysOut => packet.phys_out = name.unwrap_or(packet.phys_out),
            Dim::Helper => packet.helper = name.unwrap_or(packet.helper),
            Dim::TcpFlags => packet.tcp_flags = byte,
            Dim::CtState => {
                packet.ct_state = CtState::ALL.get(raw as usize & 7).copied().unwrap_or(CtState::New);
                (packet.ct_snat, packet.ct_dnat) = (raw & 8 != 0, raw & 16 != 0);
            }
            Dim::Mark => packet.mark = raw,
            Dim::ConnMark => packet.connmark = raw,
            Dim::Ttl => packet.ttl = byte,
            Dim::Length => packet.length = raw,
            Dim::Tos => packet.tos = byte,
            Dim::MacHigh if raw == 0 => packet.mac = None,
            Dim::MacHigh => {
                let [_, a, b, c] = raw.to_be_bytes();
                packet.mac = Some([a, b, c, mac[3], mac[4], mac[5]]);
            }
            Dim::MacLow => {
                let [_, a, b, c] = raw.to_be_bytes();
                if let Some(mac) = &mut packet.mac {
                    mac[3..].copy_from_slice(&[a, b, c]);
                }
            }
            Dim::PacketType => packet.packet_type = byte,
            Dim::SourceType => packet.source_type = byte,
            Dim::DestinationType => packet.destination_type = byte,
            Dim::Bridged => packet.bridged = raw != 0,
            // Bits of IP sets are left out: other fields decide them, see `packet`.
            _ => {
                if let Some(fact) = dim.fact() {
                    packet.facts.set(fact, raw);
                }
            }
        }
    }

    /// The entry that a list stands for, for people.
    pub(super) fn entry(&self, list: usize) -> EntryId {
        self.lists[list].entry
    }
}
