//! Slot values to words and back, a layer at a time: the kernels behind [`Encoder`].
//!
//! Blocks that use every lane of a word, nearly all of them, go through loops that are compiled for one
//! profile and vectorise; the few that do not are padded. Arithmetic is in f64 and scales are powers of two,
//! so every instruction set gives the same bits. It checks nothing: the encoder has.

use pulp::{Simd, WithSimd};

use crate::layout::{Layout, WAVE_LANES};
use crate::quantize::{Clips, EncodeError, Encoded, Encoder, Scales};
use crate::scalar::Scalar;
use crate::seed::Stream;
use crate::window::Window;
use crate::word::{NIBBLE_WIDTH, Nibble, PLAIN_WIDTH, Packing, Plain, Profile, WIDTH_MAX, WORD_BYTES, Word};

/// How a scaled value becomes an integer.
pub(crate) enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    /// `⌊v + u⌋` with 32 random bits a lane.
    Stochastic(Box<Stream>),
}

/// Blocks whose random bits are drawn at once.
const TOGETHER: usize = 32;

/// Adding this to a whole number below 2³¹ in magnitude leaves it in the low bits, two's complement.
const LOW_BITS: f64 = 6_755_399_441_055_744.0;

/// Packs a whole model; compiled for every instruction set.
pub(crate) struct PackLayers<'a, S> {
    pub(crate) encoder: &'a Encoder<'a>,
    pub(crate) values: &'a [S],
    pub(crate) encoded: &'a mut Encoded,
    pub(crate) rounding: Rounding,
}

impl<S: Scalar> WithSimd for PackLayers<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        match self.encoder.profile {
            Profile::Plain => self.pack::<Plain, PLAIN_WIDTH>(),
            Profile::Nibble => self.pack::<Nibble, NIBBLE_WIDTH>(),
        }
    }
}

impl<S: Scalar> PackLayers<'_, S> {
    #[inline(always)]
    fn pack<P: Packing<W>, const W: usize>(mut self) {
        let Encoder { layout, window, scales, profile } = *self.encoder;
        let mut words = self.encoded.words.as_chunks_mut::<WORD_BYTES>().0;
        let mut values = self.values.as_chunks::<W>().0;
        for ((layer, scales), clips) in layout.layers().iter().zip(scales).zip(&mut self.encoded.clips) {
            let of_layer = words.split_off_mut(..layer.blocks().len()).expect("one word a block");
            let from_layer = values.split_off(..layer.blocks().len()).expect("one set of values a block");
            let mut lanes = Lanes::<W>::new(profile, *scales);
            for (first, (words, values)) in of_layer.chunks_mut(TOGETHER).zip(from_layer.chunks(TOGETHER)).enumerate() {
                let used = |n: usize| window.lanes(&layer.blocks()[first * TOGETHER + n]).count();
                if layer.residual_min() < W - WAVE_LANES {
                    for (n, (word, values)) in words.iter_mut().zip(values).enumerate() {
                        *word = lanes.pack_short::<P, S>(values, used(n), &mut self.rounding);
                    }
                } else {
                    lanes.pack_all::<P, S>(values, words, &mut self.rounding);
                }
            }
            *clips = lanes.clips();
        }
    }
}

/// What the lanes of one layer are multiplied by and held at, and how many were.
struct Lanes<const W: usize> {
    factors: [f64; W],
    bounds: [f64; W],
    clipped: [u32; W],
    draws: [[u32; W]; TOGETHER],
}

impl<const W: usize> Lanes<W> {
    fn new(profile: Profile, scales: Scales) -> Self {
        Self {
            factors: std::array::from_fn(|lane| 2f64.powi(-i32::from(scales.exponent(lane < WAVE_LANES)))),
            bounds: std::array::from_fn(|lane| f64::from(profile.lane_max(lane))),
            clipped: [0; W],
            draws: [[0; W]; TOGETHER],
        }
    }

    #[inline(always)]
    fn pack_all<P: Packing<W>, S: Scalar>(&mut self, values: &[[S; W]], words: &mut [Word], rounding: &mut Rounding) {
        match rounding {
            Rounding::Nearest => {
                for (word, values) in words.iter_mut().zip(values) {
                    let mut rounded = self.scaled(values);
                    for value in &mut rounded {
                        *value = value.round_ties_even();
                    }
                    *word = self.pack_one::<P>(rounded);
                }
            }
            Rounding::Stochastic(stream) => {
                let mut draws = self.draws;
                stream.fill_32(draws[..values.len()].as_flattened_mut());
                for ((word, values), draws) in words.iter_mut().zip(values).zip(&draws) {
                    let mut rounded = self.scaled(values);
                    for (value, &draw) in rounded.iter_mut().zip(draws) {
                        *value = (*value + f64::from(draw) / (1u64 << 32) as f64).floor();
                    }
                    *word = self.pack_one::<P>(rounded);
                }
            }
        }
    }

    fn pack_short<P: Packing<W>, S: Scalar>(&mut self, values: &[S; W], used: usize, rounding: &mut Rounding) -> Word {
        let mut rounded = self.scaled(values);
        rounded[used..].fill(0.0);
        for value in &mut rounded[..used] {
            *value = match rounding {
                Rounding::Nearest => value.round_ties_even(),
                Rounding::Stochastic(stream) => (*value + f64::from(stream.bits_32()) / (1u64 << 32) as f64).floor(),
            };
        }
        self.pack_one::<P>(rounded)
    }

