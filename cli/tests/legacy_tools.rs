//! Option lines made of the registry, given to the legacy tools and to hipac: both print the same, or both refuse.
//!
//! A sample runs with the other tests; `HIPAC_LEGACY_LINES=all` runs all of it. Without the tools or a network
//! namespace it says so and is skipped. Differences that are meant stand in `docs/extension-tests.md`, and in `EXPLAINED`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use hipac_rules::registry::{self, ExtensionSpec, Kind, OptionSpec};
use hipac_rules::{Family, ParseOptions, PrintOptions, TableKind, parse, print};

/// One line in so many, when not all are asked for.
const SAMPLE: usize = 29;

struct Line {
    spec: &'static ExtensionSpec,
    family: Family,
    table: TableKind,
    chain: &'static str,
    rule: String,
}

/// What came of a line.
#[derive(Debug, PartialEq)]
enum Outcome {
    Saved(String),
    Refused,
    /// The tool took it and the kernel did not, or the kernel lacks the module.
    Kernel,
}

/// Options without which an extension takes nothing, so that others can be looked at beside them.
const BESIDE: &[(&str, &str)] = &[
    ("hashlimit", "--hashlimit-upto 5/sec --hashlimit-name foo"),
    ("string", "--string abc --algo bm"),
    ("connlimit", "--connlimit-above 5"),
    ("connbytes", "--connbytes 1:2 --connbytes-dir original --connbytes-mode bytes"),
    ("recent", "--rcheck"),
    ("statistic", "--mode random --probability 0.5"),
    ("policy", "--dir in --pol ipsec"),
    ("limit", "--limit 1/s"),
    ("cluster", "--cluster-total-nodes 4 --cluster-local-node 1 --cluster-hash-seed 1"),
    ("osf", "--genre Linux"),
    ("set", "--match-set foo src"),
    ("SET", "--add-set foo src"),
    ("HMARK", "--hmark-tuple src --hmark-mod 1 --hmark-rnd 1"),
    ("CONNMARK", "--set-mark 1"),
    ("TPROXY", "--on-port 80"),
    ("RATEEST", "--rateest-name x --rateest-interval 250ms --rateest-ewmalog 0.5s"),
    ("IDLETIMER", "--timeout 5 --label foo"),
    ("CT", "--notrack"),
    ("SYNPROXY", "--sack-perm"),
];

/// Differences that are meant: part of a line, and what the other side's text must hold.
const EXPLAINED: &[&str] = &[
    "is above",
    "holds nothing",
    "is longer than", // the tool cuts or turns around
    "-m devgroup",
    "-m realm",
    "-m srh",
    "-m ipcomp",
    "-m bpf",
    "-j CONNMARK",
    "-j NETMAP",
    "-j SYNPROXY",
    "255.0.255.0",
    "--tcp-flags NONE ALL",
    "-m sctp --sport http",
    "-m sctp --dport http",
    "! --exist",
    "! --timeout",
    "--monthdays 0",
    "--kerneltz  --localtz",
    "-j CT --zone-",
    "--seconds 4294967295",
    "-j CT --notrack --timeout",
    "-j CT --timeout",
    "--hashlimit-htable-",
    "--hashlimit-rate-interval",
    "--hashlimit-burst",
    "--ctproto IPENCAP",
    "--proto IPCOMP",
    "-m recent --rcheck --mask",
    "--mask 1",
    "--rateest-bps",
    "--mask 24",
    "--mask 64",
    "--comment",
    "--helper",
    "0.0.0.0/0",
    "\"\"",
];

