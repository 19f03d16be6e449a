//! Who may take part: workers by their key, and the one-time tokens that let a key in.
//!
//! ```text
//!                    strikes, or the operator
//!   token ──► admitted ───────────────────────► suspended until
//!               ▲  │ the operator                 │  │
//!               │  └──────────► revoked ◄─────────┼──┘ the operator
//!               └─────────────────────────────────┘ time, or the operator
//! ```
//!
//! The registry knows keys and standings; it does not know who is connected or selected, and reads no clock.

use std::collections::{BTreeMap, BTreeSet};

use packfed_protocol::{Digest, Rejection, RejectionCode, Timestamp, Token, WorkerId};
use serde::{Deserialize, Serialize};

use crate::rollout::{Fleet, Labels};
use crate::strikes::Strikes;

/// Whether a worker may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It may.
    Admitted,
    /// Not before this time; [`FOREVER`] is until the operator admits it.
    Suspended(Timestamp),
    /// Never again under this key, unless the operator admits it.
    Revoked,
}

/// The end of a suspension that only the operator ends.
pub const FOREVER: Timestamp = Timestamp(u64::MAX);

/// One enrolled worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name it gave.
    pub name: String,
    /// Whether it may take part.
    pub standing: Standing,
    /// What counts against it since it was last suspended.
    pub strikes: u32,
    /// When it last checked in, to [`SEEN_MS`]; 0 if it never did.
    pub seen: Timestamp,
    /// When it was last drawn, where that counts; 0 if it never was.
    pub drawn: Timestamp,
}

impl Member {
    /// A worker of this name that did nothing yet.
    #[must_use]
    pub const fn new(name: String, standing: Standing) -> Self {
        Self { name, standing, strikes: 0, seen: Timestamp(0), drawn: Timestamp(0) }
    }
}

/// A worker and its entry, as it is to be stored.
pub type Entry = (WorkerId, Member);

/// Enrolled workers and unused tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    members: BTreeMap<WorkerId, Member>,
    tokens: BTreeSet<Digest>,
    revoked: u64,
    labels: BTreeMap<WorkerId, Labels>,
    /// Workers that may come, with their labels.
    followers: Fleet,
}

/// What a registry keeps of a token: its hash, so that a stolen store admits nobody.
#[must_use]
pub fn token_digest(token: &Token) -> Digest {
    Digest::of(&token.0)
}

impl Registry {
    /// A registry as it was stored.
    #[must_use]
    pub fn new(members: BTreeMap<WorkerId, Member>, tokens: BTreeSet<Digest>) -> Self {
        let revoked = members.values().filter(|member| member.standing == Standing::Revoked).count() as u64;
        let may_come = members.iter().filter(|(_, member)| member.standing != Standing::Revoked);
        let followers = may_come.map(|(worker, _)| (*worker, Labels::new())).collect();
        Self { members, tokens, revoked, labels: BTreeMap::new(), followers }
    }

    /// Enrolled workers, by key.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }

    /// Hashes of the tokens that are not used up.
    #[must_use]
    pub const fn tokens(&self) -> &BTreeSet<Digest> {
        &self.tokens
    }

    /// Workers that may come.
    #[must_use]
    pub fn fleet(&self) -> u64 {
        self.members.len() as u64 - self.revoked
    }

    /// Enrols a key with a one-time token, which is then used up. A key that is enrolled already may
    /// say so again with any token, since its first answer may have been lost.
    ///
    /// # Errors
    /// If the token is not known, or the key is suspended or revoked.
    pub fn enroll(&mut self, worker: WorkerId, token: &Token, name: &str, now: Timestamp) -> Result<Member, Rejection> {
        if let Some(member) = self.members.get(&worker) {
            let member = member.clone();
            return self.admitted(&worker, now).map(|()| member);
        }
        let token = token_digest(token);
        if !self.tokens.contains(&token) {
            let detail = "the token is unknown or used; ask the operator for another";
            return Err(Rejection::new(RejectionCode::BadToken, detail));
        }
        let member = Member { seen: now, ..Member::new(name.to_owned(), Standing::Admitted) };
        self.admit(worker, member.clone(), &token);
        Ok(member)
    }

    /// Takes up a new worker, whose token is used up.
    pub fn admit(&mut self, worker: WorkerId, member: Member, token: &Digest) {
        self.tokens.remove(token);
        self.put(worker, member);
    }

    /// Takes the entry of a worker for what stood there.
    pub fn put(&mut self, worker: WorkerId, member: Member) {
        self.revoked += u64::from(member.standing == Standing::Revoked);
        let before = self.members.insert(worker, member);
        self.revoked -= u64::from(before.is_some_and(|before| before.standing == Standing::Revoked));
        self.follows(worker);
    }

    /// Keeps what is known of those who may come in step with who may.
    fn follows(&mut self, worker: WorkerId) {
        match self.members.get(&worker).is_some_and(|member| member.standing != Standing::Revoked) {
            true => {
                let labels = self.labels.get(&worker).cloned().unwrap_or_default();
                self.followers.insert(worker, labels);
            }
            false => drop(self.followers.remove(&worker)),
        }
    }

