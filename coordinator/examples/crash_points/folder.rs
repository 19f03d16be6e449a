//! The files that a coordinator needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use packfed_coordinator::config::CoordinatorFile;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::{Member, Registry, Standing};
use packfed_protocol::{Identity, WorkerId};

/// Writes them for a coordinator of this key that admits these workers; returns its configuration's path.
pub(crate) fn prepare(
    folder: &Path,
    file: &CoordinatorFile,
    coordinator: &Identity,
    workers: impl Iterator<Item = WorkerId>,
) -> Result<PathBuf> {
    let member = |(n, id)| (id, Member::new(format!("w{n}"), Standing::Admitted));
    let registry = Registry::new((1_u32..).zip(workers).map(member).collect(), BTreeSet::new());
    drop(RedbStore::create(&folder.join(&file.store), &registry)?);
    coordinator.save(&folder.join(&file.identity))?;
    let config = folder.join("coordinator.toml");
    std::fs::write(&config, file.to_toml()?)?;
    Ok(config)
}
