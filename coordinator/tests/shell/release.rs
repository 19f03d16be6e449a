//! `coordinator release`: made, looked at, damaged and deleted from the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use packfed_codec::{Adapter, BaseDigest, State};
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::release::Shelf;
use packfed_coordinator::server::Server;
use packfed_protocol::{Order, RejectionCode, Version};
use serde_json::{Value, json};

use crate::scripted::{fleet, leave, round};
use crate::served::{Serving, config, coordinator, file, in_time, order, registry};

/// A folder with a run in it.
struct Run {
    folder: tempfile::TempDir,
    config: CoordinatorConfig,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_coordinator")).args(["init", "run"]).current_dir(&folder).output();
        assert!(made.unwrap().status.success());
        let config = CoordinatorConfig::load(&folder.path().join("run/coordinator.toml")).unwrap();
        Self { folder, config }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A packed adapter of this run in a file, whose first lane is this.
    fn adapter(&self, name: &str, lane: i32, base: [u8; 32]) {
        let layout = self.config.plan.layout().clone();
        let mut bytes = vec![0; layout.lanes() * 4];
        bytes[..4].copy_from_slice(&lane.to_le_bytes());
        let state = State::from_bytes(layout, &bytes).unwrap();
        let metrics = BTreeMap::from([("accuracy".to_owned(), 0.5)]);
        let adapter = Adapter::new(BaseDigest(base), self.config.plan.raw().seed, state, metrics).unwrap();
        fs::write(self.path().join(name), adapter.to_bytes()).unwrap();
    }

    fn release(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.arg("release").args(arguments).args(["--config", "run/coordinator.toml", "--json"]);
        let output = command.current_dir(self.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(text(output.stderr) + &text(output.stdout)),
        }
    }

    fn base(&self) -> [u8; 32] {
        self.config.plan.raw().base.0
    }
}

#[test]
fn releases_are_made_compared_exported_and_deleted() {
    let run = Run::new();
    run.adapter("one.packfed", 1 << 20, run.base());
    run.adapter("two.packfed", 3 << 20, run.base());
    let one = run.release(&["create", "--from", "one.packfed", "--notes", "the first"]).unwrap();
    assert_eq!((&one["number"], &one["version"], &one["notes"]), (&json!(1), &json!(0), &json!("the first")));
    run.release(&["create", "--from", "two.packfed"]).unwrap();
    let list = run.release(&["list"]).unwrap();
    assert_eq!(list.as_array().unwrap().iter().map(|row| &row["number"]).collect::<Vec<_>>(), [&json!(1), &json!(2)]);
    let shown = run.release(&["show", "2"]).unwrap();
    assert_eq!(shown["metrics"], json!({ "accuracy": 0.5 }));
    assert_eq!(shown["digest"].as_str().unwrap().len(), 64);
    let diff = run.release(&["diff", "1", "2"]).unwrap();
    assert_eq!((&diff["layers"][0]["changed"], &diff["layers"][0]["norms"][2]), (&json!(1), &json!(2.0)));
    run.release(&["export", "2", "--out", "out.packfed"]).unwrap();
    assert_eq!(fs::read(run.path().join("out.packfed")).unwrap(), fs::read(run.path().join("two.packfed")).unwrap());
    let again = run.release(&["export", "2", "--out", "out.packfed"]).unwrap_err();
    assert!(again.contains("--force"), "{again}");
    assert!(run.release(&["delete", "1"]).unwrap_err().contains("add --yes"));
    run.release(&["delete", "1", "--yes"]).unwrap();
    assert!(run.release(&["show", "1"]).unwrap_err().contains("release 1 was deleted"));
    assert!(run.release(&["show", "7"]).unwrap_err().contains("there is no release 7; `coordinator release list`"));
    assert_eq!(run.release(&["create", "--from", "one.packfed"]).unwrap()["number"], json!(3));
}

#[test]
fn what_is_not_this_runs_is_not_released() {
    let run = Run::new();
    run.adapter("other.packfed", 1, [9; 32]);
    let error = run.release(&["create", "--from", "other.packfed"]).unwrap_err();
    assert!(error.contains("other.packfed") && error.contains("base model is 0909"), "{error}");
    fs::write(run.path().join("cut.packfed"), b"packfed").unwrap();
    assert!(run.release(&["create", "--from", "cut.packfed"]).unwrap_err().contains("cut.packfed"));
    // Nobody serves at port 0, and the store has no commit.
    let error = run.release(&["create", "--address", "127.0.0.1:0"]).unwrap_err();
    assert!(error.contains("nothing is committed yet"), "{error}");
    assert_eq!(run.release(&["list"]).unwrap(), json!([]));
}

#[test]
fn damage_and_foreign_signatures_are_found() {
    let run = Run::new();
    run.adapter("one.packfed", 1 << 20, run.base());
    run.adapter("two.packfed", 2 << 20, run.base());
    let digest = run.release(&["create", "--from", "one.packfed"]).unwrap()["adapter"]["digest"].clone();
    run.release(&["create", "--from", "two.packfed"]).unwrap();
    assert_eq!(run.release(&["verify"]).unwrap(), json!({ "verified": [1, 2], "wrong": [] }));
    let shelf = Shelf::beside(&run.config.store);
    let path = shelf.adapter_path(&digest.as_str().unwrap().parse().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = run.release(&["verify"]).unwrap_err();
    assert!(found.contains("\"verified\":[2]") && found.contains("restore the file from a copy"), "{found}");
    let stranger = Run::new();
    fs::create_dir_all(stranger.path().join("run/releases")).unwrap();
    let name = "00000002.release";
    fs::copy(shelf.folder().join(name), stranger.path().join("run/releases").join(name)).unwrap();
    assert!(stranger.release(&["show", "2"]).unwrap_err().contains("release 2 is not signed by coordinator"));
}

#[tokio::test]
async fn the_coordinator_that_serves_releases_its_head_and_what_it_remembers() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&file(2, 2));
        config.store = folder.path().join("coordinator.redb");
        let server = Server::bind_with(&config, &coordinator(), Box::new(MemoryStore::new(registry(2)))).unwrap();
        let serving = Serving::of(server, &config);
        let release = async |version: Option<u64>| {
            let version = version.map(Version);
            order(serving.address, Order::Release { version, notes: "now".to_owned() }).await
        };
        let refused = release(None).await.unwrap_err();
        assert_eq!(refused.code, RejectionCode::NotPossible);
        assert_eq!(refused.detail, "nothing is committed yet: version 0 is the base model itself");
        let mut workers = fleet(2, &serving).await;
        let mut digests = Vec::new();
        for _ in 0..2 {
            round(&mut workers).await;
            digests.push(release(None).await.unwrap()["state"].clone());
        }
        let earlier = release(Some(1)).await.unwrap();
        assert_eq!((&earlier["number"], &earlier["version"], &earlier["state"]), (&json!(3), &json!(1), &digests[0]));
        let unknown = release(Some(9)).await.unwrap_err().detail;
        assert!(unknown.starts_with("version 9 is not remembered, only 1 to 2"), "{unknown}");
        let held = Shelf::beside(&config.store).read(2, &coordinator().id()).unwrap();
        assert_eq!((json!(held.manifest.state), held.manifest.version), (digests[1].clone(), Version(2)));
        assert!(held.manifest.metrics.contains_key("train_loss"));
        leave(workers).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}
