//! The coordinator's file: where it listens and what it runs.
//!
//! ```text
//!   text ──► CoordinatorFile (any numbers) ──► CoordinatorConfig (a checked plan, whole paths)
//!                └─ RunConfig (all that shapes the run) ──► RunPlan
//! ```
//!
//! An unknown key is an error, and so is a missing one that shapes a run. A simulation writes
//! [`CoordinatorFile`]s, or uses a [`RunConfig`] without any file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packfed_protocol::NAME_CHARS_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::admin::Admin;
use crate::audit::AuditPolicy;
use crate::optimizer::ServerOptimizer;
use crate::pace::Pace;
use crate::plan::{PlanError, RunPlan};
use crate::strikes::Strikes;

mod aggregation;
mod audit;
mod dashboard;
mod limits;
mod metrics;
mod run;

pub use aggregation::{AggregationTable, RuleName};
pub use audit::AuditTable;
pub use dashboard::DashboardTable;
pub use limits::ShellLimits;
pub use metrics::MetricsTable;
pub use run::{
    BufferedTable, LayerTable, ProfileName, ReportingTable, RunConfig, RunTable, SelectionTable, TrainingTable,
};

/// The file as it is written, not checked yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorFile {
    /// UDP address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Key file, relative to the folder of this file.
    pub identity: PathBuf,
    /// Store file, relative to the folder of this file.
    pub store: PathBuf,
    /// What the run is.
    pub run: RunTable,
    /// The adapted matrices.
    pub layers: Vec<LayerTable>,
    /// Local training of one round.
    pub training: TrainingTable,
    /// Workers to wait for before a cohort is drawn.
    pub selection: SelectionTable,
    /// When workers come back that are not needed.
    #[serde(default)]
    pub pace: Pace,
    /// What misbehaviour leads to.
    #[serde(default)]
    pub strikes: Strikes,
    /// Updates to wait for.
    pub reporting: ReportingTable,
    /// How accepted updates become one delta. Default the mean.
    #[serde(default)]
    pub aggregation: AggregationTable,
    /// Without rounds, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffered: Option<BufferedTable>,
    /// How that becomes a step.
    pub server_optimizer: ServerOptimizer,
    /// What the process bears.
    #[serde(default)]
    pub limits: ShellLimits,
    /// Where the audit log is, if there is to be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditTable>,
    /// Where metrics are served, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsTable>,
    /// Who else may administer it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admins: Vec<Admin>,
    /// Where the dashboard is served, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<DashboardTable>,
}

impl CoordinatorFile {
    /// A file for this run, with the default limits and neither audit log, metrics nor dashboard.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: PathBuf, store: PathBuf, run: RunConfig) -> Self {
        let RunConfig { pace, strikes, reporting, aggregation, buffered, server_optimizer, .. } = run;
        let RunConfig { run, layers, training, selection, .. } = run;
        let limits = ShellLimits::default();
        Self {
            listen,
            identity,
            store,
            run,
            layers,
            training,
            selection,
            pace,
            strikes,
            reporting,
            aggregation,
            buffered,
            server_optimizer,
            limits,
            audit: None,
            metrics: None,
            admins: Vec::new(),
            dashboard: None,
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::syntax(text, &error))
    }

    /// The file's text; it parses to the same file again.
    ///
    /// # Errors
    /// [`ConfigError::Unwritable`] if a number does not fit TOML's 64 signed bits.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Unwritable(error.to_string()))
    }

    /// All that shapes the run.
    #[must_use]
    pub fn run_config(&self) -> RunConfig {
        RunConfig {
            run: self.run.clone(),
            layers: self.layers.clone(),
            training: self.training,
            selection: self.selection,
            pace: self.pace,
            strikes: self.strikes,
            reporting: self.reporting,
            aggregation: self.aggregation,
            buffered: self.buffered,
            server_optimizer: self.server_optimizer,
        }
    }

    fn checked_admins(&self) -> Result<Vec<Admin>, ConfigError> {
        for (n, Admin { name, key, .. }) in self.admins.iter().enumerate() {
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
                let bound = format!("it must have 1 to {NAME_CHARS_MAX} characters to print");
                return Err(ConfigError::Text { key: "admins name", value: name.clone(), bound });
            }
            if self.admins[..n].iter().any(|other| other.key == *key || other.name == *name) {
                let bound = "no two admins may have one name or one key".to_owned();
                return Err(ConfigError::Text { key: "admins name", value: name.clone(), bound });
            }
        }
        Ok(self.admins.clone())
    }

    /// Checks every number; relative paths begin at `folder`.
    ///
    /// # Errors
    /// If a number is out of bounds; the error names it, its value and the bound.
    pub fn check(&self, folder: &Path) -> Result<CoordinatorConfig, ConfigError> {
        self.limits.check()?;
        Ok(CoordinatorConfig {
            listen: self.listen,
            identity: folder.join(&self.identity),
            store: folder.join(&self.store),
            plan: Arc::new(self.run_config().plan()?),
            limits: self.limits,
            audit: self.audit.as_ref().map(|audit| audit.check(folder)).transpose()?,
            metrics: self.metrics.map(|metrics| metrics.listen),
            admins: self.checked_admins()?,
            dashboard: self.dashboard.map(|dashboard| dashboard.listen),
        })
    }
}

/// A checked file.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinatorConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// Key file.
    pub identity: PathBuf,
    /// Store file.
    pub store: PathBuf,
    /// What is run.
    pub plan: Arc<RunPlan>,
    /// What the process bears.
    pub limits: ShellLimits,
    /// Where the audit log is.
    pub audit: Option<AuditPolicy>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Who else may administer it.
    pub admins: Vec<Admin>,
    /// Where the dashboard is served.
    pub dashboard: Option<SocketAddr>,
}

impl CoordinatorConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or a key is unknown, missing or out of bounds. The error names
    /// the file, the key, the value and the bound.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let in_file = |why: ConfigError| ConfigError::File { path: path.to_owned(), why: Box::new(why) };
        let text = std::fs::read_to_string(path).map_err(|error| in_file(ConfigError::Read(error.kind())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        CoordinatorFile::parse(&text).and_then(|file| file.check(folder)).map_err(in_file)
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// Something is wrong with a file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What.
        why: Box<ConfigError>,
    },
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(std::io::ErrorKind),
    /// A line is not as it should be.
    #[error("line {line} (`{content}`): {why}")]
    Syntax {
        /// Its number, from 1.
        line: usize,
        /// The line.
        content: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number does not fit TOML.
    #[error("cannot be written as toml: {0}")]
    Unwritable(String),
    /// A number that shapes the run is out of bounds.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Numbers that the aggregation rule does not take, or not those that it needs.
    #[error("aggregation rule {rule} takes {takes}; given are {given}")]
    RuleNumbers {
        /// The rule.
        rule: &'static str,
        /// What it takes.
        takes: &'static str,
        /// What is there.
        given: String,
    },
    /// A text is not as it should be.
    #[error("{key} is {value:?}, {bound}")]
    Text {
        /// Which.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        bound: String,
    },
    /// A limit of the process is out of bounds.
    #[error("limits {key} is {value}, allowed is {min} to {max}")]
    Limit {
        /// Which.
        key: &'static str,
        /// What it is.
        value: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
}

impl ConfigError {
    fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        let content = text.lines().nth(line).unwrap_or("").trim().to_owned();
        Self::Syntax { line: line + 1, content, why: error.message().replace('\n', " ") }
    }
}

#[cfg(test)]
mod tests;
