//! An image beside a file: the rules that are read back from it are its own, and differ from the file exactly
//! where those that it was compiled from do.

mod common;

use common::{any_nasty, cases, compile_roomy, read, read_as};
use hipac_bench_data::edits::{EditMaker, Options as EditOptions};
use hipac_bench_data::iptables_gen;
use hipac_classifier::Image;
use hipac_compiler::Counting;
use hipac_rules::{Family, Ruleset, apply_all};
use hipac_verifier::diff::{self, Report, diff, entries};
use hipac_verifier::proof::{NOT_KEPT, Options, ReadBack, Unreadable, read_back};
use hipac_verifier::{Drawer, Event, Oracle, Script};
use proptest::prelude::*;

fn back(of: &Ruleset, other: &Ruleset) -> Result<ReadBack, Unreadable> {
    let compiled = compile_roomy(of, Counting::Exact);
    let image = Image::open(compiled.image).expect("the compiler writes images that open");
    read_back(&image, other, &Options::default())
}

fn compare(old: &Ruleset, new: &Ruleset) -> Report {
    let (old, new) = (Oracle::new(old).unwrap(), Oracle::new(new).unwrap());
    // Rules that have nothing in common differ in a hundred thousand regions: too many to be merged here.
    let options = diff::Options { verdicts_only: true, work_max: 50_000_000, regions_max: 4_000 };
    diff(&old, &new, &entries(&old, &new), &options, &mut |_| true).unwrap()
}

/// The differences as lines: what an image does not keep is left out.
fn shown(report: &Report) -> Vec<String> {
    let name = |verdict: &str| verdict.split(' ').next().unwrap_or_default().to_owned();
    let line =
        |d: &diff::Difference| format!("{}: {} → {}", d.words, name(&d.old.verdict), name(&d.new.verdict));
    report.places.iter().flat_map(|p| &p.differences).map(line).collect()
}

/// Holds the differences between the rules of an image and a file against both oracles.
fn check_sampled(old: &Ruleset, new: &Ruleset, report: &Report, seed: u64) {
    let (from, to) = (Oracle::new(old).unwrap(), Oracle::new(new).unwrap());
    for drawer in [Drawer::new(&from, seed), Drawer::new(&to, seed)] {
        for case in drawer.block(0) {
            let of = |oracle: &Oracle<'_>, (table, hook): diff::Entry| {
                let evaluation = oracle.evaluate(table, hook, &case.packet, &mut Script::NoneHolds.play());
                // Whether a match that says nothing in an image holds is another question.
                let is_plain = evaluation.events.iter().all(|e| matches!(e, Event::Matched(_)));
                is_plain.then(|| evaluation.verdict.name.to_string())
            };
            for place in report.places.iter().filter(|place| place.undecided.is_none()) {
                let Some((x, y)) = of(&from, place.old).zip(of(&to, place.new)) else { continue };
                let found = place.of_packet(&case.packet);
                let is_bare = |d: &&&diff::Difference| d.conditions.is_empty();
                if x != y {
                    assert!(!found.is_empty(), "{x} {y} {:?}", case.packet);
                }
                for d in found.iter().filter(is_bare) {
                    assert!(d.old.verdict.starts_with(&x) && d.new.verdict.starts_with(&y), "{d:?}");
                }
            }
        }
    }
}

/// Image and file differ as the two files do; in so many boxes.
#[track_caller]
fn check(old: &str, new: &str) -> usize {
    let text =
        |rules: &str| read_as(&format!("*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n"), Some(Family::V4));
    let (old, new) = (text(old), text(new));
    let found = back(&old, &new).unwrap_or_else(|e| panic!("{e}"));
    let boxes = shown(&compare(&found.ruleset, &new));
    assert_eq!(boxes, shown(&compare(&old, &new)));
    boxes.len()
}

#[test]
fn rules_that_the_file_does_not_have_are_written_from_their_boxes() {
    let check_one = |rule: &str| {
        let rules = format!("-A FORWARD -s 10.9.0.0/16 -j REJECT\n-A FORWARD {rule} -j ACCEPT\n");
        let old = read_as(&format!("*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n"), Some(Family::V4));
        let new = read_as("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", Some(Family::V4));
        let found = back(&old, &new).unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert_eq!(found.own, 2, "{rule}");
        let report = compare(&old, &found.ruleset);
        assert!(report.is_equal(), "{rule}: {report:#?}");
    };
    for rule in [
        "",
        "-s 10.0.0.0/8",
        "! -s 10.0.0.0/8 -d 192.0.2.1",
        "-m iprange --src-range 10.0.0.3-10.0.0.9",
        "-m iprange ! --src-range 10.0.0.3-10.0.0.9",
        "-i eth0 -o ppp+",
        "! -i eth+",
        "-p udp",
        "! -p tcp",
        "-p tcp --dport 80",
        "-p tcp ! --dport 80 --sport 1024:",
        "-p tcp -m multiport --dports 80,443,8000:8080",
        "-p udp -m multiport ! --dports 80,443",
        "-p tcp --syn",
        "-p tcp ! --syn --dport 22",
        "-p icmp --icmp-type echo-request",
        "-p icmp ! --icmp-type 3/4",
        "-m conntrack --ctstate NEW,RELATED",
        "-m conntrack ! --ctstate INVALID",
        "-m conntrack --ctstate DNAT",
        "-m mark --mark 0x10/0xf0",
        "-m mark ! --mark 7",
        "-m length --length 100:200",
    ] {
        check_one(rule);
    }
}

