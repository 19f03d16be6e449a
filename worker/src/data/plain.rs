//! Plain text: one corpus, whole, to be cut into windows once it is tokens.

use std::path::Path;

use super::lines::Lines;
use super::{BadLine, DataError, DataSource, Record};

/// A text file as a single record; line ends stay as they are.
#[derive(Debug)]
pub struct PlainSource {
    lines: Lines,
    text: String,
    done: bool,
}

impl PlainSource {
    /// Opens a text file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self { lines: Lines::open(path)?, text: String::new(), done: false })
    }
}

impl DataSource for PlainSource {
    fn path(&self) -> &Path {
        &self.lines.path
    }

    fn next(&mut self) -> Result<Option<Result<Record, BadLine>>, DataError> {
        if self.done {
            return Ok(None);
        }
        while let Some(line) = self.lines.next()? {
            match line {
                Ok(line) => self.text.push_str(&line),
                Err(bad) => return Ok(Some(Err(bad))),
            }
        }
        self.done = true;
        let text = std::mem::take(&mut self.text);
        let record = Record { text, label: None, line: 1, label_column: 1 };
        Ok((!record.text.trim().is_empty()).then_some(Ok(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BadLines, read_all};

    #[test]
    fn a_corpus_is_one_record_and_a_bad_line_is_left_out_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.txt");
        std::fs::write(&path, b"\xef\xbb\xbffirst\r\n\nth\xffird\nfourth").unwrap();
        let read = |bad_lines| read_all(&mut PlainSource::open(&path).unwrap(), bad_lines);
        let (records, skipped) = read(BadLines::Skip).unwrap();
        assert_eq!((records.len(), skipped, records[0].text.as_str()), (1, 1, "first\r\n\nfourth"));
        let error = read(BadLines::Stop).unwrap_err().to_string();
        assert!(error.ends_with("corpus.txt:3:3: byte 0xff, expected UTF-8"), "{error}");
        std::fs::write(&path, " \n\n").unwrap();
        assert!(matches!(read(BadLines::Stop), Err(DataError::Empty { skipped: 0, .. })));
    }
}
