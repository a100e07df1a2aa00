//! Packets from the command line and from trace files.

use std::path::Path;

use hipac_classifier::Packet;
use hipac_rules::Family;
use hipac_verifier::packet_text;

use crate::exit::Failure;
use crate::file;

/// One packet in iptables' own flags.
pub(crate) fn of_flags(text: &str, family: Family) -> Result<Packet, Failure> {
    packet_text::parse(text, family).map_err(|e| Failure::at("--packet", e))
}

/// All packets of a trace: CSV with a header row, or ClassBench's columns of numbers.
pub(crate) fn of_trace(path: &Path, family: Family) -> Result<Vec<Packet>, Failure> {
    let bytes = file::read(path)?;
    let name = file::name(path);
    let first = bytes.split(|&b| b == b'\n').next().unwrap_or(&[]);
    if !first.contains(&b',') && first.iter().all(|b| b.is_ascii_digit() || b.is_ascii_whitespace()) {
        if family == Family::V6 {
            return Err(Failure::at(&name, "a ClassBench trace is IPv4, the rules are IPv6"));
        }
        let packets = hipac_bench_data::classbench::read_packets(bytes.as_slice())
            .map_err(|e| Failure::at(&name, e))?;
        return Ok(packets.into_iter().map(Packet::from).collect());
    }
    of_csv(&bytes, &name, family)
}

fn of_csv(bytes: &[u8], name: &str, family: Family) -> Result<Vec<Packet>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let flags: Vec<String> =
        reader.headers().map_err(|e| Failure::at(name, e))?.iter().map(flag_of_column).collect();
    let mut packets = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| Failure::at(name, e))?;
        let text = flags_of_record(&flags, &record);
        let line = record.position().map_or(0, csv::Position::line);
        let packet = packet_text::parse(&text, family);
        packets.push(packet.map_err(|e| Failure::at(&format!("{name}:{line}"), e))?);
    }
    Ok(packets)
}

/// The flag that a column names: `src` and `--src` are the same.
fn flag_of_column(column: &str) -> String {
    let bare = column.trim_start_matches('-');
    match bare {
        "i" | "in" | "in_interface" | "in-interface" => "-i".to_owned(),
        "o" | "out" | "out_interface" | "out-interface" => "-o".to_owned(),
        "s" | "src" | "source" => "-s".to_owned(),
        "d" | "dst" | "destination" => "-d".to_owned(),
        "p" | "proto" | "protocol" => "-p".to_owned(),
        "f" | "fragment" => "-f".to_owned(),
        other => format!("--{}", other.replace('_', "-")),
    }
}

fn flags_of_record(flags: &[String], record: &csv::StringRecord) -> String {
    let mut text = String::new();
    for (flag, value) in flags.iter().zip(record.iter()).filter(|(_, value)| !value.is_empty()) {
        // Flags without a value: the cell says whether they are given.
        if matches!(flag.as_str(), "-f" | "--bridged" | "--socket") {
            if !matches!(value, "0" | "no" | "false") {
                text.push_str(flag);
                text.push(' ');
            }
            continue;
        }
        text.push_str(flag);
        text.push(' ');
        if value.contains(|c: char| c.is_whitespace()) {
            text.push('"');
            text.push_str(value);
            text.push('"');
        } else {
            text.push_str(value);
        }
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_names_its_fields() {
        let csv = b"src,dst,proto,sport,dport,in,f\n10.0.0.1,10.0.0.2,tcp,1024,22,eth0,\n,,udp,,53,,1\n";
        let packets = of_csv(csv, "t.csv", Family::V4).unwrap();
        let by_flags = |text| packet_text::parse(text, Family::V4).unwrap();
        assert_eq!(
            packets,
            [
                by_flags("-s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1024 --dport 22 -i eth0"),
                by_flags("-p udp --dport 53 -f")
            ]
        );
    }

    #[test]
    fn a_wrong_cell_is_named_with_its_line() {
        let Err(Failure::Message(message)) =
            of_csv(b"src,dport\n1.2.3.4,1\n1.2.3.4,70000\n", "t.csv", Family::V4)
        else {
            panic!("70000 is no port");
        };
        assert!(message.starts_with("t.csv:3: "), "{message}");
    }
}
