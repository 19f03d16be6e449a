//! A worker that follows releases beside a run and after it, as its coordinator sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use packfed_codec::{Adapter, BaseDigest, LayerSpec, Layout, Profile, Seed, State};
use packfed_protocol::{
    Digest, Failure, Finished, Identity, LayerPlan, Manifest, Message, Payload, Plan, ReleaseBody, ReleaseOutcome,
    ReleaseRef, ReleaseState, RunId, SignedRelease, Target, Timestamp, Version,
};
use packfed_worker::client::{self, Address, ClientError, Ended, Following, Part};
use packfed_worker::conditions::ConditionsConfig;
use packfed_worker::evaluation::{Found, Score, Watch};
use packfed_worker::follower::Pinned;
use packfed_worker::local::host::Host;
use packfed_worker::machine::{Budgets, Machine};
use packfed_worker::releases::Releases;
use packfed_worker::task::{Job, LocalTask, TaskError, Trained};
use tokio::sync::{mpsc, oneshot};

use crate::coordinator::{Coordinator, Worker, identity};

const RUN: RunId = RunId([7; 16]);
const BASE: Digest = Digest([9; 32]);

/// A model whose loss is its first lane; beyond 100 it computes no number.
#[derive(Clone)]
struct FirstLane;

impl LocalTask for FirstLane {
    fn examples(&self) -> u32 {
        5
    }

    fn train(&mut self, _job: &Job, _host: &mut dyn Host) -> Result<Trained, TaskError> {
        panic!("nobody asks for it")
    }

    fn fits(&self, _layout: &Arc<Layout>) -> Result<(), TaskError> {
        Ok(())
    }

    fn evaluate(&mut self, states: [&State; 2], _most: u32, _watch: &mut dyn Watch) -> Result<Found, TaskError> {
        let score = |state: &State| {
            let loss = f64::from(state.lanes()[0]);
            Score { loss: if loss > 100.0 { f64::NAN } else { loss }, right: 1.0, ms: 1.0 }
        };
        Ok(Found::HeldOut(vec![states.map(score); 4]))
    }
}

fn layout() -> Arc<Layout> {
    let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
    Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap())
}

/// A release, its file, and what it is known by.
fn release(number: u64, loss: u32) -> (Target, Payload, ReleaseRef) {
    let mut bytes = State::zero(layout()).to_bytes();
    bytes[..4].copy_from_slice(&loss.to_le_bytes());
    let state = State::from_bytes(layout(), &bytes).unwrap();
    let adapter = Adapter::new(BaseDigest(BASE.0), Seed::from_number(1), state, BTreeMap::new()).unwrap();
    let payload = Payload::new(adapter.to_bytes());
    let manifest = Manifest {
        number,
        run: RUN,
        base: BASE,
        layout: Digest(layout().digest().0),
        state: Digest(adapter.state().digest().0),
        version: Version(number),
        adapter: payload.id(),
        created: Timestamp(1),
        notes: String::new(),
        metrics: BTreeMap::new(),
    };
    let release = ReleaseRef { number, digest: manifest.digest() };
    let signed = SignedRelease::new(&identity(), manifest).unwrap().to_bytes();
    (Target::Release { signed, back: false, body: ReleaseBody::Whole }, payload, release)
}

fn plan() -> Message {
    let layer =
        LayerPlan { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4, rate_exponent: 0 };
    Message::Plan(Plan {
        run: RUN,
        seed: *Seed::from_number(1).bytes(),
        base: BASE,
        layout: Digest(layout().digest().0),
        profile: Profile::Plain.number(),
        rounds: 0,
        examples_max: 40,
        layers: vec![layer],
    })
}

fn releases(folder: &Path) -> Releases {
    Releases::at(folder.join("releases"), Pinned { coordinator: identity().id(), run: RUN, base: BASE })
}

/// A worker at work.
struct Running {
    ends: mpsc::UnboundedReceiver<Ended>,
    stop: oneshot::Sender<()>,
    result: tokio::task::JoinHandle<Result<(), ClientError>>,
}

