//! A worker without a model: it keeps a replica, and its updates follow from its key and the assignment.

use std::net::SocketAddr;
use std::sync::Arc;

use packfed_codec::{Encoder, Scales, Seed, State, decode_catch_up};
use packfed_coordinator::config::CoordinatorFile;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::quic::{Client, QuicError, client, read_frame, read_message, read_piece, write_message};
use packfed_protocol::{
    Assignment, CatchUp, CatchUpOffer, CheckIn, Conditions, Digest, Enroll, Fetch, Finished, Frame, Identity,
    LaneClips, Limits, Message, Offer, Outcome, Plan, Prefix, Rejection, RejectionCode, Resume, Signed, UpdateHeader,
    Version,
};
use serde_json::Value;

use crate::served::{Serving, TOKEN, coordinator, file, worker};

pub(crate) struct Worker {
    pub(crate) identity: Identity,
    plan: Arc<RunPlan>,
    replica: State,
    version: u64,
    pub(crate) client: Client,
    pub(crate) connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Worker {
    /// Worker `n`, connected to a coordinator in this process.
    pub(crate) async fn connect(n: u8, serving: &Serving) -> Self {
        Self::connect_to(n, serving.address, &serving.config.plan).await
    }

    pub(crate) async fn connect_to(n: u8, address: SocketAddr, plan: &Arc<RunPlan>) -> Self {
        let identity = worker(n);
        let client = client(&identity).unwrap();
        let connection = client.connect(address, &coordinator().id()).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let replica = State::zero(plan.layout().clone());
        Self { identity, plan: Arc::clone(plan), replica, version: 0, client, connection, send, recv }
    }

    /// The same worker with its replica, on a new connection.
    pub(crate) async fn reconnect_to(&mut self, address: SocketAddr) {
        self.connection = self.client.connect(address, &coordinator().id()).await.unwrap();
        (self.send, self.recv) = self.connection.open_bi().await.unwrap();
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.replica.digest().0)
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        write_message(&mut self.send, message).await.unwrap();
    }

    pub(crate) async fn try_say(&mut self, message: &Message) -> Result<usize, QuicError> {
        write_message(&mut self.send, message).await
    }

