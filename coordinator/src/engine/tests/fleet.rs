//! All that surrounds an engine, in memory: workers with keys and replicas, a disk, a clock to jump.
//!
//! Whatever a test is about, carrying out effects here checks what has to hold always: one round at a
//! time, versions by commits alone, an update journalled once and before its verdict, nothing sent
//! before it is stored, replicas that agree with the head, and counters that add up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use packfed_codec::{Encoder, LayerSpec, Profile, Scales, Seed, State, WAVE_LANES, Window, decode_catch_up};
use packfed_protocol::{
    Assignment, CheckIn, Conditions, Digest, Identity, LaneClips, Message, Outcome, Rejection, RejectionCode, Round,
    Signed, Timestamp, UpdateHeader, Verdict, Verified, Version, WorkerId,
};

use crate::change::Change;
use crate::engine::Engine;
use crate::event::{Effect, Event, OpenRound, Stored, Ticket, Write};
use crate::ledger::Note;
use crate::memory_store::MemoryStore;
use crate::plan::{Phase, RawPlan, RunPlan, tests::raw};
use crate::registry::{FOREVER, Member, Registry, Standing};
use crate::store::Store;

/// An engine and everything around it.
pub(super) struct Fleet {
    pub(super) engine: Engine,
    pub(super) disk: Disk,
    pub(super) now: Timestamp,
    pub(super) workers: Vec<Worker>,
    /// Whether what a rule is asked for is computed at once.
    pub(super) answers: bool,
    /// Outcomes since the engine last started: arrived, accepted, rejected, discarded.
    outcomes: [u64; 4],
    /// What became of the last order.
    answered: Option<Result<u64, Rejection>>,
}

/// One worker; its number in the fleet is its rank by key.
pub(super) struct Worker {
    pub(super) identity: Identity,
    pub(super) version: u64,
    pub(super) replica: State,
    pub(super) planned: bool,
    pub(super) assignment: Option<Assignment>,
}

/// What was made durable, and the rules for it.
pub(super) struct Disk {
    pub(super) stored: Stored,
    /// The same writes, where words are read from.
    pub(super) journal: MemoryStore,
    accepted: BTreeSet<(Round, WorkerId)>,
    /// Whether several rounds may be open at once.
    buffered: bool,
    journalled: u64,
    acknowledged: u64,
}

impl Fleet {
    /// `admitted` workers, all waited for; then one that is suspended and one that nobody knows.
    pub(super) fn of(admitted: u32, change: impl FnOnce(&mut RawPlan)) -> Self {
        let spec = |name: &str, rows, cols| LayerSpec {
            name: name.into(),
            rows,
            cols,
            block: 4,
            residual: 16,
            gain_exponent: 4,
        };
        let all = Phase { goal: admitted, min: 2, timeout_ms: 1_000 };
        let mut raw = RawPlan {
            layers: vec![spec("a", 8, 6), spec("b", 5, 1)],
            rate_exponents: vec![0, 0],
            selection: all,
            reporting: Phase { timeout_ms: 5_000, ..all },
            ..raw()
        };
        change(&mut raw);
        let plan = Arc::new(RunPlan::new(raw).unwrap());
        let workers = workers(admitted as usize + 2, &plan);
        let standing = |standing| Member::new("w".into(), standing);
        let mut members: BTreeMap<_, _> =
            workers[..admitted as usize].iter().map(|w| (w.identity.id(), standing(Standing::Admitted))).collect();
        members.insert(workers[admitted as usize].identity.id(), standing(Standing::Suspended(FOREVER)));
        let engine = Engine::new(plan, Registry::new(members, BTreeSet::new()), Timestamp(0));
        Self {
            disk: Disk::new(&engine),
            engine,
            now: Timestamp(0),
            workers,
            answers: true,
            outcomes: [0; 4],
            answered: None,
        }
    }

    /// The number of the worker that is suspended; the one after it is unknown.
    pub(super) fn suspended(&self) -> usize {
        self.workers.len() - 2
    }

