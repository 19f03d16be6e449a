//! `coordinator rollout`: how a release reaches the fleet, stage by stage.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use packfed_coordinator::view::{RolloutDetail, Rollouts};
use packfed_protocol::{Order, RolloutVerb};

use super::confirm::{Sure, Why};
use super::operator::{Operator, Whom};
use super::output::show;
use super::pages::pages;

mod render;
mod share;
mod start;
mod watch;

pub(super) use render::{gate, line};

/// Roll a release out to the fleet, stage by stage, and steer it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator rollout start 4 --admin admin.toml --stages 5%:10m,25%:30m,100%:1h --why 'better on cards'
  coordinator rollout start 4 --admin admin.toml --channel beta --only region=eu --crash-rate-max 0.02
  coordinator rollout start 4 --config run1/coordinator.toml --spec rollout.toml
  coordinator rollout status --watch --admin admin.toml && echo everybody has it
  coordinator rollout rollback 2 --admin admin.toml --why 'users complain' --yes

A stage ends when its soak time is over, enough workers have reported since it began, and every gate passes; a gate that
fails takes the release back from everybody. Everything but `status` and `history` needs the role operator.
Exit codes: 0 done, 3 none serves and this is what the store holds, 6 the role does not allow it, 1 failed;
of `status --watch`: 0 completed, 4 rolled back or aborted, 5 paused.")]
pub(super) struct RolloutCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Roll a release out.
    Start(Box<start::Start>),
    /// Say how a rollout stands, and how it came there.
    Status {
        /// Its number; the latest if it is not given.
        number: Option<u64>,
        /// Go on saying so until it is over or paused; --json prints a line for every change.
        #[arg(long)]
        watch: bool,
    },
    /// Go on to the next stage, whatever the gates say.
    Promote(Steered),
    /// Let nobody else get the release for now.
    Pause(Steered),
    /// Begin the stage of a paused rollout anew; it is judged by what is reported from then on.
    Resume(Steered),
    /// End a rollout that is not over; nobody keeps the release.
    Abort(Ended),
    /// End a rollout, a completed one too; everybody goes back to the release before.
    Rollback(Ended),
    /// Say which rollouts there were, the latest first.
    History {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Take the last promotion, abort or rollback back; the rollout is then paused, or completed again.
    Undo(Steered),
}

#[derive(Debug, Args)]
struct Steered {
    /// Its number, as `rollout history` says it.
    number: u64,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Ended {
    #[command(flatten)]
    steered: Steered,
    #[command(flatten)]
    sure: Sure,
}

impl RolloutCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let (operator, json) = (self.whom.operator()?, self.whom.json);
        let steered = |Steered { number, why }: &Steered, verb| {
            operator.order::<RolloutDetail>(&why.text, Order::Steer { rollout: *number, verb })
        };
        let rollout = match &self.verb {
            Verb::Start(start) => start.run(&operator)?,
            Verb::Status { number, watch } => {
                let number = number.map_or_else(|| latest(&operator), Ok)?;
                if *watch {
                    return watch::run(&operator, number, json);
                }
                one(&operator, number)?
            }
            Verb::History { limit } => {
                let rollouts = history(&operator, usize::try_from(*limit)?)?;
                show(json, &rollouts, || render::history(&rollouts))?;
                return Ok(operator.code());
            }
            Verb::Promote(of) => steered(of, RolloutVerb::Promote)?,
            Verb::Pause(of) => steered(of, RolloutVerb::Pause)?,
            Verb::Resume(of) => steered(of, RolloutVerb::Resume)?,
            Verb::Undo(of) => steered(of, RolloutVerb::Undo)?,
            Verb::Abort(Ended { steered: of, sure }) => {
                sure.about(&format!("abort rollout {}", of.number), "nobody keeps its release")?;
                steered(of, RolloutVerb::Abort)?
            }
            Verb::Rollback(Ended { steered: of, sure }) => {
                sure.about(&format!("roll rollout {} back", of.number), "everybody goes back to the release before")?;
                steered(of, RolloutVerb::RollBack)?
            }
        };
        show(json, &rollout, || render::detail(&rollout))?;
        Ok(operator.code())
    }
}

fn one(operator: &Operator, number: u64) -> Result<RolloutDetail> {
    operator.read(Order::Rollout(number), |engine| match RolloutDetail::of(engine, number) {
        Some(detail) => Ok(detail),
        None => bail!("there is no rollout {number}; `coordinator rollout history` lists them"),
    })
}

fn latest(operator: &Operator) -> Result<u64> {
    match page(operator, u64::MAX)?.rollouts.first() {
        Some(latest) => Ok(latest.number),
        None => bail!("there was no rollout yet; `coordinator rollout start RELEASE` begins one"),
    }
}

fn page(operator: &Operator, before: u64) -> Result<Rollouts> {
    operator.read(Order::Rollouts(before), |engine| Ok(Rollouts::before(engine, before)))
}

/// The latest rollouts, as the coordinator tells or the store if none does.
pub(super) fn history(operator: &Operator, limit: usize) -> Result<Rollouts> {
    let of = |before| page(operator, before).map(|Rollouts { rollouts, more }| (rollouts, more));
    let (rollouts, more) = pages(limit, of, |rollout| rollout.number)?;
    Ok(Rollouts { rollouts, more })
}
