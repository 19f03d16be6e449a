//! A task of text over seeds and learning rates: packfed beside its baselines, accuracy or perplexity against rounds
//! and bytes.
//!
//! `cargo run --release -p packfed-sim --example text_sweep -- banking77 --model M --data D`. Every run that ends is
//! appended to a file of JSON lines, and one that is there already is not run again: a sweep that was broken off goes
//! on where it was.

mod record;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use packfed_coordinator::config::ProfileName;
use packfed_sim::compare::{self, Method};
use packfed_sim::options::{Options, UNEVEN};
use packfed_sim::parallel;
use packfed_sim::progress::Progress;
use packfed_sim::resilience::Resilience;
use packfed_sim::text::Texts;
use packfed_sim::text::run::{BANKING77, Rates, SHAKESPEARE, TextRun};

use record::{Asked, Record, Records};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sweep learning rates and seeds on a task of text, and print the tables.
///
/// The untouched base is round 0 of every run.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: text_sweep banking77 --model models/minilm --data DATA --seeds 0,1,2 --methods packfed,dense"
)]
struct Cli {
    /// What to train.
    #[arg(value_enum)]
    task: TaskName,
    /// The base model: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// The folder with the texts of the task.
    #[arg(long)]
    data: PathBuf,
    /// Methods to run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "packfed,dense,lora-r8")]
    methods: Vec<Name>,
    /// Seeds of every method.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Learning rates in place of each method's own three.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<f32>,
    /// Rounds to commit.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,
    /// Workers of the fleet [default: 50; shakespeare as many as there are characters].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    workers: Option<u32>,
    /// Workers of a round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cohort: u32,
    /// Local steps of a round in place of the task's own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// Leave out the personal models.
    #[arg(long)]
    no_personal: bool,
    /// The file that records are kept in [default: sweep-TASK.jsonl].
    #[arg(long)]
    records: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskName {
    /// Questions to a bank in 77 intents.
    Banking77,
    /// Plays, a worker for every character.
    Shakespeare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Words of 16 bytes a block.
    Packfed,
    /// Every parameter trained and shipped.
    Dense,
    /// Low-rank factors of rank 8.
    LoraR8,
}

/// Rates that packfed tries on either task, in orthonormal-coefficient units.
const PACKFED_RATES: [f32; 3] = [0.005, 0.01, 0.02];

impl TaskName {
    const fn run(self) -> TextRun {
        match self {
            Self::Banking77 => BANKING77,
            Self::Shakespeare => SHAKESPEARE,
        }
    }

    fn texts(self, model: &Path, data: &Path, options: &Options) -> Result<Texts> {
        Ok(match self {
            Self::Banking77 => Texts::banking77(model, data, options)?,
            Self::Shakespeare => Texts::shakespeare(model, data, options)?,
        })
    }
}

impl Name {
    const fn name(self) -> &'static str {
        match self {
            Self::Packfed => "packfed",
            Self::Dense => Method::Dense.name(),
            Self::LoraR8 => Method::LoraR8.name(),
        }
    }

    fn rates(self, run: &TextRun) -> Vec<f32> {
        match self {
            Self::Packfed => PACKFED_RATES.into(),
            Self::Dense => run.dense.rates.into(),
            Self::LoraR8 => run.lora.rates.into(),
        }
    }

    /// One run under one rate.
    fn run(self, run: TextRun, rate: f32, texts: &Texts, options: &Options, progress: &Progress) -> Result<Record> {
        // One float for a run of minutes: it may as well stay.
        let rates: &'static [f32] = vec![rate].leak();
        let only = |of: Rates| Rates { rates, ..of };
        let run = TextRun { dense: only(run.dense), lora: only(run.lora), ..run };
        let (result, personal) = match self {
            Self::Packfed => {
                let run = TextRun { training: packfed_training(&run, rate), ..run };
                compare::packed_text(&Resilience::default(), texts, &run, options, progress)?
            }
            Self::Dense => (Method::Dense.run_text(texts, &run, options, progress)?, None),
            Self::LoraR8 => (Method::LoraR8.run_text(texts, &run, options, progress)?, None),
        };
        Ok(Record::new(&result, personal))
    }
}

fn packfed_training(run: &TextRun, learning_rate: f32) -> packfed_coordinator::config::TrainingTable {
    packfed_coordinator::config::TrainingTable { learning_rate, ..run.training }
}

impl Cli {
    fn task_run(&self) -> TextRun {
        let mut run = self.task.run();
        run.training.steps = self.steps.unwrap_or(run.training.steps);
        if self.no_personal {
            run.personal = None;
        }
        run
    }

    fn options(&self, seed: u64) -> Options {
        let workers = self.workers.unwrap_or(if self.task == TaskName::Shakespeare { 1_000 } else { 50 });
        let (rounds, cohort, threads) = (self.rounds, self.cohort, parallel::threads());
        Options { rounds, workers, cohort, seed, partition: UNEVEN, profile: ProfileName::Nibble, threads }
    }

    fn run(self) -> Result<()> {
        let run = self.task_run();
        let path = self.records.clone().unwrap_or_else(|| PathBuf::from(format!("sweep-{}.jsonl", run.name)));
        let mut records = Records::open(&path).with_context(|| format!("records in {}", path.display()))?;
        for &seed in &self.seeds {
            let options = self.options(seed);
            let mut texts = None;
            for &name in &self.methods {
                let rates = if self.rates.is_empty() { name.rates(&run) } else { self.rates.clone() };
                for rate in rates {
                    let asked = Asked::new(&run, &options, name.name(), rate);
                    if records.has(&asked) {
                        continue;
                    }
                    if texts.is_none() {
                        texts = Some(self.task.texts(&self.model, &self.data, &options)?);
                    }
                    let Some(texts) = &texts else { continue };
                    let workers = u32::try_from(texts.shards.len())?;
                    let options = Options { workers, ..options };
                    let record = name.run(run, rate, texts, &options, &Progress::new(false))?;
                    records.push(asked, record).with_context(|| format!("records in {}", path.display()))?;
                }
            }
        }
        print!("{}", tables::render(&records.of_task(run.name)));
        Ok(())
    }
}

fn main() -> Result<()> {
    #[expect(unsafe_code, reason = "sets a variable for Candle")]
    // SAFETY: this is the first thing that main does, so no other thread exists.
    unsafe {
        parallel::keep_candle_to_one_thread();
    }
    parallel::keep_kernels_to_one_thread();
    Cli::parse().run()
}
