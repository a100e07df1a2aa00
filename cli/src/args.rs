//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args as Group, Parser, Subcommand, ValueEnum};
use hipac_host::{Hz, Time};

pub(crate) mod answers;
pub(crate) mod update;

/// Compiles iptables rulesets into one search structure, classifies packets with it, and shows
/// that it means what the rules say. Needs no kernel and no root.
#[derive(Debug, Parser)]
#[command(name = "hipac", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How results are printed: for people, or as JSON objects that name their schema.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done, nothing found
  1  done, and faults or mismatches were found
  2  not done: unreadable input, wrong use, no room
  130  interrupted
Results go to standard output, diagnostics and progress to standard error.

Start with `hipac demo`, which needs no input.";

// Comments on the values below are no doc comments: clap would print each as a paragraph, and the
// option says all of it in a line.

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // For people.
    Text,
    // One object, or one object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Report every fault of a ruleset with its place, and what the ruleset holds.
    Check {
        #[command(flatten)]
        rules: RulesFile,
    },
    /// Print the canonical form, as iptables-save would after a restore.
    Fmt {
        #[command(flatten)]
        rules: RulesFile,
        /// Print packet and byte counters, like `iptables-save -c`.
        #[arg(short, long)]
        counters: bool,
        /// Print what could be read even when the ruleset has errors.
        #[arg(long)]
        keep_going: bool,
    },
    /// Compile a ruleset into an image, and say what it costs.
    Compile {
        #[command(flatten)]
        rules: RulesFile,
        /// Where the image goes. It is replaced in one step: never half an image.
        #[arg(short, long, value_name = "IMAGE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        build: Build,
        /// Compile what could be read even when the ruleset has errors.
        #[arg(long)]
        keep_going: bool,
    },
    /// Carry out iptables commands on a ruleset and its image: all of them or none, and each file
    /// is the old one or the new one at every instant.
    #[command(after_help = update::UPDATE_HELP)]
    Update {
        #[command(flatten)]
        options: update::UpdateOptions,
    },
    /// Say what happens to packets: the verdict and the rule that gives it.
    #[command(
        after_help = CLASSIFY_HELP,
        mut_arg("file", |file| file.help("A ruleset or an image; `-` reads standard input")),
        group = ArgGroup::new("packets").required(true).args(["packet", "trace", "pcap"]),
    )]
    Classify {
        #[command(flatten)]
        rules: RulesFile,
        /// One packet, in iptables' own flags.
        #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
        packet: Option<String>,
        /// Many packets: a CSV file whose first row names fields, or a ClassBench trace.
        #[arg(long, value_name = "TRACE")]
        trace: Option<PathBuf>,
        /// Many packets: a capture of tcpdump's classic format.
        #[arg(long, value_name = "FILE")]
        pcap: Option<PathBuf>,
        /// The table that the packets meet.
        #[arg(long, default_value = "filter")]
        table: String,
        /// The built-in chain that they meet [default: FORWARD; PREROUTING in nat and raw].
        #[arg(long)]
        chain: Option<String>,
        /// What residual matches, which no field decides (limit, recent, …), are taken to do.
        #[arg(long, value_enum, default_value_t = Assume::Hold)]
        assume: Assume,
        #[command(flatten)]
        replay: Replay,
    },
    /// Prove that an image does what its rules say, for every packet: rules matched, residual
    /// matches evaluated, effects, verdict. Or show a packet for which it does not.
    Verify {
        #[command(flatten)]
        rules: RulesFile,
        /// The image [default: FILE is compiled in memory].
        image: Option<PathBuf>,
        /// Compare with a linear walk of the rules on so many packets, and do not prove. They are
        /// drawn on and beside the bounds of rules, inside them, at random.
        #[arg(long)]
        packets: Option<u64>,
        /// Ask the kernel: load the rules in a network namespace, send packets through them, and
        /// compare which rules match [default: 10000 packets]. Wants root, or `unshare -Urn`.
        #[arg(long, conflicts_with = "image")]
        kernel: bool,
        /// What they are drawn from: same seed, same packets.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write the proof down, step by step, for whoever wants to check it: see --check-certificate.
        #[arg(long, value_name = "CERT", conflicts_with_all = ["packets", "kernel"])]
        certificate: Option<PathBuf>,
        /// Do not prove: follow the steps of this certificate by a second, small checker that shares
        /// nothing with the proof and searches for nothing.
        #[arg(long, value_name = "CERT", conflicts_with_all = ["packets", "kernel", "certificate"], requires = "image")]
        check_certificate: Option<PathBuf>,
        #[command(flatten)]
        build: Build,
    },
    /// Show the way of packets through tables and chains: each rule tried, which test failed and on
    /// what value, effects, the verdict.
    #[command(after_help = answers::TRACE_HELP)]
    Trace {
        #[command(flatten)]
        rules: RulesFile,
        #[command(flatten)]
        trace: answers::TraceOptions,
    },
    /// Show the packets that two rulesets treat differently, exactly, or prove that there are none.
    #[command(after_help = answers::DIFF_HELP)]
    Diff {
        #[command(flatten)]
        options: answers::DiffOptions,
    },
    /// Find rules that do nothing: dead, redundant, contradictory ones, chains that nothing leads to.
    /// Exact, for every packet.
    #[command(after_help = answers::LINT_HELP)]
    Lint {
        #[command(flatten)]
        rules: RulesFile,
        #[command(flatten)]
        options: answers::LintOptions,
    },
    /// Say exactly which packets end so: as boxes, or as who reaches whom on what.
    #[command(after_help = answers::QUERY_HELP)]
    Query {
        #[command(flatten)]
        rules: RulesFile,
        #[command(flatten)]
        options: answers::QueryOptions,
    },
    /// Prove or refute statements about packets: what must and what must never be let through.
    #[command(after_help = answers::TEST_HELP)]
    Test {
        #[command(flatten)]
        rules: RulesFile,
        /// The statements, in TOML.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,
        /// Print JUnit XML.
        #[arg(long)]
        junit: bool,
    },
    /// Measure what lookups and builds cost, on traffic drawn from the rules or on a trace.
    #[command(after_help = BENCH_HELP)]
    Bench {
        /// A ruleset or an image; `-` is standard input.
        #[command(flatten)]
        rules: RulesFile,
        #[command(flatten)]
        place: Place,
        /// Measure with these packets: a CSV file whose first row names fields, or a ClassBench
        /// trace. Keys equal to the one before are left out.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["packets", "seed", "traffic"])]
        trace: Option<PathBuf>,
        #[command(flatten)]
        drawn: Drawn,
        /// Packets to draw.
        #[arg(long, default_value_t = 1_000_000, value_parser = packets_range())]
        packets: u32,
        /// Also measure so many threads that share the image.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: Option<u16>,
        /// Also measure so many changes of the rules, one a transaction, while others read.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
        updates: Option<u32>,
        /// Threads that look up while rules change.
        #[arg(long, value_name = "N", default_value_t = 1, requires = "updates",
              value_parser = clap::value_parser!(u16).range(1..=1024))]
        readers: u16,
        #[command(flatten)]
        build: Build,
    },
    /// Show what a memory budget buys: builds from the smallest that fits to the fastest, with
    /// what each costs, and the rules that cost most.
    Plan {
        #[command(flatten)]
        rules: RulesFile,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        drawn: Drawn,
        /// Packets to draw.
        #[arg(long, default_value_t = 200_000, value_parser = packets_range())]
        packets: u32,
        /// Budgets tried between the smallest and the largest that matter, both included.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(2..=100))]
        points: u8,
        /// Draw the curve of memory and throughput as SVG.
        #[arg(short, long, value_name = "SVG")]
        output: Option<PathBuf>,
        /// Which rules an image reports when they match.
        #[arg(long, value_enum, default_value_t = Counting::Exact)]
        counting: Counting,
    },
    /// Print rules made to measure with: filter sets like those of networks, sets made to hurt,
    /// or a gateway's chains.
    #[command(after_help = GENERATE_HELP)]
    Generate {
        /// What kind of rules.
        #[arg(value_enum)]
        kind: Made,
        /// How many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rules: u32,
        /// What they are drawn from: same seed, same rules.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// For IPv6.
        #[arg(short = '6', long, conflicts_with = "filters")]
        ipv6: bool,
        /// As ClassBench filters, not as iptables rules.
        #[arg(long)]
        filters: bool,
    },
    /// Show which matches there are, which options they have, and which values those take.
    Matches {
        #[command(flatten)]
        of: Named,
    },
    /// Show which targets there are, which options they have, and which values those take.
    Targets {
        #[command(flatten)]
        of: Named,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Show all of it on 100,000 generated rules: compile, verify, classify.
    Demo {
        /// What the rules are drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many rules.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rules: u32,
    },
}