    /// What a worker is called by; `None` if it was never given a label.
    #[must_use]
    pub fn labels_of(&self, worker: &WorkerId) -> Option<&Labels> {
        self.labels.get(worker)
    }

    /// Calls a worker by these labels and no others.
    pub fn label(&mut self, worker: WorkerId, labels: Labels) {
        self.labels.insert(worker, labels);
        self.follows(worker);
    }

    /// Workers that may come, by key, with their labels.
    #[must_use]
    pub const fn followers(&self) -> &Fleet {
        &self.followers
    }

    /// Adds tokens, by their hashes.
    pub fn expect_tokens(&mut self, tokens: &[Digest]) {
        self.tokens.extend(tokens);
    }

    /// Whether a key may take part.
    ///
    /// # Errors
    /// If it is not enrolled, suspended or revoked.
    pub fn admitted(&self, worker: &WorkerId, now: Timestamp) -> Result<(), Rejection> {
        let no = |code, detail: String| Err(Rejection::new(code, detail));
        match self.members.get(worker).map(|member| member.standing) {
            Some(Standing::Admitted) => Ok(()),
            Some(Standing::Suspended(until)) if now >= until => Ok(()),
            Some(Standing::Suspended(FOREVER)) => {
                no(RejectionCode::Suspended, "the worker is suspended until the operator admits it".to_owned())
            }
            Some(Standing::Suspended(until)) => {
                no(RejectionCode::Suspended, format!("the worker is suspended for another {} ms", until.since(now)))
            }
            Some(Standing::Revoked) => no(RejectionCode::Revoked, "the worker's key is revoked".to_owned()),
            None => no(RejectionCode::UnknownWorker, "the key is not enrolled; enrol with a token".to_owned()),
        }
    }

    /// Not before when a worker is to come back that is suspended; `now` if it is not, or without an end.
    #[must_use]
    pub fn readmitted(&self, worker: &WorkerId, now: Timestamp) -> Timestamp {
        match self.members.get(worker).map(|member| member.standing) {
            Some(Standing::Suspended(until)) if until != FOREVER => until.max(now),
            Some(Standing::Admitted | Standing::Suspended(_) | Standing::Revoked) | None => now,
        }
    }

    /// Until when a worker has to rest that was drawn so many milliseconds ago at least; `None` if it need not.
    #[must_use]
    pub fn rests(&self, worker: &WorkerId, separation_ms: u64, now: Timestamp) -> Option<Timestamp> {
        let drawn = self.members.get(worker)?.drawn;
        // A clock that was set back makes nobody rest for longer than once.
        let rest_ms = separation_ms.saturating_sub(now.since(drawn));
        (drawn > Timestamp(0) && rest_ms > 0).then(|| now.plus(rest_ms))
    }

    /// Notes that a worker checked in; its entry if that is news enough to be stored.
    pub fn saw(&mut self, worker: &WorkerId, now: Timestamp) -> Option<Entry> {
        self.change(worker, |member| {
            let news = now.0.abs_diff(member.seen.0) >= SEEN_MS;
            if news {
                member.seen = now;
            }
            news
        })
    }

    /// Notes that a worker was drawn.
    pub fn drew(&mut self, worker: &WorkerId, now: Timestamp) -> Option<Entry> {
        self.change(worker, |member| std::mem::replace(&mut member.drawn, now) != now)
    }

    /// Counts something against a worker, and suspends it when that was enough. Nothing counts against a worker that
    /// may not take part.
    pub fn strike(&mut self, worker: &WorkerId, strikes: Strikes, now: Timestamp) -> Option<Entry> {
        if strikes.suspend_at == 0 || self.admitted(worker, now).is_err() {
            return None;
        }
        self.change(worker, |member| {
            member.strikes = member.strikes.saturating_add(1);
            if member.strikes >= strikes.suspend_at {
                let until = if strikes.suspended_ms == 0 { FOREVER } else { now.plus(strikes.suspended_ms) };
                (member.strikes, member.standing) = (0, Standing::Suspended(until));
            }
            true
        })
    }

    /// Gives a worker another standing; its entry if there is such a worker and that changed something. Nothing counts
    /// against whoever is admitted.
    pub fn stand(&mut self, worker: &WorkerId, standing: Standing) -> Option<Entry> {
        self.change(worker, |member| {
            let before = member.clone();
            member.standing = standing;
            if standing == Standing::Admitted {
                member.strikes = 0;
            }
            *member != before
        })
    }

    fn change(&mut self, worker: &WorkerId, change: impl FnOnce(&mut Member) -> bool) -> Option<Entry> {
        let mut member = self.members.get(worker)?.clone();
        change(&mut member).then(|| {
            self.put(*worker, member.clone());
            (*worker, member)
        })
    }
}

