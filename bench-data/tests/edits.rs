//! Random edits: whether they do what their maker says, read back from their text, and mean what
//! they mean to the kernel's own tools.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use hipac_bench_data::edits::{EditMaker, Options, Outcome};
use hipac_bench_data::iptables_gen;
use hipac_bench_data::random::{Share, digest};
use hipac_rules::edit::{Group, Place, print_groups};
use hipac_rules::print::print_table;
use hipac_rules::{
    Change, Counters, Edit, Family, ParseOptions, PrintOptions, Ruleset, apply, parse, parse_edits, print,
};

fn ruleset(family: Family, rules: u32, seed: u64) -> Ruleset {
    let text = iptables_gen::generate(&iptables_gen::Options {
        counters: true,
        ..iptables_gen::Options::new(family, rules, seed)
    });
    let parsed = parse(text.unwrap(), &ParseOptions::default());
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    parsed.ruleset
}

fn mixed(seed: u64) -> Options {
    Options { invalid: Share::percent(20), chains: Share::percent(40), ..Options::new(seed) }
}

fn with_counters(ruleset: &Ruleset) -> String {
    print(ruleset, &PrintOptions { counters: true, header: false })
}

#[test]
fn edits_work_or_fail_as_their_maker_says() {
    for (family, rules, seed) in [(Family::V4, 0, 1), (Family::V4, 60, 2), (Family::V6, 300, 3)] {
        let mut now = ruleset(family, rules, seed);
        let mut maker = EditMaker::new(&now, &mixed(seed));
        let (mut works, mut fails) = (0, 0);
        for _ in 0..3000 {
            let (edit, outcome) = maker.next_edit();
            let before = now.clone();
            let applied = apply(&mut now, &edit);
            match outcome {
                Outcome::Works => {
                    works += 1;
                    assert!(applied.is_ok(), "{edit:?}: {applied:?}");
                }
                _ => {
                    fails += 1;
                    assert!(applied.is_err(), "{edit:?}: {applied:?}");
                    assert!(before == now, "it failed and changed something: {edit:?}");
                }
            }
            assert_eq!(now.rule_count(), maker.rule_count(), "{edit:?}");
        }
        assert!(works > 2000 && fails > 300, "{works} {fails}");
        // What the edits left reads back as it is.
        let again = parse(with_counters(&now), &ParseOptions { family: Some(family), ..Default::default() });
        assert!(!again.has_errors(), "{:?}", again.faults);
        assert_eq!(with_counters(&now), with_counters(&again.ruleset));
    }
}

/// Edits without the places of their text.
fn bare(mut groups: Vec<Group>) -> Vec<Group> {
    for group in &mut groups {
        group.commit = Place::default();
        for edit in &mut group.edits {
            edit.place = Place::default();
            match &mut edit.change {
                Change::Replace { rule, .. } => rule.line = 0,
                Change::Append { rules, .. } | Change::Insert { rules, .. } => {
                    rules.iter_mut().for_each(|r| r.line = 0);
                }
                // Those that are looked for have no counters.
                Change::DeleteRules { rules, .. } | Change::Check { rules, .. } => {
                    rules.iter_mut().for_each(|r| (r.line, r.counters) = (0, Counters::default()));
                }
                _ => {}
            }
        }
    }
    groups
}

/// Edits in a row as groups of one table each.
fn groups(edits: Vec<Edit>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for edit in edits {
        match groups.last_mut() {
            Some(group) if group.table == edit.table && group.edits.len() < 7 => group.edits.push(edit),
            _ => groups.push(Group { table: edit.table, edits: vec![edit], commit: Place::default() }),
        }
    }
    groups
}