/// Values on the bounds of what an option takes, and beyond.
fn values(option: &OptionSpec) -> Vec<String> {
    let accepted = option.value.accepted();
    let mut out: Vec<String> = Vec::new();
    if option.value.word_count() == 0 {
        return vec![String::new()];
    }
    let fixed: &[&str] = match option.value.hint() {
        "PORT[:PORT]" => &["80", "80:90", ":80", "80:", "90:80", "http", ":"],
        "PORT[-PORT]" => &["80", "80-90", "90-80", "http"],
        "PORT[:PORT][,…]" => &["80", "80,90", "80:90,100", "90:80", "http,ssh"],
        "NUMBER[:NUMBER]" => &["1", "1:5", ":5", "5:", "5:1", ":"],
        "TEXT" => &["foo", "x!y", "eth+", "aaaaaaaaaaaaaaa"],
        "ADDRESS[/MASK]" => &["10.0.0.1", "10.0.0.1/8", "2001:db8::1", "2001:db8::1/32", "host"],
        "ADDRESS" => &["10.0.0.1", "2001:db8::1", "foo"],
        "ADDRESS[-ADDRESS]" => {
            &["10.0.0.1-10.0.0.9", "10.0.0.9-10.0.0.1", "2001:db8::1-2001:db8::2", "10.0.0.1-"]
        }
        "XX:XX:XX:XX:XX:XX" => &["00:11:22:33:44:55", "0:1:2:3:4:5", "AA:bb:CC:dd:EE:ff", "00:11:22:33:44"],
        "VALUE[/MASK]" => &["0", "1", "0x10/0xff", "0xff/0xff", "1/0", "0xffffffff", "a"],
        "PROTOCOL" => &["tcp", "6", "255", "256", "foo"],
        "FLAGS FLAGS" => &["SYN SYN", "SYN,ACK SYN", "ALL NONE", "SYN ACK", "FOO SYN"],
        "TYPE[/CODE]" => &["0", "8", "8/0", "any", "echo-request", "256", "3/1", "packet-too-big", "128"],
        "NUMBER[/second|/minute|/hour|/day]" => {
            &["1", "10/minute", "3/hour", "7/day", "0/s", "10001/s", "1/foo"]
        }
        _ => &["1", "foo", "0"],
    };
    out.extend(fixed.iter().map(|v| (*v).to_owned()));
    if let Some((min, max)) = accepted.numbers {
        out.extend([min, max].map(|n| n.to_string()));
        out.extend(max.checked_add(1).map(|n| n.to_string()));
    }
    for name in accepted.names.iter().take(12) {
        out.extend([(*name).to_owned(), name.to_uppercase(), name.chars().take(2).collect()]);
    }
    out
}

fn lines() -> Vec<Line> {
    let mut out = Vec::new();
    for spec in registry::all() {
        for family in [Family::V4, Family::V6].into_iter().filter(|f| spec.families.has(*f)) {
            let tables = if spec.tables.is_empty() {
                &[TableKind::Filter, TableKind::Mangle][..]
            } else {
                spec.tables
            };
            let place = tables.iter().find_map(|&table| {
                let hook = table.hooks().iter().find(|h| spec.hooks.is_empty() || spec.hooks.contains(h))?;
                Some((table, hook.name()))
            });
            let Some((table, chain)) = place else { continue };
            let protocol = spec.protocols.first().map_or(String::new(), |p| format!("-p {p} "));
            let sign = if spec.kind == Kind::Match { "-m" } else { "-j" };
            let head = format!("{protocol}{sign} {}", spec.name);
            let beside = BESIDE.iter().find(|(name, _)| *name == spec.name).map_or("", |(_, text)| text);
            let mut add = |rule: String| out.push(Line { spec, family, table, chain, rule });
            add(head.clone());
            add(format!("{head} {beside}"));
            for option in spec.options {
                for (i, value) in values(option).into_iter().enumerate() {
                    let text = format!("--{} {value}", option.name);
                    add(format!("{head} {text}"));
                    if !beside.contains(&format!("--{} ", option.name)) && !beside.is_empty() {
                        add(format!("{head} {beside} {text}"));
                    }
                    if i < 2 {
                        add(format!("{head} ! {text}"));
                        add(format!("{head} {text} {text}"));
                    }
                }
            }
            for (i, one) in spec.options.iter().enumerate() {
                for other in &spec.options[i + 1..] {
                    let value = |o: &OptionSpec| values(o).into_iter().next().unwrap_or_default();
                    let pair = format!("--{} {} --{} {}", one.name, value(one), other.name, value(other));
                    add(format!("{head} {pair}"));
                }
            }
        }
    }
    out
}

