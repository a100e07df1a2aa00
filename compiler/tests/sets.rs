//! Rules over IP sets: compiled, proved, and held against the oracle.

mod common;

use common::{compile_roomy, read_as, seal};
use hipac_classifier::Image;
use hipac_classifier::image::Section;
use hipac_compiler::Counting;
use hipac_rules::ipset::Sets;
use hipac_rules::{Family, Ruleset};
use hipac_verifier::proof::{Options, prove};
use hipac_verifier::{ImageSubject, Oracle, agree};

/// Every type of sets, with entries that lie in each other and beside each other.
const SETS_V4: &str = "\
create ips hash:ip family inet hashsize 1024 maxelem 65536 timeout 0 counters comment
add ips 10.0.0.1 timeout 0 packets 5 bytes 400 comment \"a b\"
add ips 10.0.0.2-10.0.0.9
add ips 0.0.0.0-0.0.0.3
create nets hash:net family inet
add nets 10.0.0.0/8
add nets 10.1.0.0/16 nomatch
add nets 10.1.2.0/24
add nets 10.1.2.128/25 nomatch
add nets 192.0.2.1-192.0.2.6
create ipport hash:ip,port family inet
add ipport 10.0.0.1,tcp:80
add ipport 10.0.0.1,udp:53-60
add ipport 10.0.0.1,icmp:8/0
add ipport 10.0.0.1,47:0
create netport hash:net,port family inet
add netport 10.0.0.0/8,443
add netport 10.2.0.0/16,443 nomatch
create netnet hash:net,net family inet
add netnet 10.0.0.0/8,192.0.2.0/24
add netnet 10.1.0.0/16,192.0.0.0/16 nomatch
add netnet 10.0.0.0/9,192.0.2.0/25 nomatch
create triple hash:ip,port,ip family inet
add triple 10.0.0.1,tcp:80,192.0.2.1
create tnet hash:ip,port,net family inet
add tnet 10.0.0.1,tcp:80,192.0.2.0/24
create npn hash:net,port,net family inet
add npn 10.0.0.0/8,tcp:80,192.0.2.0/24
add npn 10.1.0.0/16,tcp:80,192.0.0.0/16 nomatch
create faces hash:net,iface family inet
add faces 10.0.0.0/8,eth0
add faces 10.1.0.0/16,eth0 nomatch
add faces 0.0.0.0/0,wan wildcard
create marks hash:ip,mark family inet markmask 0xff
add marks 10.0.0.1,0x105
create macs hash:mac
add macs 02:00:00:00:00:01
create ipmac hash:ip,mac family inet
add ipmac 10.0.0.1,02:00:00:00:00:01
create bits bitmap:ip range 10.0.0.0/16
add bits 10.0.0.0-10.0.0.127
create bitmac bitmap:ip,mac range 10.0.0.0/16
add bitmac 10.0.0.1,02:00:00:00:00:01
add bitmac 10.0.0.2
create ports bitmap:port range 0-65535
add ports 22
add ports 1000-2000
create none hash:ip family inet
create six hash:net family inet6
add six 2001:db8::/32
create any list:set size 8
add any ips
add any six
add any netport
";

