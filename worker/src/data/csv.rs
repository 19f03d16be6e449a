//! CSV with a header: the text and the label are columns by name.
//!
//! Source: RFC 4180, as the `csv` crate reads it: quoted fields may hold commas, quotes and line ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, Reader, ReaderBuilder};

use super::{BadLine, DataError, DataSource, LINE_BYTES_MAX, Record};

/// A CSV file.
#[derive(Debug)]
pub struct CsvSource {
    path: PathBuf,
    reader: Reader<File>,
    header: Vec<String>,
    text: usize,
    label: Option<usize>,
}

impl CsvSource {
    /// Opens a file whose column `text` holds texts and whose column `label` holds labels, if there are any.
    ///
    /// # Errors
    /// If it cannot be read or its header lacks a column.
    pub fn open(path: &Path, text: &str, label: Option<&str>) -> Result<Self, DataError> {
        let failed = |error: ::csv::Error| io(path, error);
        let mut reader = ReaderBuilder::new().flexible(true).from_path(path).map_err(failed)?;
        let names = reader.byte_headers().map_err(failed)?;
        let header: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let find = |column: &str| match header.iter().position(|name| name == column) {
            Some(index) => Ok(index),
            None => Err(DataError::Column { path: path.to_owned(), column: column.into(), found: header.clone() }),
        };
        let (text, label) = (find(text)?, label.map(find).transpose()?);
        Ok(Self { path: path.to_owned(), reader, header, text, label })
    }

    fn record(&self, fields: &ByteRecord) -> Result<Record, BadLine> {
        let line = fields.position().map_or(0, ::csv::Position::line);
        let bad = |index: usize, found: String, expected: String| BadLine {
            path: self.path.clone(),
            line,
            column: index as u64 + 1,
            found,
            expected,
        };
        if fields.len() != self.header.len() {
            let shorter = fields.len().min(self.header.len());
            let expected = format!("{} as in the header", self.header.len());
            return Err(bad(shorter, format!("{} fields", fields.len()), expected));
        }
        let text_of = |index: usize| {
            let (name, field) = (&self.header[index], &fields[index]);
            let expected = |what: &str| format!("{what} in column {name:?}");
            if field.len() > LINE_BYTES_MAX {
                let found = format!("a field of {} bytes", field.len());
                return Err(bad(
                    index,
                    found,
                    expected(&format!("at most {LINE_BYTES_MAX}, so with its closing quote")),
                ));
            }
            let text = std::str::from_utf8(field).map_err(|error| {
                bad(index, format!("a field that is not UTF-8 after byte {}", error.valid_up_to()), expected("UTF-8"))
            })?;
            if text.trim().is_empty() {
                Err(bad(index, "nothing".into(), expected("a text")))
            } else {
                Ok(text.to_owned())
            }
        };
        let label = self.label.map(text_of).transpose()?;
        let label_column = self.label.map_or(0, |index| index as u64) + 1;
        Ok(Record { text: text_of(self.text)?, label, line, label_column })
    }
}

impl DataSource for CsvSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn next(&mut self) -> Result<Option<Result<Record, BadLine>>, DataError> {
        let mut fields = ByteRecord::new();
        if self.reader.read_byte_record(&mut fields).map_err(|error| io(&self.path, error))? {
            Ok(Some(self.record(&fields)))
        } else {
            Ok(None)
        }
    }
}

/// With byte records of any length, only the system can refuse.
fn io(path: &Path, error: ::csv::Error) -> DataError {
    let source = match error.into_kind() {
        ::csv::ErrorKind::Io(source) => source,
        other => std::io::Error::other(format!("{other:?}")),
    };
    DataError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BadLines, read_all};

    const FILE: &[u8] =
        b"category,text\na,plain\nb,\"two\nlines, \"\"quoted\"\"\"\n,no label\nb\na,x,y\na,\xff\nb,last";

    fn read(content: &[u8], bad_lines: BadLines) -> Result<(Vec<Record>, u64), DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        std::fs::write(&path, content).unwrap();
        read_all(&mut CsvSource::open(&path, "text", Some("category"))?, bad_lines)
    }

    #[test]
    fn columns_are_found_by_name_and_bad_lines_are_counted() {
        let (records, skipped) = read(FILE, BadLines::Skip).unwrap();
        let found: Vec<_> = records.iter().map(|r| (r.text.as_str(), r.label.as_deref().unwrap(), r.line)).collect();
        assert_eq!(found, [("plain", "a", 2), ("two\nlines, \"quoted\"", "b", 3), ("last", "b", 9)]);
        assert_eq!(skipped, 4);
    }

    #[test]
    fn a_bad_line_is_named_with_its_place_and_what_was_expected() {
        let stop = |content: &[u8]| {
            let error = read(content, BadLines::Stop).unwrap_err().to_string();
            error.split_once("data.csv").unwrap().1.to_owned()
        };
        let with = |line: &[u8]| stop(&[b"category,text\na,b\n".as_slice(), line].concat());
        assert_eq!(with(b",x"), ":3:1: nothing, expected a text in column \"category\"");
        assert_eq!(with(b"a,"), ":3:2: nothing, expected a text in column \"text\"");
        assert_eq!(with(b"a"), ":3:2: 1 fields, expected 2 as in the header");
        assert_eq!(with(b"a,b,c"), ":3:3: 3 fields, expected 2 as in the header");
        let utf8 = with(b"a,b\xff");
        assert_eq!(utf8, ":3:2: a field that is not UTF-8 after byte 1, expected UTF-8 in column \"text\"");
        let column = stop(b"Category,text\na,b\n");
        assert_eq!(column, ": there is no column \"category\"; its columns are [\"Category\", \"text\"]");
        assert_eq!(stop(b"category,text\n"), ": there are no examples (0 lines skipped)");
    }
}
