//! The kernel tools' own lines for each extension: what they take, how they print it, and what
//! they refuse.
//!
//! The folder is named by `HIPAC_CORPUS`; without it these tests say so and pass.

use std::path::{Path, PathBuf};

use hipac_rules::{Family, ParseOptions, PrintOptions, parse, print};

/// Lines that come out as the legacy tools have them.
const RIGHT_AT_LEAST: usize = 1107;

/// One line of such a file, with what stood above it.
struct Case {
    chains: Vec<String>,
    table: String,
    rule: String,
    expected: Expected,
}

enum Expected {
    Prints(String),
    Refused,
}

fn cases(text: &str) -> Vec<Case> {
    let (mut chains, mut table) = (Vec::new(), "filter".to_owned());
    let mut cases = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        if let Some(names) = line.strip_prefix(':') {
            chains = names.split(',').map(str::to_owned).collect();
        } else if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if !line.starts_with(['#', '@', '%']) {
            let fields: Vec<&str> = line.split(';').collect();
            let [rule, printed, result, ..] = fields[..] else { continue };
            let other = fields.get(4).copied();
            let result = if fields.get(3) == Some(&"NFT") { other.unwrap_or("") } else { result };
            let printed = if printed == "=" { rule } else { printed };
            let expected = match result {
                "OK" => Expected::Prints(printed.to_owned()),
                "FAIL" => Expected::Refused,
                _ => continue,
            };
            let (chains, table, rule) = (chains.clone(), table.clone(), rule.to_owned());
            cases.push(Case { chains, table, rule, expected });
        }
    }
    cases
}

/// What is wrong with how the case comes out.
fn fault(case: &Case, family: Family) -> Option<String> {
    let options = ParseOptions { family: Some(family), ..ParseOptions::default() };
    for chain in &case.chains {
        let text = format!("*{}\n-A {chain} {}\nCOMMIT\n", case.table, case.rule);
        let parsed = parse(&text, &options);
        match &case.expected {
            Expected::Refused if !parsed.has_errors() => return Some(format!("{}: no fault", case.rule)),
            Expected::Refused => {}
            Expected::Prints(_) if parsed.has_errors() => {
                return Some(format!("{}: {}", case.rule, parsed.faults[0]));
            }
            Expected::Prints(printed) => {
                let wanted = format!("-A {chain} {printed}");
                let out = print(&parsed.ruleset, &PrintOptions::default());
                let line = out.lines().find(|l| l.starts_with("-A")).unwrap_or("nothing");
                if line != wanted.trim_end() {
                    return Some(format!("wanted  {wanted}\n    printed {line}"));
                }
            }
        }
    }
    None
}

fn families(name: &str) -> &'static [Family] {
    if name.starts_with("libipt_") || name.starts_with("iptables") {
        &[Family::V4]
    } else if name.starts_with("libip6t_") {
        &[Family::V6]
    } else {
        &[Family::V4, Family::V6]
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    found.retain(|p| p.extension().is_some_and(|e| e == "t"));
    found.sort();
    found
}

#[test]
fn extension_lines_come_out_as_the_legacy_tools_have_them() {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS is not set");
        return;
    };
    let (mut right, mut all) = (0, 0);
    for path in files(&Path::new(&corpus).join("extension-tests")) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let (mut good, mut of) = (0, 0);
        for case in cases(&text) {
            for family in families(&name) {
                of += 1;
                match fault(&case, *family) {
                    None => good += 1,
                    Some(fault) => println!("{name}, {family:?}: {fault}"),
                }
            }
        }
        println!("{good:3} of {of:3} {name}");
        (right, all) = (right + good, all + of);
    }
    println!("{right} of {all}");
    assert!(right >= RIGHT_AT_LEAST.min(all), "{right} of {all}, {RIGHT_AT_LEAST} were right before");
}
