//! A subject that is wrong must be caught, with a small witness. The wrong subject is the oracle of rules
//! that differ in one place.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hipac_classifier::Packet;
use hipac_rules::{Family, Hook, Residual, Ruleset, TableKind};

use super::{Options, Report, check};
use crate::outcomes::{Outcomes, Script};
use crate::subject::{Evaluation, Event, Subject, Verdict};
use crate::testing::{filter, oracle, ruleset};
use crate::{Oracle, RuleId, packet_text};

const RULES: &str = "FORWARD DROP
    -p 6 -s 10.0.0.0/8 -j lan
    -i eth+ -d 192.0.2.128/25 -j LOG
    -m tcp-dport22 -m limit -j ACCEPT
    -m mark1 -m string -g log-drop
    ! -o ppp0 -m ports -m limit -m strange -j ACCEPT
    -m multiport -j REJECT
    lan
    -f -j RETURN
    -s 10.0.1.0/255.0.255.0 -j MARK1
    -m ttl9 -j ACCEPT
    log-drop
    -j LOG
    ! -p 17 -j DROP
    OUTPUT
    -d 10.0.0.1 -j DROP";

fn options(packets: u64) -> Options {
    Options { packets, mismatches_max: 1, ..Options::default() }
}

fn compare(rules: &Ruleset, subject: &dyn Subject, options: &Options) -> Report {
    check(&oracle(rules).unwrap(), subject, options, &mut |_| {})
}

/// One rule of [`RULES`] replaced is caught, and this is the witness: packet, oracle's step, subject's step.
#[track_caller]
fn check_caught(from: &str, to: &str, expected: [&str; 3]) {
    assert!(RULES.contains(from), "{from}");
    let (right, wrong) = (filter(RULES), filter(&RULES.replacen(from, to, 1)));
    let report = compare(&right, &oracle(&wrong).unwrap(), &options(20_000));
    let Some(mismatch) = report.mismatches.first() else { panic!("{from} → {to} was not caught") };
    let shown = mismatch.show(&right).to_string();
    let line = |mark: &str| shown.lines().find_map(|l| l.strip_prefix(mark)).unwrap_or("").to_owned();
    let found =
        [packet_text::show(&mismatch.case.packet).to_string(), line("  ▶ oracle   "), line("  ▶ subject  ")];
    assert_eq!(found, expected, "\n{shown}");
}

#[test]
fn a_subject_that_is_right_agrees() {
    let rules = filter(RULES);
    let report = compare(&rules, &oracle(&rules).unwrap(), &options(20_000));
    assert_eq!(report.packets, 20_000);
    assert!(report.is_agreement(), "{}", report.show(&rules));
    assert_eq!((report.rules_matched, report.rules), (12, 12), "{}", report.show(&rules));
}

#[test]
fn a_wrong_verdict_is_caught() {
    check_caught(
        "-m ttl9 -j ACCEPT",
        "-m ttl9 -j DROP",
        [
            "-s 10.0.0.0 -p tcp --ttl 9",
            "ACCEPT by filter/lan rule 3 (line 11)",
            "DROP by filter/lan rule 3 (line 11)",
        ],
    );
    check_caught("FORWARD DROP", "FORWARD", ["--l4 fragment", "DROP by policy", "ACCEPT by policy"]);
}

