//! Asks the kernel and its own tools: `hipac fmt` prints the example rulesets as `iptables-save` does after a
//! restore, and rulesets match the packets that they match in the kernel. Skipped, saying so, where there is no
//! network namespace or no such tool.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{example, hipac};

/// What a family's tools save after a restore, in a network namespace of its own.
fn restored_and_saved(tool: &str, path: &str) -> Option<String> {
    let run = |script: String| Command::new("unshare").args(["-n", "sh", "-c", &script]).output().ok();
    let possible = run(format!("command -v {tool}-restore && {tool}-save"))?.status.success();
    if !possible {
        return None;
    }
    let output = run(format!("{tool}-restore < '{path}' && {tool}-save"))?;
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// The tables of a dump, without comments. The kernel lists those first that were loaded last:
/// their order means nothing.
fn tables(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.split_inclusive("COMMIT\n").map(str::to_owned).collect()
}

#[test]
fn fmt_prints_what_the_kernels_tools_save() {
    for (tool, name) in [("iptables-legacy", "gateway.rules"), ("ip6tables-legacy", "gateway6.rules")] {
        let path = example(name);
        let Some(theirs) = restored_and_saved(tool, &path) else {
            println!("skipped: no network namespace, or no {tool}");
            return;
        };
        let ours = hipac(&["fmt", &path]).exits(0).stdout;
        assert_eq!(tables(&ours), tables(&theirs), "{name}");
    }
}

#[test]
fn fmt_is_its_own_fixed_point() {
    for name in ["gateway.rules", "gateway6.rules", "empty.rules"] {
        let once = hipac(&["fmt", &example(name)]).exits(0).stdout;
        let family = if name.contains('6') { "-6" } else { "-4" };
        let twice = common::hipac_reading(&["fmt", family, "-"], once.as_bytes()).exits(0).stdout;
        assert_eq!(once, twice);
    }
}

/// What stands before everything the kernel cannot be asked for.
fn is_unavailable(stderr: &str) -> bool {
    ["no network namespace", "no TUN device", "no iptables", "no ip6tables", "no ipset"]
        .iter()
        .any(|why| stderr.contains(why))
}

/// Sends packets through a ruleset in the kernel and wants no difference; `false` where that cannot be.
#[track_caller]
fn kernel_agrees(path: &str, packets: &str) -> bool {
    // The names of some say the family that their text does not.
    let family: &[&str] = if path.contains(".aud6") { &["-6"] } else { &[] };
    let of = [&["verify", "--kernel", "--packets", packets, "--format", "json", path], family].concat();
    let run = hipac(&of);
    if run.code == Some(2) && is_unavailable(&run.stderr) {
        println!("skipped: {}", run.stderr);
        return false;
    }
    assert_eq!(run.code, Some(0), "{path}: {}{}", run.stdout, run.stderr);
    // An agreement says little where packets were not compared.
    let report = run.json().remove(0);
    let count = |field: &str| report[field].as_u64().expect("a count");
    assert!(20 * count("unread") <= count("packets") && count("comparisons") > 0, "{path}: {report}");
    true
}

#[test]
fn the_examples_match_in_the_kernel_what_the_oracle_and_the_image_match() {
    for name in ["gateway.rules", "gateway6.rules"] {
        if !kernel_agrees(&example(name), "1500") {
            return;
        }
    }
}

/// Real rulesets that the kernel's tools load. `HIPAC_KERNEL_PACKETS` asks for all of them, with so many packets
/// each; otherwise some, with few.
#[test]
fn real_rulesets_match_in_the_kernel_what_the_oracle_and_the_image_match() {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS is not set");
        return;
    };
    let corpus = Path::new(&corpus);
    let all = std::env::var("HIPAC_KERNEL_PACKETS").ok();
    let entries = std::fs::read_dir(corpus.join("kernel-resaved")).expect("a folder of the corpus");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    let every = if all.is_some() { 1 } else { 14 };
    let packets = all.as_deref().unwrap_or("400");
    let mut asked = 0;
    for name in names.iter().step_by(every) {
        let fixed = corpus.join("rulesets-fixed").join(name);
        let path: PathBuf = if fixed.exists() { fixed } else { corpus.join("rulesets").join(name) };
        let path = path.to_str().expect("a name in UTF-8");
        // What our parser refuses is the business of the tests of texts.
        // (A set that is not given is a warning there; for the kernel, and for both sides, it is an empty one.)
        let checked = hipac(&["check", path]);
        let is_sound = checked.stdout.contains(": 0 errors");
        if checked.code == Some(1) && !is_sound && !path.contains(".aud6") {
            println!("left out, with errors: {path}");
            continue;
        }
        if !kernel_agrees(path, packets) {
            return;
        }
        asked += 1;
    }
    println!("{asked} rulesets, {packets} packets each");
}
