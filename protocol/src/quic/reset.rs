//! Stateless resets that outlive the process: a restarted coordinator can tell its old peers so.
//!
//! A peer believes that a connection is gone when a packet ends in the token that it was given with the
//! connection id (RFC 9000, §10.3). The token follows here from the identity's secret and the id, so a
//! process that forgot every connection can still make it; without that, peers of a killed coordinator
//! wait out their idle time-out. Ids are random and not checkable, or a new process would drop the packets
//! of old connections unanswered.

use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};

use crate::identity::Identity;

/// The key that reset tokens are made with; keyed BLAKE3.
pub(super) struct ResetKey([u8; 32]);

impl ResetKey {
    /// The key of an identity, the same in every process.
    pub(super) fn new(identity: &Identity) -> ResetKey {
        ResetKey(identity.derive("packfed/stateless-reset/1"))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Comparing hashes takes the same time whatever they are.
        let same = |signature: [u8; blake3::OUT_LEN]| blake3::keyed_hash(&self.0, data) == signature;
        signature.try_into().is_ok_and(same).then_some(()).ok_or(CryptoError)
    }
}

/// Eight random bytes a connection id.
pub(super) struct RandomIds;

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).expect("a system that gave a key's randomness goes on giving some");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_identity_makes_the_same_token() {
        let token = |seed: u8| {
            let mut token = [0; blake3::OUT_LEN];
            ResetKey::new(&Identity::from_seed([seed; 32])).sign(b"id", &mut token);
            token
        };
        assert_eq!(token(1), token(1));
        assert_ne!(token(1), token(2));
        assert!(ResetKey::new(&Identity::from_seed([1; 32])).verify(b"id", &token(1)).is_ok());
        assert!(ResetKey::new(&Identity::from_seed([1; 32])).verify(b"id", &token(2)).is_err());
    }
}
