//! Rollouts as people read them.

use packfed_coordinator::picture::{Compared, Gate, Rollout, RolloutStage};
use packfed_coordinator::rollout::Verdict;
use packfed_coordinator::view::{RolloutDetail, Rollouts};

use super::share::percentage;
use crate::cli::duration::Milliseconds;
use crate::cli::output::{ago, facts, or_dash, table};

/// Where a rollout stands, in a line.
pub(in crate::cli) fn line(rollout: &Rollout) -> String {
    let Rollout { number, release, channel, phase, stage, stages, in_stage, .. } = rollout;
    let at = stage.and_then(|at| Some((at, stages.get(usize::try_from(at).ok()?)?)));
    let stage = at.map_or(String::new(), |(at, stage)| {
        let (share, of, needed) = (percentage(stage.share), stages.len(), stage.reports_min);
        format!(", stage {} of {of} ({share}), {in_stage} of {needed} reports", at + 1)
    });
    let since = rollout.since_ms.map_or(String::new(), |since| format!(", since {}", ago(since)));
    format!("rollout {number} of release {release} to {channel}: {phase}{stage}{since}")
}

/// A gate in a line.
pub(in crate::cli) fn gate(gate: &Gate) -> String {
    let verdict = verdict(gate.verdict);
    let found = gate.interval.map_or("unknown".to_owned(), |[least, most]| format!("{least:+.4} to {most:+.4}"));
    format!("{} {verdict}: {found}, allowed {}", gate.gate, gate.bound)
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passes => "passes",
        Verdict::Undecided => "undecided",
        Verdict::Fails => "fails",
    }
}

/// All of a rollout.
pub(super) fn detail(detail: &RolloutDetail) -> String {
    let RolloutDetail { rollout, target, on_failure, patience_ms, meant, given, running } = detail;
    let labels = |labels: &packfed_coordinator::rollout::Labels| {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let stages: Vec<String> = rollout.stages.iter().map(stage).collect();
    let on_failure = serde_json::to_value(on_failure).unwrap_or_default();
    let compared = |compared: Option<Compared>| {
        compared.map(|Compared { before, after }| format!("{before:.4} before, {after:.4} now"))
    };
    let mut rows = vec![
        ("stages", stages.join(", ")),
        ("only", labels(&target.only)),
        ("except", labels(&target.except)),
        ("on failure", on_failure.as_str().unwrap_or_default().to_owned()),
        ("patience", Milliseconds(*patience_ms).to_string()),
        ("workers", format!("{meant} meant, {given} given the release, {running} running it")),
        (
            "reports",
            format!(
                "{} evaluated, {} crashed, {} could not fetch it",
                rollout.evaluated, rollout.crashed, rollout.not_fetched
            ),
        ),
        ("loss", or_dash(compared(rollout.loss))),
        ("accuracy", or_dash(compared(rollout.accuracy))),
    ];
    rows.extend(rollout.gates.iter().map(|judged| ("gate", gate(judged))));
    rows.retain(|(_, value)| !value.is_empty());
    let mut history = table(&["when", "by", "what", "why"]);
    for change in &rollout.history {
        history.add_row([&ago(change.at), &change.by, &change.what, &change.why]);
    }
    [line(rollout), facts(&rows), history.trim_fmt()].join("\n")
}

fn stage(&RolloutStage { share, soak_ms, reports_min }: &RolloutStage) -> String {
    format!("{}:{}:{reports_min}", percentage(share), Milliseconds(soak_ms))
}

/// Rollouts, a line each.
pub(super) fn history(Rollouts { rollouts, more }: &Rollouts) -> String {
    let mut table = table(&["rollout", "release", "channel", "phase", "stage", "began", "by", "last", "why"]);
    for rollout in rollouts {
        let (first, last) = (rollout.history.first(), rollout.history.last());
        let stage = rollout.stage.map(|stage| format!("{} of {}", stage + 1, rollout.stages.len()));
        table.add_row([
            rollout.number.to_string(),
            rollout.release.to_string(),
            rollout.channel.clone(),
            rollout.phase.clone(),
            or_dash(stage),
            or_dash(first.map(|change| ago(change.at))),
            or_dash(first.map(|change| &change.by)),
            or_dash(last.map(|change| &change.what)),
            last.map_or(String::new(), |change| change.why.clone()),
        ]);
    }
    let more = if *more { "\nthere are more; --limit N shows them" } else { "" };
    table.trim_fmt() + more
}
