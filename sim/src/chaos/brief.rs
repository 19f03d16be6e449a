//! Events and writes in a few words, for the trace.

use packfed_coordinator::event::{Event, Write};
use packfed_coordinator::ledger::Note;
use packfed_protocol::{FrameType, HEADER_BYTES, ReleaseOutcome, ReleaseState};

pub(super) fn brief_event(event: &Event) -> String {
    match event {
        Event::CheckIn { check_in, .. } => {
            format!("check-in, version {}{}", check_in.version, if check_in.planned { "" } else { ", no plan" })
        }
        Event::Update { update, .. } => {
            format!("update for round {} against version {}", update.header().round, update.header().base)
        }
        Event::ReleaseState { state, .. } => brief_state(state),
        Event::BadUpdate { rejection, .. } => format!("bad update: {rejection}"),
        Event::BadMessage { rejection, .. } => format!("bad message: {rejection}"),
        other => format!("{other:?}"),
    }
}

pub(super) fn brief_write(write: &Write) -> String {
    match write {
        Write::Open(open) => {
            format!("open round {} of {} workers from version {}", open.round, open.cohort.len(), open.base)
        }
        Write::Accept { round, frame, .. } => format!("accept an update of {} bytes into round {round}", frame.bytes()),
        Write::Abandon { round } => format!("abandon round {round}"),
        Write::Commit(commit) => {
            let (version, updates) = (commit.summary.version, commit.summary.updates);
            let digest = commit.summary.digest.to_string();
            format!("commit round {} of {updates} updates as version {version}, {:.12}", commit.round, digest)
        }
        Write::Enroll { worker, .. } => format!("enroll {worker}"),
        Write::Members(entries) => format!("what is known of {} workers", entries.len()),
        Write::Note(Note::Rollout(record)) => {
            let (number, release, phase) = (record.number, record.release.number, record.phase.name());
            let stage = record.phase.stage().map_or(String::new(), |stage| format!(" in stage {}", stage + 1));
            let (reports, what) = (record.found.reports(), record.history.last().map_or("", |change| &change.what));
            format!("rollout {number} of release {release} is {phase}{stage} by {what}, {reports} reports")
        }
        Write::Note(note) => format!("{note:?}"),
    }
}

fn brief_state(state: &ReleaseState) -> String {
    let runs = state.runs.map_or("the base".to_owned(), |runs| format!("release {}", runs.number));
    let tried = state.tried.map(|tried| {
        let outcome = match tried.outcome {
            ReleaseOutcome::Evaluated(found) => format!("{:+.3}", found.loss.after - found.loss.before),
            ReleaseOutcome::Healthy => "healthy".to_owned(),
            ReleaseOutcome::Failed(failure) => format!("{failure:?}"),
        };
        format!(", tried release {}: {outcome}", tried.release.number)
    });
    format!("runs {runs}{}", tried.unwrap_or_default())
}

/// A frame's type by its header, for the trace.
pub(super) fn frame_name(frame: &[u8]) -> &'static str {
    let number = frame.get(3).copied().filter(|_| frame.len() >= HEADER_BYTES);
    number.and_then(FrameType::from_number).map_or("bytes", FrameType::name)
}
