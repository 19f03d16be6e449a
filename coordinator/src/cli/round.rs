//! `coordinator round`: rounds that are over, and the open one.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use packfed_coordinator::picture::{PastRound, RoundOutcome, Stage};
use packfed_coordinator::view::Rounds;
use packfed_protocol::{Order, Round};
use serde_json::{Value, json};

use super::confirm::{Sure, Why};
use super::operator::{Operator, Whom};
use super::output::{ago, facts, or_dash, percent, print, show, table};
use super::pages::pages;

/// Look at rounds, or end the open one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator round list --config run1/coordinator.toml --limit 5
  coordinator round list --admin admin.toml --json | jq '.rounds[] | select(.outcome == \"abandoned\")'
  coordinator round show 12 --admin admin.toml
  coordinator round abandon --admin admin.toml --why 'wrong data' --yes

The last 1000 rounds are kept. `abandon` needs the role operator.
Exit codes: 0 done, 3 none serves and this is what the store holds, 6 the role does not allow it, 1 failed.")]
pub(super) struct RoundCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say which rounds are over, the latest first, and which is open.
    List {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Say all of one round.
    Show {
        /// Its number.
        number: u64,
    },
    /// End the open round without a commit; what its workers did is lost.
    Abandon {
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        sure: Sure,
    },
}

impl RoundCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let (operator, json) = (self.whom.operator()?, self.whom.json);
        match &self.verb {
            Verb::List { limit } => {
                let rounds = list(&operator, usize::try_from(*limit)?)?;
                show(json, &rounds, || render(&rounds))?;
            }
            Verb::Show { number } => one(&operator, *number, json)?,
            Verb::Abandon { why, sure } => {
                sure.about("abandon the open round", "what its workers did is lost")?;
                let done: Value = operator.order(&why.text, Order::Abandon)?;
                show(json, &done, || format!("round {} was abandoned", done["abandoned"]))?;
            }
        }
        Ok(operator.code())
    }
}

fn page(operator: &Operator, before: u64) -> Result<Rounds> {
    operator.read(Order::Rounds(Round(before)), |engine| Ok(Rounds::before(engine, before)))
}

fn list(operator: &Operator, limit: usize) -> Result<Rounds> {
    let mut open = None;
    let of = |before| {
        let Rounds { open: now_open, rounds, more } = page(operator, before)?;
        open = now_open;
        Ok((rounds, more))
    };
    let (rounds, more) = pages(limit, of, |past| past.round)?;
    Ok(Rounds { open, rounds, more })
}

fn one(operator: &Operator, number: u64, json: bool) -> Result<()> {
    let Rounds { open, rounds, more } = page(operator, number.saturating_add(1))?;
    if let Some(past) = rounds.first().filter(|past| past.round == number) {
        return show(json, past, || render_one(past));
    }
    if let Some(open) = open.as_ref().filter(|open| open.round == Some(number)) {
        return if json { print(&opened(open).to_string()) } else { print(&render_open(open)) };
    }
    let latest = page(operator, u64::MAX)?.rounds.first().map(|past| past.round);
    let next = "`coordinator round list` says which are known";
    match latest {
        None => bail!("round {number} is not known, no round is over yet; {next}"),
        Some(latest) if number > latest => bail!("round {number} is not known, the latest is {latest}; {next}"),
        Some(_) if rounds.is_empty() && !more => bail!("round {number} is older than what is kept; {next}"),
        Some(_) => bail!("nothing is known of round {number}; {next}"),
    }
}

/// An open round, with the fields of one that is over.
fn opened(stage: &Stage) -> Value {
    json!({
        "round": stage.round, "ended_ms": null, "cohort": stage.cohort, "reports": stage.reports.unwrap_or(0),
        "outcome": "open", "version": null, "digest": null, "examples": null, "train_loss": null, "clipped": null,
        "why": null,
    })
}

fn render(Rounds { open, rounds, more }: &Rounds) -> String {
    let columns = ["round", "outcome", "ended", "cohort", "reports", "version", "examples", "loss", "clipped", "why"];
    let mut table = table(&columns);
    for past in rounds {
        let cells = cells(past);
        table.add_row(cells);
    }
    let open = open.as_ref().map_or("no round is open".to_owned(), render_open);
    let more = more.then(|| "there are more; --limit N shows them".to_owned());
    [Some(open), Some(table.trim_fmt()), more].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn render_open(stage: &Stage) -> String {
    let (round, name) = (or_dash(stage.round), serde_json::to_value(stage.name).unwrap_or_default());
    let of = stage.cohort.map_or(String::new(), |cohort| format!(" of {cohort}"));
    let reports = stage.reports.unwrap_or(0);
    format!("round {round} is open: {}, {reports}{of} updates", name.as_str().unwrap_or_default())
}

fn cells(past: &PastRound) -> [String; 10] {
    [
        past.round.to_string(),
        outcome(past.outcome).to_owned(),
        ago(past.ended_ms),
        past.cohort.to_string(),
        past.reports.to_string(),
        or_dash(past.version),
        or_dash(past.examples),
        or_dash(past.train_loss.map(|loss| format!("{loss:.4}"))),
        or_dash(past.clipped.map(percent)),
        past.why.clone().unwrap_or_default(),
    ]
}

const fn outcome(outcome: RoundOutcome) -> &'static str {
    match outcome {
        RoundOutcome::Committed => "committed",
        RoundOutcome::Abandoned => "abandoned",
    }
}

fn render_one(past: &PastRound) -> String {
    let names = ["round", "outcome", "ended", "cohort", "reports", "version", "examples", "loss", "clipped", "why"];
    let mut rows: Vec<(&str, String)> = names.into_iter().zip(cells(past)).filter(|(_, value)| value != "–").collect();
    rows.retain(|(_, value)| !value.is_empty());
    rows.extend(past.digest.map(|digest| ("digest", digest.to_string())));
    facts(&rows)
}
