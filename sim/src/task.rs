//! The `digits` task made ready for a run: a pre-trained base, the workers' shards and the test set.
//!
//! Everything here is shared by packfed and the baselines, in memory and as the files that a fleet of
//! processes reads.

use std::sync::Arc;

use packfed_codec::{Seed, State};
use packfed_protocol::Digest;
use packfed_worker::examples::{BatchOrder, Examples, ExamplesError};
use packfed_worker::local::LocalSteps;
use packfed_worker::mlp::{Dense, Mlp};
use packfed_worker::task::TaskError;
use packfed_worker::trainer::{Base, Trainer};
use thiserror::Error;

use crate::baseline::dense::DenseModel;
use crate::baseline::perceptron::{Perceptron, train};
use crate::digits::{CLASSES, Digits, Labelled};
use crate::evaluate::TestSet;
use crate::federated::FederatedTask;
use crate::options::Options;
use crate::partition::PartitionError;
use crate::results::Score;

/// A task for one run's seed and workers.
#[derive(Clone, Debug)]
pub struct Task {
    /// The pre-trained model.
    pub base: Arc<Mlp>,
    /// Its file.
    pub base_file: Vec<u8>,
    /// What each worker holds, as images.
    pub shards: Vec<Labelled>,
    /// What each worker holds, as it trains on it.
    pub examples: Vec<Arc<Examples>>,
    /// The test set.
    pub test: TestSet,
}

/// Why a task could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The data could not be spread.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A shard is not a set of examples.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// Pre-training failed.
    #[error("pre-training the base: {0}")]
    Pretrain(#[from] TaskError),
}

/// Widths of the perceptron's hidden layers.
const HIDDEN: [usize; 2] = [252, 252];
/// Steps of pre-training: five passes over 4,000 images.
const PRETRAIN: LocalSteps = LocalSteps::adam(625, 32, 1e-3);

impl Task {
    /// Pre-trains the base and spreads the fleet's images over workers.
    ///
    /// # Errors
    /// If the images cannot give every worker enough.
    pub fn digits(options: &Options) -> Result<Self, SetupError> {
        let (digits, seed) = (Digits::load(), options.run_seed());
        let base = Arc::new(pretrain(&digits.pretrain, &seed)?);
        let shards_seed = seed.derive("packfed/shards/1", &[]);
        let labels: Vec<u32> = digits.fleet.labels.iter().map(|&label| label.into()).collect();
        let indices = options.partition.split(&labels, options.workers as usize, &shards_seed)?;
        let shards: Vec<Labelled> = indices.iter().map(|indices| digits.fleet.pick(indices)).collect();
        let examples = |shard: &Labelled| Examples::from_images(&shard.images, &shard.labels).map(Arc::new);
        Ok(Self {
            base_file: base.to_safetensors(),
            base,
            examples: shards.iter().map(examples).collect::<Result<_, _>>()?,
            shards,
            test: TestSet::new(&digits.test, options.threads),
        })
    }
}

impl FederatedTask for Task {
    type Worker = Trainer;
    type Data = Examples;

    fn base_digest(&self) -> Digest {
        Digest::of(&self.base_file)
    }

    fn workers(&self) -> Vec<Trainer> {
        let base = Arc::new(Base::new(self.base.clone()));
        self.examples.iter().map(|examples| Trainer::new(base.clone(), examples.clone())).collect()
    }

    fn data(&self) -> &[Arc<Examples>] {
        &self.examples
    }

    fn examples(&self, worker: usize) -> usize {
        self.examples[worker].len()
    }

    fn test_every(&self) -> u64 {
        2
    }

    fn score(&self, state: &State) -> Result<Score, TaskError> {
        Ok(self.test.score(&self.base.merged(state)?))
    }
}

fn pretrain(data: &Labelled, seed: &Seed) -> Result<Mlp, SetupError> {
    let examples = Examples::from_images(&data.images, &data.labels)?;
    let (model, parameters) = DenseModel::new(&untrained(examples.features(), seed));
    let mut order = BatchOrder::new(&seed.derive("packfed/pretrain/1", &[]), examples.len());
    let parameters = train(&model, &parameters, &examples, &mut order, PRETRAIN)?;
    Ok(model.merged(&parameters))
}

/// Weights uniform in ±√(6/inputs), biases zero (He et al., ICCV 2015).
fn untrained(features: usize, seed: &Seed) -> Mlp {
    let mut stream = seed.derive("packfed/init/1", &[]).stream();
    let mut dense = |inputs: usize, outputs: usize| {
        let bound = (6.0 / inputs as f64).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "an initial value")]
        let weight = (0..inputs * outputs).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32).collect();
        Dense { weight: Arc::new(weight), bias: Arc::new(vec![0.0; outputs]), inputs }
    };
    let [first, second] = HIDDEN;
    Mlp { layers: vec![dense(features, first), dense(first, second), dense(second, CLASSES)] }
}
