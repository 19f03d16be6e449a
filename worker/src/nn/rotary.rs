//! Rotary position embedding (Su et al., 2021) on tokens × (heads·d), in the half-split form of `transformers`.
//!
//! Feature `i < d/2` of a head and feature `i + d/2` are turned together by `position·θ^(−2i/d)`. (Files of llama.cpp
//! have the rows of their query and key matrices interleaved instead; whoever reads one puts the rows back.)
//! The gradient is turned the other way.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;
use pulp::{Simd, WithSimd};

use crate::adapted::{Element, contiguous};
use crate::nn::parallel;
use crate::nn::values::values;

/// The angles of a batch's tokens.
#[derive(Clone, Debug)]
pub struct Rotary<E> {
    /// Cosines, then sines, of every token: tokens × d.
    table: Arc<Vec<E>>,
    head: usize,
}

impl<E: Element> Rotary<E> {
    /// Angles for heads of `head` features at these positions, with base `theta`.
    ///
    /// # Errors
    /// If `head` is 0 or odd.
    pub fn new(positions: impl Iterator<Item = usize>, head: usize, theta: f64) -> Result<Self> {
        if head == 0 || head % 2 == 1 {
            bail!("rotary embedding: heads of {head} features have no halves");
        }
        let frequencies: Vec<f64> = (0..head / 2).map(|n| theta.powf(-2.0 * n as f64 / head as f64)).collect();
        let mut table = Vec::new();
        for position in positions {
            let angles = frequencies.iter().map(|frequency| position as f64 * frequency);
            table.extend(angles.clone().map(|angle| <E as Scalar>::from_f64(angle.cos())));
            table.extend(angles.map(|angle| <E as Scalar>::from_f64(angle.sin())));
        }
        Ok(Self { table: Arc::new(table), head })
    }

    /// `x` turned; it is tokens × (heads·d).
    ///
    /// # Errors
    /// If `x` has another number of tokens or its features are no whole heads, naming both.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = self.table.len() / self.head;
        match x.dims() {
            &[rows, width] if rows == tokens && width.is_multiple_of(self.head) => {}
            found => bail!("rotary embedding: input of shape {found:?}, expected {tokens} × heads of {}", self.head),
        }
        x.contiguous()?.apply_op1(Op(self.clone()))
    }
}

struct Op<E>(Rotary<E>);

struct Turn<'a, E> {
    table: &'a [E],
    head: usize,
    width: usize,
    sign: E,
    values: &'a mut [E],
}

impl<E: Element> WithSimd for Turn<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { table, head, width, sign, values } = self;
        for (row, angles) in values.chunks_exact_mut(width).zip(table.chunks_exact(head)) {
            let (cosines, sines) = angles.split_at(head / 2);
            for features in row.chunks_exact_mut(head) {
                let (low, high) = features.split_at_mut(head / 2);
                for (((low, high), &cosine), &sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                    let (a, b, sine) = (*low, *high, sign * sine);
                    *low = a * cosine - b * sine;
                    *high = b * cosine + a * sine;
                }
            }
        }
    }
}

impl<E: Element> Rotary<E> {
    fn turn(&self, values: &mut [E], sign: f32) {
        let (head, width) = (self.head, values.len() / (self.table.len() / self.head).max(1));
        if values.is_empty() {
            return;
        }
        parallel::rows(values, width, |first, values| {
            let table = &self.table[first * head..];
            pulp::Arch::new().dispatch(Turn { table, head, width, sign: E::from_f32(sign), values });
        });
    }
}

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = contiguous::<E>(x, layout)?.to_vec();
        self.0.turn(&mut y, 1.0);
        Ok((E::to_cpu_storage_owned(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = values::<E>(&grad)?.to_vec();
        self.0.turn(&mut dx, -1.0);
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check::{Run, agree, differences, flat, random, threads_do_not_show};
    use crate::nn::sequences::Sequences;

    fn rotary<E: Element>() -> Rotary<E> {
        Rotary::new(Sequences::new(&[3, 2]).positions(), 6, 100.0).unwrap()
    }

    /// `x·cos + rotate_half(x)·sin`, as `transformers` writes it.
    fn composed(x: &Tensor) -> Tensor {
        let angles: Vec<f64> = [0.0, 1.0, 2.0, 0.0, 1.0]
            .iter()
            .flat_map(|p| (0..6).map(move |n| p * 100f64.powf(-f64::from(n % 3) / 3.0)))
            .collect();
        let angles = Tensor::from_vec(angles, (5, 1, 6), x.device()).unwrap();
        let x = x.reshape((5, 2, 6)).unwrap();
        let half = |n: usize| x.narrow(2, 3 * n, 3).unwrap();
        let turned = Tensor::cat(&[&half(1).neg().unwrap(), &half(0)], 2).unwrap();
        let y = (x.broadcast_mul(&angles.cos().unwrap()).unwrap()
            + turned.broadcast_mul(&angles.sin().unwrap()).unwrap())
        .unwrap();
        y.reshape((5, 12)).unwrap()
    }

    #[test]
    fn it_agrees_with_differences_and_composed_ops() {
        let x = [random::<f64>(1, &[5, 12], 2.0)];
        differences(&x, &|x| rotary::<f64>().forward(&x[0]).unwrap());
        let ours: (Run<'_>, Run<'_>) =
            (&|x| rotary::<f32>().forward(&x[0]).unwrap(), &|x| rotary::<f64>().forward(&x[0]).unwrap());
        agree(&x, ours, &|x| composed(&x[0]));
    }

    #[test]
    fn the_first_token_of_a_sequence_is_not_turned() {
        let x = random::<f64>(1, &[5, 12], 2.0);
        let (before, after) = (flat::<f64>(&x), flat::<f64>(&rotary::<f64>().forward(&x).unwrap()));
        assert_eq!((&before[..12], &before[36..48]), (&after[..12], &after[36..48]));
        assert_ne!(before[12..24], after[12..24]);
    }

    #[test]
    fn it_is_the_same_on_any_threads() {
        let rotary = Rotary::<f32>::new(0..900, 8, 1e4).unwrap();
        threads_do_not_show(&[random::<f32>(1, &[900, 40], 1.0)], &|x| rotary.forward(&x[0]).unwrap());
    }

    #[test]
    fn features_that_are_no_whole_heads_are_an_error() {
        let error = rotary::<f32>().forward(&random::<f32>(1, &[5, 10], 1.0)).unwrap_err().to_string();
        assert!(error.contains("[5, 10]") && error.contains("5 × heads of 6"), "{error}");
        assert!(Rotary::<f32>::new(0..2, 5, 1e4).is_err());
    }
}
