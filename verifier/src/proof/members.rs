//! IP sets in a proof: which bit of the key stands for which set of the rules.
//!
//! An image keeps a lookup table for each use of a set, and the bit that it fills. Here each is read back and
//! held against what the rules' own set makes; a bit stands for a use when both look at the same
//! columns and hold the same values. To the rest of the proof the bits are free: an image that is right for all
//! of them is right for those that packets have.

use std::collections::HashMap;
use std::sync::Arc;

use hipac_classifier::sets::{Column as Stored, Form, SetUse};
use hipac_classifier::{Dim, Image};
use hipac_rules::ipset::{Column, Membership};
use hipac_rules::{Family, Field, Ruleset, ValueSet};

use crate::members;

/// The bits of all uses.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    places: HashMap<Arc<Membership>, (Dim, u8)>,
    /// Bits in use, by number of dimension.
    used: HashMap<Dim, u32>,
    /// Uses that the image has no table for.
    pub(super) missing: Vec<Arc<Membership>>,
}

impl Members {
    /// Reads the image's sets beside those of the rules.
    pub(super) fn new<B: AsRef<[u8]>>(ruleset: &Ruleset, image: &Image<B>) -> Members {
        let keys = image.key_maker();
        let stored: Vec<SetUse<'_>> = keys.sets().uses().collect();
        let mut out = Members::default();
        for one in &stored {
            *out.used.entry(one.dim).or_default() |= 1 << one.bit;
        }
        for rule in ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
            for extension in rule.matches.iter().filter(|e| e.may_test(&[Field::Membership])) {
                for test in extension.match_meaning(ruleset.family).clauses.iter().flatten() {
                    let ValueSet::Member(wanted) = &test.set else { continue };
                    if out.places.contains_key(wanted) || out.missing.contains(wanted) {
                        continue;
                    }
                    match stored.iter().find(|one| is_same(wanted, one, ruleset.family)) {
                        Some(one) => {
                            out.places.insert(Arc::clone(wanted), (one.dim, one.bit));
                        }
                        None => out.missing.push(Arc::clone(wanted)),
                    }
                }
            }
        }
        out
    }

    /// The bit that says whether a packet is in a set.
    pub(super) fn place(&self, membership: &Membership) -> Option<(Dim, u8)> {
        self.places.get(membership).copied()
    }

    /// A packet can have these bits.
    pub(super) fn is_possible(&self, dim: Dim, bits: u32) -> bool {
        bits & !self.used.get(&dim).copied().unwrap_or(0) == 0
    }

    /// The sets whose bits are among these.
    pub(super) fn of_bits(&self, dim: Dim, bits: u32) -> impl Iterator<Item = &Arc<Membership>> {
        self.places.iter().filter(move |(_, (d, bit))| *d == dim && bits >> bit & 1 == 1).map(|(m, _)| m)
    }

    /// The columns that some set looks at.
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        self.places.keys().flat_map(|m| m.columns.iter().copied())
    }
}

/// The image's table looks at what the rules' set looks at, and holds what it holds.
fn is_same(wanted: &Membership, stored: &SetUse<'_>, family: Family) -> bool {
    let columns: Vec<Stored> = wanted.columns.iter().map(|c| stored_column(*c)).collect();
    if !stored.columns().eq(columns) {
        return false;
    }
    match stored.form {
        Form::Ranges => {
            let max = match wanted.columns[..] {
                [Column::Address(_)] => family.full_mask(),
                [Column::BarePort(_)] => u16::MAX.into(),
                _ => return false,
            };
            let Some(ranges) = members::ranges(wanted, max) else { return false };
            let behind = |hi: u128| hi.checked_add(1).filter(|&b| b <= max);
            let bounds = ranges.into_iter().flat_map(|(lo, hi)| std::iter::once(lo).chain(behind(hi)));
            stored.bounds().eq(bounds)
        }
        Form::Tuples => {
            let table = members::table(wanted, family);
            let mut profiles = stored.profiles();
            table.iter().all(|(mask, rows)| {
                profiles.next().is_some_and(|p| {
                    p.mask.starts_with(mask)
                        && p.mask[mask.len()..].iter().all(|&b| b == 0)
                        && p.rows().eq(rows.iter().map(|(row, is_in)| (row.as_slice(), *is_in)))
                })
            }) && profiles.next().is_none()
        }
    }
}

fn stored_column(column: Column) -> Stored {
    match column {
        Column::Address(Field::Source) => Stored::Source,
        Column::Address(_) => Stored::Destination,
        Column::Port(Field::SourcePort) => Stored::SourcePort,
        Column::Port(_) => Stored::DestinationPort,
        Column::BarePort(Field::SourcePort) => Stored::BareSourcePort,
        Column::BarePort(_) => Stored::BareDestinationPort,
        Column::Interface(Field::InInterface) => Stored::InInterface,
        Column::Interface(_) => Stored::OutInterface,
        Column::Mac => Stored::Mac,
        Column::Mark => Stored::Mark,
    }
}
