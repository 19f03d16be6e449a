//! `coordinator serve`: the server, with logs on stderr and what scripts need on stdout.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use packfed_coordinator::server::{Outcome, Server, ServerError};
use serde_json::json;

use super::{advise, load, report_table};

/// Serve the run until it is told to stop (Ctrl-C or SIGTERM).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator serve --config run1/coordinator.toml
  RUST_LOG=debug coordinator serve --config run1/coordinator.toml --log-format json 2> log.jsonl
  coordinator serve --config run1/coordinator.toml --until-finished --json | tail -1 | jq .digest

The first line on stdout says where it listens, as soon as it does. A restart goes on with the round
that was open, and says so. Exit codes: 0 stopped or finished, 1 failed, or stopped before
--until-finished was true.")]
pub(super) struct Serve {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when every round of the plan is committed and the workers were told.
    #[arg(long)]
    until_finished: bool,
    /// Print JSON objects, one a line.
    #[arg(long)]
    json: bool,
}

impl Serve {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let config = load(&self.config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
        let outcome = runtime.block_on(async {
            let server = Server::bind(&config).map_err(cannot_serve)?;
            let shutdown = shutdown().context("listen for signals")?;
            self.announce(&server)?;
            let outcome = match self.until_finished {
                true => server.run_until_finished(shutdown).await,
                false => server.run(shutdown).await,
            };
            outcome.map_err(|error| advise(error, "nothing was lost; start again when the cause is gone"))
        })?;
        self.conclude(&outcome)
    }

    fn announce(&self, server: &Server) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let (address, key, resumed) = (server.local_addr(), server.id(), server.resumed_round());
        if self.json {
            let resumed = resumed.map(|r| json!({ "round": r.round, "reports": r.reports, "cohort": r.cohort }));
            let run = server.resumed().run;
            let dashboard = server.dashboard_addr();
            let said = json!({
                "listening": address, "public_key": key, "run": run, "resumed": resumed, "dashboard": dashboard
            });
            writeln!(out, "{said}")?;
        } else {
            writeln!(out, "listening on {address} as {key}")?;
            if let Some(dashboard) = server.dashboard_addr() {
                writeln!(out, "dashboard at http://{dashboard}/")?;
            }
            if let Some(r) = resumed {
                writeln!(out, "resuming round {} with {} of {} updates", r.round, r.reports, r.cohort)?;
            }
        }
        Ok(out.flush()?)
    }

    fn conclude(&self, outcome: &Outcome) -> Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", outcome.report.to_json())?,
            false => writeln!(out, "{}", report_table::render(&outcome.report.to_json())?)?,
        }
        if self.until_finished && !outcome.finished {
            bail!("stopped before the run was finished; start again to go on with it");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn cannot_serve(error: ServerError) -> anyhow::Error {
    match error {
        ServerError::Identity(_) => advise(error, "`coordinator init DIR` makes a folder with a key"),
        ServerError::Quic(_) => advise(error, "set another address for `listen`"),
        ServerError::Resume(_) | ServerError::Store(_) => advise(
            error,
            "stop the process that has the store, restore it, or make another with `coordinator init DIR`",
        ),
        ServerError::Metrics { .. } => advise(error, "set another address for `listen` in `[metrics]`"),
        ServerError::Dashboard { .. } => advise(error, "set another address for `listen` in `[dashboard]`"),
        ServerError::Audit(_) | ServerError::Owner(_) | ServerError::Endpoint => error.into(),
    }
}

/// Ready when the process is asked to end.
#[cfg(unix)]
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Ready when the process is asked to end.
#[cfg(not(unix))]
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
