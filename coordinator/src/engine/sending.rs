//! What a worker is sent: the plan and whatever its replica is missing first, then its assignment or the end of the run.

use packfed_protocol::{Assignment, CatchUp, CheckIn, Digest, Finished, Message, Version, WorkerId};

use super::Engine;
use crate::event::Effect;

impl Engine {
    /// The plan, unless the worker holds it.
    pub(super) fn send_plan(&mut self, worker: WorkerId, check_in: &CheckIn, effects: &mut Vec<Effect>) {
        if !check_in.planned {
            effects.push(Effect::Send { worker, message: Message::Plan(self.plan.message()) });
        }
    }

    pub(super) fn send_assignment(
        &mut self,
        worker: WorkerId,
        version: Option<u64>,
        assignment: Assignment,
        effects: &mut Vec<Effect>,
    ) {
        self.send_catch_up(worker, version, effects);
        effects.push(Effect::Send { worker, message: Message::Assignment(assignment) });
    }

    pub(super) fn send_finished(&mut self, worker: WorkerId, version: Option<u64>, effects: &mut Vec<Effect>) {
        self.send_catch_up(worker, version, effects);
        let (version, digest) = (Version(self.head.version()), Digest(self.head.digest().0));
        effects.push(Effect::Send { worker, message: Message::Finished(Finished { version, digest }) });
    }

    /// What a replica is missing; a replica that is no version of ours starts anew from zero.
    pub(super) fn send_catch_up(&mut self, worker: WorkerId, version: Option<u64>, effects: &mut Vec<Effect>) {
        if version == Some(self.head.version()) {
            return;
        }
        let (from, body) = self.head.catch_up(version);
        let digest = Digest(self.head.digest().0);
        let message = Message::CatchUp(CatchUp { from: Version(from), to: Version(self.head.version()), digest, body });
        effects.push(Effect::Send { worker, message });
    }
}
