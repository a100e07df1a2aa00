//! Findings in SARIF 2.1.0, which code review tools show beside the line.

use serde::Serialize;
use serde_json::{Value, json};

/// One finding.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// What kind: a name that a reader can look up or switch off.
    pub(crate) rule: &'static str,
    /// `error`, `warning` or `note`.
    pub(crate) level: &'static str,
    pub(crate) message: String,
    /// File and line, from 1; line 0: the whole file.
    pub(crate) place: (String, u32),
    /// Other places that it is about, with what each is.
    pub(crate) related: Vec<(String, u32, String)>,
}

/// The log of one run.
pub(crate) fn log(findings: &[Finding]) -> Value {
    let mut rules: Vec<&str> = findings.iter().map(|f| f.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let rules: Vec<Value> = rules.into_iter().map(|id| json!({ "id": id })).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "hipac",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let (file, line) = &finding.place;
    let related: Vec<Value> = finding
        .related
        .iter()
        .map(|(file, line, text)| {
            let mut location = location(file, *line);
            location["message"] = json!({ "text": text });
            location
        })
        .collect();
    json!({
        "ruleId": finding.rule,
        "level": finding.level,
        "message": { "text": finding.message },
        "locations": [location(file, *line)],
        "relatedLocations": related,
    })
}

fn location(file: &str, line: u32) -> Value {
    let mut place = json!({ "artifactLocation": { "uri": file } });
    if line > 0 {
        place["region"] = json!({ "startLine": line });
    }
    json!({ "physicalLocation": place })
}
