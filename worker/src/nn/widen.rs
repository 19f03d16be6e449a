//! A stored matrix as floats, a few rows at a time: a 16-bit or quantized matrix never stands widened as a whole.

use candle_core::quantized::QTensor;
use candle_core::{Device, Result, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::adapted::Element;
use crate::nn::parallel;
use crate::nn::values::values;
use crate::weight::{Stored, Weight};

/// Values that are widened at a time: half a megabyte of floats, which a second-level cache holds.
const AT_A_TIME: usize = 1 << 17;

/// Outputs and inputs of a stored matrix.
///
/// # Errors
/// If it is no matrix, is empty, or does not hold what its shape says, naming it and both.
pub(crate) fn dimensions(weight: &Weight) -> Result<(usize, usize)> {
    let Weight { name, shape, stored } = weight;
    let &[outputs, inputs] = shape.as_slice() else { bail!("{name}: shape {shape:?}, expected outputs × inputs") };
    let found = match stored {
        Stored::F32(values) => values.len(),
        Stored::F16(values) => values.len(),
        Stored::Bf16(values) => values.len(),
        Stored::Quantized(chunks) => {
            for chunk in chunks.iter() {
                if chunk.shape().dims2()?.1 != inputs {
                    bail!("{name}: a chunk of shape {:?} in a matrix of shape {shape:?}", chunk.shape());
                }
            }
            chunks.iter().map(|chunk| chunk.shape().elem_count()).sum()
        }
    };
    if found == 0 || outputs.checked_mul(inputs) != Some(found) {
        bail!("{name}: {found} values in a matrix of shape {shape:?}");
    }
    Ok((outputs, inputs))
}

/// All values of a stored tensor of any shape.
///
/// # Errors
/// If a quantized block cannot be read.
pub(crate) fn whole<E: Element>(stored: &Stored) -> Result<Vec<E>> {
    let widened = |floats: &[f32]| floats.iter().map(|&value| E::from_f32(value)).collect();
    Ok(match stored {
        Stored::F32(values) => widened(values),
        Stored::F16(values) => widened(&values.to_f32_vec()),
        Stored::Bf16(values) => widened(&values.to_f32_vec()),
        Stored::Quantized(chunks) => {
            let mut all: Vec<E> = Vec::new();
            for chunk in chunks.iter() {
                let floats = chunk.dequantize(&Device::Cpu)?.flatten_all()?;
                all.extend(values::<f32>(&floats)?.iter().map(|&value| E::from_f32(value)));
            }
            all
        }
    })
}

/// Calls `visit` with the first row and the values of consecutive groups of whole rows, first to last.
///
/// # Errors
/// What `visit` returns, or if a quantized block cannot be read.
pub(crate) fn for_rows<E: Element>(weight: &Weight, visit: &mut dyn FnMut(usize, &[E]) -> Result<()>) -> Result<()> {
    let inputs = weight.shape[1];
    match &weight.stored {
        Stored::F32(values) => match E::same(values) {
            Some(values) => visit(0, values),
            None => for_floats(values, inputs, |floats, out| out.copy_from_slice(floats), visit),
        },
        Stored::F16(values) => {
            for_floats(values, inputs, |halves: &[f16], out| halves.convert_to_f32_slice(out), visit)
        }
        Stored::Bf16(values) => {
            for_floats(values, inputs, |halves: &[bf16], out| halves.convert_to_f32_slice(out), visit)
        }
        Stored::Quantized(chunks) => for_chunks(chunks, inputs, visit),
    }
}

/// As [`for_rows`] for values that are stored one by one.
fn for_floats<T: Sync, E: Element>(
    stored: &[T],
    inputs: usize,
    widen: impl Fn(&[T], &mut [f32]) + Sync,
    visit: &mut dyn FnMut(usize, &[E]) -> Result<()>,
) -> Result<()> {
    let rows = (AT_A_TIME / inputs).max(1);
    let mut floats = vec![0.0f32; (rows * inputs).min(stored.len())];
    for (n, stored) in stored.chunks(rows * inputs).enumerate() {
        let floats = &mut floats[..stored.len()];
        parallel::rows(floats, inputs, |first, floats| {
            widen(&stored[first * inputs..first * inputs + floats.len()], floats);
        });
        visit_floats(n * rows, floats, visit)?;
    }
    Ok(())
}

/// As [`for_rows`] for quantized chunks, as many at once as there are threads.
fn for_chunks<E: Element>(
    chunks: &[QTensor],
    inputs: usize,
    visit: &mut dyn FnMut(usize, &[E]) -> Result<()>,
) -> Result<()> {
    let threads = rayon::current_num_threads();
    let mut first = 0;
    for together in chunks.chunks(threads) {
        let widened: Vec<Tensor> = if together.len() == 1 {
            vec![together[0].dequantize(&Device::Cpu)?]
        } else {
            together.par_iter().map(|chunk| chunk.dequantize(&Device::Cpu)).collect::<Result<_>>()?
        };
        for floats in widened {
            let floats = values::<f32>(&floats)?;
            visit_floats(first, &floats, visit)?;
            first += floats.len() / inputs;
        }
    }
    Ok(())
}

fn visit_floats<E: Element>(
    first: usize,
    floats: &[f32],
    visit: &mut dyn FnMut(usize, &[E]) -> Result<()>,
) -> Result<()> {
    match E::same(floats) {
        Some(floats) => visit(first, floats),
        None => visit(first, &floats.iter().map(|&value| E::from_f32(value)).collect::<Vec<E>>()),
    }
}
