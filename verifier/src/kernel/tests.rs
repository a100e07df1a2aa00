use super::*;
use crate::Oracle;
use hipac_rules::{Family, ParseOptions, parse};

/// Reads, sends packets, and expects agreement; `false` where the kernel cannot be asked.
#[track_caller]
fn agree(text: &str, family: Family, packets: u64) -> Option<Report> {
    let parsed = parse(text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
    let oracle = Oracle::new(&parsed.ruleset).expect("rules");
    let options = Options { packets, ..Options::default() };
    match check(text.as_bytes(), &oracle, None, &options, &|_| {}) {
        Ok(report) => {
            let shown: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
            assert!(report.is_agreement(), "{} differ\n{}", report.differing, shown.join("\n"));
            Some(report)
        }
        Err(error) if error.is_unavailable() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_small_ruleset_agrees() {
    let text = "*filter\n:INPUT DROP\n:FORWARD DROP\n:OUTPUT ACCEPT\n-A FORWARD -i eth0 -p tcp --dport 80 -j ACCEPT\n-A INPUT -p udp --sport 53 -j ACCEPT\nCOMMIT\n";
    if let Some(report) = agree(text, Family::V4, 2000) {
        eprintln!("{report:#?} {}", report.packets_per_second());
    }
}
