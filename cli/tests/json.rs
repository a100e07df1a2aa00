//! The fields of every JSON object: scripts depend on them, so a change needs a new schema.

mod common;

use common::{Folder, Run, example, hipac, hipac_reading};
use serde_json::{Value, json};

/// The names of an object's fields, in order of the alphabet.
fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort();
    fields
}

#[track_caller]
fn one(run: Run) -> Value {
    let mut lines = run.json();
    assert_eq!(lines.len(), 1, "{}", run.stdout);
    lines.remove(0)
}

const COST: [&str; 11] = [
    "boxes",
    "bytes_per_rule",
    "depth",
    "flat_rules",
    "image_bytes",
    "leaves",
    "nodes",
    "regions",
    "rules",
    "seconds",
    "structure_bytes",
];

#[test]
fn update_tells_what_it_did_or_why_not() {
    let folder = Folder::new();
    let rules = folder.write("office.rules", std::fs::read(example("office.rules")).expect("an example"));
    let image = folder.path("office.himg");
    hipac(&["compile", &rules, "-o", &image]).exits(0);
    let update = ["update", &image, "--rules", &rules, "--format", "json"];
    let refused = one(hipac_reading(&update, b"iptables -X staff\n").exits(1));
    assert_eq!(
        fields(&refused),
        ["faults", "finished_interrupted", "iptables", "iptables_exit", "schema", "updated"]
    );
    assert_eq!(refused["iptables"], "Too many links");
    assert_eq!(fields(&refused["faults"][0]), ["column", "help", "line", "message", "severity", "width"]);
    let done = one(hipac_reading(&update, b"iptables -D FORWARD 2\niptables -F staff\n").exits(0));
    assert_eq!(done["schema"], "hipac.update/1");
    assert_eq!(
        fields(&done),
        [
            "chains_added",
            "chains_removed",
            "commands",
            "finished_interrupted",
            "image_bytes_after",
            "image_bytes_before",
            "rules_added",
            "rules_after",
            "rules_before",
            "rules_removed",
            "schema",
            "seconds",
            "updated",
        ]
    );
    assert_eq!((&done["rules_before"], &done["rules_after"]), (&json!(4), &json!(1)));
}

#[test]
fn check_tells_faults_and_what_a_ruleset_holds() {
    let report = one(hipac(&["check", &example("faulty.rules"), "--format", "json"]).exits(1));
    assert_eq!(
        fields(&report),
        [
            "chains",
            "dimensions",
            "errors",
            "family",
            "faults",
            "file",
            "native_matches",
            "residual_matches",
            "residual_names",
            "rules",
            "schema",
            "tables",
            "user_chains",
            "warnings",
        ]
    );
    assert_eq!(report["schema"], "hipac.check/1");
    assert_eq!((&report["errors"], &report["warnings"]), (&json!(3), &json!(1)));
    assert_eq!(
        report["faults"][0],
        json!({
            "severity": "error",
            "message": "port 65536 is above 65535",
            "line": 3,
            "column": 25,
            "width": 5,
            "help": null,
        })
    );
}

#[test]
fn compile_tells_the_cost_of_each_entry_and_of_all() {
    let report = one(hipac(&["compile", &example("gateway.rules"), "--format", "json"]).exits(0));
    assert_eq!(fields(&report), ["entries", "schema", "total"]);
    assert_eq!(report["schema"], "hipac.compile/1");
    assert_eq!(fields(&report["total"]), COST);
    assert_eq!(report["total"]["rules"], 18);
    let entries = report["entries"].as_array().expect("a list");
    let names: Vec<&Value> = entries.iter().map(|e| &e["entry"]).collect();
    assert_eq!(names[..3], ["filter/INPUT", "filter/ssh", "filter/FORWARD"]);
    for entry in entries {
        let beside: Vec<&str> = fields(entry).into_iter().filter(|f| !COST.contains(f)).collect();
        assert_eq!(beside, ["called", "entry"]);
    }
}

#[test]
fn classify_tells_the_verdict_and_its_rule_a_packet_a_line() {
    let gateway = example("gateway.rules");
    let ask = |packet: &str, more: &[&str]| {
        let mut arguments = vec!["classify", &gateway, "--format", "json", "--packet", packet];
        arguments.extend(more);
        one(hipac(&arguments).exits(0))
    };
    let by_rule = ask(
        "-i eth0 -p tcp -s 10.1.2.3 --sport 40000 -d 192.0.2.7 --dport 22 --tcp-flags SYN --ctstate NEW",
        &["--table", "filter", "--chain", "FORWARD"],
    );
    assert_eq!(
        by_rule,
        json!({
            "schema": "hipac.classify/1",
            "verdict": "ACCEPT",
            "table": "filter",
            "chain": "ssh",
            "rule": 1,
            "line": 19,
            "certain": true,
            "assumed": [],
            "otherwise": [],
        })
    );
    let by_policy = ask("", &["--chain", "OUTPUT"]);
    assert_eq!(
        by_policy,
        json!({
            "schema": "hipac.classify/1",
            "verdict": "ACCEPT",
            "table": "filter",
            "chain": "OUTPUT",
            "rule": null,
            "line": null,
            "certain": true,
            "assumed": [],
            "otherwise": [],
        })
    );
    let with_an_if = ask("-p tcp -s 198.51.100.9 -d 192.0.2.7 --dport 22", &[]);
    assert_eq!(with_an_if["certain"], false);
    assert_eq!(
        with_an_if["assumed"],
        json!([{
            "table": "filter", "chain": "ssh", "rule": 2, "line": 20, "match": "recent", "holds": true,
        }])
    );
    assert_eq!(
        with_an_if["otherwise"][1],
        json!({ "verdict": "REJECT", "table": "filter", "chain": "FORWARD", "rule": 7, "line": 18 })
    );
    let malformed = ask("-d 192.0.2.7 -p tcp --l4 under4", &[]);
    assert_eq!((&malformed["verdict"], &malformed["malformed"]), (&json!("DROP"), &json!(true)));
}

