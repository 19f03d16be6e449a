//! The operator: starts rollouts, steers them and labels workers, now and then something that cannot be done.
//!
//! As in the server, an order is answered when what it led to is durable. One whose coordinator dies first may have
//! been done or not; the operator looks anew and goes on from there.

use packfed_codec::{Seed, Stream};
use packfed_coordinator::change::Change;
use packfed_coordinator::event::{Event, Ticket};
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::{Phase, STABLE, Verb};
use packfed_protocol::Rejection;

use super::invariants::Seen;
use super::rollouts::{BETA, labels, spec};
use super::world::{Happening, World};

/// See the module.
pub(super) struct Operator {
    stream: Stream,
    orders: u64,
    /// The order that is not answered yet.
    asked: Option<Asked>,
    /// Nothing more is ordered.
    rests: bool,
}

#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    why: String,
    change: Change,
}

/// Who orders.
pub(super) const NAME: &str = "operator";
/// When the operator looks again whether the coordinator is there.
const LOOKS_AGAIN_MS: u64 = 500;

impl Operator {
    pub(super) fn new(seed: &Seed, order_ms: u64) -> Self {
        let stream = seed.derive("packfed/chaos/operator/1", &[]).stream();
        Self { stream, orders: 0, asked: None, rests: order_ms == 0 }
    }
}

impl World {
    pub(super) fn plan_order(&mut self) {
        let mean = self.scenario.rollouts.order_ms;
        if !self.operator.rests {
            let wait = if self.healed { LOOKS_AGAIN_MS } else { 1 + self.operator.stream.below(2 * mean) };
            self.after(wait, Happening::Operates);
        }
    }

    pub(super) fn operates(&mut self) {
        if self.process.is_some() {
            let change = if self.healed { self.last_order() } else { self.some_order() };
            self.operator.rests = self.healed;
            if let Some(change) = change {
                self.orders(change);
            }
        }
        self.plan_order();
    }

    /// Whether nothing more is ordered and every rollout ends, or waits for the operator; and every worker that follows
    /// releases runs the one that it is to run, unless that failed there.
    pub(super) fn releases_rest(&self) -> bool {
        self.operator.rests && self.soaking().is_none() && self.astray() == 0
    }

    /// A rollout that is to end by itself.
    pub(super) fn soaking(&self) -> Option<u64> {
        let records = self.process.as_ref()?.engine().rollouts().records();
        records.values().find(|record| matches!(record.phase, Phase::Soaking { .. })).map(|record| record.number)
    }

    /// Once nothing goes wrong any more, what is paused goes on, or something new begins: it has to end.
    fn last_order(&mut self) -> Option<Change> {
        let active = self.process.as_ref()?.engine().rollouts().active(STABLE);
        match active.map(|record| (record.number, &record.phase)) {
            Some((rollout, Phase::Paused { .. })) => Some(Change::Steer { rollout, verb: Verb::Resume }),
            Some((_, Phase::Soaking { .. } | Phase::Completed | Phase::Aborted | Phase::RolledBack)) => None,
            None => self.start(STABLE),
        }
    }

    fn some_order(&mut self) -> Option<Change> {
        let channel = if self.operator.stream.below(3) == 0 { BETA } else { STABLE };
        let book = self.process.as_ref()?.engine().rollouts();
        let last = book.records().values().rev().find(|record| record.spec.channel == channel);
        let (last, is_active) = (last.map(|record| record.number), book.active(channel).is_some());
        let all = book.records().len() as u64;
        let stream = &mut self.operator.stream;
        let verb = Verb::ALL[stream.index(Verb::ALL.len())];
        match (stream.below(16), last) {
            (0 | 1, _) => {
                let worker = self.devices[stream.index(self.devices.len())].id();
                Some(Change::Label { worker, labels: labels(stream) })
            }
            // Without a look at what there is.
            (2, _) => self.start(channel),
            (3, _) => Some(Change::Steer { rollout: 1 + stream.below(all + 1), verb }),
            (_, Some(rollout)) if is_active => Some(Change::Steer { rollout, verb }),
            (4..=6, Some(rollout)) => {
                Some(Change::Steer { rollout, verb: [Verb::RollBack, Verb::Undo][stream.index(2)] })
            }
            (_, _) => self.start(channel),
        }
    }

