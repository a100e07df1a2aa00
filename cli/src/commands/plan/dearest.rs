//! The rules that cost most: whose copies take most bytes of the forest.
//!
//! A wide rule meets many regions and is copied into each, where other dimensions had to be cut.
//! A leaf's bytes are shared out evenly among its rules. Nodes and tables belong to all.

use std::collections::HashMap;

use hipac_classifier::OriginId;

use crate::exit::Failure;
use crate::input::{OpenImage, Rules};

/// Rules named.
const SHOWN: usize = 10;

/// Letters of a rule's text, at most.
const TEXT_MAX: usize = 100;

/// What one rule takes.
pub(super) struct Dear {
    /// `filter/FORWARD rule 17`.
    pub(super) rule: String,
    pub(super) line: u32,
    /// `rules.v4:41`.
    pub(super) place: String,
    /// Its line of the file.
    pub(super) text: String,
    pub(super) copies: usize,
    pub(super) bytes: usize,
}

/// The rules whose copies take most, the dearest first.
pub(super) fn rules(image: &OpenImage, rules: &Rules) -> Result<Vec<Dear>, Failure> {
    let mut by_rule: HashMap<u32, (usize, f64)> = HashMap::new();
    image
        .audit_leaves(&mut |leaf| {
            let share = leaf.bytes as f64 / leaf.positions.len() as f64;
            for &position in leaf.positions {
                if let Some((_, OriginId(origin))) = image.flat(position) {
                    let (copies, bytes) = by_rule.entry(origin).or_default();
                    *copies += 1;
                    *bytes += share;
                }
            }
        })
        .map_err(Failure::new)?;
    let mut all: Vec<(u32, usize, f64)> = by_rule.into_iter().map(|(rule, (c, b))| (rule, c, b)).collect();
    // Equals in the order of the text: the same rules, the same list.
    all.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    all.truncate(SHOWN);
    let lines: Vec<&[u8]> = rules.text.split(|&b| b == b'\n').collect();
    let dear = all.into_iter().filter_map(|(origin, copies, bytes)| {
        let origin = image.origin(OriginId(origin))?;
        Some(Dear {
            rule: format!("{} rule {}", image.name(origin.list), origin.number),
            line: origin.line,
            place: format!("{}:{}", rules.name, origin.line),
            text: text(lines.get((origin.line as usize).wrapping_sub(1)).copied().unwrap_or_default()),
            copies,
            bytes: bytes as usize,
        })
    });
    Ok(dear.collect())
}

/// A line as it can be printed: no control characters, not too long.
fn text(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let clean: String = line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_surprises() {
        assert_eq!(text(b"-A FORWARD\t-j DROP\r"), "-A FORWARD -j DROP");
        assert_eq!(text(&[b'x'; 200]).chars().count(), TEXT_MAX + 1);
        assert_eq!(text("\u{e9}\u{1b}[31m".as_bytes()), "\u{e9} [31m");
    }
}
