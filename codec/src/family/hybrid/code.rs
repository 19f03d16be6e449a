//! One coefficient value as the few bits that a format keeps of it.
//!
//! Every code has one value; the nearest code of that value is the code again, but for the two zeros of a float.
//! It knows neither positions nor bytes.

use half::f16;

use super::error::HybridError;
use super::format::HybridFormat;
use crate::scalar::Scalar;

/// Bits of the short floats: the top of an `f32` and of an `f16`.
const BITS_20_DROPPED: u32 = 12;
const BITS_12_DROPPED: u32 = 4;
const INFINITY_20: u32 = f32::INFINITY.to_bits() >> BITS_20_DROPPED;
const INFINITY_12: u32 = f16::INFINITY.to_bits() as u32 >> BITS_12_DROPPED;
const SIGN_20: u32 = 1 << 19;
const SIGN_12: u32 = 1 << 11;
const SIGN_16: u32 = 1 << 15;

/// Codes of a sign-magnitude level: bit 31 is the sign, as [`HybridFormat::MuLaw`] and the range-coded form use it.
pub(super) const LEVEL_SIGN: u32 = 1 << 31;
/// Largest level of the range-coded form.
#[cfg(feature = "entropy")]
pub(super) const LEVEL_MAX: u32 = u16::MAX as u32;
/// Largest μ-law level.
const MU_LEVELS: u32 = 127;
/// `μ + 1`, with the μ = 255 of ITU-T G.711.
const MU_BASE: f64 = 256.0;
/// `256^(1/127)`.
const MU_RATIO: f64 = 1.044_630_061_412_595_5;
/// The expanded levels `(256^(n/127) − 1)/255`, by products alone so that every machine has the same bits.
const MU_LAW: [f32; MU_LEVELS as usize + 1] = mu_law();

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
const fn mu_law() -> [f32; MU_LEVELS as usize + 1] {
    let mut table = [0.0; MU_LEVELS as usize + 1];
    let (mut power, mut n) = (1.0, 0);
    while n < MU_LEVELS as usize {
        table[n] = ((power - 1.0) / (MU_BASE - 1.0)) as f32;
        power *= MU_RATIO;
        n += 1;
    }
    table[n] = 1.0;
    table
}

impl HybridFormat {
    /// The value of a code that [`HybridFormat::code_is_valid`]; `scale` is 1 for formats without one.
    #[inline(always)]
    pub(super) fn value(self, code: u32, scale: f32) -> f32 {
        match self {
            Self::Plain => f16::from_bits((code & 0xffff) as u16).to_f32(),
            Self::Packed32 => f32::from_bits(code << BITS_20_DROPPED),
            Self::Packed24 => f16::from_bits((code << BITS_12_DROPPED & 0xffff) as u16).to_f32(),
            Self::MuLaw => signed(code, scale * MU_LAW[(code & MU_LEVELS) as usize]),
            #[cfg(feature = "entropy")]
            Self::Entropy => signed(code, scale * level_to_f32(code & LEVEL_MAX)),
        }
    }

    /// Whether a code is one that an encoder writes: a finite float, or a level in range.
    #[inline(always)]
    pub(super) const fn code_is_valid(self, code: u32) -> bool {
        match self {
            Self::Plain => code & !SIGN_16 < f16::INFINITY.to_bits() as u32,
            Self::Packed32 => code & !SIGN_20 < INFINITY_20,
            Self::Packed24 => code & !SIGN_12 < INFINITY_12,
            Self::MuLaw => code & !LEVEL_SIGN <= MU_LEVELS && code != LEVEL_SIGN,
            #[cfg(feature = "entropy")]
            Self::Entropy => code & !LEVEL_SIGN <= LEVEL_MAX && code & !LEVEL_SIGN > 0,
        }
    }

    /// The code of the nearest value, or none for a value that rounds to zero.
    ///
    /// # Errors
    /// If the value is above the format's largest.
    pub(super) fn code(self, value: f64, scale: f32) -> Result<Option<u32>, HybridError> {
        let code = match self {
            Self::Plain => u32::from(f16::from_f64(value).to_bits()),
            Self::Packed32 => {
                let low = f32::from_f64(value).to_bits() >> BITS_20_DROPPED;
                nearer(low, f32::from_bits(low << BITS_20_DROPPED | 1 << (BITS_20_DROPPED - 1)), value)
            }
            Self::Packed24 => {
                let low = f16::from_f64(value).to_bits() >> BITS_12_DROPPED;
                nearer(low.into(), f16::from_bits(low << BITS_12_DROPPED | 1 << (BITS_12_DROPPED - 1)).into(), value)
            }
            Self::MuLaw => with_sign(value, nearest_mu_level(value.abs() / f64::from(scale))),
            #[cfg(feature = "entropy")]
            Self::Entropy => with_sign(value, nearest_level(value.abs() / f64::from(scale))),
        };
        if self.value(code, scale) == 0.0 {
            return Ok(None);
        }
        if !self.code_is_valid(code) {
            return Err(HybridError::Magnitude { magnitude: value.abs(), max: self.largest(scale) });
        }
        Ok(Some(code))
    }

