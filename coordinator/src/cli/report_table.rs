//! A status report as a table for people.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde_json::{Map, Value};

/// The report's rows, in the order in which a person asks.
const ROWS: [&str; 20] = [
    "serving",
    "run",
    "stage",
    "paused",
    "waiting_for",
    "round",
    "cohort",
    "at_work",
    "reports",
    "version",
    "rounds",
    "digest",
    "enrolled",
    "idle",
    "last",
    "counters",
    "bytes_up",
    "bytes_down",
    "bytes_up_in_all",
    "bytes_down_in_all",
];

/// The table of a report's JSON.
pub(super) fn render(json: &str) -> Result<String> {
    let report: Map<String, Value> =
        serde_json::from_str(json).context("the coordinator's report is no JSON object")?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for name in ROWS {
        if let Some(value) = report.get(name).filter(|value| !value.is_null()) {
            add(&mut table, &name.replace('_', " "), value);
        }
    }
    Ok(table.trim_fmt())
}

/// One row of a value; a row of each entry of an object.
fn add(table: &mut Table, name: &str, value: &Value) {
    match value {
        Value::Object(entries) if entries.is_empty() => {}
        Value::Object(entries) => {
            for (entry, value) in entries {
                add(table, &format!("{name}: {}", entry.replace('_', " ")), value);
            }
        }
        Value::String(text) => drop(table.add_row([name, text])),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            table.add_row([name, &value.to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_from_top_to_bottom() {
        let json = r#"{"digest":"ab","serving":true,"counters":{"arrived":3,"rejected":{"stale-base":1}},"last":null}"#;
        let table = render(json).unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["serving", "true"]);
        assert_eq!(rows[1], ["digest", "ab"]);
        assert_eq!(rows[2], ["counters:", "arrived", "3"]);
        assert_eq!(rows[3], ["counters:", "rejected:", "stale-base", "1"]);
    }
}
