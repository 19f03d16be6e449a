//! A coordinator that is killed goes on with the same round, and nobody uploads twice.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use packfed_coordinator::config::CoordinatorFile;
use packfed_coordinator::redb_store::RedbStore;
use packfed_protocol::Round;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::scripted::{Worker, leave, round, undisturbed};
use crate::served::{config, coordinator, file, in_time, registry};

const WORKERS: u8 = 4;

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its first line: where it listens, and what it goes on with.
    first: Value,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.arg("serve").arg("--config").arg(folder.join("coordinator.toml")).args(["--until-finished", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        Self { child, lines, first }
    }

    fn address(&self) -> SocketAddr {
        self.first["listening"].as_str().unwrap().parse().unwrap()
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its last line, once it has ended by itself.
    async fn report(mut self) -> Value {
        let last = self.lines.next_line().await.unwrap().unwrap();
        assert!(self.child.wait().await.unwrap().success());
        serde_json::from_str(&last).unwrap()
    }
}

fn write(folder: &Path, file: &CoordinatorFile) {
    std::fs::write(folder.join("coordinator.toml"), file.to_toml().unwrap()).unwrap();
}

#[tokio::test]
async fn a_killed_coordinator_goes_on_with_the_same_round() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file(WORKERS.into(), 2);
        write(folder.path(), &file);
        coordinator().save(&folder.path().join("coordinator.key")).unwrap();
        drop(RedbStore::create(&folder.path().join("coordinator.redb"), &registry(WORKERS)).unwrap());
        let plan = config(&file).plan;

        let process = Process::start(folder.path()).await;
        let address = process.address();
        assert_eq!(process.first["public_key"], json!(coordinator().id()));
        assert_eq!(process.first["resumed"], Value::Null);
        let mut workers = Vec::new();
        for n in 1..=WORKERS {
            let mut worker = Worker::connect_to(n, address, &plan).await;
            worker.check_in().await;
            workers.push(worker);
        }
        for worker in &mut workers[..2] {
            let assignment = worker.assignment().await;
            worker.accepted(&worker.update(&assignment)).await;
        }
        process.kill().await;

        file.listen = address;
        write(folder.path(), &file);
        let process = Process::start(folder.path()).await;
        assert_eq!(process.address(), address);
        assert_eq!(process.first["resumed"], json!({ "round": 1, "reports": 2, "cohort": 4 }));
        for worker in &mut workers {
            worker.reconnect_to(address).await;
            worker.check_in().await;
        }
        // Who had no verdict is still awaited; who had one hears of the next round first.
        round(&mut workers[2..]).await;
        for worker in &mut workers {
            let assignment = worker.assignment().await;
            assert_eq!(assignment.round, Round(2));
            worker.accepted(&worker.update(&assignment)).await;
            worker.check_in().await;
        }
        leave(workers).await;
        let report = process.report().await;
        assert_eq!((&report["stage"], &report["version"]), (&json!("finished"), &json!(2)));
        assert_eq!(report["digest"], undisturbed(WORKERS).await["digest"]);
        let counters = &report["counters"];
        assert_eq!((&counters["arrived"], &counters["accepted"]), (&json!(6), &json!(6)), "two were there already");
    })
    .await;
}
