//! The curves of a run as inline SVG.
//!
//! Knows what is set against what and how it looks, not the page around it. Everything that is not a curve is drawn in
//! `currentColor` on a transparent ground, so that the page decides between light and dark. Text of the run never
//! enters a drawing except through the caller's escaped description.

use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    drawing::{DrawingAreaErrorKind, IntoDrawingArea},
    series::LineSeries,
    style::{Color, IntoFont, RGBColor},
};

use super::{
    axis::Axis,
    marker,
    scale::{Chart, Scale},
};
use crate::results::{MethodResult, Metric, Point, Results};

/// A drawing that failed.
pub(crate) type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// One method's points, in the units of the axes.
struct Series {
    /// Place of the method among the results: decides colour and marker.
    index: usize,
    points: Vec<(f64, f64)>,
}

/// Size in units of the drawing: twice the size it is shown at, for its coordinates are whole numbers.
const SIZE: (u32, u32) = (960, 680);
const SWATCH_SIZE: (u32, u32) = (80, 36);
/// Size of text; the SVG backend divides it by 1.24.
const TEXT: f64 = 34.0;
/// Markers a curve carries at most.
const MARKERS: usize = 12;
/// Parts of the way between two markers at which methods start.
const SHIFTS: usize = 4;
/// Stands for `currentColor` until the drawing is done: no curve has this colour.
const INK: RGBColor = RGBColor(1, 2, 3);
/// `INK` as the SVG backend writes it.
const INK_WRITTEN: &str = "\"#010203\"";

/// The metric over the bytes of all workers, on a logarithmic axis; nothing where no point has bytes.
pub(crate) fn over_bytes(results: &Results, label: &str) -> Result<Option<String>, DrawError> {
    let series = collect(results, |point| {
        let bytes = point.bytes_up.saturating_add(point.bytes_down);
        (bytes > 0).then(|| (bytes as f64).log10())
    });
    draw(&series, Axis::log_bytes, results.metric, label)
}

/// The metric over rounds; nothing where there is no point.
pub(crate) fn over_rounds(results: &Results, label: &str) -> Result<Option<String>, DrawError> {
    let series = collect(results, |point| Some(point.round as f64));
    draw(&series, Axis::rounds, results.metric, label)
}

/// The line and marker of the method at `index`, for a legend; not announced by a screen reader.
pub(crate) fn swatch(index: usize) -> Result<String, DrawError> {
    let svg = on_svg(SWATCH_SIZE, |builder| {
        let mut chart = builder.build_cartesian_2d(Scale::of(Axis::unit()), Scale::of(Axis::unit()))?;
        draw_series(&mut chart, &Series { index, points: vec![(0.0, 0.5), (1.0, 0.5)] }, &[(0.5, 0.5)])
    })?;
    Ok(with_head(&svg, SWATCH_SIZE, "class=\"swatch\" aria-hidden=\"true\"", ""))
}

/// The curves with at least one point; a number that cannot be drawn is left out.
fn collect(results: &Results, across: impl Fn(&Point) -> Option<f64>) -> Vec<Series> {
    let points = |method: &MethodResult| {
        let metric = |point: &Point| Some(results.metric.of(&point.score)).filter(|value| value.is_finite());
        method.curve.iter().filter_map(|point| Some((across(point)?, metric(point)?))).collect()
    };
    let series = results.methods.iter().enumerate().map(|(index, method)| Series { index, points: points(method) });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn draw(
    series: &[Series],
    axis: impl Fn(std::vec::IntoIter<f64>) -> Axis,
    metric: Metric,
    label: &str,
) -> Result<Option<String>, DrawError> {
    if series.is_empty() {
        return Ok(None);
    }
    let (across, up): (Vec<f64>, Vec<f64>) = series.iter().flat_map(|series| &series.points).copied().unzip();
    let (across, up) = (across.into_iter(), up.into_iter());
    let y = match metric {
        Metric::Accuracy => Axis::accuracy(up),
        Metric::Perplexity => Axis::perplexity(up),
    };
    let x = axis(across);
    let titles = [x.title, y.title];
    let svg = on_svg(SIZE, |builder| {
        builder.margin(24).x_label_area_size(96).y_label_area_size(132);
        let mut chart = builder.build_cartesian_2d(Scale::of(x), Scale::of(y))?;
        draw_mesh(&mut chart, titles)?;
        // The first method is drawn last, above the others.
        series.iter().rev().try_for_each(|series| draw_series(&mut chart, series, &marked(series)))
    })?;
    let title = format!("<title>Test {} over {}</title>", metric.name(), titles[0]);
    Ok(Some(with_head(&svg, SIZE, &format!("role=\"img\" aria-label=\"{label}\""), &title)))
}

/// Runs a drawing and gives its text.
fn on_svg(
    size: (u32, u32),
    draw: impl FnOnce(&mut ChartBuilder<'_, '_, SVGBackend<'_>>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&mut ChartBuilder::on(&root))?;
        root.present()?;
    }
    Ok(svg.replace(INK_WRITTEN, "\"currentColor\""))
}

/// Replaces the opening tag, which fixes a size in pixels and has no place for a description.
fn with_head(svg: &str, (width, height): (u32, u32), attributes: &str, first: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" {attributes}>{first}{body}")
}

