//! A file's lines as bytes, numbered, none longer than a line may be.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{BadLine, DataError, LINE_BYTES_MAX};

#[derive(Debug)]
pub(super) struct Lines {
    pub(super) path: PathBuf,
    reader: BufReader<File>,
    /// Number of the line that was read last, from 1.
    pub(super) number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), number: 0 })
    }

    /// The next line with its end; `None` after the last. A byte order mark before the first is dropped.
    pub(super) fn next(&mut self) -> Result<Option<Result<String, BadLine>>, DataError> {
        let failed = |source| DataError::Io { path: self.path.clone(), source };
        let mut line = Vec::new();
        let bytes = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
        if bytes == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes > LINE_BYTES_MAX {
            self.reader.skip_until(b'\n').map_err(failed)?;
            let found = format!("a line of more than {LINE_BYTES_MAX} bytes");
            return Ok(Some(Err(self.bad(1, found, format!("at most {LINE_BYTES_MAX}")))));
        }
        if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(String::from_utf8(line).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(place).copied().unwrap_or_default();
            self.bad(place as u64 + 1, format!("byte 0x{byte:02x}"), "UTF-8".into())
        })))
    }

    /// The line that was read last, as a bad one.
    pub(super) fn bad(&self, column: u64, found: String, expected: String) -> BadLine {
        BadLine { path: self.path.clone(), line: self.number, column, found, expected }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
