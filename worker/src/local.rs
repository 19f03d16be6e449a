//! The local loop that every method shares: a loss of every batch, and Adam.
//!
//! packfed's trainers and the simulator's baselines differ in what they track and how they run a
//! model forward, and in nothing else. What a batch is, is its caller's business.

use candle_core::{Device, Result as TensorResult, Tensor, Var};

use crate::adam::Adam;
use crate::task::TaskError;

/// How long and how fast to train.
#[derive(Clone, Copy, Debug)]
pub struct LocalSteps {
    /// Optimizer steps.
    pub steps: u32,
    /// Examples of one step.
    pub batch: u32,
    /// Adam's rate.
    pub learning_rate: f32,
}

impl LocalSteps {
    /// Runs the steps on `variables`; `next` draws a batch of some examples, `loss` maps it to its mean loss. Returns
    /// the mean loss over the steps.
    ///
    /// # Errors
    /// If a tensor operation fails or a loss is not finite; the variables are then not to be used.
    pub fn run<B>(
        &self,
        variables: Vec<Var>,
        mut next: impl FnMut(usize) -> TensorResult<B>,
        loss: impl Fn(&B) -> TensorResult<Tensor>,
    ) -> Result<f32, TaskError> {
        let mut adam = Adam::new(variables, self.learning_rate);
        let mut total = 0.0;
        for step in 0..self.steps {
            let loss = loss(&next(self.batch as usize)?)?;
            let value: f32 = loss.to_scalar()?;
            if !value.is_finite() {
                return Err(TaskError::NotFinite { step, loss: value });
            }
            adam.step(&loss.backward()?)?;
            total += value;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few steps")]
        Ok(total / self.steps.max(1) as f32)
    }
}

/// The values of variables, one after another.
///
/// # Errors
/// If one is not `f32`.
pub fn flat_values(variables: &[Var]) -> TensorResult<Vec<f32>> {
    let mut values = Vec::new();
    for variable in variables {
        values.extend(variable.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(values)
}

/// The inverse of [`flat_values`] for variables of these shapes.
///
/// # Errors
/// If a variable cannot be made.
///
/// # Panics
/// If there are fewer values than the shapes take.
pub fn variables(shapes: &[(usize, usize)], mut values: &[f32]) -> TensorResult<Vec<Var>> {
    let mut variables = Vec::with_capacity(shapes.len());
    for &(rows, cols) in shapes {
        let (own, rest) = values.split_at(rows * cols);
        variables.push(Var::from_slice(own, (rows, cols), &Device::Cpu)?);
        values = rest;
    }
    Ok(variables)
}
