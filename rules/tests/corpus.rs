//! Real rulesets: whatever is in them, reading one never panics, and printing it gives what the
//! kernel's own tools save.
//!
//! The folder is named by `HIPAC_CORPUS`; without it these tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hipac_rules::{ParseOptions, PrintOptions, Severity, parse, print};

/// Files of `kernel-resaved/` whose print equals the kernel's.
const SAME_AT_LEAST: usize = 111;

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("HIPAC_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HIPAC_CORPUS is not set");
    }
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    found.sort();
    found
}

/// The lines of each table, without comments and counters.
fn tables(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        if let Some(table) = line.strip_prefix('*') {
            name = table.to_owned();
            tables.insert(name.clone(), Vec::new());
            continue;
        }
        let rule = line.strip_prefix('[').and_then(|l| l.split_once("] ")).map_or(line, |(_, rule)| rule);
        let rule = match rule.strip_prefix(':') {
            Some(chain) => format!(":{}", chain.split(" [").next().unwrap_or("")),
            None => rule.to_owned(),
        };
        tables.entry(name.clone()).or_default().push(rule.trim_end().to_owned());
    }
    tables
}

/// The first line in which two dumps differ.
fn first_difference(ours: &str, theirs: &str) -> Option<String> {
    let (ours, theirs) = (tables(ours), tables(theirs));
    for (name, lines) in &theirs {
        let Some(mine) = ours.get(name) else {
            // The kernel's tools save every table that was ever touched, empty ones included.
            if lines.iter().all(|l| l.starts_with(':') || l == "COMMIT") {
                continue;
            }
            return Some(format!("table {name} is missing"));
        };
        for i in 0..lines.len().max(mine.len()) {
            if lines.get(i) != mine.get(i) {
                return Some(format!("{name}:\n    ours   {:?}\n    theirs {:?}", mine.get(i), lines.get(i)));
            }
        }
    }
    None
}

#[test]
fn every_real_ruleset_is_read_without_a_panic() {
    let Some(corpus) = corpus() else { return };
    for folder in ["rulesets", "rulesets-fixed"] {
        for path in files(&corpus.join(folder)) {
            let text = std::fs::read(&path).expect("a readable file");
            let parsed = parse(&text, &ParseOptions::default());
            let shown = hipac_rules::render_all(&parsed.faults, "x", &text);
            assert!(parsed.faults.is_empty() || !shown.is_empty());
        }
    }
}

#[test]
fn printing_gives_what_the_kernels_tools_save() {
    let Some(corpus) = corpus() else { return };
    let (mut same, mut all, mut quiet) = (0, 0, 0);
    for twin in files(&corpus.join("kernel-resaved")) {
        let name = twin.file_name().expect("a name").to_owned();
        let fixed = corpus.join("rulesets-fixed").join(&name);
        let input = if fixed.exists() { fixed } else { corpus.join("rulesets").join(&name) };
        let text = std::fs::read(&input).expect("the file that was loaded");
        let theirs = std::fs::read_to_string(&twin).expect("the file that was saved");
        let options = ParseOptions {
            family: theirs.contains("ip6tables-save").then_some(hipac_rules::Family::V6),
            ..ParseOptions::default()
        };
        let parsed = parse(&text, &options);
        all += 1;
        let errors: Vec<_> = parsed.faults.iter().filter(|f| f.severity == Severity::Error).collect();
        if let Some(error) = errors.first() {
            println!("{}: loads, yet: {error}", name.display());
        } else {
            quiet += 1;
        }
        match first_difference(&print(&parsed.ruleset, &PrintOptions::default()), &theirs) {
            None => same += 1,
            Some(difference) => println!("{}: {difference}", name.display()),
        }
    }
    println!("{same} of {all} printed alike, {quiet} of {all} without an error");
    assert!(same >= SAME_AT_LEAST.min(all), "{same} of {all} print alike, {SAME_AT_LEAST} did before");
    // One file says `--dport 60000:29`, which current tools refuse and iptables 1.8.9 loaded.
    assert!(quiet + 1 >= all, "a file that the kernel loads has no error");
}
