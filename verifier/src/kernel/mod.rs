//! The kernel as oracle: the same packets through the real rules and through ours.
//!
//! ```text
//!   bounds of the rules ─▶ packet ─▶ bytes ─┬─▶ TAP device ─▶ raw, mangle, nat, filter, … ─▶ TRACE lines ─┐
//!                                           │     a network namespace of our own                         ├─ the same?
//!                                           └──────── at each chain's entry: bytes ─▶ Packet ─▶ oracle ───┘
//! ```
//!
//! The ruleset is loaded unchanged by the kernel's own tools (`iptables-legacy-restore`), and packets come in by
//! devices with the names that its rules test. For every built-in chain that a packet enters, the kernel tells
//! the packet as it was then; the oracle is asked about that packet, with its connection state, marks and
//! interfaces as the kernel had them. So the chains are compared one by one, nothing has to be guessed of routing
//! or connection tracking, and what reads packets ([`Packet::from_ip_bytes`](hipac_classifier::Packet::from_ip_bytes)) is inside of the comparison.
//!
//! Compared are: every rule that matched, in order, with the ends of chains; what decided; the changes to mark,
//! TTL and type of service that the next chain sees; and, when there is one, an image's answer. Packets that the
//! stack drops between two chains are counted by [`Cause`], each with a reason that is looked for in the packet;
//! one that vanishes without a known reason is a difference.
//!
//! Residual matches (`limit`, `recent`, …) are answered so that both sides agree, where that is possible: a
//! comparison that hung on such an answer is counted as such.
//!
//! Not driven: OUTPUT (nothing is sent from this host), bridges, sockets, and time.
//!
//! # Cost
//!
//! 5,000 to 20,000 packets a second: some ten lines a packet, each a system call. Everything happens in a thread
//! of its own, in a network namespace that ends with it. It wants the rights to make one, `/dev/net/tun`, and the
//! legacy tools.

mod cause;
mod conntrack;
mod craft;
mod drive;
mod host;
mod judge;
mod netlink;
mod observe;
mod probe;
mod report;
mod session;
mod sys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::time::Duration;

pub use cause::Cause;
pub use report::{Difference, Report};

use crate::Oracle;
use crate::subject::Subject;

/// What [`check`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many packets to send.
    pub packets: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// It ends after this time, with what it has.
    pub time_max: Duration,
    /// Differences kept, one for each place; the others are counted.
    pub differences_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { packets: 10_000, seed: 1, time_max: Duration::from_secs(600), differences_max: 5 }
    }
}

/// Why the kernel could not be asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum KernelError {
    /// No network namespace.
    Namespace(io::Error),
    /// No TUN device.
    Tun(io::Error),
    /// One of the kernel's tools is not installed.
    NoTool(&'static str),
    /// A tool refused its input.
    Refused {
        /// The tool.
        tool: &'static str,
        /// What it said.
        said: String,
    },
    /// Something else that the kernel did not do.
    Setup {
        /// What was wanted of it.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl KernelError {
    /// Whether the kernel cannot be asked anything here, whatever the rules.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, KernelError::Namespace(_) | KernelError::Tun(_) | KernelError::NoTool(_))
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Namespace(error) => {
                write!(f, "no network namespace: {error} (run as root, or under `unshare -Urn`)")
            }
            KernelError::Tun(error) => write!(f, "no TUN device: {error} (it is /dev/net/tun)"),
            KernelError::NoTool(tool) => {
                write!(f, "no {tool}: install the packages iptables and ipset (Debian's names)")
            }
            KernelError::Refused { tool, said } => write!(f, "{tool} refused: {said}"),
            KernelError::Setup { what, error } => write!(f, "the kernel did not {what}: {error}"),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KernelError::Namespace(error) | KernelError::Tun(error) | KernelError::Setup { error, .. } => {
                Some(error)
            }
            KernelError::NoTool(_) | KernelError::Refused { .. } => None,
        }
    }
}

/// Sends packets drawn from the bounds of the oracle's rules through the kernel, which has loaded `text`, the
/// text of these rules, and compares.
///
/// `progress` is told how many packets were sent, now and then.
///
/// # Errors
///
/// The kernel cannot be asked here, or refuses the text.
pub fn check(
    text: &[u8],
    oracle: &Oracle<'_>,
    subject: Option<&dyn Subject>,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Report, KernelError> {
    in_own_thread(|| drive::check(text, oracle, subject, options, progress))
}

/// Runs `work` in a thread that may enter a namespace: the caller's stays as it is.
fn in_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
