//! Flags and subcommands of `sim`, and what each prints.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use packfed_sim::compare::{self, Method};
use packfed_sim::options::Options;
use packfed_sim::progress::Progress;
use packfed_sim::{parallel, report, table};

/// Simulate federated fine-tuning, and measure packfed beside dense and LoRA FedAvg.
///
/// Without a subcommand this is `sim run`: the digits task, 50 workers, 60 rounds, in about half a
/// minute; it writes report.html and results.csv into sim-out.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a task in virtual time, packfed beside its baselines.
    Run(RunArgs),
}

/// What a fleet is.
#[derive(Debug, Args)]
struct FleetSize {
    /// Rounds to commit.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,
    /// Workers of the fleet.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    workers: u32,
    /// Workers of a round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cohort: u32,
    /// The number that all randomness follows from; the same seed gives the same digest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seed: u64,
}

impl FleetSize {
    fn options(&self) -> Result<Options> {
        let &Self { rounds, workers, cohort, seed } = self;
        ensure!(cohort <= workers, "--cohort is {cohort}, allowed is 1 to {workers}, the number of --workers");
        Ok(Options { rounds, workers, cohort, seed, threads: parallel::threads() })
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What to train.
    #[arg(long, value_enum, default_value_t = TaskName::Digits)]
    task: TaskName,
    #[command(flatten)]
    size: FleetSize,
    /// Where report.html and results.csv go.
    #[arg(long, default_value = "sim-out")]
    out: PathBuf,
    /// Print the results alone, as one JSON object on stdout.
    #[arg(long)]
    json: bool,
    /// Baselines to run beside packfed, or `none`.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dense,lora-r4,lora-r8")]
    compare: Vec<Compared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskName {
    /// 10,000 digit images; an MLP 784-252-252-10 adapts to inverted, rotated ones.
    Digits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compared {
    /// Every parameter trained and shipped.
    Dense,
    /// Low-rank factors of rank 4.
    LoraR4,
    /// Low-rank factors of rank 8.
    LoraR8,
    /// packfed alone.
    None,
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            None => self.run.run(),
            Some(Command::Run(run)) => run.run(),
        }
    }
}

impl RunArgs {
    fn run(self) -> Result<()> {
        let options = self.size.options()?;
        let methods = self.methods()?;
        let TaskName::Digits = self.task;
        let results = compare::digits(&options, &methods, &Progress::new(self.json))?;
        report::write(&results, &self.out).context("writing the report; choose another folder with --out")?;
        if self.json {
            println!("{}", results.to_json());
        } else {
            print!("{}", table::render(&results));
            println!("report: {}", self.out.join("report.html").display());
        }
        Ok(())
    }

    fn methods(&self) -> Result<Vec<Method>> {
        let none = self.compare.contains(&Compared::None);
        ensure!(!none || self.compare.len() == 1, "--compare none stands alone; drop it or the other names");
        let chosen = |method: &Method| match method {
            Method::Dense => self.compare.contains(&Compared::Dense),
            Method::LoraR4 => self.compare.contains(&Compared::LoraR4),
            Method::LoraR8 => self.compare.contains(&Compared::LoraR8),
        };
        Ok(Method::ALL.into_iter().filter(chosen).collect())
    }
}
