//! Residual matches against the kernel itself: the same packets, the same counters.
//!
//! ```text
//!   unshare -n this test ─▶ iptables-legacy-restore ─▶ raw packets over lo ─▶ iptables-legacy-save -c
//!                                                    └▶ oracle, with a state ─▶ rules matched     the same?
//! ```
//!
//! Both families. Rules have no target: each counts what it matches, and each is looked at for every packet. What hangs on time
//! is chosen so that a few milliseconds do not matter. `HIPAC_SEEDS=100` draws a hundred times as many rules and
//! packets. Skipped, saying so, where there is no network namespace or
//! no such tool.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use hipac_classifier::{Answer, Packet};
use hipac_host::{Arrival, Hz, Options, State, Time, bpf};
use hipac_rules::{Family, Hook, ParseOptions, Residual, Ruleset, TableKind, parse};
use hipac_verifier::{Event, Exact, Oracle, Outcomes, RuleId, Script};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use socket2::{Domain, Protocol, Socket, Type};

/// Set for the process inside the namespace.
const INSIDE: &str = "HIPAC_INSIDE_NAMESPACE";

/// Runs the test of that name once more, in a network namespace. `true`: this is the run inside.
fn is_inside(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let can = |script: &str| {
        let status = Command::new("unshare").args(["-n", "sh", "-c", script]).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success())
    };
    let script = FAMILIES.map(|family| {
        let (save, restore) = (tool(family, "save"), tool(family, "restore"));
        format!("{save} >/dev/null && command -v {restore} >/dev/null")
    });
    if !can(&format!("ip link set lo up && {}", script.join(" && "))) {
        println!("skipped: no network namespace, or no iptables-legacy and ip6tables-legacy");
        return false;
    }
    let me = env::current_exe().expect("a test knows its own file");
    let status = Command::new("unshare")
        .arg("-n")
        .arg(me)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare was just run");
    assert!(status.success(), "{name} inside a namespace");
    false
}

fn run(tool: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{tool}: {e}"));
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{tool}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Ticks a second of this kernel, where it says so.
fn hz() -> Hz {
    let config = Command::new("zcat").arg("/proc/config.gz").output().ok();
    let text = config.map(|c| String::from_utf8_lossy(&c.stdout).into_owned()).unwrap_or_default();
    let hz = text.lines().find_map(|line| line.strip_prefix("CONFIG_HZ=")?.parse().ok());
    hz.and_then(Hz::new).unwrap_or(Hz::DEFAULT)
}

/// A packet of protocol 253, or of UDP.
fn packet(family: Family, source: u32, ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if family == Family::V6 {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
        bytes.extend(Ipv6Addr::from(0xfd00 << 112 | u128::from(source)).octets());
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(payload);
        return bytes;
    }
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, total[0], total[1], 0x12, 0x34, 0, 0, ttl, protocol, 0, 0];
    bytes.extend((0x7f00_0100 | source).to_be_bytes());
    bytes.extend([127, 0, 0, 1]);
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Both sides.
struct Sides<'r> {
    family: Family,
    oracle: &'r Oracle<'r>,
    state: State,
    matched: BTreeMap<usize, u64>,
    /// Rules of which some answer was not known.
    unknown: BTreeSet<usize>,
    socket: Socket,
}

/// Notes the rules whose matches have no answer.
struct Noting<'a> {
    exact: Exact<'a>,
    unknown: &'a mut BTreeSet<usize>,
}

impl Outcomes for Noting<'_> {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, packet: &Packet) -> Answer {
        let answer = self.exact.residual(rule, match_index, kind, packet);
        if !self.exact.is_known() {
            self.unknown.insert(rule.rule());
        }
        answer
    }

    fn matched(&mut self, rule: RuleId, packet: &Packet) {
        self.exact.matched(rule, packet);
    }
}