const RULES_V4: &str = "\
*mangle
:PREROUTING ACCEPT
-A PREROUTING -m set --match-set marks src,src -j ACCEPT
-A PREROUTING -s 10.0.0.1/32 -j MARK --set-xmark 0x5/0xff
-A PREROUTING -m set --match-set marks src,src -j DROP
COMMIT
*filter
:FORWARD DROP
:web -
-A FORWARD -m set --match-set ips src -j ACCEPT
-A FORWARD -m set --match-set nets dst -m set ! --match-set nets src -j web
-A FORWARD -m set --match-set ipport src,dst -j ACCEPT
-A FORWARD -m set --match-set ipport dst,src -j REJECT
-A FORWARD -m set --match-set netport src,dst -j ACCEPT
-A FORWARD -m set --match-set netport src,dst --return-nomatch -j REJECT
-A FORWARD -m set --match-set netnet src,dst -j ACCEPT
-A FORWARD -m set --match-set triple src,dst,dst -j ACCEPT
-A FORWARD -m set --match-set tnet src,dst,dst -j ACCEPT
-A FORWARD -m set --match-set npn src,dst,dst -j ACCEPT
-A FORWARD -m set --match-set faces src,src -j ACCEPT
-A FORWARD -m set --match-set faces dst,dst -j REJECT
-A FORWARD -m set --match-set macs src -j ACCEPT
-A FORWARD -m set --match-set ipmac src,src -j ACCEPT
-A FORWARD -m set --match-set bits src -p tcp --dport 80 -j ACCEPT
-A FORWARD -m set --match-set bitmac src,src -j ACCEPT
-A FORWARD -m set ! --match-set ports dst -j web
-A FORWARD -m set --match-set none src -j ACCEPT
-A FORWARD -m set ! --match-set none src -j web
-A FORWARD -m set --match-set six src -j ACCEPT
-A FORWARD -m set --match-set netport src -j ACCEPT
-A FORWARD -m set ! --match-set any src,dst -j ACCEPT
-A FORWARD -m set --match-set nets src --return-nomatch -j REJECT
-A web -m set --match-set ips dst -j ACCEPT
-A web -m set --match-set nets src -j RETURN
-A web -p tcp --dport 80 -j DROP
COMMIT
";

fn bound(rules: &str, sets: &str, family: Family) -> Ruleset {
    let (sets, faults) = Sets::read(sets);
    assert!(faults.is_empty(), "{faults:?}");
    let mut ruleset = read_as(rules, Some(family));
    let bound = sets.bind(&mut ruleset);
    assert_eq!(bound.unbound, [], "all of them can be looked up");
    ruleset
}

#[track_caller]
fn check(ruleset: &Ruleset, packets: u64) -> (Vec<u8>, usize) {
    let mut last = (Vec::new(), 0);
    for counting in [Counting::Deciding, Counting::Exact] {
        let compiled = compile_roomy(ruleset, counting);
        let image = Image::open(compiled.image.as_slice()).expect("it opens");
        image.audit().expect("it is sound");
        let compared = match counting {
            Counting::Exact => hipac_verifier::Compared::All,
            Counting::Deciding => hipac_verifier::Compared::Deciding,
        };
        if let Err(refutation) = prove(ruleset, &image, &Options { compared, ..Options::default() }) {
            panic!("{}", refutation.show(ruleset));
        }
        let subject = ImageSubject::new(image, ruleset).expect("its rules");
        let options = agree::Options { packets, compared, ..Default::default() };
        let report = agree::check(&Oracle::new(ruleset).expect("an oracle"), &subject, &options, &mut |_| {});
        assert!(report.is_agreement(), "{}", report.show(ruleset));
        last = (compiled.image, report.rules_matched);
    }
    last
}

#[test]
fn sets_of_every_type_are_proved_and_agree() {
    check(&bound(RULES_V4, SETS_V4, Family::V4), 5_000);
}

/// Each rule alone, so that no other one takes its packets.
#[test]
fn sets_of_every_type_match_and_do_not_match() {
    for line in RULES_V4.lines().filter(|l| l.starts_with("-A FORWARD")) {
        let line = line.replace("-j web", "-j ACCEPT");
        let text = format!("*filter\n:FORWARD DROP\n{line}\nCOMMIT\n");
        let ruleset = bound(&text, SETS_V4, Family::V4);
        let never = ["none src", "six src", "netport src "];
        let can_match = line.contains("! ") || !never.iter().any(|set| line.contains(set));
        let matched = check(&ruleset, 1_500);
        assert_eq!(matched.1 == 1, can_match, "{line}");
    }
}

