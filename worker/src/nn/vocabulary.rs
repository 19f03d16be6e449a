//! Mean cross-entropy of next tokens over a large vocabulary, output layer included, forward and backward in one op.
//!
//! Logits are formed for a few tokens at a time and turned into their own gradient where they stand, so that tokens ×
//! vocabulary floats never stand whole. Probabilities below 10⁻²⁰ are 0 in the gradient, as in [`crate::loss`].

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;
use pulp::{Simd, WithSimd};

use crate::adapted::{Element, contiguous};
use crate::nn::frozen::FrozenLinear;
use crate::nn::parallel;
use crate::nn::values::{highest, rows_of, sum, values};

/// Logits that are formed at a time: 16 MiB of `f32`.
const AT_A_TIME: usize = 1 << 22;
/// Probabilities below this are 0 in the gradient.
const NEGLIGIBLE: f64 = 1e-20;

/// Mean over the tokens that have a target of `−log softmax(head(x))[target]`, in nats; `x` is tokens × features.
///
/// # Errors
/// If there is not one entry of `targets` a token, none is a token, or one is outside the vocabulary.
pub fn next_token_loss<E: Element>(x: &Tensor, targets: &[Option<u32>], head: &FrozenLinear<E>) -> Result<Tensor> {
    let predicted = predictions(x, targets, head)?;
    let op = Op { head: head.clone(), predicted, tracked: x.track_op(), gradient: OnceLock::new() };
    x.contiguous()?.apply_op1(op)
}

/// Sum of `−log softmax(head(x))[target]` in nats over the tokens that have a target, and of how many the target was the
/// likeliest; nothing is tracked.
///
/// # Errors
/// As [`next_token_loss`].
pub fn next_token_scores<E: Element>(
    x: &Tensor,
    targets: &[Option<u32>],
    head: &FrozenLinear<E>,
) -> Result<(f64, u64)> {
    let predicted = predictions(x, targets, head)?;
    let (x, width, vocabulary) = (x.contiguous()?, head.inputs(), head.outputs());
    let x = values::<E>(&x)?;
    let (mut loss, mut correct) = (0.0, 0);
    for targets in predicted.chunks((AT_A_TIME / vocabulary).max(1)) {
        let rows = targets.iter().flat_map(|&(row, _)| &x[row * width..(row + 1) * width]);
        let logits = head.output(&rows.copied().collect::<Vec<E>>())?;
        for (row, &(_, target)) in logits.chunks_exact(vocabulary).zip(targets) {
            let highest = highest(row);
            let total: f64 = row.iter().map(|&logit| Scalar::to_f64(logit - highest).exp()).sum();
            loss += total.ln() - Scalar::to_f64(row[target] - highest);
            correct += u64::from(row.iter().position(|&logit| logit >= highest) == Some(target));
        }
    }
    Ok((loss, correct))
}

/// Token and target of every prediction.
fn predictions<E: Element>(x: &Tensor, targets: &[Option<u32>], head: &FrozenLinear<E>) -> Result<Vec<(usize, usize)>> {
    let tokens = rows_of(head.name(), x, head.inputs())?;
    if tokens != targets.len() {
        bail!("{}: {} targets for {tokens} tokens", head.name(), targets.len());
    }
    let mut predicted = Vec::new();
    for (row, target) in targets.iter().enumerate() {
        if let Some(target) = target.map(|target| target as usize) {
            if target >= head.outputs() {
                bail!("{}: target {target} of {} outputs", head.name(), head.outputs());
            }
            predicted.push((row, target));
        }
    }
    if predicted.is_empty() {
        bail!("{}: no token has a target", head.name());
    }
    Ok(predicted)
}

struct Op<E> {
    head: FrozenLinear<E>,
    /// Token and target of every prediction.
    predicted: Vec<(usize, usize)>,
    tracked: bool,
    /// Of the input, if it is tracked.
    gradient: OnceLock<Vec<E>>,
}

/// Rows of logits to the gradients of their losses, and the losses.
struct CrossEntropy<'a, E> {
    logits: &'a mut [E],
    targets: &'a [(usize, usize)],
    losses: &'a mut [f64],
    /// What a row's gradient is scaled by: one over the number of predictions.
    share: E,
}

