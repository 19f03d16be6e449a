//! Tasks of text: a pre-trained transformer, the workers' texts and a test set.

pub mod banking77;
pub mod flat;
pub mod personal;
pub mod run;
pub mod shakespeare;
mod trained;

use std::sync::Arc;

use packfed_codec::State;
use packfed_protocol::Digest;
use packfed_worker::data::{DataError, Dataset, TokenExample};
use packfed_worker::files::{ModelFileError, ModelFiles};
use packfed_worker::model::linears::Linears;
use packfed_worker::pretrained::{Body, Evaluation, Pretrained, PretrainedError};
use packfed_worker::task::TaskError;
use packfed_worker::text::TokenizerError;
use packfed_worker::text_task::TextTask;
use thiserror::Error;

use crate::federated::FederatedTask;
use crate::parallel;
use crate::partition::PartitionError;
use crate::results::{Metric, Score};

/// A task of text for one run's seed and workers.
#[derive(Debug)]
pub struct Texts {
    /// The base model.
    pub model: Arc<Pretrained>,
    /// What each worker holds.
    pub shards: Vec<Arc<Dataset>>,
    digest: Digest,
    /// What each worker never trains on; nothing where the test set is common.
    held_out: Vec<Vec<TokenExample>>,
    test: Vec<TokenExample>,
    threads: usize,
}

/// What models are tested on.
enum Test {
    /// A set of its own.
    Common(Vec<TokenExample>),
    /// Of every worker what it holds out.
    Own(Vec<Vec<TokenExample>>),
}

/// Why a task of text could not be made.
#[derive(Debug, Error)]
pub enum TextError {
    /// The model's files are not what they should be.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] PretrainedError),
    /// Its tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The texts cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// They could not be spread.
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

/// A test takes as long as a round.
const TEST_EVERY: u64 = 4;
/// Test examples of one forward pass.
const AT_A_TIME: usize = 64;

impl Texts {
    fn new(
        files: &ModelFiles,
        labels: Option<usize>,
        shards: Vec<Arc<Dataset>>,
        test: Test,
        threads: usize,
    ) -> Result<Self, TextError> {
        let model = Arc::new(Pretrained::open(files, labels)?);
        let (held_out, mut test) = match test {
            Test::Common(test) => (vec![Vec::new(); shards.len()], test),
            Test::Own(held_out) => {
                let test = held_out.iter().flatten().cloned().collect();
                (held_out, test)
            }
        };
        // Longest first, so that threads end together.
        test.sort_by_key(|example| std::cmp::Reverse(example.ids.len()));
        Ok(Self { model, shards, digest: Digest(files.digest()?.0), held_out, test, threads })
    }

    /// How a model does on the test set.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn evaluate(&self, linears: &Arc<dyn Linears>) -> Result<Score, TaskError> {
        let parts: Vec<Vec<&TokenExample>> = self.test.chunks(AT_A_TIME).map(|part| part.iter().collect()).collect();
        let scores = parallel::map(&parts, self.threads, |part| self.model.evaluate(linears, part));
        let whole = scores.into_iter().sum::<Result<Evaluation, _>>()?;
        Ok(Score { accuracy: whole.accuracy(), loss: whole.mean_loss() })
    }
}

impl FederatedTask for Texts {
    type Worker = TextTask;
    type Data = Dataset;

    fn base_digest(&self) -> Digest {
        self.digest
    }

    fn workers(&self) -> Vec<TextTask> {
        self.shards.iter().map(|shard| TextTask::new(self.model.clone(), shard.clone())).collect()
    }

    fn data(&self) -> &[Arc<Dataset>] {
        &self.shards
    }

    fn examples(&self, worker: usize) -> usize {
        self.shards[worker].examples.len()
    }

    fn metric(&self) -> Metric {
        match self.model.body() {
            Body::Bert(..) => Metric::Accuracy,
            Body::Llama(_) => Metric::Perplexity,
        }
    }

    fn test_every(&self) -> u64 {
        TEST_EVERY
    }

    fn score(&self, state: &State) -> Result<Score, TaskError> {
        self.evaluate(&self.model.global(state)?)
    }
}
