//! How far one update reaches: its largest lanes and its norm, for whoever has to bound both.

use crate::layout::{Layout, WAVE_LANES};
use crate::pack::check_once;
use crate::quantize::{EncodeError, Scales, check_scales};
use crate::state::QUANTUM_EXPONENT;
use crate::word::{NIBBLE_WIDTH, Nibble, PLAIN_WIDTH, Packing, Plain, Profile, WORD_BYTES, Word};

/// The share of an update that is not shrunk: shares are sixteen bits behind the point.
pub const WHOLE: u32 = 1 << 16;

/// The extent of one update, exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    peaks: Vec<[u32; 2]>,
    /// In units of a squared quantum.
    square: u128,
}

impl Extent {
    /// Measures an update, and checks that its words fit the layout.
    ///
    /// # Errors
    /// If the words or the scales do not fit the layout.
    pub fn of(layout: &Layout, profile: Profile, scales: &[Scales], words: &[u8]) -> Result<Self, EncodeError> {
        check_scales(layout, scales)?;
        let (mut chunks, rest) = words.as_chunks::<WORD_BYTES>();
        if chunks.len() != layout.blocks() || !rest.is_empty() {
            return Err(EncodeError::WordBytes { found: words.len(), blocks: layout.blocks() });
        }
        check_once(layout, profile, chunks)?;
        let mut extent = Self { peaks: Vec::with_capacity(layout.layers().len()), square: 0 };
        for (layer, scales) in layout.layers().iter().zip(scales) {
            let words = chunks.split_off(..layer.blocks().len()).expect("one word a block");
            let run = Measure { profile, words };
            let Measured { peaks, squares: [wave, residual] } = pulp::Arch::new().dispatch(run);
            extent.peaks.push(peaks);
            extent.square += in_quanta(wave, scales.wave) + in_quanta(residual, scales.residual);
        }
        Ok(extent)
    }

    /// Largest magnitude of any lane, for each layer: of the wave, and of the residual.
    #[must_use]
    pub fn peaks(&self) -> &[[u32; 2]] {
        &self.peaks
    }

    /// The Euclidean norm: the Frobenius norm of the delta.
    #[must_use]
    pub fn norm(&self) -> f64 {
        (self.square as f64).sqrt() * 2f64.powi(QUANTUM_EXPONENT.into())
    }

    /// The share of [`WHOLE`] at which the update is no longer than `norm`, rounded down. It comes of correctly rounded
    /// operations alone, so it is the same on every machine.
    #[must_use]
    pub fn share(&self, norm: f64) -> u32 {
        let own = self.norm();
        if own <= norm {
            return WHOLE;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^16")]
        let share = (f64::from(WHOLE) * (norm / own)) as u32;
        share
    }
}

/// A sum of squares at a scale, in squared quanta. At most `2³⁰` lanes of `2³⁰` at `2⁵⁶`: it fits.
pub(super) fn in_quanta(squares: u64, exponent: i8) -> u128 {
    let above = u32::try_from(exponent - QUANTUM_EXPONENT).expect("scales are checked to be at least the quantum");
    u128::from(squares) << (2 * above)
}

/// Measures one layer's words; compiled for every instruction set.
struct Measure<'a> {
    profile: Profile,
    words: &'a [Word],
}

struct Measured {
    peaks: [u32; 2],
    /// Of the wave and of the residual.
    squares: [u64; 2],
}

impl pulp::WithSimd for Measure<'_> {
    type Output = Measured;

    #[inline(always)]
    fn with_simd<V: pulp::Simd>(self, _: V) -> Measured {
        match self.profile {
            Profile::Plain => measure::<Plain, PLAIN_WIDTH>(self.words),
            Profile::Nibble => measure::<Nibble, NIBBLE_WIDTH>(self.words),
        }
    }
}

/// Words whose squares are summed in 32 bits: `2¹⁶·2¹⁴` is below `2³²`.
const STRETCH: usize = 1 << 16;

#[inline(always)]
fn measure<P: Packing<W>, const W: usize>(words: &[Word]) -> Measured {
    let (mut peaks, mut wave, mut residual) = ([0u32; W], 0, 0);
    for stretch in words.chunks(STRETCH) {
        let mut squares = [0u32; W];
        for word in stretch {
            let lanes = P::unpack(word);
            for ((peak, square), q) in peaks.iter_mut().zip(&mut squares).zip(lanes) {
                let magnitude = q.unsigned_abs();
                *peak = (*peak).max(magnitude);
                // A wave's squares wrap here and are summed below.
                *square = square.wrapping_add(magnitude.wrapping_mul(magnitude));
            }
            wave += lanes[..WAVE_LANES].iter().map(|&q| u64::from(q.unsigned_abs()).pow(2)).sum::<u64>();
        }
        residual += squares[WAVE_LANES..].iter().map(|&square| u64::from(square)).sum::<u64>();
    }
    let largest = |lanes: &[u32]| lanes.iter().copied().max().unwrap_or(0);
    Measured { peaks: [largest(&peaks[..WAVE_LANES]), largest(&peaks[WAVE_LANES..])], squares: [wave, residual] }
}
