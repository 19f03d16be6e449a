//! What the operator is told of enrolled workers.

use std::ops::Bound;

use packfed_protocol::{Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

use crate::registry::{FOREVER, Registry, Standing};
use crate::rollout::Labels;

/// A page of the list of workers, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Workers, by key.
    pub workers: Vec<Row>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: WorkerId,
    /// The name it gave.
    pub name: String,
    /// `admitted`, `suspended` or `revoked`.
    pub standing: String,
    /// When a suspension ends, in milliseconds since the Unix epoch; none that only the operator ends.
    pub until_ms: Option<u64>,
    /// What counts against it.
    pub strikes: u32,
    /// When it last checked in, to the minute, in milliseconds since the Unix epoch.
    pub seen_ms: Option<u64>,
    /// Whether it is connected now.
    pub connected: bool,
    /// What it is called by.
    pub labels: Labels,
    /// The number of the release that it runs, if it is connected and runs one.
    pub release: Option<u64>,
}

impl Roster {
    /// The first workers after a key.
    #[must_use]
    pub fn page(registry: &Registry, after: WorkerId, now: Timestamp, there: impl Fn(&WorkerId) -> There) -> Self {
        let mut rest = registry.members().range((Bound::Excluded(after), Bound::Unbounded));
        let row = |(worker, _): (&WorkerId, _)| Row::of(registry, worker, now, there(worker));
        let workers = rest.by_ref().take(PAGE).filter_map(row).collect();
        Self { workers, more: rest.next().is_some() }
    }

    /// One line of JSON.
    ///
    /// # Panics
    /// Never: every field is a number, a text or nothing.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

/// What is known of a worker that is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct There {
    /// It is.
    pub connected: bool,
    /// The number of the release that it runs.
    pub release: Option<u64>,
}

impl Row {
    /// A worker as it stands now, if there is one with this key.
    #[must_use]
    pub fn of(registry: &Registry, worker: &WorkerId, now: Timestamp, there: There) -> Option<Self> {
        let member = registry.members().get(worker)?;
        let (standing, until_ms) = match member.standing {
            Standing::Suspended(FOREVER) => ("suspended", None),
            Standing::Suspended(until) if now < until => ("suspended", Some(until.0)),
            Standing::Admitted | Standing::Suspended(_) => ("admitted", None),
            Standing::Revoked => ("revoked", None),
        };
        Some(Self {
            key: *worker,
            name: member.name.clone(),
            standing: standing.to_owned(),
            until_ms,
            strikes: member.strikes,
            seen_ms: (member.seen > Timestamp(0)).then_some(member.seen.0),
            connected: there.connected,
            labels: registry.labels_of(worker).cloned().unwrap_or_default(),
            release: there.release,
        })
    }

    /// One line of JSON.
    ///
    /// # Panics
    /// Never: every field is a number, a text or nothing.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

/// Workers of a page: far fewer than fit a frame.
const PAGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::registry::Member;

    #[test]
    fn pages_lead_to_every_worker_once() {
        let key = |n: u16| {
            let [low, high] = n.to_le_bytes();
            let mut key = [0; 32];
            (key[0], key[1]) = (high, low);
            WorkerId(key)
        };
        let member = Member::new("w".into(), Standing::Admitted);
        let members = (1..=2_000).map(|n| (key(n), member.clone())).collect();
        let registry = Registry::new(members, BTreeSet::new());
        let there = |worker: &WorkerId| There { connected: worker.0[1] == 7, release: None };
        let (mut after, mut seen) = (WorkerId([0; 32]), Vec::new());
        loop {
            let page = Roster::page(&registry, after, Timestamp(0), there);
            assert!(page.to_json().len() < 1 << 19, "it fits a frame");
            assert!(page.workers.iter().all(|row| row.connected == (row.key.0[1] == 7)));
            seen.extend(page.workers.iter().map(|row| row.key));
            after = page.workers[page.workers.len() - 1].key;
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, registry.members().keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn a_suspension_that_is_over_is_none() {
        let row = |standing, now| {
            let members = BTreeMap::from([(WorkerId([1; 32]), Member::new("w".into(), standing))]);
            let registry = Registry::new(members, BTreeSet::new());
            Row::of(&registry, &WorkerId([1; 32]), Timestamp(now), There::default()).unwrap()
        };
        let until = Standing::Suspended(Timestamp(50));
        assert_eq!((row(until, 49).standing.as_str(), row(until, 49).until_ms), ("suspended", Some(50)));
        assert_eq!((row(until, 50).standing.as_str(), row(until, 50).until_ms), ("admitted", None));
        assert_eq!(row(Standing::Suspended(FOREVER), 50).standing, "suspended");
        assert_eq!((row(Standing::Revoked, 0).standing.as_str(), row(Standing::Revoked, 0).seen_ms), ("revoked", None));
    }
}
