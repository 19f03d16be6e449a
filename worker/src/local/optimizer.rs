//! The optimizers of local training, each one pass over parameter, gradient and state.
//!
//! Candle's spell an update as some fifteen tensor operations, each a new tensor and, above 64 Ki elements, a hand-over
//! to its thread pool; on the dense baseline that was most of a step. These are the same updates, in place and on the
//! calling thread. They do not know where gradients come from nor how the rate changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, WithDType, bail};
use pulp::{Simd, WithSimd};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// How a gradient g moves a parameter θ at a rate η. Decay is decoupled from the gradient in both (Loshchilov & Hutter,
/// ICLR 2019) and pulls θ to 0; where θ is a round's delta, as in packfed, that is to where the round began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalOptimizer {
    /// `θ ← θ·(1 − ηλ) − η·m̂/(√v̂ + ε)` with Adam's moments (Kingma & Ba, ICLR 2015), β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸.
    AdamW {
        /// λ; with 0 this is Adam.
        weight_decay: f32,
    },
    /// `v ← μv + g`, `θ ← θ·(1 − ηλ) − ηv` (Sutskever et al., ICML 2013, in PyTorch's form).
    Sgd {
        /// μ, from 0 to below 1.
        momentum: f32,
        /// λ.
        weight_decay: f32,
    },
}

impl LocalOptimizer {
    /// Adam without decay.
    pub const ADAM: Self = Self::AdamW { weight_decay: 0.0 };

    /// Values of state for so many parameters.
    fn state_len(self, parameters: usize) -> usize {
        match self {
            Self::AdamW { .. } => 2 * parameters,
            Self::Sgd { momentum, .. } => parameters * usize::from(momentum != 0.0),
        }
    }
}

/// An optimizer over some `f32` variables.
#[derive(Debug)]
pub struct Optimizer {
    rule: LocalOptimizer,
    /// Each with its state: mean then square of Adam, the velocity of SGD.
    variables: Vec<(Var, Mutex<Vec<f32>>)>,
    /// For each, what the rate is multiplied by.
    factors: Vec<f32>,
    steps: u32,
}

impl Optimizer {
    /// A fresh optimizer: its state is zero.
    #[must_use]
    pub fn new(rule: LocalOptimizer, variables: &[Var]) -> Self {
        Self::with_factors(rule, variables, &[])
    }

    /// The same, where variable n learns at `factors[n]` times the rate, and at the rate itself where there is none.
    #[must_use]
    pub fn with_factors(rule: LocalOptimizer, variables: &[Var], factors: &[f32]) -> Self {
        let factors = (0..variables.len()).map(|n| factors.get(n).copied().unwrap_or(1.0)).collect();
        let state = |variable: &Var| Mutex::new(vec![0.0; rule.state_len(variable.elem_count())]);
        let variables = variables.iter().map(|variable| (variable.clone(), state(variable))).collect();
        Self { rule, variables, factors, steps: 0 }
    }

    /// The variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Var> {
        self.variables.iter().map(|(variable, _)| variable)
    }

    /// Steps taken.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// The state's values, one variable after another.
    pub(crate) fn state(&self) -> Vec<f32> {
        let state = |(_, state): &(Var, Mutex<Vec<f32>>)| state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.variables.iter().flat_map(state).collect()
    }

    /// Values of the state.
    pub(crate) fn state_len(&self) -> usize {
        self.variables().map(|variable| self.rule.state_len(variable.elem_count())).sum()
    }

    /// Goes on from a state after so many steps.
    ///
    /// # Panics
    /// If there are fewer values than [`Optimizer::state_len`].
    pub(crate) fn restore(&mut self, steps: u32, mut values: &[f32]) {
        for (_, state) in &mut self.variables {
            let state = state.get_mut().unwrap_or_else(PoisonError::into_inner);
            let (own, rest) = values.split_at(state.len());
            state.copy_from_slice(own);
            values = rest;
        }
        self.steps = steps;
    }

    /// Moves the variables along `scale`·gradient, one gradient of its shape a variable; says whether all of them are finite then.
    ///
    /// # Errors
    /// If a tensor is not contiguous `f32` on the CPU.
    pub fn step(&mut self, gradients: &[Tensor], scale: f32, rate: f32) -> Result<bool> {
        self.steps += 1;
        let finite = AtomicBool::new(true);
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        for (((variable, state), factor), gradient) in self.variables.iter().zip(&self.factors).zip(gradients) {
            let rate = rate * factor;
            let update = match self.rule {
                LocalOptimizer::AdamW { weight_decay } => Update::AdamW {
                    keep: 1.0 - rate * weight_decay,
                    rate: rate / (1.0 - BETA1.powi(t)),
                    square_scale: 1.0 / (1.0 - BETA2.powi(t)),
                },
                LocalOptimizer::Sgd { momentum, weight_decay } => {
                    Update::Sgd { keep: 1.0 - rate * weight_decay, rate, momentum }
                }
            };
            variable.inplace_op2(gradient, &Op { update, scale, state, finite: &finite })?;
        }
        Ok(finite.into_inner())
    }
}

