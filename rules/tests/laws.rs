//! Laws: what was printed reads back as it was, changes mean what rulesets mean, and no bytes make
//! the parser panic.

use hipac_rules::edit::ErrorKind;
use hipac_rules::registry::{self, Kind, Law, WhenAbsent};
use hipac_rules::{EditError, Family, ParseOptions, PrintOptions, Ruleset, parse, parse_edits, print};
use proptest::prelude::*;

/// A ruleset without the lines of its rules, which printing changes.
fn without_lines(mut ruleset: Ruleset) -> Ruleset {
    for chain in ruleset.tables.iter_mut().flat_map(|t| &mut t.chains) {
        chain.line = 0;
        for rule in &mut chain.rules {
            rule.line = 0;
        }
    }
    ruleset
}

/// Reads, prints, reads again.
fn round_trip(text: &[u8]) -> Result<(), TestCaseError> {
    let first = parse(text, &ParseOptions::default());
    let options = PrintOptions { counters: true, header: true };
    let printed = print(&first.ruleset, &options);
    let again = parse(&printed, &ParseOptions::default());
    prop_assert_eq!(without_lines(first.ruleset), without_lines(again.ruleset), "{}", printed);
    let twice = print(&parse(&printed, &ParseOptions::default()).ruleset, &options);
    prop_assert_eq!(printed, twice);
    Ok(())
}

/// Words as rulesets have them: every name of the registry, values on and beside their bounds.
fn word() -> impl Strategy<Value = String> {
    let mut words: Vec<String> =
        ["!", "-s", "-d", "-p", "-i", "-o", "-f", "-j", "-g", "-m", "-c", "--jump", "-jDROP"]
            .iter()
            .map(|w| (*w).to_owned())
            .collect();
    for spec in registry::all() {
        words.push(spec.name.to_owned());
        words.push(format!("-m {}", spec.name));
        words.push(format!("-j {}", spec.name));
        words.extend(spec.options.iter().map(|o| format!("--{}", o.name)));
    }
    let values = [
        "0",
        "1",
        "22",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "-1",
        "0x10/0xff",
        "0/0",
        ":",
        "5:",
        ":5",
        "9:3",
        "1-5",
        "tcp",
        "udp",
        "icmp",
        "all",
        "1.2.3.4",
        "1.2.3.4/24",
        "1.2.3.4,5.6.7.8",
        "::1",
        "fe80::/10",
        "eth0",
        "eth+",
        "+",
        "\"\"",
        "\"a b\"",
        "\"a\\\"b\"",
        "'x'",
        "\"",
        "NEW,ESTABLISHED",
        "SYN,ACK",
        "ALL",
        "NONE",
        "3/sec",
        "1.2.3.4:80-90",
        "a",
        "X",
        "b,src",
        "00:11:22:33:44:55",
        "any",
        "ping",
        "[1:2]",
        "é",
        "80,90:99",
    ];
    words.extend(values.iter().map(|v| (*v).to_owned()));
    prop::sample::select(words)
}

/// One option of one extension with a value that is likely to be taken.
fn likely() -> impl Strategy<Value = String> {
    let mut all = Vec::new();
    for spec in registry::all() {
        let letter = if spec.kind == Kind::Match { "-m" } else { "-j" };
        let protocol = spec.protocols.first().map(|p| format!("-p {p} ")).unwrap_or_default();
        for option in spec.options {
            for value in
                ["", "1", "1:2", "1.2.3.4", "NEW", "in", "0x1/0x3", "a b", "5/min", "x src", "SYN SYN"]
            {
                for not in ["", "! "] {
                    all.push(format!("{protocol}{letter} {} {not}--{} {value}", spec.name, option.name));
                }
            }
        }
    }
    prop::sample::select(all)
}

fn line() -> impl Strategy<Value = String> {
    let chain = prop::sample::select(vec!["INPUT", "FORWARD", "OUTPUT", "X", "Y", "nope"]);
    let command = prop::sample::select(vec![
        "-A", "-A", "-A", "-I", "-D", "-R", "-N", "-F", "-X", "-E", "-P", ":", "[3:4] -A",
    ]);
    let body = prop_oneof![
        prop::collection::vec(word(), 0..8).prop_map(|w| w.join(" ")),
        prop::collection::vec(likely(), 1..3).prop_map(|w| w.join(" ")),
    ];
    (command, chain, body).prop_map(|(command, chain, body)| match command {
        ":" => format!(":{chain} {body}"),
        _ => format!("{command} {chain} {body}"),
    })
}

