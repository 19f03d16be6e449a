//! One vector a sequence: the mean of its tokens, or its first.

use std::marker::PhantomData;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;

use crate::adapted::{Element, contiguous};
use crate::nn::sequences::Sequences;
use crate::nn::values::values;

/// How a sequence becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of its tokens.
    Mean,
    /// Its first token, BERT's `[CLS]`.
    First,
}

impl Pooling {
    /// Sequences × features, from `x` of tokens × features.
    ///
    /// # Errors
    /// If a sequence has no token or `x` another number of them than the sequences.
    pub fn forward<E: Element>(self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        if tokens != sequences.tokens() {
            bail!("pooling: {tokens} tokens, the sequences have {}", sequences.tokens());
        }
        if let Some(empty) = sequences.iter().position(|range| range.is_empty()) {
            bail!("pooling: sequence {empty} has no token");
        }
        x.contiguous()?.apply_op1(Op::<E> { pooling: self, sequences: sequences.clone(), width, element: PhantomData })
    }
}

struct Op<E> {
    pooling: Pooling,
    sequences: Sequences,
    width: usize,
    element: PhantomData<E>,
}

impl<E: Element> Op<E> {
    /// The tokens of every sequence that count, and by which factor.
    fn weighted(&self) -> impl Iterator<Item = (std::ops::Range<usize>, E)> + '_ {
        self.sequences.iter().map(|range| match self.pooling {
            Pooling::Mean => {
                let share = 1.0 / range.len() as f64;
                (range, <E as Scalar>::from_f64(share))
            }
            Pooling::First => (range.start..range.start + 1, E::one()),
        })
    }
}

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (contiguous::<E>(x, layout)?, self.width);
        let mut y = vec![<E as Scalar>::ZERO; self.sequences.len() * width];
        for (y, (range, factor)) in y.chunks_exact_mut(width).zip(self.weighted()) {
            for row in x[range.start * width..range.end * width].chunks_exact(width) {
                y.iter_mut().zip(row).for_each(|(y, &x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= factor);
        }
        Ok((E::to_cpu_storage_owned(y), Shape::from((self.sequences.len(), width))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (g, width) = (values::<E>(&grad)?, self.width);
        let mut dx = vec![<E as Scalar>::ZERO; x.elem_count()];
        for (g, (range, factor)) in g.chunks_exact(width).zip(self.weighted()) {
            for row in dx[range.start * width..range.end * width].chunks_exact_mut(width) {
                row.iter_mut().zip(g).for_each(|(dx, &g)| *dx = g * factor);
            }
        }
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check::{Run, agree, differences, random};

    #[test]
    fn both_agree_with_differences_and_composed_ops() {
        let (x, sequences) = ([random::<f64>(1, &[6, 5], 1.0)], Sequences::new(&[2, 1, 3]));
        for pooling in [Pooling::Mean, Pooling::First] {
            differences(&x, &|x| pooling.forward::<f64>(&x[0], &sequences).unwrap());
            let ours: (Run<'_>, Run<'_>) = (&|x| pooling.forward::<f32>(&x[0], &sequences).unwrap(), &|x| {
                pooling.forward::<f64>(&x[0], &sequences).unwrap()
            });
            agree(&x, ours, &|x| {
                let rows: Vec<Tensor> = sequences
                    .iter()
                    .map(|range| match pooling {
                        Pooling::Mean => x[0].narrow(0, range.start, range.len()).unwrap().mean(0).unwrap(),
                        Pooling::First => x[0].get(range.start).unwrap(),
                    })
                    .collect();
                Tensor::stack(&rows, 0).unwrap()
            });
        }
    }

    #[test]
    fn an_empty_sequence_is_an_error() {
        let error =
            Pooling::Mean.forward::<f32>(&random::<f32>(1, &[2, 3], 1.0), &Sequences::new(&[2, 0])).unwrap_err();
        assert!(error.to_string().contains("sequence 1 has no token"), "{error}");
    }
}