/// A match or target, and what is asked about it.
#[derive(Debug, Group)]
pub(crate) struct Named {
    /// This one [default: all].
    pub(crate) name: Option<String>,
    /// This option of it, as in --ctstate.
    #[arg(allow_hyphen_values = true)]
    pub(crate) option: Option<String>,
    /// Those for IPv4 only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Those for IPv6 only.
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
}

const GENERATE_HELP: &str = "\
Example:
  hipac generate firewall --rules 100000 --filters > firewall.rules
  hipac bench --input-format classbench firewall.rules

Rules of a filter set test ports with `-m ports`, a match of hipac's own that looks at two numbers
of 16 bits whatever the protocol, as filters in the literature do.";

/// What `hipac generate` can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Made {
    /// Access lists at a provider's edge: narrow sources and destinations, many ports
    Access,
    /// Access lists of a provider's core: pairs of networks
    Transit,
    /// A company's firewall: wide sources, ranges of ports
    Firewall,
    /// A firewall between sites: wide on either side
    Perimeter,
    /// A long chain of rules in which addresses, ports and protocols all matter
    Chain,
    /// Pairs of hosts, hardly a port
    Links,
    /// To hurt: wide boxes overlapping at random in all fields
    Boxes,
    /// To hurt: narrow in the source or in the destination, and any elsewhere
    Cross,
    /// To hurt: each has ports of its own, and no address
    Ports,
    /// To hurt: prefixes, each within the next
    Nested,
    /// To hurt: nothing differs but the source
    OnlySource,
    /// To hurt: nothing differs but the destination
    OnlyDestination,
    /// To hurt: nothing differs but the source ports
    OnlySourcePorts,
    /// To hurt: nothing differs but the destination ports
    OnlyDestinationPorts,
    /// All tables of a gateway: user chains, jumps, matches of many kinds
    Gateway,
}

