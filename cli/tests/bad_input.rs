//! Bad input of every size: a fault with its place, within seconds and a bound of memory, and
//! never a panic (`common` looks for one after every run).

mod common;

use std::fmt::Write;
use std::time::Duration;

use common::{Run, example, hipac_reading};

/// How long one command may take on any of these inputs. (Measured: under a second each.)
const TIME_MAX: Duration = Duration::from_secs(10);

/// Runs check, fmt, compile and classify on a text.
#[track_caller]
fn commands(text: &[u8]) -> [Run; 4] {
    let commands: [&[&str]; 4] =
        [&["check", "-"], &["fmt", "-"], &["compile", "-"], &["classify", "-", "--packet", ""]];
    commands.map(|arguments| {
        let run = hipac_reading(arguments, text);
        assert!(run.time < TIME_MAX, "{arguments:?} took {:?}", run.time);
        run
    })
}

/// The text has errors: `check` shows these words, `fmt` and `compile` refuse it.
#[track_caller]
fn refused(text: impl AsRef<[u8]>, words: &[&str]) {
    let [check, fmt, compile, _] = commands(text.as_ref());
    let check = check.exits(1);
    for word in words {
        let shown: String = check.stdout.chars().take(2000).collect();
        assert!(check.stdout.contains(word), "`{word}` is not in: {shown}");
    }
    assert!(fmt.exits(2).stdout.is_empty());
    compile.exits(2).complains(&["iptables-restore would refuse it"]);
}

/// The text is good, however odd: everything works.
#[track_caller]
fn taken(text: impl AsRef<[u8]>) {
    for run in commands(text.as_ref()) {
        let warned = run.code == Some(1) && run.stdout.contains("warning");
        assert!(run.code == Some(0) || warned, "{}{}", run.stdout, run.stderr);
    }
}

/// A table with a chain for each of `count`, whose rules `rules` writes.
fn chains(count: usize, rules: impl Fn(&mut String, usize)) -> String {
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n");
    (0..count).for_each(|i| writeln!(text, ":c{i} - [0:0]").expect("a string"));
    (0..count).for_each(|i| rules(&mut text, i));
    text + "COMMIT\n"
}

#[test]
fn a_line_of_a_megabyte_is_named() {
    let options = "-s 192.0.2.1 ".repeat(80_000);
    refused(
        format!("*filter\n-A INPUT {options}-j DROP\nCOMMIT\n"),
        &["<stdin>:2:1", "line of 1040016 bytes"],
    );
    refused(format!("*filter\n-A INPUT -s {} -j DROP\nCOMMIT\n", "1".repeat(1 << 20)), &["<stdin>:2:1"]);
}

#[test]
fn nul_bytes_are_named() {
    refused(
        b"*filter\n-A INPUT -s 192.0.2.1\0 -j DROP\n\0\0\0\nCOMMIT\n",
        &["<stdin>:2:22", "NUL", "<stdin>:3:1"],
    );
}

#[test]
fn bytes_that_are_no_utf8_are_named() {
    refused(b"*filter\n-A INPUT -i \xc3\x28 -j DROP\nCOMMIT\n", &["<stdin>:2:13", "no UTF-8"]);
}

#[test]
fn random_bytes_are_refused() {
    // A linear congruential generator: the bytes are the same in every run.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let any: Vec<u8> = (0..1 << 20).map(|_| next() as u8).collect();
    refused(&any, &["error"]);
    let alphabet = b"*:-AINPUT fjs0.1\n\"!,/";
    let likely: Vec<u8> = (0..1 << 20).map(|_| alphabet[next() % alphabet.len()]).collect();
    refused(&likely, &["error"]);
}

#[test]
fn two_hundred_thousand_faults_are_counted() {
    let text = format!("*filter\n{}COMMIT\n", "-A INPUT --foo\n".repeat(200_000));
    refused(text, &["<stdin>:2:10", "<stdin>:1001:10", "and 199000 more faults", "1,001 errors"]);
}

#[test]
fn lists_of_addresses_that_multiply_are_refused() {
    let list =
        |net: u8| (0..2000).map(|i| format!("10.{net}.{}.{}", i >> 8, i & 255)).collect::<Vec<_>>().join(",");
    let text = format!("*filter\n-A INPUT -s {} -d {} -j DROP\nCOMMIT\n", list(0), list(1));
    refused(text, &["<stdin>:2:1", "4000000 rules"]);
}

