//! `kill -9` of a coordinator or a worker at random points of rollouts, on real processes.
//!
//! ```text
//!   cargo build --release --bins
//!   cargo run --release -p packfed-sim --example rollout_crashes -- --kills 100 --json
//! ```
//!
//! Rollouts follow one another without a pause while processes are killed and started again. After each kill the victim's
//! release is read from its disk: it has to be whole, and one that was released. A short form is the test of this name.

mod campaign;

use anyhow::Result;
use clap::Parser;

use campaign::Campaign;

#[derive(Debug, Parser)]
struct Arguments {
    /// Processes to kill.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Workers of the fleet.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// The number that moments and victims follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let Arguments { kills, workers, seed, json } = Arguments::parse();
    let found = Campaign { kills, workers, seed }.run(|kill| {
        if !json && kill.is_multiple_of(10) {
            println!("{kill} kills");
        }
    })?;
    if json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        println!("{found:?}");
    }
    Ok(())
}
