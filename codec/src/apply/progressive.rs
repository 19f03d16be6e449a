//! A layer's lanes by bit-planes: the high bits of every coefficient first, the rest if the caller asks.
//!
//! ```text
//!  [version 1: u8][planes P: u8][wave exponent: i8][residual exponent: i8][lanes n: u32]   little-endian
//!  [signs: ⌈n/8⌉] [plane 0: ⌈n/8⌉] [plane 1: ⌈n/8⌉] … [plane P−1: ⌈n/8⌉]      lane l is bit l%8 of byte l/8
//! ```
//!
//! A lane is a sign and a magnitude `m·2^(E−P)`, `m` below `2^P` and rounded to nearest; E is one for the
//! waves and one for the residuals. Plane k holds the bit of weight `2^(E−k−1)`. Any prefix that holds the signs
//! is an approximation: after k planes, with step `s = 2^(E−k)` and quantum `q = 2^(E−P)`, a lane whose bits
//! are zero so far reads as 0 and errs by at most `s − q/2`; any other reads as the middle of what its
//! bits leave open and errs by at most `s/2`. (Embedded coding by planes with a dead zone: J. M. Shapiro,
//! *Embedded Image Coding Using Zerotrees of Wavelet Coefficients*, 1993, without the trees: drawn
//! positions have no neighbours.)
//!
//! **From lanes to Δ.** The residual's basis is orthonormal, and so is a drawn wave's pair: u and v are
//! below their edges and not both 0, so `Σ cos 2φ = Σ sin 2φ = 0` over the block. (A 1×1 block's wave is a
//! constant of norm 1 in x and nothing in y.) Hence
//! `‖error‖_F ≤ ‖wave lanes' error‖ + ‖residual lanes' error‖`, over the whole layer as its blocks do not
//! overlap; the two bases are not orthogonal to one another, so it is the sum, at most √2 of their joint norm.
//!
//! It does not apply Δ: [`Direct`](crate::Direct) does, with the lanes that this reads.

use std::ops::Range;

use thiserror::Error;

use crate::layout::{Layer, WAVE_LANES};
use crate::scalar::Scalar;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// Most planes: a magnitude is a `u32`, and its middle exact in an `f64`.
const PLANES_MAX: u8 = 31;
/// Exponents of a lane kind; `2^32` is beyond any lane of a state.
const EXPONENT_MAX: i8 = 32;

/// Why lanes cannot be coded, or bytes are not this layer's planes.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum PlaneError {
    /// A lane is not finite, or too large.
    #[error("lane {lane} is {value}, allowed is ±2^{EXPONENT_MAX}")]
    Lane {
        /// Lane of the layer.
        lane: usize,
        /// Its value.
        value: f64,
    },
    /// The number of planes asked for is out of bounds.
    #[error("{planes} planes, allowed are 1 to {PLANES_MAX}")]
    Planes {
        /// Planes asked for.
        planes: u8,
    },
    /// The prefix ends before the signs do.
    #[error("the prefix ends at byte {offset}, header and signs take {needed}")]
    Truncated {
        /// Bytes given.
        offset: usize,
        /// Least bytes needed.
        needed: usize,
    },
    /// A byte of the header is out of its bounds.
    #[error("byte {offset} is {value}, allowed is {min} to {max}")]
    Header {
        /// Offset of the byte.
        offset: usize,
        /// Its value.
        value: i16,
        /// Least allowed.
        min: i16,
        /// Most allowed.
        max: i16,
    },
    /// The planes are of another number of lanes than the layer's.
    #[error("byte {offset} says {found} lanes, the layer has {lanes}")]
    Lanes {
        /// Offset of the number.
        offset: usize,
        /// Lanes it says.
        found: u32,
        /// Lanes of the layer.
        lanes: usize,
    },
    /// A bit behind the last lane is set.
    #[error("byte {offset} is {value:#04x}, only its low {bits} bits belong to lanes")]
    Padding {
        /// Offset of the byte.
        offset: usize,
        /// Its value.
        value: u8,
        /// Bits that belong to lanes.
        bits: usize,
    },
    /// A plane of another length than the layer's.
    #[error("the plane at byte {offset} has {found} bytes, a plane takes {expected}")]
    PlaneLength {
        /// Where the plane begins.
        offset: usize,
        /// Its bytes.
        found: usize,
        /// What it takes.
        expected: usize,
    },
    /// Bytes follow the last plane.
    #[error("{bytes} bytes are left over at byte {offset}, after the last of {planes} planes")]
    LeftOver {
        /// Where the planes end.
        offset: usize,
        /// Bytes beyond.
        bytes: usize,
        /// Planes there are.
        planes: u8,
    },
}