fn draw_mesh(chart: &mut Chart<'_, '_>, [x, y]: [&str; 2]) -> Result<(), DrawError> {
    let text = ("sans-serif", TEXT).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(INK.mix(0.2))
        .axis_style(INK.mix(0.7).stroke_width(2))
        .label_style(text)
        .set_all_tick_mark_size(8)
        .x_desc(x)
        .y_desc(y)
        .draw()
}

fn draw_series(chart: &mut Chart<'_, '_>, series: &Series, marked: &[(f64, f64)]) -> Result<(), DrawError> {
    let line = marker::colour(series.index).stroke_width(4);
    chart.draw_series(LineSeries::new(series.points.iter().copied(), line))?;
    marker::draw(chart, series.index, marked)
}

/// Some of the points, evenly spaced back from the last; methods mark different ones, so that curves which lie on each
/// other are told apart.
fn marked(series: &Series) -> Vec<(f64, f64)> {
    let every = series.points.len().div_ceil(MARKERS).max(1);
    let shift = every * (series.index % SHIFTS) / SHIFTS;
    series.points.iter().rev().skip(shift).step_by(every).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::results::Score;

    fn both(results: &Results) -> [Option<String>; 2] {
        [over_bytes(results, "label").unwrap(), over_rounds(results, "label").unwrap()]
    }

    fn one(curve: Vec<Point>) -> Results {
        let mut results = sample::results();
        results.methods.truncate(1);
        results.methods[0].curve = curve;
        results
    }

    fn at(round: u64, accuracy: f64, bytes: u64) -> Point {
        Point { round, score: Score { accuracy, loss: 1.0 }, bytes_up: bytes, bytes_down: bytes, virtual_s: 0.0 }
    }

    #[test]
    fn every_method_has_its_own_colour() {
        for svg in both(&sample::results()).map(Option::unwrap) {
            assert_eq!(svg.matches("<polyline fill=\"none\" opacity=\"1\"").count(), 3);
            for colour in ["#0072B2", "#D55E00", "#009E73"] {
                assert!(svg.contains(colour));
            }
        }
    }

    #[test]
    fn what_is_not_a_curve_takes_the_colour_of_the_page() {
        for svg in both(&sample::results()).map(Option::unwrap) {
            assert!(svg.contains("fill=\"currentColor\"") && svg.contains("stroke=\"currentColor\""));
            assert!(!svg.contains("#010203") && !svg.contains("#000000") && !svg.contains("#FFFFFF"));
        }
    }

    #[test]
    fn points_without_bytes_are_left_out_of_the_plot_over_bytes() {
        let [bytes, rounds] = both(&one(vec![at(0, 0.1, 0)]));
        assert_eq!(bytes, None);
        assert!(rounds.is_some());
    }

    #[test]
    fn one_point_is_a_marker() {
        for svg in both(&one(vec![at(1, 0.5, 10)])).map(Option::unwrap) {
            assert_eq!(svg.matches("<circle").count(), 1);
        }
    }

    #[test]
    fn odd_curves_are_drawn() {
        let constant = (0..9).map(|round| at(round, 0.5, round * 1000)).collect();
        let extreme = vec![at(0, 0.0, 1), at(u64::MAX, 1.0, u64::MAX)];
        for curve in [constant, extreme] {
            assert!(both(&one(curve)).iter().all(Option::is_some));
        }
    }

    #[test]
    fn numbers_that_cannot_be_drawn_are_left_out() {
        assert_eq!(both(&one(vec![at(1, f64::NAN, 9), at(2, f64::INFINITY, 9)])), [None, None]);
    }

    #[test]
    fn long_curves_carry_few_markers_and_not_at_the_same_points() {
        let points: Vec<_> = (0..1000_u32).map(|x| (f64::from(x), 0.0)).collect();
        let [first, second] = [0, 1].map(|index| marked(&Series { index, points: points.clone() }));
        assert!(first.len() <= MARKERS && second.len() <= MARKERS);
        assert_eq!(first.first(), points.last());
        assert!(first.iter().all(|at| !second.contains(at)));
    }

    #[test]
    fn short_curves_are_marked_at_every_point() {
        for index in 0..9 {
            assert_eq!(marked(&Series { index, points: vec![(1.0, 0.5)] }), [(1.0, 0.5)]);
        }
        assert!(marked(&Series { index: 0, points: Vec::new() }).is_empty());
    }
}