#[test]
fn verify_tells_packets_and_mismatches_with_a_packet_that_shows_each() {
    let packets = ["--packets", "100000", "--format", "json"];
    let report = one(hipac(&[&["verify", &example("gateway.rules")], &packets[..]].concat()).exits(0));
    assert_eq!(
        fields(&report),
        ["given_up", "mismatches", "packets", "proved", "rules", "rules_matched", "schema", "witnesses"]
    );
    assert_eq!(report["schema"], "hipac.verify/1");
    assert_eq!((&report["packets"], &report["mismatches"]), (&json!(100_000), &json!(0)));

    // An image of rules that differ in one target is found out.
    let folder = Folder::new();
    let rules = |target: &str| {
        format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j {target}\nCOMMIT\n")
    };
    let (ours, theirs) = (folder.write("ours", rules("DROP")), folder.write("theirs", rules("REJECT")));
    let image = folder.path("theirs.himg");
    hipac(&["compile", &theirs, "-o", &image]).exits(0);
    let report = one(hipac(&[&["verify", &ours, &image], &packets[..]].concat()).exits(1));
    assert!(report["mismatches"].as_u64() > Some(0), "{report}");
    let witness = report["witnesses"][0].as_str().expect("a text");
    assert!(witness.contains("-p tcp --dport 22"), "{witness}");
}

#[test]
fn a_certificate_tells_what_it_is_about() {
    let folder = Folder::new();
    let (rules, certificate) = (example("gateway.rules"), folder.path("certificate"));
    for (counting, compared) in [("exact", "all"), ("deciding", "deciding")] {
        let image = folder.path("image.himg");
        let count = ["--counting", counting];
        hipac(&[&["compile", &rules, "-o", &image], &count[..]].concat()).exits(0);
        hipac(&[&["verify", &rules, &image, "--certificate", &certificate], &count[..]].concat()).exits(0);
        let check = ["verify", &rules, &image, "--check-certificate", &certificate, "--format", "json"];
        let report = one(hipac(&check).exits(0));
        assert_eq!(
            fields(&report),
            ["accepted", "compared", "flat_rules", "lists", "refused", "schema", "steps", "stored"]
        );
        assert_eq!(report["schema"], "hipac.certificate/1");
        assert_eq!((&report["accepted"], &report["compared"]), (&json!(true), &json!(compared)));
    }
}

#[test]
fn verify_proves_or_refutes_with_a_packet() {
    let report = one(hipac(&["verify", &example("gateway.rules"), "--format", "json"]).exits(0));
    assert_eq!(
        fields(&report),
        [
            "boxes",
            "called",
            "chains",
            "flat_rules",
            "header_bits",
            "place",
            "probes",
            "proved",
            "regions",
            "rules",
            "schema",
            "seconds",
            "stored",
            "witness"
        ]
    );
    assert_eq!((&report["schema"], &report["proved"]), (&json!("hipac.proof/1"), &json!(true)));

    let folder = Folder::new();
    let rules = |port: u16| {
        format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport {port}: -j DROP\nCOMMIT\n")
    };
    let (ours, theirs) = (folder.write("ours", rules(1024)), folder.write("theirs", rules(1025)));
    let image = folder.path("theirs.himg");
    hipac(&["compile", &theirs, "-o", &image]).exits(0);
    let report = one(hipac(&["verify", &ours, &image, "--format", "json"]).exits(1));
    assert_eq!(report["proved"], json!(false));
    let witness = report["witness"].as_str().expect("a text");
    assert!(witness.contains("-p tcp --dport 1024\n"), "{witness}");
}

#[test]
fn demo_tells_what_it_measured() {
    let report = one(hipac(&["demo", "--rules", "1000", "--format", "json"]).exits(0));
    assert_eq!(report["schema"], "hipac.demo/1");
    assert_eq!((&report["rules"], &report["proved"]), (&json!(1000), &json!(true)));
}

#[test]
fn standard_input_is_a_file_named_by_a_dash() {
    let text = std::fs::read(example("gateway.rules")).expect("the example");
    let report = one(hipac_reading(&["check", "-", "--format", "json"], &text).exits(0));
    assert_eq!((&report["file"], &report["rules"]), (&json!("<stdin>"), &json!(18)));
}
