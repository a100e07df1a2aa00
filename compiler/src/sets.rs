//! IP sets that rules name: which bit of the key says what, and their lookup tables.
//!
//! Why a bit and not boxes: see [`hipac_classifier::sets`]. Uses are spread over the dimensions that there are
//! for them; up to sixteen have one each, so that a test is one interval, up to 128 share them. A bit is
//! taken from the top, because "bit 7 is set" is one interval of a byte and "bit 0 is set" 128; the uses
//! that most rules name get the best ones.
//!
//! # Cost
//! Linear in the entries, but for sorting them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hipac_classifier::Dim;
use hipac_classifier::sets::{HEAD_BYTES, PROFILE_BYTES, ROW_BYTES_MAX, TABLE_BITS, USE_BYTES};
use hipac_rules::ipset::{Column, ColumnKind, Membership, Part};
use hipac_rules::{Family, Field, Rule, Ruleset, ValueSet};

use crate::compile::CompileError;
use crate::interval::IntervalSet;

/// Uses of sets in one image, at most.
const USES_MAX: usize = 8 * Dim::SETS;

/// Fewer bounds need no table before them.
const TABLE_FROM: usize = 64;

/// The uses of sets in a ruleset, by the bit that says each.
#[derive(Debug, Clone, Default)]
pub struct SetPlan {
    uses: Vec<Arc<Membership>>,
    index: HashMap<Arc<Membership>, usize, RandomState>,
}

impl SetPlan {
    /// Collects the uses.
    ///
    /// # Errors
    /// There are more than fit.
    pub fn of(ruleset: &Ruleset) -> Result<SetPlan, CompileError> {
        let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        SetPlan::of_rules(rules, ruleset.family)
    }

    /// The same for any rules.
    pub(crate) fn of_rules<'r>(
        rules: impl Iterator<Item = &'r Rule>,
        family: Family,
    ) -> Result<SetPlan, CompileError> {
        let mut found: Vec<(usize, Arc<Membership>)> = Vec::new();
        let mut index: HashMap<Arc<Membership>, usize, RandomState> = HashMap::default();
        for rule in rules {
            each_membership(rule, family, &mut |membership| {
                let at = *index.entry(Arc::clone(membership)).or_insert_with(|| {
                    found.push((0, Arc::clone(membership)));
                    found.len() - 1
                });
                found[at].0 += 1;
            });
        }
        if found.len() > USES_MAX {
            let what =
                "uses of IP sets (a set, looked up by certain fields; merge sets that rules name alike)";
            return Err(CompileError::TooLarge { what, count: found.len(), limit: USES_MAX });
        }
        found.sort_by_key(|(count, _)| Reverse(*count)); // stable: then by first use
        let uses: Vec<Arc<Membership>> = found.into_iter().map(|(_, m)| m).collect();
        let index = uses.iter().cloned().zip(0..).collect();
        Ok(SetPlan { uses, index })
    }

    /// The same uses, with what their sets have become. Each keeps its bit.
    pub(crate) fn changed(&self, now: &dyn Fn(&Arc<Membership>) -> Arc<Membership>) -> SetPlan {
        let uses: Vec<Arc<Membership>> = self.uses.iter().map(now).collect();
        let index = uses.iter().cloned().zip(0..).collect();
        SetPlan { uses, index }
    }

    /// All sets that a rule names have their bits.
    pub(crate) fn knows(&self, rule: &Rule, family: Family) -> bool {
        let mut is_known = true;
        each_membership(rule, family, &mut |membership| is_known &= self.index.contains_key(membership));
        is_known
    }

    /// The dimension and the bit of the use of that number.
    fn place(number: usize) -> (Dim, u8) {
        let dim = Dim::of_sets(number % Dim::SETS).unwrap_or(Dim::Set0);
        (dim, 7 - (number / Dim::SETS) as u8)
    }

    /// The values for which a packet is in the set.
    pub fn values(&self, membership: &Membership) -> Option<(Dim, IntervalSet)> {
        let (dim, bit) = SetPlan::place(*self.index.get(membership)?);
        Some((dim, IntervalSet::of_small(dim.max(), |x| x >> bit & 1 == 1)))
    }

    /// The section of the image; nothing without sets. `name_index` puts a name into the image.
    ///
    /// # Errors
    /// It is larger than its offsets can say.
    pub fn encode(
        &self,
        family: Family,
        mut name_index: impl FnMut(&str) -> u32,
    ) -> Result<Vec<u8>, CompileError> {
        if self.uses.is_empty() {
            return Ok(Vec::new());
        }
        let mut out = vec![0; HEAD_BYTES + USE_BYTES * self.uses.len()];
        put(&mut out, 0, self.uses.len())?;
        for (number, membership) in self.uses.iter().enumerate() {
            let at = HEAD_BYTES + USE_BYTES * number;
            let (dim, bit) = SetPlan::place(number);
            let data = Data::of(membership, family);
            put(&mut out, at, name_index(&membership.to_string()) as usize)?;
            out[at + 4..at + 7].copy_from_slice(&[dim.number(), bit, data.form()]);
            out[at + 8..at + 12].fill(255);
            for (i, column) in membership.columns.iter().enumerate() {
                out[at + 8 + i] = column_number(*column);
            }
            data.write(&mut out, at)?;
        }
        Ok(out)
    }
}

