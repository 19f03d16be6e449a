//! The worker's configuration file, and what enrolment leaves beside it.
//!
//! Raw structs mirror the TOML; [`WorkerConfig::load`] reads one and resolves its paths against the file's
//! folder. It knows files, not networks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use packfed_protocol::{CoordinatorId, RunId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::conditions::ConditionsConfig;
use crate::data::BadLines;
use crate::machine::Budgets;

/// `worker.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Where the coordinator listens.
    pub coordinator: SocketAddr,
    /// The coordinator's public key; no other is spoken to.
    pub coordinator_key: CoordinatorId,
    /// What operators see; at most 64 characters.
    pub name: String,
    /// File of this worker's secret key; made by `worker enroll`.
    #[serde(default = "identity")]
    pub identity: PathBuf,
    /// File that enrolment leaves.
    #[serde(default = "enrolment")]
    pub enrolment: PathBuf,
    /// The frozen base model.
    pub model: ModelConfig,
    /// The images of this worker, where a perceptron is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    /// The texts of this worker, where a transformer is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<TextsConfig>,
    /// Where releases lie; without it none is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<ReleasesConfig>,
    /// What this machine gives to training.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// The state that this machine is in.
    #[serde(default)]
    pub conditions: ConditionsConfig,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// A round ends with the steps done after so many seconds, one at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_budget_s: Option<u64>,
    /// Bytes that training may take, as it estimates itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget_bytes: Option<u64>,
    /// Seconds between two snapshots of a round that is under way; 0 takes one at every step. Default 30.
    #[serde(default = "snapshot_every_s")]
    pub snapshot_every_s: u64,
    /// File of such a snapshot.
    #[serde(default = "snapshot")]
    pub snapshot: PathBuf,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let (snapshot_every_s, snapshot) = (snapshot_every_s(), snapshot());
        Self { time_budget_s: None, memory_budget_bytes: None, snapshot_every_s, snapshot }
    }
}

impl LimitsConfig {
    /// The same as the loop's host has them.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        Budgets {
            time: self.time_budget_s.map(Duration::from_secs),
            memory: self.memory_budget_bytes,
            snapshot_every: Duration::from_secs(self.snapshot_every_s),
        }
    }
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A Hugging Face directory, a GGUF file, or a safetensors file with `layers.N.weight` and `layers.N.bias`.
    pub base: PathBuf,
    /// The global model as it was last seen, written when a run has ended.
    #[serde(default = "global")]
    pub global: PathBuf,
    /// This worker's private lanes; they stay here.
    #[serde(default = "personal")]
    pub personal: PathBuf,
}

/// `[texts]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextsConfig {
    /// A CSV file, JSON lines, or plain text, by its extension: `csv`, `jsonl`, anything else.
    pub file: PathBuf,
    /// The column or key of the text. Default `text`.
    #[serde(default = "text")]
    pub text: String,
    /// The column or key of the label, for an encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// File of the labels' names, one a line in the order of the classifier; the same for every worker of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<PathBuf>,
    /// Tokens of the longest text that is not cut, or of a window of running text. Default 128.
    #[serde(default = "tokens_max")]
    pub tokens_max: usize,
    /// Share of the texts that is never trained on, for `worker evaluate`. Default 0.1.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// What happens at a line that is no example: `stop` or `skip`. Default `stop`.
    #[serde(default)]
    pub bad_lines: BadLines,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// IDX file of images.
    pub images: PathBuf,
    /// IDX file of labels.
    pub labels: PathBuf,
    /// Share of the images that is never trained on, for releases to be measured on. Default 0.
    #[serde(default)]
    pub held_out: f64,
}

/// `[releases]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasesConfig {
    /// Folder of the releases that lie here. Default `releases`.
    #[serde(default = "releases")]
    pub folder: PathBuf,
    /// A release whose loss on what is held out is more than this above that of the one before, in nats, is not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_increase_max: Option<f64>,
}

/// What enrolment leaves: the run that this worker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The run.
    pub run: RunId,
    /// The coordinator that it was enrolled with.
    pub coordinator_key: CoordinatorId,
}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        why: String,
    },
}

fn global() -> PathBuf {
    "global.packfed".into()
}

fn personal() -> PathBuf {
    "personal.packfed".into()
}

fn releases() -> PathBuf {
    "releases".into()
}

fn text() -> String {
    "text".into()
}

const fn tokens_max() -> usize {
    128
}

const fn held_out() -> f64 {
    0.1
}

fn identity() -> PathBuf {
    "worker.key".into()
}

fn enrolment() -> PathBuf {
    "enrolment.toml".into()
}

const fn snapshot_every_s() -> u64 {
    30
}

fn snapshot() -> PathBuf {
    "training.snapshot".into()
}

