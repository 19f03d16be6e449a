//! Bodies of catch-ups that workers were told of: by digest, so that a broken download goes on whatever
//! has been committed since.
//!
//! The one that was told or asked for last is always there; earlier ones within a bound on their bytes
//! and for a bounded time. Workers that are told the same share the bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use packfed_protocol::{Digest, Payload, Timestamp};

pub(super) struct Bodies {
    bytes_max: u64,
    keep_ms: u64,
    /// The one that was of use last is at the end.
    kept: Mutex<VecDeque<(Timestamp, Payload)>>,
}

impl Bodies {
    pub(super) fn new(bytes_max: u64, keep_ms: u64) -> Self {
        Self { bytes_max, keep_ms, kept: Mutex::default() }
    }

    /// Keeps a body, and forgets what is too old or too much.
    pub(super) fn keep(&self, body: &Payload, now: Timestamp) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = body.id().digest;
        kept.retain(|(_, other)| other.id().digest != digest);
        kept.push_back((now, body.clone()));
        let mut bytes: u64 = kept.iter().map(|(_, body)| body.id().bytes).sum();
        while kept.len() > 1 {
            let Some((since, oldest)) = kept.front() else { return };
            if bytes <= self.bytes_max && now.since(*since) <= self.keep_ms {
                return;
            }
            bytes -= oldest.id().bytes;
            kept.pop_front();
        }
    }

    /// The body with this digest, if it is still there.
    pub(super) fn find(&self, digest: Digest, now: Timestamp) -> Option<Payload> {
        let found = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().find(|(_, body)| body.id().digest == digest).map(|(_, body)| body.clone())
        };
        if let Some(body) = &found {
            self.keep(body, now);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: u8) -> Payload {
        Payload::new(vec![n; 40])
    }

    fn there(bodies: &Bodies, n: u8) -> bool {
        bodies.find(body(n).id().digest, Timestamp(0)).is_some()
    }

    #[test]
    fn beyond_the_bound_the_one_that_was_of_no_use_longest_goes() {
        let bodies = Bodies::new(100, 1000);
        bodies.keep(&body(1), Timestamp(0));
        bodies.keep(&body(2), Timestamp(0));
        assert!(there(&bodies, 1));
        bodies.keep(&body(3), Timestamp(0));
        assert_eq!([1, 2, 3].map(|n| there(&bodies, n)), [true, false, true]);
    }

    #[test]
    fn the_last_one_stays_however_large_or_old() {
        let bodies = Bodies::new(1, 1);
        bodies.keep(&body(1), Timestamp(0));
        assert!(there(&bodies, 1));
        bodies.keep(&body(2), Timestamp(5));
        assert_eq!([1, 2].map(|n| there(&bodies, n)), [false, true]);
    }

    #[test]
    fn what_is_told_twice_is_kept_once() {
        let bodies = Bodies::new(100, 1000);
        for _ in 0..3 {
            bodies.keep(&body(1), Timestamp(0));
        }
        assert_eq!(bodies.kept.lock().unwrap().len(), 1);
    }
}
