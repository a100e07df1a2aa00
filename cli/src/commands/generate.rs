//! `hipac generate`: rules to measure with.

use std::io::Write;

use clap::ValueEnum;
use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::{
    Filter, FilterFamily, classbench, classbench_gen, iptables_gen, ruleset::ruleset_of_family,
};
use hipac_rules::{Family, PrintOptions, print};

use crate::args::Made;
use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) fn run(
    kind: Made,
    (rules, seed): (u32, u64),
    is_v6: bool,
    as_filters: bool,
) -> Result<Exit, Failure> {
    let family = if is_v6 { Family::V6 } else { Family::V4 };
    let mut out = output::stdout();
    match (filters(kind, rules, seed)?, as_filters) {
        (Some(filters), true) => classbench::write_filters(&mut out, &filters)?,
        (Some(filters), false) => {
            let ruleset = ruleset_of_family(&filters, family).map_err(Failure::new)?;
            out.write_all(print(&ruleset, &PrintOptions::default()).as_bytes())?;
        }
        (None, true) => return Err(Failure::new("a gateway's rules are no filters: leave --filters out")),
        (None, false) => {
            let options = iptables_gen::Options::new(family, rules, seed);
            out.write_all(iptables_gen::generate(&options).map_err(Failure::new)?.as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

/// The filters of a kind; `None` when it is made of rules.
fn filters(kind: Made, rules: u32, seed: u64) -> Result<Option<Vec<Filter>>, Failure> {
    let value = kind.to_possible_value();
    let name = value.as_ref().map_or("", |value| value.get_name());
    if let Some(family) = FilterFamily::from_name(name) {
        let options = classbench_gen::Options::new(rules, seed);
        return classbench_gen::generate(&family.parameters(), &options).map(Some).map_err(Failure::new);
    }
    let hostile = Hostile::from_name(name);
    hostile.map(|kind| kind.generate(rules, seed)).transpose().map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_the_gateway_makes_filters() {
        for kind in Made::value_variants() {
            let made = filters(*kind, 50, 1).unwrap();
            assert_eq!(made.is_some(), *kind != Made::Gateway, "{kind:?}");
            assert!(made.is_none_or(|filters| filters.len() == 50), "{kind:?}");
        }
    }
}
