//! The codes on whole matrices, and what they capture of a matrix beside what they capture of noise of its shape.

use anyhow::Context;
use indicatif::ProgressBar;
use packfed_codec::family::hybrid::{HybridFormat, HybridPlan, SMOOTH, Selection, Transform, encode_matrix};
use packfed_codec::family::{Derivative, HASHED_START, HashedTarget, Packed64, Radial128, RadialTarget, Training};
use packfed_codec::quality::{ShannonGuard, captured_energy, rmse};
use serde::Serialize;

use crate::Options;
use crate::references::ratio;
use crate::weights::{self, Matrix};

/// A code and its settings.
#[derive(Clone, Copy)]
enum Code {
    Hybrid(Hybrid),
    /// Packed64 on blocks of an edge.
    Hashed(usize),
    /// The radial Packed128 on blocks of an edge.
    Radial(usize),
}

/// The hybrid code in its plain format, DCT.
#[derive(Clone, Copy)]
pub(crate) struct Hybrid {
    /// Block edge.
    pub(crate) block: u16,
    /// Coefficients a block keeps.
    pub(crate) kept: u16,
}

/// A matrix after a code.
pub(crate) struct Encoded {
    /// What its decoder gives.
    pub(crate) decoded: Vec<f32>,
    /// What it takes.
    pub(crate) bytes: usize,
    /// Coefficients of an orthonormal transform that the code kept; all of them for a code that is not linear, about
    /// which only its bytes say something.
    coefficients: usize,
}

/// One code on one matrix.
#[derive(Serialize)]
pub(crate) struct Measured {
    /// The matrix.
    pub(crate) matrix: String,
    /// Its shape.
    pub(crate) shape: (usize, usize),
    /// Its standard deviation.
    pub(crate) deviation: f64,
    /// The code.
    pub(crate) code: String,
    /// Bytes after it.
    pub(crate) bytes: usize,
    /// Bytes of the matrix as f32 divided by those.
    pub(crate) ratio: f64,
    /// RMSE in standard deviations.
    pub(crate) relative_rmse: f64,
    /// Captured share of the energy.
    pub(crate) captured: f64,
    /// The same of white noise of the same shape and deviation.
    pub(crate) captured_of_noise: f64,
    /// The most that can be expected of white noise, by coefficients and by bytes.
    pub(crate) shannon: f64,
    /// What the guard says if the noise's share is impossible.
    pub(crate) guard: Option<String>,
}