    /// Bytes on the control stream.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// What the coordinator says next, fetched if it is announced; `None` if it says no more.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        match self.hear_frame().await? {
            Frame::Message(message) => Some(message),
            Frame::Offer(Offer::CatchUp(offer)) => {
                let mut prefix = Prefix::new(offer.body);
                self.fetch(&mut prefix, offer.body.bytes).await.unwrap();
                Some(Message::CatchUp(offer.complete(prefix.finish().unwrap()).unwrap()))
            }
            Frame::Offer(offer) => panic!("{offer:?}"),
        }
    }

    pub(crate) async fn hear_frame(&mut self) -> Option<Frame> {
        read_frame(&mut self.recv, &Limits::default()).await.ok().flatten().map(|(frame, _)| frame)
    }

    /// What a catch-up says beforehand.
    pub(crate) async fn hear_offer(&mut self) -> CatchUpOffer {
        match self.hear_frame().await {
            Some(Frame::Offer(Offer::CatchUp(offer))) => offer,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for the rest of a payload and reads on until `until` bytes are there.
    pub(crate) async fn fetch(&self, prefix: &mut Prefix, until: u64) -> Result<(), Message> {
        let mut recv = self.ask(Fetch { payload: prefix.id().digest, offset: prefix.offset() }).await?;
        while prefix.offset() < until {
            read_piece(&mut recv, prefix).await.unwrap();
        }
        Ok(())
    }

    /// The stream that a fetched payload comes on, or what is said instead.
    pub(crate) async fn ask(&self, fetch: Fetch) -> Result<quinn::RecvStream, Message> {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        write_message(&mut send, &Message::Fetch(fetch)).await.unwrap();
        match read_message(&mut recv, &Limits::default()).await.unwrap().unwrap().0 {
            Message::Resume(resume) if resume.offset == fetch.offset => Ok(recv),
            other => Err(other),
        }
    }

    pub(crate) async fn hear_refusal(&mut self) -> Rejection {
        match self.hear().await {
            Some(Message::Refused(refused)) => refused.rejection,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn enroll(&mut self) {
        self.say(&Message::Enroll(Enroll { token: TOKEN, name: "late".to_owned() })).await;
        let enrolled = self.hear().await;
        assert!(matches!(enrolled, Some(Message::Enrolled(e)) if e.worker == self.identity.id()));
    }

    pub(crate) async fn check_in(&mut self) {
        let (run, version, digest) = (self.plan.raw().run, Version(self.version), self.digest());
        self.say(&Message::CheckIn(CheckIn {
            run,
            version,
            digest,
            examples: 50,
            conditions: Conditions::ALL,
            planned: true,
        }))
        .await;
    }

    /// Asks for the plan by checking in without one.
    pub(crate) async fn check_in_unplanned(&mut self) -> Plan {
        let (run, version, digest) = (self.plan.raw().run, Version(self.version), self.digest());
        self.say(&Message::CheckIn(CheckIn {
            run,
            version,
            digest,
            examples: 50,
            conditions: Conditions::ALL,
            planned: false,
        }))
        .await;
        match self.hear().await {
            Some(Message::Plan(plan)) => plan,
            other => panic!("{other:?}"),
        }
    }

    /// The next assignment; the replica is caught up before it.
    pub(crate) async fn assignment(&mut self) -> Assignment {
        match self.hear_caught_up().await {
            Message::Assignment(assignment) => {
                assert_eq!(assignment.base, Version(self.version));
                assignment
            }
            other => panic!("{other:?}"),
        }
    }

    /// The end of the run; the replica is the final model then.
    pub(crate) async fn finished(&mut self) -> Finished {
        match self.hear_caught_up().await {
            Message::Finished(finished) => {
                assert_eq!((finished.version, finished.digest), (Version(self.version), self.digest()));
                finished
            }
            other => panic!("{other:?}"),
        }
    }

    async fn hear_caught_up(&mut self) -> Message {
        loop {
            match self.hear().await.expect("the coordinator has more to say") {
                Message::CatchUp(catch_up) => self.apply(&catch_up),
                other => return other,
            }
        }
    }

    /// Takes the replica on.
    pub(crate) fn apply(&mut self, catch_up: &CatchUp) {
        if catch_up.from == Version(0) {
            self.replica = State::zero(self.plan.layout().clone());
        }
        decode_catch_up(&mut self.replica, self.plan.raw().profile, catch_up.body.bytes()).unwrap();
        self.version = catch_up.to.0;
        assert_eq!(self.digest(), catch_up.digest);
    }

    /// Whole numbers of the scales, from a seed of the worker, the round and its base.
    fn values(&self, assignment: &Assignment, scales: &[Scales]) -> Vec<f64> {
        let window = packfed_codec::Window::new(self.plan.raw().profile, assignment.turn);
        let mut values = vec![0.0; self.plan.layout().blocks() * window.width()];
        let seed = Seed::from_number(7).derive_for_key("test/worker", &self.identity.id().0);
        let mut stream = seed.derive("test/round", &[assignment.round.0, assignment.base.0]).stream();
        window.for_each_slot(self.plan.layout(), |slot| {
            let quantum = 2f64.powi(scales[slot.layer].exponent(slot.wave).into());
            values[slot.index] = (stream.unit() * 200.0 - 90.0).round() * quantum;
        });
        values
    }

    /// This worker's update for an assignment.
    pub(crate) fn update(&self, assignment: &Assignment) -> Signed {
        self.changed_update(assignment, |_| (), |_| ())
    }

    /// As [`Worker::update`], with a change to its values and one to its header, both signed.
    pub(crate) fn changed_update(
        &self,
        assignment: &Assignment,
        change_values: impl FnOnce(&mut [f64]),
        change_header: impl FnOnce(&mut UpdateHeader),
    ) -> Signed {
        let scales: Vec<Scales> =
            assignment.scales.iter().map(|s| Scales { wave: s.wave, residual: s.residual }).collect();
        let layout = self.plan.layout();
        let mut values = self.values(assignment, &scales);
        change_values(&mut values);
        let encoder = Encoder::new(layout, self.plan.raw().profile, assignment.turn, &scales).unwrap();
        let mut words = encoder.nearest(&values).unwrap().words;
        let [n, ..] = self.identity.id().0;
        let mut header = UpdateHeader {
            worker: self.identity.id(),
            run: self.plan.raw().run,
            round: assignment.round,
            base: assignment.base,
            layout: self.plan.layout_digest(),
            examples: 1 + u32::from(n % 50),
            train_loss: 0.5,
            clipped: vec![LaneClips::default(); scales.len()],
            words: u32::try_from(layout.blocks()).unwrap(),
            payload: Digest([0; 32]),
        };
        change_header(&mut header);
        words.resize(16 * header.words as usize, 0);
        Signed::new(&self.identity, header, words)
    }

    pub(crate) async fn upload(&self, update: &Signed) -> Outcome {
        match self.try_upload(update).await {
            Some(Message::Verdict(verdict)) => verdict.outcome,
            other => panic!("{other:?}"),
        }
    }

    /// The verdict, or `None` if the connection ends without one.
    pub(crate) async fn try_upload(&self, update: &Signed) -> Option<Message> {
        match self.offer(update).await? {
            Ok((mut send, mut recv, resume)) => {
                let offset = usize::try_from(resume.offset).unwrap();
                send.write_all(&update.payload[offset..]).await.ok()?;
                send.finish().ok()?;
                read_message(&mut recv, &Limits::default()).await.ok().flatten().map(|(message, _)| message)
            }
            Err(answer) => Some(answer),
        }
    }

    /// Offers an update: the stream that waits for its words and where they go on, or what is said instead.
    pub(crate) async fn offer(
        &self,
        update: &Signed,
    ) -> Option<Result<(quinn::SendStream, quinn::RecvStream, Resume), Message>> {
        let (mut send, mut recv) = self.connection.open_bi().await.ok()?;
        write_message(&mut send, &Message::Update(update.clone())).await.ok()?;
        let answer = read_message(&mut recv, &Limits::default()).await.ok().flatten()?;
        Some(match answer.0 {
            Message::Resume(resume) => Ok((send, recv, resume)),
            other => Err(other),
        })
    }

    /// Says that nothing more comes on the control stream.
    pub(crate) async fn end_control(&mut self) {
        self.send.finish().unwrap();
    }

    /// Writes these bytes on a stream of their own, without being asked for any, and reads the verdict.
    pub(crate) async fn upload_bytes(&self, bytes: &[u8]) -> Outcome {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        // A verdict may come before everything was written.
        if send.write_all(bytes).await.is_ok() {
            let _ = send.finish();
        }
        Self::verdict(&mut recv).await
    }

    /// Writes these bytes and no end.
    pub(crate) async fn upload_unfinished(&self, bytes: &[u8]) -> Outcome {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        Self::verdict(&mut recv).await
    }

    pub(crate) async fn verdict(recv: &mut quinn::RecvStream) -> Outcome {
        loop {
            match read_message(recv, &Limits::default()).await.unwrap().unwrap().0 {
                Message::Verdict(verdict) => return verdict.outcome,
                Message::Resume(Resume { offset: 0 }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn rejected(&self, bytes: &[u8]) -> RejectionCode {
        match self.upload_bytes(bytes).await {
            Outcome::Rejected(rejection) => rejection.code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn accepted(&self, update: &Signed) {
        assert_eq!(self.upload(update).await, Outcome::Accepted);
    }

    /// Why the connection ended, when it has.
    pub(crate) async fn closed(&self) -> String {
        self.connection.closed().await.to_string()
    }

    pub(crate) async fn leave(self) {
        self.client.close();
        self.client.wait_idle().await;
    }
}

/// Workers 1 to `n`, checked in.
pub(crate) async fn fleet(n: u8, serving: &Serving) -> Vec<Worker> {
    let mut workers = Vec::new();
    for n in 1..=n {
        let mut worker = Worker::connect(n, serving).await;
        worker.check_in().await;
        workers.push(worker);
    }
    workers
}

/// One honest round of all.
pub(crate) async fn round(workers: &mut [Worker]) {
    for worker in workers.iter_mut() {
        let assignment = worker.assignment().await;
        worker.accepted(&worker.update(&assignment)).await;
        worker.check_in().await;
    }
}

/// The end of the run for all.
pub(crate) async fn leave(workers: Vec<Worker>) {
    for mut worker in workers {
        worker.finished().await;
        worker.leave().await;
    }
}

/// The report of two rounds in which nobody does anything wrong.
pub(crate) async fn undisturbed(workers: u8) -> Value {
    undisturbed_of(&file(workers.into(), 2), workers).await
}

/// The report of a run in which nobody does anything wrong.
pub(crate) async fn undisturbed_of(file: &CoordinatorFile, workers: u8) -> Value {
    let serving = Serving::start(file, workers);
    let mut workers = fleet(workers, &serving).await;
    for _ in 0..file.run.rounds {
        round(&mut workers).await;
    }
    leave(workers).await;
    serde_json::to_value(serving.outcome().await.unwrap().report).unwrap()
}
