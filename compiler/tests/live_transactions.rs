//! A transaction of a live table is made whole or not at all: rules, counters, answers and memory
//! after one that failed are those before it.

mod common;

use common::twins::{Twins, counted};
use hipac_bench_data::edits::{EditMaker, Options as EditOptions, Outcome};
use hipac_bench_data::{FilterFamily, Share, classbench_gen, ruleset_of};
use hipac_compiler::{LiveError, LiveOptions, LiveTable};
use hipac_rules::{Edit, ParseOptions, Ruleset, TableKind, parse_edits};
use proptest::prelude::*;

/// The edits of a text.
#[track_caller]
fn edits(text: &str) -> Vec<Edit> {
    let parsed = parse_edits(text, &ParseOptions::default()).into_result();
    let groups = parsed.unwrap_or_else(|faults| panic!("{}", faults[0]));
    groups.into_iter().flat_map(|group| group.edits).collect()
}

proptest! {
    #![proptest_config(common::cases(40))]
    #[test]
    fn a_transaction_that_fails_in_the_middle_changes_nothing(
        nasty in common::any_nasty(), seed: u64, sizes in proptest::collection::vec(1..12usize, 4),
    ) {
        let ruleset = common::read_as(&nasty.text, Some(nasty.family));
        let mut twins = Twins::new(&ruleset, &LiveOptions::default());
        for (i, size) in sizes.into_iter().enumerate() {
            let options = EditOptions {
                invalid: Share::percent(15),
                loops: Share::percent(10),
                chains: Share::percent(35),
                ..EditOptions::new(seed.wrapping_add(i as u64))
            };
            // What it believes the rules to be is true up to the first edit that fails.
            let mut maker = EditMaker::new(&twins.plain, &options);
            let edits: Vec<Edit> = maker.sequence(size).into_iter().map(|(edit, _)| edit).collect();
            let before = (counted(&twins.live.ruleset()), twins.live.stats().boxes);
            if !twins.apply(&edits) {
                prop_assert_eq!(&before.0, &counted(&twins.live.ruleset()));
                prop_assert_eq!(before.1, twins.live.stats().boxes);
            }
            twins.have_the_same_rules();
            twins.are_within_budget();
            twins.prove();
            twins.agree_on(32);
        }
    }
}

const CHAINS: &str = "*filter\n:INPUT ACCEPT [5:500]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    :a - [0:0]\n:b - [0:0]\n:c - [0:0]\n\
    [7:700] -A INPUT -p tcp -j a\n-A INPUT -p udp -g b\n-A FORWARD -j a\n-A FORWARD -s 10.0.0.0/8 -j b\n\
    -A a -p tcp --dport 22 -j ACCEPT\n-A a -j b\n-A b -d 10.1.0.0/16 -j DROP\n-A b -i eth0 -j RETURN\nCOMMIT\n";

fn chains() -> Twins {
    Twins::new(&common::read(CHAINS), &LiveOptions::default())
}

/// A transaction must fail with these words, and change nothing.
#[track_caller]
fn fails(text: &str, words: &str) {
    let mut twins = chains();
    let before = counted(&twins.live.ruleset());
    let edits = edits(text);
    let error = twins.live.apply(&edits).expect_err("it must fail").to_string();
    assert!(error.contains(words), "{error}");
    assert!(!twins.apply(&edits));
    assert_eq!(counted(&twins.live.ruleset()), before);
    twins.have_the_same_rules();
    twins.prove();
    twins.agree_on(128);
    // And it goes on.
    assert!(twins.apply(&self::edits("*filter\n-I a 1 -s 1.2.3.4 -j DROP\n-D INPUT 1\nCOMMIT\n")));
    twins.have_the_same_rules();
    twins.prove();
}

/// Changes of everything there is, before the one that fails.
const MUCH: &str = "*filter\n-I INPUT 1 -s 9.9.9.9 -j DROP\n-D a 1\n-N new\n-A new -p tcp -m tcp --syn -j a\n\
    -A INPUT -j new\n-P FORWARD ACCEPT\n-E c d\n-Z\n-R b 1 -s 8.8.8.8 -j ACCEPT\n-X d\n";

