//! A transformer trained by real processes, set up as an operator would, command by command.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use packfed_codec::Seed;
use packfed_sim::process::beside;
use packfed_sim::process_fleet::{Coordinator, Worker};
use packfed_worker::tiny;
use serde_json::Value;

/// What a program prints.
fn run(program: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(beside(program).unwrap()).current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Questions in two intents for each of two workers.
fn write_texts(folder: &Path) {
    std::fs::write(folder.join("intents.txt"), "found\nlost\n").unwrap();
    for worker in 0..2 {
        let row = |n: usize| format!("{{\"text\":\"{n} {0} {0}\",\"intent\":\"{0}\"}}\n", ["lost", "found"][n % 2]);
        let rows: String = (worker * 40..worker * 40 + 40).map(row).collect();
        std::fs::write(folder.join(format!("questions-{worker}.jsonl")), rows).unwrap();
    }
}

/// The configuration of a coordinator, with fewer rounds and workers than the example's.
fn shorten(config: &Path) {
    let mut file: toml::Table = toml::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
    let mut set = |table: &str, key: &str, value: toml::Value| {
        file.get_mut(table).unwrap().as_table_mut().unwrap().insert(key.into(), value);
    };
    set("run", "rounds", 8.into());
    set("training", "batch", 8.into());
    set("training", "steps", 4.into());
    set("training", "learning_rate", 0.02.into());
    set("selection", "goal", 2.into());
    set("reporting", "goal", 2.into());
    file.insert("listen".into(), "127.0.0.1:0".into());
    std::fs::write(config, toml::to_string(&file).unwrap()).unwrap();
}

#[test]
fn workers_fine_tune_an_encoder_over_quic_and_each_holds_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny::write_bert(&folder.join("model"), &Seed::from_number(1)).unwrap();
    write_texts(folder);
    let adapt = ["--adapt", "encoder.*.weight=16:12", "--adapt", "classifier.weight=4:16"];
    let layers = [&["layers", "--model", "model", "--classes", "intents.txt"][..], &adapt].concat();
    std::fs::write(folder.join("layers.toml"), run("worker", folder, &layers)).unwrap();
    let made = run("coordinator", folder, &["init", "run", "--layers", "layers.toml", "--tokens", "2", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["layers"], 13, "six matrices in each of two layers, and the classifier");
    let config = folder.join("run/coordinator.toml");
    shorten(&config);

    let coordinator = Coordinator::start(&config, |_| {}).unwrap();
    let workers: Vec<Worker> = (0..2)
        .map(|n| {
            let (address, key) = (coordinator.address, coordinator.key);
            let own = folder.join(format!("worker-{n}"));
            std::fs::create_dir(&own).unwrap();
            let text = format!(
                "coordinator = \"{address}\"\ncoordinator_key = \"{key}\"\nname = \"worker-{n}\"\n\
                 [model]\nbase = \"../model\"\n\
                 [texts]\nfile = \"../questions-{n}.jsonl\"\nlabel = \"intent\"\nclasses = \"../intents.txt\"\n\
                 held_out = 0.2\n"
            );
            let config = own.join("worker.toml");
            std::fs::write(&config, text).unwrap();
            Worker::enroll(&config, made["tokens"][n].as_str().unwrap()).unwrap();
            Worker::start(&config, |_| {}).unwrap()
        })
        .collect();
    let report = coordinator.finish().unwrap();
    assert_eq!(report.version, 8);
    for worker in workers {
        assert_eq!(worker.finish().unwrap(), report.digest);
    }
    let evaluated = run("worker", &folder.join("worker-0"), &["evaluate", "--config", "worker.toml", "--json"]);
    let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
    let loss = |n: usize| evaluated["models"][n]["loss"].as_f64().unwrap();
    assert_eq!(evaluated["models"][1]["name"], "global");
    assert!(loss(1) < loss(0) - 0.05, "{evaluated}");
}