    /// A rollout of the next release, or sometimes of an older one.
    fn start(&mut self, channel: &str) -> Option<Change> {
        let stream = &mut self.operator.stream;
        let spec = spec(channel, stream);
        let release = match (stream.below(6), self.shelf.len()) {
            (0, made) if made > 0 => self.shelf.find(1 + stream.below(made)),
            (_, _) => self.shelf.make(),
        };
        Some(Change::Start { release: release?, spec })
    }

    fn orders(&mut self, change: Change) {
        let Some(ticket) = self.process.as_mut().map(super::coordinator::Process::ticket) else { return };
        self.operator.orders += 1;
        let why = format!("order {}", self.operator.orders);
        self.say(format_args!("operator: {why}: {}", brief(&change)));
        self.operator.asked = Some(Asked { ticket, why: why.clone(), change: change.clone() });
        self.give(Event::Ordered { ticket, by: NAME.to_owned(), why, change: Box::new(change) });
        if self.operator.asked.take().is_some() {
            self.counts.orders_unanswered += 1;
            self.say(format_args!("operator has no answer"));
        }
    }

    /// An order is answered.
    pub(super) fn ordered(&mut self, ticket: Ticket, result: &Result<u64, Rejection>) {
        let Some(Asked { why, change, .. }) = self.operator.asked.take_if(|asked| asked.ticket == ticket) else {
            return;
        };
        match result {
            Ok(of) => {
                self.counts.orders += 1;
                self.say(format_args!("operator: {why} is done, of {of}"));
            }
            Err(rejection) => {
                self.counts.orders_refused += 1;
                self.say(format_args!("operator: {why} is not done: {rejection}"));
            }
        }
        self.see(&Seen::Ordered { why: &why, change: &change, result: result.as_ref().ok().copied() });
    }

    /// Counts what a durable note says of rollouts.
    pub(super) fn count_rollouts(&mut self, note: &Note) {
        let Note::Rollout(record) = note else { return };
        let known = self.histories.insert(record.number, record.history.len()).unwrap_or(0);
        self.counts.rollouts_started += u64::from(known == 0);
        let news: Vec<_> =
            record.history.iter().skip(known).filter(|change| change.what != Verb::Undo.name()).collect();
        for change in news {
            match change.phase {
                Phase::Soaking { .. } => self.counts.stages_begun += u64::from(change.what != Verb::Resume.name()),
                Phase::Paused { .. } => {}
                Phase::Completed => self.counts.rollouts_completed += 1,
                Phase::Aborted => self.counts.rollouts_aborted += 1,
                Phase::RolledBack => {
                    self.counts.rollouts_rolled_back += 1;
                    self.counts.gates_failed += u64::from(change.by != NAME);
                }
            }
        }
        let active = record.phase.is_active();
        match active {
            true => drop(self.open_rollouts.insert(record.number)),
            false => drop(self.open_rollouts.remove(&record.number)),
        }
    }
}

fn brief(change: &Change) -> String {
    match change {
        Change::Start { release, spec } => {
            let shares: Vec<u32> = spec.stages.iter().map(|stage| stage.share / 10_000).collect();
            format!("release {} to {shares:?} % of {}", release.number, spec.channel)
        }
        Change::Steer { rollout, verb } => format!("{} rollout {rollout}", verb.name()),
        Change::Label { worker, labels } => format!("call {worker} {labels:?}"),
        Change::Stand { .. }
        | Change::Tokens(_)
        | Change::Abandon
        | Change::Pause
        | Change::Unpause
        | Change::Set(_)
        | Change::Released(_) => change.name().to_owned(),
    }
}
