//! From settings to meanings: one function for all declared extensions.

use crate::meaning::{Clause, Effect, Field, L4Need, MatchMeaning, Residual, TargetMeaning, Test, ValueSet};
use crate::model::{Extension, ExtensionRef, Family, Setting};
use crate::value::Value;

use super::spec::{Ending, ExtensionSpec, Means};

/// What a match means.
pub(crate) fn match_meaning(extension: &Extension, family: Family) -> MatchMeaning {
    let ExtensionRef::Known(spec) = extension.spec else {
        return MatchMeaning { residual: Some(Residual::Unknown), ..MatchMeaning::default() };
    };
    if let Some(meaning) = spec.quirks.meaning {
        return meaning(extension, family);
    }
    let mut meaning = MatchMeaning { l4: need(spec, family), clauses: Vec::new(), residual: spec.residual };
    for setting in &extension.settings {
        match setting.option.means {
            Means::Nothing | Means::Effect(_) => {}
            Means::Tests(field) => meaning.clauses.push(vec![test(field, setting)]),
            Means::TestsEither(one, other) => either(one, other, setting, &mut meaning.clauses),
            Means::Clauses(clauses) => meaning.clauses.extend(clauses(setting, family)),
            Means::Residual(residual) => meaning.residual = stronger(meaning.residual, residual),
        }
    }
    meaning
}

/// The transport header that a match wants: part of what it means, but cheap.
pub(crate) fn l4_need(extension: &Extension, family: Family) -> L4Need {
    match extension.known_spec() {
        None => L4Need::default(),
        Some(spec) if spec.quirks.meaning.is_none() => need(spec, family),
        Some(_) => match_meaning(extension, family).l4,
    }
}

/// The declared need, in a family. The kernel drops the fragment at offset 8 by asking whether its offset is 1,
/// which counts units of 8 bytes in IPv4 and bytes in IPv6: there, no fragment's is.
fn need(spec: &ExtensionSpec, family: Family) -> L4Need {
    L4Need { drops_fragment_at_8: spec.l4.drops_fragment_at_8 && family == Family::V4, ..spec.l4 }
}

/// Whether a match may test one of these fields. Cheap, and never `false` for one that does.
pub(crate) fn may_test(extension: &Extension, fields: &[Field]) -> bool {
    let option_may = |means: &Means| match means {
        Means::Nothing | Means::Effect(_) | Means::Residual(_) => false,
        Means::Tests(field) => fields.contains(field),
        Means::TestsEither(one, other) => fields.contains(one) || fields.contains(other),
        Means::Clauses(_) => true,
    };
    extension.known_spec().is_some_and(|spec| {
        spec.quirks.meaning.is_some() || extension.settings.iter().any(|s| option_may(&s.option.means))
    })
}

/// What a target means.
pub(crate) fn target_meaning(extension: &Extension, _family: Family) -> TargetMeaning {
    let ExtensionRef::Known(spec) = extension.spec else {
        return TargetMeaning::Continue(Effect::None);
    };
    match spec.ending {
        Ending::Verdict => TargetMeaning::Verdict(spec.name),
        Ending::Return => TargetMeaning::Return,
        Ending::Continue => {
            if let Some(effect) = spec.quirks.effect {
                return TargetMeaning::Continue(effect(extension));
            }
            let declared = extension.settings.iter().find_map(|s| match s.option.means {
                Means::Effect(effect) => Some(effect(&s.value)),
                _ => None,
            });
            TargetMeaning::Continue(declared.unwrap_or(spec.effect))
        }
    }
}

/// The stronger claim of two: one stateful part makes the whole stateful.
fn stronger(a: Option<Residual>, b: Residual) -> Option<Residual> {
    let rank = |r: Residual| match r {
        Residual::Pure => 0,
        Residual::Stateful => 1,
        Residual::Unknown => 2,
    };
    Some(a.map_or(b, |a| if rank(a) >= rank(b) { a } else { b }))
}

/// The setting as a test of one field.
pub(super) fn test(field: Field, setting: &Setting) -> Test {
    Test { field, negated: setting.negated, set: value_set(&setting.value) }
}

/// One of two fields is in the set; negated, neither is.
fn either(one: Field, other: Field, setting: &Setting, clauses: &mut Vec<Clause>) {
    if setting.negated {
        clauses.push(vec![test(one, setting)]);
        clauses.push(vec![test(other, setting)]);
    } else {
        clauses.push(vec![test(one, setting), test(other, setting)]);
    }
}

/// The set of field values that a value names.
pub(super) fn value_set(value: &Value) -> ValueSet {
    match value {
        Value::Flag => ValueSet::Ranges(vec![(1, 1)]),
        Value::Number(n) => ValueSet::Ranges(vec![(u128::from(*n), u128::from(*n))]),
        Value::Range(lo, hi) => merged(vec![(u128::from(*lo), u128::from(*hi))]),
        Value::Ranges(ranges) => {
            merged(ranges.iter().map(|&(lo, hi)| (u128::from(lo), u128::from(hi))).collect())
        }
        Value::Network { address, mask } => ValueSet::Masked { value: *address, mask: *mask },
        Value::AddressRange(lo, hi) => merged(vec![(*lo, *hi)]),
        Value::Mac(bytes) => {
            let n = bytes.iter().fold(1u128, |n, &b| n << 8 | u128::from(b));
            ValueSet::Ranges(vec![(n, n)])
        }
        Value::Masked { value, mask } => {
            ValueSet::Masked { value: u128::from(*value), mask: u128::from(*mask) }
        }
        Value::Set(set) => merged((0..64).filter(|n| set >> n & 1 == 1).map(|n| (n, n)).collect()),
        Value::TcpFlags { mask, set } => {
            ValueSet::Masked { value: u128::from(*set), mask: u128::from(*mask) }
        }
        Value::IcmpType { kind, codes } => {
            let of_kind = u128::from(*kind) << 8;
            ValueSet::Ranges(vec![(of_kind | u128::from(codes.0), of_kind | u128::from(codes.1))])
        }
        Value::Text(text) => match text.strip_suffix('+') {
            Some(name) => ValueSet::Interface { name: name.into(), prefix: true },
            None => ValueSet::Interface { name: (&**text).into(), prefix: false },
        },
        // These stand only in options that no field decides.
        Value::Pair(_) | Value::MatchSet(_) | Value::Rate(_) | Value::Nat(_) | Value::Fraction(_) => {
            ValueSet::Ranges(vec![(0, u128::MAX)])
        }
    }
}

/// Ranges in rising order, disjoint, neighbours joined, those that hold nothing left out.
pub(super) fn merged(mut ranges: Vec<(u128, u128)>) -> ValueSet {
    ranges.retain(|(lo, hi)| lo <= hi);
    ranges.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (lo, hi) in ranges {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    ValueSet::Ranges(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_in_rising_order() {
        let set = merged(vec![(5, 6), (1, 2), (9, 8), (3, 3), (6, 10)]);
        assert_eq!(set, ValueSet::Ranges(vec![(1, 3), (5, 10)]));
    }
}
