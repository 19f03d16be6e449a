//! The baselines of text: transformers whose trainable part is a flat vector.
//!
//! Embeddings and norms are frozen for every method.

use std::sync::Arc;

use candle_core::{Result as TensorResult, Tensor, Var};
use packfed_codec::{Seed, Stream};
use packfed_worker::data::{Batches, Dataset, TokenExample};
use packfed_worker::local::host::Unattended;
use packfed_worker::local::snapshot::JobDigest;
use packfed_worker::local::{LocalSteps, Place, flat_values, variables};
use packfed_worker::model::linears::Linears;
use packfed_worker::model::{Activations, Kind, MatrixSpec};
use packfed_worker::nn::frozen::FrozenLinear;
use packfed_worker::pretrained::Pretrained;
use packfed_worker::task::TaskError;

use super::Texts;
use super::trained::{Matrices, Trained};
use crate::baseline::fedavg::FlatModel;
use crate::results::Score;

/// What is trained of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adaptation {
    /// The matrix and its bias.
    Dense,
    /// Factors of this rank beside it (Hu et al., ICLR 2022; averaging A and B apart as FedIT does); of a classifier all,
    /// as is usual for a new task.
    LowRank(usize),
}

/// A transformer with a flat vector of parameters.
#[derive(Clone, Debug)]
pub struct FlatText {
    model: Arc<Pretrained>,
    adaptation: Adaptation,
    /// What the rate of a classifier is multiplied by.
    head_factor: f32,
}

impl FlatText {
    /// The model, and its parameters before the first round: A uniform in ±1/√inputs, B zero, the rest as the base has it.
    ///
    /// # Errors
    /// If a matrix cannot be widened.
    pub fn new(
        model: Arc<Pretrained>,
        adaptation: Adaptation,
        head_factor: f32,
        seed: &Seed,
    ) -> TensorResult<(Self, Vec<f32>)> {
        let mut parameters = Vec::new();
        let mut stream = seed.derive("packfed/lora/1", &[]).stream();
        for (spec, frozen) in model.matrices().iter().zip(model.frozen()) {
            match adaptation.of(spec) {
                Adaptation::Dense => {
                    parameters.extend(frozen.values()?);
                    parameters.extend(frozen.bias().unwrap_or_default());
                }
                Adaptation::LowRank(rank) => low_rank(&mut parameters, &mut stream, rank, spec),
            }
        }
        Ok((Self { model, adaptation, head_factor }, parameters))
    }

    /// For every trainable tensor, what the rate is multiplied by.
    fn factors(&self) -> Vec<f32> {
        let of = |spec: &MatrixSpec| {
            let factor = if spec.kind == Kind::Head { self.head_factor } else { 1.0 };
            let tensors = match self.adaptation.of(spec) {
                Adaptation::Dense => 1 + usize::from(spec.bias.is_some()),
                Adaptation::LowRank(_) => 2,
            };
            std::iter::repeat_n(factor, tensors)
        };
        self.model.matrices().iter().flat_map(of).collect()
    }

    /// Shapes of the trainable tensors, in the order of the vector.
    #[must_use]
    pub fn shapes(&self) -> Vec<(usize, usize)> {
        let of = |spec: &MatrixSpec| match self.adaptation.of(spec) {
            Adaptation::Dense => {
                let bias = spec.bias.as_ref().map(|_| (1, spec.outputs));
                std::iter::once((spec.outputs, spec.inputs)).chain(bias).collect()
            }
            Adaptation::LowRank(rank) => vec![(rank, spec.inputs), (spec.outputs, rank)],
        };
        self.model.matrices().iter().flat_map(of).collect()
    }

    /// How the matrices are applied under the trainable tensors.
    #[must_use]
    pub fn linears(&self, variables: &[Var]) -> Arc<dyn Linears> {
        let mut rest = variables.iter().map(|tensor| tensor.as_tensor().clone());
        let matrix = |(spec, frozen): (&MatrixSpec, &FrozenLinear<f32>)| {
            let mut take = |n| rest.by_ref().take(n).collect::<Vec<Tensor>>();
            match self.adaptation.of(spec) {
                Adaptation::Dense => Trained::Whole(take(1 + usize::from(spec.bias.is_some()))),
                Adaptation::LowRank(_) => Trained::LowRank(frozen.clone(), take(2)),
            }
        };
        Arc::new(Matrices(self.model.matrices().iter().zip(self.model.frozen()).map(matrix).collect()))
    }
}

impl Adaptation {
    const fn of(self, spec: &MatrixSpec) -> Self {
        match spec.kind {
            Kind::Head => Self::Dense,
            Kind::Attention | Kind::Mlp => self,
        }
    }
}

fn low_rank(parameters: &mut Vec<f32>, stream: &mut Stream, rank: usize, spec: &MatrixSpec) {
    let bound = 1.0 / (spec.inputs as f64).sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "an initial value")]
    parameters.extend((0..rank * spec.inputs).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32));
    parameters.extend(std::iter::repeat_n(0.0, rank * spec.outputs));
}

impl FlatModel for FlatText {
    type Task = Texts;

    fn train(&self, parameters: &[f32], data: &Dataset, seed: &Seed, steps: LocalSteps) -> Result<Vec<f32>, TaskError> {
        let variables = variables(&self.shapes(), parameters)?;
        let linears = self.linears(&variables);
        let mut batches = Batches::new(seed, data.lengths(), steps.batch as usize);
        let loss = |indices: &[usize]| {
            let examples: Vec<&TokenExample> = indices.iter().map(|&n| &data.examples[n]).collect();
            self.model.loss(&linears, &examples, Activations::Kept)
        };
        let (job, factors) = (JobDigest([0; 32]), self.factors());
        let place = Place { job, micro_batch: usize::MAX, factors: &factors, host: &mut Unattended };
        steps.run_at(place, &variables, |_| batches.next_indices(), loss)?;
        Ok(flat_values(&variables)?)
    }

    fn score(&self, task: &Texts, parameters: &[f32]) -> Result<Score, TaskError> {
        task.evaluate(&self.linears(&variables(&self.shapes(), parameters)?))
    }
}