#[test]
fn each_kind_of_failure_leaves_everything_as_it_was() {
    for (last, words) in [
        ("-I INPUT 99 -j DROP", "99"),
        ("-D a 9", "9"),
        ("-X b", "b"),
        ("-A nobody -j DROP", "nobody"),
        ("-A b -j new", "loop"),
        ("-N a", "a"),
        ("-D INPUT -s 4.4.4.4 -j DROP", ""),
    ] {
        fails(&format!("{MUCH}{last}\nCOMMIT\n"), words);
        // The same where a new generation was due already: a field that no rule tests so far.
        fails(&format!("{MUCH}-A a -m mark --mark 5 -j DROP\n-D INPUT 1\n-F b\n{last}\nCOMMIT\n"), words);
        // And in a table that is new.
        fails(&format!("*nat\n-A PREROUTING -j ACCEPT\n-N x\nCOMMIT\n{MUCH}{last}\nCOMMIT\n"), words);
    }
}

#[test]
fn chains_policies_names_and_tables_change_in_transactions() {
    let mut twins = chains();
    for text in [
        "*filter\n-E a x\n-A x -s 1.1.1.1 -j ACCEPT\n-N a\n-A a -j x\n-R INPUT 1 -p tcp -j a\nCOMMIT\n",
        "*filter\n-P INPUT DROP\n-P FORWARD ACCEPT\n-P INPUT ACCEPT\nCOMMIT\n",
        "*filter\n:INPUT DROP [3:4]\nCOMMIT\n*filter\n-P OUTPUT DROP\nCOMMIT\n",
        "*nat\n-N n\n-A n -j ACCEPT\n-A PREROUTING -g n\nCOMMIT\n",
        "*nat\n-F\n-X\nCOMMIT\n*filter\n-F a\n-I b 1 -g c\n-A c -j ACCEPT\nCOMMIT\n",
        "*filter\n-F\n-X\nCOMMIT\n",
        "*filter\n-N a\n-N b\n-A a -g b\n-A b -j DROP\n-A INPUT -j a\n-A INPUT -p udp -j RETURN\nCOMMIT\n",
        "*filter\n-N gone\n-A gone -j DROP\n-F gone\n-X gone\nCOMMIT\n",
    ] {
        assert!(twins.apply(&edits(text)), "{text}");
        twins.have_the_same_rules();
        twins.prove();
        twins.agree_on(64);
    }
}

#[test]
fn a_chain_that_is_called_from_twenty_places_changes_in_all_of_them() {
    let mut text = String::from(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:deep - [0:0]\n",
    );
    (0..20).for_each(|i| text += &format!(":c{i} - [0:0]\n"));
    for i in 0..20 {
        text += &format!("-A INPUT -s 10.{i}.0.0/16 -j c{i}\n-A c{i} -p tcp -j deep\n-A c{i} -g deep\n");
    }
    let mut twins = Twins::new(&common::read(&(text + "COMMIT\n")), &LiveOptions::default());
    for step in 0..20 {
        let (at, port) = (1 + step / 2, 1000 + step);
        let change = match step % 4 {
            3 => format!("*filter\n-D deep {at}\nCOMMIT\n"),
            _ => format!("*filter\n-I deep {at} -p tcp --dport {port} -j DROP\nCOMMIT\n"),
        };
        assert!(twins.apply(&edits(&change)));
        twins.prove();
    }
    twins.agree_on(256);
}