impl Sides<'_> {
    fn send(&mut self, source: u32, ttl: u8, protocol: u8, payload: &[u8]) {
        let bytes = &packet(self.family, source, ttl, protocol, payload);
        let at = Time::from(SystemTime::now());
        let to: SocketAddr = match self.family {
            Family::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
            Family::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        self.socket.send_to(bytes, &to.into()).expect("lo takes it");
        let packet = Packet::from_ip_bytes(bytes).expect("an IP packet");
        let packet = Packet { in_interface: hipac_classifier::InterfaceName::new("lo").unwrap(), ..packet };
        let arrival = Arrival { wire: Some(bytes), ..Arrival::at(at) };
        let exact = Exact::new(&mut self.state, arrival, Script::AllHold);
        let mut outcomes = Noting { exact, unknown: &mut self.unknown };
        let evaluation = self.oracle.evaluate(TableKind::Filter, Hook::Input, &packet, &mut outcomes);
        for event in evaluation.events {
            if let Event::Matched(rule) = event {
                *self.matched.entry(rule.rule()).or_insert(0) += 1;
            }
        }
    }

    /// Counters of both sides.
    #[track_caller]
    fn compare(&self, rules: &[String]) {
        let saved = run(&tool(self.family, "save"), &["-c", "-t", "filter"], "");
        let counters: Vec<u64> = saved
            .lines()
            .filter_map(|line| {
                line.strip_prefix('[')?.split_once("] -A INPUT ")?.0.split_once(':')?.0.parse().ok()
            })
            .collect();
        assert_eq!(counters.len(), rules.len(), "{saved}");
        let mut differing = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let (theirs, ours) = (counters[i], self.matched.get(&i).copied().unwrap_or(0));
            if theirs != ours && !self.unknown.contains(&i) {
                differing.push(format!("{rule}: the kernel {theirs}, hipac {ours}"));
            }
        }
        assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), rules.len(), differing.join("\n"));
        // Programs that ask for the frame's header by chance.
        assert!(self.unknown.len() * 50 <= rules.len(), "{:?} are not known", self.unknown);
        let moved = self.matched.values().filter(|n| **n > 0).count();
        println!(
            "{}: {} rules, {moved} of them matched some packet: 0 differences",
            self.family.name(),
            rules.len()
        );
    }
}

fn tool(family: Family, what: &str) -> String {
    let number = if family == Family::V6 { "6" } else { "" };
    format!("ip{number}tables-legacy-{what}")
}

fn ruleset(text: &str, family: Family) -> Ruleset {
    let parsed = parse(text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
    assert!(!parsed.has_errors(), "{}", hipac_rules::render_all(&parsed.faults, "rules", text.as_bytes()));
    parsed.ruleset
}

/// Whether packets went when they should.
enum Fair {
    Yes,
    No,
}

/// Loads rules on both sides, and calls `send` with them.
#[track_caller]
fn check(family: Family, rules: &[String], send: impl FnOnce(&mut Sides<'_>) -> Fair) {
    // Dropped at the end, so that no error comes back.
    let mut text = "*filter\n:INPUT DROP [0:0]\n".to_owned();
    rules.iter().for_each(|rule| writeln!(text, "-A INPUT {rule}").unwrap());
    text.push_str("COMMIT\n");
    let ours = ruleset(&text, family);
    run("ip", &["link", "set", "lo", "up"], "");
    run(&tool(family, "restore"), &[], &text);
    let loaded = Time::from(SystemTime::now());
    let state = State::new(&ours, Options { hz: hz(), ..Options::default() }, loaded).unwrap();
    let oracle = Oracle::new(&ours).unwrap();
    let domain = if family == Family::V6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).expect("root may");
    let mut sides =
        Sides { family, oracle: &oracle, state, matched: BTreeMap::new(), unknown: BTreeSet::new(), socket };
    match send(&mut sides) {
        Fair::Yes => sides.compare(rules),
        Fair::No => println!("skipped: the machine is too busy to keep time"),
    }
    // Lists of `recent` belong to both families: the next rules shall find none.
    run(&tool(family, "restore"), &[], "*filter\nCOMMIT\n");
}

fn below(random: &mut ChaCha8Rng, bound: u32) -> u32 {
    random.next_u32() % bound
}

fn pick<'a>(random: &mut ChaCha8Rng, list: &[&'a str]) -> &'a str {
    list[below(random, list.len() as u32) as usize]
}

