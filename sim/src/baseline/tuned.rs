//! A baseline's run of a task: several learning rates, the best of which is the result.
//!
//! What travels is counted as packfed's is: the same frames, headers and signatures around a payload of
//! f32 parameters, down only to a worker whose copy is old, and the final model to everyone.

use packfed_codec::Seed;
use packfed_coordinator::cohort;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_protocol::{
    Assignment, CatchUp, CheckIn, Conditions, Digest, Finished, Identity, LocalOptimizer, Message, Outcome, Payload,
    Plan, Round, RunId, Signed, UpdateHeader, Verdict, Version, WorkerId,
};
use packfed_worker::local::LocalSteps;
use packfed_worker::session::training_seed;

use super::fedavg::{FlatModel, Member, Server};
use crate::compare::CompareError;
use crate::federated::FederatedTask;
use crate::options::Options;
use crate::progress::Progress;
use crate::results::{MethodResult, Point, Tuned, shortest};
use crate::stopwatch::Stopwatch;

/// A baseline: its name, its model and the learning rates to try.
#[derive(Debug)]
pub struct Baseline<'a, M> {
    /// `dense`, `lora-r4`, ….
    pub name: &'a str,
    /// The model.
    pub model: M,
    /// Its parameters before the first round.
    pub initial: Vec<f32>,
    /// Learning rates to try.
    pub rates: &'a [f32],
    /// Local training but for its rate.
    pub steps: LocalSteps,
    /// The server optimizer.
    pub optimizer: ServerOptimizer,
}

impl<M: FlatModel> Baseline<'_, M> {
    /// Runs every learning rate to the end and returns the best run, with what each came to.
    ///
    /// # Errors
    /// If training fails under every rate.
    pub fn run(&self, task: &M::Task, options: &Options, progress: &Progress) -> Result<MethodResult, CompareError> {
        let mut best: Option<MethodResult> = None;
        let mut tuning = Vec::new();
        for &rate in self.rates {
            let result = self.run_with(task, options, rate, progress)?;
            tuning.push(Tuned { learning_rate: result.learning_rate, score: result.score });
            if best.as_ref().is_none_or(|best| task.metric().prefers(&result.score, &best.score)) {
                best = Some(result);
            }
        }
        let best = best.ok_or(CompareError::NoRate)?;
        Ok(MethodResult { tuning, ..best })
    }

    fn run_with(
        &self,
        task: &M::Task,
        options: &Options,
        rate: f32,
        progress: &Progress,
    ) -> Result<MethodResult, CompareError> {
        let steps = LocalSteps { learning_rate: rate, ..self.steps };
        let learning_rate = shortest(rate);
        let display = progress.method(&format!("{} {learning_rate}", self.name), options.rounds, task.metric());
        let identities: Vec<WorkerId> = options.identities().iter().map(Identity::id).collect();
        let mut traffic = Traffic::new(self.initial.len(), options);
        let mut server = Server::new(self.initial.clone(), self.optimizer);
        let mut score = self.model.score(task, &server.parameters)?;
        let mut curve = vec![Point { score, ..Point::default() }];
        let mut watch = Stopwatch::started();
        for number in 1..=options.rounds {
            let cohort = draw(&options.run_seed(), Round(number), &identities, options.cohort);
            let member =
                |&(n, seed): &(usize, Seed)| Member { data: &*task.data()[n], examples: task.examples(n), seed };
            let members: Vec<Member<'_, _>> = cohort.iter().map(member).collect();
            server.round(&self.model, &members, steps, options.threads)?;
            traffic.round(number - 1, cohort.iter().map(|&(n, _)| n));
            watch.pause();
            let tested = number.is_multiple_of(task.test_every()) || number == options.rounds;
            if tested {
                score = self.model.score(task, &server.parameters)?;
                let (bytes_up, bytes_down) = (traffic.up, traffic.down);
                curve.push(Point { round: number, score, bytes_up, bytes_down, virtual_s: 0.0 });
            }
            display.round(number, tested.then_some(score), traffic.up, traffic.down);
            watch.start();
        }
        watch.pause();
        traffic.finish(options.rounds);
        display.done(&score);
        let worker_rounds = (options.rounds * u64::from(options.cohort)) as f64;
        Ok(MethodResult {
            name: self.name.into(),
            score,
            bytes_up: traffic.up as f64 / worker_rounds,
            bytes_down: traffic.down as f64 / worker_rounds,
            rounds: options.rounds,
            worker_rounds_per_s: worker_rounds / watch.seconds(),
            digest: Digest::of(&server.parameters.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<u8>>())
                .to_string(),
            learning_rate,
            tuning: Vec::new(),
            curve,
        })
    }
}