#[test]
fn restore_replaces_everything_at_once_and_refuses_what_does_not_fit() {
    let mut twins = Twins::new(
        &common::read(CHAINS),
        &LiveOptions { memory_bytes_max: 1 << 20, ..LiveOptions::default() },
    );
    let large = filters(FilterFamily::Access, 30_000);
    let before = counted(&twins.live.ruleset());
    let error = twins.live.restore(&large).expect_err("a megabyte is not enough");
    assert!(matches!(error, LiveError::Memory { needed, .. } if needed > 1 << 20), "{error}");
    assert_eq!(counted(&twins.live.ruleset()), before);
    twins.prove();
    for seed in 0..6 {
        // Changes between two exchanges: what they freed must not be freed in what comes after.
        assert!(
            twins.apply(&edits("*filter\n-D FORWARD 1\n-I FORWARD 1 -s 3.3.3.3 -j DROP\n-N t\nCOMMIT\n"))
        );
        assert!(twins.apply(&edits("*filter\n-X t\n-D FORWARD 1\nCOMMIT\n")));
        let next = if seed % 2 == 0 { filters(FilterFamily::Perimeter, 60) } else { common::read(CHAINS) };
        twins.live.restore(&next).expect("it fits");
        twins.plain = next;
        twins.have_the_same_rules();
        twins.are_within_budget();
        twins.prove();
        if seed % 2 == 0 {
            twins.live.restore(&common::read(CHAINS)).unwrap();
            twins.plain = common::read(CHAINS);
        }
        twins.agree_on(32);
    }
}

fn filters(family: FilterFamily, rules: u32) -> Ruleset {
    let options = classbench_gen::Options::new(rules, 1);
    ruleset_of(&classbench_gen::generate(&family.parameters(), &options).unwrap()).unwrap()
}

/// What was in use is free again.
#[track_caller]
fn settle(live: &LiveTable) {
    for _ in 0..2000 {
        live.apply(&[]).expect("nothing is to be done");
        if live.stats().waiting_bytes == 0 {
            return;
        }
    }
}

#[test]
fn small_budgets_hold_at_every_step_and_name_what_would_do() {
    for family in FilterFamily::ALL {
        let ruleset = filters(family, 300);
        let LiveError::Memory { needed, .. } =
            LiveTable::open(&ruleset, &LiveOptions { memory_bytes_max: 4096, ..LiveOptions::default() })
                .expect_err("4096 bytes are not enough")
        else {
            panic!("it is memory that lacks")
        };
        for more in [0, 20_000, 100_000] {
            let options = LiveOptions { memory_bytes_max: needed + more, ..LiveOptions::default() };
            let mut twins = Twins::new(&ruleset, &options);
            let mut maker = EditMaker::new(&ruleset, &EditOptions::new(more as u64));
            let (mut refused, mut made) = (0, 0);
            for step in 0..300 {
                // Twice as many as go come: it fills up.
                let (edit, outcome) = maker.next_edit();
                assert!(outcome == Outcome::Works);
                let text = format!(
                    "*filter\n-I FORWARD {} -s 10.{}.{}.0/24 -p tcp --dport {step} -j DROP\nCOMMIT\n",
                    1 + step % 50,
                    step % 3,
                    step % 200
                );
                let mut all = vec![edit];
                all.extend(edits(&text));
                if twins.apply(&all) {
                    made += 1;
                } else {
                    refused += 1;
                }
                maker = EditMaker::new(&twins.plain, &EditOptions::new((more + step) as u64));
                twins.are_within_budget();
                if step % 25 == 0 {
                    twins.have_the_same_rules();
                    twins.prove();
                }
            }
            twins.have_the_same_rules();
            twins.prove();
            assert!(refused > 0 || more > 0, "{made} made, {refused} refused");
            // It empties, whatever the budget.
            assert!(twins.apply(&edits("*filter\n-F\nCOMMIT\n")), "a flush is refused");
            twins.have_the_same_rules();
            twins.prove();
            settle(&twins.live);
            assert!(twins.apply(&edits("*filter\n-A FORWARD -j DROP\nCOMMIT\n")));
            twins.prove();
        }
    }
}

