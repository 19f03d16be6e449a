//! The results as a table of text: what a person compares when a run has ended.
//!
//! Knows numbers and how they are written. It knows nothing of HTML, of files, or of how a run is made.

use comfy_table::{CellAlignment, LineStyle, Table, presets};

use crate::results::{ABSENT, MethodResult, Metric, Results};

/// The method that ratios are taken against.
const DENSE: &str = "dense";
/// Columns of a row.
pub(crate) const COLUMNS: usize = 8;
/// Column headings, on two lines so that a row fits 80 columns.
const HEADINGS: [&str; COLUMNS] =
    ["method", "", "bytes\nup", "bytes\ndown", "ratio\nup", "ratio\ndown", "worker-\nrounds/s", "learning\nrate"];
/// Column of what models are compared by.
const METRIC: usize = 1;
/// What the columns mean.
const LEGEND: &str = "bytes: mean for one worker and round; ratio: bytes of dense ÷ bytes of method";
/// Spaces between columns.
const GAP: u16 = 2;

/// The table, its legend, and a line for every method whose learning rate was searched; ends in a line break.
#[must_use]
pub fn render(results: &Results) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_header(headings(results.metric));
    for method in &results.methods {
        table.add_row(cells(results, method));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index + 1 == COLUMNS { 0 } else { GAP }));
        column.set_cell_alignment(if index == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    let tuned = results
        .methods
        .iter()
        .filter(|method| !method.tuning.is_empty())
        .map(|method| tuning_line(results.metric, method));
    [table.trim_fmt(), LEGEND.to_owned()].into_iter().chain(tuned).map(|line| line + "\n").collect()
}

fn headings(metric: Metric) -> [&'static str; COLUMNS] {
    let mut headings = HEADINGS;
    headings[METRIC] = metric.name();
    headings
}

/// A method's row, in the order of the columns.
pub(crate) fn cells(results: &Results, method: &MethodResult) -> [String; COLUMNS] {
    let dense = results.method(DENSE);
    [
        method.name.clone(),
        results.metric.written(&method.score),
        grouped(method.bytes_up),
        grouped(method.bytes_down),
        ratio(dense.map(|dense| dense.bytes_up), method.bytes_up),
        ratio(dense.map(|dense| dense.bytes_down), method.bytes_down),
        rate(method.worker_rounds_per_s),
        method.learning_rate.to_string(),
    ]
}

/// A whole number with thousands separators.
fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return ABSENT.to_owned();
    }
    let digits = format!("{value:.0}");
    let mut separated = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            separated.push(',');
        }
        separated.push(digit);
    }
    separated
}

/// How many times `bytes` goes into the bytes of dense.
fn ratio(dense: Option<f64>, bytes: f64) -> String {
    match dense.map(|dense| dense / bytes) {
        Some(times) if times.is_finite() && times < 9.95 => format!("{times:.1}×"),
        Some(times) if times.is_finite() => format!("{}×", grouped(times)),
        Some(_) | None => ABSENT.to_owned(),
    }
}

/// A speed: one decimal where it is small.
fn rate(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { grouped(value) }
}

fn tuning_line(metric: Metric, method: &MethodResult) -> String {
    let tried = method.tuning.iter().map(|tuned| {
        let used = if tuned.learning_rate == method.learning_rate { " (used)" } else { "" };
        format!("{} → {}{used}", tuned.learning_rate, metric.written(&tuned.score))
    });
    format!("{}: learning rate {}", method.name, tried.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn row(text: &str, method: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.trim_start().starts_with(method)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_row_gives_bytes_and_their_ratio_to_dense() {
        let text = render(&sample::results());
        assert_eq!(row(&text, "packfed"), ["packfed", "0.8412", "26,816", "27,012", "126×", "125×", "41.3", "0.001"]);
        assert_eq!(
            row(&text, "dense"),
            ["dense", "0.8430", "3,378,432", "3,378,500", "1.0×", "1.0×", "1,204", "0.001"]
        );
    }

    #[test]
    fn without_dense_the_ratio_is_a_dash() {
        let mut results = sample::results();
        results.methods.retain(|method| method.name != DENSE);
        let row = row(&render(&results), "packfed");
        assert_eq!(row[4..6], [ABSENT, ABSENT]);
    }

    #[test]
    fn a_ratio_to_nothing_is_a_dash() {
        assert_eq!(ratio(Some(1.0), 0.0), ABSENT);
        assert_eq!(ratio(Some(0.0), 0.0), ABSENT);
        assert_eq!(ratio(Some(9.96), 1.0), "10×");
        assert_eq!(ratio(Some(123_456.0), 1.0), "123,456×");
    }

    #[test]
    fn thousands_are_separated() {
        let written = [0.0, 999.4, 1000.0, 1_234_567.0].map(grouped);
        assert_eq!(written, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(grouped(f64::NAN), ABSENT);
    }

    #[test]
    fn a_searched_learning_rate_is_listed_and_the_used_one_named() {
        let text = render(&sample::results());
        let line = "dense: learning rate 0.0005 → 0.8330, 0.001 → 0.8430 (used), 0.002 → 0.8391\n";
        assert!(text.ends_with(line), "{text}");
        assert!(!text.contains("packfed: learning rate"));
    }

    #[test]
    fn a_row_fits_eighty_columns() {
        let text = render(&sample::results());
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
    }

    #[test]
    fn no_method_is_an_empty_table() {
        let results = Results {
            task: "digits".to_owned(),
            seed: 7,
            metric: Metric::Accuracy,
            methods: Vec::new(),
            personal: None,
        };
        assert!(render(&results).contains("accuracy"));
    }
}