    /// Hands the engine one event, carries out what it asks for, and says what that was.
    pub(super) fn handle(&mut self, event: Event) -> Vec<String> {
        if let Event::Update { .. } | Event::BadUpdate { .. } = event {
            self.outcomes[0] += 1;
        }
        let effects = self.engine.handle(event, self.now);
        let mut lines: Vec<String> = effects.iter().map(|effect| self.carry_out(effect)).collect();
        lines.retain(|line| !line.is_empty());
        assert_eq!(self.disk.journalled, self.disk.acknowledged, "a stored update has its verdict");
        assert_eq!(self.engine.head().version(), self.disk.stored.head.version, "a version is a stored commit");
        self.check_counters();
        for effect in effects {
            if let (Effect::Aggregate(task), true) = (effect, self.answers) {
                let answer = task.answer(&self.disk.journal);
                lines.extend(self.handle(answer));
            }
        }
        lines
    }

    /// A worker reports that it is there, with the replica that it has.
    pub(super) fn check_in(&mut self, i: usize) -> Vec<String> {
        let event = Event::CheckIn { worker: self.id(i), check_in: self.check_in_of(i) };
        self.handle(event)
    }

    pub(super) fn check_in_of(&self, i: usize) -> CheckIn {
        let worker = &self.workers[i];
        let (version, digest) = (Version(worker.version), Digest(worker.replica.digest().0));
        CheckIn {
            run: self.engine.plan().raw().run,
            version,
            digest,
            examples: 10,
            conditions: Conditions::ALL,
            planned: worker.planned,
        }
    }

    pub(super) fn check_in_all(&mut self, workers: impl IntoIterator<Item = usize>) {
        for i in workers {
            self.check_in(i);
        }
    }

    /// A worker sends what it trained for its last assignment.
    pub(super) fn report(&mut self, i: usize) -> Vec<String> {
        let update = self.update(i);
        self.send(update)
    }

    pub(super) fn send(&mut self, update: Verified) -> Vec<String> {
        let ticket = Ticket(self.outcomes[0]);
        self.handle(Event::Update { ticket, update })
    }

    /// Every worker of the fleet that may checks in, and all that are drawn report, in order.
    pub(super) fn whole_round(&mut self) {
        self.check_in_all(0..self.suspended());
        for i in self.drawn() {
            self.report(i);
        }
    }

    pub(super) fn tick_to(&mut self, ms: u64) -> Vec<String> {
        self.now = Timestamp(ms);
        self.handle(Event::Tick)
    }

    /// The process dies and starts again with what is on its disk.
    pub(super) fn restart(&mut self) {
        let (plan, registry) = (self.engine.plan().clone(), self.engine.registry.clone());
        self.engine = Engine::restore(plan, registry, self.disk.stored.clone(), self.now).unwrap();
        self.outcomes = [0; 4];
    }

    /// The update of a worker for its last assignment: uneven deltas, its own number of examples.
    pub(super) fn update(&self, i: usize) -> Verified {
        self.mangled(i, |_, _| {})
    }

    /// As [`Fleet::update`], changed before it is signed.
    pub(super) fn mangled(&self, i: usize, change: impl FnOnce(&mut UpdateHeader, &mut Vec<u8>)) -> Verified {
        let assignment = self.workers[i].assignment.as_ref().expect("the worker has an assignment");
        let payload = self.words(i, assignment);
        self.sign(i, assignment, payload, change)
    }

    /// Work of worker `i` for an assignment that somebody else was given.
    pub(super) fn uninvited(&self, i: usize, assignment: &Assignment) -> Verified {
        self.sign(i, assignment, self.words(i, assignment), |_, _| {})
    }

    fn sign(
        &self,
        i: usize,
        assignment: &Assignment,
        mut payload: Vec<u8>,
        change: impl FnOnce(&mut UpdateHeader, &mut Vec<u8>),
    ) -> Verified {
        let plan = self.engine.plan();
        let number = u32::try_from(i).unwrap();
        let mut header = UpdateHeader {
            worker: self.id(i),
            run: plan.raw().run,
            round: assignment.round,
            base: assignment.base,
            layout: plan.layout_digest(),
            examples: 7 * number + 3,
            train_loss: 1.0 / (number as f32 + 1.0),
            clipped: vec![LaneClips::default(); assignment.scales.len()],
            words: u32::try_from(payload.len() / 16).unwrap(),
            payload: Digest([0; 32]),
        };
        change(&mut header, &mut payload);
        let sender = header.worker;
        Signed::new(&self.workers[i].identity, header, payload).verify(&sender).unwrap()
    }

