//! A tensor's values from its file into memory: once, in the form in which they are stored.
//!
//! It reads what [`super::place`] has checked, so every allocation is of bytes that the file has.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::bytemuck;

use super::error::{ModelFileError, Problem};
use super::place::{Format, TensorInfo};
use crate::weight::{Stored, Weight};

/// Values of one chunk of a quantized matrix, at most, unless a single row is longer: 1 MiB as 32-bit floats.
pub const CHUNK_VALUES_MAX: usize = 1 << 18;

/// How a file orders the rows of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// As Hugging Face has them.
    Plain,
    /// As llama.cpp has those of Llama's query and key: in each of so many heads, the two halves that one
    /// rotation pairs are interleaved, so row `2j + s` of a head is row `s·d/2 + j` of Hugging Face's.
    Interleaved {
        /// Heads; they divide the rows, into an even number each.
        heads: usize,
    },
}

impl Rows {
    /// The file's row for every row in Hugging Face's order.
    fn order(self, rows: usize) -> Option<Vec<usize>> {
        let Self::Interleaved { heads } = self else { return None };
        let half = rows / heads / 2;
        let row = |head: usize, s: usize, j: usize| (head * half + j) * 2 + s;
        let heads = 0..heads;
        Some(heads.flat_map(|head| (0..2).flat_map(move |s| (0..half).map(move |j| row(head, s, j)))).collect())
    }
}

/// Reads one tensor.
pub(super) fn weight(info: &TensorInfo, rows: Rows) -> Result<Weight, ModelFileError> {
    let io = ModelFileError::io(&info.path);
    let mut file = File::open(&info.path).map_err(&io)?;
    file.seek(SeekFrom::Start(info.start)).map_err(&io)?;
    let count: usize = info.shape.iter().product();
    let order = info.shape.first().filter(|_| count > 0).and_then(|&first| rows.order(first));
    let stored = match info.format {
        Format::F32 => {
            let mut values = vec![0f32; count];
            file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(&io)?;
            // The file is little-endian; on such a machine this is nothing.
            values.iter_mut().for_each(|v| *v = f32::from_bits(u32::from_le(v.to_bits())));
            Stored::F32(Arc::new(reordered(values, order)))
        }
        Format::F16 => {
            let mut values = vec![f16::ZERO; count];
            read_halves(&mut file, values.reinterpret_cast_mut()).map_err(&io)?;
            Stored::F16(Arc::new(reordered(values, order)))
        }
        Format::Bf16 => {
            let mut values = vec![bf16::ZERO; count];
            read_halves(&mut file, values.reinterpret_cast_mut()).map_err(&io)?;
            Stored::Bf16(Arc::new(reordered(values, order)))
        }
        Format::Quantized(format) => Stored::Quantized(Arc::new(chunks(info, &mut file, format, order.as_deref())?)),
        Format::Other(_) => {
            return Err(Problem::Format {
                tensor: info.name.clone(),
                shape: info.shape.clone(),
                found: info.format.to_string(),
                expected: "F32, F16 or BF16",
            }
            .at(&info.path));
        }
    };
    Ok(Weight { name: info.name.clone(), shape: info.shape.clone(), stored })
}

fn read_halves(file: &mut File, bits: &mut [u16]) -> std::io::Result<()> {
    file.read_exact(bytemuck::cast_slice_mut(bits))?;
    bits.iter_mut().for_each(|bits| *bits = u16::from_le(*bits));
    Ok(())
}

/// `values` with its rows in this order.
fn reordered<T: Copy>(values: Vec<T>, order: Option<Vec<usize>>) -> Vec<T> {
    let Some(order) = order else { return values };
    let cols = values.len() / order.len().max(1);
    order.iter().flat_map(|&row| &values[row * cols..(row + 1) * cols]).copied().collect()
}

/// Quantized rows, cut into chunks; the blocks themselves are moved and never widened.
fn chunks(
    info: &TensorInfo,
    file: &mut File,
    format: GgmlDType,
    order: Option<&[usize]>,
) -> Result<Vec<QTensor>, ModelFileError> {
    let io = ModelFileError::io(&info.path);
    let refused = |source| Problem::Tensor { tensor: info.name.clone(), source }.at(&info.path);
    let Some((&cols, leading)) = info.shape.split_last().filter(|_| info.bytes > 0) else { return Ok(Vec::new()) };
    let rows: usize = leading.iter().product();
    let row_bytes = cols / format.block_size() * format.type_size();
    let chunk_rows = (CHUNK_VALUES_MAX / cols).max(1);
    let mut whole = Vec::new();
    if order.is_some() {
        whole.resize(rows * row_bytes, 0);
        file.read_exact(&mut whole).map_err(&io)?;
    }
    let mut chunks = Vec::with_capacity(rows.div_ceil(chunk_rows));
    // Words, so that the blocks within are aligned.
    let mut buffer = vec![0u64; (chunk_rows.min(rows) * row_bytes).div_ceil(8)];
    for first in (0..rows).step_by(chunk_rows) {
        let count = chunk_rows.min(rows - first);
        let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut buffer)[..count * row_bytes];
        match order {
            None => file.read_exact(bytes).map_err(&io)?,
            Some(order) => {
                for (out, &row) in bytes.chunks_exact_mut(row_bytes).zip(&order[first..first + count]) {
                    out.copy_from_slice(&whole[row * row_bytes..(row + 1) * row_bytes]);
                }
            }
        }
        let storage = QStorage::from_data((&*bytes).into(), &Device::Cpu, format).map_err(refused)?;
        chunks.push(QTensor::new(storage, (count, cols)).map_err(refused)?);
    }
    Ok(chunks)
}