impl WorkerConfig {
    /// Reads a file; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// If it cannot be read, names an unknown key or lacks one; the error names file and place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read_toml(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let model = &mut config.model;
        let mut files = vec![&mut config.identity, &mut config.enrolment, &mut config.limits.snapshot];
        files.extend([&mut model.base, &mut model.global, &mut model.personal]);
        if let Some(DataConfig { images, labels, .. }) = &mut config.data {
            files.extend([images, labels]);
        }
        if let Some(texts) = &mut config.texts {
            files.push(&mut texts.file);
            files.extend(&mut texts.classes);
        }
        files.extend(config.releases.as_mut().map(|releases| &mut releases.folder));
        for file in files {
            *file = folder.join(&*file);
        }
        let content = |why: String| ConfigError::Content { path: path.to_owned(), why };
        if config.data.is_some() == config.texts.is_some() {
            return Err(content("there must be one table of examples: [data] of images, or [texts]".into()));
        }
        if let Some(texts) = &config.texts {
            texts.check().map_err(content)?;
        }
        if let Some(data) = &config.data {
            check_share("data.held_out", data.held_out).map_err(content)?;
        }
        if let Some(max) = config.releases.as_ref().and_then(|releases| releases.loss_increase_max)
            && !(max.is_finite() && max >= 0.0)
        {
            return Err(content(format!("releases.loss_increase_max is {max}, allowed is 0 and more")));
        }
        Ok(config)
    }
}

impl TextsConfig {
    fn check(&self) -> Result<(), String> {
        check_share("texts.held_out", self.held_out)?;
        if self.tokens_max < 2 {
            return Err(format!("texts.tokens_max is {}, allowed is 2 and more", self.tokens_max));
        }
        if self.label.is_some() != self.classes.is_some() {
            return Err("texts.label and texts.classes come together: a label's name has its place in a list".into());
        }
        Ok(())
    }
}

fn check_share(key: &str, share: f64) -> Result<(), String> {
    match (0.0..1.0).contains(&share) {
        true => Ok(()),
        false => Err(format!("{key} is {share}, allowed is 0 to below 1")),
    }
}

impl Enrolment {
    /// Reads what enrolment left.
    ///
    /// # Errors
    /// If there is no such file, or it is of another coordinator than `config` names.
    pub fn load(config: &WorkerConfig) -> Result<Self, ConfigError> {
        let path = &config.enrolment;
        let enrolment: Self = read_toml(path)?;
        if enrolment.coordinator_key != config.coordinator_key {
            let why = format!(
                "enrolled with coordinator {}, the configuration names {}; enrol anew",
                enrolment.coordinator_key, config.coordinator_key
            );
            return Err(ConfigError::Content { path: path.clone(), why });
        }
        Ok(enrolment)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::File { path: path.to_owned(), source };
        let text = toml::to_string(self)
            .map_err(|error| ConfigError::Content { path: path.to_owned(), why: error.to_string() })?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text).map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Content { path: path.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker.example.toml");
        let config = WorkerConfig::load(&path).unwrap();
        assert_eq!(config.name, "kitchen-tablet");
        assert!(config.model.base.starts_with(env!("CARGO_MANIFEST_DIR")), "relative to the file");
    }

    #[test]
    fn the_examples_table_of_releases_is_one() {
        let example = include_str!("../worker.example.toml");
        let table = example.split_once("# [releases]").unwrap().1;
        let lines = table.lines().skip(1).take_while(|line| !line.is_empty()).map(|line| line.trim_start_matches("# "));
        let releases: ReleasesConfig = toml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(releases, ReleasesConfig { folder: "releases".into(), loss_increase_max: Some(0.5) });
        assert_eq!(
            toml::from_str::<WorkerConfig>(example).unwrap().releases,
            None,
            "none is followed unless it is said"
        );
    }

    #[test]
    fn shares_and_bounds_out_of_their_range_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        let error = |from: &str, to: &str| {
            std::fs::write(&path, include_str!("../worker.example.toml").replace(from, to)).unwrap();
            WorkerConfig::load(&path).unwrap_err().to_string()
        };
        let said = error("held_out = 0.0", "held_out = 1.0");
        assert!(said.ends_with("data.held_out is 1, allowed is 0 to below 1"), "{said}");
        let said = error("\n[data]", "\n[releases]\nloss_increase_max = -1.0\n[data]");
        assert!(said.ends_with("releases.loss_increase_max is -1, allowed is 0 and more"), "{said}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        let example = include_str!("../worker.example.toml");
        std::fs::write(&path, example.replace("name =", "nickname =")).unwrap();
        let error = WorkerConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("worker.toml") && error.contains("nickname"), "{error}");
    }

    #[test]
    fn an_enrolment_with_another_coordinator_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut config: WorkerConfig = toml::from_str(include_str!("../worker.example.toml")).unwrap();
        config.enrolment = folder.path().join("enrolment.toml");
        let enrolment = Enrolment { run: RunId([1; 16]), coordinator_key: config.coordinator_key };
        enrolment.save(&config.enrolment).unwrap();
        assert_eq!(Enrolment::load(&config).unwrap(), enrolment);
        config.coordinator_key.0[0] ^= 1;
        assert!(Enrolment::load(&config).unwrap_err().to_string().contains("enrol anew"));
    }
}
