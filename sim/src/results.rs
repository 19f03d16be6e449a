//! What a simulation found out: one record a method, as it is printed, plotted and stored.
//!
//! Bytes are those of packfed's frames, headers and signatures included, as a mean over the worker-rounds
//! of the run: what one worker sends and receives for taking part in one round.

use serde::{Deserialize, Serialize};

/// A model on a test set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of the labels, or of the next tokens, that the model finds the likeliest.
    pub accuracy: f64,
    /// Mean cross-entropy of a label or a next token, in nats.
    pub loss: f64,
}

/// What models are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Accuracy: more is better.
    #[default]
    Accuracy,
    /// Perplexity, `e^loss`: less is better.
    Perplexity,
}

impl Metric {
    /// Its name in tables and plots.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Perplexity => "perplexity",
        }
    }

    /// Its value for a model.
    #[must_use]
    pub fn of(self, score: &Score) -> f64 {
        match self {
            Self::Accuracy => score.accuracy,
            Self::Perplexity => score.loss.exp(),
        }
    }

    /// Whether one model is better than another.
    #[must_use]
    pub fn prefers(self, one: &Score, other: &Score) -> bool {
        match self {
            Self::Accuracy => one.accuracy > other.accuracy,
            Self::Perplexity => one.loss < other.loss,
        }
    }

    /// Its value as it is written, to four decimals or four digits.
    #[must_use]
    pub fn written(self, score: &Score) -> String {
        let value = self.of(score);
        match self {
            _ if !value.is_finite() => ABSENT.to_owned(),
            Self::Accuracy => format!("{value:.4}"),
            Self::Perplexity => format!("{value:.3}"),
        }
    }
}

/// Stands where there is no number.
pub(crate) const ABSENT: &str = "–";

/// The results of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Name of the task.
    pub task: String,
    /// The run's seed, as given.
    pub seed: u64,
    /// What models are compared by.
    pub metric: Metric,
    /// One record a method, packfed first.
    pub methods: Vec<MethodResult>,
    /// Personal models over packfed's final one, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<PersonalResult>,
}

/// Every worker's personal model and the global one, on what that worker holds out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersonalResult {
    /// Workers with something held out.
    pub workers: u64,
    /// For how many of them the personal model has the lower loss.
    pub better: u64,
    /// The global model over all that is held out.
    pub global: Score,
    /// The personal models, each on its own worker's part.
    pub personal: Score,
}

/// How one method did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodResult {
    /// `packfed`, `dense`, `lora-r4`, ….
    pub name: String,
    /// The final model on the test set.
    #[serde(flatten)]
    pub score: Score,
    /// Mean bytes that a worker sends for one round.
    pub bytes_up: f64,
    /// Mean bytes that a worker receives for one round.
    pub bytes_down: f64,
    /// Rounds committed.
    pub rounds: u64,
    /// Worker-rounds per second of real time, training to commit; tuning and testing not counted.
    pub worker_rounds_per_s: f64,
    /// Digest of the final model, hexadecimal.
    pub digest: String,
    /// Local learning rate of this record.
    pub learning_rate: f64,
    /// What each learning rate came to that was tried; empty where none was searched.
    pub tuning: Vec<Tuned>,
    /// Course of the run; not part of the JSON object.
    #[serde(skip)]
    pub curve: Vec<Point>,
}

/// One learning rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The local learning rate.
    pub learning_rate: f64,
    /// The final model under it, on the test set.
    #[serde(flatten)]
    pub score: Score,
}

/// The state of a run after a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Rounds committed so far; 0 is the base model.
    pub round: u64,
    /// The model on the test set.
    pub score: Score,
    /// Bytes sent by all workers so far.
    pub bytes_up: u64,
    /// Bytes received by all workers so far.
    pub bytes_down: u64,
    /// Virtual seconds since the start.
    pub virtual_s: f64,
}

impl Results {
    /// The object that `--json` prints, on one line.
    ///
    /// # Panics
    /// Never: the record holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, strings and lists are JSON")
    }

    /// The record of a method.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&MethodResult> {
        self.methods.iter().find(|method| method.name == name)
    }
}

/// The number that a person wrote, rather than the f32 beside it.
pub(crate) fn shortest(rate: f32) -> f64 {
    rate.to_string().parse().unwrap_or_else(|_| f64::from(rate))
}
