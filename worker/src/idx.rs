//! IDX files, the format of MNIST and its kin: a big-endian header, then raw bytes.
//!
//! ```text
//!  images   [00 00 08 03][count u32][rows u32][cols u32][count·rows·cols × u8]
//!  labels   [00 00 08 01][count u32]                    [count × u8]
//! ```
//!
//! Source: LeCun, Cortes, Burges, *The MNIST database*. Parses bytes; knows no files.

use thiserror::Error;

/// Images of one size, one byte a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Rows of one image.
    pub rows: usize,
    /// Columns of one image.
    pub cols: usize,
    /// The pixels, image after image, row-major.
    pub pixels: Vec<u8>,
}

/// Why bytes are not an IDX file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdxError {
    /// The magic number is another.
    #[error("magic number is {found:08x}, {what} in IDX have {expected:08x}")]
    Magic {
        /// What was looked for.
        what: &'static str,
        /// Number found.
        found: u32,
        /// Number of such files.
        expected: u32,
    },
    /// The header is cut short.
    #[error("{0} bytes are too few for an IDX header")]
    Header(usize),
    /// The body is not as long as the header says.
    #[error("the header promises {expected} bytes of {what}, the file has {found}")]
    Length {
        /// What was looked for.
        what: &'static str,
        /// Bytes promised.
        expected: u64,
        /// Bytes found.
        found: usize,
    },
}

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

/// Parses an image file.
///
/// # Errors
/// If the magic number or the length is wrong.
pub fn parse_images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([count, rows, cols], pixels) = header(bytes, "images", IMAGES)?;
    let expected = u64::from(count).saturating_mul(u64::from(rows)).saturating_mul(u64::from(cols));
    let pixels = body(pixels, "images", expected)?;
    let edge = |n: u32| usize::try_from(n).expect("a u32 fits a usize");
    Ok(Images { rows: edge(rows), cols: edge(cols), pixels })
}

/// Parses a label file.
///
/// # Errors
/// If the magic number or the length is wrong.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let ([count], labels) = header(bytes, "labels", LABELS)?;
    body(labels, "labels", u64::from(count))
}

/// Writes an image file.
#[must_use]
pub fn write_images(images: &Images) -> Vec<u8> {
    let count = images.pixels.len() / (images.rows * images.cols).max(1);
    write(IMAGES, &[count, images.rows, images.cols], &images.pixels)
}

/// Writes a label file.
#[must_use]
pub fn write_labels(labels: &[u8]) -> Vec<u8> {
    write(LABELS, &[labels.len()], labels)
}

#[expect(clippy::big_endian_bytes, reason = "IDX is big-endian")]
fn write(magic: u32, sizes: &[usize], body: &[u8]) -> Vec<u8> {
    let size = |&n: &usize| u32::try_from(n).expect("an IDX size is a u32").to_be_bytes();
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend(sizes.iter().flat_map(size));
    bytes.extend_from_slice(body);
    bytes
}

fn header<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
    expected: u32,
) -> Result<([u32; N], &'a [u8]), IdxError> {
    #[expect(clippy::big_endian_bytes, reason = "IDX is big-endian")]
    let number = |chunk: &[u8; 4]| u32::from_be_bytes(*chunk);
    let short = IdxError::Header(bytes.len());
    let (magic, mut rest) = bytes.split_first_chunk().ok_or(short.clone())?;
    let found = number(magic);
    if found != expected {
        return Err(IdxError::Magic { what, found, expected });
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        let (chunk, after) = rest.split_first_chunk().ok_or(short.clone())?;
        (*size, rest) = (number(chunk), after);
    }
    Ok((sizes, rest))
}

fn body(bytes: &[u8], what: &'static str, expected: u64) -> Result<Vec<u8>, IdxError> {
    if bytes.len() as u64 != expected {
        return Err(IdxError::Length { what, expected, found: bytes.len() });
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_survive_writing_and_parsing() {
        let images = Images { rows: 2, cols: 3, pixels: (0..12).collect() };
        assert_eq!(parse_images(&write_images(&images)), Ok(images));
        assert_eq!(parse_labels(&write_labels(&[3, 1, 4])), Ok(vec![3, 1, 4]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let labels = write_labels(&[3, 1, 4]);
        assert!(matches!(parse_images(&labels), Err(IdxError::Magic { found: LABELS, .. })));
        let cut = parse_labels(&labels[..9]);
        assert_eq!(cut, Err(IdxError::Length { what: "labels", expected: 3, found: 1 }));
        assert_eq!(parse_labels(&labels[..6]), Err(IdxError::Header(6)));
        let mut bomb = write_images(&Images { rows: 1, cols: 1, pixels: vec![0] });
        bomb[4..16].fill(0xff);
        assert!(matches!(parse_images(&bomb), Err(IdxError::Length { .. })));
    }
}
