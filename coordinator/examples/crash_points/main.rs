//! Kills a real coordinator at random moments over a whole run, and shows that nothing is lost, nothing is
//! counted twice, and the model is that of an undisturbed run.
//!
//! ```text
//!   cargo run --release -p packfed-coordinator --example crash_points
//!   cargo run --release -p packfed-coordinator --example crash_points -- --kills 50 --seed 3 --json
//! ```
//!
//! The coordinator is this program again, as `crash_points serve FILE`: a process of its own that serves as
//! `coordinator serve` does, over the same files, and is ended with SIGKILL.

mod campaign;
mod device;
mod exchange;
mod folder;
mod process;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use campaign::{Campaign, Findings};
use clap::Parser;
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::server::Server;
use process::Launch;

/// Kill a real coordinator at random moments and compare with an undisturbed run.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often it is killed.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Workers that send updates over loopback.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Where the moments are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    serve: Option<Serve>,
}

#[derive(Debug, clap::Subcommand)]
enum Serve {
    /// Be the coordinator of this configuration until its run is finished.
    #[command(hide = true)]
    Serve {
        /// The configuration.
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Serve::Serve { config }) = arguments.serve {
        return serve(&config).await;
    }
    let launch = Launch { program: std::env::current_exe()?, arguments: vec!["serve".into()], after: vec![] };
    let campaign = Campaign { launch, kills: arguments.kills, workers: arguments.workers, seed: arguments.seed };
    let findings = campaign.run(|kills| {
        if !arguments.json && kills.is_multiple_of(20) {
            println!("{kills} kills");
        }
    });
    print(&findings.await?, arguments.json)
}

async fn serve(path: &std::path::Path) -> Result<()> {
    let server = Server::bind(&CoordinatorConfig::load(path)?)?;
    let resumed = server.resumed_round().map(|round| round.reports);
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::json!({ "listening": server.local_addr(), "resumed": { "reports": resumed } }))?;
    out.flush()?;
    let outcome = server.run_until_finished(std::future::pending()).await?;
    writeln!(out, "{}", outcome.report.to_json())?;
    Ok(())
}

fn print(findings: &Findings, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(findings)?);
        return Ok(());
    }
    let f = findings;
    println!("{} workers, {} rounds, {} kills in {:.1} s", f.workers, f.rounds, f.kills, f.seconds);
    println!("  killed before it listened: {}, in an open round: {}", f.kills_before_listening, f.found_open);
    println!("  updates found in the journal by restarts: {}", f.found_updates);
    println!("  updates acknowledged: {} of {}", f.acknowledged, f.rounds * u64::from(f.workers));
    println!("  sent again and known: {}, verdict lost and not asked for again: {}", f.known, f.unheard);
    println!("  acknowledged and asked for again: 0, counted twice: 0");
    println!("  digest {}", f.digest);
    println!("  the undisturbed run's digest and the replayed audit log's ({} entries) are the same", f.replayed);
    Ok(())
}
