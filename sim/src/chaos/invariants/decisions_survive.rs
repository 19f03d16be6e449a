//! What was decided is kept: a coordinator that starts has every rollout as it was durable, an order that was answered
//! is in its history for ever, what is over begins again by the operator's word alone, and a channel has one rollout at
//! a time.

use std::collections::{BTreeMap, BTreeSet};

use packfed_coordinator::change::Change;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::Write;
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::{BY_ITSELF, Record, Verb};
use packfed_protocol::{Timestamp, WorkerId};

use super::kept::Kept;
use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct DecisionsSurvive {
    kept: Kept,
    /// Orders that were answered with a rollout's number, by why they were given.
    done: BTreeMap<String, u64>,
}

impl DecisionsSurvive {
    pub(super) const fn of(fleet: Vec<WorkerId>) -> Self {
        Self { kept: Kept::of(fleet), done: BTreeMap::new() }
    }

    fn stored(&self, record: &Record) -> Result<(), String> {
        let number = record.number;
        if record.history.last().map(|change| &change.phase) != Some(&record.phase) {
            return Err(format!("rollout {number} is {}, its history ends otherwise", record.phase.name()));
        }
        let Some(before) = self.kept.rollouts.get(&number) else {
            let last = self.kept.rollouts.last_key_value().map_or(0, |(last, _)| *last);
            return if number > last { Ok(()) } else { Err(format!("rollout {number} began after rollout {last}")) };
        };
        if !record.history.starts_with(&before.history) {
            return Err(format!("the history of rollout {number} became another"));
        }
        let news = &record.history[before.history.len()..];
        if news.is_empty() && (&record.phase, record.threshold) != (&before.phase, before.threshold) {
            return Err(format!("rollout {number} is {} and nobody said so", record.phase.name()));
        }
        let again = [Verb::Undo, Verb::RollBack].map(Verb::name);
        match news.iter().find(|change| change.by == BY_ITSELF || !again.contains(&change.what.as_str())) {
            Some(change) if !before.phase.is_active() => {
                let (was, what) = (before.phase.name(), &change.what);
                Err(format!("rollout {number} was {was} and is {} by {what}", record.phase.name()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn one_a_channel(&self) -> Result<(), String> {
        let mut channels = BTreeSet::new();
        let mut active = self.kept.rollouts.values().filter(|record| record.phase.is_active());
        match active.find(|record| !channels.insert(&record.spec.channel)) {
            None => Ok(()),
            Some(record) => Err(format!("rollout {} is not the only one of {}", record.number, record.spec.channel)),
        }
    }

    fn ordered(&mut self, why: &str, change: &Change, result: Option<u64>) -> Result<(), String> {
        let what = match change {
            Change::Start { .. } => "start",
            Change::Steer { verb, .. } => verb.name(),
            Change::Stand { .. }
            | Change::Label { .. }
            | Change::Tokens(_)
            | Change::Abandon
            | Change::Pause
            | Change::Unpause
            | Change::Set(_)
            | Change::Released(_) => return Ok(()),
        };
        let said = self.kept.rollouts.values().filter(|record| record.history.iter().any(|change| change.why == why));
        let found: Vec<u64> = said.map(|record| record.number).collect();
        match result {
            None if found.is_empty() => Ok(()),
            None => Err(format!("{why} to {what} was refused, and is in the history of rollout {found:?}")),
            Some(number) if found == [number] => {
                self.done.insert(why.to_owned(), number);
                Ok(())
            }
            Some(number) => Err(format!("{why} to {what} rollout {number} was answered before it was durable")),
        }
    }

    /// The engine's book is what is durable.
    fn agrees(&self, engine: &Engine) -> Result<(), String> {
        let records = engine.rollouts().records();
        if *records == self.kept.rollouts {
            return Ok(());
        }
        let differs = |number: &&u64| records.get(number) != self.kept.rollouts.get(number);
        let numbers: BTreeSet<u64> = records.keys().chain(self.kept.rollouts.keys()).copied().collect();
        let number = numbers.iter().find(differs).copied().unwrap_or_default();
        let phase = |record: Option<&Record>| record.map_or("not there", |record| record.phase.name());
        let (found, durable) = (phase(records.get(&number)), phase(self.kept.rollouts.get(&number)));
        Err(format!("rollout {number} is {found}, durable is that it is {durable}, or they differ in their figures"))
    }

    fn remembers(&self, engine: &Engine) -> Result<(), String> {
        let records = engine.rollouts().records();
        let has = |(why, number): &(&String, &u64)| {
            records.get(number).is_some_and(|record| record.history.iter().any(|change| change.why == **why))
        };
        match self.done.iter().find(|order| !has(order)) {
            None => Ok(()),
            Some((why, number)) => Err(format!("{why} of rollout {number} was answered and is forgotten")),
        }
    }
}

impl Invariant for DecisionsSurvive {
    fn name(&self) -> &'static str {
        "what was decided is kept"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(note)) => {
                let result = match note {
                    Note::Rollout(record) => self.stored(record),
                    _ => Ok(()),
                };
                self.kept.note(note);
                result.and_then(|()| self.one_a_channel())
            }
            Seen::Ordered { why, change, result } => self.ordered(why, change, *result),
            Seen::Started { engine, .. } => self.agrees(engine).and_then(|()| self.remembers(engine)),
            Seen::Settled { engine } => self.agrees(engine),
            _ => Ok(()),
        }
    }
}
