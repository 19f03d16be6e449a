//! What becomes of what arrives: enrolments, check-ins and updates, each answered with one verdict or refusal.
//!
//! It decides by the registry and the open round; when a round opens or ends is the business of `phases`.

use packfed_protocol::{
    CheckIn, Enroll, Enrolled, Message, Outcome, Refused, Rejection, RejectionCode, Round, Timestamp, Verdict,
    Verified, WorkerId,
};

use super::{Engine, Stage};
use crate::event::{Effect, Ticket, Write};
use crate::registry::token_digest;

impl Engine {
    pub(super) fn enroll(&mut self, worker: WorkerId, enroll: &Enroll, now: Timestamp, effects: &mut Vec<Effect>) {
        let known = self.registry.members().contains_key(&worker);
        match self.registry.enroll(worker, &enroll.token, &enroll.name, now) {
            Ok(member) => {
                if !known {
                    let token = token_digest(&enroll.token);
                    effects.push(Effect::Store(Write::Enroll { worker, member, token }));
                }
                let message = Message::Enrolled(Enrolled { run: self.plan.raw().run, worker });
                effects.push(Effect::Send { worker, message });
            }
            Err(rejection) => self.turn_away(worker, rejection, now, effects),
        }
    }

    pub(super) fn refuse(&mut self, worker: WorkerId, rejection: Rejection, effects: &mut Vec<Effect>) {
        self.counters.refusal(rejection.code);
        effects.push(Effect::Send { worker, message: Message::Refused(Refused { rejection }) });
    }

    pub(super) fn check_in(&mut self, worker: WorkerId, check_in: &CheckIn, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Err(rejection) = self.may_check_in(&worker, check_in, now) {
            return self.turn_away(worker, rejection, now, effects);
        }
        self.saw(&worker, now, effects);
        let version = self.known_version(check_in);
        match &self.stage {
            Stage::Finished => {
                self.send_plan(worker, check_in, effects);
                self.send_finished(worker, version, effects);
            }
            Stage::Reporting(reporting) if reporting.awaits(&worker) => {
                let assignment = reporting.open().assignment(&self.plan.raw().training, now);
                self.send_plan(worker, check_in, effects);
                self.send_assignment(worker, version, assignment, effects);
            }
            Stage::Buffering(_) => self.check_in_buffered(worker, check_in, now, effects),
            Stage::Reporting(_) | Stage::Aggregating(_) | Stage::Selecting { .. } => {
                self.hold(worker, check_in, now, effects);
            }
        }
    }

    pub(super) fn may_check_in(&self, worker: &WorkerId, check_in: &CheckIn, now: Timestamp) -> Result<(), Rejection> {
        self.registry.admitted(worker, now)?;
        let run = self.plan.raw().run;
        if check_in.run != run {
            let detail = format!("the check-in is for run {}, this is run {run}", check_in.run);
            return Err(Rejection::new(RejectionCode::WrongRun, detail));
        }
        Ok(())
    }

    /// The version of a worker's replica if it is one that the head had; otherwise it starts anew.
    /// Version 0 is zero by definition, so a worker without a plan has it too.
    pub(super) fn known_version(&self, check_in: &CheckIn) -> Option<u64> {
        let version = check_in.version.0;
        if version == 0 {
            return Some(0);
        }
        let digest = self.head.digest_of(version)?;
        (digest.0 == check_in.digest.0).then_some(version)
    }

    pub(super) fn update(&mut self, ticket: Ticket, update: &Verified, now: Timestamp, effects: &mut Vec<Effect>) {
        let round = update.header().round;
        let outcome = match self.judge(update, now) {
            Ok(outcome) => outcome,
            Err(rejection) => {
                self.strike(&update.header().worker, rejection.code, now, effects);
                Outcome::Rejected(rejection)
            }
        };
        if outcome == Outcome::Accepted {
            let (worker, frame) = (update.header().worker, update.frame());
            tracing::info!(round = round.0, %worker, "update accepted");
            effects.push(Effect::Store(Write::Accept { round, worker, frame }));
        }
        self.verdict(ticket, round, outcome, effects);
    }

    /// What becomes of an update; if it is accepted it is in the sum.
    pub(super) fn judge(&mut self, update: &Verified, now: Timestamp) -> Result<Outcome, Rejection> {
        let header = update.header();
        self.registry.admitted(&header.worker, now)?;
        let (run, layout) = (self.plan.raw().run, self.plan.layout_digest());
        if header.run != run {
            let detail = format!("the update is for run {}, this is run {run}", header.run);
            return Err(Rejection::new(RejectionCode::WrongRun, detail));
        }
        if header.layout != layout {
            let detail = format!("the update is in layout {}, the run's is {layout}", header.layout);
            return Err(Rejection::new(RejectionCode::WrongLayout, detail));
        }
        match &mut self.stage {
            Stage::Reporting(reporting) if reporting.open().round == header.round => {
                reporting.accept(&self.plan, update).map(|()| Outcome::Accepted)
            }
            Stage::Buffering(_) => self.judge_buffered(update),
            Stage::Reporting(_) | Stage::Aggregating(_) | Stage::Selecting { .. } | Stage::Finished => {
                self.late(header.round, &header.worker)
            }
        }
    }

    /// An update for a round that is not open: late if its worker was still awaited, else replayed.
    pub(super) fn late(&self, round: Round, worker: &WorkerId) -> Result<Outcome, Rejection> {
        if round >= self.next_round {
            let detail = format!("round {} is not open, the next one is {}", round.0, self.next_round.0);
            return Err(Rejection::new(RejectionCode::NotSelected, detail));
        }
        if self.missed.awaited(round, worker) {
            return Ok(Outcome::Discarded);
        }
        let detail = format!("round {} is closed, the next one is {}", round.0, self.next_round.0);
        Err(Rejection::new(RejectionCode::Replayed, detail))
    }

    pub(super) fn verdict(&mut self, ticket: Ticket, round: Round, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.counters.update(&outcome);
        effects.push(Effect::Verdict { ticket, verdict: Verdict { round, outcome } });
    }
}
