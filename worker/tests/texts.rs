//! The `worker` program on a transformer and texts: what each command prints, and where private lanes stay.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use packfed_codec::{Adapter, LayerSpec, Layout, Seed, State};
use packfed_protocol::{Digest, Identity, Manifest, Payload, RunId, SignedRelease, Timestamp, Version};
use packfed_worker::config::Enrolment;
use packfed_worker::export::{Existing, read_adapter, write_adapter};
use packfed_worker::files::ModelFiles;
use packfed_worker::follower::{Pinned, Source, Standing};
use packfed_worker::pretrained::Pretrained;
use packfed_worker::releases::Releases;
use packfed_worker::tiny;
use serde_json::Value;

const HEADER: &str = r#"coordinator = "127.0.0.1:4600"
coordinator_key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
name = "shelf"
[model]
base = "model"
"#;

fn worker(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Writes a global model of zeros over the matrices of the folder's base.
fn global(folder: &Path, labels: Option<usize>) {
    let files = ModelFiles::open(&folder.join("model")).unwrap();
    let spec = |matrix: &packfed_worker::model::MatrixSpec| LayerSpec {
        name: matrix.name.clone(),
        rows: matrix.outputs,
        cols: matrix.inputs,
        block: 16,
        residual: 12,
        gain_exponent: 4,
    };
    let model = Pretrained::open(&files, labels).unwrap();
    let seed = Seed::from_number(3);
    let layout = Layout::new(&seed, model.matrices().iter().map(spec).collect()).unwrap();
    let state = State::zero(Arc::new(layout));
    let adapter = Adapter::new(files.digest().unwrap(), seed, state, BTreeMap::new()).unwrap();
    write_adapter(&adapter, &folder.join("global.packfed"), Existing::Kept).unwrap();
}

/// An encoder, questions in three intents, and a global model that knows nothing of them.
fn encoder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::write_bert(&folder.path().join("model"), &Seed::from_number(1)).unwrap();
    let intents = ["lost", "found", "exchange"];
    let rows = (0..150).map(|n| format!("question {n} {0} {0},{0}\n", intents[n % 3]));
    let csv: String = std::iter::once("text,category\n".to_owned()).chain(rows).collect();
    std::fs::write(folder.path().join("questions.csv"), csv).unwrap();
    std::fs::write(folder.path().join("intents.txt"), "exchange\nfound\nlost\n").unwrap();
    let texts = "[texts]\nfile = \"questions.csv\"\nlabel = \"category\"\nclasses = \"intents.txt\"\nheld_out = 0.3\n";
    std::fs::write(folder.path().join("worker.toml"), HEADER.to_owned() + texts).unwrap();
    global(folder.path(), Some(3));
    folder
}

/// A decoder and a play.
fn decoder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::write_llama(&folder.path().join("model"), &Seed::from_number(1)).unwrap();
    std::fs::write(folder.path().join("play.txt"), "To be, or not to be.\n".repeat(60)).unwrap();
    let texts = "[texts]\nfile = \"play.txt\"\ntokens_max = 32\nheld_out = 0.2\n";
    std::fs::write(folder.path().join("worker.toml"), HEADER.to_owned() + texts).unwrap();
    global(folder.path(), None);
    folder
}

/// Loss of every model by name.
fn losses(folder: &Path) -> BTreeMap<String, f64> {
    let found: Value =
        serde_json::from_str(&worker(folder, &["evaluate", "--config", "worker.toml", "--json"]).unwrap()).unwrap();
    let models = found["models"].as_array().unwrap().iter();
    models.map(|model| (model["name"].as_str().unwrap().to_owned(), model["loss"].as_f64().unwrap())).collect()
}

