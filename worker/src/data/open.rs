//! A file of texts by its extension.

use std::path::Path;

use super::{CsvSource, DataError, DataSource, JsonlSource, PlainSource};

/// Opens `csv` and `jsonl` by their columns or keys, and anything else as plain text, which has no labels.
///
/// # Errors
/// If the file cannot be opened, or lacks a column.
pub fn open(path: &Path, text: &str, label: Option<&str>) -> Result<Box<dyn DataSource>, DataError> {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    match extension.as_deref().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Box::new(CsvSource::open(path, text, label)?)),
        Some("jsonl" | "ndjson") => Ok(Box::new(JsonlSource::open(path, text, label)?)),
        Some(_) | None => Ok(Box::new(PlainSource::open(path)?)),
    }
}
