//! Results on standard output.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Buffered standard output.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// One JSON object on a line of its own.
pub(crate) fn json_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// A table whose numbers line up on the right; no line ends in blanks.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    table_of(header, rows, header.len())
}

/// The same, but the last column is text and lines up on the left.
pub(crate) fn table_with_notes(header: &[&str], rows: &[Vec<String>]) -> String {
    table_of(header, rows, header.len() - 1)
}

/// A table of words: all columns line up on the left.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    table_of(header, rows, 0)
}

/// Columns from the second up to `numbers` line up on the right.
fn table_of(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (1..numbers).contains(&i) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let lines = table.to_string();
    lines.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Digits in groups of three.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 rule`, `2,000 rules`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// Bytes in the unit that suits: never under 1 of it.
pub(crate) fn bytes(count: usize) -> String {
    match count {
        0..0x400 => format!("{count} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / (1024.0 * 1024.0)),
    }
}

/// Seconds in the unit that suits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// Words with commas between them, on lines of at most [`WIDTH`] columns of which the first begins
/// behind `indent` others; `none` when there are none.
pub(crate) fn list(words: &[&str], indent: usize) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    let mut out = String::new();
    let mut column = indent;
    for (i, word) in words.iter().enumerate() {
        let comma = if i + 1 < words.len() { "," } else { "" };
        let width = word.chars().count() + comma.len();
        if i > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        out.push_str(comma);
        column += width;
    }
    out
}

/// Columns of a terminal that nobody made wider.
const WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_noun_follows_its_number() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "rule")), ["0 rules", "1 rule", "2 rules"]);
    }

    #[test]
    fn units_suit_their_numbers() {
        let sizes = [0, 1023, 1024, 1_048_575, 1_048_576, 67_108_864];
        assert_eq!(sizes.map(bytes), ["0 B", "1023 B", "1.0 KiB", "1024.0 KiB", "1.0 MiB", "64.0 MiB"]);
        assert_eq!([0.0, 0.0002, 0.25, 61.04].map(seconds), ["0 µs", "200 µs", "250 ms", "61.0 s"]);
    }

    #[test]
    fn a_list_stays_within_80_columns() {
        let words = ["abcdefgh"; 20];
        let text = format!("{}{}", " ".repeat(20), list(&words, 20));
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(list(&[], 20), "none");
    }
}