    /// Words of uneven deltas that differ by worker and round and fill about half of every lane.
    fn words(&self, i: usize, assignment: &Assignment) -> Vec<u8> {
        let layout = self.engine.plan().layout();
        let scales: Vec<Scales> =
            assignment.scales.iter().map(|s| Scales { wave: s.wave, residual: s.residual }).collect();
        let window = Window::new(Profile::Plain, assignment.turn);
        let mut stream = Seed::from_number(assignment.round.0).derive("test/deltas", &[i as u64]).stream();
        let mut values = vec![0.0; layout.blocks() * window.width()];
        window.for_each_slot(layout, |slot| {
            let lane = if slot.wave { 0 } else { WAVE_LANES };
            let reach = f64::from(Profile::Plain.lane_max(lane));
            let unit = 2f64.powi(scales[slot.layer].exponent(slot.wave).into());
            values[slot.index] = (stream.unit() - 0.4) * reach * unit;
        });
        Encoder::new(layout, Profile::Plain, assignment.turn, &scales).unwrap().nearest(&values).unwrap().words
    }

    pub(super) fn id(&self, i: usize) -> WorkerId {
        self.workers[i].identity.id()
    }

    /// Gives a worker another standing.
    pub(super) fn stand(&mut self, worker: WorkerId, standing: Standing) -> Vec<String> {
        self.order(Change::Stand { worker, standing })
    }

    /// Gives an operator's order.
    pub(super) fn order(&mut self, change: Change) -> Vec<String> {
        let (by, why) = ("ann".to_owned(), "a test".to_owned());
        self.handle(Event::Ordered { ticket: Ticket(u64::MAX), by, why, change: Box::new(change) })
    }

    /// Gives an order, and says what became of it.
    pub(super) fn done(&mut self, change: Change) -> Result<u64, Rejection> {
        self.order(change);
        self.answered.take().expect("every order is answered")
    }

    /// The cohort of the open round.
    pub(super) fn drawn(&self) -> Vec<usize> {
        self.disk.stored.open.iter().flat_map(|(open, _)| &open.cohort).map(|id| self.number(id)).collect()
    }

