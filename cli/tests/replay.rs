//! Replays over captures: bytes and times are those of the records.

mod common;

use common::hipac;

/// A UDP packet from 10.0.0.1:1024 to 10.0.0.2:53.
fn udp(payload: &[u8]) -> Vec<u8> {
    let total = (28 + payload.len()) as u8;
    let mut bytes = vec![0x45, 0, 0, total, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes.extend([4, 0, 0, 53, 0, total - 20, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// Raw IP packets, each at so many microseconds after 1970-01-01.
fn capture(records: &[(u64, &[u8])]) -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
    bytes.extend([0; 16]);
    bytes.extend(101u32.to_le_bytes());
    for &(micros, payload) in records {
        let packet = udp(payload);
        for word in [micros / 1_000_000, micros % 1_000_000, packet.len() as u64, packet.len() as u64] {
            bytes.extend((word as u32).to_le_bytes());
        }
        bytes.extend(packet);
    }
    bytes
}

#[track_caller]
fn check(rules: &str, records: &[(u64, &[u8])], options: &[&str], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("rules"), format!("*filter\n:INPUT DROP [0:0]\n{rules}\nCOMMIT\n")).unwrap();
    std::fs::write(path("pcap"), capture(records)).unwrap();
    let (rules, pcap) = (path("rules"), path("pcap"));
    let arguments = ["classify", &rules, "--chain", "INPUT", "--pcap", &pcap];
    let found = hipac(&[&arguments[..], options].concat()).exits(0).stdout;
    assert_eq!(found, expected);
}

#[test]
fn texts_are_looked_for_in_the_bytes_of_a_capture() {
    let rules = "-A INPUT -m string --algo bm --string evil -j DROP\n-A INPUT -j ACCEPT";
    let records: [(u64, &[u8]); 2] = [(0, b"good"), (0, b"..evil")];
    let known = "ACCEPT by filter/INPUT rule 2 (line 4)\nDROP by filter/INPUT rule 1 (line 3)\n";
    check(rules, &records, &["--clock"], known);
    // As ever without a clock.
    let asked = "DROP by filter/INPUT rule 1 (line 3)\n  if string of filter/INPUT rule 1 (line 3) holds\n  \
                 otherwise ACCEPT by filter/INPUT rule 2 (line 4)\n";
    check(rules, &records, &[], &asked.repeat(2));
}

#[test]
fn times_are_those_of_the_records_or_the_one_given() {
    let rules = "-A INPUT -m limit --limit 10/second --limit-burst 1 -j ACCEPT";
    let records: [(u64, &[u8]); 4] = [(5_000_000, b""), (5_099_999, b""), (5_100_000, b""), (5_199_999, b"")];
    let (accept, drop) = ("ACCEPT by filter/INPUT rule 1 (line 3)\n", "DROP by the policy of filter/INPUT\n");
    check(rules, &records, &["--clock"], &[accept, drop, accept, drop].concat());
    check(rules, &records, &["--at", "2026-01-01"], &[accept, drop, drop, drop].concat());
}

#[test]
fn a_full_table_drops_at_once() {
    let limit = "-m hashlimit --hashlimit-upto 1/hour --hashlimit-mode srcip,srcport --hashlimit-name h";
    let rules = format!(
        "-A INPUT {limit} --hashlimit-htable-size 1 --hashlimit-htable-max 1 -j ACCEPT\n-A INPUT -j ACCEPT"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("rules"), format!("*filter\n{rules}\nCOMMIT\n")).unwrap();
    std::fs::write(path("csv"), "at,src,proto,sport\n0,10.0.0.1,udp,1\n0,10.0.0.1,udp,2\n").unwrap();
    let (rules, csv) = (path("rules"), path("csv"));
    let found = hipac(&["classify", &rules, "--chain", "INPUT", "--trace", &csv, "--clock"]).exits(0).stdout;
    let expected =
        "ACCEPT by filter/INPUT rule 1 (line 2)\nDROP at once by hashlimit of filter/INPUT rule 1 (line 2)\n";
    assert_eq!(found, expected);
}

#[test]
fn what_is_kept_since_an_assumption_says_so() {
    let rules = "-A INPUT -m policy --dir in --pol none -m limit --limit 1/hour --limit-burst 1 -j ACCEPT";
    let records: [(u64, &[u8]); 2] = [(0, b""), (1, b"")];
    let expected = "\
ACCEPT by filter/INPUT rule 1 (line 3)
  if policy of filter/INPUT rule 1 (line 3) holds
  otherwise DROP by the policy of filter/INPUT
DROP by the policy of filter/INPUT
  given what was assumed of packet 1 and those after it
";
    check(rules, &records, &["--clock"], expected);
}

#[test]
fn other_ends_are_those_of_the_state_before_the_packet() {
    let rules = "-A INPUT -m string --algo bm --string ask -m policy --dir in --pol none -j DROP\n\
                 -A INPUT -m limit --limit 1/hour --limit-burst 2 -j ACCEPT";
    let records: [(u64, &[u8]); 4] = [(0, b"a"), (1, b"ask"), (2, b"b"), (3, b"ask")];
    let expected = "\
ACCEPT by filter/INPUT rule 2 (line 4)
DROP by filter/INPUT rule 1 (line 3)
  if policy of filter/INPUT rule 1 (line 3) holds
  otherwise ACCEPT by filter/INPUT rule 2 (line 4)
ACCEPT by filter/INPUT rule 2 (line 4)
  given what was assumed of packet 2 and those after it
DROP by filter/INPUT rule 1 (line 3)
  if policy of filter/INPUT rule 1 (line 3) holds
  otherwise DROP by the policy of filter/INPUT
";
    check(rules, &records, &["--clock"], expected);
}