/// Calls `f` with each use of a set in a rule.
fn each_membership(rule: &Rule, family: Family, f: &mut impl FnMut(&Arc<Membership>)) {
    for extension in rule.matches.iter().filter(|e| e.may_test(&[Field::Membership])) {
        for test in extension.match_meaning(family).clauses.iter().flatten() {
            if let ValueSet::Member(membership) = &test.set {
                f(membership);
            }
        }
    }
}

fn column_number(column: Column) -> u8 {
    use hipac_classifier::sets::Column as Stored;
    let of = |field: Field, source, destination| {
        if matches!(field, Field::Source | Field::SourcePort | Field::InInterface) {
            source
        } else {
            destination
        }
    };
    (match column {
        Column::Address(field) => of(field, Stored::Source, Stored::Destination),
        Column::Port(field) => of(field, Stored::SourcePort, Stored::DestinationPort),
        Column::BarePort(field) => of(field, Stored::BareSourcePort, Stored::BareDestinationPort),
        Column::Interface(field) => of(field, Stored::InInterface, Stored::OutInterface),
        Column::Mac => Stored::Mac,
        Column::Mark => Stored::Mark,
    }) as u8
}

fn put(out: &mut [u8], at: usize, value: usize) -> Result<(), CompileError> {
    let limit = u32::MAX as usize;
    let value = u32::try_from(value).map_err(|_| CompileError::TooLarge {
        what: "bytes of IP sets",
        count: value,
        limit,
    })?;
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// Masks of the networks in the first and second column that have some, the longer first; then what
/// looks at more; then the mask itself.
type Rank = (Reverse<u32>, Reverse<u32>, Reverse<u32>, Vec<u8>);

/// What a use becomes.
enum Data {
    Ranges { bounds: Vec<u128>, width: usize, has_table: bool },
    Tuples { profiles: BTreeMap<Rank, BTreeMap<Vec<u8>, bool>>, width: usize },
}

impl Data {
    fn of(membership: &Membership, family: Family) -> Data {
        match ranges(membership, family) {
            Some(ranges) => {
                let is_address = matches!(membership.columns[0], Column::Address(_));
                let max = if is_address { family.full_mask() } else { 0xffff };
                let width = if is_address && family == Family::V6 { 16 } else { 4 };
                let mut bounds = Vec::with_capacity(2 * ranges.len());
                for (lo, hi) in ranges {
                    bounds.push(lo);
                    if hi < max {
                        bounds.push(hi + 1);
                    }
                }
                let has_table = is_address && width == 4 && bounds.len() >= TABLE_FROM;
                Data::Ranges { bounds, width, has_table }
            }
            None => tuples(membership, family),
        }
    }

    fn form(&self) -> u8 {
        match self {
            Data::Ranges { .. } => 0,
            Data::Tuples { .. } => 1,
        }
    }

    /// Appends the data and completes the record.
    fn write(&self, out: &mut Vec<u8>, record: usize) -> Result<(), CompileError> {
        out.resize(out.len().next_multiple_of(4), 0);
        let start = out.len();
        put(out, record + 12, start)?;
        match self {
            Data::Ranges { bounds, width, has_table } => {
                bounds.iter().for_each(|b| out.extend(&b.to_le_bytes()[..*width]));
                put(out, record + 16, bounds.len())?;
                put(out, record + 20, *width)?;
                if *has_table {
                    let table = out.len();
                    put(out, record + 24, table)?;
                    for cell in 0..=1u128 << TABLE_BITS {
                        let below = bounds.partition_point(|&b| b < cell << (32 - TABLE_BITS));
                        out.extend((below as u32).to_le_bytes());
                    }
                }
            }
            Data::Tuples { profiles, width } => {
                put(out, record + 16, profiles.len())?;
                put(out, record + 20, *width)?;
                out.resize(start + PROFILE_BYTES * profiles.len(), 0);
                for (i, ((.., mask), rows)) in profiles.iter().enumerate() {
                    let profile = start + PROFILE_BYTES * i;
                    out[profile..profile + mask.len()].copy_from_slice(mask);
                    put(out, profile + ROW_BYTES_MAX, rows.len())?;
                    let first = out.len();
                    put(out, profile + ROW_BYTES_MAX + 4, first)?;
                    for (row, is_in) in rows {
                        out.extend(row);
                        out.push(u8::from(*is_in));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The values in a set of one column, as rising ranges that do not touch; `None` for other sets.
fn ranges(membership: &Membership, family: Family) -> Option<Vec<(u128, u128)>> {
    let [Column::Address(_) | Column::BarePort(_)] = membership.columns[..] else { return None };
    let full = family.full_mask();
    let mut entries: Vec<(u128, Reverse<u128>, bool)> = Vec::with_capacity(membership.set.len());
    for (parts, is_nomatch) in membership.set.entries() {
        let (lo, hi) = match parts {
            [Part::Range(lo, hi)] => (*lo, *hi),
            [Part::Masked { value, mask }] => {
                let free = full & !mask;
                if free & free.wrapping_add(1) != 0 {
                    return None;
                }
                (*value, value | free)
            }
            _ => return None,
        };
        entries.push((lo, Reverse(hi), is_nomatch));
    }
    // Stable, and outer networks first: of two that are equal the first one counts.
    entries.sort_by_key(|&(lo, hi, _)| (lo, hi));
    entries.dedup_by_key(|e| (e.0, e.1));
    let has_order = entries.iter().any(|e| e.2) || membership.wants_nomatch;
    let mut out = Merged(Vec::with_capacity(entries.len()));
    if !has_order {
        entries.iter().for_each(|&(lo, Reverse(hi), _)| out.add(lo, hi));
        return Some(out.0);
    }
    // Networks lie within each other or apart: the innermost decides.
    let mut open: Vec<(u128, bool)> = Vec::new();
    // The first value that is not dealt with; `None`: all are.
    let mut next = Some(0);
    let mut close = |open: &mut Vec<(u128, bool)>, next: &mut Option<u128>, before: Option<u128>| {
        while let Some(&(hi, is_in)) = open.last() {
            if before.is_some_and(|b| hi >= b) {
                return;
            }
            if let Some(at) = next.filter(|&at| at <= hi) {
                if is_in {
                    out.add(at, hi);
                }
                *next = hi.checked_add(1);
            }
            open.pop();
        }
    };
    let mut pieces: Vec<(u128, u128)> = Vec::new();
    for (lo, Reverse(hi), is_nomatch) in entries {
        close(&mut open, &mut next, Some(lo));
        if let Some(&(_, true)) = open.last()
            && let Some(at) = next.filter(|&at| at < lo)
        {
            pieces.push((at, lo - 1));
        }
        next = Some(lo);
        open.push((hi, is_nomatch == membership.wants_nomatch));
    }
    close(&mut open, &mut next, None);
    pieces.extend(out.0);
    pieces.sort_unstable();
    let mut out = Merged(Vec::with_capacity(pieces.len()));
    pieces.into_iter().for_each(|(lo, hi)| out.add(lo, hi));
    Some(out.0)
}

/// Rising ranges in the making: those that overlap or touch become one.
struct Merged(Vec<(u128, u128)>);

impl Merged {
    fn add(&mut self, lo: u128, hi: u128) {
        match self.0.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => self.0.push((lo, hi)),
        }
    }
}

fn tuples(membership: &Membership, family: Family) -> Data {
    let mut profiles: BTreeMap<Rank, BTreeMap<Vec<u8>, bool>> = BTreeMap::new();
    let mut width = 0;
    for (parts, is_nomatch) in membership.set.entries() {
        let (mut row, mut mask) = (Vec::with_capacity(24), Vec::with_capacity(24));
        let mut networks: Vec<u32> = Vec::new();
        for (part, kind) in parts.iter().zip(membership.set.kind.columns) {
            if let (ColumnKind::Net, Part::Masked { mask, .. }) = (kind, part) {
                networks.push(mask.count_ones());
            }
            part_bytes(part, *kind, family, &mut row, &mut mask);
        }
        width = row.len();
        let bits: u32 = mask.iter().map(|b| b.count_ones()).sum();
        let length = |i: usize| Reverse(networks.get(i).copied().unwrap_or(0));
        let rows = profiles.entry((length(0), length(1), Reverse(bits), mask)).or_default();
        // Of two that are equal the first one counts.
        rows.entry(row).or_insert(is_nomatch == membership.wants_nomatch);
    }
    Data::Tuples { profiles, width }
}

fn part_bytes(part: &Part, kind: ColumnKind, family: Family, row: &mut Vec<u8>, mask: &mut Vec<u8>) {
    let address_bytes = if family == Family::V6 { 16 } else { 4 };
    match part {
        Part::Masked { value, mask: m } => {
            let bytes = if kind == ColumnKind::Mark { 4 } else { address_bytes };
            row.extend(&value.to_be_bytes()[16 - bytes..]);
            mask.extend(&m.to_be_bytes()[16 - bytes..]);
        }
        // In sets of one column only, where `ranges` has taken it; a single value all the same.
        Part::Range(lo, _) => {
            row.extend(&lo.to_be_bytes()[16 - address_bytes..]);
            mask.resize(mask.len() + address_bytes, 0xff);
        }
        Part::Port { protocol, port } => {
            row.push(*protocol);
            row.extend(port.to_be_bytes());
            mask.extend([0xff; 3]);
        }
        Part::Mac(Some(mac)) => {
            row.extend(mac);
            mask.extend([0xff; 6]);
        }
        Part::Mac(None) => {
            row.extend([0; 6]);
            mask.extend([0; 6]);
        }
        Part::Interface { name, is_prefix } => {
            let mut bytes = [0; 16];
            let shown = name.len().min(15);
            bytes[..shown].copy_from_slice(&name.as_bytes()[..shown]);
            let looked_at = if *is_prefix { shown } else { 16 };
            row.extend(bytes);
            mask.extend((0..16).map(|i| if i < looked_at { 0xff } else { 0 }));
        }
    }
}
