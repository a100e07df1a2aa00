//! `hipac fmt`: the canonical form.

use std::io::Write;

use hipac_rules::{PrintOptions, print};

use crate::args::RulesFile;
use crate::exit::{Exit, Failure};
use crate::{input, output};

pub(crate) fn run(of: &RulesFile, counters: bool, keep_going: bool) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.accept(keep_going)?;
    let mut out = output::stdout();
    out.write_all(print(&rules.ruleset, &PrintOptions { counters, ..PrintOptions::default() }).as_bytes())?;
    out.flush()?;
    Ok(Exit::Clean)
}
