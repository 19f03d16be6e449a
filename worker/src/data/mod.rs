//! Local text: where it comes from, what becomes of it before training, and the order in which it is shown.
//!
//! ```text
//!  CSV, JSONL, plain text ──► Record ──► held out or not ──► token ids (labels by name) ──► batches
//! ```
//!
//! Nothing of it leaves this machine; only the number of examples does. Images have their own path
//! ([`crate::idx`], [`crate::examples`]).

mod batches;
mod csv;
mod dataset;
mod jsonl;
mod labels;
mod lines;
mod open;
mod plain;

use std::path::{Path, PathBuf};

use packfed_codec::Seed;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::batches::Batches;
pub use self::csv::CsvSource;
pub use self::dataset::{Dataset, TokenExample};
pub use self::jsonl::JsonlSource;
pub use self::labels::Labels;
pub use self::open::open;
pub use self::plain::PlainSource;

/// A text with the label that it has, if it has one, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The text.
    pub text: String,
    /// The label's name.
    pub label: Option<String>,
    /// Line that it begins on, from 1.
    pub line: u64,
    /// Where its label stands: a field of a CSV file, from 1; else 1, the begin of its line.
    pub label_column: u64,
}

impl Record {
    /// Whether it is among the `share` of all records (0 to 1) that are held out of training.
    ///
    /// It follows from the seed and from the record's own text and label, so another line more or less moves no
    /// other, and a line that is there twice is on one side.
    #[must_use]
    pub fn is_held_out(&self, seed: &Seed, share: f64) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.text.len() as u64).to_le_bytes()).update(self.text.as_bytes());
        hasher.update(self.label.as_deref().unwrap_or_default().as_bytes());
        held_out(seed, hasher.finalize().as_bytes(), share)
    }
}

/// Whether an example with this hash is among the `share` (0 to 1) that a seed holds out.
pub(crate) fn held_out(seed: &Seed, hash: &[u8; 32], share: f64) -> bool {
    seed.derive_for_key("held-out", hash).stream().unit() < share
}

/// What happens at a line that is no example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadLines {
    /// Reading ends with an error that names it.
    #[default]
    Stop,
    /// It is left out and counted.
    Skip,
}

/// A line that is no example.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}:{line}:{column}: {found}, expected {expected}", path.display())]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: u64,
    /// Field of a CSV file, else byte of the line; from 1.
    pub column: u64,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

/// Why there are no examples.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A CSV header lacks a column.
    #[error("{}: there is no column {column:?}; its columns are {found:?}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns that it has.
        found: Vec<String>,
    },
    /// A line is no example, and such lines stop.
    #[error("{0}")]
    Line(Box<BadLine>),
    /// A list of labels cannot be one.
    #[error("labels: {0}")]
    Labels(String),
    /// Nothing is left to train on.
    #[error("{}: there are no examples ({skipped} lines skipped)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Lines left out.
        skipped: u64,
    },
    /// A text cannot be made into tokens.
    #[error(transparent)]
    Tokenizer(#[from] crate::text::TokenizerError),
}

/// Texts from somewhere, one after another.
pub trait DataSource {
    /// The file that they come from.
    fn path(&self) -> &Path;

    /// The next text or bad line; `None` at the end. After a bad line the next call goes on behind it.
    ///
    /// # Errors
    /// If the file itself cannot be read further.
    fn next(&mut self) -> Result<Option<Result<Record, BadLine>>, DataError>;
}

/// All records of a source, and how many lines were skipped.
///
/// # Errors
/// If the file cannot be read, at the first bad line where those stop, or if there is no record.
pub fn read_all(source: &mut dyn DataSource, bad_lines: BadLines) -> Result<(Vec<Record>, u64), DataError> {
    let (mut records, mut skipped) = (Vec::new(), 0);
    while let Some(next) = source.next()? {
        match next {
            Ok(record) => records.push(record),
            Err(line) => skip(line, bad_lines, &mut skipped)?,
        }
    }
    if records.is_empty() {
        return Err(DataError::Empty { path: source.path().to_owned(), skipped });
    }
    Ok((records, skipped))
}

/// Stops at a bad line, or counts it.
fn skip(line: BadLine, bad_lines: BadLines, skipped: &mut u64) -> Result<(), DataError> {
    match bad_lines {
        BadLines::Stop => Err(DataError::Line(Box::new(line))),
        BadLines::Skip => {
            tracing::debug!(%line, "skipped");
            *skipped += 1;
            Ok(())
        }
    }
}

/// A line or a field is no longer than this; one that is has lost its end.
const LINE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, label: &str) -> Record {
        Record { text: text.into(), label: Some(label.into()), line: 1, label_column: 1 }
    }

    #[test]
    fn the_share_held_out_is_the_share_asked_for_and_depends_on_the_record_alone() {
        let seed = Seed::from_number(1);
        let held = |seed: &Seed, share| -> Vec<bool> {
            (0..2_000).map(|n| record(&format!("text {n}"), "a").is_held_out(seed, share)).collect()
        };
        let count = |held: &[bool]| held.iter().filter(|&&held| held).count();
        assert!((340..460).contains(&count(&held(&seed, 0.2))), "{}", count(&held(&seed, 0.2)));
        assert_eq!((count(&held(&seed, 0.0)), count(&held(&seed, 1.0))), (0, 2_000));
        assert_ne!(held(&seed, 0.2), held(&Seed::from_number(2), 0.2));
        let elsewhere = Record { line: 9, label_column: 3, ..record("text 7", "a") };
        assert_eq!(elsewhere.is_held_out(&seed, 0.2), held(&seed, 0.2)[7]);
        let pairs = (0..200).filter(|n| {
            let text = format!("{n}");
            record(&text, "a").is_held_out(&seed, 0.5) != record(&text, "b").is_held_out(&seed, 0.5)
        });
        assert!(pairs.count() > 50, "the label counts");
    }
}
