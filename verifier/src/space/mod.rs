//! The space of packets that a few rulesets tell apart, and exact regions in it.
//!
//! ```text
//!          dport ▲
//!          65535 │ ┌────────┐   a test is a set of atoms on one axis,
//!                │ │  rule  │   a condition a product of sets, and a few alternatives,
//!             22 │ └────────┘   a region one interval on each axis
//!              0 └──────────────▶ source
//! ```
//!
//! Only fields that a rule looks at are axes; on each, values that no rule tells apart are one *atom*, so that
//! positions are small numbers whatever the field. Everything is exact: a region that is not empty holds a
//! packet, and [`Space::witness`] says which.
//!
//! Invariants: an axis has at least one atom; every bound that a test sets is a bound of atoms; the atoms of an
//! axis hold each value that a packet can have once.

mod axis;
mod change;
mod set;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hipac_classifier::{InterfaceName, Packet};
use hipac_rules::ipset::Membership;
use hipac_rules::{Clause, Effect, Family, Field, L4Need, TableKind, Test, ValueSet};

use crate::oracle::{Outcome, Target, header};
use crate::{Oracle, RuleId, packet_text};
use crate::{fields, members};

use axis::{Atoms, class_atoms, name_atoms, other_bits, range_atoms, ranges_of};
pub(crate) use axis::{Axis, AxisKey};
pub(crate) use change::{Change, needs_connection};
pub(crate) use set::{Interval, Relation, Set};
pub(crate) use words::{Pieces, Shape};

/// The position of an axis.
pub(crate) type AxisId = u8;

/// Alternatives: a set on each of some axes, of which one must hold. No alternatives: never.
pub(crate) type Alternatives = Vec<(AxisId, Set)>;

/// One interval on each axis.
pub(crate) type Region = Box<[Interval]>;

/// A test that no region expresses: bits of both marks added up, or an address mask with many holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inexpressible;

/// See [the module](self).
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) family: Family,
    pub(crate) axes: Vec<Axis>,
    by_key: HashMap<AxisKey, AxisId>,
    /// Fields that rules change on the way.
    changed: BTreeSet<Field>,
    /// Bits of the marks that are always looked at together.
    groups: Vec<u32>,
    /// IP sets as tests of one field, where they are that.
    members: HashMap<Arc<Membership>, Option<Test>>,
}

const MARKS: [Field; 2] = [Field::Mark, Field::ConnMark];
/// Fields whose values are few, and whose order means little.
const CLASSES: [Field; 6] =
    [Field::TcpFlags, Field::Tos, Field::CtState, Field::Ttl, Field::FragFlags, Field::ExtHeaders];

/// What rules look at, collected.
#[derive(Default)]
struct Seen<'a> {
    ranges: BTreeMap<Field, BTreeSet<(u128, u128)>>,
    classes: BTreeMap<Field, Vec<&'a Test>>,
    names: BTreeMap<Field, BTreeSet<(hipac_rules::Name, bool)>>,
    /// Value and mask of each test of a mark.
    marks: BTreeSet<(u32, u32)>,
    effects: Vec<Effect>,
}

