//! `coordinator replay`: runs the engine over an audit log again and says where it ends.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use packfed_coordinator::audit::{Located, ReplayError, Replayed, replay};
use packfed_coordinator::server::now;
use packfed_protocol::Timestamp;

use super::{advise, load};

/// Run the engine over an audit log again: every group of writes has to lead to the digest that the log has.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator replay run1/audit --config run1/coordinator.toml
  coordinator replay run1/audit --config run1/coordinator.toml --events | grep update
  coordinator replay run1/audit --config run1/coordinator.toml --json | jq .digest

The log may be replayed while it is written. A group that its last process was killed over is counted as
stored. Exit codes: 0 every digest is the log's, 1 the log is damaged (file and byte are named) or the engine
came to another model.")]
pub(super) struct Replay {
    /// The folder of the log.
    log: PathBuf,
    /// The configuration of its run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print every entry: time in milliseconds since 1970, file, byte, and what happened.
    #[arg(long)]
    events: bool,
    /// Print the end as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let config = load(&self.config)?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut failed = Ok(());
        let mut progress = Progress { entries: 0, said: now(), shown: !self.events && std::io::stderr().is_terminal() };
        let replayed = replay(&config.plan, &self.log, |located| {
            progress.entry();
            if self.events && failed.is_ok() {
                failed = print(&mut out, located);
            }
        });
        progress.end();
        failed?;
        let replayed = replayed.map_err(explain)?;
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&replayed)?)?;
        } else {
            self.print_end(&mut out, &replayed)?;
        }
        out.flush()?;
        if replayed.begun == 0 {
            bail!("the log holds no beginning of a process; nothing was replayed");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print_end(&self, out: &mut impl Write, replayed: &Replayed) -> std::io::Result<()> {
        let Replayed { entries, begun, events, updates, groups, taken_back, version, digest } = replayed;
        writeln!(out, "{entries} entries of {begun} processes: {events} events, {updates} of them updates")?;
        writeln!(
            out,
            "{groups} groups of writes, each with the digest that the log has; {taken_back} were taken back"
        )?;
        writeln!(out, "version {version}, digest {digest}")
    }
}

fn print(out: &mut impl Write, located: &Located) -> std::io::Result<()> {
    let file = located.path.file_name().unwrap_or_default().to_string_lossy();
    writeln!(out, "{} {file}:{} {}", located.at.0, located.offset, located.entry)
}

fn explain(error: ReplayError) -> anyhow::Error {
    match error {
        ReplayError::Audit(_) => advise(error, "what stands before that byte holds"),
        ReplayError::Diverged { .. } => advise(error, "is it this run's configuration, and this version of packfed?"),
        ReplayError::Store(_) | ReplayError::Resume(_) | ReplayError::NoBase { .. } => error.into(),
    }
}

/// A count on a terminal, once a second.
struct Progress {
    entries: u64,
    said: Timestamp,
    shown: bool,
}

impl Progress {
    fn entry(&mut self) {
        self.entries += 1;
        let now = now();
        if self.shown && now.since(self.said) >= 1000 {
            self.said = now;
            eprint!("\r{} entries", self.entries);
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
