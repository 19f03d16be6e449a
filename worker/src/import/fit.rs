//! A dense delta to the lanes of one layer: how many residual positions, and what stands on them.
//!
//! In a block's spectrum `C = D_r·Δ·D_cᵀ` a residual coefficient is one entry, and the wave's two lanes are two vectors
//! `w_x, w_y`, neither orthogonal to the other nor to the residual's entries. The best of both is least squares in two
//! steps: of the waves what the taken entries do not reach, `G = Σ_rest w·wᵀ` and `b = Σ_rest w·C`, gives `z = G⁻¹·b`
//! and then `c_k = C_k − z·w_k`. Together they hold `Σ_taken C² + bᵀ·z` of the energy.
//!
//! Positions are drawn one after another, so the first K of more are those of K: one pass gives the energy for every K.
//! It knows no files and no models.

use std::f64::consts::PI;

use packfed_codec::{Block, Layer, QUANTUM_EXPONENT, WAVE_LANES, dct_matrix};
use rayon::prelude::*;

use crate::import::{ImportError, energy};

/// What a layer's delta came to.
pub(super) struct Fit {
    /// K, of the layer's specification at most.
    pub(super) residual: usize,
    /// Lanes of a layer of that K, in quanta.
    pub(super) lanes: Vec<i32>,
}

/// The fewest positions that hold `target` of the delta's energy, or all that the layer has.
pub(super) fn fit(layer: &Layer, delta: Option<&[f32]>, target: f64) -> Result<Fit, ImportError> {
    let Some(delta) = delta.filter(|delta| energy(delta) != 0.0) else {
        return Ok(Fit { residual: 0, lanes: vec![0; WAVE_LANES * layer.blocks().len()] });
    };
    let cols = layer.spec().cols;
    let spectra: Vec<BlockSpectrum> =
        layer.blocks().par_iter().map(|block| BlockSpectrum::new(layer, block, delta, cols)).collect();
    // What the sums round off is not held against a target of 1.
    let enough = target * energy(delta) * (1.0 - 1e-12);
    let held = held_by_each(&spectra, layer.gain());
    let residual = held.iter().position(|&held| held >= enough).unwrap_or(held.len() - 1);
    let mut lanes = Vec::new();
    for (n, spectrum) in spectra.iter().enumerate() {
        let lane = |value: f64| {
            let quanta = (value * QUANTA).round();
            #[expect(clippy::cast_possible_truncation, reason = "checked against the range of an i32")]
            if quanta.abs() <= f64::from(i32::MAX) { Ok(quanta as i32) } else { Err(value) }
        };
        let refused = |value| ImportError::Coefficient { layer: layer.spec().name.clone(), block: n, value };
        let (x, y) = spectrum.wave(residual, layer.gain());
        let (x, y) = (lane(x).map_err(refused)?, lane(y).map_err(refused)?);
        lanes.extend([x, y]);
        let (x, y) = (f64::from(x) / QUANTA, f64::from(y) / QUANTA);
        for entry in spectrum.entries.iter().take(residual) {
            lanes.push(lane(entry.delta - x * entry.x - y * entry.y).map_err(refused)?);
        }
    }
    Ok(Fit { residual, lanes })
}

const QUANTA: f64 = (1u64 << -QUANTUM_EXPONENT) as f64;

/// A wave of which the residual leaves less than this share is not used: whatever it added, the residual's entries would
/// have to take back.
const REST_MIN: f64 = 1e-6;

/// Energy that the layer holds with 0, 1, … positions a block.
fn held_by_each(spectra: &[BlockSpectrum], gain: f64) -> Vec<f64> {
    let most = spectra.iter().map(|spectrum| spectrum.entries.len()).max().unwrap_or(0);
    let mut sums = vec![0.0; most + 1];
    for held in spectra.par_iter().map(|spectrum| spectrum.held(gain)).collect::<Vec<_>>() {
        let last = held.last().copied().unwrap_or(0.0);
        for (sum, held) in sums.iter_mut().zip(held.into_iter().chain(std::iter::repeat(last))) {
            *sum += held;
        }
    }
    sums
}

/// The delta and the two waves at one position of the spectrum.
#[derive(Clone, Copy, Debug)]
struct Entry {
    delta: f64,
    x: f64,
    y: f64,
}

/// Products of the waves with one another and with the delta, over some entries of the spectrum.
#[derive(Clone, Copy, Debug, Default)]
struct Products {
    xx: f64,
    xy: f64,
    yy: f64,
    x: f64,
    y: f64,
}

impl Products {
    fn add(&mut self, Entry { delta, x, y }: Entry, sign: f64) {
        self.xx += sign * x * x;
        self.xy += sign * x * y;
        self.yy += sign * y * y;
        self.x += sign * x * delta;
        self.y += sign * y * delta;
    }

