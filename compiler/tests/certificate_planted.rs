//! Planted faults that a certificate must not be given for: each is one way in which an image could be
//! wrong while every step of its certificate looks true.

mod common;

use common::{compared, compile_roomy, read, seal};
use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_classifier::forest::Ref;
use hipac_classifier::image::Section;
use hipac_classifier::{Dim, Image};
use hipac_compiler::Counting;
use hipac_rules::ipset::Sets;
use hipac_rules::{Rule, Ruleset};
use hipac_verifier::certificate::{Refused, check, write};
use hipac_verifier::proof::{Options, Refutation, prove};

/// Writes a certificate that the image does what the rules say, and has it checked.
fn certified(rules: &Ruleset, image: &[u8], counting: Counting) -> Result<(), Refused> {
    let image = Image::open(image).expect("an image that opens");
    let certificate = write(rules, b"", &image, compared(counting))?;
    check(rules, b"", &image, &certificate).map(drop)
}

fn proved(rules: &Ruleset, image: &[u8], counting: Counting) -> Result<(), Refutation> {
    let image = Image::open(image).expect("an image that opens");
    let options = Options { compared: compared(counting), ..Options::default() };
    prove(rules, &image, &options).map(drop)
}

/// The image of `from` has a certificate for `from` and none for `to`, which it was not compiled from.
#[track_caller]
fn check_refused(from: &Ruleset, to: &Ruleset, counting: Counting) {
    let image = compile_roomy(from, counting).image;
    assert_eq!(certified(from, &image, counting), Ok(()));
    let answer = certified(to, &image, counting);
    assert!(matches!(answer, Err(Refused::Wrong(_))), "{answer:?}");
    assert!(proved(to, &image, counting).is_err());
}

#[test]
fn a_chain_behind_a_jump_that_asks_something_is_not_unfolded() {
    let text = |asks: &str| {
        let jump = format!("-A FORWARD {asks} -j sub");
        read(&format!("*filter\n:FORWARD DROP\n:sub -\n{jump}\n-A sub -p tcp -j ACCEPT\nCOMMIT\n"))
    };
    check_refused(&text(""), &text("-m u32 --u32 \"6&0xff=1\""), Counting::Deciding);
}

/// `sub` behind a jump that tests the mark, unfolded, when its first rule does `does` and changes that mark: what
/// the path tested is tested again at each rule of it, and may not hold any more. The compiler calls such a
/// chain. Unfolded it looks as the one here does, but for where rules come from.
#[track_caller]
fn check_unfolded_change_is_refused(chains: &str, does: &str) {
    let path = "-A FORWARD -m mark --mark 0x0";
    let head = format!("*mangle\n:FORWARD ACCEPT\n:sub -\n{chains}");
    let rules = read(&format!("{head}{path} -j sub\n\n\n-A sub {does}\n-A sub -j DROP\nCOMMIT\n"));
    let unfolded =
        format!("{head}{path} -j LOG\n{path} {does}\n{path} -j DROP\n-A sub -j LOG\n-A sub -j LOG\nCOMMIT\n");
    let mut image = compile_roomy(&read(&unfolded), Counting::Exact).image;
    seal::swap_origins(&mut image, 1, 3);
    seal::swap_origins(&mut image, 2, 4);
    let answer = certified(&rules, &image, Counting::Exact);
    assert!(matches!(&answer, Err(Refused::Wrong(why)) if why.contains("unfolded")), "{answer:?}");
    let answer = proved(&rules, &image, Counting::Exact);
    assert!(matches!(answer, Err(Refutation::Differs { .. })), "{answer:?}");
}

#[test]
fn an_unfolded_chain_changes_no_packet() {
    check_unfolded_change_is_refused("", "-j MARK --set-xmark 0x1/0xffffffff");
}

#[test]
fn an_unfolded_chain_calls_nothing_that_changes_packets() {
    check_unfolded_change_is_refused(":tag -\n-A tag -j MARK --set-xmark 0x1/0xffffffff\n", "-j tag");
}

#[test]
fn a_program_that_looks_at_other_names_is_refused() {
    let text = |name: &str| {
        let rule = format!("-A FORWARD -m limit --limit 5/sec -m physdev --physdev-in {name} -j ACCEPT");
        read(&format!("*filter\n:FORWARD DROP\n{rule}\nCOMMIT\n"))
    };
    // Of the names that the image tells apart, the first of each stands for all.
    check_refused(&text("eth+"), &text("eth"), Counting::Exact);
    check_refused(&text("eth0"), &text("eth0+"), Counting::Exact);
}

#[test]
fn a_set_in_a_program_is_not_taken_for_what_never_holds() {
    let text = |test: &str| {
        let rule = format!("-A FORWARD -m limit --limit 5/sec {test} -j ACCEPT");
        read(&format!("*filter\n:FORWARD DROP\n{rule}\nCOMMIT\n"))
    };
    let (sets, faults) = Sets::read("create some hash:ip\nadd some 192.0.2.1\n");
    assert!(faults.is_empty(), "{faults:?}");
    let mut with_set = text("-m set --match-set some src");
    assert_eq!(sets.bind(&mut with_set).unbound, []);
    check_refused(&text("-m mark ! --mark 0x0/0x0"), &with_set, Counting::Exact);
}

