//! Inputs: rulesets and images, told apart by their first bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hipac_classifier::Image;
use hipac_rules::fault::{Severity, render_all};
use hipac_rules::ipset::{Sets, Unbound};
use hipac_rules::names::Hosts;
use hipac_rules::{Family, Fault, Hook, ParseOptions, Ruleset, TableKind, parse};

use serde::Serialize;

use crate::args::{InputFormat, RulesFile};
use crate::exit::Failure;
use crate::output::counted;
use crate::{file, mapped};

/// A ruleset with the text it was read from.
pub(crate) struct Rules {
    /// What the reader calls the file.
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
    pub(crate) ruleset: Ruleset,
    pub(crate) faults: Vec<Fault>,
    /// IP sets that rules name and nobody can look up.
    pub(crate) unbound: Vec<Unbound>,
}

impl Rules {
    /// Faults for which the kernel's tools would refuse the text.
    fn error_count(&self) -> usize {
        self.faults.iter().filter(|f| f.severity == Severity::Error).count()
    }

    /// Prints faults on standard error; `Err` when they are errors and nobody said to go on.
    pub(crate) fn accept(&self, keep_going: bool) -> Result<(), Failure> {
        self.print_faults();
        match self.error_count() {
            0 => Ok(()),
            _ if keep_going => Ok(()),
            count => Err(Failure::at(
                &self.name,
                format_args!(
                    "{} as above: iptables-restore would refuse it (--keep-going takes what could be read)",
                    counted(count, "error")
                ),
            )),
        }
    }

    /// Prints faults on standard error; `Err` when there are errors: nobody may say to go on.
    pub(crate) fn accept_whole(&self) -> Result<(), Failure> {
        self.print_faults();
        match self.error_count() {
            0 => Ok(()),
            count => {
                let errors = counted(count, "error");
                Err(Failure::at(
                    &self.name,
                    format_args!("{errors} as above: iptables-restore would refuse it"),
                ))
            }
        }
    }

    /// Prints faults on standard error, and that the rest is used.
    pub(crate) fn report(&self) {
        self.print_faults();
        let count = self.error_count();
        if count > 0 {
            let errors = counted(count, "error");
            diagnose(&format!("hipac: {}: {errors} as above; what could be read is used\n", self.name));
        }
    }

    fn print_faults(&self) {
        if !self.faults.is_empty() {
            diagnose(&render_all(&self.faults, &self.name, &self.text));
        }
    }
}

/// A fault in JSON.
#[derive(Serialize)]
pub(crate) struct FaultLine<'a> {
    severity: &'static str,
    message: &'a str,
    line: u32,
    column: u32,
    width: u32,
    help: Option<&'a str>,
}

impl FaultLine<'_> {
    pub(crate) fn of(fault: &Fault) -> FaultLine<'_> {
        FaultLine {
            severity: fault.severity.name(),
            message: &fault.message,
            line: fault.line,
            column: fault.column,
            width: fault.width,
            help: fault.help.as_deref(),
        }
    }
}