/// A short text over few letters, so that it is often found.
fn letters(random: &mut ChaCha8Rng, most: u32) -> String {
    (0..=below(random, most)).map(|_| pick(random, &["a", "b", "A", "B"])).collect()
}

#[test]
fn texts_words_and_programs_are_as_the_kernels() {
    if !is_inside("texts_words_and_programs_are_as_the_kernels") {
        return;
    }
    for seed in seeds() {
        texts_words_and_programs(seed);
    }
}

/// One, or as many as `HIPAC_SEEDS` says.
fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=env::var("HIPAC_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn texts_words_and_programs(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let r = &mut random;
    let mut rules = Vec::new();
    for _ in 0..120 {
        let (from, length) = (below(r, 40), below(r, 16));
        let places = match below(r, 4) {
            0 => String::new(),
            1 => format!("--from {from}"),
            2 => format!("--to {}", from + 1),
            _ => format!("--from {from} --to {}", from + length),
        };
        let (not, algorithm, case) =
            (pick(r, &["", "! "]), pick(r, &["bm", "kmp"]), pick(r, &["", "--icase"]));
        let text = match below(r, 3) {
            0 => format!("--hex-string |{:02x}|", 0xc0 + below(r, 64)),
            _ => format!("--string {}", letters(r, 5)),
        };
        rules.push(format!("-m string {not}{text} --algo {algorithm} {places} {case}"));
    }
    for _ in 0..120 {
        let mut location = below(r, 48).to_string();
        for _ in 0..below(r, 4) {
            let operator = pick(r, &["&", "<<", ">>", ">>", "@"]);
            let number = match operator {
                "&" => below(r, 0x100),
                "@" => below(r, 24),
                _ => below(r, 32),
            };
            write!(location, "{operator}{number:#x}").unwrap();
        }
        let (low, high) = (below(r, 0x80), 1 << below(r, 32));
        let test = format!("{location}={low}:{},{}", low + high, r.next_u32());
        let (not, more) = (pick(r, &["", "! "]), pick(r, &["", "", "&&6&0xff=0x40:0xfd"]));
        rules.push(format!("-m u32 {not}--u32 \"{test}{more}\""));
    }
    while rules.len() < 480 {
        let program = program(r);
        if bpf::Program::parse(&program).is_ok() {
            rules.push(format!("-m bpf --bytecode \"{program}\""));
        }
    }
    for family in FAMILIES {
        check(family, &rules, |sides| {
            for i in 0..200 {
                let mut payload = letters(r, 30).into_bytes();
                payload.extend((0..below(r, 5)).map(|_| 0xc0 + below(r, 64) as u8));
                sides.send(i % 8, 1 + below(r, 250) as u8, 253, &payload);
            }
            Fair::Yes
        });
    }
}

/// A program that may be valid.
fn program(r: &mut ChaCha8Rng) -> String {
    let count = 2 + below(r, 10);
    let mut text = format!("{count}");
    for at in 0..count {
        let rest = count - at - 1;
        let k = match below(r, 4) {
            0 => below(r, 48),
            1 => below(r, 8),
            2 => r.next_u32(),
            // The network header, the mark, the protocol, an exclusive or.
            _ => [0xfff0_0000 + below(r, 48), 0xffff_f014, 0xffff_f000, 0xffff_f028][below(r, 4) as usize],
        };
        let codes: &[u32] = &[
            0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x60, 0x01, 0x81, 0xb1, 0x61, 0x02, 0x03, 0x04,
            0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84,
            0x94, 0x9c, 0xa4, 0xac, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x07, 0x87, 0x06, 0x16,
        ];
        let code = if rest == 0 { [0x06, 0x16][below(r, 2) as usize] } else { codes[below(r, 48) as usize] };
        let small = matches!(code, 0x02 | 0x03 | 0x60 | 0x61);
        let k = if small {
            k % 3
        } else if code == 0x06 {
            k & 1
        } else {
            k
        };
        let jump = |r: &mut ChaCha8Rng| if code & 7 == 5 { below(r, rest.max(1)) } else { 0 };
        write!(text, ",{code} {} {} {k}", jump(r), jump(r)).unwrap();
    }
    text
}

