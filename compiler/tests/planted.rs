//! Planted faults are found: what the other tests rely on is tested here.
//!
//! Two kinds. A *wrong compiler*: the rules are compiled with one of them changed, and held
//! against the unchanged ones, as if lowering or building had made the mistake. And *wrong bytes*:
//! one value of an image is changed and its checksums are made right again; then the audit refuses
//! it, or packets tell it from the rules, or it answers every packet as before.

mod common;

use std::num::NonZeroUsize;

use common::{compile_roomy, read, seal};
use hipac_classifier::Image;
use hipac_compiler::Counting;
use hipac_rules::Ruleset;
use hipac_verifier::{ImageSubject, Oracle, Report, check};

/// Packets within which every planted fault is found; users check with 20 times as many.
const PACKETS: u64 = 5_000;

/// Rules in which each feature stands once, so that changing one word breaks one thing.
const RULES: &str = "\
*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD DROP [0:0]
:web - [0:0]
:jumped - [0:0]
:gone - [0:0]
-A PREROUTING -p tcp -m tcp --tcp-flags SYN,ACK SYN -j LOG
-A PREROUTING -s 10.0.0.1/32 -j MARK --set-xmark 0x1/0x3
-A PREROUTING -s 10.0.0.1/32 -m mark --mark 0x4/0x4 -j LOG
-A PREROUTING -m mark --mark 0x1/0x3 -j DROP
-A PREROUTING -p udp -m limit --limit 5/sec -m udp --dport 53 -j ACCEPT
-A PREROUTING -p udp -m recent --set --name seen
-A PREROUTING -m ttl --ttl-lt 2 -j DROP
-A FORWARD -p tcp -j web
-A FORWARD -p icmp -m limit --limit 1/sec -j jumped
-A FORWARD -p 47 -g gone
-A FORWARD ! -i eth+ -p udp -m multiport --dports 53,80:90 -j ACCEPT
-A FORWARD -f -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -s 10.0.3.0/255.0.255.0 -j ACCEPT
-A web -p tcp -m tcp --dport 80:90 -j ACCEPT
-A web -d 10.0.0.0/8 -j RETURN
-A web -m length --length 40:100 -j DROP
-A jumped -s 10.0.0.0/9 -j ACCEPT
-A jumped ! -s 10.0.0.0/8 -j DROP
-A gone -o ppp0 -j ACCEPT
COMMIT
";

/// What the check says of an image that claims to come from `ruleset`; `None` when the image is
/// refused before any packet.
fn verdict(image: Vec<u8>, ruleset: &Ruleset, packets: u64) -> Option<Report> {
    let image = Image::open(image).ok()?;
    image.audit().ok()?;
    let subject = ImageSubject::new(image, ruleset).ok()?;
    let oracle = Oracle::new(ruleset).unwrap();
    let options = hipac_verifier::Options {
        packets,
        threads: NonZeroUsize::new(1),
        mismatches_max: 1,
        ..hipac_verifier::Options::default()
    };
    Some(check(&oracle, &subject, &options, &mut |_| {}))
}

/// Compiles [`RULES`] with `from` replaced by `to`, and holds the image against [`RULES`].
#[track_caller]
fn check_found(what: &str, from: &str, to: &str) {
    assert_eq!(RULES.matches(from).count(), 1, "{what}: `{from}` must stand in one place");
    let wrong = compile_roomy(&read(&RULES.replace(from, to)), Counting::Exact).image;
    let report = verdict(wrong, &read(RULES), PACKETS).expect("places of rules are the same");
    assert!(!report.is_agreement(), "{what}: not found in {PACKETS} packets");
}

#[test]
fn the_rules_without_a_fault_pass() {
    let ruleset = read(RULES);
    let image = compile_roomy(&ruleset, Counting::Exact).image;
    let report = verdict(image, &ruleset, 10 * PACKETS).unwrap();
    assert!(report.is_agreement(), "{}", report.show(&ruleset));
    assert_eq!(report.rules_matched, report.rules, "every rule takes part");
}

