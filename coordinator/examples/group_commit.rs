//! What an accepted update costs until it is durable, alone and in a group.
//!
//! ```text
//!   cargo run --release -p packfed-coordinator --example group_commit [FOLDER]
//! ```
//!
//! Updates of 25,600 words (400 KiB) go into a store in FOLDER (default: a temporary one), one at a time, 8
//! and 64 to a group. Beside it stands the same as plain files: write and flush.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use packfed_coordinator::event::Write;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::store::Store;
use packfed_protocol::{Round, WorkerId};

const UPDATE_BYTES: usize = 25_600 * 16 + 300;
const UPDATES: usize = 192;
const REPEATS: usize = 5;

fn main() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args().nth(1).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    println!("{UPDATES} updates of {UPDATE_BYTES} bytes, median of {REPEATS} [least, most], ms per update");
    for group in [1, 8, 64] {
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        for repeat in 0..REPEATS {
            stored.push(store(&folder.join(format!("{group}-{repeat}.redb")), group)?);
            plain.push(files(&folder.join(format!("{group}-{repeat}.plain")), group)?);
        }
        println!("groups of {group:2}: store {}, plain file {}", spread(stored), spread(plain));
    }
    Ok(())
}

/// Milliseconds per update.
fn store(path: &Path, group: usize) -> Result<f64> {
    let mut store = RedbStore::create(path, &Registry::default())?;
    let writes: Vec<Write> = (0..UPDATES).map(accept).collect();
    let took = timed(|| writes.chunks(group).try_for_each(|group| Ok(store.write_all(group)?)))?;
    drop(store);
    std::fs::remove_file(path)?;
    Ok(took)
}

fn files(path: &Path, group: usize) -> Result<f64> {
    let mut file = File::create(path)?;
    let bytes = vec![7; UPDATE_BYTES * group];
    let took = timed(|| {
        (0..UPDATES / group).try_for_each(|_| {
            file.write_all(&bytes)?;
            Ok(file.sync_data()?)
        })
    })?;
    std::fs::remove_file(path)?;
    Ok(took)
}

fn accept(n: usize) -> Write {
    let mut worker = [0; 32];
    worker[..8].copy_from_slice(&n.to_le_bytes());
    let frame: Vec<u8> = (0..UPDATE_BYTES).map(|at| (at.wrapping_mul(n + 1) >> 3).to_le_bytes()[0]).collect();
    Write::Accept { round: Round(1), worker: WorkerId(worker), frame: frame.into() }
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn timed(body: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    body()?;
    Ok(began.elapsed().as_secs_f64() * 1e3 / UPDATES as f64)
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (values[0], values[REPEATS / 2], values[REPEATS - 1]);
    format!("{median:.2} [{least:.2}, {most:.2}]")
}