#[test]
fn a_loop_between_chains_is_shown() {
    let ring = |text: &mut String, i: usize, n: usize| {
        writeln!(text, "-A c{i} -j c{}", (i + 1) % n).expect("a string")
    };
    let small = chains(3, |text, i| ring(text, i, 3));
    let entered = small.replace("COMMIT", "-A INPUT -j c0\nCOMMIT");
    refused(&entered, &["c0 → c1 → c2 → c0"]);
    let large = chains(10_000, |text, i| ring(text, i, 10_000));
    refused(large.replace("COMMIT", "-A INPUT -j c0\nCOMMIT"), &["c0 → c1 → "]);
}

#[test]
fn a_loop_that_no_packet_enters_is_taken_as_the_kernel_takes_it() {
    taken("*filter\n:a - [0:0]\n-A a -j a\nCOMMIT\n");
    taken("*filter\n:a - [0:0]\n-A INPUT -j ACCEPT\n-A INPUT -j a\n-A a -j a\nCOMMIT\n");
    taken("*filter\n:a - [0:0]\n-A FORWARD -j a\n-A a -j RETURN\n-A a -j a\nCOMMIT\n");
}

#[test]
fn a_hundred_thousand_chains_are_taken() {
    taken(chains(100_000, |text, i| {
        writeln!(text, "-A INPUT -s 10.{}.{}.{} -j c{i}", i >> 16, i >> 8 & 255, i & 255).expect("a string");
        writeln!(text, "-A c{i} -p tcp --dport {} -j DROP", i % 65_536).expect("a string");
    }));
}

#[test]
fn jumps_ten_thousand_deep_are_taken() {
    taken(chains(10_000, |text, i| match i {
        0 => writeln!(text, "-A INPUT -j c9999\n-A c0 -j DROP").expect("a string"),
        i => writeln!(text, "-A c{i} -j c{}", i - 1).expect("a string"),
    }));
}

#[test]
fn chains_that_double_at_every_step_are_taken_in_linear_size() {
    let text = chains(60, |text, i| match i {
        0 => writeln!(text, "-A INPUT -j c59\n-A c0 -s 192.0.2.1 -j DROP").expect("a string"),
        i => writeln!(text, "-A c{i} -j c{0}\n-A c{i} -j c{0}", i - 1).expect("a string"),
    });
    let [check, fmt, compile, _] = commands(text.as_bytes());
    for run in [check, fmt, compile] {
        run.exits(0);
    }
    // A packet of INPUT would take 2^60 steps: evaluation says that it stops.
    let run = hipac_reading(&["classify", "-", "--chain", "INPUT", "--packet", ""], text.as_bytes());
    assert!(run.time < TIME_MAX, "{:?}", run.time);
    run.exits(2).complains(&["chains call each other too often"]);
}

#[test]
fn masks_with_holes_stay_small() {
    let mut text = String::from("*filter\n");
    for i in 0..20_000 {
        let (a, b) = (i & 255, i >> 8);
        writeln!(text, "-A INPUT -s 10.{a}.0.{b}/255.85.170.255 -d 1.0.0.{a}/85.170.85.255")
            .expect("a string");
    }
    taken(text + "COMMIT\n");
}

#[test]
fn a_ruleset_cut_anywhere_is_taken_or_refused() {
    let text = std::fs::read(example("gateway.rules")).expect("the example");
    for length in (0..text.len()).step_by(41) {
        let [check, _, compile, classify] = commands(&text[..length]);
        assert!(matches!(check.code, Some(0 | 1)), "{length} bytes: {}", check.stderr);
        assert_eq!(compile.code == Some(2), check.code == Some(1), "{length} bytes: {}", check.stdout);
        assert!(matches!(classify.code, Some(0 | 2)), "{length} bytes: {}", classify.stderr);
    }
}

#[test]
fn classbench_sets_that_are_none_are_refused_with_their_line() {
    let good = "@10.0.0.0/8\t192.0.2.0/24\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0000/0x0000\n";
    for bad in ["@", "@1.2.3.4/33\t0.0.0.0/0\t0 : 1\t0 : 1\t0x06/0xFF", "*filter", "\0\0\0", "@1.2.3.4/8"] {
        let text = format!("{good}{bad}\n");
        hipac_reading(&["check", "-", "--input-format", "classbench"], text.as_bytes())
            .exits(2)
            .complains(&["<stdin>", "2"]);
    }
}
