//! `hipac update`: both files or neither, whatever happens meanwhile.

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, Run, example, hipac, hipac_reading};

/// A folder with a ruleset and its image.
struct Files {
    folder: Folder,
    rules: String,
    image: String,
}

impl Files {
    /// The example gateway, or another text.
    fn new(text: Option<&str>, options: &[&str]) -> Files {
        let folder = Folder::new();
        let gateway = || fs::read_to_string(example("gateway.rules")).expect("the example");
        let rules = folder.write("fw.rules", text.map_or_else(gateway, str::to_owned));
        let image = folder.path("fw.himg");
        hipac(&[&["compile", &rules, "-o", &image][..], options].concat()).exits(0);
        Files { folder, rules, image }
    }

    fn update(&self, commands: &str, options: &[&str]) -> Run {
        hipac_reading(
            &[&["update", &self.image, "--rules", &self.rules][..], options].concat(),
            commands.as_bytes(),
        )
    }

    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        (fs::read(&self.rules).expect("rules"), fs::read(&self.image).expect("an image"))
    }

    /// Rules as they are printed with counters.
    fn printed(&self) -> String {
        hipac(&["fmt", "-c", &self.rules]).exits(0).stdout
    }

    fn put(&self, (rules, image): (&[u8], &[u8])) {
        fs::write(&self.rules, rules).expect("rules are written");
        fs::write(&self.image, image).expect("the image is written");
    }
}

const INSERT: &str = "iptables -I FORWARD 3 -s 203.0.113.66 -j DROP\n";

#[test]
fn commands_change_rules_and_image_together() {
    let files = Files::new(None, &[]);
    let before = files.printed();
    files.update(INSERT, &[]).exits(0);
    files.update("*filter\n[3:4] -A web -p udp -j RETURN\n-E web www\nCOMMIT\n", &[]).exits(0);
    hipac(&["verify", &files.rules, &files.image]).exits(0);
    let after = files.printed();
    assert!(after.contains("\n[0:0] -A FORWARD -s 203.0.113.66/32 -j DROP\n"), "{after}");
    assert!(after.contains("\n[3:4] -A www -p udp -j RETURN\n"), "{after}");
    // And back.
    files.update("*filter\n-D FORWARD 3\n-E www web\n-D web -p udp -j RETURN\nCOMMIT\n", &[]).exits(0);
    assert_eq!(files.printed(), before);
    // The image is the one that the rules compile to.
    let fresh = files.folder.path("fresh.himg");
    hipac(&["compile", &files.rules, "-o", &fresh]).exits(0);
    assert!(fs::read(&fresh).expect("an image") == files.bytes().1);
    assert_eq!(files.folder.names(), ["fresh.himg", "fw.himg", "fw.rules"]);
}

#[test]
fn a_command_that_fails_is_underlined_and_leaves_both_files_as_they_were() {
    let files = Files::new(None, &[]);
    let before = files.bytes();
    for (commands, words) in [
        ("*filter\n-F web\n-X web\nCOMMIT\n", ["<stdin>:3:4", "FORWARD rule 5 leads to it"]),
        ("*filter\n-A web -j DROP\n-I web 99 -j DROP\nCOMMIT\n", ["<stdin>:3:8", "chain web has"]),
        ("*filter\n-A web --dport 70000 -j DROP\nCOMMIT\n", ["<stdin>:2:8", "there is no option"]),
        ("*filter\n-I web -j web\nCOMMIT\n", ["<stdin>:2:11", "loop"]),
        ("ip6tables -F\n", ["<stdin>:1:1", "IPv6"]),
        ("flush everything\n", ["<stdin>:1:1", "neither a rule"]),
    ] {
        let run =
            files.update(commands, &[]).exits(1).complains(&words).complains(&["^", "nothing is changed"]);
        assert_eq!(run.stdout, "");
        assert!(files.bytes() == before, "{commands}");
    }
    files.update(INSERT, &["--memory", "1K"]).exits(2).complains(&["--memory"]);
    assert!(files.bytes() == before);
    assert_eq!(files.folder.names(), ["fw.himg", "fw.rules"]);
}

