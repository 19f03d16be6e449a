//! A picture as lines of text.

use packfed_coordinator::picture::{Picture, Rollout, RoundOutcome, Stage, StageName};

use crate::cli::output::{ago, percent, short};
use crate::cli::rollout;

/// The lines of a picture, for a terminal so wide.
pub(super) fn lines(picture: &Picture, columns: usize) -> Vec<String> {
    let Picture { run, version, rounds, digest, workers, .. } = picture;
    let paused = if picture.paused { ", paused" } else { "" };
    let width = columns.saturating_sub(LABEL).clamp(8, WIDEST);
    let mut lines = vec![
        row("run", &format!("{run}  version {version} of {rounds}, digest {}{paused}", short(digest))),
        row("round", &round(&picture.stage, width)),
        row("loss", &loss(picture, width)),
        row("rounds", &past(picture)),
        row(
            "workers",
            &format!(
                "{} of {} connected, {} idle, {} suspended, {} revoked",
                workers.connected, workers.enrolled, workers.idle, workers.suspended, workers.revoked
            ),
        ),
        row("bytes", &bytes(picture)),
        row("updates", &updates(picture)),
    ];
    lines.extend(rollouts(&picture.rollouts));
    if let Some(latest) = picture.releases.first() {
        let notes = latest.notes.lines().next().unwrap_or_default();
        let (count, made) = (picture.releases.len(), ago(latest.created_ms));
        lines.push(row("releases", &format!("{count}, the latest is {}, made {made}  {notes}", latest.number)));
    }
    lines
}

fn row(name: &str, text: &str) -> String {
    format!("{name:<LABEL$}{text}").trim_end().to_owned()
}

fn round(stage: &Stage, width: usize) -> String {
    let number = stage.round.map_or(String::new(), |round| format!("{round} "));
    let reports = stage.reports.unwrap_or(0);
    match (stage.name, stage.cohort, stage.waiting_for) {
        (StageName::Selecting, _, waiting) => format!("{number}selecting, {} workers waited for", waiting.unwrap_or(0)),
        (StageName::Reporting, Some(of), _) => {
            format!("{number}reporting  {}  {reports} of {of} updates", bar(reports, of, width / 3))
        }
        (StageName::Reporting, None, _) => format!("{number}reporting, {reports} updates"),
        (StageName::Aggregating, ..) => format!("{number}aggregating {reports} updates"),
        (StageName::Buffering, at_work, Some(of)) => {
            let bar = bar(reports, of, width / 3);
            format!("{number}buffering  {bar}  {reports} of {of} updates, {} at work", at_work.unwrap_or(0))
        }
        (StageName::Buffering, _, None) => format!("{number}buffering, {reports} updates"),
        (StageName::Finished, ..) => "finished".to_owned(),
    }
}

/// A bar that is full when all is there.
fn bar(there: u64, of: u64, width: usize) -> String {
    let cells = width as u64;
    let full = (there.min(of) * cells).checked_div(of).unwrap_or(0);
    let full = usize::try_from(full).unwrap_or(width);
    "█".repeat(full) + &"░".repeat(width - full)
}

fn loss(picture: &Picture, width: usize) -> String {
    let losses: Vec<f64> = picture.history.iter().filter_map(|past| past.train_loss).collect();
    let shown = &losses[losses.len().saturating_sub(width / 2)..];
    match (shown.first(), shown.last()) {
        (Some(first), Some(last)) => format!("{}  {first:.4} to {last:.4}", sparkline(shown)),
        _ => "no round is committed yet".to_owned(),
    }
}

/// Values as bars between the least and the most of them.
fn sparkline(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: &f64| {
        let of = (value - least) / (most - least);
        // Of equal values, and of such as are no numbers, the middle.
        let level = if of.is_finite() { of * (BARS.len() - 1) as f64 } else { 3.0 };
        let within = BARS.iter().enumerate().rev().find(|(index, _)| *index as f64 <= level.round());
        within.map_or(BARS[0], |(_, bar)| *bar)
    };
    values.iter().map(level).collect()
}

