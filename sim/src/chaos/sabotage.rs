//! Guards that are broken on purpose, to see that the invariant behind each of them notices.
//!
//! A sabotage changes what the engine asks for on its way to the store and the wire, or what the engine is given;
//! nothing of what ships is changed.

use packfed_coordinator::event::{Effect, Stored, Write};
use packfed_coordinator::ledger::{Ledger, Note};
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::rollout::Phase;
use packfed_coordinator::store::{Store, StoreError};
use packfed_protocol::{CatchUp, Message, Refused, Rejection, RejectionCode, Round, Version, WorkerId};

/// One guard that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The store takes no notice that a round was abandoned: the next one opens beside it.
    AbandonedRoundStaysOpen,
    /// The store writes the second commit under a number one too high.
    CommitSkipsAVersion,
    /// The store loses every third commit and says that it has it: the head moves on without one.
    CommitIsLost,
    /// The engine runs with a plan that lets one update suffice.
    OneUpdateSuffices,
    /// An accepted update is taken again, as if the check for it were gone.
    UpdateIsFoldedTwice,
    /// A verdict is counted and not sent.
    VerdictIsLost,
    /// A replica is told that it is a version further than it is.
    ReplicaSkipsAStep,
    /// The store loses an accepted update and says that it has it.
    AcceptedUpdateIsLost,
    /// A worker that lost its connection, or could not make one, does not try again.
    NobodyReconnects,
    /// A worker in order is told that it is not enrolled.
    HonestWorkerIsRefused,
    /// The store hands back the open round's journal with a flipped bit.
    JournalRots,
    /// The disk under the store says that it has synced, and has not.
    DiskLies,
    /// A later stage of a rollout leaves out whom the one before had taken in.
    StageDropsWorkers,
    /// The first stage of a rollout takes in everybody.
    FirstStageIsEverybody,
    /// A worker that is to go back is told to stay with what ended.
    EndedReleaseIsOffered,
    /// A worker does not hear that it is to run the base model again.
    TargetGoesUnheard,
    /// The store loses that a rollout ended and says that it has it.
    EndIsLost,
    /// The store loses who has reported.
    ReporterIsForgotten,
    /// Nobody is told to run anything.
    OfferIsLost,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AbandonedRoundStaysOpen,
        Self::CommitSkipsAVersion,
        Self::CommitIsLost,
        Self::OneUpdateSuffices,
        Self::UpdateIsFoldedTwice,
        Self::VerdictIsLost,
        Self::ReplicaSkipsAStep,
        Self::AcceptedUpdateIsLost,
        Self::NobodyReconnects,
        Self::HonestWorkerIsRefused,
        Self::JournalRots,
        Self::DiskLies,
        Self::StageDropsWorkers,
        Self::FirstStageIsEverybody,
        Self::EndedReleaseIsOffered,
        Self::TargetGoesUnheard,
        Self::EndIsLost,
        Self::ReporterIsForgotten,
        Self::OfferIsLost,
    ];

    /// What becomes of an effect on its way.
    pub(super) fn pass(self, effect: Effect) -> Vec<Effect> {
        match (self, effect) {
            (Self::AbandonedRoundStaysOpen, Effect::Store(Write::Abandon { .. }))
            | (Self::AcceptedUpdateIsLost, Effect::Store(Write::Accept { .. }))
            | (Self::VerdictIsLost, Effect::Verdict { .. })
            | (Self::ReporterIsForgotten, Effect::Store(Write::Note(Note::Reported { .. })))
            | (Self::OfferIsLost, Effect::Offer { .. }) => Vec::new(),
            (Self::CommitIsLost, Effect::Store(Write::Commit(commit))) if commit.head.version.is_multiple_of(3) => {
                Vec::new()
            }
            (Self::UpdateIsFoldedTwice, effect @ Effect::Store(Write::Accept { .. })) => vec![effect.clone(), effect],
            (Self::CommitSkipsAVersion, Effect::Store(Write::Commit(mut commit))) => {
                commit.head.version += u64::from(commit.head.version == 2);
                vec![Effect::Store(Write::Commit(commit))]
            }
            (Self::ReplicaSkipsAStep, Effect::Send { worker, message: Message::CatchUp(catch_up) }) => {
                let to = Version(catch_up.to.0 + 1);
                vec![Effect::Send { worker, message: Message::CatchUp(CatchUp { to, ..catch_up }) }]
            }
            (Self::HonestWorkerIsRefused, Effect::Send { worker, message: Message::Assignment(_) }) => {
                let rejection = Rejection::new(RejectionCode::UnknownWorker, "the key is not enrolled");
                vec![Effect::Send { worker, message: Message::Refused(Refused { rejection }) }]
            }
            (Self::EndIsLost, Effect::Store(Write::Note(Note::Rollout(record))))
                if matches!(record.phase, Phase::Aborted | Phase::RolledBack) =>
            {
                Vec::new()
            }
            (Self::StageDropsWorkers, Effect::Store(Write::Note(Note::Rollout(mut record)))) => {
                record.threshold /= if record.phase.stage() == Some(1) { 1 << 20 } else { 1 };
                vec![Effect::Store(Write::Note(Note::Rollout(record)))]
            }
            (Self::FirstStageIsEverybody, Effect::Store(Write::Note(Note::Rollout(mut record)))) => {
                record.threshold = u64::MAX;
                vec![Effect::Store(Write::Note(Note::Rollout(record)))]
            }
            (Self::EndedReleaseIsOffered, Effect::Offer { worker, target, runs: Some(runs) })
                if target.is_none_or(|target| target.number < runs.number) =>
            {
                vec![Effect::Offer { worker, target: Some(runs), runs: Some(runs) }]
            }
            (_, effect) => vec![effect],
        }
    }
}

/// A store whose open round comes back with a flipped bit in its first update.
pub(super) struct RottenJournal<'a>(pub(super) &'a mut dyn Store);

impl Store for RottenJournal<'_> {
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError> {
        self.0.claim(plan)
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.0.write_all(writes)
    }

    fn read_update(
        &self,
        round: Round,
        worker: &WorkerId,
        before_end: usize,
        bytes: &mut [u8],
    ) -> Result<(), StoreError> {
        self.0.read_update(round, worker, before_end, bytes)
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        self.0.registry()
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        self.0.ledger()
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        let mut stored = self.0.load(plan)?;
        let mut frames = stored.iter_mut().flat_map(|stored| &mut stored.open).flat_map(|(_, frames)| frames);
        if let Some(byte) = frames.next().and_then(|frame| frame.last_mut()) {
            *byte ^= 1;
        }
        Ok(stored)
    }
}
