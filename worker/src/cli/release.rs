//! `worker release`: which release runs on this machine, and what became of the last one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use packfed_protocol::{Failure, Paired, ReleaseOutcome, ReleaseRef};
use packfed_worker::config::WorkerConfig;
use packfed_worker::follower::{Held, Standing};
use serde_json::{Value, json};

use super::federation::base_digest;
use super::texts::releases;

#[derive(Debug, Subcommand)]
pub(super) enum Release {
    /// Say what runs, what ran before, and what became of the last release that was tried.
    #[command(after_help = "Example: worker release status --config worker.toml --json")]
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Release {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Status(status) => status.run(),
        }
    }
}

impl Status {
    fn run(self) -> Result<()> {
        let config = WorkerConfig::load(&self.config)?;
        let found = config.releases.as_ref().with_context(|| {
            format!("{}: releases are not followed here; there is no table [releases]", self.config.display())
        })?;
        let releases = releases(&config, found, base_digest(&config)?)?;
        // What is damaged is not said to run.
        let standing = releases.sound(&releases.standing()?);
        if self.json {
            println!("{}", as_json(&standing));
        } else {
            as_text(&standing).iter().for_each(|line| println!("{line}"));
        }
        Ok(())
    }
}

fn as_json(standing: &Standing) -> Value {
    let release = |of: ReleaseRef| json!({ "number": of.number, "digest": of.digest });
    let held = |held: Option<Held>| held.map(|held| release(held.release));
    json!({
        "current": held(standing.current),
        "previous": held(standing.previous),
        "tried": standing.tried.map(|tried| {
            json!({ "release": release(tried.release), "outcome": tried.outcome, "why": standing.why })
        }),
        "trying": standing.trying.map(|trying| {
            json!({ "release": release(trying.held.release), "attempts": trying.attempts })
        }),
    })
}

fn as_text(standing: &Standing) -> Vec<String> {
    let held = |held: Option<Held>, none: &str| {
        held.map_or(none.to_owned(), |held| format!("release {} ({})", held.release.number, held.release.digest))
    };
    let mut lines = vec![
        format!("current   {}", held(standing.current, "the base model")),
        format!("previous  {}", held(standing.previous, "none: after the current one comes the base model")),
    ];
    if let Some(tried) = standing.tried {
        let why = standing.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        lines.push(format!("tried     release {}, {}{why}", tried.release.number, outcome(&tried.outcome)));
    }
    if let Some(trying) = standing.trying {
        let (number, attempts) = (trying.held.release.number, trying.attempts);
        lines.push(format!("trying    release {number}, attempt {attempts}"));
    }
    lines
}

fn outcome(outcome: &ReleaseOutcome) -> String {
    match outcome {
        ReleaseOutcome::Healthy => "found healthy; nothing is held out to measure it on".to_owned(),
        ReleaseOutcome::Failed(Failure::Download) => "could not be fetched".to_owned(),
        ReleaseOutcome::Failed(Failure::Verify) => "refused".to_owned(),
        ReleaseOutcome::Failed(Failure::Crash) => "found not healthy".to_owned(),
        ReleaseOutcome::Evaluated(found) => {
            let of = |name: &str, figure: Option<Paired>| {
                figure.map(|of| format!(", {name} {:.4} after {:.4}", of.after, of.before)).unwrap_or_default()
            };
            let (loss, accuracy) = (of("loss", Some(found.loss)), of("accuracy", found.accuracy));
            let latency = of("milliseconds", found.latency_ms);
            format!("measured on {} held-out examples{loss}{accuracy}{latency}", found.examples)
        }
    }
}

#[cfg(test)]
mod tests {
    use packfed_protocol::{Digest, Tried};

    use super::*;

    #[test]
    fn what_runs_and_why_the_last_one_does_not_is_said() {
        assert_eq!(as_text(&Standing::default())[0], "current   the base model");
        let release = ReleaseRef { number: 4, digest: Digest([4; 32]) };
        let failed = Tried { release, outcome: ReleaseOutcome::Failed(Failure::Crash) };
        let held =
            Held { release: ReleaseRef { number: 3, ..release }, state: release.digest, adapter: release.digest };
        let why = Some("its loss on example 0 is NaN".to_owned());
        let standing = Standing { current: Some(held), tried: Some(failed), why, ..Standing::default() };
        let lines = as_text(&standing);
        assert!(lines[0].starts_with("current   release 3 (0404"), "{lines:?}");
        assert_eq!(lines[2], "tried     release 4, found not healthy: its loss on example 0 is NaN");
        let said = as_json(&standing);
        assert_eq!(said["tried"]["outcome"], json!({ "failed": "crash" }));
        assert_eq!((&said["current"]["number"], &said["previous"]), (&json!(3), &Value::Null));
    }
}