#[test]
fn what_counts_counts_as_in_the_kernel() {
    if !is_inside("what_counts_counts_as_in_the_kernel") {
        return;
    }
    let mut rules: Vec<String> = [
        "-m limit --limit 1/hour",
        "-m limit --limit 1/hour --limit-burst 1",
        "-m limit --limit 1/day --limit-burst 1",
        "-m limit --limit 7/day --limit-burst 37",
        "-m quota --quota 3000",
        "-m quota ! --quota 3000",
        "-m quota --quota 0",
        "-m recent --set --name a",
        "-m recent --rcheck --hitcount 4 --name a",
        "-m recent ! --rcheck --hitcount 7 --name a",
        "-m recent --update --hitcount 9 --name a",
        "-m recent --rcheck --seconds 900 --hitcount 20 --name a",
        "-m recent --rcheck --hitcount 40 --name a",
        "-m recent --rcheck --rttl --name a",
        "-m recent --rcheck --rttl --hitcount 3 --name a",
        "-p udp -m recent --set --name b --mask 255.255.255.254",
        "-m recent --rcheck --name b",
        "-p 253 -m recent --remove --name b",
        "-m recent --rcheck --name b --mask 255.255.255.0",
        "-p udp -m recent --set --name c --rdest",
        "-m recent ! --update --name c --rdest",
        "-m hashlimit --hashlimit-upto 1/hour --hashlimit-mode srcip --hashlimit-name h1",
        "-m hashlimit --hashlimit-above 1/hour --hashlimit-burst 3 --hashlimit-mode srcip --hashlimit-name h2",
        "-m hashlimit --hashlimit-upto 2/day --hashlimit-burst 2 --hashlimit-mode srcip,srcport,dstport --hashlimit-name h3",
        "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 9 --hashlimit-mode srcip --hashlimit-srcmask 30 --hashlimit-name h4",
        "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 11 --hashlimit-mode dstip --hashlimit-name h5",
        "-m hashlimit --hashlimit-above 1/hour --hashlimit-burst 11 --hashlimit-mode srcip --hashlimit-name h5",
        "-m hashlimit --hashlimit-upto 1b/s --hashlimit-mode srcip --hashlimit-name h6",
        "-m hashlimit --hashlimit-upto 20b/s --hashlimit-burst 100b --hashlimit-mode srcip --hashlimit-name h7",
        "-m hashlimit --hashlimit-upto 3/sec --hashlimit-mode srcip --hashlimit-name h8 --hashlimit-rate-match --hashlimit-rate-interval 90",
        "-m hashlimit --hashlimit-above 512b/s --hashlimit-mode srcip --hashlimit-name h9 --hashlimit-rate-match --hashlimit-rate-interval 90",
        "-m hashlimit --hashlimit-upto 1/hour --hashlimit-mode srcip,srcport --hashlimit-htable-size 16 --hashlimit-htable-max 4 --hashlimit-name h10",
    ]
    .map(str::to_owned)
    .into();
    for every in [1, 2, 3, 7, 100] {
        for place in [0, every / 2, every - 1] {
            rules.push(format!("-m statistic --mode nth --every {every} --packet {place}"));
            rules.push(format!("-m statistic --mode nth ! --every {every} --packet {place}"));
        }
    }
    // A full table drops the packet: what stands behind it counts less.
    rules.sort_by_key(|rule| rule.contains("h10"));
    rules.push("-m recent --set --name behind".to_owned());
    for (seed, family) in seeds().flat_map(|seed| FAMILIES.map(|family| (seed, family))) {
        let rules: Vec<String> = rules.iter().map(|rule| of_family(rule, family)).collect();
        check(family, &rules, |sides| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let r = &mut random;
            for _ in 0..400 {
                // A header of UDP: ports, length, no checksum.
                let ports = [0, 10 + below(r, 3) as u8, 0, 20 + below(r, 2) as u8];
                let payload: Vec<u8> = ports.into_iter().chain(vec![0; 4 + below(r, 60) as usize]).collect();
                let protocol = if below(r, 3) == 0 { 253 } else { 17 };
                sides.send(below(r, 8), 60 + below(r, 3) as u8, protocol, &payload);
            }
            Fair::Yes
        });
    }
}

