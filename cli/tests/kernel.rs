//! Asks the kernel's own tools: `hipac fmt` prints the example rulesets as `iptables-save` does
//! after a restore. Skipped, saying so, where there is no network namespace or no such tool.

mod common;

use std::collections::BTreeSet;
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
