//! Which free workers are held until they are drawn, and what the others are told: when to come back.
//!
//! ```text
//!   check-in ── admitted? ── states enough? ── rested? ── room? ──► held, told at once when it is drawn
//!                  │              │               │         │
//!                  └──────────────┴───────────────┴─────────┴─────► comes back at its moment
//! ```

use packfed_protocol::{CheckIn, ComeBack, Message, Rejection, RejectionCode, Timestamp, WorkerId};

use super::Engine;
use crate::event::Effect;

impl Engine {
    /// Holds a worker that has no assignment, if it may be drawn and there is room.
    pub(super) fn hold(&mut self, worker: WorkerId, check_in: &CheckIn, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Err((why, not_before)) = self.may_be_held(&worker, check_in, now) {
            return self.send_away(worker, why, not_before, now, effects);
        }
        self.send_plan(worker, check_in, effects);
        let version = self.known_version(check_in);
        self.idle.insert(worker, version);
    }

    /// Whether a worker may be held; if not, why, and before when it need not ask again.
    fn may_be_held(&self, worker: &WorkerId, check_in: &CheckIn, now: Timestamp) -> Result<(), (Rejection, Timestamp)> {
        let raw = self.plan.raw();
        raw.eligibility.check(check_in).map_err(|why| (why, now))?;
        if let Some(rested) = self.registry.rests(worker, raw.eligibility.separation_ms, now) {
            let (left, separation) = (rested.since(now), raw.eligibility.separation_ms);
            let detail = format!("{separation} ms lie between two rounds of a worker, {left} ms are left");
            return Err((Rejection::new(RejectionCode::TooSoon, detail), rested));
        }
        if self.idle.len() >= raw.pace.held_max as usize && !self.idle.contains_key(worker) {
            let detail = format!("{} free workers are held, as many as may be", self.idle.len());
            return Err((Rejection::new(RejectionCode::NotNeeded, detail), now));
        }
        Ok(())
    }

    /// Tells a worker that may not take part: when it may, or that it never will.
    pub(super) fn turn_away(
        &mut self,
        worker: WorkerId,
        rejection: Rejection,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if rejection.code == RejectionCode::Suspended {
            let not_before = self.registry.readmitted(&worker, now);
            self.send_away(worker, rejection, not_before, now, effects);
        } else {
            self.refuse(worker, rejection, effects);
        }
    }

    /// Tells a worker when to come back, which is not before a time.
    pub(super) fn send_away(
        &mut self,
        worker: WorkerId,
        why: Rejection,
        not_before: Timestamp,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.refusal(why.code);
        // A clock that was set back may bring a suspension back on who is held.
        self.idle.remove(&worker);
        let (raw, fleet) = (self.plan.raw(), self.registry.fleet());
        let after_ms = raw.pace.moment(&raw.seed, &worker, fleet, not_before).since(now);
        let again_ms = raw.pace.again_ms(&raw.seed, &worker, fleet, not_before);
        effects.push(Effect::Send { worker, message: Message::ComeBack(ComeBack { after_ms, again_ms, why }) });
    }
}
