//! `coordinator rollout start`: what is asked for, from flags or from a file.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use packfed_coordinator::rollout::{Gates, OnFailure, STABLE, Spec, Stage, Target};
use packfed_coordinator::view::RolloutDetail;
use packfed_protocol::Order;

use super::share::stage;
use crate::cli::advise;
use crate::cli::confirm::Why;
use crate::cli::duration::Milliseconds;
use crate::cli::exit::Usage;
use crate::cli::operator::Operator;
use crate::cli::worker::label;

#[derive(Debug, Args)]
pub(super) struct Start {
    /// The release's number.
    release: u64,
    /// A stage, once for each, by rising share, the last 100%: share of the fleet, least time, and workers that must
    /// have reported (1 if it is not given). The defaults are 5%:10m, 25%:30m and 100%:1h.
    #[arg(long, value_name = "SHARE:SOAK[:REPORTS]", value_parser = stage, conflicts_with = "stages")]
    stage: Vec<Stage>,
    /// All stages at once.
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',', value_parser = stage)]
    stages: Vec<Stage>,
    /// Whom it is for: workers whose label `channel` is this; workers without that label are on `stable`.
    #[arg(long, value_name = "NAME", default_value = STABLE)]
    channel: String,
    /// Only for workers with this label; all of several.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    only: Vec<(String, String)>,
    /// Not for workers with this label; none of several.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    except: Vec<(String, String)>,
    #[command(flatten)]
    bounds: Bounds,
    /// What a failed gate leads to: the release is taken back from everybody, or nobody else gets it.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Failure::Rollback)]
    on_failure: Failure,
    /// How long after the soak time reports and gates are waited for before the rollout is paused.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    patience: Milliseconds,
    /// All of it from a TOML file in place of the other flags; rollout.example.toml explains every key.
    #[arg(long, value_name = "FILE", conflicts_with_all = FLAGS)]
    spec: Option<PathBuf>,
    #[command(flatten)]
    why: Why,
}

/// What a file stands for.
const FLAGS: [&str; 13] = [
    "stage",
    "stages",
    "channel",
    "only",
    "except",
    "loss_increase_max",
    "accuracy_drop_max",
    "latency_increase_max",
    "crash_rate_max",
    "download_failure_rate_max",
    "confidence",
    "on_failure",
    "patience",
];

/// What the release may make worse.
#[derive(Debug, Args)]
struct Bounds {
    /// Held-out loss may grow by so many nats, or `off` [default: 0.05]
    #[arg(long, value_name = "X|off")]
    loss_increase_max: Option<Bound>,
    /// Accuracy may fall by so much of 1, or `off` [default: 0.05]
    #[arg(long, value_name = "X|off")]
    accuracy_drop_max: Option<Bound>,
    /// The time for an example may grow by this share of what it was, or `off` [default: off]
    #[arg(long, value_name = "X|off")]
    latency_increase_max: Option<Bound>,
    /// It may crash on this share of the workers, of 1, or `off` [default: 0.05]
    #[arg(long, value_name = "X|off")]
    crash_rate_max: Option<Bound>,
    /// So many workers may fail to fetch or verify it, of 1, or `off` [default: off]
    #[arg(long, value_name = "X|off")]
    download_failure_rate_max: Option<Bound>,
    /// How sure a gate has to be, 0.5 to below 1 [default: 0.95]
    #[arg(long, value_name = "X")]
    confidence: Option<f64>,
}

