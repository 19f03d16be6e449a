//! The sweep as tables: every rate of every method, then each method's best rate against rounds and bytes.

use std::collections::BTreeMap;
use std::fmt::Write;

use packfed_sim::results::Metric;

use crate::record::{Line, Tested};

/// All tables, as Markdown.
pub(crate) fn render(lines: &[Line]) -> String {
    let Some(metric) = lines.first().map(Line::metric) else { return "nothing was run\n".to_owned() };
    let groups = groups(lines);
    let best = best(&groups, metric);
    let mut text =
        format!("\n| method | rate | seeds | {} at the end | bytes in all |\n|---|---|---|---|---|\n", metric.name());
    for group in &groups {
        let chosen = if best.values().any(|b| std::ptr::eq(*b, group)) { " (best)" } else { "" };
        let ends = spread(group.lines.iter().map(|line| line.end()));
        let bytes = mean(group.lines.iter().map(|line| line.bytes()));
        let _ = writeln!(
            text,
            "| {} | {}{chosen} | {} | {ends} | {} |",
            group.method,
            group.rate,
            group.lines.len(),
            size(bytes)
        );
    }
    text.push_str("\n| method | round | ");
    let _ = writeln!(text, "{} | bytes in all so far |\n|---|---|---|---|", metric.name());
    for group in best.values() {
        for (round, points) in group.by_round() {
            let scores = spread(points.iter().map(|tested| metric.of(&tested.score)));
            let bytes = mean(points.iter().map(|tested| tested.bytes as f64));
            let _ = writeln!(text, "| {} | {round} | {scores} | {} |", group.method, size(bytes));
        }
    }
    for line in lines {
        if let Some(personal) = &line.record.personal {
            let _ = writeln!(text, "\nseed {}, rate {}: {}", line.asked.seed, line.asked.rate, personal.line(metric));
        }
    }
    text
}

/// The runs of one method under one rate.
struct Group<'a> {
    method: &'a str,
    rate: f32,
    lines: Vec<&'a Line>,
}

impl Group<'_> {
    fn by_round(&self) -> BTreeMap<u64, Vec<Tested>> {
        let mut rounds: BTreeMap<u64, Vec<Tested>> = BTreeMap::new();
        for tested in self.lines.iter().flat_map(|line| &line.record.curve) {
            rounds.entry(tested.round).or_default().push(*tested);
        }
        rounds
    }

    fn mean(&self) -> f64 {
        mean(self.lines.iter().map(|line| line.end()))
    }
}

/// In the order in which they first stand in the file.
fn groups(lines: &[Line]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for line in lines {
        let (method, rate) = (line.asked.method.as_str(), line.asked.rate);
        match groups.iter_mut().find(|group| group.method == method && group.rate == rate) {
            Some(group) => group.lines.push(line),
            None => groups.push(Group { method, rate, lines: vec![line] }),
        }
    }
    groups
}

/// Each method's best rate by its mean, among the rates that were run with the most seeds.
fn best<'a>(groups: &'a [Group<'a>], metric: Metric) -> BTreeMap<&'a str, &'a Group<'a>> {
    let mut best: BTreeMap<&str, &Group<'_>> = BTreeMap::new();
    for group in groups {
        let better = |one: &Group<'_>, other: &Group<'_>| {
            let by_score = match metric {
                Metric::Accuracy => one.mean() > other.mean(),
                Metric::Perplexity => one.mean() < other.mean(),
            };
            one.lines.len() > other.lines.len() || one.lines.len() == other.lines.len() && by_score
        };
        best.entry(group.method)
            .and_modify(|b| {
                if better(group, b) {
                    *b = group;
                }
            })
            .or_insert(group);
    }
    best
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean, lowest and highest.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let mean = mean(values.iter().copied());
    if mean >= 10.0 {
        format!("{mean:.2} ({low:.2} – {high:.2})")
    } else {
        format!("{mean:.4} ({low:.4} – {high:.4})")
    }
}

fn size(bytes: f64) -> String {
    if bytes >= 1e9 { format!("{:.2} GB", bytes / 1e9) } else { format!("{:.2} MB", bytes / 1e6) }
}
