//! Writes that failed and may be there all the same: the power may go between the sync and its answer.

use packfed_coordinator::event::{Stored, Write};
use packfed_coordinator::ledger::{Ledger, Note};
use packfed_protocol::Round;

/// Whether writes that were to be durable together are, by what the next process finds.
pub(super) fn are_there(group: &[Write], stored: Option<&Stored>, ledger: &Ledger) -> bool {
    let rest = |done: usize| &group[done + 1..];
    let mut left = group.iter().enumerate().filter(|(done, write)| !is_overtaken(write, rest(*done)));
    left.all(|(_, write)| is_there(write, stored, ledger))
}

/// Whether nothing of a write can be seen once those after it are done.
fn is_overtaken(write: &Write, rest: &[Write]) -> bool {
    let by_note = |by: &dyn Fn(&Note) -> bool| rest.iter().any(|write| matches!(write, Write::Note(note) if by(note)));
    match write {
        Write::Open(_) | Write::Accept { .. } | Write::Abandon { .. } | Write::Commit(_) => {
            rest.iter().any(is_of_rounds)
        }
        Write::Note(Note::Rollout(record)) => {
            by_note(&|note| matches!(note, Note::Rollout(later) if later.number == record.number))
        }
        Write::Note(Note::Reported { rollout, .. }) => {
            by_note(&|note| matches!(note, Note::Forget { rollout: forgotten } if forgotten == rollout))
        }
        Write::Note(Note::Labels { .. } | Note::Tokens(_) | Note::Conduct(_) | Note::Past(_) | Note::Forget { .. })
        | Write::Enroll { .. }
        | Write::Members(_) => false,
    }
}

fn is_of_rounds(write: &Write) -> bool {
    match write {
        Write::Open(_) | Write::Accept { .. } | Write::Abandon { .. } | Write::Commit(_) => true,
        Write::Enroll { .. } | Write::Members(_) | Write::Note(_) => false,
    }
}

fn is_there(write: &Write, stored: Option<&Stored>, ledger: &Ledger) -> bool {
    let open = |round: Round| stored.and_then(|stored| stored.open.iter().find(|(open, _)| open.round == round));
    match write {
        Write::Open(opened) => open(opened.round).is_some_and(|(open, _)| open == opened),
        Write::Accept { round, frame, .. } => open(*round).is_some_and(|(_, frames)| frames.contains(&frame.to_vec())),
        Write::Abandon { round } => stored.is_some() && open(*round).is_none(),
        Write::Commit(commit) => stored.is_some_and(|stored| stored.head.version == commit.head.version),
        Write::Note(note) => is_noted(note, ledger),
        // Everybody is enrolled from the start, and what is known of them beyond a round is not looked at.
        Write::Enroll { .. } | Write::Members(_) => true,
    }
}

fn is_noted(note: &Note, ledger: &Ledger) -> bool {
    match note {
        Note::Labels { worker, labels } => ledger.labels.get(worker) == Some(labels),
        Note::Conduct(conduct) => ledger.conduct == *conduct,
        Note::Past(past) => ledger.past.get(&past.round) == Some(past),
        Note::Rollout(record) => ledger.rollouts.get(&record.number) == Some(&**record),
        Note::Reported { rollout, worker } => {
            ledger.reported.get(rollout).is_some_and(|workers| workers.contains(worker))
        }
        Note::Forget { rollout } => !ledger.reported.contains_key(rollout),
        Note::Tokens(_) => true,
    }
}
