//! The curve of memory and throughput, as SVG.

use plotters::backend::SVGBackend;
use plotters::prelude::{
    ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor, SeriesLabelPosition,
    WHITE,
};
use plotters::style::Color;

use super::Point;
use crate::exit::Failure;
use crate::measure::Spread;
use crate::output::bytes;

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
    let curves = [
        ("batched", BATCH, curve(|p| p.rates.batch)),
        ("one at a time", SINGLE, curve(|p| p.rates.single)),
    ];
    let mut text = String::new();
    draw(&mut text, &curves, name).map_err(|e| Failure::new(format_args!("cannot draw the curve: {e}")))?;
    Ok(text)
}

type Curve<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

fn draw(text: &mut String, curves: &[Curve<'_>], name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let all = || curves.iter().flat_map(|(.., points)| points);
    let low = all().map(|p| p.0).fold(f64::MAX, f64::min);
    let high = all().map(|p| p.0).fold(1.0, f64::max);
    let top = all().map(|p| p.1).fold(1.0, f64::max);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Lookups a second by memory: {name}"), ("sans-serif", 22))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(75)
        .build_cartesian_2d(((low / 1.1)..(high * 1.1)).log_scale(), 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("bytes of the image")
        .y_desc("million lookups a second, one core")
        .x_label_formatter(&|x| bytes(*x as usize))
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

#[cfg(test)]
mod tests {
    use super::*;

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
