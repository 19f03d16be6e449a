//! Server optimizers: how the mean delta of a round becomes a step of the head.
//!
//! FedAvg (McMahan et al., AISTATS 2017), FedAvgM (Hsu et al., 2019), FedAdam and FedYogi (Reddi et al.,
//! ICLR 2021). State is kept per lane of the model, not per slot of a window, so a lane's velocity waits
//! for it while the window is elsewhere. `f64` throughout: additions, products, divisions and square
//! roots are exact IEEE operations, so a step is the same on every machine.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Which optimizer, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ServerOptimizer {
    /// `step = rate·delta`.
    FedAvg {
        /// Server learning rate; 1 takes the mean as it is.
        rate: f64,
    },
    /// `v ← momentum·v + delta; step = rate·v`.
    FedAvgM {
        /// Server learning rate.
        rate: f64,
        /// Share of the velocity that is kept, below 1.
        momentum: f64,
    },
    /// `m ← β₁m + (1−β₁)delta; v ← β₂v + (1−β₂)delta²; step = rate·m/(√v + τ)`.
    FedAdam {
        /// Server learning rate, in lane units.
        rate: f64,
        /// β₁, below 1.
        beta1: f64,
        /// β₂, below 1.
        beta2: f64,
        /// τ, above 0: the degree of adaptivity.
        tau: f64,
    },
    /// `m ← β₁m + (1−β₁)delta; v ← v − (1−β₂)delta²·sign(v − delta²); step = rate·m/(√v + τ)`: as FedAdam, but a few
    /// small deltas do not make it forget that there were large ones.
    FedYogi {
        /// Server learning rate, in lane units.
        rate: f64,
        /// β₁, below 1.
        beta1: f64,
        /// β₂, below 1.
        beta2: f64,
        /// τ, above 0: the degree of adaptivity.
        tau: f64,
    },
}

impl ServerOptimizer {
    /// Numbers that the optimizer remembers of one lane.
    #[must_use]
    pub const fn memory_of_a_lane(&self) -> usize {
        match self {
            Self::FedAvg { .. } => 0,
            Self::FedAvgM { .. } => 1,
            Self::FedAdam { .. } | Self::FedYogi { .. } => 2,
        }
    }

    /// What is wrong with the parameters, if anything: name, value and bound.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let positive = |name, value: f64| {
            (!(value > 0.0 && value.is_finite())).then(|| format!("{name} is {value}, it must be above 0 and finite"))
        };
        let share = |name, value: f64| {
            (!(0.0..1.0).contains(&value)).then(|| format!("{name} is {value}, it must be at least 0 and below 1"))
        };
        match *self {
            Self::FedAvg { rate } => positive("rate", rate),
            Self::FedAvgM { rate, momentum } => positive("rate", rate).or_else(|| share("momentum", momentum)),
            Self::FedAdam { rate, beta1, beta2, tau } | Self::FedYogi { rate, beta1, beta2, tau } => {
                positive("rate", rate)
                    .or_else(|| share("beta1", beta1))
                    .or_else(|| share("beta2", beta2))
                    .or_else(|| positive("tau", tau))
            }
        }
    }

    /// The step of one lane for the mean delta of a round; `memory` is that lane's.
    ///
    /// # Panics
    /// If `memory` is not [`ServerOptimizer::memory_of_a_lane`] long.
    pub fn step(&self, memory: &mut [f64], delta: f64) -> f64 {
        match (*self, memory) {
            (Self::FedAvg { rate }, []) => rate * delta,
            (Self::FedAvgM { rate, momentum }, [velocity]) => {
                *velocity = momentum * *velocity + delta;
                rate * *velocity
            }
            (Self::FedAdam { rate, beta1, beta2, tau }, [mean, square]) => {
                *mean = beta1 * *mean + (1.0 - beta1) * delta;
                *square = beta2 * *square + (1.0 - beta2) * delta * delta;
                rate * *mean / (square.sqrt() + tau)
            }
            (Self::FedYogi { rate, beta1, beta2, tau }, [mean, square]) => {
                *mean = beta1 * *mean + (1.0 - beta1) * delta;
                let change = (1.0 - beta2) * delta * delta;
                match square.total_cmp(&(delta * delta)) {
                    Ordering::Less => *square += change,
                    Ordering::Equal => {}
                    Ordering::Greater => *square -= change,
                }
                rate * *mean / (square.sqrt() + tau)
            }
            (_, memory) => unreachable!("{} numbers of memory for {self:?}", memory.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_accumulates_towards_its_limit() {
        let optimizer = ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 };
        let mut memory = [0.0];
        let steps: Vec<f64> = (0..3).map(|_| optimizer.step(&mut memory, 1.0)).collect();
        assert_eq!(steps, [1.0, 1.5, 1.75]);
    }

    #[test]
    fn adam_does_not_know_the_size_of_a_delta() {
        let optimizer = ServerOptimizer::FedAdam { rate: 0.1, beta1: 0.0, beta2: 0.0, tau: 1e-9 };
        for delta in [1e-3, 10.0] {
            assert!((optimizer.step(&mut [0.0, 0.0], delta) - 0.1).abs() < 1e-6);
        }
    }

    /// Steps of both adaptive optimizers for the same deltas.
    fn adaptive(deltas: &[f64]) -> [Vec<f64>; 2] {
        let (rate, beta1, beta2, tau) = (0.1, 0.5, 0.75, 1e-3);
        let rules = [
            ServerOptimizer::FedAdam { rate, beta1, beta2, tau },
            ServerOptimizer::FedYogi { rate, beta1, beta2, tau },
        ];
        rules.map(|rule| {
            let mut memory = [0.0; 2];
            deltas.iter().map(|&delta| rule.step(&mut memory, delta)).collect()
        })
    }

    #[test]
    fn yogi_is_the_papers_formula() {
        let (mut mean, mut square) = (0.0, 0.0f64);
        let deltas = [0.5, -2.0, 0.25, 0.0, 0.25, 1.0];
        for (found, delta) in adaptive(&deltas)[1].iter().zip(deltas) {
            mean = 0.5 * mean + 0.5 * delta;
            let sign = if square > delta * delta { 1.0 } else { -f64::from(square < delta * delta) };
            square -= 0.25 * delta * delta * sign;
            assert_eq!(*found, 0.1 * mean / (square.sqrt() + 1e-3), "delta {delta}");
        }
    }

    #[test]
    fn yogi_forgets_large_deltas_more_slowly_than_adam() {
        let mut deltas = vec![2.0; 4];
        assert_eq!(adaptive(&deltas[..1])[0], adaptive(&deltas[..1])[1], "the first step is the same");
        deltas.extend([0.01; 20]);
        let [adam, yogi] = adaptive(&deltas).map(|steps| steps[23]);
        assert!(yogi < 0.1 * adam, "{yogi} {adam}");
    }

    #[test]
    fn parameters_out_of_bounds_are_named() {
        let fault = ServerOptimizer::FedAvgM { rate: 1.0, momentum: 1.0 }.fault();
        assert_eq!(fault.as_deref(), Some("momentum is 1, it must be at least 0 and below 1"));
        assert!(ServerOptimizer::FedAvg { rate: f64::NAN }.fault().is_some());
        let fault = ServerOptimizer::FedYogi { rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.0 }.fault();
        assert_eq!(fault.as_deref(), Some("tau is 0, it must be above 0 and finite"));
        assert_eq!(ServerOptimizer::FedAvg { rate: 1.0 }.fault(), None);
    }
}