    /// `z = G⁺·b` along the directions of `G` that are there at all, held within the gain, and the energy that it adds:
    /// `2bᵀ·z − zᵀ·G·z`.
    fn solve(&self, gain: f64) -> ((f64, f64), f64) {
        let half = (self.xx - self.yy) / 2.0;
        let (mean, root) = ((self.xx + self.yy) / 2.0, half.hypot(self.xy));
        // The larger eigenvalue's vector is at half the angle of (half, xy); the other's is across.
        let angle = if root > 0.0 { self.xy.atan2(half) / 2.0 } else { 0.0 };
        let (sin, cos) = angle.sin_cos();
        let mut z = (0.0, 0.0);
        let mut held = 0.0;
        for (value, (u, v)) in [(mean + root, (cos, sin)), (mean - root, (-sin, cos))] {
            if value > REST_MIN {
                let along = (u * self.x + v * self.y) / value;
                z = (z.0 + along * u, z.1 + along * v);
                held += along * along * value;
            }
        }
        let within = (gain / z.0.hypot(z.1)).min(1.0);
        ((within * z.0, within * z.1), within * (2.0 - within) * held)
    }
}

/// A block's delta and waves in its spectrum, as far as a fit needs them.
struct BlockSpectrum {
    /// At the residual positions, in their order.
    entries: Vec<Entry>,
    /// Over the whole spectrum.
    all: Products,
}

impl BlockSpectrum {
    fn new(layer: &Layer, block: &Block, delta: &[f32], stride: usize) -> Self {
        let delta: Vec<f64> = (0..block.rows)
            .flat_map(|i| &delta[(block.row + i) * stride + block.col..][..block.cols])
            .map(|&value| f64::from(value))
            .collect();
        let (rows, cols) = (dct_matrix(block.rows), dct_matrix(block.cols));
        let spectrum = transform(&delta, &rows, &cols);
        let (u, v) = (phases(&rows, block.frequency.u), phases(&cols, block.frequency.v));
        let norm = block.wave_norm();
        let entry = |i: usize, j: usize| Entry {
            delta: spectrum[i * block.cols + j],
            x: norm * (u.cos[i] * v.cos[j] - u.sin[i] * v.sin[j]),
            y: -norm * (u.sin[i] * v.cos[j] + u.cos[i] * v.sin[j]),
        };
        let mut all = Products::default();
        (0..block.rows).for_each(|i| (0..block.cols).for_each(|j| all.add(entry(i, j), 1.0)));
        let positions = layer.positions(block).iter();
        let entries = positions.map(|position| entry(position.u.into(), position.v.into())).collect();
        Self { entries, all }
    }

    /// Energy that the wave and the first 0, 1, … entries hold.
    fn held(&self, gain: f64) -> Vec<f64> {
        let (mut rest, mut taken) = (self.all, 0.0);
        let mut held = vec![rest.solve(gain).1];
        for &entry in &self.entries {
            rest.add(entry, -1.0);
            taken += entry.delta * entry.delta;
            held.push(taken + rest.solve(gain).1);
        }
        held
    }

    /// The wave that goes with the first `residual` entries.
    fn wave(&self, residual: usize, gain: f64) -> (f64, f64) {
        let mut rest = self.all;
        self.entries.iter().take(residual).for_each(|&entry| rest.add(entry, -1.0));
        rest.solve(gain).0
    }
}

/// Cosine spectra of `cos φ` and `sin φ` along one edge, `φ = π·u·(2i + 1)/2n`.
struct Phases {
    cos: Vec<f64>,
    sin: Vec<f64>,
}

fn phases(basis: &[f64], frequency: i16) -> Phases {
    let size = basis.len().isqrt();
    let along = |wave: fn(f64) -> f64| {
        let values: Vec<f64> =
            (0..size).map(|i| wave(PI * f64::from(frequency) * (2 * i + 1) as f64 / (2 * size) as f64)).collect();
        basis.chunks_exact(size).map(|row| row.iter().zip(&values).map(|(d, value)| d * value).sum()).collect()
    };
    Phases { cos: along(f64::cos), sin: along(f64::sin) }
}

/// `D_r·X·D_cᵀ`.
fn transform(x: &[f64], rows: &[f64], cols: &[f64]) -> Vec<f64> {
    let (height, width) = (rows.len().isqrt(), cols.len().isqrt());
    let mut down = vec![0.0; height * width];
    for (out, basis) in down.chunks_exact_mut(width).zip(rows.chunks_exact(height)) {
        for (&factor, row) in basis.iter().zip(x.chunks_exact(width)) {
            out.iter_mut().zip(row).for_each(|(out, value)| *out += factor * value);
        }
    }
    // The columns' basis turned over, so that the inner loop runs along rows here too.
    let mut turned = vec![0.0; width * width];
    for (v, basis) in cols.chunks_exact(width).enumerate() {
        basis.iter().enumerate().for_each(|(j, &value)| turned[j * width + v] = value);
    }
    let mut spectrum = vec![0.0; height * width];
    for (out, row) in spectrum.chunks_exact_mut(width).zip(down.chunks_exact(width)) {
        for (&factor, basis) in row.iter().zip(turned.chunks_exact(width)) {
            out.iter_mut().zip(basis).for_each(|(out, value)| *out += factor * value);
        }
    }
    spectrum
}