/// Proven bounds of what the planes not yet read can change, rounding to the last plane included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Of the error of any one lane.
    pub lane: f64,
    /// Of the Frobenius norm of Δ's error.
    pub frobenius: f64,
}

/// The two kinds of lanes, which have one exponent each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Wave,
    Residual,
}

/// A layer as far as its planes were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Progressive {
    planes: u8,
    read: u8,
    wave_exponent: i8,
    residual_exponent: i8,
    signs: Vec<u8>,
    /// The bits read of every lane.
    magnitudes: Vec<u32>,
    /// Where each block's lanes begin.
    starts: Vec<usize>,
}

/// Codes a layer's lanes, in the order of the state, in `planes` bit-planes.
///
/// # Errors
/// If the number of planes is not in `1..=31`, or a lane is not finite or not below `2^32`.
///
/// # Panics
/// If `lanes` is not the layer's.
pub fn encode_planes<S: Scalar>(layer: &Layer, lanes: &[S], planes: u8) -> Result<Vec<u8>, PlaneError> {
    assert_eq!(lanes.len(), layer.lanes().len(), "one value a lane");
    if !(1..=PLANES_MAX).contains(&planes) {
        return Err(PlaneError::Planes { planes });
    }
    let kinds = kinds(&starts(layer), lanes.len());
    let wave_exponent = exponent(lanes, &kinds, Kind::Wave, planes)?;
    let residual_exponent = exponent(lanes, &kinds, Kind::Residual, planes)?;
    let magnitudes = lanes.iter().zip(&kinds).map(|(&lane, &kind)| {
        let exponent = if kind == Kind::Wave { wave_exponent } else { residual_exponent };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the exponent keeps it below 2^31")]
        let magnitude = magnitude(lane.to_f64(), exponent, planes) as u32;
        magnitude
    });
    let magnitudes: Vec<u32> = magnitudes.collect();
    let count = u32::try_from(lanes.len()).expect("a layout has at most 2^30 lanes");
    let mut bytes = vec![VERSION, planes, wave_exponent.cast_unsigned(), residual_exponent.cast_unsigned()];
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend(pack(lanes.iter().map(|lane| lane.to_f64() < 0.0)));
    for plane in (0..planes).rev() {
        bytes.extend(pack(magnitudes.iter().map(|magnitude| magnitude >> plane & 1 == 1)));
    }
    Ok(bytes)
}

