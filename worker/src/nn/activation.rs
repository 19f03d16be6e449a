//! Activations, each one pass forward and one backward.
//!
//! | | `f(x)` | |
//! |---|---|---|
//! | GELU | `x·Φ(x)` | Hendrycks and Gimpel, 2016; BERT's |
//! | GELU, tanh form | `x/2·(1 + tanh(√(2/π)·(x + 0.044715x³)))` | GPT-2's; computed as `x·σ(2u)` |
//! | SiLU | `x·σ(x)` | also swish |
//! | ReLU | `max(x, 0)` | |
//! | gate | `f(a)·b` | with SiLU, SwiGLU's; Shazeer, 2020 |
//!
//! They know no shapes: a value's gradient depends on that value alone.

use std::marker::PhantomData;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;
use pulp::{Simd, WithSimd};

use crate::adapted::{Element, contiguous};
use crate::nn::parallel;
use crate::nn::values::values;

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the normal distribution.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// SiLU.
    Silu,
    /// ReLU.
    Relu,
}

impl Activation {
    /// `f(x)`, value by value.
    ///
    /// # Errors
    /// If `x` is not of `E`.
    pub fn forward<E: Element>(self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        match self {
            Self::Gelu => x.apply_op1(Op::<E, Gelu>(PhantomData)),
            Self::GeluTanh => x.apply_op1(Op::<E, GeluTanh>(PhantomData)),
            Self::Silu => x.apply_op1(Op::<E, Silu>(PhantomData)),
            Self::Relu => x.apply_op1(Op::<E, Relu>(PhantomData)),
        }
    }

    /// `f(a)·b`, value by value.
    ///
    /// # Errors
    /// If the shapes are not one, naming both, or the values not of `E`.
    pub fn gate<E: Element>(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        if a.dims() != b.dims() {
            bail!("gate: {:?} gated by {:?}", b.dims(), a.dims());
        }
        let (a, b) = (a.contiguous()?, b.contiguous()?);
        match self {
            Self::Gelu => a.apply_op2(&b, Op::<E, Gelu>(PhantomData)),
            Self::GeluTanh => a.apply_op2(&b, Op::<E, GeluTanh>(PhantomData)),
            Self::Silu => a.apply_op2(&b, Op::<E, Silu>(PhantomData)),
            Self::Relu => a.apply_op2(&b, Op::<E, Relu>(PhantomData)),
        }
    }
}

/// A function and its slope.
trait Curve: Send + Sync + 'static {
    const NAME: &'static str;
    /// `f(x)`.
    fn value<E: Element>(x: E) -> E;
    /// `f(x)` and `f′(x)`.
    fn both<E: Element>(x: E) -> (E, E);
}

struct Gelu;
struct GeluTanh;
struct Silu;
struct Relu;

/// `σ(x)`.
#[inline(always)]
fn sigmoid<E: Element>(x: E) -> E {
    E::one() / (E::one() + (-x).exp())
}

/// `2·√(2/π)` and the cube's coefficient of the tanh form.
const TWO_SQRT_2_OVER_PI: f64 = 1.595_769_121_605_730_7;
const CUBE: f64 = 0.044_715;

impl Curve for Gelu {
    const NAME: &'static str = "gelu";

    #[inline(always)]
    fn value<E: Element>(x: E) -> E {
        x * x.normal().0
    }

    #[inline(always)]
    fn both<E: Element>(x: E) -> (E, E) {
        let (distribution, density) = x.normal();
        (x * distribution, distribution + x * density)
    }
}

impl Curve for GeluTanh {
    const NAME: &'static str = "gelu-tanh";

    #[inline(always)]
    fn value<E: Element>(x: E) -> E {
        Self::both(x).0
    }

    #[inline(always)]
    fn both<E: Element>(x: E) -> (E, E) {
        let (scale, cube) = (E::constant(TWO_SQRT_2_OVER_PI), E::constant(CUBE));
        let s = sigmoid(scale * (x + cube * x * x * x));
        let inner = scale * (E::one() + E::constant(3.0) * cube * x * x);
        (x * s, s + x * s * (E::one() - s) * inner)
    }
}