/// Gates compare positions from the root's first one on: what is before it counts as the last of all.
#[test]
fn a_root_that_counts_from_behind_its_first_position_is_refused() {
    let options = classbench_gen::Options::new(500, 1);
    let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options).expect("filters");
    let rules = ruleset_of(&filters).expect("filters are rules");
    let bytes = compile_roomy(&rules, Counting::Exact).image;
    let image = Image::open(&*bytes).expect("an image");
    let (_, entry, _) = image.entries().max_by_key(|(_, entry, _)| entry.count).expect("an entry");
    let root = Ref(entry.root);
    assert!(root.is_root());
    let with_first = |first: u32| {
        let mut changed = bytes.clone();
        let at = seal::section(&bytes, Section::Arena).start + root.offset() + 4;
        assert_eq!(seal::word(&bytes, at), entry.first);
        changed[at..at + 4].copy_from_slice(&first.to_le_bytes());
        seal::seal(&mut changed);
        changed
    };
    let audit = |bytes: &[u8]| Image::open(bytes).expect("an image").audit().map(drop);
    assert_eq!(certified(&rules, &with_first(entry.first), Counting::Exact), Ok(()));
    assert_eq!(audit(&with_first(entry.first)), Ok(()));
    for first in [entry.first + entry.count, u32::MAX, entry.first + 1] {
        let changed = with_first(first);
        let answer = certified(&rules, &changed, Counting::Exact);
        assert!(matches!(answer, Err(Refused::Wrong(_))), "{first}: {answer:?}");
        assert!(audit(&changed).is_err_and(|e| e.to_string().contains("counts")));
    }
}

/// Which root is asked hangs on the state of the header itself: its key may not be a class of states.
#[test]
fn states_of_the_header_are_never_recoded() {
    let rules: String = ["NONE", "FIN", "SYN", "FIN,SYN", "RST", "FIN,RST", "SYN,RST"]
        .map(|flags| format!("-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST {flags} -j ACCEPT\n"))
        .concat();
    let rules = read(&format!("*filter\n:FORWARD DROP\n{rules}-A FORWARD -f -j ACCEPT\nCOMMIT\n"));
    let mut image = compile_roomy(&rules, Counting::Exact).image;
    let slots = seal::section(&image, Section::Slots);
    let slot_of = |image: &[u8], dim: Dim| {
        let found = slots.clone().step_by(4).find(|&at| image[at] == dim.index() as u8);
        found.expect("a slot of this dimension")
    };
    let table = image[slot_of(&image, Dim::TcpFlags) + 2];
    let states = slot_of(&image, Dim::L4);
    assert_eq!((table, image[states + 2]), (0, 255), "flags are recoded, states are not");
    // By chance a right table for states: each its own class.
    let classes = seal::section(&image, Section::Recodes).start;
    assert_eq!(image[classes..classes + 7], [0, 1, 2, 3, 4, 5, 6]);
    image[states + 2] = table;
    seal::seal(&mut image);
    let answer = certified(&rules, &image, Counting::Exact);
    assert!(matches!(&answer, Err(Refused::Wrong(_))), "{answer:?}");
    assert!(matches!(proved(&rules, &image, Counting::Exact), Err(Refutation::NotProved { .. })));
    let audit = Image::open(&*image).expect("an image").audit();
    assert!(audit.is_err_and(|e| e.to_string().contains("header")));
}

/// A program names matches by a byte: a match that it cannot name is not the one with the same last byte.
#[test]
fn matches_are_not_counted_around() {
    let text = "*filter\n:FORWARD DROP\n-A FORWARD -m limit --limit 5/sec -j ACCEPT\nCOMMIT\n";
    let comment = "*filter\n:FORWARD DROP\n-A FORWARD -m comment --comment x -j ACCEPT\nCOMMIT\n";
    let comment = only_rule(&mut read(comment)).matches[0].clone();
    fn only_rule(rules: &mut Ruleset) -> &mut Rule {
        rules.tables[0].chains.iter_mut().find_map(|chain| chain.rules.first_mut()).expect("a rule")
    }
    // No text has a rule of so many matches, but who makes rules otherwise may.
    let behind = |comments: usize| {
        let mut rules = read(text);
        let comments = std::iter::repeat_n(comment.clone(), comments);
        only_rule(&mut rules).matches.splice(0..0, comments);
        rules
    };
    for number in [0, 1, 255] {
        let image = compile_roomy(&behind(number), Counting::Exact).image;
        assert_eq!(certified(&behind(number), &image, Counting::Exact), Ok(()));
    }
    check_refused(&behind(0), &behind(256), Counting::Exact);
    check_refused(&behind(255), &behind(256), Counting::Exact);
}
