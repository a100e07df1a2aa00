//! What a comparison with the kernel found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hipac_classifier::Packet;
use hipac_rules::{Hook, TableKind};

use super::cause::Cause;
use crate::packet_text;

/// What [`check`](super::check) found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Packets sent.
    pub packets: u64,
    /// Packets asked for.
    pub packets_all: u64,
    /// How often each built-in chain of the ruleset was entered and compared.
    pub chains: BTreeMap<(TableKind, Hook), Chain>,
    /// Packets that the stack kept from a chain, by cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Packets that came to a chain as bytes that are read as no packet, its extension headers cut short:
    /// compared neither there nor at the chains behind it.
    pub packets_unread: u64,
    /// Rules that matched a packet.
    pub rules_matched: usize,
    /// Rules of the ruleset.
    pub rules: usize,
    /// Comparisons that differ.
    pub differing: u64,
    /// One for each place.
    pub differences: Vec<Difference>,
    /// What rules test that could not be driven, in words.
    pub not_driven: Vec<String>,
    /// It took so long, without loading.
    pub time: Duration,
}

/// What was compared at one built-in chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    /// Packets that entered it.
    pub packets: u64,
    /// Of those, how many evaluations hang on a residual match.
    pub hang: u64,
    /// Those that differ.
    pub differing: u64,
}

/// A packet that the kernel and the oracle treat differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: TableKind,
    /// The built-in chain.
    pub hook: Hook,
    /// What differs.
    pub what: String,
    /// The packet as it entered the chain.
    pub packet: Packet,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the kernel did, in its own words.
    pub kernel: Vec<String>,
    /// What we say that it does.
    pub ours: Vec<String>,
}

impl Report {
    /// Packets sent a second.
    pub fn packets_per_second(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// Comparisons made.
    pub fn compared(&self) -> u64 {
        self.chains.values().map(|c| c.packets).sum()
    }

    /// Comparisons that hang on residual matches.
    pub fn hanging(&self) -> u64 {
        self.chains.values().map(|c| c.hang).sum()
    }

    /// Whether nothing differs.
    pub fn is_agreement(&self) -> bool {
        self.differing == 0
    }
}

/// Lines alike that are printed before the one that differs.
const BEFORE: usize = 3;
/// Bytes of a packet that are printed.
const BYTES_MAX: usize = 96;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.table.name(), self.hook.name(), packet_text::show(&self.packet))?;
        write!(f, "\n    {}", self.what)?;
        let alike = self.kernel.iter().zip(&self.ours).take_while(|(a, b)| a == b).count();
        let from = alike.saturating_sub(BEFORE);
        if from > 0 {
            write!(f, "\n    both    … {from} lines alike")?;
        }
        for line in &self.kernel[from..alike] {
            write!(f, "\n    both    {line}")?;
        }
        for (name, lines) in [("kernel", &self.kernel), ("hipac ", &self.ours)] {
            match lines.get(alike) {
                Some(line) => write!(f, "\n  ▶ {name}  {line}")?,
                None => write!(f, "\n  ▶ {name}  (nothing more)")?,
            }
            match lines.len().saturating_sub(alike + 1) {
                0 => {}
                more => write!(f, ", and {more} more")?,
            }
        }
        write!(f, "\n    bytes   ")?;
        self.bytes.iter().take(BYTES_MAX).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.bytes.len() > BYTES_MAX { write!(f, "… ({} bytes)", self.bytes.len()) } else { Ok(()) }
    }
}
