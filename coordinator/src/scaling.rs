//! The scales of the way up: how the wire, the codec and the engine's correction speak of them.

use packfed_codec::Scales;
use packfed_protocol::LaneScales;

/// A clipped share above this doubles a scale.
const CLIPPED_HIGH: f64 = 0.01;
/// A scale is halved when no lane uses more than this share of the range.
const USED_LOW: f64 = 0.375;

/// Doubles scales that clip too much and halves those whose range is wasted. `clipped` and `used` are
/// shares of each layer's lanes and range, wave then residual.
pub(crate) fn corrected(scales: &[LaneScales], clipped: &[[f64; 2]], used: &[[f64; 2]]) -> Vec<LaneScales> {
    let correct = |exponent: i8, clipped: f64, used: f64| {
        let change = i8::from(clipped > CLIPPED_HIGH) - i8::from(used < USED_LOW);
        (exponent + change).clamp(*Scales::EXPONENTS.start(), *Scales::EXPONENTS.end())
    };
    let layer = |((scales, clipped), used): ((&LaneScales, &[f64; 2]), &[f64; 2])| LaneScales {
        wave: correct(scales.wave, clipped[0], used[0]),
        residual: correct(scales.residual, clipped[1], used[1]),
    };
    scales.iter().zip(clipped).zip(used).map(layer).collect()
}

/// Scales as the wire has them.
pub(crate) fn wire_scales(scales: &[Scales]) -> Vec<LaneScales> {
    scales.iter().map(|s| LaneScales { wave: s.wave, residual: s.residual }).collect()
}

/// Scales as the codec has them.
pub(crate) fn codec_scales(scales: &[LaneScales]) -> Vec<Scales> {
    scales.iter().map(|s| Scales { wave: s.wave, residual: s.residual }).collect()
}
