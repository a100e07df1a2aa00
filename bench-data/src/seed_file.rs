//! Reader of ClassBench's parameter files ("seeds").
//!
//! A file is a list of sections, each a line `-name`, lines of numbers, and a line `#`:
//!
//! | section | line |
//! |---|---|
//! | `-scale` | filters in the set that the numbers were read off; not used |
//! | `-prots` | protocol, weight, and a weight for each of the 25 pairs of port classes |
//! | `-flags` | protocol, then `value/mask,weight` … |
//! | `-extra` | further fields; not used |
//! | `-spar` `-spem` `-dpar` `-dpem` | weight, `low:high`: source and destination, ranges and single ports |
//! | `-wc_wc` … `-em_em` | sum of both lengths`,`weight, then source length`,`weight … |
//! | `-snest` `-dnest` | prefixes within each other |
//! | `-sskew` `-dskew` | level, share of nodes with one child, with two, skew |
//! | `-pcorr` | level, share of destinations that go on with their source |
//!
//! Protocol 0 stands for all. Sections may come in any order; a missing one has no weights.

use std::io::BufRead;

use crate::filter::{Flags, PortRange};
use crate::parameters::{
    Correlation, Incomplete, Lengths, Level, Parameters, PortPair, PortTable, ProtocolShape, TreeShape,
};
use crate::random::{Share, Weighted};
use crate::text::{Cursor, Fault, Lines, ReadError};

/// Why a parameter file is of no use.
#[derive(Debug)]
pub enum SeedError {
    /// It could not be read.
    Read(ReadError),
    /// It was read, but leaves a gap.
    Incomplete(Incomplete),
}

impl std::fmt::Display for SeedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SeedError::Read(error) => error.fmt(f),
            SeedError::Incomplete(gap) => write!(f, "the file leaves a gap: {gap}"),
        }
    }
}

impl std::error::Error for SeedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SeedError::Read(error) => Some(error),
            SeedError::Incomplete(gap) => Some(gap),
        }
    }
}

/// Lines of one file at most: a thousand times what the known files have would still fit.
const SEED_LINES_MAX: u32 = 1 << 18;

/// The parameters that a file gives.
///
/// # Errors
///
/// A line that is not of the format, or a gap that drawing would fall into.
pub fn read_seed_file(reader: impl BufRead) -> Result<Parameters, SeedError> {
    let raw = Raw::read(reader).map_err(SeedError::Read)?;
    let parameters = raw.into_parameters();
    parameters.validate().map_err(SeedError::Incomplete)?;
    Ok(parameters)
}

/// A section of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Ignored,
    Protocols,
    Flags,
    SourceRanges,
    SourceExact,
    DestinationRanges,
    DestinationExact,
    Lengths(usize),
    SourceNesting,
    DestinationNesting,
    SourceTree,
    DestinationTree,
    Correlation,
}

impl Section {
    fn of_name(name: &[u8]) -> Option<Section> {
        Some(match name {
            b"-scale" | b"-extra" => Section::Ignored,
            b"-prots" => Section::Protocols,
            b"-flags" => Section::Flags,
            b"-spar" => Section::SourceRanges,
            b"-spem" => Section::SourceExact,
            b"-dpar" => Section::DestinationRanges,
            b"-dpem" => Section::DestinationExact,
            b"-snest" => Section::SourceNesting,
            b"-dnest" => Section::DestinationNesting,
            b"-sskew" => Section::SourceTree,
            b"-dskew" => Section::DestinationTree,
            b"-pcorr" => Section::Correlation,
            [b'-', pair @ ..] => {
                let index = PortPair::ALL.iter().position(|p| p.to_string().as_bytes() == pair)?;
                Section::Lengths(index)
            }
            _ => return None,
        })
    }
}

/// A protocol, its weight, and those of its pairs of port classes.
type ProtocolLine = (u8, Share, Vec<(PortPair, Share)>);

/// The file's numbers, line by line.
#[derive(Default)]
struct Raw {
    protocols: Vec<ProtocolLine>,
    flags: Vec<(u8, Vec<(Flags, Share)>)>,
    source_ranges: Vec<(PortRange, Share)>,
    source_exact: Vec<(PortRange, Share)>,
    destination_ranges: Vec<(PortRange, Share)>,
    destination_exact: Vec<(PortRange, Share)>,
    lengths: [Vec<(Lengths, Share)>; PortPair::COUNT],
    source: TreeShape,
    destination: TreeShape,
    correlation: Correlation,
}