impl Space {
    /// The space that these tables tell apart, and the questions in `extra`.
    pub(crate) fn new(family: Family, tables: &[(&Oracle<'_>, TableKind)], extra: &[Test]) -> Space {
        let mut tests: BTreeSet<TestKey> = extra.iter().cloned().map(TestKey).collect();
        let mut effects = Vec::new();
        let mut wants_header = false;
        let mut members: HashMap<Arc<Membership>, Option<Test>> = HashMap::new();
        for &(oracle, table) in tables {
            for rule in rules_of(oracle, table) {
                if let Some(r) = rule.of(oracle.ruleset()) {
                    tests.extend(r.ip.tests(family).into_iter().map(TestKey));
                }
                for meaning in oracle.meanings(rule) {
                    wants_header |= meaning.l4 != L4Need::default();
                    for test in meaning.clauses.iter().flatten() {
                        match &test.set {
                            ValueSet::Member(membership) => {
                                let of = members.entry(Arc::clone(membership));
                                let of =
                                    of.or_insert_with(|| members::as_field_test(membership, family, false));
                                tests.extend(of.clone().map(TestKey));
                            }
                            _ => {
                                tests.insert(TestKey(test.clone()));
                            }
                        }
                    }
                }
                if let Some(Target::Continue(effect)) = oracle.target(rule) {
                    effects.push(effect);
                }
            }
        }
        let tests: Vec<Test> = tests.into_iter().map(|t| t.0).collect();
        let mut seen = Seen { effects, ..Seen::default() };
        for test in &tests {
            seen.test(family, test);
        }
        let mut space = Space {
            family,
            axes: Vec::new(),
            by_key: HashMap::new(),
            changed: seen.effects.iter().flat_map(|&e| changed_fields(e)).copied().collect(),
            groups: bit_groups(&seen),
            members,
        };
        space.build(&seen, wants_header);
        space
    }

    fn build(&mut self, seen: &Seen<'_>, wants_header: bool) {
        let family = self.family;
        // Axes stand in the order in which boxes are printed.
        for field in fields::INTERFACES {
            if let Some(tests) = seen.names.get(&field) {
                self.push(AxisKey::Field(field), name_atoms(tests));
            }
        }
        for field in fields::NUMBERS {
            let is_changed = self.changed.contains(&field);
            let needs = is_changed || field == Field::L4 && wants_header;
            if MARKS.contains(&field) {
                continue;
            } else if CLASSES.contains(&field) {
                if needs || seen.classes.contains_key(&field) {
                    let tests = seen.classes.get(&field).map_or(&[][..], |t| t);
                    self.push(AxisKey::Field(field), class_atoms(family, field, tests, is_changed));
                }
            } else if let Some(tests) = seen.ranges.get(&field) {
                let mut tests = tests.clone();
                if field == Field::L4 {
                    tests.extend((0..7).map(|x| (x, x)));
                }
                self.push(AxisKey::Field(field), range_atoms(family, field, &tests));
            } else if needs {
                self.push(
                    AxisKey::Field(field),
                    range_atoms(family, field, &(0..7).map(|x| (x, x)).collect()),
                );
            }
        }
        for group in self.groups.clone() {
            let mut values: BTreeSet<u32> =
                seen.marks.iter().filter(|t| t.1 & group == group).map(|t| t.0 & group).collect();
            // Bits that are inverted, not set, are looked for from the other side too.
            for effect in &seen.effects {
                if let Effect::Mark { clear, flip } | Effect::ConnMark { clear, flip } = effect {
                    let inverted = flip & !clear & group;
                    values.extend(values.clone().into_iter().map(|v| v ^ inverted));
                }
            }
            let values: Vec<u32> = values.into_iter().collect();
            for field in MARKS {
                let atoms = Atoms::Bits { other: other_bits(group, &values), values: values.clone() };
                self.push(AxisKey::Bits(field, group), atoms);
            }
        }
    }

    fn push(&mut self, key: AxisKey, atoms: Atoms) {
        // 22 fields and at most 64 groups of bits: they fit.
        self.by_key.insert(key, self.axes.len() as AxisId);
        self.axes.push(Axis { key, atoms });
    }

    /// The whole space.
    pub(crate) fn all(&self) -> Region {
        self.axes.iter().map(|axis| (0, axis.len().saturating_sub(1))).collect()
    }

    pub(crate) fn axis(&self, id: AxisId) -> &Axis {
        &self.axes[usize::from(id)]
    }

    pub(crate) fn field_axis(&self, field: Field) -> Option<AxisId> {
        self.by_key.get(&AxisKey::Field(field)).copied()
    }

    /// Whether rules on the way change what this clause looks at.
    pub(crate) fn is_changed(&self, clause: &Clause) -> bool {
        clause.iter().any(|test| self.changed.contains(&test.field))
    }

    /// A clause as alternatives that must all hold, for packets that were changed so.
    pub(crate) fn clause(
        &self,
        clause: &Clause,
        change: &Change,
    ) -> Result<Vec<Alternatives>, Inexpressible> {
        let [test] = &clause[..] else {
            let mut joined = Alternatives::new();
            for test in clause {
                match &mut self.test(test, change)?[..] {
                    [] => return Ok(Vec::new()),
                    [one] => joined.append(one),
                    _ => return Err(Inexpressible),
                }
            }
            return Ok(vec![joined]);
        };
        self.test(test, change)
    }

    fn test(&self, test: &Test, change: &Change) -> Result<Vec<Alternatives>, Inexpressible> {
        if let ValueSet::Member(membership) = &test.set {
            let of = self.members.get(membership).and_then(Option::as_ref).ok_or(Inexpressible)?;
            let id = self.field_axis(of.field).ok_or(Inexpressible)?;
            let axis = self.axis(id);
            let set = axis.of_test(of);
            let set = if test.negated { set.complement(axis.len()) } else { set };
            return Ok(vec![vec![(id, set)]]);
        }
        if MARKS.contains(&test.field) {
            return self.mark_test(test, change);
        }
        let id = self.field_axis(test.field).ok_or(Inexpressible)?;
        let axis = self.axis(id);
        if matches!(axis.atoms, Atoms::Ranges(_))
            && ranges_of(&test.set, fields::number_max(self.family, test.field)).is_none()
        {
            return Err(Inexpressible);
        }
        let table = match test.field {
            Field::Tos => change.tos.as_deref(),
            Field::Ttl => change.ttl.as_deref(),
            _ => None,
        };
        let holds = |x: u128| axis::set_contains(&test.set, x) != test.negated;
        let set = match table {
            Some(table) => axis.of_values(|x| holds(u128::from(table[x as usize & 0xff]))),
            None if test.field == Field::CtState && change.is_untracked => {
                axis.of_values(|x| holds(x & !7 | 4))
            }
            None => axis.of_test(test),
        };
        Ok(vec![vec![(id, set)]])
    }

    /// A test of a mark as it is behind a change, in bits of the marks as they came.
    fn mark_test(&self, test: &Test, change: &Change) -> Result<Vec<Alternatives>, Inexpressible> {
        let (value, mask) = mark_value(&test.set).ok_or(Inexpressible)?;
        let now = if test.field == Field::Mark { change.mark } else { change.connmark };
        if now.of_mark & now.of_connmark & mask != 0 {
            return Err(Inexpressible);
        }
        let is_constant = mask & !now.of_mark & !now.of_connmark;
        let never = value & !mask != 0 || (now.flip ^ value) & is_constant != 0;
        let mut literals = Alternatives::new();
        let wanted = value ^ now.flip;
        for (field, bits) in [(Field::Mark, now.of_mark & mask), (Field::ConnMark, now.of_connmark & mask)] {
            for &group in self.groups.iter().filter(|&&g| g & bits != 0) {
                let id = *self.by_key.get(&AxisKey::Bits(field, group)).ok_or(Inexpressible)?;
                let atom = self.axis(id).of_bits(wanted & group).filter(|_| group & !bits == 0);
                let atom = atom.ok_or(Inexpressible)?;
                literals.push((id, Set::new(vec![(atom, atom)])));
            }
        }
        Ok(match (test.negated, never) {
            (false, true) => vec![Vec::new()],
            (true, true) => Vec::new(),
            (false, false) => literals.into_iter().map(|l| vec![l]).collect(),
            (true, false) => {
                let not = |(id, set): (AxisId, Set)| (id, set.complement(self.axis(id).len()));
                vec![literals.into_iter().map(not).collect()]
            }
        })
    }

    /// The states of the transport header in which a match goes on, and those in which it drops the packet.
    pub(crate) fn header_sets(&self, need: L4Need) -> Option<(AxisId, Set, Set)> {
        let id = self.field_axis(Field::L4)?;
        let with = |wanted: fn(&Outcome) -> bool| {
            let states = hipac_classifier::L4::ALL.into_iter();
            let states = states.filter(|&l4| wanted(&header(need, l4))).map(|l4| (l4 as u32, l4 as u32));
            Set::new(states.collect())
        };
        let goes_on = with(|o| matches!(o, Outcome::Held));
        Some((id, goes_on, with(|o| matches!(o, Outcome::HeaderCutOff))))
    }

    /// The packets that have a connection, as they came.
    pub(crate) fn tracked(&self) -> Option<(AxisId, Set)> {
        let id = self.field_axis(Field::CtState)?;
        Some((id, self.axis(id).of_values(|x| (1..=3).contains(&(x & 7)))))
    }

    /// A packet of the region: with its usual values where the region has them.
    pub(crate) fn witness(&self, region: &[Interval]) -> Packet {
        // A protocol that people know, where the region has one.
        let protocol = [0u8, 6, 17].into_iter().find(|&protocol| {
            let packet = Packet { protocol, ..fields::default_packet(self.family) };
            self.field_axis(Field::Protocol).is_none_or(|id| {
                let (lo, hi) = region[usize::from(id)];
                self.axis(id).atom_of(&packet).is_some_and(|a| lo <= a && a <= hi)
            })
        });
        self.near(region, &Packet { protocol: protocol.unwrap_or(0), ..fields::default_packet(self.family) })
    }

    /// A packet of one of the regions that is simple to say.
    pub(crate) fn simplest<'r>(&self, regions: impl Iterator<Item = &'r Region>) -> Option<Packet> {
        const LOOKED_AT: usize = 32;
        let packets = regions.take(LOOKED_AT).map(|region| self.witness(region));
        packets.min_by_key(|p| (![0, 6, 17].contains(&p.protocol), packet_text::show(p).to_string().len()))
    }

    /// The packet of the region that differs from another in as few fields as the region allows.
    pub(crate) fn near(&self, region: &[Interval], usual: &Packet) -> Packet {
        let mut packet = *usual;
        for (axis, &interval) in self.axes.iter().zip(region) {
            if axis.atom_of(usual).is_some_and(|a| interval.0 <= a && a <= interval.1) {
                continue;
            }
            let atom = interval.0 as usize;
            match &axis.atoms {
                Atoms::Ranges(atoms) => {
                    fields::write_number(&mut packet, axis.field(), atoms[atom].0);
                }
                Atoms::Classes(classes) => {
                    let value = classes[atom].first().copied().unwrap_or(0);
                    fields::write_number(&mut packet, axis.field(), value);
                }
                Atoms::Bits { values, other } => {
                    let value = values.get(atom).copied().or(*other).unwrap_or(0);
                    let AxisKey::Bits(_, mask) = axis.key else { continue };
                    let before = fields::number(&packet, axis.field()) & !u128::from(mask);
                    fields::write_number(&mut packet, axis.field(), before | u128::from(value));
                }
                Atoms::Names(names) => {
                    let name = names.get(atom).map_or(InterfaceName::NONE, |n| n.1);
                    fields::write_interface(&mut packet, axis.field(), name);
                }
            }
        }
        packet
    }

    /// The atom of the packet on each axis.
    pub(crate) fn point(&self, packet: &Packet) -> Option<Vec<u32>> {
        self.axes.iter().map(|axis| axis.atom_of(packet)).collect()
    }
}

impl<'a> Seen<'a> {
    fn test(&mut self, family: Family, test: &'a Test) {
        let field = test.field;
        match &test.set {
            ValueSet::Interface { name, prefix } => {
                self.names.entry(field).or_default().insert((name.clone(), *prefix));
            }
            set if MARKS.contains(&field) => self.marks.extend(mark_value(set)),
            _ if CLASSES.contains(&field) => self.classes.entry(field).or_default().push(test),
            set => {
                let bounds = self.ranges.entry(field).or_default();
                bounds.extend(ranges_of(set, fields::number_max(family, field)).unwrap_or_default());
            }
        }
    }
}

/// Value and mask of a test of a mark.
fn mark_value(set: &ValueSet) -> Option<(u32, u32)> {
    match set {
        ValueSet::Masked { value, mask } => Some((u32::try_from(*value).ok()?, u32::try_from(*mask).ok()?)),
        ValueSet::Ranges(ranges) => match ranges[..] {
            // Wanted bits that are not looked at: never.
            [] => Some((1, 0)),
            [(lo, hi)] if lo == hi => Some((u32::try_from(lo).ok()?, u32::MAX)),
            [(0, hi)] if hi >= u128::from(u32::MAX) => Some((0, 0)),
            _ => None,
        },
        ValueSet::Interface { .. } | ValueSet::Member(_) => None,
    }
}

/// Groups of bits such that every mask of a test or effect is a union of groups. Bits that nobody looks at are
/// in none.
fn bit_groups(seen: &Seen<'_>) -> Vec<u32> {
    let mut masks: Vec<u32> = seen.marks.iter().map(|t| t.1).collect();
    let looked_at = masks.iter().fold(0, |a, m| a | m);
    for effect in &seen.effects {
        match *effect {
            Effect::Mark { clear, .. } | Effect::ConnMark { clear, .. } => masks.push(clear),
            Effect::SaveMark { ctmask, nfmask } | Effect::RestoreMark { ctmask, nfmask } => {
                masks.extend([ctmask, nfmask]);
            }
            _ => {}
        }
    }
    masks.sort_unstable();
    masks.dedup();
    let mut by_masks: BTreeMap<Vec<bool>, u32> = BTreeMap::new();
    for bit in (0..32).map(|i| 1u32 << i).filter(|b| looked_at & b != 0) {
        *by_masks.entry(masks.iter().map(|m| m & bit != 0).collect()).or_default() |= bit;
    }
    let mut groups: Vec<u32> = by_masks.into_values().collect();
    groups.sort_unstable();
    groups
}

/// The fields that later rules see changed by an effect.
fn changed_fields(effect: Effect) -> &'static [Field] {
    match effect {
        Effect::None => &[],
        Effect::Mark { .. } => &[Field::Mark],
        // Without a connection it does nothing: that must be known.
        Effect::ConnMark { .. } | Effect::SaveMark { .. } => &[Field::ConnMark, Field::CtState],
        Effect::RestoreMark { .. } => &[Field::Mark, Field::CtState],
        Effect::Tos { .. } => &[Field::Tos],
        Effect::TtlSet(_) | Effect::TtlAdd(_) | Effect::TtlSub(_) => &[Field::Ttl],
        Effect::Untrack => &[Field::CtState],
    }
}

