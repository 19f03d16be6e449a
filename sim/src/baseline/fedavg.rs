//! FedAvg over a flat vector of f32 parameters (McMahan et al., AISTATS 2017): the mean of the
//! cohort's parameters, weighted by examples, is the next model.

use packfed_codec::Seed;
use packfed_worker::examples::{BatchOrder, Examples};
use packfed_worker::local::LocalSteps;
use packfed_worker::mlp::Mlp;
use packfed_worker::task::TaskError;

/// A model whose trainable part is a flat vector.
pub trait FlatModel: Sync {
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
    ) -> Result<Vec<f32>, TaskError>;

    /// The perceptron that these parameters make.
    fn merged(&self, parameters: &[f32]) -> Mlp;
}

/// One member of a cohort: its examples and the seed of their order.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its examples.
    pub examples: &'a Examples,
    /// Seed of its order this round.
    pub seed: Seed,
}

/// One round; the cohort is trained on `threads` threads, and the result does not depend on how many.
///
/// # Errors
/// The first member's error, in cohort order.
pub fn round(
    model: &impl FlatModel,
    parameters: &[f32],
    cohort: &[Member<'_>],
    steps: LocalSteps,
    threads: usize,
) -> Result<Vec<f32>, TaskError> {
    let train = |member: &Member<'_>| {
        let mut order = BatchOrder::new(&member.seed, member.examples.len());
        model.train(parameters, member.examples, &mut order, steps)
    };
    let trained = crate::parallel::map(cohort, threads, train);
    let mut sum = vec![0.0f64; parameters.len()];
    let mut total = 0.0;
    for (member, trained) in cohort.iter().zip(trained) {
        let weight = member.examples.len() as f64;
        for (sum, value) in sum.iter_mut().zip(trained?) {
            *sum += weight * f64::from(value);
        }
        total += weight;
    }
    #[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
    Ok(sum.into_iter().map(|sum| (sum / total) as f32).collect())
}
