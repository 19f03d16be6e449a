//! What `worker layers` prints of a base model: its digest, and the matrices that are adapted.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use packfed_coordinator::config::LayerTable;
use packfed_protocol::Digest;
use serde::Deserialize;

/// A base model as far as a run's configuration speaks of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayersFile {
    /// Digest of its files.
    pub(super) base: Digest,
    /// The adapted matrices.
    pub(super) layers: Vec<LayerTable>,
}

impl LayersFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        let file: Self =
            toml::from_str(&text).with_context(|| format!("{shown} is not what `worker layers` prints"))?;
        ensure!(!file.layers.is_empty(), "{shown} names no layer");
        Ok(file)
    }
}