impl Raw {
    fn read(reader: impl BufRead) -> Result<Raw, ReadError> {
        let mut raw = Raw::default();
        let mut lines = Lines::new(reader);
        let mut section = Section::Ignored;
        while lines.advance()? {
            if lines.number() > SEED_LINES_MAX {
                return Err(lines.malformed(0, Fault::TooManyLines));
            }
            match lines.line().trim_ascii() {
                [] | [b'#', ..] => {}
                name @ [b'-', ..] => {
                    section = Section::of_name(name).ok_or_else(|| {
                        lines.malformed(0, Fault::Wanted("a section's name, like -prots or -wc_em"))
                    })?;
                }
                _ if section == Section::Ignored => {}
                _ => lines.parse(|line| raw.take_line(section, line))?,
            }
        }
        Ok(raw)
    }

    fn take_line(&mut self, section: Section, line: &mut Cursor<'_>) -> Result<(), Fault> {
        line.skip_blanks();
        match section {
            Section::Ignored => {}
            Section::Protocols => self.protocols.push(protocol_line(line)?),
            Section::Flags => self.flags.push(flags_line(line)?),
            Section::SourceRanges => self.source_ranges.push(ports_line(line)?),
            Section::SourceExact => self.source_exact.push(ports_line(line)?),
            Section::DestinationRanges => self.destination_ranges.push(ports_line(line)?),
            Section::DestinationExact => self.destination_exact.push(ports_line(line)?),
            Section::Lengths(index) => lengths_line(line, &mut self.lengths[index])?,
            Section::SourceNesting => self.source.nesting = line.byte("a number of prefixes")?,
            Section::DestinationNesting => self.destination.nesting = line.byte("a number of prefixes")?,
            Section::SourceTree => level_line(line, &mut self.source)?,
            Section::DestinationTree => level_line(line, &mut self.destination)?,
            Section::Correlation => {
                let level = level_number(line)?;
                line.next_field()?;
                self.correlation.0[level] = line.share()?;
            }
        }
        Ok(())
    }

    fn into_parameters(self) -> Parameters {
        let flags = self.flags;
        let shapes = self.protocols.into_iter().map(|(number, share, ports)| {
            let own = flags.iter().filter(|(of, _)| *of == number).flat_map(|(_, list)| list);
            let shape = ProtocolShape {
                protocol: (number != 0).then_some(number),
                ports: weighted(ports),
                flags: weighted(own.copied()),
            };
            (shape, share)
        });
        Parameters {
            protocols: weighted(shapes),
            source_ports: PortTable {
                ranges: weighted(self.source_ranges),
                exact: weighted(self.source_exact),
            },
            destination_ports: PortTable {
                ranges: weighted(self.destination_ranges),
                exact: weighted(self.destination_exact),
            },
            lengths: self.lengths.map(weighted),
            source: self.source,
            destination: self.destination,
            correlation: self.correlation,
        }
    }
}

fn weighted<T>(values: impl IntoIterator<Item = (T, Share)>) -> Weighted<T> {
    Weighted::new(values.into_iter().map(|(value, share)| (value, share.billionths())))
}

fn protocol_line(line: &mut Cursor<'_>) -> Result<ProtocolLine, Fault> {
    let number = line.byte("a protocol")?;
    line.next_field()?;
    let share = line.share()?;
    let mut pairs = Vec::with_capacity(PortPair::COUNT);
    for pair in PortPair::ALL {
        line.next_field()?;
        pairs.push((pair, line.share()?));
    }
    Ok((number, share, pairs))
}

fn flags_line(line: &mut Cursor<'_>) -> Result<(u8, Vec<(Flags, Share)>), Fault> {
    let number = line.byte("a protocol")?;
    let mut list = Vec::new();
    while line.has_more_fields() {
        let flags = line.flags()?;
        line.expect(b',', "a comma and a share")?;
        list.push((flags, line.share()?));
    }
    Ok((number, list))
}

fn ports_line(line: &mut Cursor<'_>) -> Result<(PortRange, Share), Fault> {
    let share = line.share()?;
    line.next_field()?;
    Ok((line.port_range()?, share))
}

