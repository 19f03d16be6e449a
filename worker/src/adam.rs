//! Adam (Kingma & Ba, ICLR 2015) in one pass over parameter, gradient and moments.
//!
//! `candle_nn::AdamW` spells the update as some fifteen tensor operations, each a new tensor and, above
//! 64 Ki elements, a hand-over to Candle's thread pool; on the dense baseline that was most of a step.
//! This is the same update, in place and on the calling thread. Every method trains with it.

use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Var, WithDType, bail};
use pulp::{Simd, WithSimd};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Adam over some `f32` variables.
#[derive(Debug)]
pub struct Adam {
    variables: Vec<(Var, Mutex<Moments>)>,
    rate: f32,
    steps: i32,
}

#[derive(Debug)]
struct Moments {
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    /// A fresh optimizer: moments zero, β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸.
    #[must_use]
    pub fn new(variables: Vec<Var>, rate: f32) -> Self {
        let moments = |variable: &Var| {
            let zeros = vec![0.0; variable.elem_count()];
            Mutex::new(Moments { mean: zeros.clone(), square: zeros })
        };
        let variables = variables.into_iter().map(|variable| (moments(&variable), variable));
        Self { variables: variables.map(|(moments, variable)| (variable, moments)).collect(), rate, steps: 0 }
    }

    /// One step; a variable without a gradient is an error, since Candle drops gradients in silence.
    ///
    /// # Errors
    /// If a gradient is missing or a tensor is not contiguous `f32` on the CPU.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.steps += 1;
        for (variable, moments) in &self.variables {
            let Some(gradient) = gradients.get(variable) else {
                bail!("a trained variable of shape {:?} got no gradient", variable.dims());
            };
            let update = Update {
                moments,
                rate: self.rate / (1.0 - BETA1.powi(self.steps)),
                square_scale: 1.0 / (1.0 - BETA2.powi(self.steps)),
            };
            variable.inplace_op2(&gradient.contiguous()?, &update)?;
        }
        Ok(())
    }
}

struct Update<'a> {
    moments: &'a Mutex<Moments>,
    rate: f32,
    square_scale: f32,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, value: &mut CpuStorage, lv: &Layout, gradient: &CpuStorage, lg: &Layout) -> Result<()> {
        let (Some((v0, v1)), Some((g0, g1))) = (lv.contiguous_offsets(), lg.contiguous_offsets()) else {
            bail!("adam needs contiguous tensors");
        };
        let CpuStorage::F32(value) = value else { bail!("adam needs f32 variables") };
        let (value, gradient) = (&mut value[v0..v1], &f32::cpu_storage_as_slice(gradient)?[g0..g1]);
        let moments = &mut *self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        pulp::Arch::new().dispatch(Pass { update: self, value, gradient, moments });
        Ok(())
    }
}

/// One variable's update, to be compiled once for every instruction set.
struct Pass<'a> {
    update: &'a Update<'a>,
    value: &'a mut [f32],
    gradient: &'a [f32],
    moments: &'a mut Moments,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let &Update { rate, square_scale, .. } = self.update;
        let moments = self.moments.mean.iter_mut().zip(&mut self.moments.square);
        for ((value, &gradient), (mean, square)) in self.value.iter_mut().zip(self.gradient).zip(moments) {
            *mean = BETA1 * *mean + (1.0 - BETA1) * gradient;
            *square = BETA2 * *square + (1.0 - BETA2) * gradient * gradient;
            *value -= rate * *mean / ((*square * square_scale).sqrt() + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};

    use super::*;

    fn variable() -> Var {
        Var::from_tensor(&Tensor::new(&[[1.0f32, -2.0, 0.5], [3.0, 0.1, -0.7]], &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn it_agrees_with_candles_adam() {
        let (ours, theirs) = (variable(), variable());
        let mut adam = Adam::new(vec![ours.clone()], 0.1);
        let parameters = ParamsAdamW { lr: 0.1, weight_decay: 0.0, ..Default::default() };
        let mut reference = AdamW::new(vec![theirs.clone()], parameters).unwrap();
        let loss = |v: &Var| (v.sqr().unwrap() * 0.7).unwrap().sin().unwrap().sum_all().unwrap();
        for _ in 0..20 {
            adam.step(&loss(&ours).backward().unwrap()).unwrap();
            reference.backward_step(&loss(&theirs)).unwrap();
        }
        let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in flat(&ours).iter().zip(flat(&theirs)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn a_variable_without_a_gradient_is_an_error() {
        let (used, unused) = (variable(), variable());
        let gradients = used.sum_all().unwrap().backward().unwrap();
        let error = Adam::new(vec![used, unused], 0.1).step(&gradients).unwrap_err();
        assert!(error.to_string().contains("[2, 3] got no gradient"), "{error}");
    }
}
