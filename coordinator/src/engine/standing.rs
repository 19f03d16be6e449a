//! What is remembered of workers beyond a round, and how one comes to be suspended or revoked.

use packfed_protocol::{RejectionCode, Timestamp, WorkerId};

use super::buffering::written;
use super::{Engine, Stage};
use crate::event::{Effect, Write};
use crate::registry::Standing;
use crate::strikes::is_misbehaviour;

impl Engine {
    /// Notes that a worker checked in.
    pub(super) fn saw(&mut self, worker: &WorkerId, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.registry.saw(worker, now) {
            effects.push(Effect::Store(Write::Members(vec![entry])));
        }
    }

    /// Notes that workers were drawn, if they have to rest afterwards.
    pub(super) fn drew(&mut self, cohort: &[WorkerId], now: Timestamp, effects: &mut Vec<Effect>) {
        if self.plan.raw().eligibility.separation_ms == 0 {
            return;
        }
        let entries: Vec<_> = cohort.iter().filter_map(|worker| self.registry.drew(worker, now)).collect();
        if !entries.is_empty() {
            effects.push(Effect::Store(Write::Members(entries)));
        }
    }

    /// Counts what a worker sent against it, if it is misbehaviour.
    pub(super) fn strike(&mut self, worker: &WorkerId, code: RejectionCode, now: Timestamp, effects: &mut Vec<Effect>) {
        if !is_misbehaviour(code) {
            return;
        }
        let Some(entry) = self.registry.strike(worker, self.plan.raw().strikes, now) else { return };
        let standing = entry.1.standing;
        effects.push(Effect::Store(Write::Members(vec![entry])));
        if let Err(rejection) = self.registry.admitted(worker, now) {
            tracing::warn!(%worker, %code, ?standing, "suspended");
            self.counters.suspended += 1;
            self.dismiss(worker, effects);
            debug_assert_eq!(rejection.code, RejectionCode::Suspended, "a strike revokes nobody");
            // Who is held waits to be told something; who is not asks by itself when it has its verdict.
            if self.idle.remove(worker).is_some() {
                self.turn_away(*worker, rejection, now, effects);
            }
        }
    }

    /// Gives a worker the standing that the operator wants, and tells it if that ends its part.
    pub(super) fn stand(&mut self, worker: WorkerId, standing: Standing, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(entry) = self.registry.stand(&worker, standing) else { return };
        tracing::info!(%worker, ?standing, "the operator's word");
        effects.push(Effect::Store(Write::Members(vec![entry])));
        if let Err(rejection) = self.registry.admitted(&worker, now) {
            self.idle.remove(&worker);
            self.dismiss(&worker, effects);
            self.turn_away(worker, rejection, now, effects);
        }
    }

    /// No longer waits for the update of a worker that may not send one. What it has reported counts.
    fn dismiss(&mut self, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let write = match &mut self.stage {
            Stage::Reporting(reporting) if reporting.awaits(worker) => {
                reporting.leave(std::slice::from_ref(worker));
                Some(Write::Open(reporting.open().clone()))
            }
            Stage::Buffering(buffer) => buffer.withdraw(worker).map(written),
            Stage::Reporting(_) | Stage::Aggregating(_) | Stage::Selecting { .. } | Stage::Finished => None,
        };
        effects.extend(write.map(Effect::Store));
    }
}
