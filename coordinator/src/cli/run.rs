//! `coordinator run`: what shapes the run, whether it goes on, and how.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use packfed_coordinator::view::Run;
use packfed_protocol::{Order, Settings};
use serde_json::Value;

use super::confirm::Why;
use super::duration::Milliseconds;
use super::exit::Usage;
use super::operator::{Operator, Whom};
use super::output::{facts, show};

/// Say what shapes the run, pause it, or change its rounds to come.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator run status --config run1/coordinator.toml
  coordinator run pause  --admin admin.toml --why 'a new app version comes out'
  coordinator run resume --admin admin.toml
  coordinator run set --rounds 120 --learning-rate 0.02 --admin admin.toml --why 'the loss stands still'

A run that is paused ends its open round and opens no other. What is set holds from the next round on, over what the
configuration says, and outlives restarts. `pause` and `resume` need the role operator, `set` the role owner.
Exit codes: 0 done, 3 none serves and this is what the store holds, 6 the role does not allow it, 1 failed.")]
pub(super) struct RunCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say where the run stands, and what shapes its rounds.
    Status,
    /// Open no further round; the open one ends as it would.
    Pause {
        #[command(flatten)]
        why: Why,
    },
    /// Open rounds again.
    Resume {
        #[command(flatten)]
        why: Why,
    },
    /// Change what shapes the rounds to come.
    Set(Set),
}

#[derive(Debug, Args)]
struct Set {
    /// Commits after which the run is finished.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Optimizer steps of a worker's round.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Examples of a step.
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// The local optimizer's rate.
    #[arg(long, value_name = "X")]
    learning_rate: Option<f32>,
    /// Workers to wait for before a cohort is drawn.
    #[arg(long, value_name = "N")]
    selection_goal: Option<u32>,
    /// Workers that will do at the time-out.
    #[arg(long, value_name = "N")]
    selection_min: Option<u32>,
    /// How long workers are waited for, such as 60s.
    #[arg(long, value_name = "TIME")]
    selection_timeout: Option<Milliseconds>,
    /// Updates to wait for.
    #[arg(long, value_name = "N")]
    reporting_goal: Option<u32>,
    /// Updates that will do at the time-out.
    #[arg(long, value_name = "N")]
    reporting_min: Option<u32>,
    /// How long updates are waited for, such as 10m.
    #[arg(long, value_name = "TIME")]
    reporting_timeout: Option<Milliseconds>,
    /// Workers drawn beyond the reporting goal.
    #[arg(long, value_name = "N")]
    over_selection: Option<u32>,
    #[command(flatten)]
    why: Why,
}

impl RunCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let operator = self.whom.operator()?;
        let run: Run = match &self.verb {
            Verb::Status => operator.read(Order::Run, |engine| Ok(Run::of(engine)))?,
            Verb::Pause { why } => operator.order(&why.text, Order::Pause)?,
            Verb::Resume { why } => operator.order(&why.text, Order::Unpause)?,
            Verb::Set(set) => set.run(&operator)?,
        };
        show(self.whom.json, &run, || render(&run))?;
        Ok(operator.code())
    }
}

impl Set {
    fn run(&self, operator: &Operator) -> Result<Run> {
        let settings = self.settings();
        if settings == Settings::default() {
            let next = "name at least one of --rounds, --steps, --batch, --learning-rate, --selection-goal, \
                        --selection-min, --selection-timeout, --reporting-goal, --reporting-min, --reporting-timeout \
                        and --over-selection";
            return Err(Usage(format!("there is nothing to set; {next}")).into());
        }
        operator.order(&self.why.text, Order::Set(settings))
    }

    fn settings(&self) -> Settings {
        let ms = |time: Option<Milliseconds>| time.map(|time| time.0);
        Settings {
            rounds: self.rounds,
            steps: self.steps,
            batch: self.batch,
            learning_rate: self.learning_rate,
            selection_goal: self.selection_goal,
            selection_min: self.selection_min,
            selection_timeout_ms: ms(self.selection_timeout),
            reporting_goal: self.reporting_goal,
            reporting_min: self.reporting_min,
            reporting_timeout_ms: ms(self.reporting_timeout),
            over_selection: self.over_selection,
        }
    }
}

fn render(run: &Run) -> String {
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let stage = serde_json::to_value(run.stage.name).map(text).unwrap_or_default();
    let mut rows = vec![
        ("run", run.run.to_string()),
        ("stage", stage),
        ("paused", if run.paused { "yes; `run resume` goes on" } else { "no" }.to_owned()),
        ("version", run.version.to_string()),
        ("digest", run.digest.to_string()),
    ];
    // By way of text: a 32-bit rate stays as short as it is written.
    let values = |settings: &Settings| {
        serde_json::to_string(settings).and_then(|json| serde_json::from_str::<Value>(&json)).unwrap_or_default()
    };
    let (settings, changed) = (values(&run.settings), values(&run.changed));
    let settings = settings.as_object();
    let settings = settings.into_iter().flatten().filter(|(_, value)| !value.is_null());
    rows.extend(settings.map(|(name, value)| {
        let set = if changed[name].is_null() { "" } else { " (set by `run set`)" };
        (name.as_str(), format!("{value}{set}"))
    }));
    facts(&rows)
}