const CLASSIFY_HELP: &str = "\
Example:
  hipac classify rules.v4 --table filter --chain FORWARD \\
    --packet \"-i eth0 -p tcp -s 10.1.2.3 -d 192.0.2.7 --dport 22 --ctstate NEW\"

Fields that are not named have these defaults: zero addresses, protocol 0, ports 0, no \
interfaces, ctstate NEW, no mark, ttl 64, length 40.

A CSV trace names its fields in the first row: in, out, src, dst, proto, sport, dport, icmp-type, \
tcp-flags, ctstate, mark, connmark, ttl, tos, length, mac, pkt-type, src-type, dst-type, \
physdev-in, physdev-out, bridged, l4, f, and at, when the packet comes. An empty cell leaves the default.

Where the answer hangs on a residual match, the other ends are shown too. With --clock or --at they are \
evaluated instead, over the packets from the first to the last; what cannot be known (a socket's owner, the \
bytes of a packet given by its fields, …) is still shown with its other ends.";

const BENCH_HELP: &str = "\
Times are processor time, of builds on all threads, of lookups on one: medians of several passes, with the lowest and \
the highest. Only p50, p99 and p99.9 come from the wall's clock, whose own cost is taken off and \
stated. Every answer is compared between one-at-a-time, batched and counted lookups, and a sample \
with a walk of the rules, one by one.";

/// Packets that can be drawn: their keys take up to 2 GiB.
fn packets_range() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=16_777_216)
}

/// Where packets enter.
#[derive(Debug, Group)]
pub(crate) struct Place {
    /// The table.
    #[arg(long, default_value = "filter")]
    pub(crate) table: String,
    /// The built-in chain [default: the one that reaches most rules].
    #[arg(long)]
    pub(crate) chain: Option<String>,
}

/// How packets are drawn.
#[derive(Debug, Group)]
pub(crate) struct Drawn {
    /// What packets are like.
    #[arg(long, value_enum, default_value_t = Traffic::Corners)]
    pub(crate) traffic: Traffic,
    /// What they are drawn from: same seed, same packets.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The instructions that lookups use.
    #[arg(long, value_enum, default_value_t = MachineName::Best)]
    pub(crate) machine: MachineName,
}

/// What drawn packets are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    /// Each field at a bound of a rule, all rules alike.
    Corners,
    /// Points inside of rules, a few rules most of the time (Zipf's law).
    Inside,
    /// Anything.
    Random,
}

