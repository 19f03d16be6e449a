//! FedAvg over a flat vector of f32 parameters (McMahan et al., AISTATS 2017): the server takes a step
//! along the mean of the cohort's deltas, weighted by examples, with the same optimizers as packfed's head.

use candle_core::{Result as TensorResult, Tensor};
use packfed_codec::Seed;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_worker::examples::{BatchOrder, Examples};
use packfed_worker::local::{LocalSteps, flat_values, variables};
use packfed_worker::loss::cross_entropy;
use packfed_worker::mlp::Mlp;
use packfed_worker::task::TaskError;

/// A model whose trainable part is a flat vector.
pub trait FlatModel: Sync {
    /// Shapes of the trainable tensors, in the order of the vector.
    fn shapes(&self) -> Vec<(usize, usize)>;

    /// Logits of a batch under the trainable tensors.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn forward(&self, tensors: &[Tensor], x: &Tensor) -> TensorResult<Tensor>;

    /// The perceptron that these parameters make.
    fn merged(&self, parameters: &[f32]) -> Mlp;

    /// Trains locally from `parameters`.
    ///
    /// # Errors
    /// If a tensor operation fails or the loss is not finite.
    fn train(
        &self,
        parameters: &[f32],
        examples: &Examples,
        order: &mut BatchOrder,
        steps: LocalSteps,
    ) -> Result<Vec<f32>, TaskError> {
        let variables = variables(&self.shapes(), parameters)?;
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let next = |size| examples.tensors(&order.batch(size));
        let loss = |(x, labels): &(Tensor, Tensor)| cross_entropy::<f32>(&self.forward(&tensors, x)?, labels);
        steps.run(variables.clone(), next, loss)?;
        Ok(flat_values(&variables)?)
    }
}

/// One member of a cohort: its examples and the seed of their order.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its examples.
    pub examples: &'a Examples,
    /// Seed of its order this round.
    pub seed: Seed,
}

/// The server's side: the global parameters, and the optimizer that packfed's head has too.
#[derive(Clone, Debug)]
pub struct Server {
    /// The global parameters.
    pub parameters: Vec<f32>,
    optimizer: ServerOptimizer,
    memory: Vec<f64>,
}

impl Server {
    /// A server that has seen no round.
    #[must_use]
    pub fn new(parameters: Vec<f32>, optimizer: ServerOptimizer) -> Self {
        let memory = vec![0.0; parameters.len() * optimizer.memory_of_a_lane()];
        Self { parameters, optimizer, memory }
    }

    /// One round; the cohort is trained on `threads` threads, and the result does not depend on how many.
    ///
    /// # Errors
    /// The first member's error, in cohort order.
    pub fn round(
        &mut self,
        model: &impl FlatModel,
        cohort: &[Member<'_>],
        steps: LocalSteps,
        threads: usize,
    ) -> Result<(), TaskError> {
        let train = |member: &Member<'_>| {
            let mut order = BatchOrder::new(&member.seed, member.examples.len());
            model.train(&self.parameters, member.examples, &mut order, steps)
        };
        let trained = crate::parallel::map(cohort, threads, train);
        let mut mean = vec![0.0f64; self.parameters.len()];
        let total: f64 = cohort.iter().map(|member| member.examples.len() as f64).sum();
        for (member, trained) in cohort.iter().zip(trained) {
            let weight = member.examples.len() as f64 / total;
            for (mean, value) in mean.iter_mut().zip(trained?) {
                *mean += weight * f64::from(value);
            }
        }
        let size = self.optimizer.memory_of_a_lane();
        for (n, (parameter, mean)) in self.parameters.iter_mut().zip(mean).enumerate() {
            let delta = mean - f64::from(*parameter);
            let step = self.optimizer.step(&mut self.memory[n * size..(n + 1) * size], delta);
            #[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
            let next = (f64::from(*parameter) + step) as f32;
            *parameter = next;
        }
        Ok(())
    }
}
