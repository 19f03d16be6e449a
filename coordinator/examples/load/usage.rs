//! What a process takes of the machine, as the system says (`proc(5)`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process's memory and the CPU time that it has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes that are resident.
    pub(crate) resident: u64,
    /// Of these, bytes that are no file's.
    pub(crate) anonymous: u64,
    /// The most that were ever resident.
    pub(crate) peak: u64,
    /// Of all threads, user and system.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of a process that runs.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let folder = Path::new("/proc").join(process.to_string());
        let status = read(&folder.join("status"))?;
        let bytes = |key| Ok::<_, anyhow::Error>(number(&status, key)? << 10);
        Ok(Self {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
            peak: bytes("VmHWM:")?,
            cpu: cpu_time(&folder.join("stat"))?,
        })
    }
}

/// CPU time of the thread that asks.
pub(crate) fn own_cpu_time() -> Result<Duration> {
    cpu_time(Path::new("/proc/thread-self/stat"))
}

/// Files that this process may have open.
pub(crate) fn files_max() -> Result<u64> {
    let limits = read(Path::new("/proc/self/limits"))?;
    // A process without a limit says so in a word.
    Ok(number(&limits, "Max open files").unwrap_or(u64::MAX))
}

fn cpu_time(stat: &Path) -> Result<Duration> {
    let text = read(stat)?;
    // The name in brackets may hold anything; utime and stime are the 14th and 15th field.
    let (_, rest) = text.rsplit_once(')').context("a process without a name")?;
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * TICK_MS))
}

/// The first number behind a key.
fn number(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    let number = line.split_whitespace().next().with_context(|| format!("{key} without a number"))?;
    number.parse().with_context(|| format!("{key} {number}"))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}; this needs Linux", path.display()))
}

/// The unit of CPU times: a hundredth of a second wherever Linux runs.
const TICK_MS: u64 = 10;