#[test]
fn an_image_of_other_rules_is_refused() {
    let files = Files::new(None, &["--counting", "deciding"]);
    let again = ["hipac compile", "give the options"];
    files.update(INSERT, &[]).exits(2).complains(&again);
    files.update(INSERT, &["--counting", "deciding"]).exits(0);
    // From now on the rules say it.
    files.update(INSERT, &[]).exits(0);
    let verify = ["verify", &files.rules, &files.image, "--counting", "deciding"];
    hipac(&verify).exits(0);
    // Rules changed by hand.
    let text = fs::read_to_string(&files.rules).expect("rules").replace("203.0.113.66", "203.0.113.67");
    files.folder.write("fw.rules", text);
    files.update(INSERT, &["--counting", "deciding"]).exits(2).complains(&again);
    // A comment changes no rule, but for the lines that an image knows.
    let files = Files::new(None, &[]);
    let text = fs::read_to_string(&files.rules).expect("rules");
    files.folder.write("fw.rules", format!("{text}# the end\n"));
    files.update(INSERT, &[]).exits(0);
    files.folder.write("fw.himg", "hipacimg");
    files.update(INSERT, &[]).exits(2);
}

#[test]
fn an_update_that_was_interrupted_is_finished_once() {
    let files = Files::new(None, &[]);
    let (_, old_image) = files.bytes();
    files.update(INSERT, &[]).exits(0);
    let (new_rules, new_image) = files.bytes();

    // The same commands again: they are in the rules already.
    files.put((&new_rules, &old_image));
    let run = files.update(INSERT, &[]).exits(0);
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("not carried out again"),
        "{}",
        run.stdout
    );
    assert!(files.bytes() == (new_rules.clone(), new_image.clone()));

    // Other commands: both.
    files.put((&new_rules, &old_image));
    let run = files.update("iptables -D FORWARD 3\n", &[]).exits(0);
    assert!(run.stdout.contains("interrupted"), "{}", run.stdout);
    hipac(&["verify", &files.rules, &files.image]).exits(0);
    assert!(!files.printed().contains("203.0.113.66"));

    // Other commands that fail: the interrupted ones are finished nevertheless.
    files.put((&new_rules, &old_image));
    let run = files.update("iptables -D FORWARD 99\n", &[]).exits(1);
    assert!(files.bytes() == (new_rules.clone(), new_image.clone()));
    assert!(run.stderr.contains("it is finished") && !run.stderr.contains("as they were"), "{}", run.stderr);
    files.put((&new_rules, &old_image));
    let run = files.update("iptables -D FORWARD 99\n", &["--format", "json"]).exits(1);
    assert!(run.stdout.contains("\"finished_interrupted\":true"), "{}", run.stdout);
    let run = files.update("iptables -D FORWARD 99\n", &["--format", "json"]).exits(1);
    assert!(run.stdout.contains("\"finished_interrupted\":false"), "{}", run.stdout);

    // A dry run finishes nothing.
    files.put((&new_rules, &old_image));
    files.update(INSERT, &["--dry-run"]).exits(0);
    assert!(files.bytes() == (new_rules, old_image));
}

#[test]
fn a_dry_run_shows_the_difference_and_writes_nothing() {
    let files = Files::new(None, &[]);
    let before = files.bytes();
    let run = files.update(INSERT, &["--dry-run"]).exits(0);
    assert!(run.stdout.contains("filter/FORWARD: 15 differences"), "{}", run.stdout);
    let run = files.update(INSERT, &["--dry-run", "--format", "json"]).exits(0);
    let report = &run.json()[0];
    assert_eq!(report["updated"], false);
    assert_eq!(report["differences"]["equal"], false);
    assert!(files.bytes() == before);
}

#[test]
fn updates_wait_for_each_other() {
    let files = Files::new(None, &[]);
    std::thread::scope(|scope| {
        for i in 0..8 {
            let files = &files;
            scope.spawn(move || {
                files.update(&format!("iptables -A web -s 192.0.2.{i} -j DROP\n"), &[]).exits(0);
            });
        }
    });
    let printed = files.printed();
    assert_eq!(printed.matches("-A web -s 192.0.2.").count(), 8, "{printed}");
    hipac(&["verify", &files.rules, &files.image]).exits(0);
}

/// An update that runs.
struct Running(Child);

impl Running {
    fn start(files: &Files, commands: &str) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_hipac"))
            .args(["update", &files.image, "--rules", &files.rules, commands])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hipac starts");
        Running(child)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }

    /// Waits until the first byte of a new file is written, or it has ended.
    fn wait_for_writing(&mut self, files: &Files) {
        let new = files.folder.path(".fw.rules.hipac-new");
        while !fs::exists(&new).expect("a folder") && !self.has_ended() {}
    }

    /// Ends it at once: nothing of it runs any more.
    fn kill(mut self, after: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < after && !self.has_ended() {}
        // SIGKILL.
        let _ = self.0.kill();
        self.0.wait().expect("a child");
    }
}

