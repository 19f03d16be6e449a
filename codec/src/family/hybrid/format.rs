//! A hybrid block in numbers, and its bytes. Little-endian; shape, transform and format are the caller's.
//!
//! ```text
//!  Plain      [w: 8×f32][K]           [row u8, col u8, f16] × K
//!  Packed32   [w: 8×f32][K]           [row 31:26 | col 25:20 | value 19:0] × K     value: the top of an f32
//!  Packed24   [w: 8×f32][K]           [row 23:18 | col 17:12 | value 11:0] × K     value: the top of an f16
//!  MuLaw      [w: 8×f32][K][scale f32][row u8, col u8, level i8] × K               level: sign and μ-law level
//!  Entropy    [w: 8×f32][K][step f32] [words u16 | u32][u16] × words               see `entropy.rs`
//!  K          u8 in a block of at most 255 positions, u16 otherwise
//! ```
//!
//! Positions ascend in row-major order and no code has two spellings, so decode → encode gives the same bytes.
//! It does not know how coefficients are chosen or what they mean.

use super::HybridSpec;
use super::code::LEVEL_SIGN;
#[cfg(feature = "entropy")]
use super::entropy;
use super::error::HybridError;
use super::smooth::SMOOTH;

/// How a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HybridFormat {
    /// 4 bytes a coefficient: two bytes of position, a 16-bit float. Edges to 256.
    Plain,
    /// 4 bytes a coefficient: 6 bits of row, 6 of column, a 20-bit float (8 of exponent, 11 of mantissa). Edges to 64.
    Packed32,
    /// 3 bytes a coefficient: 6 bits of row, 6 of column, a 12-bit float (5 of exponent, 6 of mantissa). Edges to 64.
    Packed24,
    /// 3 bytes a coefficient: two bytes of position, a μ-law level (μ = 255) of a scale per block. Edges to 256.
    MuLaw,
    /// Range-coded gaps between positions and levels of a step per block. Edges to 256.
    #[cfg(feature = "entropy")]
    Entropy,
}

impl HybridFormat {
    /// Every format of this build.
    pub const ALL: &[Self] = &[
        Self::Plain,
        Self::Packed32,
        Self::Packed24,
        Self::MuLaw,
        #[cfg(feature = "entropy")]
        Self::Entropy,
    ];

    /// Largest edge of a block, at least 1.
    #[must_use]
    pub const fn edge_max(self) -> usize {
        match self {
            Self::Packed32 | Self::Packed24 => 64,
            Self::Plain | Self::MuLaw => EDGE_MAX,
            #[cfg(feature = "entropy")]
            Self::Entropy => EDGE_MAX,
        }
    }

    pub(super) const fn has_scale(self) -> bool {
        match self {
            Self::Plain | Self::Packed32 | Self::Packed24 => false,
            Self::MuLaw => true,
            #[cfg(feature = "entropy")]
            Self::Entropy => true,
        }
    }
}

/// Largest edge of any block: positions are bytes.
pub const EDGE_MAX: usize = 256;

/// A coefficient as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: u8,
    pub(super) col: u8,
    pub(super) code: u32,
}

impl Entry {
    pub(super) const fn position(self) -> (u8, u8) {
        (self.row, self.col)
    }
}

/// One coefficient of a block's spectrum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficient {
    /// Row of the spectrum.
    pub row: u8,
    /// Column of the spectrum.
    pub col: u8,
    /// Value, as a decoder sees it.
    pub value: f32,
}

/// A block: eight weights of smooth functions and up to K coefficients of a transform, all as quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct HybridBlock {
    pub(super) spec: HybridSpec,
    pub(super) weights: [f32; SMOOTH],
    pub(super) scale: f32,
    pub(super) entries: Vec<Entry>,
}

impl HybridBlock {
    pub(super) const fn empty(spec: HybridSpec) -> Self {
        Self { spec, weights: [0.0; SMOOTH], scale: 1.0, entries: Vec::new() }
    }

    /// Shape, transform and format.
    #[must_use]
    pub const fn spec(&self) -> &HybridSpec {
        &self.spec
    }

    /// Weights of `1, d, d², cos πx, cos πy, cos 2πx, cos 2πy, cos πx·cos πy`.
    #[must_use]
    pub const fn weights(&self) -> &[f32; SMOOTH] {
        &self.weights
    }

