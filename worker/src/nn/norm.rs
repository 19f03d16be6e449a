//! Layer norm and RMS norm with frozen weights, one pass a row, and the gradient of their input.
//!
//! `y = (x − c)·s·w + b` with `s = 1/√(mean((x − c)²) + ε)`; `c` is the row's mean for layer norm (Ba et al., 2016) and 0
//! for RMS norm (Zhang and Sennrich, 2019). With `x̂ = (x − c)·s` and `h = g·w` the gradient is
//! `s·(h − mean h − x̂·mean(h·x̂))`, without `mean h` for RMS norm. Nothing is kept from the forward pass:
//! a row's sums cost less than reading them back.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;
use pulp::{Simd, WithSimd};

use crate::adapted::{Element, contiguous};
use crate::nn::parallel;
use crate::nn::values::{dot, rows_of, sum, values};

/// A norm over the features of every token.
#[derive(Clone, Debug)]
pub struct Norm<E> {
    parts: Arc<Parts<E>>,
}

#[derive(Debug)]
struct Parts<E> {
    weight: Vec<E>,
    /// Of a layer norm; an RMS norm has none and takes no mean away.
    bias: Option<Vec<E>>,
    epsilon: E,
}

impl<E: Element> Norm<E> {
    /// Layer norm over `weight.len()` features.
    ///
    /// # Errors
    /// If weight and bias are not of one length, or of none.
    pub fn layer(weight: Vec<E>, bias: Vec<E>, epsilon: f64) -> Result<Self> {
        if weight.len() != bias.len() || weight.is_empty() {
            bail!("a layer norm of {} weights and {} biases", weight.len(), bias.len());
        }
        let parts = Parts { weight, bias: Some(bias), epsilon: <E as Scalar>::from_f64(epsilon) };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// RMS norm over `weight.len()` features.
    ///
    /// # Errors
    /// If there is no weight.
    pub fn rms(weight: Vec<E>, epsilon: f64) -> Result<Self> {
        if weight.is_empty() {
            bail!("an RMS norm of 0 weights");
        }
        let parts = Parts { weight, bias: None, epsilon: <E as Scalar>::from_f64(epsilon) };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// The norm of `x`, tokens × features.
    ///
    /// # Errors
    /// If `x` has another shape, naming both.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rows_of("norm", x, self.parts.weight.len())?;
        x.contiguous()?.apply_op1(Op(self.parts.clone()))
    }

    /// The norm of `x + residual` in one pass, both tokens × features.
    ///
    /// # Errors
    /// If either has another shape, naming both.
    pub fn forward_sum(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let width = self.parts.weight.len();
        let (rows, others) = (rows_of("norm", x, width)?, rows_of("norm", residual, width)?);
        if rows != others {
            bail!("norm: the sum of {rows} and {others} tokens");
        }
        x.contiguous()?.apply_op2(&residual.contiguous()?, Op(self.parts.clone()))
    }
}

impl<E: Element> Parts<E> {
    fn forward(&self, x: &[E], residual: Option<&[E]>) -> Vec<E> {
        let mut y = match residual {
            None => x.to_vec(),
            Some(residual) => x.iter().zip(residual).map(|(&a, &b)| a + b).collect(),
        };
        parallel::rows(&mut y, self.weight.len(), |_, y| pulp::Arch::new().dispatch(Forward { parts: self, y }));
        y
    }

    fn backward(&self, x: &Tensor, residual: Option<&Tensor>, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?;
        let (x_values, g) = (values::<E>(x)?, values::<E>(&grad)?);
        let (x_values, g) = (&*x_values, &*g);
        let mut dx = match residual.map(values::<E>).transpose()? {
            None => x_values.to_vec(),
            Some(residual) => x_values.iter().zip(residual.iter()).map(|(&a, &b)| a + b).collect(),
        };
        let width = self.weight.len();
        parallel::rows(&mut dx, width, |first, dx| {
            let g = &g[first * width..first * width + dx.len()];
            pulp::Arch::new().dispatch(Backward { parts: self, g, dx });
        });
        Tensor::from_vec(dx, x.shape(), x.device())
    }

    /// Takes the centre away from a row; its scale `s`.
    #[inline(always)]
    fn normalise(&self, row: &mut [E]) -> E {
        let reciprocal = E::one() / <E as Scalar>::from_f64(row.len() as f64);
        if self.bias.is_some() {
            let mean = sum(row) * reciprocal;
            for value in &mut *row {
                *value -= mean;
            }
        }
        E::one() / (dot(row, row) * reciprocal + self.epsilon).sqrt()
    }
}

struct Forward<'a, E> {
    parts: &'a Parts<E>,
    /// The input, which becomes the output.
    y: &'a mut [E],
}

impl<E: Element> WithSimd for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { parts, y } = self;
        for row in y.chunks_exact_mut(parts.weight.len()) {
            let scale = parts.normalise(row);
            for (value, &weight) in row.iter_mut().zip(&parts.weight) {
                *value *= scale * weight;
            }
            if let Some(bias) = &parts.bias {
                for (value, &bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        }
    }
}

struct Backward<'a, E> {
    parts: &'a Parts<E>,
    g: &'a [E],
    /// The input, which becomes its gradient.
    dx: &'a mut [E],
}