    pub(super) fn largest(self, scale: f32) -> f64 {
        f64::from(match self {
            Self::Plain => f16::MAX.to_f32(),
            Self::Packed32 => self.value(INFINITY_20 - 1, scale),
            Self::Packed24 => self.value(INFINITY_12 - 1, scale),
            Self::MuLaw => scale,
            #[cfg(feature = "entropy")]
            Self::Entropy => self.value(LEVEL_MAX, scale),
        })
    }

    /// The scale that suits magnitudes between bounds: the upper one for μ-law; for the range-coded form a step of half
    /// the lower, so that the levels' error stays small against what was left out. Never subnormal.
    pub(super) fn scale_for(self, bounds: (f64, f64)) -> f32 {
        let scale = match self {
            Self::Plain | Self::Packed32 | Self::Packed24 => 1.0,
            Self::MuLaw => bounds.1,
            #[cfg(feature = "entropy")]
            Self::Entropy => (bounds.0 / 2.0).max(bounds.1 / f64::from(LEVEL_MAX - 1)),
        };
        f32::from_f64(scale).max(f32::MIN_POSITIVE)
    }
}

/// The code `low` or the next, whichever is nearer to a value that lies about them; `middle` is half-way, ties to
/// even. A carry into the exponent is the right one.
fn nearer(low: u32, middle: f32, value: f64) -> u32 {
    let (middle, value) = (f64::from(middle).abs(), value.abs());
    low + u32::from(value > middle || value == middle && low % 2 == 1)
}

#[inline(always)]
const fn signed(code: u32, magnitude: f32) -> f32 {
    if code & LEVEL_SIGN == 0 { magnitude } else { -magnitude }
}

const fn with_sign(value: f64, level: u32) -> u32 {
    if value < 0.0 { level | LEVEL_SIGN } else { level }
}

fn nearest_mu_level(share: f64) -> u32 {
    let above = MU_LAW.partition_point(|&level| f64::from(level) < share).min(MU_LEVELS as usize);
    let below = above.saturating_sub(1);
    let nearer = share - f64::from(MU_LAW[below]) < f64::from(MU_LAW[above]) - share;
    u32::try_from(if nearer { below } else { above }).expect("a level is at most 127")
}

#[cfg(feature = "entropy")]
#[expect(clippy::cast_precision_loss, reason = "16 bits are exact in an f32")]
const fn level_to_f32(level: u32) -> f32 {
    level as f32
}

#[cfg(feature = "entropy")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quotient of magnitudes, saturating")]
fn nearest_level(share: f64) -> u32 {
    (share.round() as u32).min(!LEVEL_SIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(format: HybridFormat) -> Vec<u32> {
        let magnitudes = match format {
            HybridFormat::Plain => 1 << 16,
            HybridFormat::Packed32 => 1 << 20,
            HybridFormat::Packed24 => 1 << 12,
            HybridFormat::MuLaw => 128,
            #[cfg(feature = "entropy")]
            HybridFormat::Entropy => 1 << 16,
        };
        let all = (0..magnitudes).flat_map(|code| [code, code | LEVEL_SIGN]);
        all.filter(|&code| format.has_scale() || code & LEVEL_SIGN == 0)
            .filter(|&code| format.code_is_valid(code))
            .collect()
    }

    #[test]
    fn every_code_is_the_nearest_of_its_own_value() {
        for (format, scale) in HybridFormat::ALL.iter().flat_map(|&f| [1.0, 0.003, 1e6].map(|scale| (f, scale))) {
            for code in codes(format) {
                let value = format.value(code, scale);
                let expected = if value == 0.0 { None } else { Some(code) };
                assert_eq!(format.code(value.into(), scale), Ok(expected), "{format:?} {code:#x} at {scale}");
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest() {
        for &format in HybridFormat::ALL {
            let tolerance = match format {
                HybridFormat::Plain => 0.5f64.powi(11),
                HybridFormat::Packed32 => 0.5f64.powi(12),
                HybridFormat::Packed24 => 0.5f64.powi(7),
                HybridFormat::MuLaw => 0.03,
                #[cfg(feature = "entropy")]
                HybridFormat::Entropy => 0.5 / 30.0,
            };
            for n in 1..2_000 {
                let value = -0.3 - 0.000_313 * f64::from(n);
                let scale = format.scale_for((0.02, 1.0));
                let code = format.code(value, scale).unwrap().unwrap();
                let found = f64::from(format.value(code, scale));
                assert!((found - value).abs() <= tolerance * value.abs() * 1.001, "{format:?}: {value} → {found}");
            }
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_with_its_bound() {
        assert_eq!(
            HybridFormat::Plain.code(-1e6, 1.0),
            Err(HybridError::Magnitude { magnitude: 1e6, max: f64::from(f16::MAX) })
        );
        assert!(matches!(
            HybridFormat::Packed24.code(65_400.0, 1.0),
            Err(HybridError::Magnitude { max: 65_024.0, .. })
        ));
        assert!(matches!(HybridFormat::Packed32.code(1e39, 1.0), Err(HybridError::Magnitude { .. })));
        assert_eq!(HybridFormat::Plain.code(1e-9, 1.0), Ok(None));
    }

    #[test]
    fn mu_law_levels_follow_their_formula() {
        for (n, &level) in MU_LAW.iter().enumerate() {
            let exact = (MU_BASE.powf(n as f64 / 127.0) - 1.0) / 255.0;
            assert!((f64::from(level) - exact).abs() < 1e-7, "level {n}");
        }
    }
}