#[test]
fn a_personal_classifier_learns_here_and_the_global_one_stays_as_it_is() {
    let folder = encoder();
    let folder = folder.path();
    let before = std::fs::read(folder.join("global.packfed")).unwrap();
    let first = losses(folder);
    assert_eq!(first.keys().collect::<Vec<_>>(), ["base", "global"]);
    let steps = ["personalize", "--config", "worker.toml", "--steps", "30", "--learning-rate", "0.02", "--block", "16"];
    worker(folder, &steps).unwrap();
    let second = losses(folder);
    assert_eq!((second["base"], second["global"]), (first["base"], first["global"]));
    assert!(second["personal"] < first["global"] - 0.3, "{first:?} {second:?}");
    assert_eq!(std::fs::read(folder.join("global.packfed")).unwrap(), before, "private lanes stand in their own file");
    let of = |name: &str| read_adapter(&folder.join(name)).unwrap();
    let (global, personal) = (of("global.packfed"), of("personal.packfed"));
    assert_ne!(global.state().layout().digest(), personal.state().layout().digest(), "of a layout that no plan names");
    let refused =
        worker(folder, &["export", "--config", "worker.toml", "--model", "personal", "--packed", "--out", "x"]);
    assert!(refused.unwrap_err().contains("private lanes stay on this machine"));
    let said = worker(folder, &["predict", "--config", "worker.toml", "--json", "--top", "1", "I lost lost"]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["labels"][0]["label"], "lost");
    let said = worker(folder, &["predict", "--config", "worker.toml", "--model", "base", "found it"]).unwrap();
    assert_eq!(said.matches("0.333").count(), 3, "a classifier of zeros: {said}");
}

#[test]
fn a_decoder_speaks_the_same_for_the_same_seed_and_more_like_its_play_when_it_is_personal() {
    let folder = decoder();
    let folder = folder.path();
    let first = losses(folder);
    let steps = [
        "personalize",
        "--config",
        "worker.toml",
        "--steps",
        "40",
        "--batch",
        "4",
        "--learning-rate",
        "0.02",
        "--block",
        "16",
    ];
    worker(folder, &steps).unwrap();
    assert!(losses(folder)["personal"] < first["global"] - 0.3);
    let speak = |seed: &str| {
        worker(folder, &["generate", "--config", "worker.toml", "--tokens", "12", "--seed", seed, "To be"]).unwrap()
    };
    assert!(speak("1").starts_with("To be") && speak("1").len() > 8, "{}", speak("1"));
    assert_eq!(speak("1"), speak("1"));
    assert_ne!(speak("1"), speak("2"));
    let error = worker(folder, &["predict", "--config", "worker.toml", "x"]).unwrap_err();
    assert!(error.contains("use `worker generate`"), "{error}");
}

#[test]
fn a_merged_model_comes_back_as_the_import_of_a_fine_tuned_one() {
    let folder = encoder();
    let folder = folder.path();
    let run = |arguments: &[&str]| worker(folder, &[arguments, &["--config", "worker.toml"]].concat());
    run(&["personalize", "--steps", "10", "--block", "16"]).unwrap();
    run(&["export", "--model", "personal", "--out", "merged"]).unwrap();
    let again = run(&["export", "--model", "personal", "--out", "merged"]).unwrap_err();
    assert!(again.contains("merged: there is something already"), "{again}");
    let said =
        run(&["import", "--tuned", "merged", "--block", "16", "--target", "1", "--out", "back.packfed"]).unwrap();
    assert!(said.contains("in all: 0.99") || said.contains("in all: 1.0"), "{said}");
    std::fs::rename(folder.join("back.packfed"), folder.join("global.packfed")).unwrap();
    let found = losses(folder);
    assert!((found["global"] - found["base"]).abs() > 1e-3, "{found:?}");
}