/// A set of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineName {
    /// Plain code.
    Scalar,
    /// AVX2.
    Avx2,
    /// AVX-512.
    Avx512,
    /// NEON, of AArch64.
    Neon,
    /// The best that this processor has.
    Best,
}

/// A ruleset in a file.
#[derive(Debug, Group)]
pub(crate) struct RulesFile {
    /// A ruleset; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The rules are for IPv4 [default: what the text shows].
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// The rules are for IPv6.
    #[arg(short = '6', long = "ipv6")]
    pub(crate) ipv6: bool,
    /// The language of FILE: iptables-save's, or ClassBench filters (chain FORWARD, one ACCEPT
    /// rule a line, policy DROP).
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value_t = InputFormat::Iptables)]
    pub(crate) input_format: InputFormat,
    #[command(flatten)]
    pub(crate) outside: Outside,
}

/// What rules name and do not say.
#[derive(Debug, Clone, Default, Group)]
pub(crate) struct Outside {
    /// The IP sets that rules name, as `ipset save` prints them. May be given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) ipset: Vec<PathBuf>,
    /// Addresses of hosts that rules name, in the form of /etc/hosts. Without it names are refused.
    #[arg(long, value_name = "FILE")]
    pub(crate) hosts: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    // What iptables-save prints and iptables-restore reads.
    Iptables,
    // ClassBench filters, one a line.
    Classbench,
}

/// What is taken of matches that no field decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Assume {
    // They hold.
    Hold,
    // They do not.
    Fail,
}

/// How packets are replayed: with a clock, residual matches are evaluated as the kernel does, each packet after
/// the ones before.
#[derive(Debug, Group)]
pub(crate) struct Replay {
    /// Evaluate limit, recent, string, … and take the times from the capture, or from the column `at`.
    #[arg(long, help_heading = "Replay")]
    pub(crate) clock: bool,
    /// Evaluate them with all packets coming at this moment: 2026-11-25T15:00:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = crate::replay::time, conflicts_with = "clock", help_heading = "Replay")]
    pub(crate) at: Option<Time>,
    /// What `statistic --mode random` draws from [default: its outcome is not known].
    #[arg(long, value_name = "N", help_heading = "Replay")]
    pub(crate) seed: Option<u64>,
    /// Ticks a second of the kernel that is followed: its CONFIG_HZ.
    #[arg(long, value_name = "N", default_value = "250", value_parser = crate::replay::hz, help_heading = "Replay")]
    pub(crate) hz: Hz,
    /// The kernel's time zone, in which `time --kerneltz` counts.
    #[arg(long, value_name = "+HH:MM", default_value = "+00:00", value_parser = crate::replay::zone, allow_hyphen_values = true, help_heading = "Replay")]
    pub(crate) kernel_tz: i32,
}

/// How an image is built.
#[derive(Debug, Group)]
pub(crate) struct Build {
    /// Bytes that the image may take, as in 64M, 512K, 1G.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub(crate) memory: usize,
    /// The rules that an image reports when they match: all, as iptables counts, or those that
    /// decide or act (not jumps, nor rules without a target), which is faster.
    #[arg(long, value_name = "RULES", value_enum, default_value_t = Counting::Exact)]
    pub(crate) counting: Counting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Counting {
    // Every rule, as iptables counts: jumps and rules without a target too.
    Exact,
    // Rules that decide or act.
    Deciding,
}

impl From<Counting> for hipac_compiler::Counting {
    fn from(counting: Counting) -> hipac_compiler::Counting {
        match counting {
            Counting::Exact => hipac_compiler::Counting::Exact,
            Counting::Deciding => hipac_compiler::Counting::Deciding,
        }
    }
}

impl Build {
    /// The compiler's options.
    pub(crate) fn options(&self) -> hipac_compiler::Options {
        hipac_compiler::Options { memory_bytes_max: self.memory, counting: self.counting.into() }
    }
}

/// A number of bytes with an optional K, M or G (powers of 1024).
fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: usize =
        digits.parse().map_err(|_| format!("`{text}` is no size: write 64M, 512K or bytes"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than this machine can address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("512k"), Ok(512 << 10));
        assert_eq!(parse_size("0"), Ok(0));
        for wrong in ["", "M", "-1", "1T", "6 4", "99999999999999999999", "17179869184G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