impl<E: Element> WithSimd for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { parts, g, dx } = self;
        let width = parts.weight.len();
        let reciprocal = E::one() / <E as Scalar>::from_f64(width as f64);
        let mut weighted = vec![E::zero(); width];
        for (row, g) in dx.chunks_exact_mut(width).zip(g.chunks_exact(width)) {
            let scale = parts.normalise(row);
            for ((weighted, &g), &weight) in weighted.iter_mut().zip(g).zip(&parts.weight) {
                *weighted = g * weight;
            }
            let mean = if parts.bias.is_some() { sum(&weighted) * reciprocal } else { E::zero() };
            let along = dot(&weighted, row) * scale * scale * reciprocal;
            for (value, &weighted) in row.iter_mut().zip(&weighted) {
                *value = scale * (weighted - mean - *value * along);
            }
        }
    }
}

struct Op<E>(Arc<Parts<E>>);

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.0.forward(contiguous::<E>(x, layout)?, None);
        Ok((E::to_cpu_storage_owned(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.0.backward(x, None, grad).map(Some)
    }
}

impl<E: Element> CustomOp2 for Op<E> {
    fn name(&self) -> &'static str {
        "norm-of-sum"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, other: &CpuStorage, lo: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.0.forward(contiguous::<E>(x, lx)?, Some(contiguous::<E>(other, lo)?));
        Ok((E::to_cpu_storage_owned(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = self.0.backward(x, Some(residual), grad)?;
        Ok((Some(gradient.clone()), Some(gradient)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::check::{Run, agree, differences, flat, random, threads_do_not_show};

    const WIDTH: usize = 37;

    fn layer<E: Element>() -> Norm<E> {
        let values = |seed| flat::<f64>(&random::<f64>(seed, &[WIDTH], 1.0)).into_iter();
        let cast = <E as Scalar>::from_f64;
        Norm::layer(values(1).map(cast).collect(), values(2).map(cast).collect(), 1e-5).unwrap()
    }

    fn rms<E: Element>() -> Norm<E> {
        let values = flat::<f64>(&random::<f64>(1, &[WIDTH], 1.0)).into_iter();
        Norm::rms(values.map(<E as Scalar>::from_f64).collect(), 1e-5).unwrap()
    }

    /// The same from Candle's own ops.
    fn composed(x: &Tensor, centred: bool) -> Tensor {
        let weight = random::<f64>(1, &[WIDTH], 1.0);
        let x = if centred { x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap() } else { x.clone() };
        let scale = (x.sqr().unwrap().mean_keepdim(1).unwrap() + 1e-5).unwrap().sqrt().unwrap();
        let y = x.broadcast_div(&scale).unwrap().broadcast_mul(&weight).unwrap();
        if centred { y.broadcast_add(&random::<f64>(2, &[WIDTH], 1.0)).unwrap() } else { y }
    }

    #[test]
    fn layer_norm_agrees_with_differences_and_composed_ops() {
        let x = [random::<f64>(3, &[4, WIDTH], 2.0)];
        differences(&x, &|x| layer::<f64>().forward(&x[0]).unwrap());
        let ours: (Run<'_>, Run<'_>) =
            (&|x| layer::<f32>().forward(&x[0]).unwrap(), &|x| layer::<f64>().forward(&x[0]).unwrap());
        agree(&x, ours, &|x| composed(&x[0], true));
    }

    #[test]
    fn rms_norm_agrees_with_differences_and_composed_ops() {
        let x = [random::<f64>(3, &[4, WIDTH], 2.0)];
        differences(&x, &|x| rms::<f64>().forward(&x[0]).unwrap());
        let ours: (Run<'_>, Run<'_>) =
            (&|x| rms::<f32>().forward(&x[0]).unwrap(), &|x| rms::<f64>().forward(&x[0]).unwrap());
        agree(&x, ours, &|x| composed(&x[0], false));
    }

    #[test]
    fn a_sum_is_normed_as_if_added_before() {
        let x = [random::<f64>(3, &[4, WIDTH], 2.0), random::<f64>(4, &[4, WIDTH], 1.0)];
        let ours: (Run<'_>, Run<'_>) = (&|x| layer::<f32>().forward_sum(&x[0], &x[1]).unwrap(), &|x| {
            layer::<f64>().forward_sum(&x[0], &x[1]).unwrap()
        });
        agree(&x, ours, &|x| composed(&(&x[0] + &x[1]).unwrap(), true));
    }

    #[test]
    fn a_norm_is_the_same_on_any_threads() {
        let x = [random::<f32>(3, &[1200, WIDTH], 2.0), random::<f32>(4, &[1200, WIDTH], 2.0)];
        threads_do_not_show(&x, &|x| layer::<f32>().forward_sum(&x[0], &x[1]).unwrap());
        threads_do_not_show(&x[..1], &|x| rms::<f32>().forward(&x[0]).unwrap());
    }

    #[test]
    fn another_width_is_an_error_that_names_both() {
        let x = Tensor::zeros((2, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = layer::<f32>().forward(&x).unwrap_err().to_string();
        assert!(error.contains("[2, 5]") && error.contains("× 37"), "{error}");
    }
}