    /// Workers that are there and free.
    pub(super) fn free(&self) -> Vec<usize> {
        self.engine.idle.keys().map(|id| self.number(id)).collect()
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.engine.head().digest().0)
    }

    /// Number of the latest open round.
    pub(super) fn open_round(&self) -> Option<u64> {
        self.disk.stored.open.last().map(|(open, _)| open.round.0)
    }

    fn number(&self, id: &WorkerId) -> usize {
        self.workers.iter().position(|worker| worker.identity.id() == *id).expect("a worker of the fleet")
    }

    fn carry_out(&mut self, effect: &Effect) -> String {
        match effect {
            Effect::Store(write) => {
                self.disk.write(write);
                self.describe_write(write)
            }
            Effect::Send { worker, message } => {
                let i = self.number(worker);
                self.deliver(i, message);
                format!("send {i} {}", describe(message))
            }
            Effect::Verdict { ticket, verdict } => {
                assert_eq!(ticket.0 + 1, self.outcomes[0], "the verdict is on the update that came");
                self.take_verdict(verdict)
            }
            Effect::Aggregate(task) => format!("aggregate {} of {}", task.updates.len(), task.round.0),
            // What an order comes to is looked at where one is given.
            Effect::Ordered { result, .. } => {
                self.answered = Some(result.clone());
                String::new()
            }
            Effect::Offer { worker, target, .. } => {
                let target = target.map_or("base".to_owned(), |target| format!("release {}", target.number));
                format!("offer {} {target}", self.number(worker))
            }
            Effect::Wake(at) => {
                assert!(*at > self.now, "woken in the future");
                format!("wake {}", at.0)
            }
        }
    }

    fn describe_write(&self, write: &Write) -> String {
        match write {
            Write::Enroll { worker, .. } => format!("store enroll {}", self.number(worker)),
            Write::Members(entries) => {
                let numbers: Vec<_> = entries.iter().map(|(worker, _)| self.number(worker).to_string()).collect();
                format!("store members {}", numbers.join(" "))
            }
            Write::Open(open) => format!("store open {}", open.round),
            Write::Accept { round, worker, .. } => format!("store accept {} into {round}", self.number(worker)),
            Write::Abandon { round } => format!("store abandon {round}"),
            Write::Commit(commit) => format!("store commit {} as version {}", commit.round, commit.head.version),
            // Every round that is over has one.
            Write::Note(Note::Past(_)) => String::new(),
            Write::Note(note) => format!("store {note:?}"),
        }
    }

    fn take_verdict(&mut self, verdict: &Verdict) -> String {
        match &verdict.outcome {
            Outcome::Accepted => {
                self.outcomes[1] += 1;
                self.disk.acknowledged += 1;
                assert_eq!(self.disk.journalled, self.disk.acknowledged, "journalled, then acknowledged");
                "verdict accepted".into()
            }
            Outcome::Rejected(rejection) => {
                self.outcomes[2] += 1;
                format!("verdict rejected {}", rejection.code)
            }
            Outcome::Discarded => {
                self.outcomes[3] += 1;
                "verdict discarded".into()
            }
        }
    }

    /// What a worker does with a message, and what it may rely on.
    fn deliver(&mut self, i: usize, message: &Message) {
        let (worker, stored) = (&mut self.workers[i], &self.disk.stored);
        match message {
            Message::Plan(_) => worker.planned = true,
            Message::CatchUp(catch_up) => {
                assert_eq!(catch_up.to.0, stored.head.version, "only a stored version is sent");
                if catch_up.from.0 == 0 {
                    worker.replica = State::zero(worker.replica.layout().clone());
                } else {
                    assert_eq!(catch_up.from.0, worker.version, "it starts from what the replica has");
                }
                decode_catch_up(&mut worker.replica, Profile::Plain, catch_up.body.bytes()).unwrap();
                assert_eq!(Digest(worker.replica.digest().0), catch_up.digest, "the replica agrees");
                worker.version = catch_up.to.0;
            }
            Message::Assignment(assignment) => {
                let of_it = |(open, _): &&(OpenRound, _)| open.round == assignment.round;
                let (open, _) = stored.open.iter().find(of_it).expect("an assignment is of a stored round");
                assert_eq!((assignment.base.0, assignment.base.0), (open.base, worker.version));
                assert!(worker.planned && open.cohort.contains(&worker.identity.id()));
                if open.base == stored.head.version {
                    assert_eq!(worker.replica.digest(), stored.head.state.digest());
                }
                worker.assignment = Some(assignment.clone());
            }
            Message::Finished(finished) => {
                assert_eq!((finished.version.0, worker.version), (stored.head.version, stored.head.version));
                assert_eq!(Digest(worker.replica.digest().0), finished.digest);
            }
            Message::ComeBack(come_back) => {
                assert!(come_back.after_ms > 0, "not at once");
                assert!(!self.engine.idle.contains_key(&self.workers[i].identity.id()), "who is sent away is not held");
            }
            Message::Refused(_) | Message::Enrolled(_) => {}
            other => panic!("the engine never sends a {}", other.frame_type()),
        }
    }

    fn check_counters(&self) {
        let counters = self.engine.counters();
        let [arrived, accepted, rejected, discarded] = self.outcomes;
        assert_eq!(counters.accepted + counters.rejected_in_all() + counters.discarded, counters.arrived);
        let counted = [counters.arrived, counters.accepted, counters.rejected_in_all(), counters.discarded];
        assert_eq!(counted, [arrived, accepted, rejected, discarded]);
    }
}

impl Disk {
    fn new(engine: &Engine) -> Self {
        let stored = Stored {
            head: engine.head().record().clone(),
            scales: engine.scales.clone(),
            next_round: Round(1),
            open: Vec::new(),
            last: None,
        };
        let buffered = engine.plan().raw().buffered.is_some();
        let (mut journal, accepted) = (MemoryStore::default(), BTreeSet::new());
        journal.claim(engine.plan()).unwrap();
        Self { stored, journal, accepted, buffered, journalled: 0, acknowledged: 0 }
    }

