//! Planted faults that a certificate must not be given for: each is one way in which an image could be
//! wrong while every step of its certificate looks true.

mod common;

use common::{Numbers, compared, compile_roomy, images_of_all_sizes, read, seal};
use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_classifier::forest::node::{NO_CHILD, Node};
use hipac_classifier::forest::root::{Root, cell_at};
use hipac_classifier::forest::{Ref, UNIT};
use hipac_classifier::image::Section;
use hipac_classifier::image::format::{ALIGNMENT, HEADER_BYTES};
use hipac_classifier::program::Op;
use hipac_classifier::{Dim, Image};
use hipac_compiler::Counting;
use hipac_rules::ipset::Sets;
use hipac_rules::{Rule, Ruleset};
use hipac_verifier::Compared;
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

/// The bytes of `image`, but with the forest of `other`: positions and keys are the same in both.
fn with_forest_of(image: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = image.to_vec();
    for section in [Section::Slots, Section::Recodes, Section::Ranks] {
        let [keys, of_other] = [image, other].map(|bytes| &bytes[seal::section(bytes, section)]);
        assert_eq!(keys, of_other, "keys differ");
    }
    // It stands behind all else.
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    let arena = &other[seal::section(other, Section::Arena)];
    let at = HEADER_BYTES + 16 * Section::Arena as usize;
    for (at, number) in [(at, out.len()), (at + 8, arena.len()), (16, out.len() + arena.len())] {
        out[at..at + 8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    out.extend(arena);
    let [to, from] = [image, other].map(|bytes| seal::section(bytes, Section::Entries));
    assert_eq!(to.len(), from.len(), "entries differ");
    let rest = |image: &[u8], at: usize| image[at + 8..at + 32].to_vec();
    for (to, from) in to.zip(from).step_by(Section::Entries.record_bytes()) {
        assert_eq!(rest(image, to), rest(other, from), "entries differ");
        out[to..to + 8].copy_from_slice(&other[from..from + 8]);
    }
    seal::seal(&mut out);
    out
}

/// A rule is hidden in `other`, but not in `rules`: an image of these in which it is not stored either has no
/// certificate, and that of `other` is not accepted for it.
#[track_caller]
fn check_not_hidden(rules: &str, other: &str, counting: Counting) {
    let [rules, other] = [rules, other].map(read);
    let [right, of_other] = [&rules, &other].map(|rules| compile_roomy(rules, counting).image);
    assert_eq!(certified(&rules, &right, counting), Ok(()));
    let image = with_forest_of(&right, &of_other);
    let [arena, of_right] = [&of_other, &right].map(|image| &image[seal::section(image, Section::Arena)]);
    assert_ne!(arena, of_right, "it is hidden in both");
    let answer = certified(&rules, &image, counting);
    assert!(matches!(answer, Err(Refused::Wrong(_))), "{answer:?}");
    let opened = Image::open(&*of_other).expect("an image that opens");
    let certificate = write(&other, b"", &opened, compared(counting)).expect("a certificate");
    let opened = Image::open(&*image).expect("an image that opens");
    let accepted = |mut certificate: Vec<u8>| {
        seal::certificate(&mut certificate, &image);
        check(&rules, b"", &opened, &certificate).is_ok()
    };
    assert!(!accepted(certificate.clone()));
    // It is not hidden by others either, nor stored where others are.
    for (kind, number) in [HIDDEN, LANE].into_iter().flat_map(|kind| (0..8).map(move |number| (kind, number)))
    {
        let mut lie = certificate.clone();
        let hidden = lie[HEADER..].chunks_exact_mut(STEP).filter(|step| step[0] == HIDDEN);
        hidden.for_each(|step| (step[0], step[1]) = (kind, number));
        assert!(!accepted(lie), "{kind}: {number}");
    }
    assert!(proved(&rules, &image, counting).is_err());
}

#[test]
fn what_lets_packets_pass_hides_nothing() {
    let text = |chains: &str, rule: &str| {
        let hidden = "-A FORWARD -p tcp -m tcp --dport 22 -j DROP";
        format!("*mangle\n:FORWARD ACCEPT\n{chains}-A FORWARD -p tcp {rule}\n{hidden}\nCOMMIT\n")
    };
    for rule in ["", "-m limit --limit 5/sec -j ACCEPT", "-m u32 --u32 \"6&0xff=1\" -j ACCEPT", "-j LOG"] {
        check_not_hidden(&text("", rule), &text("", "-j ACCEPT"), Counting::Exact);
    }
    // The rule behind it that holds as well does not hide it.
    let text = |first: &str| {
        let rules = format!(
            "-A FORWARD -p tcp {first}\n-A FORWARD -p tcp -s 10.0.0.0/8 -j DROP\n-A FORWARD -j LOG\n"
        );
        format!("*filter\n:FORWARD ACCEPT\n{rules}-A FORWARD -j ACCEPT\nCOMMIT\n")
    };
    check_not_hidden(&text(""), &text("-j ACCEPT"), Counting::Exact);
}

#[test]
fn a_call_hides_nothing() {
    let text = |chains: &str, rule: &str| {
        let hidden = "-A FORWARD -p tcp -m tcp --dport 22 -j DROP";
        format!("*mangle\n:FORWARD ACCEPT\n{chains}-A FORWARD -p tcp {rule}\n{hidden}\nCOMMIT\n")
    };
    // What `sub` returns goes on behind the jump. It is called, for it changes packets.
    let mark = "-p udp -j MARK --set-xmark 0x1/0xffffffff";
    let sub = format!(":INPUT ACCEPT\n:sub -\n-A INPUT -j sub\n-A sub {mark}\n");
    check_not_hidden(&text(&sub, "-j sub"), &text(&sub, "-j ACCEPT"), Counting::Exact);
}

#[test]
fn a_skip_hides_nothing_behind_its_landing() {
    let text = |target: &str| {
        let sub = format!("-A sub -p tcp -j {target}\n-A sub -p udp -j DROP\n");
        format!(
            "*filter\n:FORWARD ACCEPT\n:sub -\n-A FORWARD -j sub\n-A FORWARD -p tcp -j DROP\n{sub}COMMIT\n"
        )
    };
    check_not_hidden(&text("RETURN"), &text("ACCEPT"), Counting::Deciding);
}

#[test]
fn what_a_skip_passes_over_hides_nothing_behind_its_landing() {
    let text = |target: &str| {
        let sub = format!("-A sub -p tcp -j {target}\n-A sub -s 10.0.0.0/8 -j ACCEPT\n");
        let last = "-A FORWARD -s 10.0.0.0/8 -j DROP\n";
        format!("*filter\n:FORWARD ACCEPT\n:sub -\n-A FORWARD -j sub\n{last}{sub}COMMIT\n")
    };
    check_not_hidden(&text("RETURN"), &text("ACCEPT"), Counting::Deciding);
}

/// A packet that was passed over may look as if it had not been, once it is changed.
#[test]
fn what_is_before_a_change_hides_nothing_behind_it() {
    let text = |chains: &str, rule: &str| {
        let marked = |target: &str| format!("-A FORWARD -m mark --mark 0x1 -j {target}\n");
        let (before, behind) = (marked("ACCEPT"), marked("DROP"));
        format!("*mangle\n:FORWARD ACCEPT\n{chains}{before}-A FORWARD {rule}\n{behind}COMMIT\n")
    };
    let set = "-j MARK --set-xmark 0x1/0xffffffff";
    check_not_hidden(&text("", set), &text("", "-j LOG"), Counting::Exact);
    let jump = "-m limit --limit 5/sec -j";
    let chains = |does: &str| format!(":tag -\n:deep -\n-A tag {jump} deep\n-A deep {does}\n");
    let tag = |does: &str| text(&chains(does), &format!("{jump} tag"));
    check_not_hidden(&tag(set), &tag("-j LOG"), Counting::Exact);
}

#[test]
fn where_jumps_and_returns_lead_is_looked_at() {
    let text = |rule: &str| {
        let sub = "-A sub -p udp -j ACCEPT\n-A sub -p tcp -m limit --limit 5/sec -j RETURN\n-A sub -j LOG\n";
        let rules = format!("-A FORWARD -p tcp {rule}\n-A FORWARD -j DROP\n-A FORWARD -j LOG\n");
        read(&format!("*filter\n:FORWARD ACCEPT\n:sub -\n{rules}-A FORWARD -p udp -j sub\n{sub}COMMIT\n"))
    };
    for (one, other) in [("-j sub", "-g sub"), ("", "-g sub"), ("", "-j RETURN"), ("-j LOG", "-j RETURN")] {
        check_refused(&text(one), &text(other), Counting::Exact);
        check_refused(&text(other), &text(one), Counting::Exact);
    }
}

#[test]
fn a_skip_that_lands_elsewhere_is_refused() {
    let text = "*filter\n:FORWARD ACCEPT\n:sub -\n-A FORWARD -p tcp -j sub\n-A FORWARD -j DROP\n\
        -A FORWARD -j LOG\n-A sub -s 10.0.0.0/8 -j RETURN\n-A sub -s 10.0.0.0/9 -j ACCEPT\n\
        -A sub -s 10.0.0.0/10 -j RETURN\n-A sub -d 10.0.0.0/8 -j ACCEPT\nCOMMIT\n";
    let (rules, counting) = (read(text), Counting::Deciding);
    let image = compile_roomy(&rules, counting).image;
    assert_eq!(certified(&rules, &image, counting), Ok(()));
    let opened = Image::open(&*image).expect("an image that opens");
    let mut skips = 0;
    for position in 0..opened.flat_count() as u32 {
        let Some(&[Op::Skip(to)]) = opened.operations(position).as_deref() else { continue };
        // Its program: which operation, and where it lands.
        let [flats, programs] = [Section::Flats, Section::Programs].map(|s| seal::section(&image, s).start);
        let word = seal::word(&image, flats + 8 * position as usize) & ((1 << 29) - 1);
        let at = programs + 4 * (word as usize + 1);
        assert_eq!(seal::word(&image, at), to);
        for other in (position + 1..=opened.flat_count() as u32).filter(|&other| other != to) {
            let mut changed = image.clone();
            changed[at..at + 4].copy_from_slice(&other.to_le_bytes());
            seal::seal(&mut changed);
            let answer = certified(&rules, &changed, counting);
            assert!(matches!(answer, Err(Refused::Wrong(_))), "{position} to {other}: {answer:?}");
            skips += 1;
        }
    }
    assert!(skips > 2, "{skips}");
}

#[test]
fn an_entry_is_one_chain() {
    // Both change packets, so that they are called.
    let marks = |chain: &str, mark: u32| format!("-A {chain} -j MARK --set-xmark {mark}/0xffffffff\n");
    let marks = marks("one", 1) + &marks("two", 2);
    for [first, second] in [["INPUT", "FORWARD"], ["FORWARD", "INPUT"], ["FORWARD", "FORWARD"]] {
        let text = |chain: &str| {
            let jumps = format!("-A {first} -p tcp -j one\n-A {second} -p udp -j {chain}\n");
            let chains = ":FORWARD ACCEPT\n:INPUT ACCEPT\n:one -\n:two -\n";
            read(&format!("*mangle\n{chains}{jumps}{marks}COMMIT\n"))
        };
        check_refused(&text("one"), &text("two"), Counting::Exact);
        check_refused(&text("two"), &text("one"), Counting::Exact);
    }
}

#[test]
fn an_image_has_all_rules_and_no_others() {
    let text =
        |rules: &str| read(&format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -p tcp -j DROP\n{rules}COMMIT\n"));
    let more = text("-A FORWARD -p udp -j DROP\n");
    check_refused(&text(""), &more, Counting::Exact);
    check_refused(&more, &text(""), Counting::Exact);
    let input = |policy: &str| read(&format!("*filter\n:INPUT {policy}\n:FORWARD ACCEPT\nCOMMIT\n"));
    check_refused(&input("ACCEPT"), &input("DROP"), Counting::Exact);
    // A table that the rules do not have: nobody has looked at what it does.
    let raw = read("*raw\n:PREROUTING DROP\nCOMMIT\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\nCOMMIT\n");
    let image = compile_roomy(&raw, Counting::Exact).image;
    assert_eq!(certified(&raw, &image, Counting::Exact), Ok(()));
    assert!(matches!(certified(&input("ACCEPT"), &image, Counting::Exact), Err(Refused::Wrong(_))));
    // What only counts may be left out where only what decides is compared.
    let counts = text("-A FORWARD -p udp\n");
    let image = compile_roomy(&counts, Counting::Deciding).image;
    assert_eq!(certified(&counts, &image, Counting::Deciding), Ok(()));
    assert!(matches!(certified(&counts, &image, Counting::Exact), Err(Refused::Wrong(_))));
}

/// Each flat rule does what another one does: where that is accepted, it means the same.
#[test]
fn a_flat_rule_that_does_what_another_one_does_is_refused() {
    let text = "*mangle\n:FORWARD ACCEPT\n:sub -\n:tag -\n:none -\n-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT\n\
        -A FORWARD -p udp -j DROP\n-A FORWARD -p udp\n-A FORWARD -s 10.0.0.0/8 -j RETURN\n\
        -A FORWARD -s 11.0.0.0/8 -j tag\n-A FORWARD -s 12.0.0.0/8 -g tag\n-A FORWARD -s 13.0.0.0/8 -j sub\n\
        -A FORWARD -p tcp -j none\n-A FORWARD -d 10.0.0.0/8 -j LOG\n-A FORWARD -m limit --limit 5/sec -j DROP\n\
        -A FORWARD -d 13.0.0.0/8 -j MARK --set-xmark 0x1/0xffffffff\n-A FORWARD -j ACCEPT\n\
        -A sub -d 10.0.0.0/8 -j RETURN\n-A sub -d 11.0.0.0/8 -j ACCEPT\n-A none -p udp -j DROP\n\
        -A tag -j MARK --set-xmark 0x2/0xffffffff\nCOMMIT\n";
    let rules = read(text);
    let mut refused = 0;
    for counting in [Counting::Exact, Counting::Deciding] {
        let image = compile_roomy(&rules, counting).image;
        assert_eq!(certified(&rules, &image, counting), Ok(()));
        let opened = Image::open(&*image).expect("an image");
        let certificate = write(&rules, b"", &opened, compared(counting)).expect("a certificate");
        let flats = || seal::section(&image, Section::Flats).step_by(Section::Flats.record_bytes());
        for (at, other) in flats().flat_map(|at| flats().map(move |other| (at, other))) {
            let mut changed = image.clone();
            changed.copy_within(other..other + 4, at);
            seal::seal(&mut changed);
            let opened = Image::open(&*changed).expect("an image");
            if opened.audit().is_err() {
                continue;
            }
            let mut resealed = certificate.clone();
            seal::certificate(&mut resealed, &changed);
            let is_accepted = check(&rules, b"", &opened, &resealed).is_ok();
            if is_accepted || certified(&rules, &changed, counting).is_ok() {
                assert_eq!(proved(&rules, &changed, counting), Ok(()), "{at} as {other}");
            } else {
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// The rules of an unfolded chain are asked what is on the way to them, but not the limit of the jump.
#[test]
fn a_jump_that_asks_something_is_not_left_out() {
    let jump = "-A FORWARD -p tcp -m limit --limit 5/sec";
    let rules = format!("*filter\n:FORWARD DROP\n:sub -\n{jump} -j sub\n\n-A sub -j ACCEPT\nCOMMIT\n");
    let unfolded = "-A FORWARD -p tcp -j ACCEPT\n-A sub -j LOG";
    let unfolded = format!("*filter\n:FORWARD DROP\n:sub -\n{jump}\n{unfolded}\nCOMMIT\n");
    let mut image = compile_roomy(&read(&unfolded), Counting::Exact).image;
    seal::swap_origins(&mut image, 1, 2);
    let answer = certified(&read(&rules), &image, Counting::Exact);
    assert!(matches!(answer, Err(Refused::Wrong(_))), "{answer:?}");
    assert!(proved(&read(&rules), &image, Counting::Exact).is_err());
}

#[test]
fn each_root_is_asked_for_its_own_packets() {
    let rules: String =
        [22, 80, 443].map(|port| format!("-A FORWARD -p tcp -m tcp --dport {port} -j ACCEPT\n")).concat();
    let rules = read(&format!("*filter\n:FORWARD ACCEPT\n{rules}-A FORWARD -p tcp -j DROP\nCOMMIT\n"));
    let image = compile_roomy(&rules, Counting::Exact).image;
    assert_eq!(certified(&rules, &image, Counting::Exact), Ok(()));
    let opened = Image::open(&*image).expect("an image");
    let (id, ..) = opened.entries().max_by_key(|(_, entry, _)| entry.count).expect("an entry");
    let at = seal::section(&image, Section::Entries).start + 32 * id.0 as usize;
    let [root, broken] = [at, at + 4].map(|at| seal::word(&image, at));
    assert_ne!(root, broken);
    let empty = Ref::EMPTY.0;
    for roots in [[root, empty], [root, root], [empty, broken], [broken, broken], [broken, root]] {
        let mut changed = image.clone();
        for (root, at) in roots.into_iter().zip([at, at + 4]) {
            changed[at..at + 4].copy_from_slice(&root.to_le_bytes());
        }
        seal::seal(&mut changed);
        let answer = certified(&rules, &changed, Counting::Exact);
        assert!(matches!(answer, Err(Refused::Wrong(_))), "{roots:?}: {answer:?}");
        assert!(proved(&rules, &changed, Counting::Exact).is_err(), "{roots:?}");
    }
    // And whatever stands in either, a little changed.
    let mut refused = 0;
    for at in seal::section(&image, Section::Arena).step_by(2) {
        let old = u16::from_le_bytes([image[at], image[at + 1]]);
        // Up to the last state but one as well, in either byte.
        let states = [old & 0xff00 | 5, old & 0xff | 5 << 8];
        for new in [old.wrapping_add(1), old.wrapping_sub(1), 0, u16::MAX].into_iter().chain(states) {
            let mut changed = image.clone();
            changed[at..at + 2].copy_from_slice(&new.to_le_bytes());
            seal::seal(&mut changed);
            match certified(&rules, &changed, Counting::Exact) {
                Ok(()) => assert_eq!(proved(&rules, &changed, Counting::Exact), Ok(()), "{at}: {new}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_test_is_not_its_negation() {
    let text = |test: &str| {
        let rule = format!("-A FORWARD {test} -j ACCEPT");
        read(&format!("*filter\n:FORWARD DROP\n{rule}\nCOMMIT\n"))
    };
    let limit = "-m limit --limit 5/sec";
    // In the forest; in a program, behind what is asked.
    for (before, test) in [
        ("", "-p tcp"),
        ("", "-s 10.0.0.0/8"),
        (limit, "-m mark ! --mark 0x1/0x5"),
        (limit, "-m physdev ! --physdev-in eth0"),
        (limit, "-m ttl ! --ttl-eq 3"),
    ] {
        let plain = test.replace("! ", "");
        let negated = if plain == test { format!("! {test}") } else { test.to_string() };
        let [plain, negated] = [plain, negated].map(|test| text(&format!("{before} {test}")));
        check_refused(&plain, &negated, Counting::Exact);
        check_refused(&negated, &plain, Counting::Exact);
    }
}

/// Children of nodes and what nodes defer, each changed a little: the certificate of the right image is held against
/// every one, and another one is looked for.
#[test]
fn nodes_that_lead_elsewhere_are_refused() {
    let options = classbench_gen::Options::new(200, 1);
    let filters = classbench_gen::generate(&FilterFamily::Firewall.parameters(), &options).expect("filters");
    let rules = ruleset_of(&filters).expect("filters are rules");
    let (mut nodes, mut deferring, mut refused) = (0, 0, 0);
    for compiled in images_of_all_sizes(&rules, Counting::Exact) {
        let image = compiled.image;
        let opened = Image::open(&*image).expect("an image");
        let certificate = write(&rules, b"", &opened, Compared::All).expect("a certificate");
        let arena = opened.section(Section::Arena);
        let start = seal::section(&image, Section::Arena).start;
        let (mut changes, mut of_deferred): (Vec<(usize, Vec<u8>)>, Vec<_>) = (vec![], vec![]);
        for at in nodes_of(&opened) {
            let node = Node::view(arena, at).expect("a node");
            let mut others = vec![];
            for slot in 0..node.children.len() {
                for child in [NO_CHILD, node.children[(slot + 1) % node.children.len()]] {
                    let mut other = node.clone();
                    other.children[slot] = child;
                    others.push(other);
                }
            }
            for slot in 0..node.bounds.len() {
                for bound in [node.bounds[slot].wrapping_sub(1), node.bounds[slot].wrapping_add(1)] {
                    let mut other = node.clone();
                    other.bounds[slot] = bound;
                    others.push(other);
                }
            }
            others.retain(|other| *other != node);
            nodes += 1;
            let at = start + at.offset();
            changes.extend(others.into_iter().map(|other| (at, other.encode().to_vec())));
            if node.deferred(arena).is_some() {
                deferring += 1;
                let before = start + (node.base as usize - 1) * UNIT;
                of_deferred.push((before, Ref::EMPTY.0.to_le_bytes().to_vec()));
                of_deferred.push((before, node.child(0).0.to_le_bytes().to_vec()));
                of_deferred.push((at, Node { has_deferred: false, ..node.clone() }.encode().to_vec()));
            }
        }
        let step = (changes.len() / 60).max(1);
        for (at, bytes) in changes.into_iter().step_by(step).chain(of_deferred) {
            let mut changed = image.clone();
            changed[at..at + bytes.len()].copy_from_slice(&bytes);
            seal::seal(&mut changed);
            let mut resealed = certificate.clone();
            seal::certificate(&mut resealed, &changed);
            let opened = Image::open(&*changed).expect("an image");
            if opened.audit().is_err() {
                continue;
            }
            let accepted = check(&rules, b"", &opened, &resealed).is_ok();
            if accepted || certified(&rules, &changed, Counting::Exact).is_ok() {
                let answer = proved(&rules, &changed, Counting::Exact);
                assert!(answer.is_ok(), "{at}: accepted, and {answer:?}");
            } else {
                refused += 1;
            }
        }
    }
    println!("{nodes} nodes, {deferring} defer, {refused} refused");
    assert!(nodes > 0 && deferring > 0 && refused > 0);
}

/// The nodes of the largest entry, children before the next one.
fn nodes_of<B: AsRef<[u8]>>(image: &Image<B>) -> Vec<Ref> {
    let arena = image.section(Section::Arena);
    let (_, entry, _) = image.entries().max_by_key(|(_, entry, _)| entry.count).expect("an entry");
    let mut waiting = vec![Ref(entry.root)];
    let mut out = vec![];
    while let Some(at) = waiting.pop() {
        if at.is_root() {
            let root = Root::view(arena, at.offset()).expect("a root");
            for tree in (0..root.tree_count()).map(|t| root.tree(t)) {
                waiting.extend((0..tree.cell_count()).map(|c| cell_at(arena, tree.cells, c).reference));
            }
        } else if let Some(node) = Node::view(arena, at).filter(|_| !at.is_empty() && !out.contains(&at)) {
            out.push(at);
            waiting.extend((0..node.children.len()).map(|slot| node.child(slot)));
            waiting.extend(node.deferred(arena).map(|(at, _)| at));
        }
    }
    out
}

/// Kinds of steps, as the checker numbers them, and the bytes before the first step and of each.
const SPLIT: u8 = 4;
const BIT: u8 = 5;
const HIDDEN: u8 = 7;
const INSIDE: u8 = 8;
const LANE: u8 = 10;
const HEADER: usize = 40;
const STEP: usize = 9;

/// A region can be cut so that nothing is lost only: whatever is said of how to cut it, two clauses that
/// differ are not the same.
#[test]
fn no_cut_loses_what_differs() {
    let text = |mark: &str| {
        let rule = format!("-A FORWARD -m limit --limit 5/sec -m mark --mark {mark} -j ACCEPT");
        read(&format!("*filter\n:FORWARD DROP\n{rule}\nCOMMIT\n"))
    };
    let rules = text("0x1/0x3");
    let right = compile_roomy(&rules, Counting::Exact).image;
    let opened = Image::open(&*right).expect("an image");
    let certificate = write(&rules, b"", &opened, Compared::All).expect("a certificate");
    // The steps about the clause: cut, and then each part.
    let kinds: Vec<u8> = certificate[HEADER..].iter().step_by(STEP).copied().collect();
    let begin = kinds.iter().position(|&kind| kind == BIT).expect("bits that are looked at");
    let mut open = 1;
    let end = kinds.iter().skip(begin).position(|&kind| {
        open = if kind == BIT { open + 1 } else { open - 1 };
        open == 0
    });
    let end = begin + end.expect("an end") + 1;
    let [begin, end] = [begin, end].map(|number| HEADER + STEP * number);
    let axis = u32::from(certificate[begin + 1]);
    let said = |image: &[u8], steps: &[(u8, u32)]| {
        let mut lie = certificate[..begin].to_vec();
        for &(kind, at) in steps {
            lie.push(kind);
            lie.extend([if kind == INSIDE { 0 } else { axis }, at].into_iter().flat_map(u32::to_le_bytes));
        }
        lie.extend(&certificate[end..]);
        seal::certificate(&mut lie, image);
        check(&rules, b"", &Image::open(image).expect("an image"), &lie).map(drop)
    };
    let inside = (INSIDE, 0);
    assert_eq!(said(&right, &[(BIT, 2), (BIT, 1), inside, inside, inside]), Ok(()));
    let other = compile_roomy(&text("0x2/0x3"), Counting::Exact).image;
    let mut cuts: Vec<(u8, u32)> = [0, 1, 2, 3, 1 << 31, u32::MAX].map(|bits| (BIT, bits)).to_vec();
    cuts.extend([0, 1, 2, 1 << 31, u32::MAX - 1, u32::MAX].map(|at| (SPLIT, at)));
    for &cut in &cuts {
        assert!(said(&other, &[cut, inside, inside]).is_err(), "{cut:?}");
        // What is cut where nothing is on one side, or twice, is all there still.
        assert!(said(&other, &[cut, cut, inside, inside, inside]).is_err(), "{cut:?}");
    }
    let mut numbers = Numbers(1_000_003);
    for _ in 0..10_000 {
        let kinds = 2 * cuts.len();
        let steps = (0..9).map(|_| cuts.get(numbers.below(kinds)).copied().unwrap_or(inside));
        // As many steps as there are regions.
        let mut open = 1;
        let steps: Vec<(u8, u32)> = steps
            .take_while(|step| {
                let before = open;
                open = if *step == inside { open - 1 } else { open + 1 };
                before > 0
            })
            .collect();
        let steps = [steps, vec![inside; open.max(0) as usize]].concat();
        assert!(said(&other, &steps).is_err(), "{steps:?}");
    }
}