#[test]
fn sets_of_ipv6_are_proved_and_agree() {
    let sets = "create a hash:net family inet6\nadd a 2001:db8::/32\nadd a 2001:db8:1::/48 nomatch\n\
                add a 2001:db8:1:2::/64\nadd a ::1\nadd a ff00::/8\n\
                add a ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff nomatch\ncreate b hash:ip,port family inet6\n\
                add b 2001:db8::1,tcp:80\nadd b 2001:db8::1,icmpv6:128/0\ncreate c hash:ip family inet6\nadd c ::1\n\
                add c ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n";
    let rules = "*filter\n:FORWARD DROP\n-A FORWARD -m set --match-set a src -j ACCEPT\n\
                 -A FORWARD -m set ! --match-set c src -m set --match-set b dst,dst -j REJECT\n\
                 -A FORWARD -m set --match-set c dst -j ACCEPT\n\
                 -A FORWARD -m set --match-set a dst --return-nomatch -j QUEUE\nCOMMIT\n";
    check(&bound(rules, sets, Family::V6), 20_000);
}

#[test]
fn more_uses_than_dimensions_share_them() {
    use std::fmt::Write;
    let (mut sets, mut rules) = (String::new(), String::from("*filter\n:FORWARD DROP\n"));
    for i in 0..60 {
        let _ = writeln!(sets, "create s{i} hash:net\nadd s{i} 10.{i}.0.0/16\nadd s{i} 10.{}.0.0/17", i + 1);
        let _ = writeln!(rules, "-A FORWARD -m set --match-set s{i} src -p tcp --dport {i} -j ACCEPT");
    }
    rules.push_str("COMMIT\n");
    check(&bound(&rules, &sets, Family::V4), 3_000);
}

/// A set is one dimension, whatever it holds: rules over it are as many boxes as they are without it.
#[test]
fn a_large_set_is_stored_once() {
    use std::fmt::Write;
    let mut sets = String::from("create s hash:ip\n");
    let mut rules =
        String::from("*filter\n:FORWARD DROP\n:web -\n-A FORWARD -m set --match-set s src -j web\n");
    for i in 0..20_000u32 {
        let _ = writeln!(sets, "add s {}", std::net::Ipv4Addr::from(0x0a00_0000 + i * 7));
    }
    for port in 1..500 {
        let _ = writeln!(rules, "-A web -p tcp --dport {port} -j ACCEPT");
    }
    rules.push_str("COMMIT\n");
    let ruleset = bound(&rules, &sets, Family::V4);
    let compiled = compile_roomy(&ruleset, Counting::Deciding);
    assert!(compiled.cost.boxes < 2_000, "{} boxes", compiled.cost.boxes);
    // Two bounds of four bytes an entry, and the table before them.
    let image = Image::open(compiled.image).expect("it opens");
    let sets_bytes = image.section(Section::Sets).len();
    assert!(sets_bytes < 20_000 * 8 + 17_000, "{sets_bytes} bytes");
    let options = Options { compared: hipac_verifier::Compared::Deciding, ..Options::default() };
    assert!(prove(&ruleset, &image, &options).is_ok());
}

/// An image whose sets hold something else is refused, whatever else is right.
#[test]
fn a_changed_set_is_no_proof() {
    let ruleset = bound(RULES_V4, SETS_V4, Family::V4);
    let image = compile_roomy(&ruleset, Counting::Exact).image;
    let section = {
        let open = Image::open(image.as_slice()).expect("it opens");
        let sets = open.section(Section::Sets);
        let start = sets.as_ptr() as usize - image.as_ptr() as usize;
        start..start + sets.len()
    };
    let uses = u32::from_le_bytes(image[section.start..section.start + 4].try_into().unwrap()) as usize;
    let data = section.start + 16 + 32 * uses;
    let (mut refused, mut unsound) = (0, 0);
    for at in (data..section.end).step_by(3) {
        let mut mutant = image.clone();
        mutant[at] ^= 1;
        seal::seal(&mut mutant);
        let Ok(open) = Image::open(mutant.as_slice()) else { continue };
        if open.audit().is_err() {
            unsound += 1;
            continue;
        }
        let proof = prove(&ruleset, &open, &Options { packets: 200, ..Options::default() });
        assert!(proof.is_err(), "byte {} of the sets does not matter", at - section.start);
        refused += 1;
    }
    assert!(refused > 50 && unsound > 10, "{refused} refused, {unsound} unsound");
}
