//! What one run was asked for and what it came to, a JSON line each.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use packfed_sim::options::Options;
use packfed_sim::results::{MethodResult, Metric, PersonalResult, Score};
use packfed_sim::text::run::TextRun;
use serde::{Deserialize, Serialize};

/// What tells one run from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) task: String,
    pub(crate) method: String,
    pub(crate) rate: f32,
    pub(crate) seed: u64,
    pub(crate) rounds: u64,
    pub(crate) workers: u32,
    pub(crate) cohort: u32,
    pub(crate) steps: u32,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Bytes of all workers, both directions, the final model for all of them included.
    pub(crate) bytes: f64,
    pub(crate) digest: String,
    pub(crate) worker_rounds_per_s: f64,
    pub(crate) curve: Vec<Tested>,
    pub(crate) personal: Option<PersonalResult>,
}

/// The model after a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tested {
    pub(crate) round: u64,
    pub(crate) score: Score,
    /// Bytes of all workers so far, both directions.
    pub(crate) bytes: u64,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) asked: Asked,
    pub(crate) record: Record,
}

/// All lines of a file, and the file.
pub(crate) struct Records {
    lines: Vec<Line>,
    file: File,
}

impl Asked {
    pub(crate) fn new(run: &TextRun, options: &Options, method: &str, rate: f32) -> Self {
        let &Options { rounds, workers, cohort, seed, .. } = options;
        let (task, method, steps) = (run.name.to_owned(), method.to_owned(), run.training.steps);
        Self { task, method, rate, seed, rounds, workers, cohort, steps }
    }
}

impl Record {
    pub(crate) fn new(result: &MethodResult, personal: Option<PersonalResult>) -> Self {
        // The means are over worker-rounds; the last point of the curve is before the final model goes to all.
        let per_round = result.bytes_up + result.bytes_down;
        let curve = result.curve.iter().map(|point| Tested {
            round: point.round,
            score: point.score,
            bytes: point.bytes_up + point.bytes_down,
        });
        Self {
            bytes: per_round,
            digest: result.digest.clone(),
            worker_rounds_per_s: result.worker_rounds_per_s,
            curve: curve.collect(),
            personal,
        }
    }
}

impl Line {
    pub(crate) fn metric(&self) -> Metric {
        if self.asked.task == "shakespeare" { Metric::Perplexity } else { Metric::Accuracy }
    }

    /// Accuracy or perplexity at the end.
    pub(crate) fn end(&self) -> f64 {
        self.record.curve.last().map_or(f64::NAN, |tested| self.metric().of(&tested.score))
    }

    /// Bytes of the whole run.
    pub(crate) fn bytes(&self) -> f64 {
        self.record.bytes * (self.asked.rounds * u64::from(self.asked.cohort)) as f64
    }
}

impl Records {
    /// Reads the lines that are there; the file is made if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let lines = match File::open(path) {
            Ok(file) => read(BufReader::new(file))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { lines, file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    pub(crate) fn has(&self, asked: &Asked) -> bool {
        self.lines.iter().any(|line| line.asked == *asked)
    }

    pub(crate) fn push(&mut self, asked: Asked, record: Record) -> Result<()> {
        let line = Line { asked, record };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.lines.push(line);
        Ok(())
    }

    pub(crate) fn of_task(&self, task: &str) -> Vec<Line> {
        self.lines.iter().filter(|line| line.asked.task == task).cloned().collect()
    }
}

fn read(lines: impl BufRead) -> Result<Vec<Line>> {
    let parse = |(number, line): (usize, std::io::Result<String>)| {
        serde_json::from_str(&line?).with_context(|| format!("line {}; move the file away to begin anew", number + 1))
    };
    lines.lines().enumerate().map(parse).collect()
}
