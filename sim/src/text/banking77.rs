//! The `banking77` task: 13,083 questions to a bank in 77 intents (Casanueva et al., 2020), spread unevenly by intent.
//!
//! `banking77-train.csv` is spread over the workers, `banking77-test.csv` is the test set.

use std::path::Path;
use std::sync::Arc;

use packfed_worker::data::{BadLines, CsvSource, Dataset, Labels, Record, read_all};
use packfed_worker::files::ModelFiles;

use super::{Test, TextError, Texts};
use crate::options::Options;

/// Tokens of the longest question that is not cut.
const TOKENS_MAX: usize = 128;

impl Texts {
    /// The task on an encoder's files, with the data's two files in `folder`.
    ///
    /// # Errors
    /// If the model or the data cannot be used, or the data cannot give every worker enough.
    pub fn banking77(model: &Path, folder: &Path, options: &Options) -> Result<Self, TextError> {
        let files = ModelFiles::open(model)?;
        let tokenizer = files.tokenizer()?;
        let (train_file, test_file) = (folder.join("banking77-train.csv"), folder.join("banking77-test.csv"));
        let (train, test) = (records(&train_file)?, records(&test_file)?);
        let labels = Labels::sorted(&train)?;
        let dataset = |path: &Path, records: &[Record]| {
            Dataset::classification(path, records, &labels, &tokenizer, TOKENS_MAX, BadLines::Stop)
        };
        let (train, test) = (dataset(&train_file, &train)?, dataset(&test_file, &test)?);
        let seed = options.run_seed().derive("packfed/shards/1", &[]);
        let classes: Vec<u32> = train.examples.iter().filter_map(|example| example.label).collect();
        let indices = options.partition.split(&classes, options.workers as usize, &seed)?;
        let shard = |indices: &Vec<usize>| {
            let examples = indices.iter().map(|&n| train.examples[n].clone()).collect();
            Arc::new(Dataset { examples, skipped: 0 })
        };
        let shards = indices.iter().map(shard).collect();
        Self::new(&files, Some(labels.len()), shards, Test::Common(test.examples), options.threads)
    }
}

fn records(path: &Path) -> Result<Vec<Record>, TextError> {
    let mut source = CsvSource::open(path, "text", Some("category"))?;
    Ok(read_all(&mut source, BadLines::Stop)?.0)
}
