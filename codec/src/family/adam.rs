//! Adam for a handful of parameters: Kingma & Ba, *Adam: A Method for Stochastic Optimization*, 2015, Algorithm 1.
//!
//! It does not know what it minimises, nor when to stop. The state is `f64`, because a block of two
//! parameters is trained until its error is below an `f32`'s spacing.

/// How an [`Adam`] moves: the paper's `α`, `β₁`, `β₂` and `ε`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamRates {
    /// `α`, the largest move of a parameter in one step, in the parameter's unit.
    pub learning_rate: f64,
    /// `β₁` in `[0, 1)`, the decay of the mean gradient.
    pub beta1: f64,
    /// `β₂` in `[0, 1)`, the decay of the mean squared gradient.
    pub beta2: f64,
    /// `ε`, added to the root of the mean squared gradient.
    pub epsilon: f64,
}

impl AdamRates {
    /// The paper's `β₁ = 0.9`, `β₂ = 0.999` and `ε = 1e-8`, with a learning rate.
    #[must_use]
    pub const fn with_learning_rate(learning_rate: f64) -> Self {
        Self { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// The moments of `N` parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam<const N: usize> {
    rates: AdamRates,
    first: [f64; N],
    second: [f64; N],
    /// `β₁ᵗ` and `β₂ᵗ`, kept as products so that no power function is needed.
    decay: (f64, f64),
}

impl<const N: usize> Adam<N> {
    /// An optimizer that has taken no step.
    #[must_use]
    pub const fn new(rates: AdamRates) -> Self {
        Self { rates, first: [0.0; N], second: [0.0; N], decay: (1.0, 1.0) }
    }

    /// One step down the gradient: `p −= α·m̂/(√v̂ + ε)`.
    pub fn step(&mut self, parameters: &mut [f64; N], gradient: &[f64; N]) {
        let AdamRates { learning_rate, beta1, beta2, epsilon } = self.rates;
        self.decay = (self.decay.0 * beta1, self.decay.1 * beta2);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, &g), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + (1.0 - beta1) * g;
            *second = beta2 * *second + (1.0 - beta2) * g * g;
            let (mean, square) = (*first / (1.0 - self.decay.0), *second / (1.0 - self.decay.1));
            *parameter -= learning_rate * mean / (square.sqrt() + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_the_learning_rate_against_the_sign() {
        let mut adam = Adam::new(AdamRates::with_learning_rate(0.01));
        let mut p = [1.0, 1.0, 1.0];
        adam.step(&mut p, &[5.0, -1e-3, 0.0]);
        for (got, want) in p.iter().zip([0.99, 1.01, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{got} and not {want}");
        }
    }

    #[test]
    fn three_steps_are_the_papers_recurrence() {
        // m = 0.1·(0.81·1 + 0.9·2 + 3), v = 0.001·(0.998001·1 + 0.999·4 + 9), written out by hand.
        let mut adam = Adam::new(AdamRates { learning_rate: 1.0, epsilon: 0.0, ..AdamRates::with_learning_rate(0.0) });
        let mut p = [0.0];
        adam.step(&mut p, &[1.0]);
        adam.step(&mut p, &[2.0]);
        let before = p[0];
        adam.step(&mut p, &[3.0]);
        let (mean, square) = (0.561 / (1.0 - 0.729), 0.013_994_001_f64 / (1.0 - 0.997_002_999));
        assert!((before - p[0] - mean / square.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_quadratic_bowl_is_descended() {
        let mut adam = Adam::new(AdamRates::with_learning_rate(0.01));
        let mut p = [0.7, -0.4];
        for _ in 0..2_000 {
            let gradient = [2.0 * (p[0] - 0.1), 20.0 * (p[1] + 0.2)];
            adam.step(&mut p, &gradient);
        }
        assert!((p[0] - 0.1).abs() < 1e-6 && (p[1] + 0.2).abs() < 1e-6, "{p:?}");
    }
}
