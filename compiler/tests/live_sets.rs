//! IP sets of a live table change in transactions, with rules that name them.

mod common;

use common::twins::{Twins, counted};
use hipac_compiler::{LiveOptions, LiveTable};
use hipac_rules::ipset::Sets;
use hipac_rules::{Edit, ParseOptions, parse_edits};

/// Random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[track_caller]
fn edits(text: &str) -> Vec<Edit> {
    let parsed = parse_edits(text, &ParseOptions::default()).into_result();
    let groups = parsed.unwrap_or_else(|faults| panic!("{}", faults[0]));
    groups.into_iter().flat_map(|group| group.edits).collect()
}

#[track_caller]
fn sets(text: &str) -> Sets {
    let (sets, faults) = Sets::read(text);
    assert!(faults.is_empty(), "{}", faults[0]);
    sets
}

/// Sets by name, each of one of these types, with how it is looked up.
const TYPES: [(&str, &str); 8] = [
    ("hash:ip", "src"),
    ("hash:net", "dst"),
    ("hash:ip,port", "src,dst"),
    ("hash:net,iface", "src,src"),
    ("bitmap:port range 0-65535", "dst"),
    ("hash:ip,mark", "src,src"),
    ("hash:net,net", "src,dst"),
    ("hash:ip,port,net", "src,dst,dst"),
];

/// Entries of a type.
fn entry(kind: &str, random: &mut Random) -> String {
    let kind = kind.split(' ').next().unwrap_or_default();
    let (_, columns) = kind.split_once(':').expect("a type of columns");
    let of = |column: &str, random: &mut Random| match column {
        "ip" => format!("10.{}.0.{}", random.below(3), random.below(6)),
        "net" => {
            let (a, b, length) = (random.below(3), random.below(4), [8, 16, 24, 30, 32][random.below(5)]);
            format!("10.{a}.{b}.0/{length}")
        }
        "port" if kind == "bitmap:port" => format!("{}", [22, 53, 80, 443, 8080][random.below(5)]),
        "port" => format!("{}:{}", ["tcp", "udp"][random.below(2)], [22, 53, 80][random.below(3)]),
        "iface" => ["eth0", "eth1", "wg0"][random.below(3)].to_owned(),
        _ => format!("{:#x}", random.below(4)),
    };
    let parts: Vec<String> = columns.split(',').map(|column| of(column, random)).collect();
    let is_net = columns.contains("net") && random.below(4) == 0;
    parts.join(",") + if is_net { " nomatch" } else { "" }
}

/// What each set holds: some are empty, some have gone, one is a list; now and then one is of
/// another type than before.
fn some_sets(random: &mut Random) -> String {
    let mut text = String::new();
    for (i, (kind, _)) in TYPES.iter().enumerate() {
        if random.below(30) == 0 {
            continue;
        }
        let kind = if random.below(30) == 0 { TYPES[random.below(2)].0 } else { kind };
        text += &format!("create s{i} {kind}\n");
        let is_empty = random.below(40) == 0;
        for _ in 0..if is_empty { 0 } else { 1 + random.below(12) } {
            text += &format!("add s{i} {} -exist\n", entry(kind, random));
        }
    }
    text += "create all list:set\n";
    for i in [0, 1] {
        if text.contains(&format!("create s{i} ")) && random.below(5) > 0 {
            text += &format!("add all s{i}\n");
        }
    }
    text
}

/// A rule that names a set or two, or changes one.
fn rule(random: &mut Random) -> String {
    let one = |random: &mut Random| {
        let (number, not) = (random.below(TYPES.len()), ["", "! "][random.below(2)]);
        format!("-m set {not}--match-set s{number} {}", TYPES[number].1)
    };
    let mut text = one(random);
    match random.below(6) {
        0 => text = format!("{text} {}", one(random)),
        1 => text = format!("-m set --match-set all {}", ["src", "dst"][random.below(2)]),
        2 => text = format!("-s 10.{}.0.0/16 -p tcp", random.below(3)),
        _ => {}
    }
    match random.below(40) {
        0 => text + " -j SET --add-set s0 src",
        n => text + [" -j DROP", " -j ACCEPT", " -j RETURN", ""][n % 4],
    }
}

fn rules(random: &mut Random) -> String {
    let mut text = String::from(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:u - [0:0]\n-A INPUT -j u\n",
    );
    for _ in 0..12 {
        let chain = ["INPUT", "FORWARD", "u"][random.below(3)];
        text += &format!("-A {chain} {}\n", rule(random));
    }
    text + "COMMIT\n"
}

fn random_changes(seed: u64, steps: usize, options: &LiveOptions) {
    let mut random = Random(seed);
    let now = sets(&some_sets(&mut random));
    let mut twins = Twins::with_sets(&common::read(&rules(&mut random)), &now, options);
    twins.prove();
    for step in 0..steps {
        let mut text = String::from("*filter\n");
        for _ in 0..random.below(3) {
            let chain = ["INPUT", "FORWARD", "u"][random.below(3)];
            text += &format!("-I {chain} 1 {}\n", rule(&mut random));
            if random.below(2) == 0 {
                text += &format!("-D {chain} 1\n");
            }
        }
        if random.below(6) == 0 {
            text += "-D FORWARD 4000\n";
        }
        text += "COMMIT\n";
        match random.below(3) {
            0 => drop(twins.apply(&edits(&text))),
            _ => {
                let next =
                    if random.below(3) == 0 { twins.sets.clone() } else { sets(&some_sets(&mut random)) };
                twins.apply_with_sets(&edits(&text), &next);
            }
        }
        twins.have_the_same_rules();
        twins.are_within_budget();
        twins.prove();
        if step % 2 == 0 {
            twins.agree_on(32);
        }
        if random.below(10) == 0 {
            let all = twins.plain.clone();
            twins.live.restore(&all).expect("it fits");
            twins.prove();
        }
    }
}

