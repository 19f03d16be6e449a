//! The `worker` program and what it says when something is wrong.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use packfed_protocol::Identity;
use packfed_worker::config::{Enrolment, WorkerConfig};
use packfed_worker::idx::{Images, write_images, write_labels};

/// What the program prints on stderr, last line first wanted, with the exit code.
fn fails(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_worker")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().last().unwrap().to_owned()
}

/// A folder with the example's configuration and whatever a test puts beside it.
fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let config = folder.path().join("worker.toml");
    std::fs::write(&config, include_str!("../worker.example.toml")).unwrap();
    let config = config.to_str().unwrap().to_owned();
    (folder, config)
}

fn enrolled(folder: &Path, config: &str) {
    let config = WorkerConfig::load(Path::new(config)).unwrap();
    Identity::from_seed([1; 32]).save(&folder.join("worker.key")).unwrap();
    let enrolment = Enrolment { run: "07".repeat(16).parse().unwrap(), coordinator_key: config.coordinator_key };
    enrolment.save(&config.enrolment).unwrap();
}

#[test]
fn a_missing_configuration_is_named() {
    let error = fails(&["run", "--config", "nowhere/worker.toml"]);
    assert!(error.starts_with("error: nowhere/worker.toml: No such file"), "{error}");
}

#[test]
fn a_worker_that_is_not_enrolled_is_told_how() {
    let (_folder, config) = folder(&[]);
    let error = fails(&["run", "--config", &config]);
    assert!(error.contains("run `worker enroll` first") && error.contains("worker.key"), "{error}");
}

#[test]
fn a_broken_base_model_or_data_file_is_named_with_what_is_wrong() {
    let labels = write_labels(&[1, 2]);
    let images = write_images(&Images { rows: 1, cols: 2, pixels: vec![0; 4] });
    let base = packfed_worker::mlp::Mlp {
        layers: vec![packfed_worker::mlp::Dense {
            weight: std::sync::Arc::new(vec![0.0; 4]),
            bias: std::sync::Arc::new(vec![0.0; 2]),
            inputs: 2,
        }],
    }
    .to_safetensors();
    let said = |base: &[u8], images: &[u8], labels: &[u8]| {
        let files = [("base.safetensors", base), ("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)];
        let (folder, config) = folder(&files);
        enrolled(folder.path(), &config);
        fails(&["run", "--config", &config])
    };
    let error = said(&base[..base.len() - 1], &images, &labels);
    assert!(error.contains("base.safetensors: not a safetensors file"), "{error}");
    let error = said(&base, &labels, &labels);
    assert!(error.contains("images-idx3-ubyte: magic number is 00000801"), "{error}");
    let error = said(&base, &images, &write_labels(&[1, 2, 3]));
    assert!(error.contains("2 images and 3 labels"), "{error}");
}

#[test]
fn a_token_that_is_no_token_is_refused_before_anything_is_made() {
    let (folder, config) = folder(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(["enroll", "--config", &config, "--token", "12"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--token"));
    assert!(!folder.path().join("worker.key").exists());
}