#[test]
fn a_wrong_bound_is_caught() {
    check_caught(
        "10.0.0.0/8",
        "10.0.0.0/9",
        [
            "-s 10.128.0.0 -p tcp",
            "matched filter/FORWARD rule 1 (line 2)",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
    check_caught(
        "192.0.2.128/25",
        "192.0.2.128/26",
        [
            "-i eth -d 192.0.2.192",
            "matched filter/FORWARD rule 2 (line 3)",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
    check_caught(
        "255.0.255.0",
        "255.0.254.0",
        [
            "-s 10.0.0.0 -p tcp",
            "matched filter/FORWARD rule 6 (line 7)",
            "matched filter/lan rule 2 (line 10)",
        ],
    );
    check_caught(
        "-p 6",
        "-p 7",
        [
            "-s 10.0.0.0 -p tcp",
            "matched filter/FORWARD rule 1 (line 2)",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
    check_caught(
        "-i eth+",
        "-i eth0",
        [
            "-i eth -d 192.0.2.128",
            "matched filter/FORWARD rule 2 (line 3)",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
    check_caught(
        "! -o ppp0",
        "! -o ppp+",
        [
            "-o ppp00 --sport 1024",
            "evaluated match 2 (limit) of filter/FORWARD rule 5 (line 6): does not hold",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
    check_caught(
        "-d 10.0.0.1",
        "-d 10.0.0.0/31",
        ["-d 10.0.0.0", "ACCEPT by policy", "matched filter/OUTPUT rule 1 (line 16)"],
    );
}

#[test]
fn a_wrong_way_through_the_chains_is_caught() {
    check_caught(
        "-g log-drop",
        "-j log-drop",
        ["-p udp --mark 0x1", "DROP by policy", "matched filter/FORWARD rule 6 (line 7)"],
    );
    check_caught(
        "-f -j RETURN",
        "-f -j LOG",
        ["-s 10.0.0.0 -p tcp --l4 fragment --ttl 9", "DROP by policy", "matched filter/lan rule 3 (line 11)"],
    );
    check_caught(
        "-j LOG\n    ! -p",
        "! -p",
        [
            "--mark 0x1",
            "matched filter/log-drop rule 2 (line 14)",
            "DROP by filter/log-drop rule 1 (line 13)",
        ],
    );
    check_caught(
        "-j MARK1",
        "-j LOG",
        [
            "-s 10.0.1.0 -p tcp",
            "matched filter/FORWARD rule 4 (line 5)",
            "matched filter/FORWARD rule 6 (line 7)",
        ],
    );
}

#[test]
fn residual_matches_evaluated_out_of_turn_are_caught() {
    check_caught(
        "-m limit -m strange",
        "-m limit",
        [
            "--dport 53",
            "evaluated match 3 (strange) of filter/FORWARD rule 5 (line 6): holds",
            "matched filter/FORWARD rule 5 (line 6)",
        ],
    );
    check_caught(
        "-m ports -m limit",
        "-m limit -m ports",
        [
            "",
            "matched filter/FORWARD rule 6 (line 7)",
            "evaluated match 1 (ports) of filter/FORWARD rule 5 (line 6): does not hold",
        ],
    );
    check_caught(
        "-m tcp-dport22 -m limit",
        "-m limit -m tcp-dport22",
        [
            "",
            "matched filter/FORWARD rule 6 (line 7)",
            "evaluated match 1 (tcp-dport22) of filter/FORWARD rule 3 (line 4): does not hold",
        ],
    );
    check_caught(
        "-m string -g",
        "-g",
        ["--mark 0x1", "matched filter/FORWARD rule 6 (line 7)", "matched filter/FORWARD rule 4 (line 5)"],
    );
}

#[test]
fn packets_dropped_for_their_headers_are_compared() {
    check_caught(
        "-m multiport -j REJECT",
        "-j REJECT",
        ["--l4 fragment", "DROP by policy", "matched filter/FORWARD rule 6 (line 7)"],
    );
    check_caught(
        "-m tcp-dport22",
        "-m dport22",
        ["--l4 fragment8", "DROP of a malformed packet at filter/FORWARD rule 3 (line 4)", "DROP by policy"],
    );
}

/// Passes evaluations on after a change.
struct Altered<'o, F>(Oracle<'o>, F);

impl<F: Fn(&Packet, &mut Evaluation) + Sync> Subject for Altered<'_, F> {
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        let mut evaluation = self.0.evaluate(table, hook, packet, outcomes);
        (self.1)(packet, &mut evaluation);
        evaluation
    }
}

/// Asks for a pure match before it evaluates, as often as it likes.
struct Curious<'o>(Oracle<'o>);

impl Subject for Curious<'_> {
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation {
        let string = RuleId::new(TableKind::Filter, 1, 3).unwrap();
        for _ in 0..packet.ttl {
            outcomes.residual(string, 1, Residual::Pure, packet);
        }
        self.0.evaluate(table, hook, packet, outcomes)
    }
}

#[test]
fn pure_matches_may_be_evaluated_at_any_time() {
    let rules = filter(RULES);
    let report = compare(&rules, &Curious(oracle(&rules).unwrap()), &options(20_000));
    assert!(report.is_agreement(), "{}", report.show(&rules));
}

#[test]
fn a_mismatch_is_shown_so_that_it_can_be_understood() {
    let rules = filter(RULES);
    let subject = Altered(oracle(&rules).unwrap(), |packet: &Packet, evaluation: &mut Evaluation| {
        if packet.tos >= 0x20 && evaluation.events.pop().is_some() {
            evaluation.verdict = Verdict::policy("ACCEPT");
        }
    });
    let report = compare(&rules, &subject, &options(2_000));
    assert_eq!(
        report.mismatches[0].show(&rules).to_string(),
        "\
filter/FORWARD: --tos 0x20
  ▶ oracle   matched filter/FORWARD rule 6 (line 7)
    oracle   … REJECT by filter/FORWARD rule 6 (line 7)
  ▶ subject  ACCEPT by policy"
    );
}

#[test]
fn a_long_way_to_the_difference_is_shortened() {
    let rules = filter(&format!("FORWARD{}\n-j DROP", "\n-j LOG".repeat(20)));
    let subject = Altered(oracle(&rules).unwrap(), |_: &Packet, evaluation: &mut Evaluation| {
        evaluation.events.pop();
    });
    let report = compare(&rules, &subject, &options(2_000));
    assert_eq!(
        report.mismatches[0].show(&rules).to_string(),
        "\
filter/FORWARD: (every field at its default)
    both     … 17 events alike
    both     matched filter/FORWARD rule 18 (line 19)
    both     matched filter/FORWARD rule 19 (line 20)
    both     matched filter/FORWARD rule 20 (line 21)
  ▶ oracle   matched filter/FORWARD rule 21 (line 22)
    oracle   … DROP by filter/FORWARD rule 21 (line 22)
  ▶ subject  DROP by filter/FORWARD rule 21 (line 22)"
    );
}

#[test]
fn events_alone_are_compared_too() {
    let rules = filter(RULES);
    let subject = Altered(oracle(&rules).unwrap(), |_: &Packet, evaluation: &mut Evaluation| {
        if let [Event::Matched(a), Event::Matched(b), ..] = &mut evaluation.events[..] {
            std::mem::swap(a, b);
        }
    });
    assert!(!compare(&rules, &subject, &options(2_000)).is_agreement());
}

#[test]
fn the_report_does_not_depend_on_threads() {
    let rules = filter(RULES);
    let is_first = AtomicBool::new(true);
    let subject = Altered(oracle(&rules).unwrap(), |packet: &Packet, evaluation: &mut Evaluation| {
        if packet.source_port == 53 && packet.ttl == 9 {
            evaluation.events.pop();
        }
        // One block takes long, and others overtake it.
        if is_first.swap(false, Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let run = |threads, seed| {
        is_first.store(true, Ordering::Relaxed);
        let threads = NonZeroUsize::new(threads);
        let options = Options { packets: 10_000, seed, threads, mismatches_max: 3, ..Options::default() };
        compare(&rules, &subject, &options)
    };
    let report = run(1, 5);
    assert!(report.mismatches.len() > 1 && report.packets < 10_000, "{}", report.show(&rules));
    for threads in [2, 3, 8] {
        assert_eq!(report, run(threads, 5), "{threads} threads");
    }
    assert_ne!(report, run(1, 6));
}

#[test]
fn progress_is_told_up_to_the_end() {
    let rules = filter(RULES);
    let subject = oracle(&rules).unwrap();
    let mut told = Vec::new();
    check(&subject, &subject, &options(1_000), &mut |p| told.push((p.packets, p.packets_all)));
    assert_eq!(told, [(256, 1000), (512, 1000), (768, 1000), (1000, 1000)]);
}

#[test]
fn a_ruleset_without_tables_or_rules_is_no_trouble() {
    let rules = Ruleset { family: Family::V6, tables: Vec::new() };
    let report = compare(&rules, &oracle(&rules).unwrap(), &options(1_000));
    assert_eq!((report.packets, report.differing), (0, 0));

    let rules = ruleset(Family::V6, TableKind::Nat, "");
    let report = compare(&rules, &oracle(&rules).unwrap(), &options(1_000));
    assert_eq!((report.packets, report.rules, report.differing), (1_000, 0, 0));
}

#[test]
fn evaluations_given_up_are_counted_and_say_nothing() {
    let rules = filter("FORWARD\n-j DROP");
    let subject = Altered(oracle(&rules).unwrap(), |_: &Packet, evaluation: &mut Evaluation| {
        evaluation.verdict = Verdict::given_up();
    });
    let report = compare(&rules, &subject, &options(1_000));
    assert_eq!((report.given_up, report.differing), (1_000, 0));
    let shown = report.show(&rules).to_string();
    assert_eq!(
        shown,
        "1000 packets, 1 of 1 rules matched, 1000 given up after too many steps: no difference"
    );
}

#[test]
fn outcomes_are_simplified_in_witnesses() {
    let (right, wrong) = (filter("FORWARD\n-m limit -j DROP"), filter("FORWARD\n-m limit -j ACCEPT"));
    let report = compare(&right, &oracle(&wrong).unwrap(), &options(1_000));
    assert_eq!(report.mismatches[0].case.outcomes, Script::AllHold);
}