impl Progressive {
    /// Reads a prefix of [`encode_planes`]: every whole plane in it; a plane cut short waits for
    /// [`Progressive::refine`]. Allocates four bytes and one bit a lane and eight bytes a block of the layer, and nothing before the
    /// header has been checked.
    ///
    /// # Errors
    /// If the prefix is not one of this layer's, or ends before the signs do.
    pub fn decode(layer: &Layer, prefix: &[u8]) -> Result<Self, PlaneError> {
        let lanes = layer.lanes().len();
        let width = lanes.div_ceil(8);
        let (header, rest) = prefix
            .split_first_chunk::<HEADER_BYTES>()
            .filter(|(_, rest)| rest.len() >= width)
            .ok_or(PlaneError::Truncated { offset: prefix.len(), needed: HEADER_BYTES + width })?;
        let [version, planes, wave, residual, count @ ..] = *header;
        header_byte(0, version.into(), VERSION.into(), VERSION.into())?;
        header_byte(1, planes.into(), 1, PLANES_MAX.into())?;
        let (wave_exponent, residual_exponent) = (wave.cast_signed(), residual.cast_signed());
        header_byte(2, wave_exponent.into(), (-EXPONENT_MAX).into(), EXPONENT_MAX.into())?;
        header_byte(3, residual_exponent.into(), (-EXPONENT_MAX).into(), EXPONENT_MAX.into())?;
        let found = u32::from_le_bytes(count);
        if usize::try_from(found) != Ok(lanes) {
            return Err(PlaneError::Lanes { offset: 4, found, lanes });
        }
        let end = HEADER_BYTES + width * (1 + usize::from(planes));
        if prefix.len() > end {
            return Err(PlaneError::LeftOver { offset: end, bytes: prefix.len() - end, planes });
        }
        let (signs, rest) = rest.split_at(width);
        check_padding(HEADER_BYTES, signs, lanes)?;
        let mut progressive = Self {
            planes,
            read: 0,
            wave_exponent,
            residual_exponent,
            signs: signs.to_vec(),
            magnitudes: vec![0; lanes],
            starts: starts(layer),
        };
        rest.chunks_exact(width).try_for_each(|plane| progressive.refine(plane))?;
        Ok(progressive)
    }

    /// Reads the next plane; on an error nothing has changed.
    ///
    /// # Errors
    /// If the plane is of another length, has bits behind the last lane, or none is left to read.
    pub fn refine(&mut self, plane: &[u8]) -> Result<(), PlaneError> {
        let range = self.plane_range(self.read);
        if self.read == self.planes {
            return Err(PlaneError::LeftOver { offset: range.start, bytes: plane.len(), planes: self.planes });
        }
        if plane.len() != range.len() {
            return Err(PlaneError::PlaneLength { offset: range.start, found: plane.len(), expected: range.len() });
        }
        check_padding(range.start, plane, self.magnitudes.len())?;
        for (lane, magnitude) in self.magnitudes.iter_mut().enumerate() {
            *magnitude = *magnitude << 1 | u32::from(bit(plane, lane));
        }
        self.read += 1;
        Ok(())
    }

    /// Planes that were read, and that there are.
    #[must_use]
    pub const fn planes(&self) -> (u8, u8) {
        (self.read, self.planes)
    }

    /// Where a plane stands in the encoding; a prefix up to its end holds it and all before it.
    #[must_use]
    pub const fn plane_range(&self, plane: u8) -> Range<usize> {
        let width = self.signs.len();
        let start = HEADER_BYTES + width * (1 + plane as usize);
        start..start + width
    }

    /// The lanes as far as they are known, in the order of the state; exact in `f64`, and in `f32` up to 23 planes.
    #[must_use]
    pub fn lanes<S: Scalar>(&self) -> Vec<S> {
        let kinds = kinds(&self.starts, self.magnitudes.len());
        let known = self.magnitudes.iter().zip(kinds).enumerate().map(|(lane, (&magnitude, kind))| {
            let (step, quantum) = self.step_and_quantum(kind, self.read);
            let middle = if magnitude == 0 { 0.0 } else { f64::from(magnitude) * step + (step - quantum) / 2.0 };
            S::from_f64(if bit(&self.signs, lane) { -middle } else { middle })
        });
        known.collect()
    }

    /// What is known of the error now, knowing which lanes are still zero.
    #[must_use]
    pub fn bound(&self) -> Bound {
        self.bound_of(self.read, |magnitude| magnitude == 0)
    }

    /// What can be said of the error after a number of planes (at most all of them) before reading them.
    #[must_use]
    pub fn bound_after(&self, planes: u8) -> Bound {
        self.bound_of(planes.min(self.planes), |_| true)
    }

