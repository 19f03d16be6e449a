//! Flags and subcommands of `sim`, and what each prints.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use packfed_coordinator::config::ProfileName;
use packfed_sim::compare::{self, Method};
use packfed_sim::federated::FederatedTask;
use packfed_sim::fleet_files::{write_coordinator, write_worker};
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::partition::Partition;
use packfed_sim::progress::Progress;
use packfed_sim::task::Task;
use packfed_sim::text::Texts;
use packfed_sim::text::run::{BANKING77, SHAKESPEARE};
use packfed_sim::{parallel, process_fleet, report, table};

mod chaos;
mod pace;
mod resilience;

use pace::PaceArgs;
use resilience::ResilienceArgs;

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
    /// Run the digits task on real processes over QUIC: one coordinator and its workers.
    ///
    /// The programs `coordinator` and `worker` have to lie beside this one: `cargo build --release --bins`.
    /// `sim run` with the same sizes and seed prints the same digest.
    #[command(after_help = "Example: sim fleet --workers 8 --cohort 8 --rounds 5 --seed 1 --json")]
    Fleet(FleetArgs),
    /// Write the files of a fleet, to be started by hand; says how.
    #[command(after_help = "Example: sim prepare fleet --workers 2 --cohort 2 --rounds 5")]
    Prepare(PrepareArgs),
    /// Run seeds of a world that breaks connections, processes, disks and clocks, and check what has to hold.
    ///
    /// Each seed is one run of a tiny model with the engine, the store and the sessions that ship, and an operator who
    /// rolls releases out meanwhile: first anything may fail, then nothing fails any more, the run has to finish and
    /// every rollout to end. The exit code is 1 if a promise was broken.
    #[command(after_help = "Examples: sim chaos --seeds 1000 --json\n          sim chaos --replay 17")]
    Chaos(chaos::ChaosArgs),
}

#[derive(Debug, Args)]
struct FleetArgs {
    #[command(flatten)]
    size: FleetSize,
    /// Serve the coordinator's dashboard at this address, such as 127.0.0.1:9465; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS")]
    dashboard: Option<SocketAddr>,
    /// Print the results alone, as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PrepareArgs {
    /// The folder to make; one that is there must be empty.
    folder: PathBuf,
    #[command(flatten)]
    size: FleetSize,
    /// Where the coordinator will listen.
    #[arg(long, default_value = "127.0.0.1:4600")]
    listen: SocketAddr,
}