/// Masks are written otherwise.
fn of_family(rule: &str, family: Family) -> String {
    match family {
        Family::V4 => rule.to_owned(),
        Family::V6 => rule
            .replace("255.255.255.254", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")
            .replace("255.255.255.0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00")
            .replace("srcmask 30", "srcmask 126"),
    }
}

#[test]
fn time_passes_as_in_the_kernel() {
    if !is_inside("time_passes_as_in_the_kernel") {
        return;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let clock = |secs: u64| format!("{:02}:{:02}:{:02}", secs / 3600 % 24, secs / 60 % 60, secs % 60);
    let (before, after) = (clock(now - 600), clock(now + 600));
    let mut rules: Vec<String> = [
        "-m limit --limit 2/second --limit-burst 1",
        "-m recent --set --name a",
        "-m recent --rcheck --seconds 1 --hitcount 2 --name a",
        "-m recent --rcheck --seconds 1 --hitcount 3 --name a",
        "-m recent --update --seconds 1 --reap --hitcount 2 --name b",
        "-m recent --set --name b",
        "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name h1",
        "-m hashlimit --hashlimit-upto 40b/s --hashlimit-mode srcip --hashlimit-name h2",
        "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name h3 --hashlimit-rate-match",
        "-j RATEEST --rateest-name e --rateest-interval 250ms --rateest-ewmalog 500ms",
        "-m rateest --rateest e --rateest-gt --rateest-pps 0",
        "-m rateest --rateest e --rateest-eq --rateest-pps 1",
        "-m rateest --rateest e --rateest-gt --rateest-pps 1",
        "-m rateest --rateest e --rateest-lt --rateest-bps 300bit",
        "-m rateest --rateest e ! --rateest-lt --rateest-bps 40bit",
        "-m rateest --rateest e --rateest-gt --rateest-bps 500bit",
    ]
    .map(str::to_owned)
    .into();
    for times in [
        format!("--timestart {before} --timestop {after}"),
        format!("--timestart {after} --timestop {before}"),
    ] {
        for days in ["Mo,Tu,We", "Th,Fr,Sa,Su"] {
            rules.push(format!("-m time {times} --weekdays {days}"));
            rules.push(format!("-m time {times} --kerneltz ! --weekdays {days}"));
        }
    }
    rules.extend((1..=31).map(|day| format!("-m time --monthdays {day}")));
    rules.push("-m time --datestart 2020-01-01".to_owned());
    rules.push("-m time --datestop 2020-01-01".to_owned());
    // What differs between the families has nothing to do with time.
    check(Family::V4, &rules, |sides| {
        // Gaps that lie far from what decides: 0.5 and 1 second.
        for gap_ms in [0, 150, 700, 0, 1300, 150, 1300, 700, 100] {
            let begin = Instant::now();
            sleep(Duration::from_millis(gap_ms));
            if begin.elapsed() > Duration::from_millis(gap_ms + 25) {
                return Fair::No;
            }
            sides.send(1, 64, 253, b"text");
        }
        Fair::Yes
    });
}

#[test]
fn options_of_tcp_are_found_as_in_the_kernel() {
    if !is_inside("options_of_tcp_are_found_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        let rules: Vec<String> = (1..9)
            .flat_map(|n| ["", "! "].map(|not| format!("-p tcp -m tcp {not}--tcp-option {n}")))
            .collect();
        for family in FAMILIES {
            check(family, &rules, |sides| {
                for i in 0..400 {
                    let options = 4 * below(r, 5) as usize;
                    let mut payload = vec![0; 20];
                    payload[12] = ((20 + options) as u8 / 4) << 4;
                    payload[13] = 2;
                    payload.extend((0..options).map(|_| below(r, 9) as u8));
                    // A header that is cut off, or too short for one.
                    match below(r, 12) {
                        0 => payload.truncate(20 + below(r, 4) as usize),
                        1 => payload[12] = (below(r, 16) as u8) << 4,
                        _ => {}
                    }
                    sides.send(i % 8, 64, 6, &payload);
                }
                Fair::Yes
            });
        }
    }
}

#[test]
fn bits_of_congestion_are_read_as_in_the_kernel() {
    if !is_inside("bits_of_congestion_are_read_as_in_the_kernel") {
        return;
    }
    let options = ["--ecn-tcp-ece", "! --ecn-tcp-ece", "--ecn-tcp-cwr", "! --ecn-tcp-cwr"];
    let mut rules: Vec<String> = options.iter().map(|one| format!("-p tcp -m ecn {one}")).collect();
    for not in ["", "! "] {
        rules.push(format!("-p tcp -m ecn {not}--ecn-tcp-ece --ecn-tcp-cwr"));
        rules.push(format!("-p tcp -m ecn {not}--ecn-tcp-cwr {not}--ecn-ip-ect 1"));
    }
    for (seed, family) in seeds().flat_map(|seed| FAMILIES.map(|family| (seed, family))) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        check(family, &rules, |sides| {
            for i in 0..200 {
                let mut payload = vec![0; 24];
                payload[12..14].copy_from_slice(&[0x50, (below(r, 4) as u8) << 6 | 2]);
                if below(r, 6) == 0 {
                    payload.truncate(12 + below(r, 10) as usize);
                }
                sides.send(i % 8, 64, 6, &payload);
            }
            Fair::Yes
        });
    }
}

#[test]
fn options_of_dccp_are_found_as_in_the_kernel() {
    if !is_inside("options_of_dccp_are_found_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        // Where `!` stands before a broken header the kernel counts the rule before it drops the packet.
        dccp_options(seed, &["", "! "], 0);
        dccp_options(seed, &[""], 30);
    }
}

fn dccp_options(seed: u64, nots: &[&str], percent_broken: u32) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let r = &mut random;
    let rule = |n: u32, not: &&str| format!("-p dccp -m dccp {not}--dccp-option {n}");
    let rules: Vec<String> = (1..9).flat_map(|n| nots.iter().map(move |not| rule(n, not))).collect();
    for family in FAMILIES {
        check(family, &rules, |sides| {
            for i in 0..400 {
                // All that a header needs before its options: types say how much of it that is.
                let options = 28 - 12 + 4 * below(r, 6) as usize;
                let mut payload = vec![0; 12];
                payload[4] = ((12 + options) / 4) as u8;
                payload[8] = below(r, 32) as u8;
                payload.extend((0..options).map(|_| below(r, 9) as u8));
                if below(r, 100) < percent_broken {
                    match below(r, 3) {
                        0 => payload.truncate(12 + below(r, 20) as usize),
                        1 => payload[4] = below(r, 256) as u8,
                        _ => payload[4] = below(r, 9) as u8,
                    }
                }
                sides.send(i % 8, 64, 33, &payload);
            }
            Fair::Yes
        });
    }
}