#[test]
fn edits_read_back_from_their_text() {
    for (family, seed) in [(Family::V4, 1), (Family::V6, 2), (Family::V4, 3)] {
        let now = ruleset(family, 200, seed);
        let edits = EditMaker::new(&now, &mixed(seed)).sequence(2000);
        let groups = bare(groups(edits.into_iter().map(|(edit, _)| edit).collect()));
        let text = print_groups(&groups, family);
        let parsed = parse_edits(&text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
        assert!(!parsed.has_errors(), "{:?}", parsed.faults);
        let read = bare(parsed.groups);
        for (one, other) in groups.iter().zip(&read) {
            assert_eq!(one, other);
        }
        assert_eq!(groups.len(), read.len());
    }
}

/// What the tools of the kernel make of a script, in a network namespace of its own. `None`: there
/// is no namespace or no such tool.
fn in_namespace(tool: &str, script: &str) -> Option<String> {
    let probe = format!("command -v {tool}-restore >/dev/null && {tool}-save >/dev/null");
    let possible = Command::new("unshare").args(["-n", "sh", "-c", &probe]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: no network namespace, or no {tool}");
        return None;
    }
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let script = script.to_owned();
    let writer = thread::spawn(move || stdin.write_all(script.as_bytes()).unwrap());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    writer.join().unwrap();
    child.wait().unwrap();
    Some(said)
}

/// The text of a table as it is saved, without comments and without counters of policies: the tools
/// lose those of all chains that a transaction does not set, which hipac does not.
fn comparable(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let without = |line: &str| match line.strip_prefix(':').and_then(|_| line.rsplit_once(' ')) {
        Some((policy, _)) => format!("{policy}\n"),
        None => format!("{line}\n"),
    };
    lines.map(without).collect()
}

/// Random transactions, each made here and by the kernel's tools: both work or both fail, with the
/// same exit code, and leave the same text.
fn compare_with_kernel(family: Family, rules: u32, seed: u64, transactions: usize) -> bool {
    let tool = if family == Family::V4 { "iptables-legacy" } else { "ip6tables-legacy" };
    let mut now = ruleset(family, rules, seed);
    let mut script = format!("{tool}-restore -c <<'END'\n{}END\necho \"exit $?\"\n", with_counters(&now));
    let mut expected = vec![(0, String::new(), String::new())];
    for number in 0..transactions {
        let options = Options { loops: Share::percent(10), ..mixed(seed * 1000 + number as u64) };
        let mut edits = EditMaker::new(&now, &options).sequence(1 + number % 4);
        // A transaction of one table, most of which can be made.
        let table = edits[0].0.table;
        edits.retain(|(edit, _)| edit.table == table);
        let edits: Vec<Edit> = edits.into_iter().map(|(edit, _)| edit).collect();
        let text = print_groups(&[Group { table, edits, commit: Place::default() }], family);
        let parsed = parse_edits(&text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
        assert!(!parsed.has_errors(), "{text}{:?}", parsed.faults);
        let code = match parsed.apply(&now, &ParseOptions::default()) {
            Ok((changed, _)) => {
                now = changed;
                0
            }
            Err(error) => error.kind.exit_class().code(),
        };
        let mut left = String::new();
        print_table(
            now.table(table).unwrap(),
            family,
            &PrintOptions { counters: true, header: false },
            &mut left,
        );
        script += &format!(
            "echo \"exit $({tool}-restore -n -c 2>&1 <<'END'\n{text}END\necho $?)\"\n{tool}-save -c -t {}\n",
            table.name()
        );
        expected.push((code, left, text));
    }
    let Some(said) = in_namespace(tool, &script) else { return false };
    let mut blocks: Vec<(String, String)> = Vec::new();
    for block in format!("\n{said}").split("\nexit ").skip(1) {
        // The message, of several lines at times, and the code; then what was saved.
        let (head, text) = block.split_once("\n#").unwrap_or((block, ""));
        blocks.push((head.to_owned(), comparable(&format!("#{text}\n"))));
    }
    assert_eq!(blocks.len(), expected.len(), "{said}");
    let refused = expected.iter().filter(|(code, ..)| *code > 0).count();
    assert!(refused * 10 > transactions && refused * 2 < transactions, "{refused} were refused");
    for ((code, left, text), (head, saved)) in expected.iter().zip(&blocks) {
        let theirs = head.trim().lines().last().unwrap_or("");
        assert_eq!(theirs, code.to_string(), "{tool} says {head}\nof\n{text}");
        if !left.is_empty() {
            assert_eq!(comparable(left), *saved, "after\n{text}");
        }
    }
    true
}

#[test]
fn edits_do_what_the_kernels_tools_do() {
    let transactions = std::env::var("HIPAC_KERNEL_EDITS").ok().and_then(|n| n.parse().ok()).unwrap_or(250);
    for (family, rules, seed) in [(Family::V4, 40, 1), (Family::V6, 40, 2), (Family::V4, 0, 3)] {
        if !compare_with_kernel(family, rules, seed, transactions) {
            return;
        }
    }
}

/// Commands that fail, each on what the ones before it left.
const REFUSED: &[&str] = &[
    "-A nope -j ACCEPT",
    "-A INPUT -j nope",
    "-A a -j INPUT",
    "-I INPUT 9 -j DROP",
    "-D INPUT 9",
    "-R INPUT 9 -j DROP",
    "-Z INPUT 9",
    "-D INPUT -s 9.9.9.9 -j DROP",
    "-C INPUT -s 9.9.9.9 -j DROP",
    "-N a",
    "-N INPUT",
    "-X INPUT",
    "-X nope",
    "-X a",
    "-X b",
    "-X",
    "-E nope x",
    "-P a DROP",
    "-P nope DROP",
    "-F nope",
    "-A b -j a",
];

#[test]
fn errors_say_what_the_kernels_tool_says() {
    let base = "*filter\n:INPUT ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\nCOMMIT\n";
    let ruleset = parse(base, &ParseOptions::default()).into_result().unwrap();
    let mut script = format!("iptables-legacy-restore <<'END'\n{base}END\n");
    for command in REFUSED {
        script += &format!("iptables-legacy {command} 2>&1\necho \"= $?\"\n");
    }
    let Some(said) = in_namespace("iptables-legacy", &script) else { return };
    let mut theirs = said.split_inclusive("= ").zip(said.split("\n= ").skip(1));
    for command in REFUSED {
        let parsed = parse_edits(format!("iptables {command}\n"), &ParseOptions::default());
        let error = parsed.apply(&ruleset, &ParseOptions::default()).unwrap_err();
        let (message, code) = theirs.next().unwrap();
        let expected = error.kind.iptables_message().unwrap();
        assert!(message.contains(expected), "{command}: {message}, but not: {expected}");
        assert_eq!(code[..1], error.kind.exit_class().code().to_string(), "{command}");
    }
}

#[test]
fn the_same_seed_makes_the_same_edits() {
    let now = ruleset(Family::V4, 200, 1);
    let text = |seed| {
        let edits = EditMaker::new(&now, &mixed(seed)).sequence(500);
        print_groups(&groups(edits.into_iter().map(|(edit, _)| edit).collect()), Family::V4)
    };
    assert_eq!(digest(text(7).as_bytes()), 13_737_224_258_370_678_808);
    assert_ne!(text(7), text(8));
}
