//! The report as one HTML page that needs nothing else: style and drawings are inside.
//!
//! Knows markup, not how numbers are computed or curves are drawn. Every name of the run is escaped here.

use std::iter::once;

use super::plot::{self, DrawError};
use crate::{
    results::{MethodResult, Metric, Results},
    table::{self, COLUMNS},
};

/// Headings of the table of results.
const fn headings(metric: Metric) -> [&'static str; COLUMNS] {
    let metric = metric.name();
    ["method", metric, "bytes up", "bytes down", "ratio up", "ratio down", "worker-rounds/s", "learning rate"]
}

/// Headings of the table of learning rates.
const fn tuning_headings(metric: Metric) -> [&'static str; 4] {
    ["method", "learning rate", metric.name(), "used"]
}

/// How to read the bytes.
const COUNTED: &str = "\
<p>Bytes are those of packfed's frames, headers and signatures included: up is what a worker sends, down is what it \
receives. What a transport adds beneath the frames is not counted. The table gives the mean over the worker-rounds of \
the run, so what one worker sends and receives for taking part in one round. A ratio is the bytes of <em>dense</em> \
divided by those of the method.</p>
<p>The plot over bytes adds up, in both directions, what all workers have sent and received since the start; a point \
at which nothing has been sent yet has no place on its logarithmic axis and is left out.</p>";
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2129; --paper: #ffffff; --line: #d4d8de; --soft: #5a6270; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #14171c; --line: #363c46; --soft: #a2abb8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.caption { color: var(--soft); margin: 0 0 0.4rem; }
th, td { padding: 0.35rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; }
thead th { vertical-align: bottom; font-weight: 600; color: var(--soft); }
th:first-child { text-align: left; }
tbody th { font-weight: 600; white-space: nowrap; }
@media (max-width: 40rem) { th, td { padding: 0.35rem 0.45rem; } }
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-weight: 600; }
svg text { font-family: inherit; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; list-style: none; }
.legend li { overflow-wrap: anywhere; }
.swatch { width: 2.5rem; height: 1.125rem; vertical-align: -0.2rem; margin-right: 0.4rem; }
.note { max-width: 44rem; }
";

/// The whole page.
pub(crate) fn html(results: &Results) -> Result<String, DrawError> {
    let name = format!("{}, seed {}", escaped(&results.task), results.seed);
    let sections = [table_of_results(results), course(results)?, tuning(results)].concat();
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>packfed: {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>packfed: {name}</h1>\n\
         {sections}<section class=\"note\">\n<h2>What is counted</h2>\n{COUNTED}\n</section>\n\
         </main>\n</body>\n</html>\n"
    ))
}

/// Text as it may stand in an element or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn table_of_results(results: &Results) -> String {
    let rows = results.methods.iter().map(|method| row(&table::cells(results, method)));
    let caption = "Bytes: mean for one worker and one round. Ratio: against dense.";
    let table = table_of(caption, &headings(results.metric), rows);
    section("Results", &table)
}

/// The plots and their legend.
fn course(results: &Results) -> Result<String, DrawError> {
    let over_bytes = plot::over_bytes(results, &description(results, "bytes"))?;
    let over_rounds = plot::over_rounds(results, &description(results, "rounds"))?;
    let (legend, metric) = (legend(results)?, results.metric.name());
    let plots = [
        figure(&format!("Test {metric} over total bytes"), over_bytes),
        figure(&format!("Test {metric} over rounds"), over_rounds),
    ]
    .concat();
    Ok(section("Course of the run", &format!("{legend}<div class=\"plots\">\n{plots}</div>\n")))
}

/// What a plot says, for those who do not see it.
fn description(results: &Results, over: &str) -> String {
    let ends = results.methods.iter().filter_map(|method| {
        let last = method.curve.last()?;
        Some(format!("{} ends at {}", escaped(&method.name), results.metric.written(&last.score)))
    });
    once(format!("Line chart of test {} over {over}", results.metric.name())).chain(ends).collect::<Vec<_>>().join("; ")
}

/// The methods that have a curve, each with its colour and marker.
fn legend(results: &Results) -> Result<String, DrawError> {
    let mut entries = String::new();
    for (index, method) in results.methods.iter().enumerate().filter(|(_, method)| !method.curve.is_empty()) {
        entries += &format!("<li>{}{}</li>\n", plot::swatch(index)?, escaped(&method.name));
    }
    Ok(if entries.is_empty() { entries } else { format!("<ul class=\"legend\">\n{entries}</ul>\n") })
}

fn figure(caption: &str, svg: Option<String>) -> String {
    let content = svg.unwrap_or_else(|| "<p>no data</p>\n".to_owned());
    format!("<figure>\n<figcaption>{caption}</figcaption>\n{content}</figure>\n")
}

fn tuning(results: &Results) -> String {
    let rows: Vec<String> = results.methods.iter().flat_map(|method| tuning_rows(results.metric, method)).collect();
    let content = if rows.is_empty() {
        "<p>No learning rate was searched.</p>\n".to_owned()
    } else {
        let caption = format!("Final test {} of every learning rate that was tried.", results.metric.name());
        table_of(&caption, &tuning_headings(results.metric), rows.into_iter())
    };
    section("Learning rates", &content)
}

fn tuning_rows(metric: Metric, method: &MethodResult) -> impl Iterator<Item = String> {
    method.tuning.iter().map(move |tuned| {
        let used = if tuned.learning_rate == method.learning_rate { "used" } else { "" };
        row(&[method.name.clone(), tuned.learning_rate.to_string(), metric.written(&tuned.score), used.to_owned()])
    })
}

fn section(heading: &str, content: &str) -> String {
    format!("<section>\n<h2>{heading}</h2>\n{content}</section>\n")
}

/// A table; where it is too wide for the screen it scrolls by itself, by keyboard as well.
fn table_of(caption: &str, headings: &[&str], rows: impl Iterator<Item = String>) -> String {
    let head: String = headings.iter().map(|heading| format!("<th scope=\"col\">{heading}</th>")).collect();
    let rows: String = rows.collect();
    format!(
        "<p class=\"caption\">{caption}</p>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n\
         <table>\n<thead>\n<tr>{head}</tr>\n</thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

/// A row whose first cell names it.
fn row(cells: &[String]) -> String {
    let (first, rest) = cells.split_first().map_or(("", cells), |(first, rest)| (first.as_str(), rest));
    let rest: String = rest.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
    format!("<tr><th scope=\"row\">{}</th>{rest}</tr>\n", escaped(first))
}
