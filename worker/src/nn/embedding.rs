//! Rows of a frozen embedding as its file stores it; quantized rows are widened one by one.
//!
//! Nothing is tracked: an embedding is not adapted, and its dense gradient alone would cost more than a layer.

use candle_core::{Device, Result, Tensor, bail};
use half::slice::HalfFloatSliceExt;

use crate::adapted::Element;
use crate::nn::values::values;
use crate::nn::widen::dimensions;
use crate::weight::{Stored, Weight};

/// A table of rows × features.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Weight,
    rows: usize,
    width: usize,
}

impl Embedding {
    /// The table of a rows × features matrix.
    ///
    /// # Errors
    /// If it is no matrix or does not hold what its shape says.
    pub fn new(weight: Weight) -> Result<Self> {
        let (rows, width) = dimensions(&weight)?;
        Ok(Self { weight, rows, width })
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The table itself, as tied output layers use it.
    #[must_use]
    pub const fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Adds the rows of `ids` to `out`, `ids` × features.
    ///
    /// # Errors
    /// If an id is no row, naming the table and both.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn add_rows<E: Element>(&self, ids: &[u32], out: &mut [E]) -> Result<()> {
        assert_eq!(out.len(), ids.len() * self.width, "ids × features");
        let mut row = vec![0.0f32; self.width];
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.width)) {
            if id as usize >= self.rows {
                bail!("{}: row {id} of {}", self.weight.name, self.rows);
            }
            self.widen(id as usize, &mut row)?;
            for (out, &value) in out.iter_mut().zip(&row) {
                *out += E::from_f32(value);
            }
        }
        Ok(())
    }

    fn widen(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let range = row * self.width..(row + 1) * self.width;
        match &self.weight.stored {
            Stored::F32(values) => out.copy_from_slice(&values[range]),
            Stored::F16(values) => values[range].convert_to_f32_slice(out),
            Stored::Bf16(values) => values[range].convert_to_f32_slice(out),
            Stored::Quantized(chunks) => {
                let mut first = 0;
                for chunk in chunks.iter() {
                    let rows = chunk.shape().dims2()?.0;
                    if let Ok(at) = u32::try_from(row - first)
                        && row < first + rows
                    {
                        let widened = chunk.embedding(&Tensor::new(&[at], &Device::Cpu)?)?;
                        out.copy_from_slice(&values::<f32>(&widened)?);
                        break;
                    }
                    first += rows;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check::flat;
    use crate::nn::frozen::tests::{dense, stored};

    #[test]
    fn rows_of_every_kind_of_file_are_those_of_the_whole_matrix() {
        for weight in stored(1, 13, 32) {
            let whole = flat::<f64>(&dense(&weight));
            let mut rows = vec![1.0f64; 4 * 32];
            Embedding::new(weight).unwrap().add_rows(&[12, 0, 5, 12], &mut rows).unwrap();
            for (n, id) in [12usize, 0, 5, 12].into_iter().enumerate() {
                assert!(rows[n * 32..][..32].iter().zip(&whole[id * 32..]).all(|(row, whole)| *row == 1.0 + whole));
            }
        }
    }

    #[test]
    fn an_id_outside_the_table_is_an_error() {
        let embedding = Embedding::new(stored(1, 13, 32).remove(3)).unwrap();
        let error = embedding.add_rows(&[13], &mut [0.0f32; 32]).unwrap_err().to_string();
        assert!(error.contains("w: row 13 of 13"), "{error}");
    }
}