    /// The coefficients in row-major order of their positions.
    pub fn coefficients(&self) -> impl ExactSizeIterator<Item = Coefficient> {
        let value = |code| self.spec.format.value(code, self.scale);
        self.entries.iter().map(move |e| Coefficient { row: e.row, col: e.col, value: value(e.code) })
    }

    /// The block's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        put_number(&mut out, self.entries.len(), count_width(&self.spec));
        if self.spec.format.has_scale() {
            out.extend_from_slice(&self.scale.to_le_bytes());
        }
        match self.spec.format {
            #[cfg(feature = "entropy")]
            HybridFormat::Entropy => {
                let words = entropy::encode(&self.spec, &self.entries);
                put_number(&mut out, words.len(), words_width(&self.spec));
                out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
            HybridFormat::Plain | HybridFormat::Packed32 | HybridFormat::Packed24 | HybridFormat::MuLaw => {
                self.entries.iter().for_each(|&entry| put_entry(&mut out, self.spec.format, entry));
            }
        }
        out
    }

    /// The inverse of [`HybridBlock::to_bytes`]. Every value that the block expands to is finite.
    ///
    /// # Errors
    /// If the bytes are not one whole block of this shape and format. Allocates at most 8 bytes for every
    /// coefficient, of which a block has no more than its bytes can hold, and twice the bytes themselves.
    pub fn from_bytes(spec: &HybridSpec, bytes: &[u8]) -> Result<Self, HybridError> {
        let mut block = Self::empty(*spec);
        let end = block.read(bytes, 0)?;
        if end < bytes.len() {
            return Err(HybridError::LeftOver { offset: end, bytes: bytes.len() });
        }
        Ok(block)
    }

    /// Reads a block that begins at byte `start`, into the room that is there; the offset of its end.
    /// After an error the block holds anything.
    #[inline(always)]
    pub(super) fn read(&mut self, bytes: &[u8], start: usize) -> Result<usize, HybridError> {
        let mut reader = Reader { bytes, offset: start };
        for weight in &mut self.weights {
            *weight = reader.float(f32::MIN)?;
        }
        let count = self.read_count(&mut reader)?;
        self.scale = if self.spec.format.has_scale() { reader.float(0.0)? } else { 1.0 };
        self.entries.clear();
        match self.spec.format {
            HybridFormat::Plain => self.read_entries(&mut reader, count, |[row, col, low, high]: [u8; 4]| Entry {
                row,
                col,
                code: u16::from_le_bytes([low, high]).into(),
            }),
            HybridFormat::Packed32 => self.read_entries(&mut reader, count, |bytes: [u8; 4]| {
                let word = u32::from_le_bytes(bytes);
                Entry { row: six_bits(word >> 26), col: six_bits(word >> 20), code: word & 0xf_ffff }
            }),
            HybridFormat::Packed24 => self.read_entries(&mut reader, count, |[a, b, c]: [u8; 3]| {
                let word = u32::from_le_bytes([a, b, c, 0]);
                Entry { row: six_bits(word >> 18), col: six_bits(word >> 12), code: word & 0xfff }
            }),
            HybridFormat::MuLaw => self.read_entries(&mut reader, count, |[row, col, level]: [u8; 3]| {
                let level = level.cast_signed();
                let sign = if level < 0 { LEVEL_SIGN } else { 0 };
                Entry { row, col, code: u32::from(level.unsigned_abs()) | sign }
            }),
            #[cfg(feature = "entropy")]
            HybridFormat::Entropy => self.read_words(&mut reader, count),
        }?;
        let magnitude = self.reach();
        if magnitude > REACH_MAX {
            return Err(HybridError::Range { offset: start, magnitude, max: REACH_MAX });
        }
        Ok(reader.offset)
    }

    /// Bounds every value, and every sum on the way to it: the smooth functions are at most 2 and the products of two
    /// orthonormal vectors' entries at most 1.
    pub(super) fn reach(&self) -> f64 {
        let weights = self.weights.iter().map(|w| 2.0 * f64::from(w.abs())).sum::<f64>();
        let coarse = weights + self.entries.len() as f64 * self.spec.format.largest(self.scale);
        if coarse <= REACH_MAX {
            return coarse;
        }
        weights + self.coefficients().map(|c| f64::from(c.value.abs())).sum::<f64>()
    }

    fn read_count(&self, reader: &mut Reader<'_>) -> Result<usize, HybridError> {
        let offset = reader.offset;
        let count = reader.number(count_width(&self.spec))?;
        let max = self.spec.count_max();
        if count > max { Err(HybridError::Count { offset, count, max }) } else { Ok(count) }
    }

