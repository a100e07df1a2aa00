//! What matches on IPv6 extension headers mean.
//!
//! Each of them looks at the first header of its kind, in whatever order the headers come, and fails
//! when there is none: so does what is negated. A field that says by itself that there is no header
//! (a length of 0, a type of 256) is tested within the values that headers have.
//!
//! Options inside of headers are asked for: their list has no end that a field could hold.

use crate::meaning::{Clause, Field, MatchMeaning, Residual, Test, ValueSet};
use crate::model::{Extension, Family, Setting};
use crate::value::Value;

use super::meaning::{merged, test, value_set};
use super::spec::setting;

/// The values that a field has where there is a header.
fn values_there(field: Field) -> (u128, u128) {
    match field {
        Field::AhLength => (8, 1028),
        Field::RtType | Field::RtSegments => (0, 255),
        Field::RtLength | Field::DstLength | Field::HbhLength => (8, 2048),
        _ => (0, u128::MAX),
    }
}

/// There is a header, and the field is in these ranges, or in none of them.
fn within(field: Field, ranges: &[(u128, u128)], negated: bool) -> Clause {
    let (first, last) = values_there(field);
    let mut inside = Vec::new();
    let mut next = first;
    for &(lo, hi) in ranges {
        let (lo, hi) = (lo.max(first), hi.min(last));
        if lo > hi {
            continue;
        }
        match negated {
            true if next < lo => inside.push((next, lo - 1)),
            true => {}
            false => inside.push((lo, hi)),
        }
        next = hi + 1;
    }
    if negated && next <= last {
        inside.push((next, last));
    }
    vec![Test { field, negated: false, set: merged(inside) }]
}

/// There is a header.
fn there(field: Field) -> Clause {
    within(field, &[values_there(field)], false)
}

/// The field is what a setting says, in a header that is there.
fn says(field: Field, setting: &Setting) -> Clause {
    match value_set(&setting.value) {
        ValueSet::Ranges(ranges) => within(field, &ranges, setting.negated),
        _ => vec![test(field, setting)],
    }
}

/// A header whose presence one field tells, and whose options test fields or are asked for.
fn header(extension: &Extension, presence: Field) -> MatchMeaning {
    let mut meaning = MatchMeaning { clauses: vec![there(presence)], ..MatchMeaning::default() };
    for s in &extension.settings {
        match s.option.field() {
            Some(field) if values_there(field) != (0, u128::MAX) => meaning.clauses.push(says(field, s)),
            Some(field) => meaning.clauses.push(vec![test(field, s)]),
            None => meaning.residual = Some(Residual::Pure),
        }
    }
    meaning
}

pub(super) fn rt(extension: &Extension, _: Family) -> MatchMeaning {
    header(extension, Field::RtType)
}

pub(super) fn hbh(extension: &Extension, _: Family) -> MatchMeaning {
    header(extension, Field::HbhLength)
}

pub(super) fn dst(extension: &Extension, _: Family) -> MatchMeaning {
    header(extension, Field::DstLength)
}

/// A length of 0 says nothing, negated or not; the flag wants a reserved field of zero.
pub(super) fn ah(extension: &Extension, _: Family) -> MatchMeaning {
    let mut meaning = MatchMeaning { clauses: vec![there(Field::AhLength)], ..MatchMeaning::default() };
    for s in &extension.settings {
        match s.option.field() {
            Some(Field::AhLength) if s.value == Value::Number(0) => {}
            Some(Field::AhLength) => meaning.clauses.push(says(Field::AhLength, s)),
            Some(Field::AhReserved) => {
                let set = ValueSet::Ranges(vec![(0, 0)]);
                meaning.clauses.push(vec![Test { field: Field::AhReserved, negated: false, set }]);
            }
            Some(field) => meaning.clauses.push(vec![test(field, s)]),
            None => {}
        }
    }
    meaning
}

/// The kernel looks at no length: a fragment header has one.
pub(super) fn frag(extension: &Extension, _: Family) -> MatchMeaning {
    const THERE: u128 = 8;
    const LATER: u128 = 4;
    const MORE: u128 = 2;
    const RESERVED: u128 = 1;
    let (mut value, mut mask) = (THERE, THERE);
    let mut clauses = Vec::new();
    for s in &extension.settings {
        match s.option.name {
            "fragid" => clauses.push(vec![test(Field::FragId, s)]),
            "fragres" => mask |= RESERVED,
            "fragfirst" => mask |= LATER,
            "fragmore" => (value, mask) = (value | MORE, mask | MORE),
            "fraglast" => mask |= MORE,
            _ => {}
        }
    }
    let set = ValueSet::Masked { value, mask };
    clauses.insert(0, vec![Test { field: Field::FragFlags, negated: false, set }]);
    MatchMeaning { clauses, ..MatchMeaning::default() }
}

/// These headers and no others, or (`--soft`) these among others; negated, not just these, or none of these.
/// Headers that break off never match.
pub(super) fn ipv6header(extension: &Extension, _: Family) -> MatchMeaning {
    let Some(Setting { value: Value::Set(headers), negated, .. }) = setting(&extension.settings, "header")
    else {
        return MatchMeaning::default();
    };
    let (headers, negated) = (u128::from(*headers), *negated);
    let is_soft = setting(&extension.settings, "soft").is_some();
    let holds = |there: u128| match (is_soft, negated) {
        (false, _) => (there == headers) != negated,
        (true, false) => there & headers == headers,
        (true, true) => there & headers == 0,
    };
    let values = (1..=0xff).filter(|&there| holds(there)).map(|there| (there, there));
    let set = merged(values.collect());
    let clauses = vec![vec![Test { field: Field::ExtHeaders, negated: false, set }]];
    MatchMeaning { clauses, ..MatchMeaning::default() }
}