/// How exactly it is known when a worker was last seen: a check-in sooner after another is not written down.
pub const SEEN_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const WORKER: WorkerId = WorkerId([1; 32]);

    fn registry(standing: Standing) -> Registry {
        let token = token_digest(&Token([3; 16]));
        Registry::new(BTreeMap::from([(WORKER, Member::new("a".into(), standing))]), BTreeSet::from([token]))
    }

    fn code(registry: &Registry, now: Timestamp) -> Option<RejectionCode> {
        registry.admitted(&WORKER, now).err().map(|rejection| rejection.code)
    }

    #[test]
    fn a_token_admits_one_key_once() {
        let token = Token([3; 16]);
        let mut registry = Registry::new(BTreeMap::new(), BTreeSet::from([token_digest(&token)]));
        let second = WorkerId([2; 32]);
        assert_eq!(code(&registry, NOW), Some(RejectionCode::UnknownWorker));
        registry.enroll(WORKER, &token, "a", NOW).unwrap();
        registry.enroll(WORKER, &token, "a", NOW).unwrap();
        assert_eq!(registry.enroll(second, &token, "b", NOW).unwrap_err().code, RejectionCode::BadToken);
        assert_eq!((code(&registry, NOW), registry.fleet()), (None, 1));
        assert_eq!(registry.members()[&WORKER].seen, NOW);
    }

    #[test]
    fn a_revoked_key_does_not_come_back_by_enrolling() {
        let mut registry = registry(Standing::Revoked);
        let refused = registry.enroll(WORKER, &Token([3; 16]), "a", NOW).unwrap_err();
        assert_eq!((refused.code, registry.fleet(), registry.tokens().len()), (RejectionCode::Revoked, 0, 1));
    }

    #[test]
    fn strikes_suspend_for_a_time_and_count_anew_after_it() {
        let strikes = Strikes { suspend_at: 2, suspended_ms: 500 };
        let mut registry = registry(Standing::Admitted);
        for now in [NOW, NOW.plus(1_000)] {
            assert_eq!(registry.strike(&WORKER, strikes, now).unwrap().1.strikes, 1);
            assert_eq!(code(&registry, now), None);
            assert_eq!(registry.strike(&WORKER, strikes, now).unwrap().1.strikes, 0);
            assert_eq!(code(&registry, now.plus(499)), Some(RejectionCode::Suspended));
            assert_eq!(registry.strike(&WORKER, strikes, now.plus(499)), None, "it is suspended already");
            assert_eq!(registry.readmitted(&WORKER, now.plus(1)), now.plus(500));
            assert_eq!(code(&registry, now.plus(500)), None);
        }
        let without_end = Strikes { suspended_ms: 0, ..strikes };
        for _ in 0..2 {
            registry.strike(&WORKER, without_end, NOW.plus(5_000)).unwrap();
        }
        assert_eq!(code(&registry, Timestamp(u64::MAX - 1)), Some(RejectionCode::Suspended));
        assert_eq!(registry.readmitted(&WORKER, NOW), NOW, "it may ask at any time");
        registry.stand(&WORKER, Standing::Admitted).unwrap();
        assert_eq!(code(&registry, NOW), None);
        let nobody = Strikes { suspend_at: 0, ..strikes };
        assert_eq!(registry.strike(&WORKER, nobody, NOW), None);
        assert_eq!(registry.strike(&WorkerId([9; 32]), strikes, NOW), None);
    }

    #[test]
    fn a_change_is_told_once_and_the_fleet_is_counted_along() {
        let mut registry = registry(Standing::Admitted);
        for (standing, fleet) in [(Standing::Suspended(FOREVER), 1), (Standing::Revoked, 0), (Standing::Admitted, 1)] {
            assert_eq!(registry.stand(&WORKER, standing).unwrap().1.standing, standing);
            assert_eq!(registry.stand(&WORKER, standing), None);
            assert_eq!(registry.fleet(), fleet);
            assert_eq!(Registry::new(registry.members().clone(), registry.tokens().clone()), registry);
        }
    }

    #[test]
    fn last_seen_is_kept_to_the_minute_though_the_clock_is_set_back() {
        let mut registry = registry(Standing::Admitted);
        assert_eq!(registry.saw(&WORKER, NOW).unwrap().1.seen, NOW);
        assert_eq!(registry.saw(&WORKER, NOW.plus(SEEN_MS - 1)), None);
        assert_eq!(registry.saw(&WORKER, NOW.plus(SEEN_MS)).unwrap().1.seen, NOW.plus(SEEN_MS));
        assert_eq!(registry.saw(&WORKER, Timestamp(5)).unwrap().1.seen, Timestamp(5));
    }

    #[test]
    fn a_worker_rests_between_two_rounds_and_no_longer() {
        let mut registry = registry(Standing::Admitted);
        assert_eq!(registry.rests(&WORKER, 500, NOW), None, "it was never drawn");
        registry.drew(&WORKER, NOW).unwrap();
        assert_eq!(registry.rests(&WORKER, 500, NOW.plus(100)), Some(NOW.plus(500)));
        assert_eq!(registry.rests(&WORKER, 500, NOW.plus(500)), None);
        assert_eq!(registry.rests(&WORKER, 0, NOW), None);
        assert_eq!(registry.rests(&WORKER, 500, Timestamp(7)), Some(Timestamp(507)), "the clock was set back");
    }
}
