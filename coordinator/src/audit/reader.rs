//! Reads a log from one of its segments to its end, checking every hash on the way.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use packfed_protocol::{Digest, Timestamp};

use super::segment::{FRAMING_BYTES, HEADER_BYTES, Header, chained, log_path};
use super::{AuditError, Entry};

/// An entry and where it stands.
#[derive(Clone, Debug)]
pub struct Located {
    /// The file.
    pub path: PathBuf,
    /// Its first byte in that file.
    pub offset: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub entry: Entry,
}

/// The entries of consecutive segments.
#[derive(Debug)]
pub struct Entries {
    folder: PathBuf,
    /// Segments that are still to come, ascending.
    numbers: std::vec::IntoIter<u64>,
    open: Option<Segment>,
    chain: Option<Digest>,
}

impl Entries {
    /// The entries of these segments, which have to follow one another.
    pub(super) fn of(folder: &Path, numbers: Vec<u64>) -> Self {
        Self { folder: folder.to_owned(), numbers: numbers.into_iter(), open: None, chain: None }
    }

    fn read(&mut self) -> Result<Option<Located>, AuditError> {
        loop {
            if self.open.is_none() {
                let Some(number) = self.numbers.next() else { return Ok(None) };
                self.open = Some(Segment::open(&self.folder, number, self.chain)?);
            }
            let Some(segment) = &mut self.open else { return Ok(None) };
            if let Some(located) = segment.next()? {
                return Ok(Some(located));
            }
            self.chain = Some(segment.chain);
            self.open = None;
        }
    }
}

/// An error is of a file that cannot be read, of a byte that is not as it was written, or of a last entry that is
/// cut short: it names the file and the byte at which the entry begins, and nothing comes after it.
impl Iterator for Entries {
    type Item = Result<Located, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read();
        if next.is_err() {
            (self.numbers, self.open) = (Vec::new().into_iter(), None);
        }
        next.transpose()
    }
}

/// One segment that is being read.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: BufReader<File>,
    bytes: u64,
    /// Bytes of whole entries so far.
    pub(super) offset: u64,
    pub(super) header: Header,
    /// The hash of the last entry so far.
    pub(super) chain: Digest,
}

impl Segment {
    /// Opens a segment and checks its header, and that it follows `before` if that is known.
    pub(super) fn open(folder: &Path, number: u64, before: Option<Digest>) -> Result<Self, AuditError> {
        let path = log_path(folder, number);
        let file = File::open(&path).map_err(AuditError::io("open", &path))?;
        let bytes = file.metadata().map_err(AuditError::io("measure", &path))?.len();
        let mut file = BufReader::new(file);
        let damaged = |why: String| AuditError::Damaged { path: path.clone(), offset: 0, why };
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(|_| damaged(format!("{bytes} bytes are no whole header")))?;
        let header = Header::from_bytes(&header).map_err(damaged)?;
        let damaged = |why: String| AuditError::Damaged { path: path.clone(), offset: 0, why };
        if header.number != number {
            return Err(damaged(format!("it is segment {}", header.number)));
        }
        if before.is_some_and(|before| before != header.chain) {
            return Err(damaged("it does not follow the segment before it".to_owned()));
        }
        let chain = header.chain();
        Ok(Self { path, file, bytes, offset: HEADER_BYTES as u64, header, chain })
    }

    /// The next entry; on an error the segment stands before it.
    pub(super) fn next(&mut self) -> Result<Option<Located>, AuditError> {
        let left = self.bytes.saturating_sub(self.offset);
        if left == 0 {
            return Ok(None);
        }
        let body = self.body(left)?;
        let (at, entry) = Entry::from_bytes(&body).map_err(|error| self.damaged(error.to_string()))?;
        let located = Located { path: self.path.clone(), offset: self.offset, at, entry };
        self.chain = chained(&self.chain, &body);
        self.offset += body.len() as u64 + FRAMING_BYTES;
        Ok(Some(located))
    }

    fn body(&mut self, left: u64) -> Result<Vec<u8>, AuditError> {
        let mut length = [0; 4];
        if left < FRAMING_BYTES {
            return Err(self.cut(left, FRAMING_BYTES));
        }
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length);
        let needed = u64::from(length) + FRAMING_BYTES;
        if left < needed {
            return Err(self.cut(left, needed));
        }
        let mut body = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let mut hash = [0; 32];
        self.fill(&mut body)?;
        self.fill(&mut hash)?;
        match chained(&self.chain, &body) == Digest(hash) {
            true => Ok(body),
            false => Err(self.damaged("the entry is not as it was written".to_owned())),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), AuditError> {
        self.file.read_exact(bytes).map_err(AuditError::io("read", &self.path))
    }

    fn cut(&self, left: u64, needed: u64) -> AuditError {
        self.damaged(format!("the entry is cut short: {left} bytes of {needed} are there"))
    }

    fn damaged(&self, why: String) -> AuditError {
        AuditError::Damaged { path: self.path.clone(), offset: self.offset, why }
    }
}