impl<E: Element> WithSimd for CrossEntropy<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { logits, targets, losses, share } = self;
        let negligible = E::constant(NEGLIGIBLE);
        let width = logits.len() / targets.len();
        for ((row, &(_, target)), loss) in logits.chunks_exact_mut(width).zip(targets).zip(losses) {
            let highest = highest(row);
            let own = row[target] - highest;
            for value in &mut *row {
                *value = (*value - highest).exp();
            }
            let total = sum(row);
            *loss = Scalar::to_f64(total).ln() - Scalar::to_f64(own);
            let reciprocal = E::one() / total;
            row[target] -= total;
            for value in &mut *row {
                let p = *value * reciprocal;
                // Only the target's is negative, and of any size it counts.
                *value = if p >= E::zero() && p < negligible { E::zero() } else { p * share };
            }
        }
    }
}

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "next-token-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width, vocabulary) = (contiguous::<E>(x, layout)?, self.head.inputs(), self.head.outputs());
        let share = E::one() / <E as Scalar>::from_f64(self.predicted.len() as f64);
        let mut gradient = self.tracked.then(|| vec![<E as Scalar>::ZERO; x.len()]);
        let mut total = 0.0;
        for targets in self.predicted.chunks((AT_A_TIME / vocabulary).max(1)) {
            let rows = targets.iter().flat_map(|&(row, _)| &x[row * width..(row + 1) * width]);
            let mut logits = self.head.output(&rows.copied().collect::<Vec<E>>())?;
            let mut losses = vec![0.0; targets.len()];
            parallel::rows_of_two((&mut logits, vocabulary), (&mut losses, 1), |first, logits, losses| {
                let targets = &targets[first..first + losses.len()];
                pulp::Arch::new().dispatch(CrossEntropy { logits, targets, losses, share });
            });
            total += losses.iter().sum::<f64>();
            if let Some(gradient) = &mut gradient {
                let mut dx = vec![<E as Scalar>::ZERO; targets.len() * width];
                self.head.add_gradient(&logits, &mut dx)?;
                for (&(row, _), dx) in targets.iter().zip(dx.chunks_exact(width)) {
                    gradient[row * width..(row + 1) * width].copy_from_slice(dx);
                }
            }
        }
        if gradient.is_some_and(|gradient| self.gradient.set(gradient).is_err()) {
            bail!("{}: one op runs forward once", self.head.name());
        }
        let mean = <E as Scalar>::from_f64(total / self.predicted.len() as f64);
        Ok((E::to_cpu_storage_owned(vec![mean]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(gradient) = self.gradient.get() else {
            bail!("{}: backward before forward", self.head.name());
        };
        let scale = grad.to_scalar::<E>()?;
        let scaled: Vec<E> = gradient.iter().map(|&value| value * scale).collect();
        Tensor::from_vec(scaled, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::cross_entropy;
    use crate::nn::check::{Run, agree, differences, random, threads_do_not_show};
    use crate::nn::frozen::tests::{dense, floats, stored};

    const TARGETS: [Option<u32>; 5] = [Some(3), None, Some(12), Some(0), None];

    #[test]
    fn it_agrees_with_differences_and_whole_logits() {
        for weight in stored(1, 13, 32) {
            let x = [random::<f64>(2, &[5, 32], 2.0)];
            let head = FrozenLinear::<f64>::new(weight.clone(), None).unwrap();
            differences(&x, &|x| next_token_loss(&x[0], &TARGETS, &head).unwrap());
            let single = FrozenLinear::<f32>::new(weight.clone(), None).unwrap();
            let ours: (Run<'_>, Run<'_>) = (&|x| next_token_loss(&x[0], &TARGETS, &single).unwrap(), &|x| {
                next_token_loss(&x[0], &TARGETS, &head).unwrap()
            });
            agree(&x, ours, &|x| {
                let rows = x[0].index_select(&Tensor::new(&[0u32, 2, 3], x[0].device()).unwrap(), 0).unwrap();
                let logits = rows.matmul(&dense(&weight).t().unwrap()).unwrap();
                cross_entropy::<f64>(&logits, &Tensor::new(&[3u32, 12, 0], x[0].device()).unwrap()).unwrap()
            });
        }
    }

    #[test]
    fn more_logits_than_are_formed_at_a_time_are_the_same_on_any_threads() {
        let head = FrozenLinear::<f32>::new(floats("head", 1, 70_000, 4), None).unwrap();
        let targets: Vec<Option<u32>> = (0..130).map(|n| Some(n * 500)).collect();
        let x = [random::<f32>(2, &[130, 4], 2.0)];
        threads_do_not_show(&x, &|x| next_token_loss(&x[0], &targets, &head).unwrap());
        let parts: f32 = (0..130)
            .map(|n| next_token_loss(&x[0].narrow(0, n, 1).unwrap(), &targets[n..=n], &head).unwrap())
            .map(|loss| loss.to_scalar::<f32>().unwrap())
            .sum();
        let whole = next_token_loss(&x[0], &targets, &head).unwrap().to_scalar::<f32>().unwrap();
        assert!((parts / 130.0 - whole).abs() < 1e-4, "{parts} {whole}");
    }

    #[test]
    fn targets_that_do_not_fit_are_errors() {
        let head = FrozenLinear::<f32>::new(floats("head", 1, 13, 4), None).unwrap();
        let error = |targets: &[Option<u32>]| {
            next_token_loss(&random::<f32>(2, &[2, 4], 1.0), targets, &head).unwrap_err().to_string()
        };
        assert!(error(&[None, Some(13)]).contains("head: target 13 of 13 outputs"));
        assert!(error(&[None, None]).contains("head: no token has a target"));
        assert!(error(&[Some(1)]).contains("head: 1 targets for 2 tokens"));
    }
}
