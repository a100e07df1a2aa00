//! `hipac bench` and `hipac plan` as a user runs them: every figure is there and could be true.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::{FilterFamily, classbench, classbench_gen};
use serde_json::Value;
use tempfile::TempDir;

const RULES: &str = "\
*filter
:INPUT DROP
:FORWARD ACCEPT
:web -
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -s 10.0.0.0/8 -p tcp -j web
-A INPUT -m limit --limit 5/min -j LOG
-A web -p tcp -m tcp --dport 80 -j ACCEPT
-A web -p tcp -m tcp --dport 443 -j ACCEPT
COMMIT
";

fn hipac(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hipac")).args(args).output().unwrap()
}

/// The JSON object of a run that finds nothing wrong.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = hipac(&[args, &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("`{name}` is no number in {value}"))
}

/// A positive median within its range.
#[track_caller]
fn check_spread(value: &Value, name: &str) {
    let (median, range) = (number(value, name), &value[format!("{name}_range")]);
    let (min, max) = (range[0].as_f64().unwrap(), range[1].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max, "{name}: {median} in {min} – {max}");
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn filters(folder: &TempDir, filters: &[hipac_bench_data::Filter]) -> PathBuf {
    let mut text = Vec::new();
    classbench::write_filters(&mut text, filters).unwrap();
    file(folder, "filters", &text)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn check_bench(bench: &Value) {
    assert_eq!(bench["schema"], "hipac.bench/1");
    for name in ["single_ns", "dependent_ns", "batch_ns", "stream_ns", "evaluate_ns"] {
        check_spread(bench, name);
    }
    assert!(number(bench, "stream_ns") < number(bench, "single_ns"));
    assert!(number(bench, "bytes_per_rule") > 0.0 && number(bench, "copies_per_rule") > 0.0);
    assert!(number(bench, "structure_bytes") < number(bench, "image_bytes"));
    assert!(number(bench, "leaves_per_lookup") > 0.0 && number(bench, "nodes_per_lookup") >= 0.0);
    let latency = &bench["latency"];
    assert!(number(latency, "p50_ns") <= number(latency, "p99_ns"));
    assert!(number(latency, "p99_ns") <= number(latency, "p999_ns"));
    assert!(number(latency, "timer_ns") > 0.0);
    let checked = &bench["checked"];
    assert!(number(checked, "keys") > 0.0);
    assert_eq!((number(checked, "keys_differing"), number(checked, "linear_differing")), (0.0, 0.0));
}

#[test]
fn a_ruleset_is_measured_in_every_way() {
    let folder = TempDir::new().unwrap();
    let rules = file(&folder, "rules.v4", RULES.as_bytes());
    for traffic in ["corners", "inside", "random"] {
        let bench =
            json(&["bench", text(&rules), "--packets", "2000", "--traffic", traffic, "--threads", "2"]);
        check_bench(&bench);
        check_spread(&bench, "build_s");
        // The chain that reaches most rules.
        assert_eq!((&bench["entry"], &bench["rules"]), (&"filter/INPUT".into(), &6.into()));
        assert_eq!(bench["trace"]["traffic"], traffic);
        assert_eq!(bench["checked"]["linear"], bench["trace"]["packets"]);
        assert!(number(&bench["threads"], "million_lookups_per_s") > 0.0);
    }
}

#[test]
fn every_machine_gives_its_name() {
    let folder = TempDir::new().unwrap();
    let rules = file(&folder, "rules.v4", RULES.as_bytes());
    let bench = json(&["bench", text(&rules), "--packets", "100", "--machine", "scalar"]);
    assert_eq!(bench["machine"], "scalar");
}

#[test]
fn an_image_is_measured_with_a_trace() {
    let folder = TempDir::new().unwrap();
    let rules = file(&folder, "rules.v4", RULES.as_bytes());
    let image = folder.path().join("image");
    assert!(hipac(&["compile", text(&rules), "-o", text(&image)]).status.success());
    let trace = file(
        &folder,
        "trace.csv",
        b"src,proto,dport,in\n10.0.0.1,tcp,80,eth0\n10.0.0.1,tcp,80,eth0\n10.0.0.2,tcp,443,lo\n",
    );
    let bench = json(&["bench", text(&image), "--trace", text(&trace), "--chain", "INPUT"]);
    check_bench(&bench);
    assert!(bench["build_s"].is_null() && number(&bench, "open_s") > 0.0);
    assert_eq!((&bench["trace"]["packets"], &bench["trace"]["repeats_left_out"]), (&2.into(), &1.into()));

    let output = hipac(&["bench", text(&image)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--trace"));
}

#[test]
fn hostile_sets_are_measured_too() {
    let folder = TempDir::new().unwrap();
    for kind in [Hostile::Boxes, Hostile::Cross, Hostile::Nested] {
        let set = filters(&folder, &kind.generate(300, 1).unwrap());
        let bench = json(&["bench", text(&set), "--input-format", "classbench", "--packets", "1000"]);
        check_bench(&bench);
        assert_eq!(number(&bench, "rules"), 300.0);
    }
}

#[test]
fn a_plan_sweeps_from_small_to_fast_and_draws_it() {
    let folder = TempDir::new().unwrap();
    let options = classbench_gen::Options::new(1000, 1);
    let set = classbench_gen::generate(&FilterFamily::Firewall.parameters(), &options).unwrap();
    let set = filters(&folder, &set);
    let svg = folder.path().join("curve.svg");
    let args = ["plan", text(&set), "--input-format", "classbench", "--packets", "500", "-o", text(&svg)];
    let plan = json(&args);
    assert_eq!(plan["schema"], "hipac.plan/1");
    let points = plan["points"].as_array().unwrap();
    assert!(!points.is_empty());
    for point in points {
        check_spread(point, "single_ns");
        check_spread(point, "batch_ns");
        assert!(number(point, "image_bytes") <= number(point, "memory"));
        assert_eq!(number(point, "keys_differing"), 0.0);
    }
    assert!(points.is_sorted_by(|a, b| number(a, "memory") < number(b, "memory")));
    // What is a little less than the smallest budget is refused.
    let less = (number(&points[0], "memory") * 0.9) as usize;
    let refused =
        hipac(&["compile", text(&set), "--input-format", "classbench", "--memory", &less.to_string()]);
    assert_eq!(refused.status.code(), Some(2));

    let dearest = plan["dearest"].as_array().unwrap();
    assert_eq!(dearest.len(), 10);
    assert!(dearest.is_sorted_by(|a, b| number(a, "bytes") >= number(b, "bytes")));
    let lines = std::fs::read_to_string(&set).unwrap();
    let line = dearest[0]["line"].as_u64().unwrap() as usize;
    let own = lines.lines().nth(line - 1).unwrap().replace('\t', " ");
    assert!(own.starts_with(dearest[0]["text"].as_str().unwrap()), "{own}");

    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("million lookups a second") && svg.contains("batched"));
}

#[test]
fn the_texts_are_for_people() {
    let folder = TempDir::new().unwrap();
    let rules = file(&folder, "rules.v4", RULES.as_bytes());
    let bench = hipac(&["bench", text(&rules), "--packets", "500"]);
    let bench = String::from_utf8(bench.stdout).unwrap();
    for word in ["filter/INPUT: 500 packets (corners, seed 1)", "dependent", "p99.9", "packets held against"]
    {
        assert!(bench.contains(word), "{word} in\n{bench}");
    }
    let plan = hipac(&["plan", text(&rules), "--packets", "500"]);
    let plan = String::from_utf8(plan.stdout).unwrap();
    for word in ["--memory", "█", "rules.v4:", "-A web -p tcp"] {
        assert!(plan.contains(word), "{word} in\n{plan}");
    }
}
