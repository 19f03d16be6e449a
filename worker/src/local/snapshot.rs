//! Local training between two steps as bytes, so that a round outlives its process.
//!
//! ```text
//!   "PFSN" | version u32 | job 32 | steps u32 | loss f32 | parameters u64 | state u64
//!   parameters × f32 | state × f32 | BLAKE3 of all before, 32        all little-endian
//! ```
//!
//! The order of the examples is not in it: it follows from the job, so the steps done are drawn again. It does not
//! know where the bytes are kept.

use thiserror::Error;

/// BLAKE3 of everything that a round's training follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDigest(pub [u8; 32]);

/// Local training between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Whose training it is.
    pub job: JobDigest,
    /// Steps done.
    pub steps: u32,
    /// Sum of their losses.
    pub loss: f32,
    /// The variables' values, one variable after another.
    pub parameters: Vec<f32>,
    /// The optimizer's state, likewise.
    pub state: Vec<f32>,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// They are too few, or not as many as they say.
    #[error("it has {found} bytes, needs {needed}")]
    Length {
        /// Bytes there.
        found: usize,
        /// Bytes needed, as far as could be read.
        needed: u64,
    },
    /// They are something else, or of another version.
    #[error("it does not begin as a snapshot of this version does")]
    Magic,
    /// Some of them are not what was written.
    #[error("its checksum does not fit")]
    Checksum,
}

const MAGIC: [u8; 8] = *b"PFSN\x01\0\0\0";
const HEADER_BYTES: usize = 8 + 32 + 4 + 4 + 8 + 8;
const CHECKSUM_BYTES: usize = 32;

impl Snapshot {
    /// The bytes that [`Snapshot::decode`] takes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let values = self.parameters.len() + self.state.len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * values + CHECKSUM_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.job.0);
        bytes.extend_from_slice(&self.steps.to_le_bytes());
        bytes.extend_from_slice(&self.loss.to_le_bytes());
        for length in [self.parameters.len(), self.state.len()] {
            bytes.extend_from_slice(&(length as u64).to_le_bytes());
        }
        for value in self.parameters.iter().chain(&self.state) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// The snapshot that these bytes are, all of them.
    ///
    /// # Errors
    /// If they are none, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let short = || SnapshotError::Length { found: bytes.len(), needed: (HEADER_BYTES + CHECKSUM_BYTES) as u64 };
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(short)?;
        let (header, values) = content.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
        let mut rest = header.as_slice();
        if part::<8>(&mut rest) != MAGIC {
            return Err(SnapshotError::Magic);
        }
        let (job, steps) = (JobDigest(part(&mut rest)), u32::from_le_bytes(part(&mut rest)));
        let loss = f32::from_le_bytes(part(&mut rest));
        let (parameters, state) = (u64::from_le_bytes(part(&mut rest)), u64::from_le_bytes(part(&mut rest)));
        let needed = parameters.saturating_add(state).saturating_mul(4);
        if needed != values.len() as u64 {
            let needed = needed.saturating_add((HEADER_BYTES + CHECKSUM_BYTES) as u64);
            return Err(SnapshotError::Length { found: bytes.len(), needed });
        }
        if blake3::hash(content) != *checksum {
            return Err(SnapshotError::Checksum);
        }
        let values: Vec<f32> = values.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        let (parameters, state) = values.split_at(usize::try_from(parameters).unwrap_or(usize::MAX).min(values.len()));
        Ok(Self { job, steps, loss, parameters: parameters.to_vec(), state: state.to_vec() })
    }
}

/// The next bytes of a header, whose length is checked.
fn part<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (part, after) = rest.split_first_chunk().expect("the header is as long as its parts");
    *rest = after;
    *part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let parameters = vec![1.5, -0.0, f32::MIN_POSITIVE];
        Snapshot { job: JobDigest([7; 32]), steps: 3, loss: 0.25, parameters, state: vec![2.0; 6] }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = snapshot().encode();
        assert_eq!(Snapshot::decode(&bytes), Ok(snapshot()));
        assert_eq!(bytes.len(), HEADER_BYTES + 9 * 4 + CHECKSUM_BYTES);
    }

    #[test]
    fn no_damaged_byte_and_no_torn_file_goes_unnoticed() {
        let bytes = snapshot().encode();
        for at in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Snapshot::decode(&damaged).is_err(), "damaged at {at}");
        }
        assert!(Snapshot::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "one too many");
    }

    #[test]
    fn lengths_that_lie_are_refused_before_they_are_believed() {
        let mut bytes = snapshot().encode();
        bytes[HEADER_BYTES - 16..HEADER_BYTES].fill(0xff);
        let error = Snapshot::decode(&bytes).unwrap_err();
        assert!(matches!(error, SnapshotError::Length { needed: u64::MAX, .. }), "{error}");
    }
}
