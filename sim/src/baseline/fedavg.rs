//! FedAvg over a flat vector of f32 parameters (McMahan et al., AISTATS 2017): the server takes a step
//! along the mean of the cohort's deltas, weighted by examples, with the same optimizers as packfed's head.

use packfed_codec::Seed;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_worker::local::LocalSteps;
use packfed_worker::task::TaskError;

use crate::federated::FederatedTask;
use crate::results::Score;

/// A model whose trainable part is a flat vector.
pub trait FlatModel: Sync {
    /// The task that it is trained on.
    type Task: FederatedTask;

    /// Trains locally from `parameters`, on a worker's data in the order of a seed.
    ///
    /// # Errors
    /// If a tensor operation fails or the loss is not finite.
    fn train(
        &self,
        parameters: &[f32],
        data: &Data<Self>,
        seed: &Seed,
        steps: LocalSteps,
    ) -> Result<Vec<f32>, TaskError>;

    /// The model that these parameters make, on the test set.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn score(&self, task: &Self::Task, parameters: &[f32]) -> Result<Score, TaskError>;
}

/// What a worker holds of a model's task.
pub type Data<M> = <<M as FlatModel>::Task as FederatedTask>::Data;

/// One member of a cohort.
#[derive(Debug)]
pub struct Member<'a, D> {
    /// What it holds.
    pub data: &'a D,
    /// How many examples that is.
    pub examples: usize,
    /// Seed of their order this round.
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
    pub fn round<M: FlatModel>(
        &mut self,
        model: &M,
        cohort: &[Member<'_, Data<M>>],
        steps: LocalSteps,
        threads: usize,
    ) -> Result<(), TaskError> {
        let train = |member: &Member<'_, Data<M>>| model.train(&self.parameters, member.data, &member.seed, steps);
        let trained = crate::parallel::map(cohort, threads, train);
        let mut mean = vec![0.0f64; self.parameters.len()];
        let total: f64 = cohort.iter().map(|member| member.examples as f64).sum();
        for (member, trained) in cohort.iter().zip(trained) {
            let weight = member.examples as f64 / total;
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
