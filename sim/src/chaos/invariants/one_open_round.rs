//! At most one round is open, or of a buffered plan those that it opened; and a round's number is never used again. A
//! round that is not buffered may lose members of its cohort, and takes in nobody.

use std::collections::BTreeMap;

use packfed_coordinator::event::{Commit, OpenRound, Stored, Write};
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Round, Timestamp};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct OneOpenRound {
    buffered: bool,
    open: BTreeMap<Round, OpenRound>,
    last: Round,
}

impl OneOpenRound {
    pub(super) fn of(plan: &RunPlan) -> Self {
        Self { buffered: plan.raw().buffered.is_some(), open: BTreeMap::new(), last: Round(0) }
    }

    fn opens(&mut self, open: &OpenRound) -> Result<(), String> {
        let round = open.round;
        if let Some(known) = self.open.get(&round) {
            let OpenRound { cohort, deadline, .. } = open.clone();
            let same = OpenRound { cohort, deadline, ..known.clone() } == *open;
            let smaller =
                open.deadline == known.deadline && open.cohort.iter().all(|worker| known.cohort.contains(worker));
            if !self.buffered && !smaller {
                return Err(format!("round {round} took in others while it was open"));
            }
            self.open.insert(round, open.clone());
            return if same { Ok(()) } else { Err(format!("round {round} became another while it was open")) };
        }
        if let Some(other) = self.open.keys().next().filter(|_| !self.buffered) {
            return Err(format!("round {round} was opened while round {other} is open"));
        }
        if round <= self.last {
            return Err(format!("round {round} was opened after round {}", self.last));
        }
        self.open.insert(round, open.clone());
        self.last = round;
        Ok(())
    }

    fn abandoned(&mut self, round: Round) -> Result<(), String> {
        match self.open.remove(&round) {
            Some(_) => Ok(()),
            None => Err(format!("round {round} was abandoned, and was not open")),
        }
    }

    fn committed(&mut self, commit: &Commit) -> Result<(), String> {
        let before = std::mem::take(&mut self.open);
        self.open = commit.open.iter().map(|open| (open.round, open.clone())).collect();
        if !before.contains_key(&commit.round) {
            return Err(format!("round {} was committed, and was not open", commit.round));
        }
        match self.open.keys().find(|round| !self.buffered || !before.contains_key(round)) {
            None => Ok(()),
            Some(round) => Err(format!("round {round} is open after the commit of round {}", commit.round)),
        }
    }

    fn started(&self, stored: &Stored) -> Result<(), String> {
        let found: Vec<Round> = stored.open.iter().map(|(open, _)| open.round).collect();
        let open: Vec<Round> = self.open.keys().copied().collect();
        if found == open { Ok(()) } else { Err(format!("open are {open:?}, stored are {found:?}")) }
    }
}

impl Invariant for OneOpenRound {
    fn name(&self) -> &'static str {
        "at most one open round"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Open(open)) => self.opens(open),
            Seen::Durable(Write::Abandon { round }) => self.abandoned(*round),
            Seen::Durable(Write::Commit(commit)) => self.committed(commit),
            Seen::Started { stored: Some(stored), .. } => self.started(stored),
            Seen::Durable(Write::Enroll { .. } | Write::Members(_) | Write::Accept { .. } | Write::Note(_))
            | Seen::Started { stored: None, .. }
            | Seen::CannotStart { .. }
            | Seen::Died
            | Seen::Arrived { .. }
            | Seen::Answered { .. }
            | Seen::Settled { .. }
            | Seen::Replica { .. }
            | Seen::GaveUp { .. }
            | Seen::Ordered { .. }
            | Seen::Offered { .. }
            | Seen::FollowerStarts { .. }
            | Seen::Told { .. }
            | Seen::Swapped { .. }
            | Seen::Healed
            | Seen::Ended { .. } => Ok(()),
        }
    }
}
