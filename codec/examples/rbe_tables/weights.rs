//! Matrices to measure the codes on: from a safetensors file, or drawn. It knows no code.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use half::{bf16, f16};
use packfed_codec::Seed;
use rand_distr::{Distribution, Normal};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A matrix of finite values that are not all equal.
pub(crate) struct Matrix {
    /// The tensor's name.
    pub(crate) name: String,
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) cols: usize,
    /// Row-major.
    pub(crate) values: Vec<f32>,
    /// Mean and standard deviation.
    pub(crate) moments: (f64, f64),
}

impl Matrix {
    fn new(name: String, rows: usize, cols: usize, values: Vec<f32>) -> anyhow::Result<Self> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            bail!("{name}: value {} at index {index} is not finite", values[index]);
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
        let deviation = (values.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / n).sqrt();
        Ok(Self { name, rows, cols, values, moments: (mean, deviation) })
    }
}

/// Seeded Gaussian noise of a mean and a standard deviation.
pub(crate) fn noise(
    name: &str,
    rows: usize,
    cols: usize,
    (mean, deviation): (f64, f64),
    seed: u64,
) -> anyhow::Result<Matrix> {
    let normal = Normal::new(mean, deviation).context("a mean and a deviation of noise")?;
    let mut stream = Seed::from_number(seed).derive("rbe_tables/noise", &[rows as u64, cols as u64]).stream();
    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    let values = (0..rows * cols).map(|_| normal.sample(&mut stream) as f32).collect();
    Matrix::new(name.to_owned(), rows, cols, values)
}

/// The `count` largest matrices of a file, by name among equals. Constant ones are left out: they have nothing to code.
pub(crate) fn largest(file: &Path, count: usize) -> anyhow::Result<Vec<Matrix>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("{} is no safetensors", file.display()))?;
    let mut views: Vec<(String, TensorView<'_>)> = tensors.tensors();
    views.sort_by(|(a, x), (b, y)| elements(y).cmp(&elements(x)).then_with(|| a.cmp(b)));
    let mut matrices = Vec::new();
    for (name, view) in &views {
        let &[rows, cols] = view.shape() else { continue };
        let Some(values) = floats(view) else { continue };
        let matrix = Matrix::new(name.clone(), rows, cols, values)?;
        if matrix.moments.1 > 0.0 {
            matrices.push(matrix);
        }
        if matrices.len() == count {
            break;
        }
    }
    ensure!(
        !matrices.is_empty(),
        "{} has no 2-D tensor of f32, f16 or bf16 that is not constant; it holds {}",
        file.display(),
        summary(&views)
    );
    Ok(matrices)
}

fn elements(view: &TensorView<'_>) -> usize {
    view.shape().iter().product()
}

/// The values of a tensor of one of three float types.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Some(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::F16 => Some(data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

/// The first few tensors, for an error.
fn summary(views: &[(String, TensorView<'_>)]) -> String {
    const SHOWN: usize = 5;
    let one = |(name, view): &(String, TensorView<'_>)| format!("{name} {:?} {:?}", view.dtype(), view.shape());
    let shown: Vec<String> = views.iter().take(SHOWN).map(one).collect();
    match views.len().saturating_sub(SHOWN) {
        0 if shown.is_empty() => "no tensor at all".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