/// Prints on standard error. When that is gone there is nobody to tell: no reason to stop.
pub(crate) fn diagnose(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The built-in chain that is meant, of those that the ruleset has.
pub(crate) fn built_in_chain(
    ruleset: &Ruleset,
    table: &str,
    chain: Option<&str>,
) -> Result<(TableKind, Hook), Failure> {
    let kind = TableKind::from_name(table).ok_or_else(|| {
        Failure::new(format_args!("there is no table `{table}`: give filter, nat, mangle, raw or security"))
    })?;
    let default = if kind.hooks().contains(&Hook::Forward) { Hook::Forward } else { Hook::Prerouting };
    let hook = chain.map_or(Some(default), Hook::from_name).filter(|hook| kind.hooks().contains(hook));
    match hook {
        Some(hook) if ruleset.table(kind).is_some() => Ok((kind, hook)),
        _ => {
            let known: Vec<String> = built_in_chains(ruleset)
                .into_iter()
                .map(|(table, hook)| format!("{}/{}", table.name(), hook.name()))
                .collect();
            let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
            let chain = chain.unwrap_or(default.name());
            Err(Failure::new(format_args!(
                "these rules have no built-in chain {table}/{chain}; they have {known}"
            )))
        }
    }
}

/// All built-in chains of a ruleset.
pub(crate) fn built_in_chains(ruleset: &Ruleset) -> Vec<(TableKind, Hook)> {
    let tables = ruleset.tables.iter();
    tables.flat_map(|t| t.kind.hooks().iter().map(|&hook| (t.kind, hook))).collect()
}

/// An image in place.
pub(crate) type OpenImage = Image<mapped::Bytes>;

/// What a file holds.
pub(crate) enum Input {
    Rules(Rules),
    Image(Box<OpenImage>),
}

/// Reads a ruleset.
pub(crate) fn rules(of: &RulesFile) -> Result<Rules, Failure> {
    rules_of_bytes(of, file::read(&of.file)?)
}

/// Reads a ruleset or an image.
pub(crate) fn rules_or_image(of: &RulesFile) -> Result<Input, Failure> {
    let bytes = mapped::open(&of.file)?;
    if bytes.as_ref().starts_with(&hipac_classifier::image::format::MAGIC) {
        return Ok(Input::Image(Box::new(image_of_bytes(&of.file, bytes)?)));
    }
    Ok(Input::Rules(rules_of_bytes(of, bytes.into_vec())?))
}

/// Opens an image and audits it: it comes from outside.
pub(crate) fn image(path: &Path) -> Result<OpenImage, Failure> {
    image_of_bytes(path, mapped::open(path)?)
}

fn image_of_bytes(path: &Path, bytes: mapped::Bytes) -> Result<OpenImage, Failure> {
    let image = Image::open(bytes).map_err(|e| Failure::at(&file::name(path), e))?;
    image.audit().map_err(|e| Failure::at(&file::name(path), e))?;
    Ok(image)
}

/// Reads IP sets. What is faulty there would be another set: it is a failure.
pub(crate) fn sets(files: &[PathBuf]) -> Result<Sets, Failure> {
    let mut all = Sets::default();
    for path in files {
        let text = file::read(path)?;
        let name = file::name(path);
        let (sets, faults) = Sets::read(&text);
        if !faults.is_empty() {
            diagnose(&render_all(&faults, &name, &text));
            return Err(Failure::at(&name, format_args!("{} as above", counted(faults.len(), "error"))));
        }
        all.merge(sets)
            .map_err(|set| Failure::at(&name, format_args!("set `{set}` is in another file, too")))?;
    }
    Ok(all)
}

/// Reads addresses of hosts.
pub(crate) fn hosts(path: &Path) -> Result<Arc<Hosts>, Failure> {
    let text = file::read(path)?;
    let name = file::name(path);
    let read = Hosts::read(&String::from_utf8_lossy(&text));
    let read = read.map_err(|(line, word)| {
        Failure::at(&name, format_args!("line {line}: `{word}` is no address: write ADDRESS NAME …"))
    })?;
    Ok(Arc::new(read))
}

fn rules_of_bytes(of: &RulesFile, text: Vec<u8>) -> Result<Rules, Failure> {
    let name = file::name(&of.file);
    if text.starts_with(&hipac_classifier::image::format::MAGIC) {
        return Err(Failure::at(
            &name,
            "this is an image, and holds no rules: give the ruleset that it was compiled from \
             (`hipac verify RULES IMAGE` proves that it was)",
        ));
    }
    let family = match (of.ipv4, of.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    match of.input_format {
        InputFormat::Iptables => {
            let hosts = of.outside.hosts.as_deref().map(hosts).transpose()?;
            let parsed = parse(&text, &ParseOptions { family, hosts, ..ParseOptions::default() });
            let mut ruleset = parsed.ruleset;
            let unbound = sets(&of.outside.ipset)?.bind(&mut ruleset).unbound;
            Ok(Rules { name, text, ruleset, faults: parsed.faults, unbound })
        }
        InputFormat::Classbench => {
            if family == Some(Family::V6) {
                return Err(Failure::at(&name, "ClassBench filters are IPv4"));
            }
            let filters = hipac_bench_data::classbench::read_filters(text.as_slice())
                .map_err(|e| Failure::at(&name, e))?;
            let ruleset =
                hipac_bench_data::ruleset::ruleset_of(&filters).map_err(|e| Failure::at(&name, e))?;
            Ok(Rules { name, text, ruleset, faults: vec![], unbound: vec![] })
        }
    }
}