/// Lines that change what others left, most of which can be carried out in most orders.
const CHANGES: &[&str] = &[
    "-A X -p tcp",
    "[3:4] -A X -p tcp",
    "-A X -j DROP",
    "-A Y -g X",
    "-A INPUT -j Y",
    "-A INPUT -s 1.1.1.1,2.2.2.2 -i +",
    "-I INPUT -s 1.1.1.1,2.2.2.2 -j X",
    "-I X 1 -p udp --dport 53 -j ACCEPT",
    "-D INPUT -s 2.2.2.2,1.1.1.1",
    "-D X -p tcp",
    "-D X 1",
    "-C X -p tcp",
    "[5:6] -R X 1 -i lo",
    "-R Y 1 -i lo",
    "-N W",
    "-E X Z",
    "-N X",
    "-X",
    "-X X",
    "-F",
    "-F X",
    "-Z X 1",
    "-Z",
    "-P INPUT DROP",
    "[1:2] -P INPUT ACCEPT",
    ":INPUT DROP [7:8]",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_printed_reads_back_as_it_was(lines in prop::collection::vec(line(), 0..8), table in prop::sample::select(vec!["filter", "nat", "mangle", "raw"])) {
        let text = format!("*{table}\n:X - [0:0]\n:Y - [1:2]\n{}\nCOMMIT\n", lines.join("\n"));
        round_trip(text.as_bytes())?;
    }

    #[test]
    fn a_text_read_as_changes_of_nothing_is_the_ruleset_that_it_is(
        lines in prop::collection::vec(prop_oneof![9 => prop::sample::select(CHANGES).prop_map(str::to_owned), 1 => line()], 0..8),
    ) {
        let text = format!("*filter\n:X - [0:0]\n:Y - [1:2]\n{}\nCOMMIT\n", lines.join("\n"));
        let family = Some(Family::V4);
        let options = ParseOptions { family, ..ParseOptions::default() };
        let whole = parse(&text, &options);
        let changes = parse_edits(&text, &options);
        let nothing = Ruleset { family: Family::V4, tables: Vec::new() };
        let made = changes.apply(&nothing, &options);
        if whole.has_errors() {
            return Ok(());
        }
        prop_assert!(!changes.has_errors(), "{:?}\n{text}", changes.faults);
        match made {
            Ok((made, _)) => prop_assert_eq!(without_lines(made), without_lines(whole.ruleset), "{}", text),
            // Names that no saved text could say, and counters that no rule has.
            Err(EditError { kind: ErrorKind::ChainName { .. }, .. }) => {}
            Err(error) => prop_assert!(false, "{error}\n{text}"),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut text = b"*filter\n-A INPUT ".to_vec();
        text.extend(&bytes);
        for text in [&bytes, &text] {
            let parsed = parse(text, &ParseOptions::default());
            let _ = hipac_rules::render_all(&parsed.faults, "x", text);
            let _ = print(&parsed.ruleset, &PrintOptions::default());
            let changes = parse_edits(text, &ParseOptions::default());
            let _ = hipac_rules::render_all(&changes.faults, "x", text);
            let _ = changes.apply(&parsed.ruleset, &ParseOptions::default());
        }
    }
}

#[test]
fn real_rulesets_read_back_as_they_were_wherever_they_are_cut() {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS is not set");
        return;
    };
    let folder = std::path::Path::new(&corpus).join("rulesets");
    let entries = std::fs::read_dir(folder).expect("the folder of rulesets");
    for path in entries.filter_map(|e| Some(e.ok()?.path())) {
        let text = std::fs::read(&path).expect("a readable file");
        round_trip(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for cut in (1..8).map(|i| text.len() * i / 8 + i) {
            let piece = &text[..cut.min(text.len())];
            let parsed = parse(piece, &ParseOptions::default());
            let _ = hipac_rules::render_all(&parsed.faults, "x", piece);
        }
    }
}

/// The registry's own laws: a typing mistake in an entry shows here.
#[test]
fn registry_entries_are_sound() {
    for spec in registry::all() {
        let name = spec.name;
        assert!(!spec.help.is_empty(), "{name} has a help line");
        assert!(spec.options.len() <= 64, "{name} has at most 64 options");
        for (i, option) in spec.options.iter().enumerate() {
            assert!(!option.help.is_empty(), "{name} --{} has a help line", option.name);
            assert!(
                spec.options[..i].iter().all(|o| !o.is_named(option.name)),
                "{name} --{} is one option",
                option.name
            );
            if let Some(short) = option.short_for {
                assert!(spec.option(short.option).is_some(), "{name} has --{}", short.option);
            }
            let (WhenAbsent::Hidden(text) | WhenAbsent::Shown(text)) = option.when_absent else { continue };
            for family in [Family::V4, Family::V6].into_iter().filter(|f| spec.families.has(*f)) {
                let value = option.value.parse(&[text], family);
                assert!(value.is_ok(), "{name} --{}: its default {text} is a value: {value:?}", option.name);
            }
        }
        for law in spec.laws {
            let names: Vec<&str> = match law {
                Law::AnyOf(names) | Law::OneOf(names) => names.to_vec(),
                Law::Needs(one, other) | Law::Behind(one, other) => vec![one, other],
            };
            for option in names {
                assert!(spec.options.iter().any(|o| o.name == option), "{name}: a law names --{option}");
            }
        }
        if let Some(separator) = spec.group_by {
            assert!(spec.option(separator).is_some(), "{name} has --{separator}");
        }
        for family in [Family::V4, Family::V6].into_iter().filter(|f| spec.families.has(*f)) {
            let found = registry::find(spec.kind, name, family).expect("an entry finds itself");
            assert!(std::ptr::eq(found, spec), "{name} stands once for {family:?}");
        }
    }
}