/// All rules of a table.
pub(crate) fn rules_of(oracle: &Oracle<'_>, table: TableKind) -> impl Iterator<Item = RuleId> {
    let chains = oracle.ruleset().table(table).map_or(&[][..], |t| &t.chains).iter().enumerate();
    chains.flat_map(move |(chain, c)| {
        (0..c.rules.len()).filter_map(move |rule| RuleId::new(table, chain, rule))
    })
}

/// Field, negation and kind; then what ranges, a mask, or a name say.
type OrderOf<'t> = (Field, bool, u8, &'t [(u128, u128)], (u128, u128), &'t str, bool);

/// A test in an order of its own, for keeping each once.
#[derive(PartialEq, Eq)]
struct TestKey(Test);

impl TestKey {
    fn key(&self) -> OrderOf<'_> {
        let Test { field, negated, set } = &self.0;
        match set {
            ValueSet::Ranges(ranges) => (*field, *negated, 0, ranges, (0, 0), "", false),
            ValueSet::Masked { value, mask } => (*field, *negated, 1, &[], (*value, *mask), "", false),
            ValueSet::Interface { name, prefix } => (*field, *negated, 2, &[], (0, 0), name, *prefix),
            // Never among those that are kept: see `Space::new`.
            ValueSet::Member(_) => (*field, *negated, 3, &[], (0, 0), "", false),
        }
    }
}

impl Ord for TestKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for TestKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
