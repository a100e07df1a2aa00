//! Asks the kernel's own tools whether generated rulesets are ones: they are loaded in a network
//! namespace of their own and printed again. Skipped, saying so, where this is not possible.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use hipac_bench_data::iptables_gen::{Options, generate};
use hipac_rules::Family;

/// What the tools of a family print after loading `text`; `None` when there is no namespace or
/// no such tool.
fn load_and_save(family: Family, text: &str) -> Option<String> {
    let tool = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    let probe = format!("command -v {tool}-restore >/dev/null && {tool}-save >/dev/null");
    let possible = Command::new("unshare").args(["-n", "sh", "-c", &probe]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespace, or no {tool}");
        return None;
    }
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", &format!("{tool}-restore -c && {tool}-save -c")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = text.to_owned();
    // It may stop reading at a fault: then writing fails, and its message is what matters.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let mut saved = String::new();
    child.stdout.take().unwrap().read_to_string(&mut saved).unwrap();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line: Option<usize> = complaint.split("line ").nth(1).and_then(|rest| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok())
    });
    let refused = line.and_then(|line| text.lines().nth(line.saturating_sub(1)));
    assert!(output.status.success(), "{tool}: {complaint} {refused:?}");
    Some(saved)
}

/// Each rule with its table, in the order of each chain, without what the tools reorder.
fn rules(text: &str) -> BTreeSet<(String, String, Vec<String>)> {
    let mut chains: std::collections::BTreeMap<(String, String), Vec<String>> = Default::default();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some((counters, rule)) = line.split_once(" -A ") {
            let (chain, words) = rule.split_once(' ').unwrap_or((rule, ""));
            chains.entry((table.clone(), chain.to_owned())).or_default().push(format!("{counters} {words}"));
        }
    }
    chains.into_iter().map(|((table, chain), rules)| (table, chain, rules)).collect()
}

#[test]
fn the_kernels_tools_take_generated_rulesets_and_print_them_again_the_same() {
    for family in [Family::V4, Family::V6] {
        for (size, seed) in [(0, 1), (1, 1), (100, 1), (2000, 1), (2000, 2), (10_000, 3)] {
            let text = generate(&Options { counters: true, ..Options::new(family, size, seed) }).unwrap();
            let Some(saved) = load_and_save(family, &text) else { return };
            let (ours, theirs) = (rules(&text), rules(&saved));
            for (one, other) in ours.iter().zip(&theirs) {
                for (one_rule, other_rule) in one.2.iter().zip(&other.2) {
                    assert_eq!(one_rule, other_rule, "{family:?}, {size} rules, in {} {}", one.0, one.1);
                }
            }
            assert!(ours == theirs, "{family:?}, {size} rules: chains differ");
        }
    }
}
