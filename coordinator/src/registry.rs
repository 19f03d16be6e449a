//! Who may take part: workers by their key, and the one-time tokens that let a key in.
//!
//! The registry knows keys and standings; it does not know who is connected or selected.

use std::collections::{BTreeMap, BTreeSet};

use packfed_protocol::{Digest, Rejection, RejectionCode, Token, WorkerId};
use serde::{Deserialize, Serialize};

/// Whether a worker may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It may.
    Admitted,
    /// Not for now.
    Suspended,
    /// Never again under this key.
    Revoked,
}

/// One enrolled worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name it gave.
    pub name: String,
    /// Whether it may take part.
    pub standing: Standing,
}

/// Enrolled workers and unused tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    members: BTreeMap<WorkerId, Member>,
    tokens: BTreeSet<Digest>,
}

/// What a registry keeps of a token: its hash, so that a stolen store admits nobody.
#[must_use]
pub fn token_digest(token: &Token) -> Digest {
    Digest::of(&token.0)
}

impl Registry {
    /// A registry as it was stored.
    #[must_use]
    pub const fn new(members: BTreeMap<WorkerId, Member>, tokens: BTreeSet<Digest>) -> Self {
        Self { members, tokens }
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

    /// Enrols a key with a one-time token, which is then used up. A key that is enrolled already may
    /// say so again with any token, since its first answer may have been lost.
    ///
    /// # Errors
    /// If the token is not known, or the key is suspended or revoked.
    pub fn enroll(&mut self, worker: WorkerId, token: &Token, name: &str) -> Result<Member, Rejection> {
        if let Some(member) = self.members.get(&worker) {
            let member = member.clone();
            return self.admitted(&worker).map(|()| member);
        }
        if !self.tokens.remove(&token_digest(token)) {
            let detail = "the token is unknown or used; ask the operator for another";
            return Err(Rejection::new(RejectionCode::BadToken, detail));
        }
        let member = Member { name: name.to_owned(), standing: Standing::Admitted };
        self.members.insert(worker, member.clone());
        Ok(member)
    }

    /// Whether a key may take part.
    ///
    /// # Errors
    /// If it is not enrolled, suspended or revoked.
    pub fn admitted(&self, worker: &WorkerId) -> Result<(), Rejection> {
        match self.members.get(worker).map(|member| member.standing) {
            Some(Standing::Admitted) => Ok(()),
            Some(Standing::Suspended) => Err(Rejection::new(RejectionCode::Suspended, "the worker is suspended")),
            Some(Standing::Revoked) => Err(Rejection::new(RejectionCode::Suspended, "the worker's key is revoked")),
            None => Err(Rejection::new(RejectionCode::UnknownWorker, "the key is not enrolled; enrol with a token")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_one_key_once() {
        let token = Token([3; 16]);
        let mut registry = Registry::new(BTreeMap::new(), BTreeSet::from([token_digest(&token)]));
        let (first, second) = (WorkerId([1; 32]), WorkerId([2; 32]));
        assert_eq!(registry.admitted(&first).unwrap_err().code, RejectionCode::UnknownWorker);
        registry.enroll(first, &token, "a").unwrap();
        registry.enroll(first, &token, "a").unwrap();
        assert_eq!(registry.enroll(second, &token, "b").unwrap_err().code, RejectionCode::BadToken);
        assert!(registry.admitted(&first).is_ok());
    }

    #[test]
    fn a_revoked_key_does_not_come_back_by_enrolling() {
        let token = Token([3; 16]);
        let worker = WorkerId([1; 32]);
        let member = Member { name: "a".into(), standing: Standing::Revoked };
        let mut registry = Registry::new(BTreeMap::from([(worker, member)]), BTreeSet::from([token_digest(&token)]));
        assert_eq!(registry.enroll(worker, &token, "a").unwrap_err().code, RejectionCode::Suspended);
    }
}
