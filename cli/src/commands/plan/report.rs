//! The sweep as a table and as JSON.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::Point;
use super::dearest::Dear;
use crate::args::Format;
use crate::exit::Failure;
use crate::output::{self, bytes, grouped};

/// Cells of the longest bar.
const BAR: usize = 16;

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    points: Vec<PointLine>,
    dearest: Vec<DearLine<'a>>,
}

#[derive(Serialize)]
struct PointLine {
    memory: usize,
    image_bytes: usize,
    structure_bytes: usize,
    bytes_per_rule: f64,
    /// By shape, the fastest first.
    regions: [usize; 4],
    single_ns: f64,
    single_ns_range: [f64; 2],
    batch_ns: f64,
    batch_ns_range: [f64; 2],
    nodes_per_lookup: f64,
    leaves_per_lookup: f64,
    keys_differing: usize,
}

#[derive(Serialize)]
struct DearLine<'a> {
    rule: &'a str,
    line: u32,
    text: &'a str,
    copies: usize,
    bytes: usize,
}

pub(super) fn print(
    points: &[Point],
    dearest: &[Dear],
    svg: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &line(points, dearest))?,
        Format::Text => text(&mut out, points, dearest, svg)?,
    }
    out.flush()?;
    Ok(())
}

fn smaller_percent(cost: &hipac_compiler::Cost) -> f64 {
    100.0 * cost.regions_shrunk() as f64 / cost.regions.iter().sum::<usize>().max(1) as f64
}

fn per_rule(point: &Point) -> f64 {
    point.compiled.cost.structure_bytes as f64 / point.compiled.cost.rules.max(1) as f64
}

fn line<'a>(points: &[Point], dearest: &'a [Dear]) -> Line<'a> {
    let points = points.iter().map(|point| PointLine {
        memory: point.memory,
        image_bytes: point.compiled.cost.image_bytes,
        structure_bytes: point.compiled.cost.structure_bytes,
        bytes_per_rule: per_rule(point),
        regions: point.compiled.cost.regions,
        single_ns: point.rates.single.median,
        single_ns_range: point.rates.single.range(),
        batch_ns: point.rates.batch.median,
        batch_ns_range: point.rates.batch.range(),
        nodes_per_lookup: point.visited.nodes,
        leaves_per_lookup: point.visited.leaves,
        keys_differing: point.differing,
    });
    let dearest = dearest.iter().map(|dear| DearLine {
        rule: &dear.rule,
        line: dear.line,
        text: &dear.text,
        copies: dear.copies,
        bytes: dear.bytes,
    });
    Line { schema: "hipac.plan/1", points: points.collect(), dearest: dearest.collect() }
}

fn text(out: &mut impl Write, points: &[Point], dearest: &[Dear], svg: Option<&Path>) -> Result<(), Failure> {
    let header =
        ["--memory", "bytes/rule", "smaller", "single ns", "batch ns", "nodes", "leaves", "batch M/s"];
    let fastest_ns = points.iter().map(|p| p.rates.batch.median).fold(f64::MAX, f64::min);
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| {
            vec![
                bytes(point.memory),
                format!("{:.1}", per_rule(point)),
                format!("{:.0} %", smaller_percent(&point.compiled.cost)),
                format!("{:.1}", point.rates.single.median),
                format!("{:.1}", point.rates.batch.median),
                format!("{:.2}", point.visited.nodes),
                format!("{:.2}", point.visited.leaves),
                format!(
                    "{:>6.1} {}",
                    1e3 / point.rates.batch.median.max(1e-3),
                    bar(fastest_ns / point.rates.batch.median.max(1e-3))
                ),
            ]
        })
        .collect();
    write!(out, "{}", output::table_with_notes(&header, &rows))?;
    writeln!(
        out,
        "\nLess is refused, more changes nothing. smaller: regions not built in the fastest form."
    )?;
    let differing: usize = points.iter().map(|point| point.differing).sum();
    if differing > 0 {
        writeln!(out, "WRONG ANSWERS: {} keys differ: see hipac verify", grouped(differing))?;
    }
    if !dearest.is_empty() {
        writeln!(out, "\nThe dearest rules of the fastest form, by the bytes of their copies in leaves:")?;
    }
    for dear in dearest {
        let copies = grouped(dear.copies);
        writeln!(out, "  {:>10} in {copies} copies   {} ({})", bytes(dear.bytes), dear.place, dear.rule)?;
        writeln!(out, "             {}", dear.text)?;
    }
    if let Some(path) = svg {
        writeln!(out, "\ncurve: {}", path.display())?;
    }
    Ok(())
}

/// A bar of eighths of a cell; a whole one for 1.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (8 * BAR) as f64).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5), "█".repeat(BAR / 2));
        assert_eq!(bar(1.0 / 128.0), "▏");
        assert_eq!([bar(0.0), bar(-1.0), bar(f64::NAN)], ["", "", ""]);
    }
}
