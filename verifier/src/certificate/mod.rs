//! Certificates: a proof written down, for a second checker that is small and searches for nothing.
//!
//! [`prove`](crate::proof::prove) looks for what it needs: where a rule is stored, which earlier one hides it,
//! how a condition falls into boxes. A certificate is what such a search found, as *steps*; who checks
//! it only follows them.
//!
//! ```text
//!   each rule, in the order of the walk     present · absent · unfold · the program looks at its test 2
//!   each flat rule, from all keys down      split at dport 79 · fails its test 3
//!                                           tree 1 · down · lane 2      stored, in every cell and child
//!                                           hidden by position 7        all of what is left
//!   each stored box that is too large       split · inside · hidden …
//! ```
//!
//! Every step is one sentence about one region, and the `checker` looks whether it is true: a region is one
//! range on each axis, some bits of which may be known besides, and a test of a rule holds for all of it, for none
//! of it, or for some. It has neither sets of boxes nor a search, and takes nothing from the prover. That a
//! program says the same as the clauses it stands for is shown in the same steps: cut until both hold or both fail.
//!
//! **What it checks by itself:** from rules and image alone, that each flat rule stands for the rule that the
//! walk through the chains comes to, with its residual matches, changes, landings, calls and verdict;
//! that in every region of every root what is stored holds, and what holds is stored or hidden, and
//! that filters of gates pass over none of it. **What it takes for granted:** what matches, targets and a rule's own
//! part mean (`hipac_rules`), which dimensions a field is (`fields`), that readers of an image's records (`Lane`,
//! `Node`, `Root`, `operations`, `KeyMaker` of the classifier) read what lookups read, that the image's own audit
//! finds what is out of form (references that do not lead upward, wrong smallest positions, leaves out of order),
//! and that lookups do what their scalar definition says. The certificate itself is not trusted: the checksums in
//! it say *which* rules and image it is about, and that it is whole; nothing of the proof hangs on them.
//!
//! # Cost
//! Linear in the certificate and the image.

mod checker;
mod write;

use hipac_classifier::Image;
use hipac_rules::Ruleset;

use crate::agree::Compared;
pub use checker::Checked;
use checker::{Checker, Reading};

const MAGIC: [u8; 8] = *b"hipaccrt";
const VERSION: u32 = 2;
/// Magic, version, what is compared, and checksums of rules, image and steps.
const HEADER_BYTES: usize = 8 + 4 + 4 + 3 * 8;

/// Why there is no certificate, or why one is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no certificate of this version, or not whole.
    Damaged(&'static str),
    /// It is about another file.
    Other(&'static str),
    /// What it says, or what the checker sees by itself, is not so: where, and what.
    Wrong(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Damaged(what) => write!(f, "not a whole certificate: {what}"),
            Refused::Other(what) => write!(f, "the certificate is about another {what}"),
            Refused::Wrong(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for Refused {}

/// Writes the certificate that an image does what its rules say; `text` is what the rules were read from.
///
/// # Errors
/// No certificate was found: the image is not as the rules want it, or not in a form that steps describe.
pub fn write<B: AsRef<[u8]>>(
    ruleset: &Ruleset,
    text: &[u8],
    image: &Image<B>,
    compared: Compared,
) -> Result<Vec<u8>, Refused> {
    let finder =
        write::Finder::search(|finder| Checker::check(ruleset, image, compared, finder).map(|_| ()))?;
    let mut out = Vec::with_capacity(HEADER_BYTES + finder.steps.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(u32::from(compared == Compared::Deciding).to_le_bytes());
    for bytes in [text, image.bytes(), &finder.steps] {
        out.extend(checksum(bytes).to_le_bytes());
    }
    out.extend(finder.steps);
    Ok(out)
}

/// Checks a certificate. See [the module](self) for what that means.
///
/// # Errors
/// It is about other files, it is not whole, or something that it says is not so.
pub fn check<B: AsRef<[u8]>>(
    ruleset: &Ruleset,
    text: &[u8],
    image: &Image<B>,
    certificate: &[u8],
) -> Result<Checked, Refused> {
    let damaged = Refused::Damaged;
    let (header, steps) = certificate.split_at_checked(HEADER_BYTES).ok_or(damaged("it is too short"))?;
    let number = |at: usize| header[at..at + 8].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    if header[..8] != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    if number(8) as u32 != VERSION {
        return Err(damaged("its version is not that of this build: write it again"));
    }
    let compared = match number(8) >> 32 {
        0 => Compared::All,
        1 => Compared::Deciding,
        _ => return Err(damaged("it does not say what is compared")),
    };
    for (at, bytes, what) in [(16, text, "ruleset"), (24, image.bytes(), "image")] {
        if number(at) != checksum(bytes) {
            return Err(Refused::Other(what));
        }
    }
    if number(32) != checksum(steps) {
        return Err(damaged("its checksum is another"));
    }
    let mut reading = Reading(steps);
    let checked = Checker::check(ruleset, image, compared, &mut reading)?;
    match reading.0 {
        [] => Ok(checked),
        _ => Err(damaged("steps are left over")),
    }
}

/// FNV-1a: says which file it is, and is no protection.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Wrong(what.into()))
}