/// A gate's bound; none is no gate.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound(Option<f64>);

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        match text {
            "off" => Ok(Self(None)),
            _ => match number() {
                Some(number) => Ok(Self(Some(number))),
                None => Err(format!("{text:?} is no bound; write a number of 0 and more, or off")),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Failure {
    /// Everybody goes back to the release before.
    Rollback,
    /// Nobody else gets it until somebody decides.
    Pause,
}

impl Start {
    pub(super) fn run(&self, operator: &Operator) -> Result<RolloutDetail> {
        let spec = match &self.spec {
            Some(path) => read(path)?,
            None => self.asked(),
        };
        spec.check().map_err(|error| Usage(format!("the rollout cannot be: {error}")))?;
        let spec = serde_json::to_string(&spec)?;
        operator.order(&self.why.text, Order::Start { release: self.release, spec })
    }

    /// What the flags say.
    fn asked(&self) -> Spec {
        let stages = match (&self.stage[..], &self.stages[..]) {
            ([], []) => DEFAULT.to_vec(),
            ([], stages) | (stages, _) => stages.to_vec(),
        };
        let labels = |pairs: &[(String, String)]| pairs.iter().cloned().collect();
        Spec {
            channel: self.channel.clone(),
            target: Target { only: labels(&self.only), except: labels(&self.except) },
            stages,
            gates: self.bounds.gates(),
            on_failure: match self.on_failure {
                Failure::Rollback => OnFailure::RollBack,
                Failure::Pause => OnFailure::Pause,
            },
            patience_ms: self.patience.0,
        }
    }
}

impl Bounds {
    fn gates(&self) -> Gates {
        let gates = Gates::default();
        let bound = |said: Option<Bound>, default| said.map_or(default, |Bound(bound)| bound);
        Gates {
            confidence: self.confidence.unwrap_or(gates.confidence),
            loss_increase_max: bound(self.loss_increase_max, gates.loss_increase_max),
            accuracy_drop_max: bound(self.accuracy_drop_max, gates.accuracy_drop_max),
            latency_increase_max: bound(self.latency_increase_max, gates.latency_increase_max),
            crash_rate_max: bound(self.crash_rate_max, gates.crash_rate_max),
            download_failure_rate_max: bound(self.download_failure_rate_max, gates.download_failure_rate_max),
        }
    }
}

fn read(path: &Path) -> Result<Spec> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let what = format!("{}: line {line}: {}", path.display(), error.message().replace('\n', " "));
        advise(what, "correct the file; rollout.example.toml explains every key")
    })
}

/// A few workers, a quarter, everybody; each stage on the word of one worker at least.
const DEFAULT: [Stage; 3] = [
    Stage { share: 50_000, soak_ms: 10 * 60_000, reports_min: 1 },
    Stage { share: 250_000, soak_ms: 30 * 60_000, reports_min: 1 },
    Stage { share: 1_000_000, soak_ms: 60 * 60_000, reports_min: 1 },
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    fn asked(flags: &[&str]) -> Spec {
        let line = Line::try_parse_from([&["start", "4"], flags].concat()).unwrap_or_else(|error| panic!("{error}"));
        line.start.asked()
    }

    #[test]
    fn the_example_file_says_what_no_flags_say() {
        let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rollout.example.toml"));
        assert_eq!(read(example).unwrap(), asked(&[]));
        assert_eq!(asked(&[]).check(), Ok(()));
    }

    #[test]
    fn flags_say_all_that_a_file_can() {
        let flags = "--stages 5%:1m:3,100%:2m --channel beta --only region=eu --only model=x2 --except old=yes \
                     --loss-increase-max off --crash-rate-max 0.5 --confidence 0.9 --on-failure pause --patience 2h";
        let spec = asked(&flags.split_whitespace().collect::<Vec<_>>());
        assert_eq!((spec.stages.len(), spec.stages[0].reports_min, spec.patience_ms), (2, 3, 7_200_000));
        assert_eq!((spec.target.only.len(), spec.target.except["old"].as_str()), (2, "yes"));
        assert_eq!((spec.channel.as_str(), spec.on_failure), ("beta", OnFailure::Pause));
        let Gates { confidence, loss_increase_max, accuracy_drop_max, crash_rate_max, .. } = spec.gates;
        assert_eq!((confidence, loss_increase_max), (0.9, None));
        assert_eq!((accuracy_drop_max, crash_rate_max), (Some(0.05), Some(0.5)));
        assert_eq!(asked(&["--stage", "5%:1m", "--stage", "100%:1m"]).stages.len(), 2);
    }

    #[test]
    fn a_file_stands_for_every_flag_but_why() {
        let error = |flags: &[&str]| Line::try_parse_from([&["start", "4"], flags].concat()).err().map(|e| e.kind());
        assert_eq!(error(&["--spec", "a.toml", "--why", "so"]), None);
        for flags in [["--channel", "beta"], ["--patience", "1h"], ["--stage", "100%:1m"], ["--confidence", "0.9"]] {
            let error = error(&[&["--spec", "a.toml"], &flags[..]].concat());
            assert_eq!(error, Some(clap::error::ErrorKind::ArgumentConflict), "{flags:?}");
        }
    }
}
