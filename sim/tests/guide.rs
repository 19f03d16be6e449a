//! The operator's guide, run from its first command to its last by a shell, over files that this test makes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};

use packfed_coordinator::config::ProfileName;
use packfed_sim::options::{Options, UNEVEN};
use packfed_sim::process::beside;
use packfed_sim::task::Task;
use packfed_worker::idx::{write_images, write_labels};

const OPTIONS: Options =
    Options { rounds: 1, workers: 4, cohort: 4, seed: 1, partition: UNEVEN, profile: ProfileName::Plain, threads: 2 };

/// The commands of the guide, in their order: blocks of `sh`. Those of `sh build` make the programs that run here.
fn commands(guide: &str) -> String {
    let mut blocks = guide.split("\n```").skip(1).step_by(2);
    let (mut commands, mut built) = (String::new(), 0);
    for block in blocks.by_ref() {
        let (language, block) = block.split_once('\n').unwrap();
        match language {
            "sh" => commands.extend([block, "\n"]),
            "sh build" => built += 1,
            other => panic!("a block of {other:?} would not be run"),
        }
    }
    assert_eq!(built, 1, "one command builds the programs");
    commands
}

/// What the guide takes for granted: a base model, and four devices with data.
fn make_files(folder: &Path) {
    let task = Task::digits(&OPTIONS).unwrap();
    std::fs::write(folder.join("base.safetensors"), &task.base_file).unwrap();
    for (number, shard) in (1..).zip(&task.shards) {
        let device = folder.join(format!("device-{number}"));
        std::fs::create_dir(&device).unwrap();
        std::fs::write(device.join("images-idx3-ubyte"), write_images(&shard.images)).unwrap();
        std::fs::write(device.join("labels-idx1-ubyte"), write_labels(&shard.labels)).unwrap();
    }
}

fn free_port() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    make_files(folder.path());
    let guide = include_str!("../../coordinator/GUIDE.md");
    // Everything that it starts ends with it.
    let script = format!("set -eux\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{}", commands(guide));
    let script = script.replace("4600", &free_port()).replace("9465", &free_port());
    let programs = beside("coordinator").unwrap();
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["--kill-after=10", "400", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let log = std::fs::read_to_string(folder.path().join("serve.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{}\nthe coordinator said:\n{log}", said[0], said[1]);
}
