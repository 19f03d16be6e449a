//! The audit log of a served run leads to its model again, across processes, and shows every changed byte.

use std::path::{Path, PathBuf};

use packfed_coordinator::audit::{ReplayError, Replayed, replay};
use packfed_coordinator::config::{AuditTable, CoordinatorConfig, CoordinatorFile};
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::server::{Outcome, Server};
use serde_json::Value;

use crate::scripted::{Worker, leave, round, undisturbed};
use crate::served::{Serving, coordinator, file, in_time, registry};

const WORKERS: u8 = 3;

/// A folder with everything that a coordinator needs, and a log of small segments.
fn folder() -> (tempfile::TempDir, CoordinatorConfig) {
    let folder = tempfile::tempdir().unwrap();
    let audit = AuditTable { directory: PathBuf::from("audit"), segment_bytes_max: 1 << 10, segments_max: 0 };
    let file = CoordinatorFile { audit: Some(audit), ..file(WORKERS.into(), 2) };
    coordinator().save(&folder.path().join("coordinator.key")).unwrap();
    drop(RedbStore::create(&folder.path().join("coordinator.redb"), &registry(WORKERS)).unwrap());
    std::fs::write(folder.path().join("coordinator.toml"), file.to_toml().unwrap()).unwrap();
    let config = CoordinatorConfig::load(&folder.path().join("coordinator.toml")).unwrap();
    (folder, config)
}

fn serve(config: &CoordinatorConfig) -> Serving {
    Serving::of(Server::bind(config).unwrap(), config)
}

async fn workers(serving: &Serving) -> Vec<Worker> {
    let mut workers = Vec::new();
    for n in 1..=WORKERS {
        let mut worker = Worker::connect(n, serving).await;
        worker.check_in().await;
        workers.push(worker);
    }
    workers
}

/// Two rounds; the process stops in order in the middle of the first.
async fn served(config: &CoordinatorConfig) -> Outcome {
    let serving = serve(config);
    let mut fleet = workers(&serving).await;
    let assignment = fleet[0].assignment().await;
    let update = fleet[0].update(&assignment);
    fleet[0].accepted(&update).await;
    let again = packfed_protocol::Message::Update(update).encode();
    assert_eq!(fleet[0].rejected(&again).await, packfed_protocol::RejectionCode::Duplicate);
    drop(fleet);
    assert!(!serving.stopped().await.unwrap().finished);

    let serving = serve(config);
    let mut fleet = workers(&serving).await;
    round(&mut fleet[1..]).await;
    round(&mut fleet).await;
    leave(fleet).await;
    serving.outcome().await.unwrap()
}

fn replayed(config: &CoordinatorConfig, folder: &Path) -> Result<Replayed, ReplayError> {
    replay(&config.plan, folder, |_| ())
}

#[tokio::test]
async fn a_log_of_two_processes_leads_to_the_same_digest() {
    in_time(async {
        let (folder, config) = folder();
        let outcome = served(&config).await;
        let log = folder.path().join("audit");
        let replay = replayed(&config, &log).unwrap();
        assert_eq!((replay.version, replay.digest), (2, outcome.report.status.digest));
        assert_eq!((replay.begun, replay.updates, replay.taken_back), (2, 7, 0));
        assert_eq!(Value::from(outcome.report.status.digest.to_string()), undisturbed(WORKERS).await["digest"]);
        let segments = std::fs::read_dir(&log)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "log"));
        assert!(segments.count() > 1, "segments are begun");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.arg("replay").arg(&log).arg("--config").arg(folder.path().join("coordinator.toml")).arg("--json");
        let output: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(output, serde_json::to_value(&replay).unwrap());
        let mut lines = 0;
        replay_all(&config, &log, &mut lines);
        assert_eq!(lines, replay.entries);
    })
    .await;
}

fn replay_all(config: &CoordinatorConfig, log: &Path, lines: &mut u64) {
    replay(&config.plan, log, |located| {
        assert!(!located.entry.to_string().contains('\n'));
        *lines += 1;
    })
    .unwrap();
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_is_reported_with_its_place() {
    in_time(async {
        let (folder, config) = folder();
        served(&config).await;
        let log = folder.path().join("audit");
        for number in [1, 2] {
            let path = log.join(format!("{number:08}.log"));
            let whole = std::fs::read(&path).unwrap();
            for at in (0..whole.len()).step_by(whole.len() / 24) {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                std::fs::write(&path, &flipped).unwrap();
                let error = replayed(&config, &log).unwrap_err().to_string();
                let offset = place(&error, &path);
                assert!(offset <= at as u64, "flipped {at}: {error}");
            }
            std::fs::write(&path, &whole).unwrap();
        }
        let last = (1..).map(|n: u64| log.join(format!("{n:08}.log"))).take_while(|path| path.exists()).last().unwrap();
        let whole = std::fs::read(&last).unwrap();
        for cut in [1, 20, 37] {
            std::fs::write(&last, &whole[..whole.len() - cut]).unwrap();
            let error = replayed(&config, &log).unwrap_err().to_string();
            assert!(error.contains("cut short") && place(&error, &last) < whole.len() as u64, "{error}");
        }
        // A whole entry less is a log of a process that was killed; the store tells, when it is taken up.
        std::fs::write(&last, &whole).unwrap();
        replayed(&config, &log).unwrap();
    })
    .await;
}

/// The byte that an error names.
fn place(error: &str, path: &Path) -> u64 {
    let rest = error.strip_prefix(&format!("{} at byte ", path.display())).unwrap_or_else(|| panic!("{error}"));
    rest.split_once(':').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_log_that_lost_a_group_is_not_gone_on_with() {
    in_time(async {
        let (folder, config) = folder();
        served(&config).await;
        let log = folder.path().join("audit");
        drop(Server::bind(&config).unwrap());
        for number in (2..).take_while(|n: &u64| log.join(format!("{n:08}.log")).exists()).collect::<Vec<_>>() {
            std::fs::remove_file(log.join(format!("{number:08}.log"))).unwrap();
        }
        let error = Server::bind(&config).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("move the log away"), "{error}");
        std::fs::remove_dir_all(&log).unwrap();
        drop(Server::bind(&config).unwrap());
        assert_eq!(replayed(&config, &log).unwrap().version, 2, "a new log begins with a base");
    })
    .await;
}