    #[inline(always)]
    fn read_entries<const N: usize>(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
        entry: impl Fn([u8; N]) -> Entry,
    ) -> Result<(), HybridError> {
        let first = reader.offset;
        let bytes = reader.take(count * N)?;
        let (rows, cols) = (self.spec.rows, self.spec.cols);
        let mut last = None;
        self.entries.reserve_exact(count);
        for (k, &bytes) in bytes.as_chunks::<N>().0.iter().enumerate() {
            let (offset, entry) = (first + k * N, entry(bytes));
            let (row, col) = (usize::from(entry.row), usize::from(entry.col));
            if row >= rows || col >= cols {
                return Err(HybridError::Position { offset, row, col, rows, cols });
            }
            if last >= Some(entry.position()) {
                return Err(HybridError::Order { offset, row, col });
            }
            if !self.spec.format.code_is_valid(entry.code) {
                return Err(HybridError::Reserved { offset, code: entry.code });
            }
            last = Some(entry.position());
            self.entries.push(entry);
        }
        Ok(())
    }

    #[cfg(feature = "entropy")]
    fn read_words(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), HybridError> {
        let words = reader.number(words_width(&self.spec))?;
        let offset = reader.offset;
        // Every coefficient has a sign, a bit that no model makes cheaper.
        let max = words.saturating_mul(16);
        if count > max {
            return Err(HybridError::Count { offset, count, max });
        }
        let bytes = reader.take(words.saturating_mul(2))?;
        let words: Vec<u16> = bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
        entropy::decode(&self.spec, &words, count, &mut self.entries).map_err(|coefficient| HybridError::Words {
            offset,
            coefficient,
            count,
        })
    }
}

/// Most that twice the magnitudes of a block's weights and once those of its coefficients may come to: half of what an
/// `f32` holds, so that no value and no sum on the way to it is infinite, however it is rounded.
pub const REACH_MAX: f64 = f32::MAX as f64 / 2.0;

/// Bytes of K.
const fn count_width(spec: &HybridSpec) -> usize {
    if spec.rows * spec.cols <= u8::MAX as usize { 1 } else { 2 }
}

/// Bytes of the number of range-coded words: a coefficient takes less than 4 of them.
#[cfg(feature = "entropy")]
const fn words_width(spec: &HybridSpec) -> usize {
    if spec.rows * spec.cols <= 1 << 14 { 2 } else { 4 }
}

fn put_number(out: &mut Vec<u8>, number: usize, width: usize) {
    let number = u32::try_from(number).expect("counts are bounded by the block");
    out.extend_from_slice(&number.to_le_bytes()[..width]);
}

fn put_entry(out: &mut Vec<u8>, format: HybridFormat, Entry { row, col, code }: Entry) {
    let packed = |shift: u32| u32::from(row) << (shift + 6) | u32::from(col) << shift | code;
    let [low, high, ..] = code.to_le_bytes();
    match format {
        HybridFormat::Plain => out.extend_from_slice(&[row, col, low, high]),
        HybridFormat::Packed32 => out.extend_from_slice(&packed(20).to_le_bytes()),
        HybridFormat::Packed24 => out.extend_from_slice(&packed(12).to_le_bytes()[..3]),
        HybridFormat::MuLaw => {
            out.extend_from_slice(&[row, col, if code & LEVEL_SIGN == 0 { low } else { low.wrapping_neg() }]);
        }
        #[cfg(feature = "entropy")]
        HybridFormat::Entropy => unreachable!("range-coded together"),
    }
}

#[inline(always)]
const fn six_bits(word: u32) -> u8 {
    (word & 0x3f) as u8
}

/// Bytes and the offset of the first that is not read yet.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, needed: usize) -> Result<&'a [u8], HybridError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let Some(taken) = rest.get(..needed) else {
            return Err(HybridError::Truncated { offset: self.offset, needed, bytes: self.bytes.len() });
        };
        self.offset += needed;
        Ok(taken)
    }

    fn float(&mut self, least: f32) -> Result<f32, HybridError> {
        let offset = self.offset;
        let value = self.take(4)?.first_chunk().map_or(f32::NAN, |&bytes| f32::from_le_bytes(bytes));
        if value.is_finite() && value >= least { Ok(value) } else { Err(HybridError::Float { offset, value }) }
    }

    fn number(&mut self, width: usize) -> Result<usize, HybridError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }
}
