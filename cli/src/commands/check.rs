//! `hipac check`: every fault with its place, and what a ruleset holds.

use std::collections::BTreeSet;
use std::io::Write;

use hipac_rules::fault::Severity;
use hipac_rules::ipset::Unbound;
use hipac_rules::{Family, Ruleset, Target};
use serde::Serialize;

use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, FaultLine, Rules};
use crate::output::{self, counted, grouped, list};

pub(crate) fn run(of: &RulesFile, format: Format) -> Result<Exit, Failure> {
    let mut rules = input::rules(of)?;
    let warnings = Unbound::warnings(&rules.unbound, &rules.text);
    rules.faults.extend(warnings);
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Report::of(&rules))?,
        Format::Text => {
            // Findings are what was asked for: they are the result, not diagnostics.
            let faults = hipac_rules::fault::render_all(&rules.faults, &rules.name, &rules.text);
            write!(out, "{faults}")?;
            if !faults.is_empty() {
                writeln!(out)?;
            }
            summary(&mut out, &rules)?;
        }
    }
    out.flush()?;
    Ok(if rules.faults.is_empty() { Exit::Clean } else { Exit::Findings })
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    file: &'a str,
    family: &'static str,
    tables: Vec<&'static str>,
    chains: usize,
    user_chains: usize,
    rules: usize,
    dimensions: Vec<&'static str>,
    native_matches: usize,
    residual_matches: usize,
    residual_names: Vec<String>,
    errors: usize,
    warnings: usize,
    faults: Vec<FaultLine<'a>>,
}

impl<'a> Report<'a> {
    fn of(rules: &'a Rules) -> Report<'a> {
        let facts = Facts::of(&rules.ruleset);
        let count = |severity| rules.faults.iter().filter(|f| f.severity == severity).count();
        Report {
            schema: "hipac.check/1",
            file: &rules.name,
            family: family_name(rules.ruleset.family),
            tables: rules.ruleset.tables.iter().map(|t| t.kind.name()).collect(),
            chains: facts.chains,
            user_chains: facts.user_chains,
            rules: rules.ruleset.rule_count(),
            dimensions: facts.dimensions.into_iter().collect(),
            native_matches: facts.native,
            residual_matches: facts.residual,
            residual_names: facts.residual_names.into_iter().collect(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            faults: rules.faults.iter().map(FaultLine::of).collect(),
        }
    }
}

/// What a ruleset holds.
#[derive(Default)]
struct Facts {
    chains: usize,
    user_chains: usize,
    jumps: usize,
    /// Fields tested natively.
    dimensions: BTreeSet<&'static str>,
    native: usize,
    residual: usize,
    residual_names: BTreeSet<String>,
}

impl Facts {
    fn of(ruleset: &Ruleset) -> Facts {
        let mut facts = Facts::default();
        for chain in ruleset.tables.iter().flat_map(|t| &t.chains) {
            facts.chains += 1;
            facts.user_chains += usize::from(chain.hook.is_none());
            for rule in &chain.rules {
                facts.jumps += usize::from(matches!(rule.target, Target::Jump(_) | Target::Goto(_)));
                facts.rule(rule, ruleset.family);
            }
        }
        facts
    }

    fn rule(&mut self, rule: &hipac_rules::Rule, family: Family) {
        let ip = &rule.ip;
        let parts = [
            ("source", ip.source.mask != 0),
            ("destination", ip.destination.mask != 0),
            ("in-interface", ip.in_interface.name.is_some()),
            ("out-interface", ip.out_interface.name.is_some()),
            ("protocol", ip.protocol.number != 0),
            ("fragment", ip.fragment != hipac_rules::FragmentTest::Any),
        ];
        self.dimensions.extend(parts.into_iter().filter(|p| p.1).map(|p| p.0));
        for extension in &rule.matches {
            let meaning = extension.match_meaning(family);
            self.dimensions.extend(meaning.clauses.iter().flatten().map(|t| t.field.name()));
            match meaning.residual {
                None => self.native += 1,
                Some(_) => {
                    self.residual += 1;
                    self.residual_names.insert(extension.name().to_owned());
                }
            }
        }
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn summary(out: &mut impl Write, rules: &Rules) -> Result<(), Failure> {
    let ruleset = &rules.ruleset;
    let facts = Facts::of(ruleset);
    let count = |severity| rules.faults.iter().filter(|f| f.severity == severity).count();
    let errors = counted(count(Severity::Error), "error");
    let warnings = counted(count(Severity::Warning), "warning");
    writeln!(out, "{}: {errors}, {warnings}", rules.name)?;
    let mut line = |name: &str, value: &str| writeln!(out, "  {name:<18}{value}");
    line("family", family_name(ruleset.family))?;
    let tables: Vec<&str> = ruleset.tables.iter().map(|t| t.kind.name()).collect();
    line("tables", &list(&tables, VALUES_COLUMN))?;
    let built_in = grouped(facts.chains - facts.user_chains);
    line("chains", &format!("{built_in} built-in, {} of the user's", grouped(facts.user_chains)))?;
    let jumps =
        if facts.jumps > 0 { format!(", {} of them jumps", grouped(facts.jumps)) } else { String::new() };
    line("rules", &format!("{}{jumps}", grouped(ruleset.rule_count())))?;
    let dimensions: Vec<&str> = facts.dimensions.into_iter().collect();
    line("dimensions", &list(&dimensions, VALUES_COLUMN))?;
    line("native matches", &grouped(facts.native))?;
    let names: Vec<&str> = facts.residual_names.iter().map(String::as_str).collect();
    let residual = grouped(facts.residual);
    match facts.residual {
        0 => line("residual matches", "0")?,
        _ => {
            let names = list(&names, VALUES_COLUMN + residual.len() + 2);
            line("residual matches", &format!("{residual}: {names}"))?;
        }
    }
    Ok(())
}

/// Where the values of the summary begin.
const VALUES_COLUMN: usize = 20;