#[test]
fn mobility_headers_are_read_as_in_the_kernel() {
    if !is_inside("mobility_headers_are_read_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        let types = (0..6).flat_map(|n| [format!("--mh-type {n}"), format!("! --mh-type {n}:{}", n + 2)]);
        let rules: Vec<String> =
            types.chain([String::new()]).map(|types| format!("-p mh -m mh {types}")).collect();
        check(Family::V6, &rules, |sides| {
            for i in 0..300 {
                let mut payload = vec![59, below(r, 3) as u8, below(r, 9) as u8, 0, 0, 0, 0, 0];
                match below(r, 8) {
                    0 => payload.truncate(below(r, 8) as usize),
                    1 => payload[0] = 58 + below(r, 3) as u8,
                    _ => {}
                }
                sides.send(i % 8, 64, 135, &payload);
            }
            Fair::Yes
        });
    }
}

#[test]
fn options_of_ipv6_headers_are_found_as_in_the_kernel() {
    if !is_inside("options_of_ipv6_headers_are_found_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        let option = |r: &mut ChaCha8Rng| match below(r, 3) {
            0 => below(r, 6).to_string(),
            _ => format!("{}:{}", 1 + below(r, 5), [0, 1, 2, 3, 4, 255][below(r, 6) as usize]),
        };
        let mut rules = Vec::new();
        for name in ["hbh", "dst"] {
            for _ in 0..80 {
                let list: Vec<String> = (0..=below(r, 4)).map(|_| option(r)).collect();
                rules.push(format!("-m {name} --{name}-opts {}", list.join(",")));
            }
        }
        check(Family::V6, &rules, |sides| {
            for i in 0..400 {
                // Before any rule the kernel looks at the hop-by-hop header: of types 3 to 5 it knows one.
                let number = if below(r, 3) == 0 { 0 } else { 60 };
                let mut header = vec![59, 0];
                while header.len() < 14 {
                    let kind = if number == 0 { 3 + below(r, 2) as u8 } else { below(r, 6) as u8 };
                    let length = below(r, 5).min(14 - header.len() as u32) as u8;
                    header.push(kind);
                    if kind != 0 {
                        header.push(length);
                        header.resize(header.len() + usize::from(length), 0);
                    }
                }
                // What is left at the end: nothing, one option of one byte, or an option longer than the header.
                if header.len() == 15 {
                    header.push(0);
                }
                header.resize(header.len().next_multiple_of(8), 0);
                header[1] = (header.len() / 8 - 1) as u8;
                if number == 60 && below(r, 4) == 0 {
                    let at = 2 + below(r, header.len() as u32 - 2) as usize;
                    header[at] = below(r, 256) as u8;
                }
                sides.send(i % 8, 64, number, &header);
            }
            Fair::Yes
        });
    }
}