/// One step's numbers; `keep` is what decay leaves of a parameter.
#[derive(Clone, Copy)]
enum Update {
    AdamW { keep: f32, rate: f32, square_scale: f32 },
    Sgd { keep: f32, rate: f32, momentum: f32 },
}

struct Op<'a> {
    update: Update,
    scale: f32,
    state: &'a Mutex<Vec<f32>>,
    finite: &'a AtomicBool,
}

impl InplaceOp2 for Op<'_> {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn cpu_fwd(&self, value: &mut CpuStorage, lv: &Layout, gradient: &CpuStorage, lg: &Layout) -> Result<()> {
        let (Some((v0, v1)), Some((g0, g1))) = (lv.contiguous_offsets(), lg.contiguous_offsets()) else {
            bail!("an optimizer needs contiguous tensors");
        };
        let CpuStorage::F32(value) = value else { bail!("an optimizer needs f32 variables") };
        let (value, gradient) = (&mut value[v0..v1], &f32::cpu_storage_as_slice(gradient)?[g0..g1]);
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let largest =
            pulp::Arch::new().dispatch(Pass { update: self.update, scale: self.scale, value, gradient, state });
        if largest >= f32::INFINITY.to_bits() {
            self.finite.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// One variable's update, to be compiled once for every instruction set; gives the bits of the largest magnitude.
struct Pass<'a> {
    update: Update,
    scale: f32,
    value: &'a mut [f32],
    gradient: &'a [f32],
    state: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> u32 {
        let Self { update, scale, value, gradient, state } = self;
        let mut largest = 0;
        // Magnitudes are ordered as their bits are, with infinity and then NaN at the end.
        let mut seen = |value: f32| largest = u32::max(largest, value.abs().to_bits());
        match update {
            Update::AdamW { keep, rate, square_scale } => {
                let (means, squares) = state.split_at_mut(value.len());
                let moments = means.iter_mut().zip(squares);
                for ((value, &gradient), (mean, square)) in value.iter_mut().zip(gradient).zip(moments) {
                    let gradient = gradient * scale;
                    *mean = BETA1 * *mean + (1.0 - BETA1) * gradient;
                    *square = BETA2 * *square + (1.0 - BETA2) * gradient * gradient;
                    *value = *value * keep - rate * *mean / ((*square * square_scale).sqrt() + EPSILON);
                    seen(*value);
                }
            }
            Update::Sgd { keep, rate, .. } if state.is_empty() => {
                for (value, &gradient) in value.iter_mut().zip(gradient) {
                    *value = *value * keep - rate * (gradient * scale);
                    seen(*value);
                }
            }
            Update::Sgd { keep, rate, momentum } => {
                for ((value, &gradient), velocity) in value.iter_mut().zip(gradient).zip(state) {
                    *velocity = momentum * *velocity + gradient * scale;
                    *value = *value * keep - rate * *velocity;
                    seen(*value);
                }
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};

    use super::*;

    const START: [f32; 6] = [1.0, -2.0, 0.5, 3.0, 0.1, -0.7];
    const RATES: [f32; 4] = [0.05, 0.1, 0.1, 0.02];

    fn variable() -> Var {
        Var::from_slice(&START, (2, 3), &Device::Cpu).unwrap()
    }

    fn gradient(value: f64) -> f64 {
        (value * 1.7).sin()
    }

    /// What an optimizer makes of [`START`], each step under one of [`RATES`].
    fn found(rule: LocalOptimizer) -> Vec<f32> {
        let variable = variable();
        let mut optimizer = Optimizer::new(rule, std::slice::from_ref(&variable));
        for rate in RATES {
            let gradient = (variable.as_tensor() * 1.7).unwrap().sin().unwrap();
            // Twice the gradient at half the scale is the gradient.
            assert!(optimizer.step(&[(gradient * 2.0).unwrap()], 0.5, rate).unwrap());
        }
        variable.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_near(found: &[f32], expected: impl Fn(f64) -> f64) {
        for (&found, start) in found.iter().zip(START) {
            let expected = expected(start.into());
            assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_variable_with_a_factor_learns_that_much_faster() {
        let (one, other) = (variable(), variable());
        let gradients = [one.ones_like().unwrap(), one.ones_like().unwrap()];
        let mut optimizer = Optimizer::with_factors(LocalOptimizer::ADAM, &[one.clone(), other.clone()], &[1.0, 4.0]);
        assert!(optimizer.step(&gradients, 1.0, 0.25).unwrap());
        let moved = |of: &Var| START[0] - of.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((moved(&one) - 0.25).abs() < 1e-5 && (moved(&other) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn adam_with_decay_is_the_papers_formula() {
        for decay in [0.0f32, 0.3] {
            assert_near(&found(LocalOptimizer::AdamW { weight_decay: decay }), |mut value| {
                let (mut mean, mut square) = (0.0, 0.0);
                for (t, rate) in (1..).zip(RATES.map(f64::from)) {
                    let g = gradient(value);
                    (mean, square) = (0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g);
                    let (mean, square) = (mean / (1.0 - 0.9f64.powi(t)), square / (1.0 - 0.999f64.powi(t)));
                    value = value - rate * (mean / (square.sqrt() + 1e-8) + f64::from(decay) * value);
                }
                value
            });
        }
    }

    #[test]
    fn adam_without_decay_has_the_bits_of_adam() {
        let variable = variable();
        let mut optimizer = Optimizer::new(LocalOptimizer::ADAM, std::slice::from_ref(&variable));
        let (mut expected, mut moments) = (START, [(0.0f32, 0.0f32); 6]);
        for t in 1..20 {
            let gradients: Vec<f32> = expected.iter().map(|value| (value * 1.7).sin()).collect();
            for ((value, (mean, square)), gradient) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
                *mean = BETA1 * *mean + (1.0 - BETA1) * gradient;
                *square = BETA2 * *square + (1.0 - BETA2) * gradient * gradient;
                let (rate, square_scale) = (0.1 / (1.0 - BETA1.powi(t)), 1.0 / (1.0 - BETA2.powi(t)));
                *value -= rate * *mean / ((*square * square_scale).sqrt() + EPSILON);
            }
            let gradient = Tensor::from_vec(gradients, (2, 3), &Device::Cpu).unwrap();
            optimizer.step(&[gradient], 1.0, 0.1).unwrap();
            assert_eq!(variable.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected, "step {t}");
        }
    }

    #[test]
    fn sgd_with_momentum_and_decay_is_its_formula() {
        for (momentum, decay) in [(0.0f32, 0.0f32), (0.0, 0.3), (0.9, 0.0), (0.5, 0.3)] {
            assert_near(&found(LocalOptimizer::Sgd { momentum, weight_decay: decay }), |mut value| {
                let mut velocity = 0.0;
                for rate in RATES.map(f64::from) {
                    velocity = f64::from(momentum) * velocity + gradient(value);
                    value -= rate * (velocity + f64::from(decay) * value);
                }
                value
            });
        }
    }

    #[test]
    fn adam_agrees_with_candles() {
        for weight_decay in [0.0, 0.1] {
            let (ours, theirs) = (variable(), variable());
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            let rule = LocalOptimizer::AdamW { weight_decay: weight_decay as f32 };
            let mut optimizer = Optimizer::new(rule, std::slice::from_ref(&ours));
            let parameters = ParamsAdamW { lr: 0.1, weight_decay, ..Default::default() };
            let mut reference = AdamW::new(vec![theirs.clone()], parameters).unwrap();
            let loss = |v: &Var| (v.sqr().unwrap() * 0.7).unwrap().sin().unwrap().sum_all().unwrap();
            for _ in 0..20 {
                let gradients = loss(&ours).backward().unwrap();
                optimizer.step(&[gradients.get(&ours).unwrap().clone()], 1.0, 0.1).unwrap();
                reference.backward_step(&loss(&theirs)).unwrap();
            }
            let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in flat(&ours).iter().zip(flat(&theirs)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_parameter_that_leaves_the_numbers_is_noticed_wherever_it_is() {
        for rule in [LocalOptimizer::ADAM, LocalOptimizer::Sgd { momentum: 0.0, weight_decay: 0.0 }] {
            for place in 0..6 {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let variable = variable();
                    let mut values = START;
                    values[place] = bad;
                    variable.set(&Tensor::from_slice(&values, (2, 3), &Device::Cpu).unwrap()).unwrap();
                    let gradient = variable.zeros_like().unwrap();
                    let mut optimizer = Optimizer::new(rule, &[variable]);
                    assert!(!optimizer.step(&[gradient], 1.0, 0.1).unwrap(), "{bad} at {place}");
                }
            }
        }
    }
}
