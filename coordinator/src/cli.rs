//! Flags and subcommands. Each subcommand is a file; none decides anything about rounds.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use packfed_coordinator::config::CoordinatorConfig;
use tracing_subscriber::EnvFilter;

mod admin;
mod admin_file;
mod base_model;
mod completions;
mod config;
mod confirm;
mod duration;
pub(crate) mod exit;
mod init;
mod layers_file;
mod man;
mod operator;
mod output;
mod pages;
mod release;
mod replay;
mod report_table;
mod rollout;
mod round;
mod run;
mod schema;
mod serve;
mod status;
mod template;
mod top;
mod worker;

/// Coordinate federated fine-tuning: open rounds, add what workers send, keep and hand back the model.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How logs are written to stderr; RUST_LOG sets how much (default: info).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new folder with a configuration, a key, and a store that holds one-time tokens.
    Init(init::Init),
    /// Serve the run until it is told to stop.
    Serve(serve::Serve),
    /// Run the engine over an audit log again.
    Replay(replay::Replay),
    /// Say how the run stands.
    Status(status::StatusCommand),
    /// Show the run live on the terminal.
    Top(top::Top),
    /// Say what shapes the run, pause it, or change its rounds to come.
    Run(run::RunCommand),
    /// Look at rounds, or end the open one.
    Round(round::RoundCommand),
    /// Say who is enrolled, or say who may take part.
    Worker(worker::WorkerCommand),
    /// Freeze models as releases, and look at them.
    Release(release::ReleaseCommand),
    /// Roll a release out to the fleet, stage by stage, and steer it.
    Rollout(rollout::RolloutCommand),
    /// Make keys for people who administer a coordinator with a role of their own.
    Admin(admin::AdminCommand),
    /// Check a configuration and what it names.
    Config(config::ConfigCommand),
    /// Print the JSON Schema of what a command prints with --json.
    Schema(schema::Schema),
    /// Print a script that completes this command in a shell.
    Completions(completions::Completions),
    /// Write manual pages, one for each command.
    Man(man::Man),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode> {
        self.log_format.install();
        match self.command {
            Command::Init(init) => init.run(),
            Command::Serve(serve) => serve.run(),
            Command::Replay(replay) => replay.run(),
            Command::Status(status) => status.run(),
            Command::Run(run) => run.run(),
            Command::Round(round) => round.run(),
            Command::Worker(worker) => worker.run(),
            Command::Release(release) => release.run(),
            Command::Rollout(rollout) => rollout.run(),
            Command::Top(top) => top.run(),
            Command::Admin(admin) => admin.run(),
            Command::Config(config) => config.run(),
            Command::Schema(schema) => schema.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}

impl LogFormat {
    fn install(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let logs = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_env_filter(filter);
        match self {
            Self::Text => logs.init(),
            Self::Json => logs.json().init(),
        }
    }
}

/// Reads the configuration, or says how to get one.
fn load(path: &Path) -> Result<CoordinatorConfig> {
    CoordinatorConfig::load(path).map_err(|error| {
        advise(
            error,
            "correct the file (coordinator.example.toml explains every key), or make one with `coordinator init DIR`",
        )
    })
}

/// An error and the next step, on one line.
fn advise(error: impl Display, next: impl Display) -> anyhow::Error {
    anyhow!("{error}; {next}")
}

const AFTER_HELP: &str = "\
Examples:
  coordinator init run1 --base model.safetensors --tokens 4
  coordinator serve --config run1/coordinator.toml
  coordinator status --config run1/coordinator.toml --json
  coordinator worker list --admin admin.toml
  coordinator release create --config run1/coordinator.toml --notes 'better on cards'
  coordinator rollout start 1 --admin admin.toml --why 'better on cards'
  coordinator replay run1/audit --config run1/coordinator.toml

What administers a coordinator takes its own file with --config, or an admin's with --admin from any machine. Every
change stands in the audit log with who made it and --why.

Exit codes:
  0  done
  1  it failed; stderr says why and what to do next
  2  the command line is wrong
  3  no coordinator serves, and this is what the store holds
  4  `rollout status --watch` saw the rollout taken back or aborted
  5  `rollout status --watch` saw the rollout paused
  6  the key's role does not allow it";
