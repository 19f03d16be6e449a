//! What a configuration with `[texts]` names: the model, its tokenizer, the labels, the texts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use packfed_codec::{Adapter, BaseDigest, Seed, State, Window};
use packfed_protocol::Digest;
use packfed_worker::config::{Enrolment, LimitsConfig, ReleasesConfig, TextsConfig, WorkerConfig};
use packfed_worker::data::{self, Dataset, Labels, read_all};
use packfed_worker::export::read_adapter;
use packfed_worker::files::ModelFiles;
use packfed_worker::follower::Pinned;
use packfed_worker::model::linears::Linears;
use packfed_worker::pretrained::{Body, Pretrained};
use packfed_worker::releases::{Release, Releases};
use packfed_worker::text::Tokenizer;

/// Which of a worker's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// As it was downloaded.
    Base,
    /// As the federation trained it.
    Global,
    /// The global one with this worker's private lanes.
    Personal,
}

impl Which {
    pub(super) const ALL: [Self; 3] = [Self::Base, Self::Global, Self::Personal];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Global => "global",
            Self::Personal => "personal",
        }
    }
}

/// The releases of a worker with this base model.
pub(super) fn releases(config: &WorkerConfig, releases: &ReleasesConfig, base: Digest) -> Result<Releases> {
    let enrolment = Enrolment::load(config).context("releases belong to an enrolment; run `worker enroll` first")?;
    let pinned = Pinned { coordinator: config.coordinator_key, run: enrolment.run, base };
    Ok(Releases::at(releases.folder.clone(), pinned))
}

/// A worker's transformer and its texts.
pub(super) struct Texts {
    config: WorkerConfig,
    texts: TextsConfig,
    pub(super) files: ModelFiles,
    pub(super) digest: BaseDigest,
    pub(super) model: Arc<Pretrained>,
    pub(super) tokenizer: Tokenizer,
    pub(super) labels: Option<Labels>,
}

/// Which texts are held out follows from the texts alone, so that no command trains on what another is measured on.
pub(super) const SPLIT: u64 = 0;

impl Texts {
    /// The model and tokenizer of a configuration file that has `[texts]`.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let config = WorkerConfig::load(path)?;
        match &config.texts {
            Some(texts) => Self::open(&config, texts),
            None => bail!("{}: this command is for a transformer; there is no table [texts]", path.display()),
        }
    }

    pub(super) fn open(config: &WorkerConfig, texts: &TextsConfig) -> Result<Self> {
        let files = ModelFiles::open(&config.model.base)?;
        let labels = texts.classes.as_deref().map(Labels::load).transpose()?;
        let model = Arc::new(Pretrained::open(&files, labels.as_ref().map(Labels::len))?);
        let (tokenizer, digest) = (files.tokenizer()?, files.digest()?);
        Ok(Self { config: config.clone(), texts: texts.clone(), files, digest, model, tokenizer, labels })
    }

    /// What is trained on, and what is held out.
    pub(super) fn datasets(&self) -> Result<(Dataset, Dataset)> {
        let TextsConfig { file, text, label, tokens_max, held_out, bad_lines, .. } = &self.texts;
        let (records, skipped) = read_all(&mut *data::open(file, text, label.as_deref())?, *bad_lines)?;
        let mut dataset = match &self.labels {
            Some(labels) => Dataset::classification(file, &records, labels, &self.tokenizer, *tokens_max, *bad_lines)?,
            None => Dataset::windows(file, &records, &self.tokenizer, *tokens_max)?,
        };
        dataset.skipped += skipped;
        if dataset.skipped > 0 {
            tracing::warn!(file = %file.display(), skipped = dataset.skipped, "lines that are no examples");
        }
        let (training, held_out) = dataset.split(&Seed::from_number(SPLIT), *held_out);
        if training.examples.is_empty() {
            bail!("{}: every example is held out; lower texts.held_out or add texts", file.display());
        }
        Ok((training, held_out))
    }

    pub(super) const fn limits(&self) -> &LimitsConfig {
        &self.config.limits
    }

    /// Tokens of the longest text that is not cut.
    pub(super) const fn tokens_max(&self) -> usize {
        self.texts.tokens_max
    }

    /// The global model: the release that runs here, or else the model as a run left it. Says which on stderr.
    pub(super) fn global(&self) -> Result<Adapter> {
        if let Some(Release { manifest, adapter }) = self.release()? {
            tracing::info!(release = manifest.number, "the global model is a release");
            return Ok(adapter);
        }
        let path = &self.config.model.global;
        tracing::info!(file = %path.display(), "the global model is the one that a run left");
        self.adapter(path).with_context(|| "no global model here; `worker run` writes it when a run has ended")
    }

    /// The release that runs here, if releases are followed and one does.
    fn release(&self) -> Result<Option<Release>> {
        let Some(config) = &self.config.releases else { return Ok(None) };
        Ok(releases(&self.config, config, Digest(self.digest.0))?.current()?)
    }

    /// This worker's private lanes.
    pub(super) fn private(&self) -> Result<Adapter> {
        let path = self.private_path();
        self.adapter(path).with_context(|| "no personal model here; run `worker personalize` first")
    }

    pub(super) fn private_path(&self) -> &Path {
        &self.config.model.personal
    }

    /// An adapter's file, if it is of this base.
    fn adapter(&self, path: &Path) -> Result<Adapter> {
        let adapter = read_adapter(path)?;
        if adapter.base() != self.digest {
            let (found, path) = (adapter.base(), path.display());
            bail!("{path}: made for a base model with digest {found}, the one here has {}", self.digest);
        }
        Ok(adapter)
    }

    /// Whether there is a model of a kind.
    pub(super) fn has(&self, which: Which) -> Result<bool> {
        let global = || Ok(self.config.model.global.exists() || self.release()?.is_some());
        match which {
            Which::Base => Ok(true),
            Which::Global => global(),
            Which::Personal => Ok(self.config.model.personal.exists() && global()?),
        }
    }

    /// The models that there are, the most personal one last.
    pub(super) fn there(&self) -> Result<Vec<Which>> {
        let mut there = Vec::new();
        for which in Which::ALL {
            if self.has(which)? {
                there.push(which);
            }
        }
        Ok(there)
    }

    /// The most personal model that is there.
    pub(super) fn latest(&self) -> Result<Which> {
        Ok(self.there()?.pop().unwrap_or(Which::Base))
    }

    /// The states whose Δ make a model.
    pub(super) fn states(&self, which: Which) -> Result<Vec<State>> {
        Ok(match which {
            Which::Base => Vec::new(),
            Which::Global => vec![self.global()?.state().clone()],
            Which::Personal => vec![self.global()?.state().clone(), self.private()?.state().clone()],
        })
    }

    /// How the matrices of a model are applied.
    pub(super) fn linears(&self, which: Which) -> Result<Arc<dyn Linears>> {
        Ok(match self.states(which)?.as_slice() {
            [] => self.model.base(),
            [global] => self.model.global(global)?,
            [global, private, ..] => self.model.personal(global, private, Window::first(0))?.0,
        })
    }

    pub(super) fn is_encoder(&self) -> bool {
        matches!(self.model.body(), Body::Bert(..))
    }
}