#[test]
fn sets_and_rules_that_change_at_random_are_proved() {
    for seed in 0..12 {
        random_changes(seed, 25, &LiveOptions::default());
    }
}

#[test]
fn sets_that_change_while_a_generation_is_built_are_in_it() {
    let options = LiveOptions {
        drift_percent: 0,
        drift_min: 0,
        pause: std::time::Duration::ZERO,
        ..LiveOptions::default()
    };
    for seed in 0..4 {
        random_changes(100 + seed, 25, &options);
    }
}

/// As many addresses as a block list has, from an offset on.
fn addresses(count: u32, from: u32) -> Sets {
    let mut text = String::from("create blocked hash:ip\n");
    for i in 0..count {
        text += &format!("add blocked {}\n", std::net::Ipv4Addr::from(0x0a00_0000 + 7 * (from + i)));
    }
    sets(&text)
}

const BLOCKING: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A FORWARD -m set --match-set blocked src -j DROP\n-A FORWARD -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";

#[test]
fn entries_that_change_make_no_new_generation_and_leave_no_memory_behind() {
    let mut twins = Twins::with_sets(&common::read(BLOCKING), &addresses(20_000, 0), &LiveOptions::default());
    let mut most = 0;
    for step in 1..30 {
        assert!(twins.apply_with_sets(&[], &addresses(20_000 - step, 100 * step)));
        (0..300).for_each(|_| drop(twins.live.apply(&[])));
        let stats = twins.live.stats();
        if step == 5 {
            most = stats.structure_bytes;
        }
        assert!(step < 6 || stats.structure_bytes <= most + most / 4, "step {step}: {stats:?}");
    }
    assert_eq!(twins.live.stats().generations, 1);
    twins.prove();
    twins.agree_on(256);
    // Emptied, and filled again.
    assert!(twins.apply_with_sets(&[], &addresses(0, 0)));
    twins.prove();
    assert!(twins.apply_with_sets(&[], &addresses(3, 0)));
    twins.prove();
    assert_eq!(twins.live.stats().generations, 1);
}

#[test]
fn commands_change_all_of_a_text_or_nothing() {
    let mut twins = Twins::with_sets(&common::read(BLOCKING), &addresses(50, 0), &LiveOptions::default());
    for (text, works) in [
        ("add blocked 192.0.2.0/28\ndel blocked 192.0.2.5\ndel blocked 10.0.0.7\n", true),
        ("add blocked 192.0.3.0/28\ndel blocked 192.0.9.5\n", false),
        ("create more hash:ip\nadd more 192.0.2.1\nswap more blocked\n", true),
        ("flush blocked\n", true),
        ("add blocked 0.0.0.0/0 oops\nadd nobody 1.1.1.1\n", false),
        ("add blocked 192.0.2.77\ndestroy more\n", true),
    ] {
        let changed = twins.live.change_sets(text);
        assert_eq!(changed.is_ok(), works, "{text}{changed:?}");
        let (next, faults) = twins.sets.changed(text);
        assert_eq!(faults.is_empty(), works);
        if works {
            twins.sets = next;
        }
        twins.prove();
        twins.agree_on(64);
    }
    assert_eq!(twins.live.stats().generations, 1);
}

#[test]
fn sets_that_do_not_fit_change_nothing() {
    let options = LiveOptions { memory_bytes_max: 1 << 20, ..LiveOptions::default() };
    let mut twins = Twins::with_sets(&common::read(BLOCKING), &addresses(1000, 0), &options);
    let before = counted(&twins.live.ruleset());
    assert!(
        !twins.apply_with_sets(&edits("*filter\n-I FORWARD 1 -j ACCEPT\nCOMMIT\n"), &addresses(200_000, 0))
    );
    assert_eq!(before, counted(&twins.live.ruleset()));
    twins.have_the_same_rules();
    twins.prove();
    assert!(
        twins.apply_with_sets(&edits("*filter\n-I FORWARD 1 -p udp -j ACCEPT\nCOMMIT\n"), &addresses(900, 5))
    );
    twins.prove();
    twins.agree_on(64);
}

#[test]
fn a_rule_that_names_a_set_is_deleted_by_what_it_says() {
    let live = LiveTable::open_with_sets(&common::read(BLOCKING), &addresses(10, 0), &LiveOptions::default())
        .unwrap();
    live.apply(&edits("*filter\n-C FORWARD -m set --match-set blocked src -j DROP\nCOMMIT\n"))
        .expect("it is there");
    live.apply(&edits("*filter\n-D FORWARD -m set --match-set blocked src -j DROP\nCOMMIT\n"))
        .expect("it is there");
    assert_eq!(live.stats().rules, 1);
}
