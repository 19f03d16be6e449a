//! Every aggregation rule under every attack on `digits`: where a run ends when some workers lie.
//!
//! `cargo run --release -p packfed-sim --example robust` runs four rules under no attack and under four on seed 0, with
//! 20 % of the 50 workers malicious: 20 runs. A gap is to the plain mean without an attack, same seed.

use anyhow::Result;
use clap::Parser;
use packfed_coordinator::config::{AggregationTable, ProfileName, RuleName};
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_sim::attack::{Attack, Malice};
use packfed_sim::federated::FederatedTask;
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::partition::Partition;
use packfed_sim::progress::Progress;
use packfed_sim::resilience::Resilience;
use packfed_sim::task::Task;
use packfed_sim::{packed, parallel};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rules against attacks on digits.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds, from 0 on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Rounds of a run.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,
    /// Workers of a round, of 50. With few of them, a round often has more liars than a rule can bear.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(5..=50))]
    cohort: u32,
    /// Share of the workers that are malicious.
    #[arg(long, default_value_t = 0.2)]
    malicious: f64,
    /// Of the trimmed mean.
    #[arg(long, default_value_t = 0.3)]
    trim: f64,
    /// Of the server (FedAvgM).
    #[arg(long, default_value_t = 0.5)]
    rate: f64,
    /// Of the server (FedAvgM).
    #[arg(long, default_value_t = 0.5)]
    momentum: f64,
    /// FedAdam with these β₁, β₂ and τ in place of FedAvgM.
    #[arg(long, num_args = 3, value_names = ["B1", "B2", "TAU"])]
    adam: Option<Vec<f64>>,
    /// Local steps of a round.
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Of local training.
    #[arg(long, default_value_t = 0.02)]
    learning_rate: f32,
    /// One rule alone.
    #[arg(long)]
    only: Option<String>,
    /// These attacks alone, and none.
    #[arg(long, value_delimiter = ',')]
    attacks: Option<Vec<String>>,
    /// Also the mean of updates that are shrunk to this norm.
    #[arg(long)]
    clip_norm: Option<f64>,
    /// Examples spread evenly at random; without it unevenly by label.
    #[arg(long)]
    iid: bool,
    /// One JSON object a run instead of the table.
    #[arg(long)]
    json: bool,
}

/// Workers of the fleet.
const WORKERS: u32 = 50;

impl Arguments {
    fn options(&self, seed: u64) -> Options {
        Options {
            rounds: self.rounds,
            workers: WORKERS,
            cohort: self.cohort,
            seed,
            partition: if self.iid { Partition::Iid } else { UNEVEN },
            profile: ProfileName::Plain,
            threads: parallel::threads(),
        }
    }

    fn server_optimizer(&self) -> ServerOptimizer {
        match self.adam.as_deref() {
            Some(&[beta1, beta2, tau]) => ServerOptimizer::FedAdam { rate: self.rate, beta1, beta2, tau },
            _ => ServerOptimizer::FedAvgM { rate: self.rate, momentum: self.momentum },
        }
    }

    fn rules(&self) -> Vec<(String, AggregationTable)> {
        let rule = |rule| AggregationTable { rule, ..AggregationTable::default() };
        let malicious_max = Some((self.cohort - 3) / 2);
        let mut rules = vec![
            ("mean".to_owned(), rule(RuleName::Mean)),
            ("median".to_owned(), rule(RuleName::Median)),
            (
                format!("trimmed mean, {}", self.trim),
                AggregationTable { trim: Some(self.trim), ..rule(RuleName::TrimmedMean) },
            ),
            ("multi-Krum".to_owned(), AggregationTable { malicious_max, ..rule(RuleName::MultiKrum) }),
        ];
        if let Some(clip_norm) = self.clip_norm {
            rules.push((format!("mean, norm ≤ {clip_norm}"), AggregationTable { clip_norm, ..rule(RuleName::Mean) }));
        }
        rules.retain(|(name, _)| self.only.as_deref().is_none_or(|only| name.contains(only)));
        rules
    }
}

fn main() -> Result<()> {
    #[expect(unsafe_code, reason = "sets a variable for Candle")]
    // SAFETY: this is the first thing that main does, so no other thread exists.
    unsafe {
        parallel::keep_candle_to_one_thread();
    }
    let arguments = Arguments::parse();
    let tasks: Vec<(Options, Task)> = (0..arguments.seeds)
        .map(|seed| arguments.options(seed))
        .map(|options| Ok((options, Task::digits(&options)?)))
        .collect::<Result<_>>()?;
    let asked =
        |attack: &Attack| arguments.attacks.as_ref().is_none_or(|names| names.iter().any(|n| n == attack.name()));
    let attacks: Vec<_> = std::iter::once(None).chain(Attack::ALL.into_iter().filter(asked).map(Some)).collect();
    if !arguments.json {
        let names = attacks.iter().map(|attack| attack.map_or("no attack", Attack::name));
        println!("| rule |{} |", names.map(|name| format!(" {name} |")).collect::<String>().trim_end_matches('|'));
        println!("|---|{}", "---|".repeat(attacks.len()));
    }
    let mut free = Vec::new();
    for (name, aggregation) in arguments.rules() {
        let mut row = format!("| {name} |");
        for &attack in &attacks {
            let accuracies = tasks.iter().map(|task| run(task, aggregation, attack, &arguments));
            let accuracies = accuracies.collect::<Result<Vec<f64>>>()?;
            if free.is_empty() {
                free.clone_from(&accuracies);
            }
            if arguments.json {
                let attack = attack.map(Attack::name);
                println!("{}", serde_json::json!({ "rule": name, "attack": attack, "accuracies": accuracies }));
            }
            row.push_str(&cell(&accuracies, &free));
        }
        if !arguments.json {
            println!("{row}");
        }
    }
    Ok(())
}

/// The accuracy at the end of one run.
fn run(
    (options, task): &(Options, Task),
    aggregation: AggregationTable,
    attack: Option<Attack>,
    arguments: &Arguments,
) -> Result<f64> {
    let malice = attack.map(|attack| Malice { attack, share: arguments.malicious });
    let resilience = Resilience { aggregation, malice };
    let mut run = resilience.applied(digits_run(options, &task.base, task.base_digest()))?;
    (run.training.steps, run.training.learning_rate) = (arguments.steps, arguments.learning_rate);
    run.server_optimizer = arguments.server_optimizer();
    let plan = run.plan()?;
    Ok(packed::run_attacked(task, options, plan, malice, &Progress::new(arguments.json))?.result.score.accuracy)
}

/// Mean, lowest and highest, and the largest gap to the run of the same seed that nobody attacked.
fn cell(accuracies: &[f64], free: &[f64]) -> String {
    let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    let lowest = accuracies.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let gap = free.iter().zip(accuracies).map(|(free, accuracy)| free - accuracy).fold(f64::NEG_INFINITY, f64::max);
    format!(" {mean:.3} ({lowest:.3} – {highest:.3}), gap ≤ {:.1} |", 100.0 * gap)
}