fn start(folder: &Path, coordinator: &Coordinator) -> Running {
    let following =
        Following { releases: releases(folder), loss_increase_max: None, personal: folder.join("personal.packfed") };
    let address = Address {
        coordinator: coordinator.address(),
        coordinator_key: identity().id(),
        identity: Identity::from_seed([2; 32]),
    };
    let part = Part { address, run: RUN, base: BASE, following: Some(following) };
    let budgets = Budgets { time: None, memory: None, snapshot_every: Duration::from_secs(30) };
    let machine = Machine::new(budgets, folder.join("training.snapshot"), MultiProgress::new());
    let (ended, ends) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let result = tokio::spawn(async move {
        let mut finish = |end| ended.send(end).map_err(Into::into);
        let shutdown = async { drop(stopped.await) };
        client::run(part, FirstLane, machine, ConditionsConfig::default(), &mut finish, shutdown).await
    });
    Running { ends, stop, result }
}

async fn offer(worker: &mut Worker, (target, payload, _): &(Target, Payload, ReleaseRef)) -> ReleaseState {
    worker.say(Message::Target(target.clone())).await;
    worker.serve(payload.bytes(), usize::MAX / 2).await;
    worker.release_state().await
}

async fn in_time<T>(story: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), story).await.expect("it hangs")
}

#[tokio::test]
async fn a_worker_follows_releases_after_its_run_is_over_and_over_every_connection() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::listen();
        let mut running = start(folder.path(), &coordinator);
        let mut worker = coordinator.accept().await;
        assert_eq!(worker.release_state().await, ReleaseState { runs: None, tried: None });
        worker.say(plan()).await;
        let digest = Digest(State::zero(layout()).digest().0);
        worker.say(Message::Finished(Finished { version: Version(0), digest })).await;
        assert!(running.ends.recv().await.unwrap().model.is_some());
        // The download is broken off, and goes on where it was.
        let first = release(1, 3);
        worker.say(Message::Target(first.0.clone())).await;
        assert_eq!(worker.serve(first.1.bytes(), 100).await, 0);
        assert_eq!(worker.release_state().await.runs, None, "it asks again");
        worker.say(Message::Target(first.0.clone())).await;
        assert_eq!(worker.serve(first.1.bytes(), usize::MAX / 2).await, 100);
        let state = worker.release_state().await;
        assert_eq!(state.runs, Some(first.2));
        let ReleaseOutcome::Evaluated(found) = state.tried.unwrap().outcome else { panic!("{state:?}") };
        assert_eq!((found.examples, found.loss.before, found.loss.after), (4, 0.0, 3.0));
        worker.hang_up();
        let mut worker = coordinator.accept().await;
        assert_eq!(worker.release_state().await, state, "the run is over, and yet it is back");
        let state = offer(&mut worker, &release(2, 2)).await;
        assert_eq!(state.runs, Some(release(2, 2).2));
        running.stop.send(()).unwrap();
        running.result.await.unwrap().unwrap();
        assert_eq!(releases(folder.path()).current().unwrap().unwrap().manifest.number, 2);
    })
    .await;
}

#[tokio::test]
async fn a_release_that_computes_no_numbers_never_runs_and_the_next_process_knows_it() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::listen();
        let running = start(folder.path(), &coordinator);
        let mut worker = coordinator.accept().await;
        worker.release_state().await;
        offer(&mut worker, &release(1, 3)).await;
        let bad = release(2, 1_000);
        let state = offer(&mut worker, &bad).await;
        assert_eq!(state.runs, Some(release(1, 3).2));
        let tried = state.tried.unwrap();
        assert_eq!((tried.release, tried.outcome), (bad.2, ReleaseOutcome::Failed(Failure::Crash)));
        running.stop.send(()).unwrap();
        assert!(matches!(running.result.await.unwrap(), Err(ClientError::Interrupted)), "the run is not finished");
        let standing = releases(folder.path()).standing().unwrap();
        assert_eq!(standing.why.as_deref(), Some("its loss on example 0 is NaN"));
        let running = start(folder.path(), &coordinator);
        let mut worker = coordinator.accept().await;
        assert_eq!(worker.release_state().await, state);
        // Back to the base model, which needs nothing from anywhere.
        worker.say(Message::Target(Target::Base)).await;
        assert_eq!(worker.release_state().await, ReleaseState { runs: None, ..state });
        running.stop.send(()).unwrap();
        let _ = running.result.await.unwrap();
        assert!(releases(folder.path()).current().unwrap().is_none());
    })
    .await;
}
