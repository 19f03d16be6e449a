//! What commands print: one line of JSON, or tables and lines for people.

use std::io::Write;

use anyhow::Result;
use comfy_table::{Table, presets};
use packfed_coordinator::server::now;
use packfed_protocol::{Digest, Timestamp};
use serde::Serialize;

use super::duration::Milliseconds;

/// Prints something as JSON or as the text that people read.
pub(super) fn show(json: bool, told: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let line = if json { serde_json::to_string(told)? } else { text() };
    print(&line)
}

/// Prints lines.
pub(super) fn print(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// A table with these columns.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = bare();
    table.set_header(columns);
    table
}

/// A table of names and values.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let mut table = bare();
    for (name, value) in rows {
        table.add_row([name, value.as_str()]);
    }
    table.trim_fmt()
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// How long ago a moment is.
pub(super) fn ago(at: Timestamp) -> String {
    format!("{} ago", Milliseconds(now().since(at)).roughly())
}

/// A value, or a dash where there is none.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// The first digits of a digest.
pub(super) fn short(digest: &Digest) -> String {
    format!("{:.12}", digest.to_string())
}

/// A share of 1 in per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