/// What a fleet is.
#[derive(Debug, Args)]
struct FleetSize {
    /// Rounds to commit [default: 60; banking77 and shakespeare 16].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: Option<u64>,
    /// Workers of the fleet [default: 50; shakespeare as many as there are characters].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    workers: Option<u32>,
    /// Workers of a round [default: 10; banking77 and shakespeare 4].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cohort: Option<u32>,
    /// The number that all randomness follows from; the same seed gives the same digest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seed: u64,
    /// How the examples are spread over the workers.
    #[arg(long, value_enum, default_value_t = PartitionName::Dirichlet)]
    partition: PartitionName,
    /// How packfed's words are packed [default: plain; banking77 and shakespeare nibble].
    #[arg(long, value_enum)]
    profile: Option<Words>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Words {
    /// Two lanes of 16 bits and 12 of 8 for every block.
    Plain,
    /// Two lanes of 8 bits and 28 of 4 for every block.
    Nibble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartitionName {
    /// Unevenly by label: for each, shares drawn from a Dirichlet distribution of concentration 0.3.
    Dirichlet,
    /// Evenly at random.
    Iid,
}

impl FleetSize {
    /// What was asked for, and what the task takes for the rest.
    fn options(&self, task: TaskName) -> Result<Options> {
        let &Self { seed, partition, .. } = self;
        let text = task != TaskName::Digits;
        let rounds = self.rounds.unwrap_or(if text { 16 } else { 60 });
        let workers = self.workers.unwrap_or(if task == TaskName::Shakespeare { 1_000 } else { 50 });
        let cohort = self.cohort.unwrap_or(if text { 4 } else { 10 });
        let profile = self.profile.unwrap_or(if text { Words::Nibble } else { Words::Plain });
        let partition = match partition {
            PartitionName::Dirichlet => UNEVEN,
            PartitionName::Iid => Partition::Iid,
        };
        let profile = match profile {
            Words::Plain => ProfileName::Plain,
            Words::Nibble => ProfileName::Nibble,
        };
        ensure!(cohort <= workers, "--cohort is {cohort}, allowed is 1 to {workers}, the number of --workers");
        Ok(Options { rounds, workers, cohort, seed, partition, profile, threads: parallel::threads() })
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What to train.
    #[arg(long, value_enum, default_value_t = TaskName::Digits)]
    task: TaskName,
    /// The base model of a task of text: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder with the texts of the task: banking77-train.csv and banking77-test.csv, or tinyshakespeare.txt.gz.
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    size: FleetSize,
    /// Where report.html and results.csv go.
    #[arg(long, default_value = "sim-out")]
    out: PathBuf,
    /// Print the results alone, as one JSON object on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pace: PaceArgs,
    /// Baselines to run beside packfed, or `none` [default: dense,lora-r4,lora-r8; under --attack none].
    #[arg(long, value_enum, value_delimiter = ',')]
    compare: Option<Vec<Compared>>,
    #[command(flatten)]
    resilience: ResilienceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskName {
    /// 10,000 digit images; an MLP 784-252-252-10 adapts to inverted, rotated ones.
    Digits,
    /// Questions to a bank in 77 intents; an encoder learns to tell them apart. Needs --model and --data.
    Banking77,
    /// Plays, a worker for every character; a decoder learns to speak like them. Needs --model and --data.
    Shakespeare,
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
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            None => self.run.run(),
            Some(Command::Run(run)) => run.run(),
            Some(Command::Fleet(fleet)) => fleet.run(),
            Some(Command::Prepare(prepare)) => prepare.run(),
            Some(Command::Chaos(chaos)) => return chaos.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

impl FleetArgs {
    fn run(self) -> Result<()> {
        let options = self.size.options(TaskName::Digits)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let seen = interrupted.clone();
        // The terminal tells the fleet's processes as well; they end, and what waits for them goes on below.
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        })?;
        let results = process_fleet::digits(&options, self.dashboard, &Progress::new(self.json));
        ensure!(!interrupted.load(Ordering::SeqCst), "interrupted; no process and no file is left");
        let results = results?;
        if self.json {
            println!("{}", results.to_json());
        } else {
            print!("{}", table::render(&results));
        }
        Ok(())
    }
}

impl PrepareArgs {
    fn run(self) -> Result<()> {
        let options = self.size.options(TaskName::Digits)?;
        let empty = std::fs::read_dir(&self.folder).map_or(true, |mut entries| entries.next().is_none());
        let folder = self.folder.display();
        ensure!(empty, "folder {folder} is not empty; name another one, nothing was written");
        Progress::new(false).note("pre-training the base model");
        let task = Task::digits(&options)?;
        let run = digits_run(&options, &task.base, task.base_digest());
        let files = write_coordinator(&self.folder, &task, run, self.listen, None, task.shards.len())?;
        let (coordinator, worker) = (beside_this("coordinator"), beside_this("worker"));
        let (coordinator, worker) = (coordinator.display(), worker.display());
        println!("# one terminal\n{coordinator} serve --config {} --until-finished", files.config.display());
        for (number, (identity, shard)) in options.identities().iter().zip(&task.shards).enumerate() {
            let config = write_worker(&self.folder, number, identity, shard, (self.listen, files.key))?;
            let (config, token) = (config.display(), &files.tokens[number]);
            println!("# another\n{worker} enroll --config {config} --token {token} && {worker} run --config {config}");
        }
        Ok(())
    }
}

impl RunArgs {
    fn run(self) -> Result<()> {
        let options = self.size.options(self.task)?;
        let (methods, progress) = (self.methods()?, Progress::new(self.json));
        let resilience = &self.resilience.resilience(options.cohort)?;
        if self.task != TaskName::Digits {
            self.pace.none()?;
        }
        let results = match self.task {
            TaskName::Digits => compare::digits_on(resilience, self.pace.of(&options)?, &options, &methods, &progress)?,
            TaskName::Banking77 => {
                let (model, data) = self.paths()?;
                let texts = Texts::banking77(model, data, &options)?;
                compare::text_under(resilience, &texts, &BANKING77, &options, &methods, &progress)?
            }
            TaskName::Shakespeare => {
                let (model, data) = self.paths()?;
                let texts = Texts::shakespeare(model, data, &options)?;
                let options = Options { workers: u32::try_from(texts.shards.len())?, ..options };
                compare::text_under(resilience, &texts, &SHAKESPEARE, &options, &methods, &progress)?
            }
        };
        report::write(&results, &self.out).context("writing the report; choose another folder with --out")?;
        if self.json {
            println!("{}", results.to_json());
        } else {
            print!("{}", table::render(&results));
            if let Some(personal) = &results.personal {
                println!("{}", personal.line(results.metric));
            }
            println!("report: {}", self.out.join("report.html").display());
        }
        Ok(())
    }

    /// The model and the data of a task of text.
    fn paths(&self) -> Result<(&Path, &Path)> {
        let name = self.task.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let need = |flag: &str, what: &str| format!("the task {name} needs {flag}: {what}; see the README");
        let model = self.model.as_deref().with_context(|| need("--model", "the folder or file of its base model"))?;
        let data = self.data.as_deref().with_context(|| need("--data", "the folder of its texts"))?;
        Ok((model, data))
    }

    fn methods(&self) -> Result<Vec<Method>> {
        let all = [Compared::Dense, Compared::LoraR4, Compared::LoraR8];
        let compared: &[Compared] = match &self.compare {
            Some(compared) => compared,
            None if self.resilience.attacks() => &[Compared::None],
            None => &all,
        };
        let none = compared.contains(&Compared::None);
        ensure!(!none || compared.len() == 1, "--compare none stands alone; drop it or the other names");
        ensure!(none || !self.resilience.attacks(), "nobody attacks a baseline; drop --compare or --attack");
        let chosen = |method: &Method| match method {
            Method::Dense => compared.contains(&Compared::Dense),
            Method::LoraR4 => compared.contains(&Compared::LoraR4),
            Method::LoraR8 => compared.contains(&Compared::LoraR8),
        };
        Ok(Method::ALL.into_iter().filter(chosen).collect())
    }
}

/// How to name another of packfed's programs on the command line that named this one.
fn beside_this(name: &str) -> PathBuf {
    let own = std::env::args_os().next().map_or_else(PathBuf::new, PathBuf::from);
    own.with_file_name(name)
}