fn tool(family: Family) -> &'static str {
    if family == Family::V4 { "iptables-legacy" } else { "ip6tables-legacy" }
}

/// What the tools do with all lines, in one namespace; `None` where they cannot be asked.
fn ask(lines: &[&Line]) -> Option<Vec<Outcome>> {
    let mut script = String::from(
        "iptables-legacy-save >/dev/null 2>&1 || exit 7\nipset create foo bitmap:port range 0-65535 2>/dev/null\n\
         t() { if printf '*%s\\n-A %s\\nCOMMIT\\n' \"$2\" \"$3\" | $1-restore >/tmp/err.$$ 2>&1; then $1-save -t $2 | grep -m1 '^-A'; \
         else echo \"! $(tr '\\n' ' ' </tmp/err.$$)\"; fi; }\n",
    );
    for line in lines {
        let rule = line.rule.replace('\'', "");
        let _ = writeln!(script, "t {} {} '{} {rule}'", tool(line.family), line.table.name(), line.chain);
    }
    script.push_str("rm -f /tmp/err.$$\n");
    let mut child = Command::new("unshare")
        .args(["-n", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().ok()?;
    let _ = writer.join();
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |line: &str| match line.strip_prefix("! ") {
        None => Outcome::Saved(line.to_owned()),
        Some(why)
            if why.contains("missing kernel")
                || why.contains("Couldn't load")
                || why.contains("can't initialize") =>
        {
            Outcome::Kernel
        }
        Some(why)
            if why.starts_with("iptables-restore: line") || why.starts_with("ip6tables-restore: line") =>
        {
            Outcome::Kernel
        }
        Some(_) => Outcome::Refused,
    };
    Some(text.lines().map(of).collect())
}

/// What hipac does with a line, and why it refuses.
fn ours(line: &Line) -> (Outcome, String) {
    let text = format!("*{}\n-A {} {}\nCOMMIT\n", line.table.name(), line.chain, line.rule);
    let parsed = parse(text, &ParseOptions { family: Some(line.family), ..ParseOptions::default() });
    if parsed.has_errors() {
        return (Outcome::Refused, parsed.faults[0].message.clone());
    }
    let printed = print(&parsed.ruleset, &PrintOptions::default());
    let rule = printed.lines().find(|l| l.starts_with("-A")).unwrap_or("").to_owned();
    (Outcome::Saved(rule), String::new())
}

#[test]
fn option_lines_come_out_as_the_tools_have_them() {
    let is_all = std::env::var("HIPAC_LEGACY_LINES").is_ok_and(|v| v == "all");
    let all = lines();
    let chosen: Vec<&Line> = all.iter().step_by(if is_all { 1 } else { SAMPLE }).collect();
    let Some(theirs) = ask(&chosen) else {
        println!("skipped: no network namespace, or no iptables-legacy");
        return;
    };
    assert_eq!(theirs.len(), chosen.len(), "one answer a line");
    let (mut alike, mut explained, mut kernel) = (0, 0, 0);
    let mut differing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (line, theirs) in chosen.iter().zip(&theirs) {
        let (ours, why) = ours(line);
        if *theirs == Outcome::Kernel {
            kernel += 1;
        } else if ours == *theirs {
            alike += 1;
        } else if EXPLAINED.iter().any(|part| line.rule.contains(part) || why.contains(part)) {
            explained += 1;
        } else {
            let text =
                format!("{:?} {}\n    theirs {theirs:?}\n    ours   {ours:?} {why}", line.family, line.rule);
            differing.entry(line.spec.name).or_default().push(text);
        }
    }
    println!("{alike} alike, {explained} explained, {kernel} left to the kernel, of {}", chosen.len());
    for text in differing.values().flatten() {
        println!("{text}");
    }
    assert!(alike * 10 > (chosen.len() - kernel) * 9, "{alike} of {}", chosen.len() - kernel);
    assert!(
        differing.is_empty(),
        "{} lines come out otherwise",
        differing.values().map(Vec::len).sum::<usize>()
    );
}
