//! The `shakespeare` task: a decoder reads plays; one worker holds what one character says.
//!
//! `tinyshakespeare.txt.gz` is a million characters of the plays (Karpathy, 2015). A line that ends in a colon names who
//! speaks, up to the next blank line. Every character with at least 2,000 characters of text is a worker: a natural
//! partition. Of each one's speeches some are held out; together they are the test set.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use packfed_worker::data::{DataError, Dataset, Record};
use packfed_worker::files::ModelFiles;

use super::{Test, TextError, Texts};
use crate::options::Options;

/// Characters of text that make a worker.
const LEAST: usize = 2_000;
/// Tokens that a decoder sees at a time.
const WINDOW: usize = 128;
/// Share of a character's speeches that is held out.
const HELD_OUT: f64 = 0.1;

/// What one character says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The character's name.
    pub name: String,
    /// Its speeches, in the order of the plays.
    pub speeches: Vec<String>,
}

/// The parts of the plays with at least 2,000 characters of text, by name.
#[must_use]
pub fn parts(plays: &str) -> Vec<Part> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for block in plays.split("\n\n") {
        let Some((name, speech)) = block.trim_start_matches('\n').split_once(":\n") else { continue };
        if !name.contains('\n') && !speech.trim().is_empty() {
            all.entry(name).or_default().push(speech.trim_end().to_owned());
        }
    }
    let spoken = |speeches: &[String]| speeches.iter().map(|speech| speech.chars().count()).sum::<usize>();
    let long = all.into_iter().filter(|(_, speeches)| spoken(speeches) >= LEAST);
    long.map(|(name, speeches)| Part { name: name.to_owned(), speeches }).collect()
}

impl Texts {
    /// The task on a decoder's files, with the plays in `folder`; the first workers of the options in the order of the
    /// characters' names, all of them where there are not so many.
    ///
    /// # Errors
    /// If the model or the plays cannot be used.
    pub fn shakespeare(model: &Path, folder: &Path, options: &Options) -> Result<Self, TextError> {
        let files = ModelFiles::open(model)?;
        let tokenizer = files.tokenizer()?;
        let path = folder.join("tinyshakespeare.txt.gz");
        let plays = read(&path)?;
        let seed = options.run_seed().derive("packfed/held-out/1", &[]);
        let (mut shards, mut test) = (Vec::new(), Vec::new());
        for part in parts(&plays).into_iter().take(options.workers as usize) {
            let (held_out, kept) = part.split(|record| record.is_held_out(&seed, HELD_OUT));
            let windows = |text| Dataset::windows(&path, &[record(text, 1)], &tokenizer, WINDOW);
            shards.push(Arc::new(windows(kept)?));
            test.push(windows(held_out)?.examples);
        }
        Self::new(&files, None, shards, Test::Own(test), options.threads)
    }
}

impl Part {
    /// The speeches that are held out, and the rest, each as one text.
    fn split(self, held_out: impl Fn(&Record) -> bool) -> (String, String) {
        let (held_out, kept): (Vec<Record>, Vec<Record>) =
            (1..).zip(self.speeches).map(|(line, speech)| record(speech, line)).partition(held_out);
        let joined =
            |records: Vec<Record>| records.into_iter().map(|record| record.text).collect::<Vec<String>>().join("\n\n");
        (joined(held_out), joined(kept))
    }
}

fn record(text: String, line: u64) -> Record {
    Record { text, label: None, line, label_column: 1 }
}

fn read(path: &Path) -> Result<String, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut plays = String::new();
    GzDecoder::new(File::open(path).map_err(io)?).read_to_string(&mut plays).map_err(io)?;
    Ok(plays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_all_that_a_character_says() {
        let long = "x".repeat(1_500);
        let plays =
            format!("A:\n{long}\nsecond line\n\nB:\nshort\n\nA:\n{long}\n\nno name here\n\nC D:\n{long}{long}\n");
        let found = parts(&plays);
        assert_eq!(found.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["A", "C D"]);
        assert_eq!(found[0].speeches, [format!("{long}\nsecond line"), long]);
    }
}