/// How long updates take, and the part of it in which files are written: medians.
fn times(files: &Files, commands: &str, old: (&[u8], &[u8])) -> (Duration, Duration) {
    let mut times: Vec<(Duration, Duration)> = (0..5)
        .map(|_| {
            files.put(old);
            let begin = Instant::now();
            let mut running = Running::start(files, commands);
            running.wait_for_writing(files);
            let writing = Instant::now();
            assert!(running.0.wait().expect("a child").success());
            (begin.elapsed(), writing.elapsed())
        })
        .collect();
    times.sort();
    times[2]
}

/// `HIPAC_KILLS` says at how many instants.
#[test]
fn killed_at_any_instant_each_file_is_the_old_or_the_new_one() {
    let kills = std::env::var("HIPAC_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let text = hipac(&["generate", "gateway", "--rules", "200"]).exits(0).stdout;
    let files = Files::new(Some(&text), &[]);
    let (old_rules, old_image) = files.bytes();
    // The commands are kept elsewhere, so that the folder has nothing but the two files.
    let elsewhere = Folder::new();
    let commands = elsewhere.write("commands", INSERT);
    let (whole, writing) = times(&files, &commands, (&old_rules, &old_image));
    let (new_rules, new_image) = files.bytes();
    assert!(new_rules != old_rules && new_image != old_image);
    hipac(&["verify", &files.rules, &files.image]).exits(0);

    let (mut untouched, mut between, mut done, mut leftovers) = (0, 0, 0, 0);
    let mut random = 1u64;
    for kill in 0..kills {
        files.put((&old_rules, &old_image));
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = (random >> 33) as f64 / (1u64 << 31) as f64;
        let mut running = Running::start(&files, &commands);
        // One of four at any instant, the others where files are written.
        if kill % 4 == 0 {
            running.kill(whole.mul_f64(part));
        } else {
            running.wait_for_writing(&files);
            running.kill(writing.mul_f64(part));
        }
        let (rules, image) = files.bytes();
        // Opened and audited, and one of the two.
        hipac(&["classify", &files.image, "--packet", ""]).exits(0);
        match (rules == new_rules, image == new_image) {
            (true, true) => done += 1,
            (true, false) if image == old_image => between += 1,
            (false, false) if (&rules, &image) == (&old_rules, &old_image) => untouched += 1,
            _ => panic!("kill {kill}: neither the old files nor the new ones"),
        }
        let names = files.folder.names();
        assert!(names.len() <= 4, "{names:?}");
        leftovers += usize::from(names.len() > 2);
        let repeated = if image == new_image { "*filter\nCOMMIT\n" } else { INSERT };
        files.update(repeated, &[]).exits(0);
        assert_eq!(files.folder.names(), ["fw.himg", "fw.rules"]);
        assert!(files.bytes().1 == new_image, "kill {kill}: repeating it does not repair");
    }
    println!("{kills} kills: {untouched} before, {between} between, {done} after; {leftovers} left files");
    assert!(untouched > 0, "no kill came before the end: none tested anything");
}

#[test]
fn rules_that_name_sets_are_updated_with_them() {
    let text = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set good src -j ACCEPT\n\
                -A FORWARD -p udp -j ACCEPT\nCOMMIT\n";
    let sets = "create good hash:ip\nadd good 192.0.2.1\ncreate bad hash:ip\nadd bad 192.0.2.2\n";
    let folder = Folder::new();
    let sets = folder.write("all.sets", sets);
    let files = Files::new(Some(text), &["--ipset", &sets]);
    let run = files.update(INSERT, &[]).exits(2);
    assert!(run.stderr.contains("--ipset"), "{}", run.stderr);
    let commands = "*filter\n-D FORWARD -m set --match-set good src -j ACCEPT\n\
                    -I FORWARD 1 -m set --match-set bad src -j DROP\nCOMMIT\n";
    files.update(commands, &["--ipset", &sets]).exits(0);
    hipac(&["verify", &files.rules, &files.image, "--ipset", &sets]).exits(0);
    assert!(files.printed().contains("bad") && !files.printed().contains("good"));
    let packet = ["classify", &files.image, "--packet", "-p udp -s 192.0.2.2 -d 10.0.0.1 --dport 5"];
    let run = hipac(&packet).exits(0);
    assert!(run.stdout.contains("DROP"), "{}", run.stdout);
}