#[test]
fn a_rule_compiled_to_something_else_is_found() {
    let nothing = "! -s 0.0.0.0/0";
    for (what, from, to) in [
        ("a rule lost", "-A PREROUTING -m ttl", &*format!("-A PREROUTING {nothing} -m ttl")),
        ("a rule without a target lost", "-p udp -m recent", &format!("{nothing} -p udp -m recent")),
        ("a jump lost", "-p tcp -j web", &format!("-p tcp {nothing} -j web")),
        ("a lower bound off by one", "--dport 80:90", "--dport 81:90"),
        ("an upper bound off by one", "--dport 80:90", "--dport 80:91"),
        ("a range of a list off by one", "53,80:90", "53,80:89"),
        ("a value of a list lost", "53,80:90", "80:90"),
        ("a single value off by one", "--dport 53", "--dport 54"),
        ("a prefix a bit longer", "-s 10.0.0.0/9", "-s 10.0.0.0/10"),
        ("a prefix a bit shorter", "-d 10.0.0.0/8", "-d 10.0.0.0/7"),
        ("a mask with a hole filled", "255.0.255.0", "255.255.255.0"),
        ("a length off by one", "--length 40:100", "--length 40:101"),
        ("a comparison turned", "--ttl-lt 2", "--ttl-gt 2"),
        ("a negation dropped", "! -s 10.0.0.0/8", "-s 10.0.0.0/8"),
        ("a negation dropped on an interface", "! -i eth+", "-i eth+"),
        ("a negation added", "--ctstate", "! --ctstate"),
        ("a prefix of names taken for a name", "! -i eth+", "! -i eth"),
        ("a name taken for a prefix", "-o ppp0", "-o ppp0+"),
        ("later fragments taken for the others", "-f -j", "! -f -j"),
        ("a state for another", "ESTABLISHED", "ESTABLISHED,RELATED"),
        ("a protocol for another", "-p 47", "-p 46"),
        ("a flag not looked at", "SYN,ACK SYN", "SYN SYN"),
        ("a mark's mask widened", "0x1/0x3 -j DROP", "0x1/0x7 -j DROP"),
        ("a mark set under another mask", "0x1/0x3\n", "0x1/0xffffffff\n"),
        ("another mark set", "0x1/0x3\n", "0x2/0x3\n"),
        ("an effect lost", "-j MARK --set-xmark 0x1/0x3", "-j LOG"),
        (
            "a match moved before a limit",
            "-m limit --limit 5/sec -m udp --dport 53",
            "-m udp --dport 53 -m limit --limit 5/sec",
        ),
        ("a limit lost", "-m limit --limit 1/sec -j", "-j"),
        ("a limit that is only sometimes asked", "-p udp -m recent", "-p udp -i eth0 -m recent"),
        ("RETURN taken for going on", "-j RETURN", "-j LOG"),
        ("RETURN taken for a verdict", "-j RETURN", "-j DROP"),
        ("a goto taken for a jump", "-g gone", "-j gone"),
        ("a jump taken for a goto", "-j web", "-g web"),
        ("a jump with a guard taken for a goto", "-j jumped", "-g jumped"),
        ("a jump to another chain", "-j jumped", "-j gone"),
        ("a verdict for another", "--dport 80:90 -j ACCEPT", "--dport 80:90 -j DROP"),
        ("a verdict taken for going on", "-f -j DROP", "-f"),
        ("a policy changed", "FORWARD DROP", "FORWARD ACCEPT"),
        ("the header's need forgotten", "-p tcp -m tcp --tcp-flags SYN,ACK SYN", "-p tcp"),
    ] {
        check_found(what, from, to);
    }
}

#[test]
fn two_rules_swapped_are_found() {
    // Neighbours of web: 80–90, RETURN for 10/8, DROP by length.
    let (one, other) = ("-A web -p tcp -m tcp --dport 80:90 -j ACCEPT\n", "-A web -d 10.0.0.0/8 -j RETURN\n");
    let wrong = RULES.replace(&format!("{one}{other}"), &format!("{other}{one}"));
    assert!(wrong != RULES);
    let ruleset = read(RULES);
    let first = origin_of(&ruleset, "web");
    let mut image = compile_roomy(&read(&wrong), Counting::Exact).image;
    seal::swap_origins(&mut image, first, first + 1);
    let report = verdict(image, &ruleset, PACKETS).unwrap();
    assert!(!report.is_agreement());
}

/// Rules of the whole ruleset before the first of a chain.
fn origin_of(ruleset: &Ruleset, chain: &str) -> u32 {
    let chains = ruleset.tables.iter().flat_map(|t| &t.chains);
    chains.take_while(|c| &*c.name != chain).map(|c| c.rules.len() as u32).sum()
}

#[test]
fn an_image_of_other_rules_is_refused_before_any_packet() {
    for (from, to) in [
        ("-A FORWARD -f -j DROP\n", ""),
        ("-A FORWARD -f -j DROP\n", "-A FORWARD -f -j DROP\n-A FORWARD -j LOG\n"),
        ("-A gone -o ppp0 -j ACCEPT\n", "-A web -o ppp0 -j ACCEPT\n"),
    ] {
        let other = compile_roomy(&read(&RULES.replace(from, to)), Counting::Exact).image;
        assert!(ImageSubject::new(Image::open(other).unwrap(), &read(RULES)).is_err());
    }
}
