//! `hipac trace --why-not`: what would have to differ.

use std::io::Write;

use hipac_classifier::Packet;
use hipac_rules::{Ruleset, TableKind};
use hipac_verifier::explain::{self, why_not, why_not::Change};
use hipac_verifier::{Oracle, RuleId, packet_text};
use serde::Serialize;

use super::script;
use crate::args::Format;
use crate::args::answers::TraceOptions;
use crate::exit::Failure;
use crate::{input, output};

pub(super) fn answer(
    out: &mut impl Write,
    oracle: &Oracle<'_>,
    options: &TraceOptions,
    packet: &Packet,
    rule: &str,
    format: Format,
) -> Result<(), Failure> {
    let ruleset = oracle.ruleset();
    let entry = input::built_in_chain(ruleset, &options.table, options.chain.as_deref())?;
    let rule = find(ruleset, entry.0, rule)?;
    let found = why_not(oracle, entry, packet, rule, script(options)).map_err(Failure::new)?;
    if format == Format::Json {
        let json = Json {
            schema: "hipac.why-not/1",
            packet: packet_text::show(packet).to_string(),
            rule: rule.place(ruleset).to_string(),
            verdict: found.verdict.show(ruleset).to_string(),
            matched: found.is_matched,
            failing: &found.failing,
            nearest: found.nearest.as_ref().map(|c| ChangeJson::of(c, ruleset)),
            flip: found.flip.as_ref().map(|c| ChangeJson::of(c, ruleset)),
        };
        return output::json_line(out, &json);
    }
    writeln!(out, "{}", explain::trace::packet_words(packet))?;
    writeln!(out, "{}", found.verdict.show(ruleset))?;
    let place = rule.place(ruleset);
    if found.is_matched {
        writeln!(out, "{place} matches it")?;
    } else if found.is_tried {
        writeln!(out, "{place} is tried, and does not match:")?;
    } else {
        writeln!(out, "{place} is not tried: the packet does not get there")?;
    }
    for why in &found.failing {
        writeln!(out, "  {why}")?;
    }
    if !found.is_matched {
        change(out, "it would match", found.nearest.as_ref(), ruleset)?;
    }
    change(out, "the verdict would be another", found.flip.as_ref(), ruleset)
}

/// A rule by its line, or as `CHAIN:NUMBER`.
fn find(ruleset: &Ruleset, table: TableKind, text: &str) -> Result<RuleId, Failure> {
    let found = match text.rsplit_once(':') {
        Some((chain, number)) => {
            number.parse().ok().and_then(|number| RuleId::find(ruleset, table, chain, number))
        }
        None => text.parse::<u32>().ok().and_then(|line| {
            let chains = ruleset.table(table)?.chains.iter().enumerate();
            let mut rules = chains.flat_map(|(c, chain)| chain.rules.iter().enumerate().map(move |r| (c, r)));
            let (chain, (rule, _)) = rules.find(|(_, (_, rule))| rule.line == line)?;
            RuleId::new(table, chain, rule)
        }),
    };
    found.ok_or_else(|| {
        let table = table.name();
        Failure::new(format_args!(
            "table {table} has no rule `{text}`: give its line, or CHAIN:NUMBER as in FORWARD:3"
        ))
    })
}

fn change(
    out: &mut impl Write,
    what: &str,
    found: Option<&Change>,
    ruleset: &Ruleset,
) -> Result<(), Failure> {
    let Some(found) = found else {
        writeln!(out, "{what} for no change of up to three fields")?;
        return Ok(());
    };
    writeln!(out, "{what} with another {}:", found.fields.join(" and "))?;
    writeln!(out, "  {}", explain::trace::packet_words(&found.packet))?;
    for condition in &found.conditions {
        writeln!(out, "  where {condition}")?;
    }
    writeln!(out, "  {}", found.verdict.show(ruleset))?;
    Ok(())
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    packet: String,
    rule: String,
    verdict: String,
    matched: bool,
    failing: &'a [String],
    nearest: Option<ChangeJson<'a>>,
    flip: Option<ChangeJson<'a>>,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    packet: String,
    fields: &'a [&'static str],
    conditions: &'a [String],
    verdict: String,
}

impl<'a> ChangeJson<'a> {
    fn of(change: &'a Change, ruleset: &Ruleset) -> ChangeJson<'a> {
        ChangeJson {
            packet: packet_text::show(&change.packet).to_string(),
            fields: &change.fields,
            conditions: &change.conditions,
            verdict: change.verdict.show(ruleset).to_string(),
        }
    }
}