    fn write(&mut self, write: &Write) {
        self.journal.write(write).unwrap();
        let stored = &mut self.stored;
        match write {
            Write::Enroll { .. } | Write::Members(_) | Write::Note(_) => {}
            Write::Open(open) => {
                if let Some((known, _)) = stored.open.iter_mut().find(|(known, _)| known.round == open.round) {
                    let left = |worker| known.cohort.contains(worker);
                    assert!(
                        self.buffered || open.cohort.iter().all(left),
                        "a round that is not buffered takes in nobody"
                    );
                    let OpenRound { cohort, deadline, .. } = open.clone();
                    *known = OpenRound { cohort, deadline, ..known.clone() };
                    assert_eq!(known, open, "what an open round is stays as it is");
                    return;
                }
                assert!(self.buffered || stored.open.is_empty(), "one round at a time");
                assert_eq!((open.round, open.base), (stored.next_round, stored.head.version));
                stored.next_round = open.round.next();
                stored.open.push((open.clone(), Vec::new()));
            }
            Write::Accept { round, worker, frame } => {
                let of_it = |(open, _): &&mut (OpenRound, _)| open.round == *round;
                let (open, frames) = stored.open.iter_mut().find(of_it).expect("only an open round accepts");
                assert!(open.cohort.contains(worker), "into its own round");
                assert!(self.accepted.insert((*round, *worker)), "no worker is in a round twice");
                frames.push(frame.to_vec());
                self.journalled += 1;
            }
            Write::Abandon { round } => {
                let place = stored.open.iter().position(|(open, _)| open.round == *round);
                stored.open.remove(place.expect("an open round is abandoned"));
            }
            Write::Commit(commit) => {
                let before = std::mem::take(&mut stored.open);
                let with_updates = before.iter().filter(|(_, frames)| !frames.is_empty());
                let latest = with_updates.max_by_key(|(open, _)| open.round).expect("an open round is committed");
                assert_eq!((commit.round, commit.head.version), (latest.0.round, stored.head.version + 1));
                let frames = before.iter().map(|(_, frames)| frames.len()).sum::<usize>();
                assert_eq!(commit.summary.updates as usize, frames, "what is journalled is what is summed");
                assert!(self.buffered || commit.open.is_empty());
                for open in &commit.open {
                    let (known, _) = before.iter().find(|(known, _)| known.round == open.round).expect("it was open");
                    let counted = |worker: &&WorkerId| self.accepted.contains(&(open.round, **worker));
                    let rest: Vec<_> = known.cohort.iter().filter(|worker| !counted(worker)).copied().collect();
                    assert_eq!(open, &OpenRound { cohort: rest, ..known.clone() }, "whoever has not reported goes on");
                    stored.open.push((open.clone(), Vec::new()));
                }
                assert_eq!(commit.summary.digest, Digest(commit.head.state.digest().0));
                stored.head = commit.head.clone();
                stored.scales = commit.scales.clone();
                stored.last = Some(commit.summary);
            }
        }
    }
}

impl Worker {
    /// The worker starts anew, with nothing but its key.
    pub(super) fn forget(&mut self) {
        (self.version, self.replica) = (0, State::zero(self.replica.layout().clone()));
    }
}

fn workers(n: usize, plan: &RunPlan) -> Vec<Worker> {
    let seed = |i: usize| Seed::from_number(i as u64).derive("test/worker", &[]);
    let mut identities: Vec<_> = (0..n).map(|i| Identity::from_seed(*seed(i).bytes())).collect();
    identities.sort_by_key(Identity::id);
    let replica = State::zero(plan.layout().clone());
    let worker = |identity| Worker { identity, version: 0, replica: replica.clone(), planned: true, assignment: None };
    identities.into_iter().map(worker).collect()
}

fn describe(message: &Message) -> String {
    match message {
        Message::CatchUp(catch_up) => format!("catch-up {} to {}", catch_up.from, catch_up.to),
        Message::Assignment(assignment) => format!("assignment {}", assignment.round),
        Message::Refused(refused) => format!("refused {}", refused.rejection.code),
        Message::ComeBack(come_back) => format!("come-back {}", come_back.why.code),
        other => other.frame_type().to_string(),
    }
}

/// An update that could not be read.
pub(super) fn unreadable(worker: WorkerId, ticket: u64) -> Event {
    let rejection = Rejection::new(RejectionCode::BadSignature, "the signature does not verify");
    Event::BadUpdate { ticket: Ticket(ticket), worker, rejection }
}