/// The cohort that packfed's engine would draw, with each member's seed.
fn draw(seed: &Seed, round: Round, workers: &[WorkerId], size: u32) -> Vec<(usize, Seed)> {
    let drawn = cohort::draw(seed, round, workers.iter().copied(), size as usize);
    let place = |worker: WorkerId| {
        let n = workers.iter().position(|&w| w == worker).expect("a cohort is drawn from the workers");
        (n, training_seed(seed, round, &worker))
    };
    drawn.into_iter().map(place).collect()
}

/// Bytes that dense parameters would take on packfed's wire.
struct Traffic {
    up: u64,
    down: u64,
    check_in: u64,
    update: u64,
    model: u64,
    assignment: u64,
    verdict: u64,
    plan: u64,
    finished: u64,
    /// Version of each worker's copy.
    copies: Vec<u64>,
}

impl Traffic {
    /// Everybody checks in and is told the plan.
    fn new(parameters: usize, options: &Options) -> Self {
        let size = |message: Message| message.encode().len() as u64;
        let (run, digest, version) = (RunId([0; 16]), Digest([0; 32]), Version(0));
        let header = UpdateHeader {
            worker: WorkerId([0; 32]),
            run,
            round: Round(0),
            base: version,
            layout: digest,
            examples: 0,
            train_loss: 0.0,
            clipped: Vec::new(),
            words: 0,
            payload: digest,
        };
        let update = Signed::new(&Identity::from_seed([0; 32]), header, Vec::new());
        let assignment = Assignment {
            round: Round(0),
            base: version,
            turn: 0,
            steps: 0,
            batch: 0,
            learning_rate: 0.0,
            optimizer: LocalOptimizer::AdamW,
            weight_decay: 0.0,
            warmup: 0,
            clip_norm: 0.0,
            proximal: 0.0,
            deadline_ms: 0,
            scales: Vec::new(),
        };
        let plan = Plan {
            run,
            seed: [0; 32],
            base: digest,
            layout: digest,
            profile: 0,
            rounds: 0,
            examples_max: 0,
            layers: Vec::new(),
        };
        let payload = 4 * parameters as u64;
        let mut traffic = Self {
            up: 0,
            down: 0,
            check_in: size(Message::CheckIn(CheckIn {
                run,
                version,
                digest,
                examples: 0,
                conditions: Conditions::ALL,
                planned: true,
            })),
            update: size(Message::Update(update)) + payload,
            model: size(Message::CatchUp(CatchUp {
                from: version,
                to: version,
                digest,
                body: Payload::new(Vec::new()),
            })) + payload,
            assignment: size(Message::Assignment(assignment)),
            verdict: size(Message::Verdict(Verdict { round: Round(0), outcome: Outcome::Accepted })),
            plan: size(Message::Plan(plan)),
            finished: size(Message::Finished(Finished { version, digest })),
            copies: vec![0; options.workers as usize],
        };
        traffic.up += traffic.check_in * traffic.copies.len() as u64;
        traffic.down += traffic.plan * traffic.copies.len() as u64;
        traffic
    }

    /// A cohort trains from `version`.
    fn round(&mut self, version: u64, cohort: impl Iterator<Item = usize>) {
        for worker in cohort {
            self.down += self.assignment + self.verdict;
            self.bring_up_to(worker, version);
            self.up += self.update + self.check_in;
        }
    }

    /// Everybody gets the final model.
    fn finish(&mut self, version: u64) {
        for worker in 0..self.copies.len() {
            self.bring_up_to(worker, version);
            self.down += self.finished;
        }
    }

    fn bring_up_to(&mut self, worker: usize, version: u64) {
        if self.copies[worker] != version {
            self.copies[worker] = version;
            self.down += self.model;
        }
    }
}