    #[inline(always)]
    fn scaled<S: Scalar>(&self, values: &[S; W]) -> [f64; W] {
        let mut scaled = self.factors;
        for (scaled, value) in scaled.iter_mut().zip(values) {
            *scaled *= value.to_f64();
        }
        scaled
    }

    #[inline(always)]
    fn pack_one<P: Packing<W>>(&mut self, rounded: [f64; W]) -> Word {
        let mut lanes = [0i32; W];
        for lane in 0..W {
            let (value, bound) = (rounded[lane], self.bounds[lane]);
            self.clipped[lane] += u32::from(value.abs() > bound);
            let [a, b, c, d, ..] = (value.clamp(-bound, bound) + LOW_BITS).to_bits().to_le_bytes();
            lanes[lane] = i32::from_le_bytes([a, b, c, d]);
        }
        P::pack(&lanes)
    }

    fn clips(&self) -> Clips {
        let (wave, residual) = self.clipped.split_at(WAVE_LANES);
        Clips { wave: wave.iter().sum(), residual: residual.iter().sum() }
    }
}

/// Unpacks a whole model to values; compiled for every instruction set.
pub(crate) struct UnpackLayers<'a> {
    pub(crate) encoder: &'a Encoder<'a>,
    pub(crate) words: &'a [Word],
    pub(crate) values: &'a mut [f32],
}

impl WithSimd for UnpackLayers<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        match self.encoder.profile {
            Profile::Plain => self.unpack::<Plain, PLAIN_WIDTH>(),
            Profile::Nibble => self.unpack::<Nibble, NIBBLE_WIDTH>(),
        }
    }
}

impl UnpackLayers<'_> {
    #[inline(always)]
    fn unpack<P: Packing<W>, const W: usize>(self) {
        let (mut words, mut values) = (self.words, self.values.as_chunks_mut::<W>().0);
        for (layer, scales) in self.encoder.layout.layers().iter().zip(self.encoder.scales) {
            let of_layer = words.split_off(..layer.blocks().len()).expect("one word a block");
            let to_layer = values.split_off_mut(..layer.blocks().len()).expect("one set of values a block");
            let factor = |lane: usize| f32::from_f64(2f64.powi(scales.exponent(lane < WAVE_LANES).into()));
            let factors: [f32; W] = std::array::from_fn(factor);
            for (word, values) in of_layer.iter().zip(to_layer) {
                for ((value, q), factor) in values.iter_mut().zip(P::unpack(word)).zip(factors) {
                    // At most 16 bits: exact.
                    #[expect(clippy::cast_precision_loss, reason = "at most 16 bits")]
                    let q = q as f32;
                    *value = q * factor;
                }
            }
        }
    }
}

/// Which blocks have fewer lanes than a word; the rest of such a word must be zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Padding {
    /// Number of the block over the whole layout, and the lanes that it uses.
    short: Vec<(usize, usize)>,
}

impl Padding {
    /// The short blocks of a layout.
    pub(crate) fn of(layout: &Layout, profile: Profile) -> Self {
        Self { short: short_blocks(layout, profile).collect() }
    }

    /// Whether every lane that no position stands behind is zero.
    pub(crate) fn check(&self, profile: Profile, words: &[Word]) -> Result<(), EncodeError> {
        check_padding(self.short.iter().copied(), profile, words)
    }
}

/// The blocks that have fewer lanes than a word, and how many they have.
fn short_blocks(layout: &Layout, profile: Profile) -> impl Iterator<Item = (usize, usize)> {
    let (window, width) = (Window::new(profile, 0), profile.width());
    let layers = layout.layers().iter().scan(0, |next, layer| {
        let first = *next;
        *next += layer.blocks().len();
        Some((first, layer))
    });
    let layers = layers.filter(move |(_, layer)| layer.residual_min() < profile.residual_lanes());
    layers.flat_map(move |(first, layer)| {
        let used = layer.blocks().iter().map(move |block| window.lanes(block).count()).enumerate();
        used.filter(move |&(_, used)| used < width).map(move |(n, used)| (first + n, used))
    })
}

/// As [`Padding::check`], for words that are looked at once.
pub(crate) fn check_once(layout: &Layout, profile: Profile, words: &[Word]) -> Result<(), EncodeError> {
    check_padding(short_blocks(layout, profile), profile, words)
}

fn check_padding(
    short: impl Iterator<Item = (usize, usize)>,
    profile: Profile,
    words: &[Word],
) -> Result<(), EncodeError> {
    let mut lanes = [0; WIDTH_MAX];
    for (block, used) in short {
        profile.unpack(&words[block], &mut lanes);
        if let Some(extra) = lanes[used..profile.width()].iter().position(|&q| q != 0) {
            let lane = used + extra;
            let (offset, value) = (block * WORD_BYTES, lanes[lane]);
            return Err(EncodeError::Padding { offset, block, lane, value, lanes: used });
        }
    }
    Ok(())
}
