//! Options of the offline answers: trace, diff, lint, query, test.

use std::path::PathBuf;

use clap::{ArgGroup, Args as Group, ValueEnum};

use super::{Assume, InputFormat, Outside, Replay};

pub(crate) const TRACE_HELP: &str = "\
Example:
  hipac trace rules.v4 --packet \"-i eth0 -p tcp -s 10.1.2.3 -d 192.0.2.7 --dport 22\"

Packets are written as for classify. With --way a packet meets every table on its way; addresses \
that DNAT or SNAT would rewrite keep their values.";

/// What is traced.
#[derive(Debug, Group)]
#[command(group = ArgGroup::new("packets").required(true).args(["packet", "trace", "pcap"]))]
pub(crate) struct TraceOptions {
    /// One packet, in iptables' own flags.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub(crate) packet: Option<String>,
    /// Many packets: a CSV file whose first row names fields, or a ClassBench trace.
    #[arg(long, value_name = "CSV")]
    pub(crate) trace: Option<PathBuf>,
    /// Many packets: a capture of tcpdump's classic format.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// The table that the packets meet.
    #[arg(long, default_value = "filter")]
    pub(crate) table: String,
    /// The built-in chain that they meet [default: FORWARD; PREROUTING in nat and raw].
    #[arg(long)]
    pub(crate) chain: Option<String>,
    /// All tables on this way through the host, in the kernel's order.
    #[arg(long, value_enum, conflicts_with_all = ["table", "chain"])]
    pub(crate) way: Option<WayName>,
    /// What residual matches, which no field decides (limit, recent, …), are taken to do.
    #[arg(long, value_enum, default_value_t = Assume::Hold)]
    pub(crate) assume: Assume,
    /// Say why this rule does not match, and the smallest change of the packet for which it would: its
    /// line, or CHAIN:NUMBER.
    #[arg(long, value_name = "RULE", conflicts_with_all = ["way", "kernel", "clock", "at"])]
    pub(crate) why_not: Option<String>,
    /// Show every rule that was passed over, however many follow each other.
    #[arg(long)]
    pub(crate) every: bool,
    /// Print the lines that the kernel's TRACE target would log.
    #[arg(long)]
    pub(crate) kernel: bool,
    #[command(flatten)]
    pub(crate) replay: Replay,
}

/// A way through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WayName {
    /// In by one interface, out by another.
    Forward,
    /// To this host.
    Input,
    /// From this host.
    Output,
}

pub(crate) const DIFF_HELP: &str = "\
Treated differently means: another verdict or target option, other targets on the way (LOG, MARK, …), \
or another order in which counting matches (limit, recent, …) are asked; --verdicts compares verdicts \
only. Files that treat every packet alike are proved to: the answer is no sample.

OLD and NEW may be images. An image holds no text: its rules are found with the help of the other file \
and proved to be what it does for every packet. What it does not keep (options of targets, what limit \
or recent ask, LOG) is as in the other file's rule; where that has none, the answer is that it is undecided.

Exit code 0 says so; 1: there are differences; 2: also when work was left undecided.";

/// What is compared.
#[derive(Debug, Group)]
pub(crate) struct DiffOptions {
    /// The ruleset, or image, as it was.
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The ruleset, or image, as it will be.
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// The rules are for IPv4 [default: what the text shows].
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// The rules are for IPv6.
    #[arg(short = '6', long = "ipv6")]
    pub(crate) ipv6: bool,
    /// The language of both: iptables-save's, or ClassBench filters.
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value_t = InputFormat::Iptables)]
    pub(crate) input_format: InputFormat,
    #[command(flatten)]
    pub(crate) outside: Outside,
    /// The IP sets that NEW names, where they are others than those of OLD. May be given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_ipset: Vec<PathBuf>,
    /// Compare this chain only, as in filter/FORWARD [default: every built-in chain].
    #[arg(long, value_name = "TABLE/CHAIN")]
    pub(crate) entry: Option<String>,
    /// Compare it with this chain of NEW.
    #[arg(long, value_name = "TABLE/CHAIN", requires = "entry")]
    pub(crate) with: Option<String>,
    /// Compare verdicts only.
    #[arg(long)]
    pub(crate) verdicts: bool,
    /// Differences that are printed.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) max: usize,
    /// Steps looked at, in millions, before the rest is left undecided.
    #[arg(long, value_name = "MILLIONS", default_value_t = 4000)]
    pub(crate) work: u64,
    /// Regions that differ kept before the rest is left undecided: a thousand take some megabytes.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub(crate) regions: usize,
    /// Print Markdown, for a review comment.
    #[arg(long, conflicts_with = "sarif")]
    pub(crate) markdown: bool,
    /// Print SARIF.
    #[arg(long)]
    pub(crate) sarif: bool,
}

