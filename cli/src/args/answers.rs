//! Options of the offline answers: trace, diff, lint, query, test.

use std::path::PathBuf;

use clap::{ArgGroup, Args as Group, ValueEnum};

use super::Assume;

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
    /// Show every rule that was passed over, however many follow each other.
    #[arg(long)]
    pub(crate) every: bool,
    /// Print the lines that the kernel's TRACE target would log.
    #[arg(long)]
    pub(crate) kernel: bool,
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
