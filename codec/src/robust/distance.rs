//! Squared distances of all pairs of updates, in squared quanta: exact integers, in whatever order lanes are added.

use std::ops::Range;

use super::extent::in_quanta;
use crate::layout::WAVE_LANES;
use crate::quantize::Scales;
use crate::state::QUANTUM_EXPONENT;
use crate::word::{NIBBLE_WIDTH, Nibble, PLAIN_WIDTH, Packing, Plain, Profile, Word};

/// Blocks that all pairs are compared in before the next ones: their lanes stay in the cache for 100 updates.
const STRETCH: usize = 128;

/// Squared distances of all pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances {
    updates: usize,
    /// Of (0, 1), (0, 2), …, (1, 2), …, in units of a squared quantum.
    pairs: Vec<u128>,
}

impl Distances {
    /// All of them zero.
    pub(super) fn new(updates: usize) -> Self {
        Self { updates, pairs: vec![0; updates * updates.saturating_sub(1) / 2] }
    }

    /// Number of updates.
    #[must_use]
    pub const fn updates(&self) -> usize {
        self.updates
    }

    /// The squared distance of two updates, in units of the squared quantum `2^(2·QUANTUM_EXPONENT)`.
    #[must_use]
    pub fn squared(&self, a: usize, b: usize) -> u128 {
        let (a, b) = (a.min(b), a.max(b));
        if a == b { 0 } else { self.pairs[a * (2 * self.updates - a - 1) / 2 + b - a - 1] }
    }

    /// The Frobenius distance of two updates' deltas.
    #[must_use]
    pub fn distance(&self, a: usize, b: usize) -> f64 {
        (self.squared(a, b) as f64).sqrt() * 2f64.powi(QUANTUM_EXPONENT.into())
    }

    /// Adds what some blocks of a tile contribute; all of them are of one layer. A tile holds `tile` blocks of every
    /// update.
    pub(super) fn add(
        &mut self,
        profile: Profile,
        scales: Scales,
        words: &[Word],
        tile: usize,
        mut blocks: Range<usize>,
    ) {
        while !blocks.is_empty() {
            let now = blocks.start..blocks.end.min(blocks.start + STRETCH);
            blocks.start = now.end;
            let of = |update: usize| &words[update * tile..][now.clone()];
            let run = Stretch { profile, scales, of, distances: self };
            pulp::Arch::new().dispatch(run);
        }
    }
}

/// A few blocks of every update; compiled for every instruction set.
struct Stretch<'a, F> {
    profile: Profile,
    scales: Scales,
    of: F,
    distances: &'a mut Distances,
}

impl<'w, F: Fn(usize) -> &'w [Word]> pulp::WithSimd for Stretch<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: pulp::Simd>(self, _: V) {
        match self.profile {
            Profile::Plain => self.add::<Plain, PLAIN_WIDTH>(),
            Profile::Nibble => self.add::<Nibble, NIBBLE_WIDTH>(),
        }
    }
}

impl<'w, F: Fn(usize) -> &'w [Word]> Stretch<'_, F> {
    #[inline(always)]
    fn add<P: Packing<W>, const W: usize>(self) {
        let updates = self.distances.updates;
        let mut lanes = Vec::with_capacity(updates);
        for update in 0..updates {
            lanes.push(Lanes::unpacked::<P, W>((self.of)(update)));
        }
        let mut pairs = self.distances.pairs.iter_mut();
        for (n, a) in lanes.iter().enumerate() {
            for (b, pair) in lanes[n + 1..].iter().zip(&mut pairs) {
                *pair += in_quanta(wave_square(&a.wave, &b.wave), self.scales.wave)
                    + in_quanta(residual_square(&a.residual, &b.residual), self.scales.residual);
            }
        }
    }
}

/// The lanes of a stretch of one update's words, by kind.
struct Lanes {
    wave: Vec<i32>,
    residual: Vec<i16>,
}

impl Lanes {
    #[inline(always)]
    fn unpacked<P: Packing<W>, const W: usize>(words: &[Word]) -> Self {
        let mut wave = vec![0; words.len() * WAVE_LANES];
        let mut residual = vec![0; words.len() * (W - WAVE_LANES)];
        let of_words = wave.chunks_exact_mut(WAVE_LANES).zip(residual.chunks_exact_mut(W - WAVE_LANES));
        for (word, (wave, residual)) in words.iter().zip(of_words) {
            let all = P::unpack(word);
            wave.copy_from_slice(&all[..WAVE_LANES]);
            for (lane, q) in residual.iter_mut().zip(&all[WAVE_LANES..]) {
                *lane = low_half(*q);
            }
        }
        Self { wave, residual }
    }
}

/// A lane in 16 bits: it has no more.
#[inline(always)]
pub(super) const fn low_half(lane: i32) -> i16 {
    let [low, high, ..] = lane.to_le_bytes();
    i16::from_le_bytes([low, high])
}

/// A difference is below `2¹⁶`, its square below `2³²`.
#[inline(always)]
fn wave_square(a: &[i32], b: &[i32]) -> u64 {
    a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b).wrapping_mul(a.abs_diff(b)))).sum()
}

/// A difference is below `2⁸`, its square below `2¹⁶`, and a stretch has fewer than `2¹²` lanes.
#[inline(always)]
fn residual_square(a: &[i16], b: &[i16]) -> u64 {
    let square = |(&a, &b): (&i16, &i16)| i32::from(a.wrapping_sub(b)) * i32::from(a.wrapping_sub(b));
    a.iter().zip(b).map(square).sum::<i32>().unsigned_abs().into()
}