fn past(picture: &Picture) -> String {
    let count = |outcome| picture.history.iter().filter(|past| past.outcome == outcome).count();
    let (committed, abandoned) = (count(RoundOutcome::Committed), count(RoundOutcome::Abandoned));
    let last = picture.history.last().map_or(String::new(), |last| {
        let why = last.why.as_ref().map_or(String::new(), |why| format!(", abandoned: {why}"));
        format!("; {} ended {}{why}", last.round, ago(last.ended_ms))
    });
    format!("{committed} committed, {abandoned} abandoned{last}")
}

fn bytes(picture: &Picture) -> String {
    let (up, down, dense) = (picture.bytes.up, picture.bytes.down, picture.bytes.dense);
    let saved = match dense {
        0 => String::new(),
        dense => {
            let share = 1.0 - (up as f64 + down as f64) / dense as f64;
            format!(", {} saved of {} dense", percent(share), size(dense))
        }
    };
    format!("{} up, {} down{saved}", size(up), size(down))
}

/// Bytes in the largest unit that leaves a whole number before the point.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

fn updates(picture: &Picture) -> String {
    let counters = &picture.counters;
    let rejected: u64 = counters.rejected.values().sum();
    let reasons: Vec<String> = counters.rejected.iter().map(|(why, count)| format!("{why} {count}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    format!("{} accepted, {} discarded, {rejected} rejected{reasons}", counters.accepted, counters.discarded)
}

/// Those that are not over, with their gates; the last one if all are.
fn rollouts(all: &[Rollout]) -> Vec<String> {
    let active: Vec<&Rollout> = all.iter().filter(|rollout| rollout.stage.is_some()).collect();
    let shown = if active.is_empty() { all.iter().take(1).collect() } else { active };
    let mut lines = Vec::new();
    for rollout in shown {
        lines.push(row("rollout", &rollout::line(rollout)));
        if rollout.stage.is_some() {
            lines.extend(rollout.gates.iter().map(|gate| row("", &rollout::gate(gate))));
        }
    }
    lines
}

/// Columns of the names.
const LABEL: usize = 10;
/// Columns of a bar and a sparkline together.
const WIDEST: usize = 120;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../tests/dashboard/sample.json");

    #[test]
    fn a_picture_is_drawn_from_the_phase_to_the_releases() {
        let picture: Picture = serde_json::from_str(SAMPLE).unwrap();
        let lines = lines(&picture, 100);
        assert!(
            lines[0].starts_with("run       acba25512100f80b56fc3ccd14c65be5  version 33 of 60, digest a44b91dfe691")
        );
        assert!(lines[1].contains("37 reporting  █") && lines[1].ends_with("7 of 12 updates"), "{}", lines[1]);
        assert!(lines[2].contains("█") && lines[2].contains(" to "), "{}", lines[2]);
        assert_eq!(lines[4], "workers   38 of 50 connected, 25 idle, 2 suspended, 1 revoked");
        assert!(lines[5].contains("2.7 MiB up, 2.1 MiB down, 99.3 % saved"), "{}", lines[5]);
        assert!(lines.iter().any(|line| line.starts_with("rollout   rollout ")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("releases  ")), "{lines:?}");
    }

    #[test]
    fn a_run_that_has_just_begun_is_drawn_as_well() {
        let mut picture: Picture = serde_json::from_str(SAMPLE).unwrap();
        (picture.history, picture.rollouts, picture.releases) = (Vec::new(), Vec::new(), Vec::new());
        picture.bytes.dense = 0;
        let lines = lines(&picture, 0);
        assert!(lines.iter().any(|line| line == "loss      no round is committed yet"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("saved")), "{lines:?}");
    }

    #[test]
    fn bars_and_sparklines_span_from_least_to_most() {
        assert_eq!(
            (bar(0, 4, 4), bar(3, 4, 4), bar(9, 4, 4), bar(1, 0, 2)),
            ("░░░░".into(), "███░".into(), "████".into(), "░░".into())
        );
        assert_eq!((sparkline(&[0.0, 7.0, 3.0]), sparkline(&[2.0, 2.0])), ("▁█▄".to_owned(), "▄▄".to_owned()));
        assert_eq!((size(1023), size(1024), size(3 << 29)), ("1023 B".into(), "1.0 KiB".into(), "1.5 GiB".into()));
    }
}