/// Memory that goes out in the middle of a change: the transaction is made in another generation, or
/// not at all when there is no room for one; readers never see a half, and the table goes on.
#[test]
fn memory_that_goes_out_in_the_middle_of_a_change_tears_nothing() {
    let chain = "*filter\n-N u\n-A u -p tcp -m multiport --dports 1,3,5,7 -j DROP\n-A u -j RETURN\n";
    let chain = edits(&format!("{chain}-I FORWARD 40 -j u\nCOMMIT\n"));
    let ruleset = hipac_rules::apply_all(&filters(FilterFamily::Firewall, 9000), &chain).unwrap();
    let LiveError::Memory { needed, .. } =
        LiveTable::open(&ruleset, &LiveOptions { memory_bytes_max: 4096, ..LiveOptions::default() })
            .expect_err("4096 bytes are not enough")
    else {
        panic!("it is memory that lacks")
    };
    // Room for a change, but not for a second generation.
    let small = needed + needed / 8;
    for (budget, bad) in [(64 << 20, ""), (64 << 20, "-X nobody\n"), (small, ""), (small, "-X nobody\n")] {
        let (mut made, mut refused, mut replaced, mut torn) = (0, 0, 0, 0);
        for after in [0, 300, 900, 1800, 3000, 5000] {
            let options = LiveOptions { memory_bytes_max: budget, ..LiveOptions::default() };
            let mut twins = Twins::new(&ruleset, &options);
            let before = counted(&twins.live.ruleset());
            let generations = twins.live.stats().generations;
            twins.live.run_out_after(after);
            let text = format!(
                "*filter\n-I FORWARD 3 -s 10.0.0.0/9 -p udp -m multiport --sports 1,5,9,44 -j DROP\n\
                 -D FORWARD 50\n-D u 1\n-I FORWARD 1\n-P FORWARD ACCEPT\n-D FORWARD 20\n{bad}COMMIT\n"
            );
            if twins.apply(&edits(&text)) {
                made += 1;
            } else {
                refused += 1;
                assert_eq!(before, counted(&twins.live.ruleset()));
            }
            let check = |twins: &Twins| {
                twins.have_the_same_rules();
                twins.are_within_budget();
                twins.prove();
                twins.agree_on(64);
            };
            check(&twins);
            // Whatever comes next is made, or refused where there is no room for another generation, and a
            // table that is emptied has room.
            if !twins.apply(&edits("*filter\n-I FORWARD 2 -s 3.3.3.3 -j DROP\nCOMMIT\n")) {
                torn += 1;
                check(&twins);
            }
            assert!(twins.apply(&edits("*filter\n-F\n-X\nCOMMIT\n")), "a flush is refused");
            check(&twins);
            replaced += twins.live.stats().generations - generations;
        }
        println!(
            "{budget} bytes, {bad:?}: {made} made, {refused} refused, {replaced} generations, {torn} torn"
        );
        assert!(replaced > 0);
        assert_eq!(budget == small, torn > 0, "{torn} stayed torn");
    }
}

#[test]
fn what_a_failed_transaction_added_is_gone() {
    let mut twins = chains();
    // More chains than a generation has spare entries for, and an error behind them.
    let chains: String = (0..200).map(|i| format!("-N many{i}\n-A many{i} -j DROP\n")).collect();
    assert!(!twins.apply(&edits(&format!("*filter\n{chains}-X nobody\nCOMMIT\n"))));
    twins.have_the_same_rules();
    twins.prove();
    assert!(twins.apply(&edits(&format!("*filter\n{chains}-A INPUT -j many150\nCOMMIT\n"))));
    twins.have_the_same_rules();
    twins.prove();
    twins.agree_on(64);
}

#[test]
fn a_budget_without_end_is_as_much_as_can_be_addressed() {
    let options = LiveOptions { memory_bytes_max: usize::MAX, ..LiveOptions::default() };
    let live = LiveTable::open(&common::read(CHAINS), &options).expect("it fits");
    assert_eq!(live.stats().memory_bytes_max, LiveTable::BYTES_MAX);
}

