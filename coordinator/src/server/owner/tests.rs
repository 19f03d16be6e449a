//! What waits together is stored together, and nobody is told of what is not stored.

use std::sync::Mutex;

use packfed_protocol::{CheckIn, Conditions, Digest, Outcome, RejectionCode, Round, Version};

use super::super::dashboard::Dashboard;
use super::super::metrics::Metrics;
use super::*;
use crate::config::ShellLimits;
use crate::event::Stored;
use crate::ledger::Ledger;
use crate::plan::RunPlan;
use crate::plan::tests::raw;
use crate::redb_store::tests::{plan, registry, update, worker};
use crate::registry::Registry;
use crate::store::StoreError;

/// Notes the size of every group, and fails from the second on if it is told to.
#[derive(Clone)]
struct Groups {
    sizes: Arc<Mutex<Vec<usize>>>,
    groups_max: usize,
}

impl Store for Groups {
    fn claim(&mut self, _: &RunPlan) -> Result<(), StoreError> {
        Ok(())
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let mut sizes = self.sizes.lock().unwrap();
        if sizes.len() == self.groups_max {
            return Err(StoreError::Engine { doing: "write store".into(), why: "no space left".into() });
        }
        sizes.push(writes.len());
        Ok(())
    }

    fn read_update(&self, _: Round, _: &WorkerId, _: usize, _: &mut [u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        Ok(registry())
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        Ok(Ledger::default())
    }

    fn load(&self, _: &RunPlan) -> Result<Option<Stored>, StoreError> {
        Ok(None)
    }
}

/// An owner in the middle of round 1, whose updates of workers 1 and 2 and a bad one wait; how it ended, and
/// what they were told.
async fn owned(groups_max: usize) -> (Result<Status, ServerError>, Vec<usize>, Vec<Option<Verdict>>) {
    let mut engine = Engine::new(plan(), registry(), now());
    for n in 1..4 {
        let digest = Digest(engine.head().digest().0);
        let check_in = CheckIn {
            run: raw().run,
            version: Version(0),
            digest,
            examples: 5,
            conditions: Conditions::ALL,
            planned: true,
        };
        engine.handle(Event::CheckIn { worker: worker(n).id(), check_in }, now());
    }
    let store = Groups { sizes: Arc::default(), groups_max };
    let (metrics, dashboard) = (Metrics::new(false), Dashboard::new(false));
    let shared = Arc::new(Shared::new(worker(9).id(), &[], &plan(), &ShellLimits::default(), metrics, dashboard));
    let releases = Releases::new(worker(9), std::path::Path::new("nowhere"));
    let owner = Owner::new(engine, Box::new(store.clone()), None, releases, shared);

    let (inbox, arrivals) = mpsc::channel(8);
    let bad = Rejection::new(RejectionCode::Malformed, "no update");
    let mut answers = Vec::new();
    for (n, update) in [(1, Ok(update(1, 1, 0))), (3, Err(bad)), (2, Ok(update(2, 1, 0)))] {
        let (verdict, answer) = oneshot::channel();
        let worker = worker(n).id();
        inbox.send(Arrival::Update { worker, update, verdict }).await.unwrap();
        answers.push(answer);
    }
    drop(inbox);
    let ended = owner.run(arrivals, Ending::WhenAsked).await;
    let mut told = Vec::new();
    for answer in answers {
        told.push(answer.await.ok());
    }
    let sizes = store.sizes.lock().unwrap().clone();
    (ended, sizes, told)
}

#[tokio::test]
async fn what_waits_together_is_stored_at_once_and_then_answered() {
    let (ended, groups, told) = owned(1).await;
    assert_eq!(ended.unwrap().counters.accepted, 2);
    assert_eq!(groups, [3], "two updates and what one counts against its worker, one flush");
    let outcomes: Vec<Outcome> = told.into_iter().map(|verdict| verdict.unwrap().outcome).collect();
    assert!(matches!(outcomes[..], [Outcome::Accepted, Outcome::Rejected(_), Outcome::Accepted]), "{outcomes:?}");
}

#[tokio::test]
async fn of_a_group_that_cannot_be_stored_nobody_is_told() {
    let (ended, groups, told) = owned(0).await;
    assert_eq!(ended.unwrap_err().to_string(), "write store: no space left");
    assert_eq!((groups, told), (vec![], vec![None, None, None]));
}
