//! Options of `update`.

use std::path::PathBuf;

use clap::Args as Group;

use super::{Counting, Outside, parse_size};

pub(crate) const UPDATE_HELP: &str = "\
Examples:
  hipac update fw.himg --rules fw.rules changes
  echo 'iptables -D FORWARD 3' | hipac update fw.himg --rules fw.rules

COMMANDS are what `iptables-restore --noflush` takes (*TABLE, :CHAIN, -A -I -D -R -C -N -X -E -P -F \
-Z, COMMIT), or lines that begin with `iptables`. They mean what they mean to iptables, counters \
before rules and chains included. All of them are carried out, or none: then both files stay as \
they were, and the exit code is 1.

FILE must be what IMAGE was compiled from; else the answer is to compile it again. It is written anew \
in the form of `hipac fmt`, without comments. Its second line then says which image belongs to it, and with \
which --memory and --counting it was built: later updates go on with these. Without that line, give \
the options that IMAGE was compiled with, unless they are the defaults.

Each file is replaced in one step, first FILE, then IMAGE: whatever happens, each is the old one or \
the new one. If a crash leaves the new FILE beside the old IMAGE, the next update sees it and makes \
IMAGE of FILE first. When its commands are those that were interrupted, they are not carried out \
again: simply repeat it. (After a crash behind both, repeating it does carry them out again: look at \
FILE.) One update at a time; others wait.

Exit codes: 0 done; 1 a command cannot be carried out; 2 not done for another reason.";

/// What is updated, and how.
#[derive(Debug, Group)]
pub(crate) struct UpdateOptions {
    /// The image; it is replaced in one step.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// The ruleset that IMAGE was compiled from; it is replaced too.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: PathBuf,
    /// The commands; `-` reads standard input.
    #[arg(value_name = "COMMANDS", default_value = "-")]
    pub(crate) commands: PathBuf,
    /// The rules are for IPv4 [default: what FILE shows].
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// The rules are for IPv6.
    #[arg(short = '6', long = "ipv6")]
    pub(crate) ipv6: bool,
    /// Bytes that the image may take, as in 64M [default: as before, or 64M].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<usize>,
    /// The rules that the image reports when they match [default: as before, or exact].
    #[arg(long, value_name = "RULES", value_enum)]
    pub(crate) counting: Option<Counting>,
    /// Write nothing, and show which packets would be treated differently.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) outside: Outside,
}