fn lengths_line(line: &mut Cursor<'_>, list: &mut Vec<(Lengths, Share)>) -> Result<(), Fault> {
    let total = line.decimal("the sum of two prefix lengths", 64)? as u8;
    line.expect(b',', "a comma and a share")?;
    let share_of_total = line.share()?;
    while line.has_more_fields() {
        let start = line.at;
        let source = line.decimal("a prefix length", 32)? as u8;
        // Checked here and not at the end: the place is known here.
        let Some(destination @ 0..=32) = total.checked_sub(source) else {
            line.at = start;
            return Err(Fault::Wanted("a source length that leaves 0 to 32 to the destination"));
        };
        line.expect(b',', "a comma and a share")?;
        list.push((Lengths { source, destination }, line.share()?.of(share_of_total)));
    }
    Ok(())
}

fn level_number(line: &mut Cursor<'_>) -> Result<usize, Fault> {
    Ok(line.decimal("a level", 32)? as usize)
}

fn level_line(line: &mut Cursor<'_>, tree: &mut TreeShape) -> Result<(), Fault> {
    let level = level_number(line)?;
    line.next_field()?;
    let _one_child = line.share()?;
    line.next_field()?;
    let two_children = line.share()?;
    line.next_field()?;
    tree.levels[level] = Level { two_children, skew: line.share()? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::PortClass;

    /// A file of TCP to port 80, with only as many shares as are not 0.
    fn sample() -> String {
        let mut columns = ["0.0"; PortPair::COUNT];
        columns[13] = "1.00000000";
        format!(
            "-scale\n7\n#\n-prots\n6\t1.00000000\t{}\t\n#\n-flags\n6\t0x0200/0x1200,0.5\t0x0000/0x0000,0.5\n#\n\
             -dpem\n1.0\t80:80\n#\n-wc_em\n40,0.25\t8,1.0\n64,0.75\t32,1.00000000\n#\n-snest\n4\n#\n\
             -sskew\n0\t0.25\t0.75\t0.5\n#\n-pcorr\n1\t0.125\n#\n",
            columns.join("\t")
        )
    }

    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let text = sample();
        assert!(text.contains(from));
        let found = match read_seed_file(text.replacen(from, to, 1).as_bytes()) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_is_read_into_weights() {
        let parameters = read_seed_file(sample().as_bytes()).unwrap();
        let protocol = &parameters.protocols.values()[0];
        assert_eq!(protocol.protocol, Some(6));
        let pair = PortPair { source: PortClass::Any, destination: PortClass::Exact };
        assert_eq!(protocol.ports.values(), [pair]);
        assert_eq!(protocol.flags.values()[0], Flags { value: 0x0200, mask: 0x1200 });
        assert_eq!(
            parameters.lengths[pair.index()].values(),
            [Lengths { source: 8, destination: 32 }, Lengths { source: 32, destination: 32 }]
        );
        assert_eq!(parameters.source.nesting, 4);
        let root = Level { two_children: Share::percent(75), skew: Share::percent(50) };
        assert_eq!(parameters.source.levels[0], root);
        assert_eq!(parameters.correlation.0[1], Share::from_billionths(125_000_000).unwrap());
    }

    #[test]
    fn a_bad_line_says_where_and_what() {
        check("-scale", "-scales", "line 1, column 1: wanted a section's name, like -prots or -wc_em");
        check("6\t1.0", "256\t1.0", "line 5, column 1: a protocol is over 255");
        check("6\t1.0", "6\t1.5", "line 5, column 3: a share is over 1");
        check("80:80", "80", "line 11, column 7: wanted a colon and the last port");
        check("40,0.25", "65,0.25", "line 14, column 1: the sum of two prefix lengths is over 64");
        check(
            "64,0.75\t32",
            "64,0.75\t31",
            "line 15, column 9: wanted a source length that leaves 0 to 32 to the destination",
        );
        check("0\t0.25\t0.75", "33\t0.25\t0.75", "line 21, column 1: a level is over 32");
    }

    #[test]
    fn a_gap_is_named() {
        check("80:80", "80:80\n", "ok");
        check(
            "1.0\t80:80\n",
            "",
            "the file leaves a gap: destination ports of class em have a weight, but none is given",
        );
        check(
            "40,0.25\t8,1.0\n64,0.75\t32,1.00000000\n",
            "",
            "the file leaves a gap: wc_em has a weight, but no prefix lengths",
        );
        check("6\t1.00000000", "6\t0", "the file leaves a gap: no protocol has a weight");
        check("0.0\t1.00000000", "0.0\t0", "the file leaves a gap: protocol 6 has no classes of ports");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..400_usize, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut text = sample().into_bytes();
            let at = at.min(text.len());
            text.splice(at..at, bytes);
            let _ = read_seed_file(&text[..]);
        }
    }
}