impl Curve for Silu {
    const NAME: &'static str = "silu";

    #[inline(always)]
    fn value<E: Element>(x: E) -> E {
        x * sigmoid(x)
    }

    #[inline(always)]
    fn both<E: Element>(x: E) -> (E, E) {
        let s = sigmoid(x);
        (x * s, s * (E::one() + x * (E::one() - s)))
    }
}

impl Curve for Relu {
    const NAME: &'static str = "relu";

    #[inline(always)]
    fn value<E: Element>(x: E) -> E {
        if x < E::zero() { E::zero() } else { x }
    }

    #[inline(always)]
    fn both<E: Element>(x: E) -> (E, E) {
        (Self::value(x), if x > E::zero() { E::one() } else { E::zero() })
    }
}

struct Op<E, C>(PhantomData<(E, C)>);

struct Forward<'a, E, C> {
    x: &'a [E],
    y: &'a mut [E],
    curve: PhantomData<C>,
}

impl<E: Element, C: Curve> WithSimd for Forward<'_, E, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = C::value(x);
        }
    }
}

struct Backward<'a, E, C> {
    x: &'a [E],
    g: &'a [E],
    dx: &'a mut [E],
    curve: PhantomData<C>,
}

impl<E: Element, C: Curve> WithSimd for Backward<'_, E, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((dx, &g), &x) in self.dx.iter_mut().zip(self.g).zip(self.x) {
            *dx = g * C::both(x).1;
        }
    }
}

impl<E: Element, C: Curve> CustomOp1 for Op<E, C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous::<E>(x, layout)?;
        let mut y = vec![<E as Scalar>::ZERO; x.len()];
        parallel::rows(&mut y, 1, |first, y| {
            let x = &x[first..first + y.len()];
            pulp::Arch::new().dispatch(Forward { x, y, curve: PhantomData::<C> });
        });
        Ok((E::to_cpu_storage_owned(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_values, g) = (values::<E>(x)?, values::<E>(&grad)?);
        let (x_values, g) = (&*x_values, &*g);
        let mut dx = vec![<E as Scalar>::ZERO; x_values.len()];
        parallel::rows(&mut dx, 1, |first, dx| {
            let range = first..first + dx.len();
            let (x, g) = (&x_values[range.clone()], &g[range]);
            pulp::Arch::new().dispatch(Backward { x, g, dx, curve: PhantomData::<C> });
        });
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

struct GateForward<'a, E, C> {
    a: &'a [E],
    b: &'a [E],
    y: &'a mut [E],
    curve: PhantomData<C>,
}

impl<E: Element, C: Curve> WithSimd for GateForward<'_, E, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((y, &a), &b) in self.y.iter_mut().zip(self.a).zip(self.b) {
            *y = C::value(a) * b;
        }
    }
}

struct GateBackward<'a, E, C> {
    a: &'a [E],
    b: &'a [E],
    g: &'a [E],
    da: &'a mut [E],
    db: &'a mut [E],
    curve: PhantomData<C>,
}

impl<E: Element, C: Curve> WithSimd for GateBackward<'_, E, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let inputs = self.a.iter().zip(self.b).zip(self.g);
        for (((&a, &b), &g), (da, db)) in inputs.zip(self.da.iter_mut().zip(self.db)) {
            let (value, slope) = C::both(a);
            *da = g * b * slope;
            *db = g * value;
        }
    }
}