pub(crate) const LINT_HELP: &str = "\
Findings: contradictory-rule, dead-rule, redundant-rule, unreachable-chain; as notes no-return, \
unused-policy, undecided. --deny makes findings of a kind errors, --allow leaves them out.

Exit code 1 when something is found that is no note, or a note that is denied.";

/// What is looked for.
#[derive(Debug, Group)]
pub(crate) struct LintOptions {
    /// Findings of this kind are errors.
    #[arg(long, value_name = "KIND")]
    pub(crate) deny: Vec<String>,
    /// Findings of this kind are left out.
    #[arg(long, value_name = "KIND")]
    pub(crate) allow: Vec<String>,
    /// Leave out redundant rules: half of the work.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Steps looked at for one rule in one region, in millions, before it is left undecided.
    #[arg(long, value_name = "MILLIONS", default_value_t = 20)]
    pub(crate) work: u64,
    /// Print SARIF.
    #[arg(long)]
    pub(crate) sarif: bool,
}

pub(crate) const QUERY_HELP: &str = "\
Examples:
  hipac query rules.v4 --verdict accept --dport 22
  hipac query rules.v4 --chain INPUT --from 203.0.113.0/24 --services

Values may be lists, and negated: --from '!10.0.0.0/8' --dport 80,8000:8080. The packets asked about \
have their whole headers, unless --all.";

/// What is asked.
#[derive(Debug, Group)]
pub(crate) struct QueryOptions {
    /// The verdict: accept, drop (which is REJECT too), or a target's name.
    #[arg(long, default_value = "accept")]
    pub(crate) verdict: String,
    /// Source addresses.
    #[arg(long, value_name = "NET")]
    pub(crate) from: Option<String>,
    /// Destination addresses.
    #[arg(long, value_name = "NET")]
    pub(crate) to: Option<String>,
    /// Protocols.
    #[arg(short, long, value_name = "PROTOCOL")]
    pub(crate) proto: Option<String>,
    /// Source ports.
    #[arg(long, value_name = "PORTS")]
    pub(crate) sport: Option<String>,
    /// Destination ports.
    #[arg(long, value_name = "PORTS")]
    pub(crate) dport: Option<String>,
    /// Interface in; `+` at the end stands for anything.
    #[arg(short, long = "in", value_name = "IF")]
    pub(crate) in_interface: Option<String>,
    /// Interface out.
    #[arg(short, long = "out", value_name = "IF")]
    pub(crate) out_interface: Option<String>,
    /// Connection states.
    #[arg(long, value_name = "STATES")]
    pub(crate) state: Option<String>,
    /// The table that packets meet.
    #[arg(long, default_value = "filter")]
    pub(crate) table: String,
    /// The built-in chain that they meet [default: FORWARD; PREROUTING in nat and raw].
    #[arg(long)]
    pub(crate) chain: Option<String>,
    /// Packets without whole transport headers too: fragments, cut ones.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print who reaches whom on what, for new connections unless --state says otherwise.
    #[arg(long)]
    pub(crate) services: bool,
    /// Steps looked at, in millions, before the rest is left undecided.
    #[arg(long, value_name = "MILLIONS", default_value_t = 2000)]
    pub(crate) work: u64,
}

pub(crate) const TEST_HELP: &str = "\
A policy is a file of statements about packets:
  [[never]]
  name = \"no ssh from outside\"
  from = \"!10.0.0.0/8\"
  to = \"10.1.0.0/16\"
  dport = \"22\"

  [[must]]
  name = \"the web is open\"
  to = \"192.0.2.7\"
  proto = \"tcp\"
  dport = \"80,443\"
  state = \"NEW\"

never: none of these packets is accepted; must: all are. `verdict` asks about another verdict, `chain` \
about another chain than filter/FORWARD. Other words: sport, in, out. Each is proved or refuted with a packet.";
