//! The operator's order to freeze a model, which the owner does between two groups: what is released is stored.

use std::path::Path;

use anyhow::Result;
use packfed_protocol::{Identity, Timestamp};

use crate::engine::Engine;
use crate::release::{Made, Shelf};

/// A shelf, and the key that signs what comes on it.
pub(super) struct Releases {
    identity: Identity,
    shelf: Shelf,
}

impl Releases {
    pub(super) fn new(identity: Identity, store: &Path) -> Self {
        Self { identity, shelf: Shelf::beside(store) }
    }

    /// Makes a release of a version of the head, the current one unless another is asked for; its manifest as JSON.
    pub(super) fn make(&self, engine: &Engine, version: Option<u64>, notes: String, now: Timestamp) -> Result<String> {
        let last = engine.status().last;
        let made = Made::of_head(engine.plan(), engine.head(), last.as_ref(), version, notes, now)?;
        let manifest = self.shelf.make(&self.identity, &made)?;
        tracing::info!(release = manifest.number, version = manifest.version.0, state = %manifest.state, "released");
        Ok(serde_json::to_string(&manifest)?)
    }
}