impl<E: Element, C: Curve> CustomOp2 for Op<E, C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (contiguous::<E>(a, la)?, contiguous::<E>(b, lb)?);
        let mut y = vec![<E as Scalar>::ZERO; a.len()];
        parallel::rows(&mut y, 1, |first, y| {
            let range = first..first + y.len();
            pulp::Arch::new().dispatch(GateForward { a: &a[range.clone()], b: &b[range], y, curve: PhantomData::<C> });
        });
        Ok((E::to_cpu_storage_owned(y), la.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (va, vb, g) = (values::<E>(a)?, values::<E>(b)?, values::<E>(&grad)?);
        let (va, vb, g) = (&*va, &*vb, &*g);
        let (mut da, mut db) = (vec![<E as Scalar>::ZERO; va.len()], vec![<E as Scalar>::ZERO; va.len()]);
        parallel::rows_of_two((&mut da, 1), (&mut db, 1), |first, da, db| {
            let range = first..first + da.len();
            let (a, b, g) = (&va[range.clone()], &vb[range.clone()], &g[range]);
            pulp::Arch::new().dispatch(GateBackward { a, b, g, da, db, curve: PhantomData::<C> });
        });
        let tensor = |values| Tensor::from_vec(values, a.shape(), a.device()).map(Some);
        Ok((tensor(da)?, tensor(db)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check::{Run, agree, differences, random, threads_do_not_show};

    const ALL: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];

    fn composed(activation: Activation, x: &Tensor) -> Tensor {
        let sigmoid = |x: &Tensor| ((x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip()).unwrap();
        match activation {
            // Candle's own two have constants of six digits in their gradients.
            Activation::Gelu => {
                let erf = (x * std::f64::consts::FRAC_1_SQRT_2).unwrap().erf().unwrap();
                (x * ((erf + 1.0).unwrap() * 0.5).unwrap()).unwrap()
            }
            Activation::GeluTanh => {
                let inner = (x + (x.powf(3.0).unwrap() * CUBE).unwrap()).unwrap();
                (x * sigmoid(&(inner * TWO_SQRT_2_OVER_PI).unwrap())).unwrap()
            }
            Activation::Silu => (x * sigmoid(x)).unwrap(),
            Activation::Relu => x.relu().unwrap(),
        }
    }

    #[test]
    fn every_activation_agrees_with_differences_and_candle() {
        let x = [random::<f64>(1, &[5, 41], 6.0)];
        for activation in ALL {
            differences(&x, &|x| activation.forward::<f64>(&x[0]).unwrap());
            let ours: (Run<'_>, Run<'_>) =
                (&|x| activation.forward::<f32>(&x[0]).unwrap(), &|x| activation.forward::<f64>(&x[0]).unwrap());
            agree(&x, ours, &|x| composed(activation, &x[0]));
        }
    }

    #[test]
    fn every_gate_agrees_with_differences_and_candle() {
        let x = [random::<f64>(1, &[3, 41], 6.0), random::<f64>(2, &[3, 41], 2.0)];
        for activation in ALL {
            differences(&x, &|x| activation.gate::<f64>(&x[0], &x[1]).unwrap());
            let ours: (Run<'_>, Run<'_>) = (&|x| activation.gate::<f32>(&x[0], &x[1]).unwrap(), &|x| {
                activation.gate::<f64>(&x[0], &x[1]).unwrap()
            });
            agree(&x, ours, &|x| (composed(activation, &x[0]) * &x[1]).unwrap());
        }
    }

    #[test]
    fn an_activation_is_the_same_on_any_threads() {
        let x = [random::<f32>(1, &[300, 131], 4.0), random::<f32>(2, &[300, 131], 4.0)];
        threads_do_not_show(&x[..1], &|x| Activation::Gelu.forward::<f32>(&x[0]).unwrap());
        threads_do_not_show(&x, &|x| Activation::Silu.gate::<f32>(&x[0], &x[1]).unwrap());
    }

    #[test]
    fn a_gate_of_another_shape_is_an_error() {
        let error =
            Activation::Silu.gate::<f32>(&random::<f32>(1, &[2, 3], 1.0), &random::<f32>(1, &[3, 2], 1.0)).unwrap_err();
        assert!(error.to_string().contains("[3, 2] gated by [2, 3]"), "{error}");
    }
}
