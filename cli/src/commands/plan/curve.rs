//! The curve of memory and throughput, as SVG.

use plotters::backend::SVGBackend;
use plotters::prelude::{
    BindKeyPoints, ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    SeriesLabelPosition, WHITE,
};
use plotters::style::Color;

use super::Point;
use crate::exit::Failure;
use crate::measure::Spread;

const SIZE: (u32, u32) = (960, 600);

/// Two colours that differ in print and to most eyes.
const BATCH: RGBColor = RGBColor(0, 90, 181);
const SINGLE: RGBColor = RGBColor(220, 50, 32);

/// Draws lookups a second over the bytes of the image.
pub(super) fn svg(points: &[Point], name: &str) -> Result<String, Failure> {
    let curve = |kind: fn(&Point) -> Spread| {
        let point = |p: &Point| (p.compiled.cost.image_bytes as f64, 1e3 / kind(p).median.max(1e-3));
        points.iter().map(point).collect::<Vec<_>>()
    };
    let curves =
        [("batched", BATCH, curve(|p| p.rates.batch)), ("one at a time", SINGLE, curve(|p| p.rates.single))];
    let mut text = String::new();
    draw(&mut text, &curves, name).map_err(|e| Failure::new(format_args!("cannot draw the curve: {e}")))?;
    Ok(text)
}

type Curve<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

fn draw(text: &mut String, curves: &[Curve<'_>], name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let all = || curves.iter().flat_map(|(.., points)| points);
    let high = all().map(|p| p.0).fold(1.0, f64::max) * 1.1;
    let low = all().map(|p| p.0).fold(high, f64::min) / 1.1;
    let top = all().map(|p| p.1).fold(1.0, f64::max);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Lookups a second by memory: {name}"), ("sans-serif", 22))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(75)
        .build_cartesian_2d((low..high).log_scale().with_key_points(ticks(low, high)), 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("bytes of the image")
        .y_desc("million lookups a second, one core")
        .x_label_formatter(&|&x| label(x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .axis_desc_style(("sans-serif", 18))
        .label_style(("sans-serif", 15))
        .light_line_style(WHITE)
        .draw()?;
    for (name, color, points) in curves {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(180, 180, 180))
        .label_font(("sans-serif", 16))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Labels on the axis of memory, at most.
const TICKS_MAX: usize = 8;

/// Round numbers of bytes from `low` to `high`: quarters of powers of two, as few as needed.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let quarters = |per_octave: &'static [f64]| {
        let octaves = (0..60).map(|k| f64::from(k).exp2());
        octaves.flat_map(move |octave| per_octave.iter().map(move |quarter| octave * quarter))
    };
    let inside = |ticks: &mut dyn Iterator<Item = f64>| ticks.filter(|t| low <= *t && *t <= high).collect();
    for per_octave in [&[1.0, 1.25, 1.5, 1.75][..], &[1.0, 1.5], &[1.0]] {
        let ticks: Vec<f64> = inside(&mut quarters(per_octave));
        if ticks.len() <= TICKS_MAX {
            return ticks;
        }
    }
    let ticks: Vec<f64> = inside(&mut quarters(&[1.0]));
    let step = ticks.len().div_ceil(TICKS_MAX);
    ticks.into_iter().step_by(step).collect()
}

/// A tick in the unit that suits it.
fn label(bytes: f64) -> String {
    let (unit, name) = match bytes {
        0.0..1024.0 => (1.0, "B"),
        ..1_048_576.0 => (1024.0, "KiB"),
        ..1_073_741_824.0 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    };
    // Quarters: as many digits as they need, and no more.
    format!("{} {name}", (bytes / unit * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_round_and_there() {
        let labels = |low, high| ticks(low, high).into_iter().map(label).collect::<Vec<_>>();
        assert_eq!(labels(2.9e6, 4.0e6), ["3 MiB", "3.5 MiB"]);
        assert_eq!(
            labels(300e3, 1.1e6),
            ["320 KiB", "384 KiB", "448 KiB", "512 KiB", "640 KiB", "768 KiB", "896 KiB", "1 MiB"]
        );
        assert_eq!(labels(1024.0, 8e9).len(), 8);
    }

    #[test]
    fn a_drawing_is_one_whole_element_whatever_the_points() {
        for points in [vec![], vec![(1000.0, 5.0)], vec![(1e3, 5.0), (1e6, 80.0), (1e9, 0.0)]] {
            let mut text = String::new();
            draw(&mut text, &[("a & b", BATCH, points)], "<rules>.v4").unwrap();
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
            assert!(text.contains("&lt;rules&gt;.v4") && !text.contains("<rules>"));
            assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
        }
    }
}
