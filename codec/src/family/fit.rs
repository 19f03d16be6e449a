//! Fitting a closed-form block to its values: what to fit, how long, and what came out.
//!
//! The loop is [`Adam`](crate::family::Adam) on a gradient that the block hands in. It does not know any block's formula.

use thiserror::Error;

use crate::family::adam::{Adam, AdamRates};

/// How long a block is trained, and with which rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// The optimizer's rates.
    pub rates: AdamRates,
    /// Steps after which training ends in any case.
    pub steps_max: u32,
    /// Training ends once no partial derivative of the mean squared error is larger than this.
    pub gradient_min: f64,
}

impl Training {
    /// A constant learning rate for at most so many steps, ended early only by a gradient under `1e-13`.
    #[must_use]
    pub const fn constant(learning_rate: f64, steps_max: u32) -> Self {
        Self { rates: AdamRates::with_learning_rate(learning_rate), steps_max, gradient_min: 1e-13 }
    }
}

/// A block that was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit<B> {
    /// The packed block.
    pub block: B,
    /// Adam steps taken.
    pub steps: u32,
    /// Root mean square error of the block *as its decoder returns it*, quantization included.
    pub rmse: f64,
}

/// Why a block cannot be fitted.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FitError {
    /// There are not rows × cols values, or there are none.
    #[error("{values} values are not a block of {rows} × {cols}, each edge at least 1")]
    Shape {
        /// Values given.
        values: usize,
        /// Rows given.
        rows: usize,
        /// Columns given.
        cols: usize,
    },
    /// A value is NaN or infinite.
    #[error("value {value} at index {index} is not finite")]
    NotFinite {
        /// Its index, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A parameter starts outside its range.
    #[error("start {value} of {parameter} is outside {low} to {high}")]
    Start {
        /// Its name.
        parameter: &'static str,
        /// The start.
        value: f64,
        /// Least start.
        low: f64,
        /// Greatest start.
        high: f64,
    },
}

/// A checked block of values: rows × cols of them, at least one, all finite.
pub(crate) fn check_values(values: &[f32], rows: usize, cols: usize) -> Result<(), FitError> {
    if values.is_empty() || rows.checked_mul(cols) != Some(values.len()) {
        return Err(FitError::Shape { values: values.len(), rows, cols });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(FitError::NotFinite { index, value: values[index] }),
        None => Ok(()),
    }
}

/// A checked start: within `low..=high`, which no NaN is.
pub(crate) fn check_start(parameter: &'static str, value: f64, (low, high): (f64, f64)) -> Result<f64, FitError> {
    if (low..=high).contains(&value) { Ok(value) } else { Err(FitError::Start { parameter, value, low, high }) }
}

/// Adam from `start`; `hold` brings the parameters back into their range after every step.
pub(crate) fn descend<const N: usize>(
    start: [f64; N],
    training: &Training,
    gradient: impl Fn(&[f64; N]) -> [f64; N],
    hold: impl Fn(&mut [f64; N]),
) -> ([f64; N], u32) {
    let mut adam = Adam::new(training.rates);
    let mut parameters = start;
    for step in 0..training.steps_max {
        let slope = gradient(&parameters);
        if slope.iter().all(|g| g.abs() <= training.gradient_min) {
            return (parameters, step);
        }
        adam.step(&mut parameters, &slope);
        hold(&mut parameters);
    }
    (parameters, training.steps_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_block_are_refused_with_their_place() {
        assert_eq!(check_values(&[0.0; 6], 2, 2), Err(FitError::Shape { values: 6, rows: 2, cols: 2 }));
        assert!(check_values(&[], 0, 4).is_err());
        assert!(check_values(&[0.0; 4], usize::MAX, 4).is_err());
        assert!(matches!(check_values(&[0.0, 1.0, f32::NAN], 1, 3), Err(FitError::NotFinite { index: 2, .. })));
        assert_eq!(check_values(&[0.0; 6], 2, 3), Ok(()));
    }

    #[test]
    fn a_start_outside_its_range_is_named() {
        let error = check_start("r", 1.5, (0.0, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "start 1.5 of r is outside 0 to 1");
        assert!(check_start("r", f64::NAN, (0.0, 1.0)).is_err());
    }

    #[test]
    fn a_flat_gradient_ends_training_at_once() {
        let (parameters, steps) = descend([0.25], &Training::constant(0.1, 50), |_| [0.0], |_| {});
        assert_eq!((parameters, steps), ([0.25], 0));
    }
}