/// Every code on every matrix.
pub(crate) fn measure_all(
    matrices: &[Matrix],
    options: &Options,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Measured>> {
    let block = options.block;
    let hybrids = options.kept.iter().map(|&kept| Code::Hybrid(Hybrid { block, kept }));
    let others = [Code::Hashed(usize::from(block)), Code::Radial(usize::from(block) / 4)];
    let codes: Vec<Code> = hybrids.chain(others).collect();
    progress.inc_length((matrices.len() * codes.len()) as u64);
    let mut measured = Vec::new();
    for matrix in matrices {
        let noise = weights::noise("noise", matrix.rows, matrix.cols, (0.0, matrix.moments.1), options.seed + 1)?;
        for code in &codes {
            progress.set_message(format!("{} on {}", code.name(), matrix.name));
            let row = code.measure(matrix, &noise).with_context(|| format!("{} on {}", code.name(), matrix.name))?;
            measured.push(row);
            progress.inc(1);
        }
    }
    Ok(measured)
}

impl Code {
    fn name(self) -> String {
        match self {
            Self::Hybrid(Hybrid { block, kept }) => format!("hybrid B = {block}, K = {kept}"),
            Self::Hashed(edge) => format!("hashed B = {edge}"),
            Self::Radial(edge) => format!("radial B = {edge}"),
        }
    }

    fn measure(self, matrix: &Matrix, noise: &Matrix) -> anyhow::Result<Measured> {
        let values = matrix.values.len();
        let encoded = self.encode(matrix)?;
        let of_noise = self.encode(noise)?;
        let captured_of_noise = captured_energy(&noise.values, &of_noise.decoded)?;
        let guard = ShannonGuard::new(values, of_noise.coefficients, of_noise.bytes)?;
        let refused = ShannonGuard::check(values, of_noise.coefficients, of_noise.bytes, captured_of_noise).err();
        Ok(Measured {
            matrix: matrix.name.clone(),
            shape: (matrix.rows, matrix.cols),
            deviation: matrix.moments.1,
            code: self.name(),
            bytes: encoded.bytes,
            ratio: ratio(values, encoded.bytes),
            relative_rmse: rmse(&matrix.values, &encoded.decoded)? / matrix.moments.1,
            captured: captured_energy(&matrix.values, &encoded.decoded)?,
            captured_of_noise,
            shannon: guard.coefficients.expected().min(guard.rate.expected()),
            guard: refused.map(|error| error.to_string()),
        })
    }

    fn encode(self, matrix: &Matrix) -> anyhow::Result<Encoded> {
        match self {
            Self::Hybrid(hybrid) => encode_hybrid(&matrix.values, matrix.rows, matrix.cols, hybrid),
            Self::Hashed(edge) => encode_hashed(matrix, edge),
            Self::Radial(edge) => encode_radial(matrix, edge),
        }
    }
}

/// One amplitude a block, on a direction that was fixed beforehand.
fn encode_hashed(matrix: &Matrix, edge: usize) -> anyhow::Result<Encoded> {
    let mut decoded = matrix.values.clone();
    let blocks = each_block(&mut decoded, (matrix.rows, matrix.cols), edge, |values, rows, cols| {
        let fit = HashedTarget::new(values, rows, cols)?.encode(HASHED_START, &TRAINING)?;
        fit.block.decode_into(rows, cols, values);
        Ok(())
    })?;
    Ok(Encoded { decoded, bytes: blocks * size_of::<Packed64>(), coefficients: blocks })
}

/// The cone lives in 0 to 1, so the matrix is brought there by its least and largest value, 8 bytes for all blocks.
fn encode_radial(matrix: &Matrix, edge: usize) -> anyhow::Result<Encoded> {
    let (least, most) = matrix.values.iter().fold((f32::MAX, f32::MIN), |(a, b), &w| (a.min(w), b.max(w)));
    let mut decoded: Vec<f32> = matrix.values.iter().map(|w| (w - least) / (most - least)).collect();
    let blocks = each_block(&mut decoded, (matrix.rows, matrix.cols), edge, |values, rows, cols| {
        let fit = RadialTarget::new(values, rows, cols)?.encode((0.0, 0.5), Derivative::Analytic, &TRAINING)?;
        fit.block.decode_into(rows, cols, values);
        Ok(())
    })?;
    decoded.iter_mut().for_each(|w| *w = least + *w * (most - least));
    let bytes = blocks * size_of::<Radial128>() + 8;
    Ok(Encoded { coefficients: decoded.len(), decoded, bytes })
}

/// Weights hold nothing that would reward the last digits of the two parameters.
const TRAINING: Training = Training { gradient_min: 1e-6, ..Training::constant(0.01, 500) };

/// Replaces every block of a matrix by what `code` makes of it, and counts them; those at the end are smaller.
fn each_block(
    values: &mut [f32],
    (rows, cols): (usize, usize),
    edge: usize,
    code: impl Fn(&mut [f32], usize, usize) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut blocks = 0;
    let mut block = Vec::with_capacity(edge * edge);
    for (row, col) in (0..rows).step_by(edge).flat_map(|i| (0..cols).step_by(edge).map(move |j| (i, j))) {
        let (height, width) = (edge.min(rows - row), edge.min(cols - col));
        let place = |i: usize| (row + i) * cols + col..(row + i) * cols + col + width;
        block.clear();
        (0..height).for_each(|i| block.extend_from_slice(&values[place(i)]));
        code(&mut block, height, width)?;
        for (i, line) in block.chunks_exact(width).enumerate() {
            values[place(i)].copy_from_slice(line);
        }
        blocks += 1;
    }
    Ok(blocks)
}

/// The smooth part's weights and the kept coefficients of every block, in 16-bit floats.
pub(crate) fn encode_hybrid(values: &[f32], rows: usize, cols: usize, hybrid: Hybrid) -> anyhow::Result<Encoded> {
    let plan = HybridPlan {
        block: usize::from(hybrid.block),
        transform: Some(Transform::Dct),
        format: HybridFormat::Plain,
        selection: Selection::Count(usize::from(hybrid.kept)),
    };
    let encoded = encode_matrix(values, (rows, cols), &plan)?;
    let blocks = rows.div_ceil(plan.block) * cols.div_ceil(plan.block);
    Ok(Encoded {
        decoded: encoded.decode()?,
        bytes: encoded.bytes.len(),
        coefficients: (encoded.coefficients + blocks * SMOOTH).min(values.len()),
    })
}