#[test]
fn addresses_of_routing_headers_are_found_as_in_the_kernel() {
    if !is_inside("addresses_of_routing_headers_are_found_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        let mut rules = vec!["-m rt --rt-type 0 --rt-0-res".to_owned()];
        for _ in 0..60 {
            let list: Vec<String> = (0..=below(r, 3)).map(|_| format!("::{}", 1 + below(r, 3))).collect();
            let (reserved, strict) = (pick(r, &["", "--rt-0-res"]), pick(r, &["", "--rt-0-not-strict"]));
            rules.push(format!("-m rt --rt-type 0 {reserved} --rt-0-addrs {} {strict}", list.join(",")));
        }
        check(Family::V6, &rules, |sides| {
            for i in 0..300 {
                let count = below(r, 5) as u8;
                let mut header = vec![59, 2 * count, (below(r, 5) == 0).into(), 0, 0, 0, 0, 0];
                for _ in 0..count {
                    header.extend(u128::from(1 + below(r, 3)).to_be_bytes());
                }
                if below(r, 4) == 0 {
                    header[4 + below(r, 4) as usize] = 1;
                }
                if below(r, 4) == 0 {
                    header[1] += 1;
                    header.extend([0; 8]);
                }
                sides.send(i % 8, 64, 43, &header);
            }
            Fair::Yes
        });
    }
}

