//! Packets from the command line and from trace files.

use std::path::Path;

use hipac_classifier::Packet;
use hipac_host::Time;
use hipac_rules::Family;
use hipac_verifier::packet_text;

use crate::exit::Failure;
use crate::output::counted;
use crate::{file, input, pcap, replay};

/// A packet, and what is known of its coming.
#[derive(Debug, PartialEq)]
pub(crate) struct Arrived {
    pub(crate) packet: Packet,
    /// When it came.
    pub(crate) at: Option<Time>,
    /// Its bytes from the IP header on.
    pub(crate) wire: Option<Box<[u8]>>,
}

impl From<Packet> for Arrived {
    fn from(packet: Packet) -> Arrived {
        Arrived { packet, at: None, wire: None }
    }
}

/// Where packets are taken from: the first that is given.
pub(crate) struct Source<'a> {
    pub(crate) flags: Option<&'a str>,
    pub(crate) trace: Option<&'a Path>,
    pub(crate) pcap: Option<&'a Path>,
}

impl Source<'_> {
    pub(crate) fn read(&self, family: Family) -> Result<Vec<Arrived>, Failure> {
        match *self {
            Source { flags: Some(text), .. } => Ok(vec![of_flags(text, family)?.into()]),
            Source { trace: Some(path), .. } => of_trace(path, family),
            Source { pcap: Some(path), .. } => {
                let capture = pcap::read(path, family)?;
                if capture.left_out > 0 {
                    let left_out = counted(capture.left_out, "record");
                    let family = family.name();
                    input::diagnose(&format!("hipac: {left_out} hold no {family} packet: left out\n"));
                }
                Ok(capture.packets)
            }
            _ => Err(Failure::new("name a packet (--packet), a trace (--trace) or a capture (--pcap)")),
        }
    }
}

/// One packet in iptables' own flags.
pub(crate) fn of_flags(text: &str, family: Family) -> Result<Packet, Failure> {
    packet_text::parse(text, family).map_err(|e| Failure::at("--packet", e))
}

/// All packets of a trace: CSV with a header row, or ClassBench's columns of numbers.
pub(crate) fn of_trace(path: &Path, family: Family) -> Result<Vec<Arrived>, Failure> {
    let bytes = file::read(path)?;
    let name = file::name(path);
    let first = bytes.split(|&b| b == b'\n').next().unwrap_or(&[]);
    if !first.contains(&b',') && first.iter().all(|b| b.is_ascii_digit() || b.is_ascii_whitespace()) {
        if family == Family::V6 {
            return Err(Failure::at(&name, "a ClassBench trace is IPv4, the rules are IPv6"));
        }
        let packets = hipac_bench_data::classbench::read_packets(bytes.as_slice())
            .map_err(|e| Failure::at(&name, e))?;
        return Ok(packets.into_iter().map(|packet| Packet::from(packet).into()).collect());
    }
    of_csv(&bytes, &name, family)
}

fn of_csv(bytes: &[u8], name: &str, family: Family) -> Result<Vec<Arrived>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let flags: Vec<String> =
        reader.headers().map_err(|e| Failure::at(name, e))?.iter().map(flag_of_column).collect();
    let mut packets = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| Failure::at(name, e))?;
        let text = flags_of_record(&flags, &record);
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |problem: String| Failure::at(&format!("{name}:{line}"), problem);
        let packet = packet_text::parse(&text, family).map_err(|e| wrong(e.to_string()))?;
        let at = flags.iter().zip(record.iter()).find(|(flag, value)| *flag == AT && !value.is_empty());
        let at = at.map(|(_, value)| replay::time(value)).transpose().map_err(wrong)?;
        packets.push(Arrived { packet, at, wire: None });
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

/// The column that says when a packet came.
const AT: &str = "--at";

fn flags_of_record(flags: &[String], record: &csv::StringRecord) -> String {
    let mut text = String::new();
    for (flag, value) in
        flags.iter().zip(record.iter()).filter(|(flag, value)| !value.is_empty() && *flag != AT)
    {
        // Flags without a value: the cell says whether they are given.
        if matches!(flag.as_str(), "-f" | "--bridged" | "--socket" | "--ah-reserved") {
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
        let csv =
            b"src,dst,proto,sport,dport,in,f,at\n10.0.0.1,10.0.0.2,tcp,1024,22,eth0,,\n,,udp,,53,,1,1.5\n";
        let packets = of_csv(csv, "t.csv", Family::V4).unwrap();
        let by_flags = |text| Arrived::from(packet_text::parse(text, Family::V4).unwrap());
        assert_eq!(
            packets,
            [
                by_flags("-s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1024 --dport 22 -i eth0"),
                Arrived { at: Some(Time::from_nanos(1_500_000_000)), ..by_flags("-p udp --dport 53 -f") }
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
