//! Tasks of text on tiny random models: what is run on real ones, in seconds.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use packfed_codec::Seed;
use packfed_coordinator::config::{ProfileName, TrainingTable};
use packfed_sim::compare::{self, Method};
use packfed_sim::options::Options;
use packfed_sim::partition::Partition;
use packfed_sim::progress::Progress;
use packfed_sim::results::{Metric, Results};
use packfed_sim::text::Texts;
use packfed_sim::text::run::{BANKING77, Rates, SHAKESPEARE, TextRun};
use packfed_worker::local::LocalSteps;
use packfed_worker::patterns::Blocks;
use packfed_worker::personal::Personalization;
use packfed_worker::tiny;

const OPTIONS: Options = Options {
    rounds: 4,
    workers: 6,
    cohort: 3,
    seed: 1,
    partition: Partition::Dirichlet { alpha: 1.0 },
    profile: ProfileName::Nibble,
    threads: 2,
};

/// Questions whose intent a word gives away.
fn questions(folder: &Path) {
    let intents = ["lost", "found", "top up", "exchange", "age limit"];
    let rows = |range: std::ops::Range<usize>| {
        let row = |n: usize| {
            let intent = intents[n % intents.len()];
            format!("\"question {n}, {intent} {intent} please\",{intent}\n")
        };
        std::iter::once("text,category\n".to_owned()).chain(range.map(row)).collect::<String>()
    };
    std::fs::write(folder.join("banking77-train.csv"), rows(0..120)).unwrap();
    std::fs::write(folder.join("banking77-test.csv"), rows(120..180)).unwrap();
}

/// Three characters with much to say, and one with little.
fn plays(folder: &Path) {
    let speech = |name: &str, n: usize| format!("{name}:\n{}\n\n", format!("{name} speaks of {n}. ").repeat(6));
    let mut plays: String = (0..30).flat_map(|n| ["ANNE", "BOB", "CLOWN"].map(|name| speech(name, n))).collect();
    plays += "DUKE:\nNothing.\n";
    let file = std::fs::File::create(folder.join("tinyshakespeare.txt.gz")).unwrap();
    let mut zipped = GzEncoder::new(file, Compression::fast());
    zipped.write_all(plays.as_bytes()).unwrap();
    zipped.finish().unwrap();
}

fn small(run: TextRun, learning_rate: f32) -> TextRun {
    let training = TrainingTable::adam(4, 8, learning_rate);
    let (dense, lora) = (Rates { rates: &[3e-3, 1e-2], head_factor: 1.0 }, Rates { rates: &[1e-2], head_factor: 1.0 });
    let local = LocalSteps::adam(10, 4, learning_rate);
    let personal =
        run.personal.map(|personal| Personalization { blocks: Blocks { block: 16, ..personal.blocks }, local });
    let blocks = Blocks { block: 16, head_block: 4, ..run.blocks };
    TextRun { blocks, training, personal, dense, lora, ..run }
}

fn banking(options: &Options, methods: &[Method]) -> Results {
    let folder = tempfile::tempdir().unwrap();
    tiny::write_bert(&folder.path().join("model"), &Seed::from_number(7)).unwrap();
    questions(folder.path());
    let texts = Texts::banking77(&folder.path().join("model"), folder.path(), options).unwrap();
    compare::text(&texts, &small(BANKING77, 0.03), options, methods, &Progress::new(true)).unwrap()
}

#[test]
fn an_encoder_learns_intents_whatever_the_method_and_packfed_sends_least() {
    let results = banking(&Options { rounds: 8, ..OPTIONS }, &[Method::Dense, Method::LoraR8]);
    assert_eq!((results.task.as_str(), results.metric), ("banking77", Metric::Accuracy));
    for method in &results.methods {
        let (first, last) = (method.curve[0].score, method.score);
        assert!((first.loss - 5f64.ln()).abs() < 1e-6, "a classifier of zeros knows nothing: {}", first.loss);
        assert!(last.loss < first.loss - 0.2, "{}: {} to {}", method.name, first.loss, last.loss);
    }
    let [packfed, dense, lora] = results.methods.as_slice() else { panic!("{} methods", results.methods.len()) };
    assert_eq!((dense.tuning.len(), lora.tuning.len()), (2, 1));
    assert!(packfed.bytes_up < lora.bytes_up && lora.bytes_up < dense.bytes_up);
}

#[test]
fn a_run_over_text_is_the_same_on_any_number_of_threads() {
    let digest = |threads| banking(&Options { threads, ..OPTIONS }, &[]).methods[0].digest.clone();
    assert_eq!(digest(1), digest(3));
}

#[test]
fn a_decoder_learns_its_characters_lines() {
    let folder = tempfile::tempdir().unwrap();
    tiny::write_llama(&folder.path().join("model"), &Seed::from_number(7)).unwrap();
    plays(folder.path());
    let texts = Texts::shakespeare(&folder.path().join("model"), folder.path(), &OPTIONS).unwrap();
    assert_eq!(texts.shards.len(), 3, "DUKE says too little");
    let options = Options { workers: 3, cohort: 2, ..OPTIONS };
    let results = compare::text(&texts, &small(SHAKESPEARE, 0.02), &options, &[Method::LoraR8], &Progress::new(true));
    let results = results.unwrap();
    assert_eq!(results.metric, Metric::Perplexity);
    let personal = results.personal.unwrap();
    assert_eq!((personal.workers, personal.better), (3, 3), "{personal:?}");
    assert!(personal.personal.loss < personal.global.loss - 0.05, "{personal:?}");
    for method in &results.methods {
        let (first, last) = (method.curve[0].score.loss, method.score.loss);
        assert!(last < first - 0.1, "{}: {first} to {last}", method.name);
    }
}
