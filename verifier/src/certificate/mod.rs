//! Certificates: a proof written down, for a second checker that is small and searches for nothing.
//!
//! [`prove`](crate::proof::prove) looks for what it needs: where a rule is stored, which earlier one hides it,
//! how a condition falls into boxes. A certificate is what such a search found, as *steps*; who checks
//! it only follows them.
//!
//! ```text
//!   each rule, in the order of the walk     present · absent · unfold
//!   each flat rule, from all keys down      keep dport 80–90 (the rest fails its test 3)
//!                                           tree 1 · down · lane 2      stored, in every cell and child
//!                                           hidden by position 7        all of what is left
//!   each stored box that is too large       split · inside · hidden …
//! ```
//!
//! Every step is one sentence about one region, and the checker (`check` walks the rules, `follow` the forest,
//! `place` and `meaning` read them) looks whether it is true: a region is one interval on each axis of the key, and a test of a rule
//! holds for all of it, for none of it, or for some. It has neither sets of boxes nor a search, and takes
//! nothing from the prover.
//!
//! **What it checks by itself:** from rules and image alone, that each flat rule stands for the rule that the
//! walk through the chains comes to, with its residual matches, changes, landings, calls and verdict;
//! that in every region of every root what is stored holds, and what holds is stored or hidden, and
//! that gates, smallest positions and the order in leaves pass over none of it. **What it takes for
//! granted:** what matches and targets mean (`hipac_rules`), that readers of an image's records (`Leaf`, `Node`,
//! `Root`, `Reader`, `KeyMaker` of the classifier) read what lookups read, and that lookups do what their scalar
//! definition says. The certificate itself is not trusted: the checksums in it say *which* rules and
//! image it is about, and that it is whole; nothing of the proof hangs on them.
//!
//! Not every proof is found in steps: of rules that repeat their matches in odd ways the writer may say that it
//! found none. Then the proof stands, without a certificate.
//!
//! # Cost
//! Linear in the certificate and the image.

mod check;
mod follow;
mod meaning;
mod place;
mod write;

use hipac_classifier::Image;
use hipac_rules::Ruleset;

use crate::agree::Compared;
pub use check::Checked;
use check::{Asked, Checker, Guide};
use place::Shared;

const MAGIC: [u8; 8] = *b"hipaccrt";
const VERSION: u32 = 1;
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

/// One step. See [the module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The next flat rule is this rule's.
    Present,
    /// No flat rule is: nothing that comes here satisfies it.
    Absent,
    /// None is, for it only counts; the chain that it jumps to follows.
    Unfold,
    /// On an axis the rest fails a clause: what is kept.
    Keep { axis: u32, lo: u32, hi: u32, clause: u32 },
    /// Two regions: up to a value of an axis, and above.
    Split { axis: u32, at: u32 },
    /// All of the region fails a clause.
    Outside { clause: u32 },
    /// All of it satisfies an earlier rule that lets no packet come to this one.
    Hidden { position: u32 },
    /// All of it satisfies what the index must decide.
    Inside,
    /// On in all cells of a tree.
    Tree { tree: u32 },
    /// On in all children of a node.
    Down,
    /// On in the deferred part of a node.
    Part,
    /// This lane of the leaf holds all of it.
    Lane { lane: u32 },
    /// The gate of the cell turns all of it away.
    Shut,
}

impl Step {
    fn words(self) -> (u8, [u32; 4], usize) {
        match self {
            Step::Present => (0, [0; 4], 0),
            Step::Absent => (1, [0; 4], 0),
            Step::Unfold => (2, [0; 4], 0),
            Step::Keep { axis, lo, hi, clause } => (3, [axis, lo, hi.wrapping_sub(lo), clause], 4),
            Step::Split { axis, at } => (4, [axis, at, 0, 0], 2),
            Step::Outside { clause } => (5, [clause, 0, 0, 0], 1),
            Step::Hidden { position } => (6, [position, 0, 0, 0], 1),
            Step::Inside => (7, [0; 4], 0),
            Step::Tree { tree } => (8, [tree, 0, 0, 0], 1),
            Step::Down => (9, [0; 4], 0),
            Step::Part => (10, [0; 4], 0),
            Step::Lane { lane } => (11, [lane, 0, 0, 0], 1),
            Step::Shut => (12, [0; 4], 0),
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        let (tag, words, count) = self.words();
        out.push(tag);
        for mut word in words.into_iter().take(count) {
            while word >= 0x80 {
                out.push(word as u8 | 0x80);
                word >>= 7;
            }
            out.push(word as u8);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Step> {
        let byte = |bytes: &mut &[u8]| {
            let (&first, rest) = bytes.split_first()?;
            *bytes = rest;
            Some(first)
        };
        let tag = byte(bytes)?;
        let mut word = || {
            let mut out = 0u32;
            for shift in (0..35).step_by(7) {
                let next = byte(bytes)?;
                out |= u32::from(next & 0x7f).checked_shl(shift)?;
                if next & 0x80 == 0 {
                    return Some(out);
                }
            }
            None
        };
        Some(match tag {
            0 => Step::Present,
            1 => Step::Absent,
            2 => Step::Unfold,
            3 => {
                let (axis, lo, more, clause) = (word()?, word()?, word()?, word()?);
                Step::Keep { axis, lo, hi: lo.checked_add(more)?, clause }
            }
            4 => Step::Split { axis: word()?, at: word()? },
            5 => Step::Outside { clause: word()? },
            6 => Step::Hidden { position: word()? },
            7 => Step::Inside,
            8 => Step::Tree { tree: word()? },
            9 => Step::Down,
            10 => Step::Part,
            11 => Step::Lane { lane: word()? },
            12 => Step::Shut,
            _ => return None,
        })
    }
}

/// Reads the steps of a certificate.
struct Reading<'c> {
    steps: &'c [u8],
}

impl Guide for Reading<'_> {
    fn next<B: AsRef<[u8]>>(&mut self, _: &Shared<'_, B>, _: &Asked<'_>) -> Result<Step, Refused> {
        Step::decode(&mut self.steps).ok_or(Refused::Damaged("its steps end too early"))
    }
}

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
    let find = |skips_void: bool| {
        let mut finder = write::Finder { steps: vec![], skips_void };
        Checker::new(ruleset, image, compared, &mut finder)?.run()?;
        Ok(finder)
    };
    let finder = find(false).or_else(|refused| find(true).map_err(|_| refused))?;
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
    let mut reading = Reading { steps };
    let checked = Checker::new(ruleset, image, compared, &mut reading)?.run()?;
    match reading.steps {
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