    fn bound_of(&self, planes: u8, zero: impl Fn(u32) -> bool) -> Bound {
        let kinds = kinds(&self.starts, self.magnitudes.len());
        let mut bound = Bound { lane: 0.0, frobenius: 0.0 };
        for kind in [Kind::Wave, Kind::Residual] {
            let (step, quantum) = self.step_and_quantum(kind, planes);
            let of_kind = self.magnitudes.iter().zip(&kinds).filter(|&(_, &k)| k == kind);
            let (zeros, others) =
                of_kind.fold(
                    (0u32, 0u32),
                    |(zeros, others), (&magnitude, _)| {
                        if zero(magnitude) { (zeros + 1, others) } else { (zeros, others + 1) }
                    },
                );
            let (of_zero, of_other) = (step - quantum / 2.0, step / 2.0);
            let largest = if zeros > 0 {
                of_zero
            } else if others > 0 {
                of_other
            } else {
                0.0
            };
            bound.lane = bound.lane.max(largest);
            bound.frobenius += (f64::from(zeros) * of_zero.powi(2) + f64::from(others) * of_other.powi(2)).sqrt();
        }
        bound
    }

    fn step_and_quantum(&self, kind: Kind, planes: u8) -> (f64, f64) {
        let exponent = i32::from(if kind == Kind::Wave { self.wave_exponent } else { self.residual_exponent });
        (2f64.powi(exponent - i32::from(planes)), 2f64.powi(exponent - i32::from(self.planes)))
    }
}

fn starts(layer: &Layer) -> Vec<usize> {
    layer.blocks().iter().map(|block| block.lane).collect()
}

/// The kind of every lane: a block's first two are its wave's.
fn kinds(starts: &[usize], lanes: usize) -> Vec<Kind> {
    let mut kinds = vec![Kind::Residual; lanes];
    for &start in starts {
        kinds[start..start + WAVE_LANES].fill(Kind::Wave);
    }
    kinds
}

/// The least exponent with which every lane of a kind rounds to less than `2^planes`.
fn exponent<S: Scalar>(lanes: &[S], kinds: &[Kind], of: Kind, planes: u8) -> Result<i8, PlaneError> {
    let mut exponent = -EXPONENT_MAX;
    for (lane, value) in lanes.iter().zip(kinds).enumerate().filter(|&(_, (_, &kind))| kind == of) {
        let value = value.0.to_f64();
        while value.is_nan() || magnitude(value, exponent, planes) >= 2f64.powi(planes.into()) {
            if exponent == EXPONENT_MAX || !value.is_finite() {
                return Err(PlaneError::Lane { lane, value });
            }
            exponent += 1;
        }
    }
    Ok(exponent)
}

fn magnitude(value: f64, exponent: i8, planes: u8) -> f64 {
    (value.abs() * 2f64.powi(i32::from(planes) - i32::from(exponent))).round()
}

fn pack(bits: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bits.size_hint().0.div_ceil(8));
    for (lane, bit) in bits.enumerate() {
        if lane % 8 == 0 {
            bytes.push(0);
        }
        bytes[lane / 8] |= u8::from(bit) << (lane % 8);
    }
    bytes
}

fn bit(plane: &[u8], lane: usize) -> bool {
    plane[lane / 8] >> (lane % 8) & 1 == 1
}

fn header_byte(offset: usize, value: i16, min: i16, max: i16) -> Result<(), PlaneError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(PlaneError::Header { offset, value, min, max }) }
}

fn check_padding(offset: usize, plane: &[u8], lanes: usize) -> Result<(), PlaneError> {
    match plane.last() {
        Some(&value) if !lanes.is_multiple_of(8) && value >> (lanes % 8) != 0 => {
            Err(PlaneError::Padding { offset: offset + plane.len() - 1, value, bits: lanes % 8 })
        }
        _ => Ok(()),
    }
}
