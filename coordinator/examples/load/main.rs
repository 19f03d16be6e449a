//! How much a coordinator bears: real processes, real connections on loopback.
//!
//! ```text
//!   cargo build --release -p packfed-coordinator --bins
//!   cargo run --release -p packfed-coordinator --example load -- updates
//!   cargo run --release -p packfed-coordinator --example load -- updates --workers 100 --rounds 9 --json
//!   cargo run --release -p packfed-coordinator --example load -- idle --connections 10000 --json
//! ```
//!
//! `updates`: every worker of a round sends 400 KiB at once. Beside it the same bytes go over the same number of
//! connections to a server that only throws them away, in turn with the rounds; what both take is compared, and what
//! the rest of the coordinator's CPU time goes into is measured a step at a time. `idle`: connections that are
//! admitted and checked in and have nothing to do.
//!
//! The coordinator is the binary of that name, `coordinator serve` with its default limits, found beside this
//! program's folder. Its memory and CPU time are read from `/proc`, so this needs Linux.

#[path = "../crash_points/exchange.rs"]
mod exchange;
#[path = "../crash_points/folder.rs"]
mod folder;
#[path = "../crash_points/process.rs"]
mod process;

mod bare;
mod costs;
mod device;
mod fleet;
mod idle;
mod operator;
mod run;
mod spread;
mod text;
mod updates;
mod usage;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use idle::Idle;
use packfed_coordinator::config::ShellLimits;
use packfed_protocol::Identity;
use process::Launch;
use updates::Updates;

/// Measure what a coordinator bears.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All workers of a round send their updates at once.
    Updates {
        /// Connected workers; every one is drawn in every round.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        workers: u32,
        /// Rounds that are measured.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Updates that are in memory at once; the coordinator's default if it is not said.
        #[arg(long)]
        updates_max: Option<u32>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Connections with nothing to do.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        connections: u32,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Be the server that throws everything away, with this key file.
    #[command(hide = true)]
    Bare {
        /// The key file.
        key: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Updates { workers, rounds, updates_max, json } => {
            let bare = Launch { program: std::env::current_exe()?, arguments: vec!["bare".into()], after: vec![] };
            let mut limits = ShellLimits::default();
            limits.updates_max = updates_max.unwrap_or(limits.updates_max);
            let load = Updates { coordinator: coordinator()?, bare: Some(bare), workers, rounds, layers: 25, limits };
            print(json, &load.run().await?, text::updates)
        }
        Command::Idle { connections, json } => {
            let idle = Idle { coordinator: coordinator()?, connections, hold: HOLD };
            print(json, &idle.run().await?, text::idle)
        }
        Command::Bare { key } => bare(&key).await,
    }
}

/// Serves for as long as the process lives; the first line on stdout says where.
async fn bare(key: &Path) -> Result<()> {
    let endpoint = bare::endpoint(&Identity::load(key)?)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::json!({ "listening": endpoint.local_addr()? }))?;
    out.flush()?;
    bare::serve(endpoint).await;
    Ok(())
}

/// The binary beside the folder that this program is in.
fn coordinator() -> Result<Launch> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(|examples| examples.parent()).context("this program is in no folder")?;
    let program = folder.join(format!("coordinator{}", std::env::consts::EXE_SUFFIX));
    let release = if cfg!(debug_assertions) { "" } else { "--release " };
    ensure!(
        program.is_file(),
        "no coordinator at {}; build it with `cargo build {release}-p packfed-coordinator --bins`",
        program.display()
    );
    Ok(run::launch(program))
}

fn print<T: serde::Serialize>(json: bool, findings: &T, text: impl FnOnce(&T)) -> Result<()> {
    match json {
        true => println!("{}", serde_json::to_string(findings)?),
        false => text(findings),
    }
    Ok(())
}

/// Some keep-alives of every connection.
const HOLD: Duration = Duration::from_secs(30);