#[test]
fn what_is_missing_or_out_of_bounds_is_named() {
    let folder = encoder();
    let folder = folder.path();
    let error = |arguments: &[&str]| worker(folder, &[arguments, &["--config", "worker.toml"]].concat()).unwrap_err();
    assert!(error(&["predict", "--model", "personal", "x"]).contains("run `worker personalize` first"));
    assert!(error(&["generate", "x"]).contains("use `worker predict`"));
    let config = std::fs::read_to_string(folder.join("worker.toml")).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::write(folder.join("worker.toml"), config.replace(from, to)).unwrap();
        error(&["evaluate"])
    };
    assert!(with("held_out = 0.3", "held_out = 1.5").contains("texts.held_out is 1.5, allowed is 0 to below 1"));
    assert!(with("classes = \"intents.txt\"\n", "").contains("texts.label and texts.classes come together"));
    assert!(with("label = \"category\"", "label = \"intent\"").contains("there is no column \"intent\""));
    assert!(with("intents.txt", "nowhere.txt").contains("nowhere.txt"));
    assert!(with("base = \"model\"", "base = \"nowhere\"").contains("nowhere"));
}

#[test]
fn every_command_reads_the_release_that_runs() {
    let folder = encoder();
    let folder = folder.path();
    let coordinator = Identity::from_seed([5; 32]);
    let config = std::fs::read_to_string(folder.join("worker.toml")).unwrap();
    let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let config = config.replace(key, &coordinator.id().to_string()) + "[releases]\n";
    std::fs::write(folder.join("worker.toml"), config).unwrap();
    let run = |arguments: &[&str]| worker(folder, &[arguments, &["--config", "worker.toml"]].concat());
    assert!(run(&["evaluate"]).unwrap_err().contains("run `worker enroll` first"));
    let enrolment = Enrolment { run: RunId([1; 16]), coordinator_key: coordinator.id() };
    enrolment.save(&folder.join("enrolment.toml")).unwrap();
    let before = losses(folder);
    assert!(run(&["release", "status"]).unwrap().starts_with("current   the base model\n"));

    let global = read_adapter(&folder.join("global.packfed")).unwrap();
    let mut lanes = global.state().to_bytes();
    lanes.chunks_mut(4).for_each(|lane| lane.copy_from_slice(&(1i32 << 18).to_le_bytes()));
    let state = State::from_bytes(global.state().layout().clone(), &lanes).unwrap();
    let adapter = Adapter::new(global.base(), *global.seed(), state, BTreeMap::new()).unwrap();
    let payload = Payload::new(adapter.to_bytes());
    let manifest = Manifest {
        number: 3,
        run: enrolment.run,
        base: Digest(adapter.base().0),
        layout: Digest(adapter.state().layout().digest().0),
        state: Digest(adapter.state().digest().0),
        version: Version(7),
        adapter: payload.id(),
        created: Timestamp(1),
        notes: String::new(),
        metrics: BTreeMap::new(),
    };
    let pinned = Pinned { coordinator: coordinator.id(), run: enrolment.run, base: manifest.base };
    let releases = Releases::at(folder.join("releases"), pinned);
    releases.open().unwrap();
    let signed = SignedRelease::new(&coordinator, manifest).unwrap();
    let held = releases.store(&signed, &Source::Whole(payload.clone()), &|_| Ok(())).unwrap();
    releases.save(&Standing { current: Some(held), ..Standing::default() }).unwrap();

    let after = losses(folder);
    assert_eq!(after["base"], before["base"]);
    assert!((after["global"] - before["global"]).abs() > 1e-3, "{after:?}");
    run(&["export", "--packed", "--out", "out.packfed"]).unwrap();
    assert_eq!(std::fs::read(folder.join("out.packfed")).unwrap(), payload.into_vec());
    let said: Value = serde_json::from_str(&run(&["release", "status", "--json"]).unwrap()).unwrap();
    assert_eq!((&said["current"]["number"], &said["tried"]), (&3.into(), &Value::Null));
    std::fs::remove_file(folder.join("global.packfed")).unwrap();
    assert_eq!(losses(folder)["global"], after["global"], "a release is a global model without another");
}