#[test]
fn the_size_that_a_refusal_names_is_enough() {
    let ruleset = filters(FilterFamily::Perimeter, 200);
    let Err(LiveError::Memory { needed: mut allowed, .. }) =
        LiveTable::open(&ruleset, &LiveOptions { memory_bytes_max: 4096, ..LiveOptions::default() })
    else {
        panic!("4096 bytes are not enough")
    };
    let change = |i: usize| {
        edits(&format!(
            "*filter\n-I FORWARD {} -s 10.{}.0.0/16 -p udp -j DROP\nCOMMIT\n",
            1 + i % 100,
            i % 256
        ))
    };
    for round in 0..3 {
        let options = LiveOptions { memory_bytes_max: allowed, ..LiveOptions::default() };
        let live = LiveTable::open(&ruleset, &options).expect("what a refusal named is enough");
        let refused = (0..5_000).find_map(|i| live.apply(&change(i)).err().map(|e| (i, e)));
        let Some((i, error)) = refused else { return };
        let LiveError::Memory { line, needed, limit } = error else { panic!("{error}") };
        assert_eq!((line, limit), (2, allowed), "round {round}: {error}");
        assert!(needed > allowed);
        let options = LiveOptions { memory_bytes_max: needed, ..LiveOptions::default() };
        let live = LiveTable::open(&ruleset, &options).unwrap();
        let again = (0..=i).find_map(|i| live.apply(&change(i)).err());
        assert!(again.is_none(), "{needed} bytes are not enough either: {again:?}");
        allowed = needed + 4096;
    }
}

#[test]
fn memory_is_given_back() {
    let empty =
        common::read("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n");
    let live = LiveTable::open(&empty, &LiveOptions::default()).unwrap();
    let fresh = live.stats().structure_bytes;
    for round in 0..5 {
        for i in 0..400u32 {
            live.apply_text(&format!(
                "*filter\n-A FORWARD -s 10.{}.{}.0/24 -p tcp -m tcp --dport {i}:{} -j DROP\nCOMMIT\n",
                i % 7,
                i % 251,
                i + 100
            ))
            .unwrap();
        }
        live.apply_text("*filter\n-N u\n-A u -j ACCEPT\n-I FORWARD 5 -j u\nCOMMIT\n").unwrap();
        (0..401).for_each(|i| {
            live.apply_text(&format!("*filter\n-D FORWARD {}\nCOMMIT\n", 1 + i % (401 - i))).unwrap();
        });
        live.apply_text("*filter\n-F\n-X\nCOMMIT\n").unwrap();
        settle(&live);
        let stats = live.stats();
        assert_eq!((stats.rules, stats.boxes, stats.waiting_bytes), (0, 0, 0), "round {round}: {stats:?}");
        assert!(stats.structure_bytes < fresh + 64 * 1024, "round {round}: {stats:?}");
        assert_eq!(live.rule_count(TableKind::Filter, &"FORWARD".into()), 0);
    }
    live.compact().unwrap();
    settle(&live);
    assert!(live.stats().structure_bytes <= fresh + 4096, "{:?}", live.stats());
}

#[test]
fn numbers_of_rules_and_chains_are_used_again_over_generations() {
    let live = LiveTable::open(&common::read(CHAINS), &LiveOptions::default()).unwrap();
    for _ in 0..100 {
        live.apply_text("*filter\n-N t\n-A t -j DROP\n-A t -j ACCEPT\nCOMMIT\n").unwrap();
        live.apply_text("*filter\n-F t\n-X t\nCOMMIT\n").unwrap();
        live.compact().unwrap();
    }
    for _ in 0..500 {
        live.apply(&[]).unwrap();
    }
    for _ in 0..200 {
        live.apply_text("*filter\n-A b -j DROP\nCOMMIT\n").unwrap();
    }
    let largest = live.rule_ids(TableKind::Filter, "b").into_iter().max().unwrap();
    assert!(largest < 240, "rule {largest} of 208");
}