#[test]
fn rules_that_come_and_go_are_found_in_order() {
    let a = "-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n";
    let b = "-A FORWARD -s 11.0.0.0/8 -j REJECT\n";
    let c = "-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT\n";
    for (old, new) in [(format!("{a}{b}{c}"), format!("{a}{c}")), (format!("{a}{c}"), format!("{a}{b}{c}"))] {
        assert_eq!(check(&old, &new), 5);
    }
    assert_eq!(check(&format!("{c}{a}{b}"), &format!("{c}{b}{a}")), 0);
}

#[test]
fn what_only_the_file_says_is_asked_of_the_file() {
    let limited = |port: u16, burst: u16| {
        read(&format!(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p tcp -m tcp --dport {port} -m limit --limit-burst {burst} -j ACCEPT\nCOMMIT\n"
        ))
    };
    // The rule stands in the same place: its limit is taken to be what it was.
    let found = back(&limited(22, 5), &limited(23, 9)).expect("the file has a limit there");
    assert_eq!(found.own, 1);
    // Nobody says what is asked: something stands for it that is the same as nothing else.
    let none = read("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let found = back(&limited(22, 5), &none).expect("rules").ruleset;
    let report = compare(&found, &limited(22, 5));
    assert!(!report.is_equal());
    for d in report.places.iter().flat_map(|p| &p.differences) {
        assert!(d.conditions.iter().any(|c| c.contains(NOT_KEPT)), "{d:?}");
    }
}

/// Two images, the second read back beside the rules of the first.
fn between_images(old: &str, new: &str) -> Report {
    let read = |lines: &str| read(&format!("*filter\n:FORWARD DROP [0:0]\n{lines}COMMIT\n"));
    let none = read("");
    let old = back(&read(old), &none).expect("rules").ruleset;
    let new = back(&read(new), &old).expect("rules").ruleset;
    compare(&old, &new)
}

#[test]
fn of_two_images_nobody_knows_whether_they_ask_the_same() {
    let hangs = |report: &Report| {
        let all = report.places.iter().flat_map(|p| &p.differences);
        let on_lost = |d: &diff::Difference| d.conditions.iter().any(|c| c.contains(NOT_KEPT));
        all.map(on_lost).collect::<Vec<_>>()
    };
    let web = "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n";
    for asks in [
        "-m limit --limit 5/sec",
        "-m recent --name x --set",
        "-m u32 --u32 6&0xff=1",
        "-m unheard-of --option",
    ] {
        let rule = format!("-A FORWARD -p udp {asks} -j ACCEPT\n");
        // The same bytes, and maybe another limit.
        let same = between_images(&rule, &rule);
        assert!(!same.is_equal() && hangs(&same).iter().all(|&hangs| hangs), "{asks}");
        // What does not hang on it is known.
        let more = between_images(&rule, &format!("{rule}{web}"));
        assert!(hangs(&more).contains(&false), "{asks}: {more:?}");
        // Decided before it is asked, or the same either way.
        for around in [("-A FORWARD -j ACCEPT\n", ""), ("", "-A FORWARD -p udp -j ACCEPT\n")] {
            let rules = format!("{}{rule}{}", around.0, around.1);
            assert!(between_images(&rules, &rules).is_equal(), "{rules}");
        }
    }
}

#[test]
fn an_image_beside_an_edited_file_differs_where_its_rules_do() {
    let (mut readable, mut all) = (0, 0);
    for seed in 0..24 {
        let family = if seed % 3 == 2 { Family::V6 } else { Family::V4 };
        let text = iptables_gen::generate(&iptables_gen::Options::new(family, 60, seed)).unwrap();
        let old = read_as(&text, Some(family));
        let mut maker = EditMaker::new(&old, &EditOptions::new(seed));
        let edits: Vec<_> = maker.sequence(5).into_iter().map(|(edit, _)| edit).collect();
        let Ok(new) = apply_all(&old, &edits) else { continue };
        all += 1;
        // Which of the two is deployed makes a difference to what has to be read back.
        for (deployed, file) in [(&old, &new), (&new, &old)] {
            match back(deployed, file) {
                Ok(found) => {
                    readable += 1;
                    check_sampled(deployed, file, &compare(&found.ruleset, file), seed);
                }
                Err(refused) => println!("seed {seed}: {refused}"),
            }
        }
    }
    println!("{readable} of {} images read back", 2 * all);
    assert!(all >= 12 && readable >= all, "{readable} of {}", 2 * all);
}

proptest! {
    #![proptest_config(cases(100))]
    #[test]
    fn an_image_beside_its_own_rules_is_read_back_whole(nasty in any_nasty()) {
        let rules = read_as(&nasty.text, Some(nasty.family));
        let found = back(&rules, &rules);
        let found = found.unwrap_or_else(|e| panic!("{e}\n{}", nasty.text));
        prop_assert!(compare(&found.ruleset, &rules).is_equal());
    }

    #[test]
    fn rules_read_back_beside_others_are_the_images(nasty in any_nasty(), other in any_nasty(), seed: u64) {
        prop_assume!(nasty.family == other.family);
        let rules = read_as(&nasty.text, Some(nasty.family));
        let other = read_as(&other.text, Some(nasty.family));
        if let Ok(found) = back(&rules, &other) {
            check_sampled(&rules, &other, &compare(&found.ruleset, &other), seed);
        }
    }
}
