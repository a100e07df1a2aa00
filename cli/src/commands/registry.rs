//! `hipac matches` and `hipac targets`: what the language has, read off the table that reads rules.

use std::io::Write;

use hipac_rules::Family;
use hipac_rules::registry::{self, ExtensionSpec, KernelCheck, Kind, OptionSpec};
use serde::Serialize;

use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::output;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) kind: Kind,
    /// One of them [all].
    pub(crate) name: Option<&'a str>,
    /// One option of it.
    pub(crate) option: Option<&'a str>,
    /// Those of one family; none: of both.
    pub(crate) family: Option<Family>,
}

pub(crate) fn run(question: Question<'_>, format: Format) -> Result<Exit, Failure> {
    let found = find(question)?;
    let mut out = output::stdout();
    match format {
        Format::Json => {
            for spec in &found {
                output::json_line(&mut out, &Line::of(spec, question.option))?;
            }
        }
        Format::Text if question.name.is_none() => all(&mut out, &found)?,
        Format::Text => {
            for (i, spec) in found.iter().enumerate() {
                if i > 0 {
                    writeln!(out)?;
                }
                match question.option {
                    None => one(&mut out, spec)?,
                    Some(name) => {
                        for option in options(spec, Some(name)) {
                            one_option(&mut out, option)?;
                        }
                    }
                }
            }
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

/// The entries asked for: of one name there may be one for each family.
fn find(question: Question<'_>) -> Result<Vec<&'static ExtensionSpec>, Failure> {
    let Question { kind, name, option, family } = question;
    let (word, sign) = if kind == Kind::Match { ("match", "-m") } else { ("target", "-j") };
    let is_of = |s: &&ExtensionSpec| s.kind == kind && family.is_none_or(|f| s.families.has(f));
    let mut found: Vec<&'static ExtensionSpec> = registry::all().filter(is_of).collect();
    let Some(name) = name else {
        found.sort_by_key(|s| s.name);
        return Ok(found);
    };
    found.retain(|s| s.is_named(name));
    if found.is_empty() {
        let nearest = registry::nearest(kind, name, family.unwrap_or(Family::V4));
        let remedy = nearest.map_or(String::new(), |n| format!(": did you mean `{sign} {n}`?"));
        return Err(Failure::new(format_args!("there is no {word} `{name}`{remedy}")));
    }
    if let Some(option) = option {
        found.retain(|s| !options(s, Some(option)).is_empty());
        if found.is_empty() {
            return Err(Failure::new(format_args!("{word} `{name}` has no option `{option}`")));
        }
    }
    Ok(found)
}

/// The options of an entry, or the one of that name, with or without its dashes.
fn options(spec: &'static ExtensionSpec, name: Option<&str>) -> Vec<&'static OptionSpec> {
    let wanted = name.map(|n| n.trim_start_matches('-'));
    spec.options.iter().filter(|o| wanted.is_none_or(|n| o.is_named(n))).collect()
}

fn all(out: &mut impl Write, found: &[&'static ExtensionSpec]) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|s| {
            let how = s.evaluation().map_or_else(|| s.ending_name().unwrap_or(""), |e| e.name());
            vec![s.name.to_owned(), s.family_names().to_owned(), how.to_owned(), s.help.to_owned()]
        })
        .collect();
    write!(out, "{}", output::columns(&["name", "family", "evaluated", "what"], &rows))?;
    Ok(())
}

fn one(out: &mut impl Write, spec: &'static ExtensionSpec) -> Result<(), Failure> {
    let sign = if spec.kind == Kind::Match { "-m" } else { "-j" };
    writeln!(out, "{sign} {}: {}", spec.name, spec.help)?;
    let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12}{value}");
    line("family", spec.family_names())?;
    if !spec.aliases.is_empty() {
        line("also", &spec.aliases.join(", "))?;
    }
    for condition in spec.conditions() {
        line("needs", &condition)?;
    }
    match spec.evaluation() {
        Some(evaluation) => line("evaluated", evaluation.name())?,
        None => line("then", spec.ending_name().unwrap_or(""))?,
    }
    for law in spec.law_sentences() {
        line("law", &law)?;
    }
    if spec.options.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> =
        spec.options.iter().map(|o| vec![format!("  {}", o.synopsis()), notes(o)]).collect();
    let width = rows.iter().map(|r| r[0].chars().count()).max().unwrap_or(0);
    for row in rows {
        writeln!(out, "{}", format!("{:width$}  {}", row[0], row[1]).trim_end())?;
    }
    Ok(())
}

/// Help, and what else a line may say.
fn notes(option: &OptionSpec) -> String {
    let mut notes = vec![option.help.to_owned()];
    if option.required {
        notes.push("required".to_owned());
    }
    if option.repeats {
        notes.push("may be repeated".to_owned());
    }
    if let Some(text) = option.default_text() {
        notes.push(format!("default {text}"));
    }
    if !option.aliases.is_empty() {
        notes.push(format!(
            "also {}",
            option.aliases.iter().map(|a| format!("--{a}")).collect::<Vec<_>>().join(", ")
        ));
    }
    notes.join("; ")
}

fn one_option(out: &mut impl Write, option: &'static OptionSpec) -> Result<(), Failure> {
    writeln!(out, "{}: {}", option.synopsis(), notes(option))?;
    let accepted = option.value.accepted();
    if let Some((min, max)) = accepted.numbers {
        writeln!(out, "  numbers {min} to {max}")?;
    }
    if let Some(bytes) = accepted.text_bytes_max {
        writeln!(out, "  text of up to {bytes} bytes")?;
    }
    for name in accepted.names {
        writeln!(out, "  {name}")?;
    }
    if let Some(field) = option.field() {
        writeln!(out, "  tests {}", field.name())?;
    }
    Ok(())
}

/// Schema `hipac.extension/1`.
#[derive(Serialize)]
struct Line {
    schema: &'static str,
    kind: &'static str,
    name: &'static str,
    aliases: &'static [&'static str],
    help: &'static str,
    families: Vec<&'static str>,
    tables: Vec<&'static str>,
    hooks: Vec<&'static str>,
    protocols: &'static [u8],
    /// Of a match.
    evaluation: Option<&'static str>,
    /// Of a target.
    ending: Option<&'static str>,
    /// Whether the kernel was asked about it; null: nobody has asked.
    kernel_checked: Option<bool>,
    laws: Vec<String>,
    options: Vec<OptionLine>,
}

#[derive(Serialize)]
struct OptionLine {
    name: &'static str,
    aliases: &'static [&'static str],
    help: &'static str,
    value: &'static str,
    value_optional: bool,
    negatable: bool,
    required: bool,
    repeats: bool,
    default: Option<&'static str>,
    field: Option<&'static str>,
    number_min: Option<u64>,
    number_max: Option<u64>,
    text_bytes_max: Option<usize>,
    names: Vec<&'static str>,
}

impl Line {
    fn of(spec: &'static ExtensionSpec, option: Option<&str>) -> Line {
        let families = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];
        Line {
            schema: "hipac.extension/1",
            kind: if spec.kind == Kind::Match { "match" } else { "target" },
            name: spec.name,
            aliases: spec.aliases,
            help: spec.help,
            families: families.into_iter().filter(|f| spec.families.has(f.0)).map(|f| f.1).collect(),
            tables: spec.tables.iter().map(|t| t.name()).collect(),
            hooks: spec.hooks.iter().map(|h| h.name()).collect(),
            protocols: spec.protocols,
            evaluation: spec.evaluation().map(|e| e.name()),
            ending: spec.ending_name(),
            kernel_checked: registry::kernel_check(spec).map(|c| c == KernelCheck::Checked),
            laws: spec.law_sentences(),
            options: options(spec, option).into_iter().map(OptionLine::of).collect(),
        }
    }
}

impl OptionLine {
    fn of(option: &'static OptionSpec) -> OptionLine {
        let accepted = option.value.accepted();
        OptionLine {
            name: option.name,
            aliases: option.aliases,
            help: option.help,
            value: option.value.hint(),
            value_optional: option.value_optional,
            negatable: option.negatable,
            required: option.required,
            repeats: option.repeats,
            default: option.default_text(),
            field: option.field().map(|f| f.name()),
            number_min: accepted.numbers.map(|n| n.0),
            number_max: accepted.numbers.map(|n| n.1),
            text_bytes_max: accepted.text_bytes_max,
            names: accepted.names,
        }
    }
}
