//! Which stretch of numbers an axis shows, and where its marks stand.
//!
//! Knows nothing of pixels or of methods: values in, range and labelled marks out. A range is never empty, and marks
//! are few, whatever the values.

use std::ops::Range;

/// One axis of a plot.
pub(crate) struct Axis {
    /// What is measured.
    pub(crate) title: &'static str,
    /// From the least to the greatest value shown.
    pub(crate) range: Range<f64>,
    /// Marks, ascending, and what is written at them.
    pub(crate) marks: Vec<(f64, String)>,
}

/// Marks aimed at on a linear axis.
const MARKS: f64 = 6.0;
/// Share of the range left free at either end.
const MARGIN: f64 = 0.04;
/// Least span of an accuracy axis: a flat curve is shown flat, not its rounding errors.
const ACCURACY_SPAN_MIN: f64 = 0.02;
/// Least span of a perplexity axis.
const PERPLEXITY_SPAN_MIN: f64 = 0.5;
/// Multiples of a power of ten that read as round.
const ROUND: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// Decimal units of bytes, each a thousand of the one before.
const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

impl Axis {
    /// Accuracies: the stretch that occurs, marked within 0 to 1.
    pub(crate) fn accuracy(values: impl Iterator<Item = f64>) -> Self {
        let range = padded(values, ACCURACY_SPAN_MIN);
        let marks = linear(&range, 0.0).into_iter().filter(|(at, _)| (0.0..=1.0).contains(at)).collect();
        Self { title: "test accuracy", range, marks }
    }

    /// Perplexities: the stretch that occurs.
    pub(crate) fn perplexity(values: impl Iterator<Item = f64>) -> Self {
        let range = padded(values, PERPLEXITY_SPAN_MIN);
        let marks = linear(&range, 0.0);
        Self { title: "test perplexity", range, marks }
    }

    /// Rounds, from 0, marked at whole numbers.
    pub(crate) fn rounds(values: impl Iterator<Item = f64>) -> Self {
        let range = 0.0..values.fold(1.0, f64::max) * (1.0 + MARGIN);
        let marks = linear(&range, 1.0);
        Self { title: "rounds committed", range, marks }
    }

    /// Logarithms, to base 10, of bytes: at least one decade.
    pub(crate) fn log_bytes(values: impl Iterator<Item = f64>) -> Self {
        let range = padded(values, 1.0);
        let marks = decades(&range);
        Self { title: "bytes sent and received by all workers (log scale)", range, marks }
    }

    /// From 0 to 1, without marks.
    pub(crate) fn unit() -> Self {
        Self { title: "", range: 0.0..1.0, marks: Vec::new() }
    }

    /// What is written at a mark.
    pub(crate) fn label(&self, mark: f64) -> String {
        self.marks.iter().find(|(at, _)| *at == mark).map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// The stretch of the values with a margin, at least `span_min` wide.
fn padded(values: impl Iterator<Item = f64>, span_min: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let half = ((high - low) * (0.5 + MARGIN)).max(span_min / 2.0);
    let middle = f64::midpoint(low, high);
    middle - half..middle + half
}

/// Marks at multiples of a round step that is at least `step_min`.
fn linear(range: &Range<f64>, step_min: f64) -> Vec<(f64, String)> {
    let step = round_up((range.end - range.start) / MARKS).max(step_min);
    let first = (range.start / step).ceil();
    let decimals = decimals(step);
    // Adding zero turns a negative zero, written with a sign, into a positive one.
    (0..=10_u32)
        .map(|mark| (first + f64::from(mark)) * step + 0.0)
        .take_while(|at| *at <= range.end)
        .map(|at| (at, format!("{at:.decimals$}")))
        .collect()
}

/// The least round number that is not below `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    ROUND.map(|times| times * power).into_iter().find(|round| *round >= value).unwrap_or(value)
}

/// Digits behind the point that a step needs.
fn decimals(step: f64) -> usize {
    let written = format!("{step:.9}");
    written.trim_end_matches('0').split_once('.').map_or(0, |(_, behind)| behind.len())
}

/// Marks at powers of ten; few powers also at twice and five times, many only at every third.
fn decades(range: &Range<f64>) -> Vec<(f64, String)> {
    let span = range.end - range.start;
    let between: &[f64] = if span <= 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let every = if span > 7.0 { 3.0 } else { 1.0 };
    let first = (range.start / every).floor();
    (0..=20_u32)
        .map(|mark| (first + f64::from(mark)) * every)
        .flat_map(|power| between.iter().map(move |times| power + times.log10()))
        .filter(|at| range.contains(at))
        .map(|at| (at, bytes(10_f64.powf(at))))
        .collect()
}

/// A round number of bytes, in the unit that keeps it short.
fn bytes(value: f64) -> String {
    let mut scaled = value;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    while scaled >= 999.5 {
        let Some(larger) = units.next() else { break };
        (scaled, unit) = (scaled / 1000.0, larger);
    }
    if scaled < 0.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn accuracy_marks_are_round_and_within_one() {
        let axis = Axis::accuracy([0.1, 1.0].into_iter());
        assert_eq!(labels(&axis), ["0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert!(axis.range.contains(&0.1) && axis.range.contains(&1.0));
    }

    #[test]
    fn a_constant_accuracy_has_a_range_and_marks() {
        let axis = Axis::accuracy([0.843; 9].into_iter());
        assert_eq!(labels(&axis), ["0.835", "0.840", "0.845", "0.850"]);
    }

    #[test]
    fn rounds_are_marked_at_whole_numbers() {
        assert_eq!(labels(&Axis::rounds([0.0, 60.0].into_iter())), ["0", "20", "40", "60"]);
        assert_eq!(labels(&Axis::rounds([0.0, 3.0].into_iter())), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Axis::rounds([0.0].into_iter())), ["0", "1"]);
    }

    #[test]
    fn bytes_are_marked_at_powers_of_ten() {
        let axis = Axis::log_bytes([5.0, 9.0].into_iter());
        assert_eq!(labels(&axis), ["100 kB", "1 MB", "10 MB", "100 MB", "1 GB"]);
        let narrow = Axis::log_bytes([6.0].into_iter());
        assert_eq!(labels(&narrow), ["500 kB", "1 MB", "2 MB"]);
        let wide = Axis::log_bytes([0.0, 19.0].into_iter());
        assert!(wide.marks.len() < 8, "{:?}", labels(&wide));
    }

    #[test]
    fn no_values_still_make_an_axis() {
        let none = std::iter::empty;
        for axis in [Axis::accuracy(none()), Axis::rounds(none()), Axis::log_bytes(none())] {
            assert!(axis.range.start < axis.range.end && !axis.marks.is_empty());
        }
    }

    #[test]
    fn a_mark_knows_its_label() {
        let axis = Axis::accuracy([0.0, 1.0].into_iter());
        let (at, label) = &axis.marks[1];
        assert_eq!(axis.label(*at), *label);
        assert_eq!(axis.label(0.123), "");
    }
}