#[test]
fn segments_are_found_as_in_the_kernel() {
    if !is_inside("segments_are_found_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let r = &mut random;
        let mut rules = vec!["-m srh".to_owned()];
        while rules.len() < 120 {
            let mut rule = "-m srh".to_owned();
            for _ in 0..=below(r, 2) {
                let not = pick(r, &["", "! "]);
                let name = pick(r, &["hdr-len", "segs-left", "last-entry", "sid", "sid", "next-hdr", "tag"]);
                let option = match name {
                    "sid" => {
                        let prefix = [128, 127, 0][below(r, 3) as usize];
                        format!("{}sid ::{}/{prefix}", pick(r, &["p", "n", "l"]), below(r, 4))
                    }
                    "next-hdr" => format!("next-hdr {}", 58 + below(r, 2)),
                    "tag" => format!("tag {}", [0, 1, 256][below(r, 3) as usize]),
                    _ => format!("{name}-{} {}", pick(r, &["eq", "gt", "lt"]), below(r, 8)),
                };
                // One number of a kind: the kernel has room for no more.
                let kind = if name == "sid" { option.split(' ').next().unwrap_or("") } else { name };
                if !rule.contains(kind) {
                    write!(rule, " {not}--srh-{option}").unwrap();
                }
            }
            rules.push(rule);
        }
        check(Family::V6, &rules, |sides| {
            for i in 0..400 {
                let count = below(r, 4) as u8;
                let (left, last) = (below(r, 4) as u8, (count + below(r, 2) as u8).saturating_sub(1));
                let kind = if below(r, 9) == 0 { 3 } else { 4 };
                let tag = [[0, 0], [0, 1], [1, 0]][below(r, 3) as usize];
                let mut header = vec![59, 2 * count, kind, left, last, 0, tag[0], tag[1]];
                for _ in 0..count {
                    header.extend(u128::from(below(r, 4)).to_be_bytes());
                }
                header.extend(vec![0; below(r, 3) as usize * 15]);
                sides.send(i % 8, 64, 43, &header);
            }
            Fair::Yes
        });
    }
}

#[test]
fn chunks_are_walked_as_in_the_kernel() {
    if !is_inside("chunks_are_walked_as_in_the_kernel") {
        return;
    }
    for seed in seeds() {
        // Where `!` stands before broken chunks the kernel counts the rule before it drops the packet.
        chunks(seed, &["", "! "], 0);
        chunks(seed, &[""], 30);
    }
}

fn chunks(seed: u64, nots: &[&str], percent_broken: u32) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let r = &mut random;
    let names = ["DATA", "INIT", "SACK", "ABORT", "DATA:Be", "DATA:i", "ABORT:T", "PAD", "FORWARD_TSN"];
    let mut rules = Vec::new();
    for _ in 0..60 {
        let (not, which) = (pick(r, nots), pick(r, &["all", "any", "only"]));
        let mut list: Vec<&str> = Vec::new();
        for _ in 0..=below(r, 3) {
            let name = pick(r, &names);
            let kind = |name: &str| name.split(':').next().map(str::to_owned);
            if !list.iter().any(|other| kind(other) == kind(name)) {
                list.push(name);
            }
        }
        let list = if below(r, 12) == 0 { pick(r, &["ALL", "NONE"]).to_owned() } else { list.join(",") };
        rules.push(format!("-p sctp -m sctp {not}--chunk-types {which} {list}"));
    }
    for family in FAMILIES {
        check(family, &rules, |sides| {
            for i in 0..300 {
                let mut payload = vec![0; 12];
                for _ in 0..=below(r, 3) {
                    let length = 4 + below(r, 9) as u16;
                    let kind = [0, 0, 1, 3, 6, 77, 132, 192][below(r, 8) as usize];
                    payload.extend([kind, below(r, 16) as u8]);
                    payload.extend(length.to_be_bytes());
                    payload.resize(payload.len() + usize::from(length).next_multiple_of(4) - 4, 9);
                }
                if below(r, 100) < percent_broken {
                    match below(r, 3) {
                        0 => payload.truncate(12 + below(r, 12) as usize),
                        1 => payload.extend([3, 0, 0, 0]),
                        _ => payload.extend([3, 0]),
                    }
                }
                sides.send(i % 8, 64, 132, &payload);
            }
            Fair::Yes
        });
    }
}
