//! A moment, as a number that somebody hands in.
//!
//! State machines take `now: Timestamp` and never read a clock. What zero means is the shell's
//! choice: the Unix epoch in a process, the start in a simulation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch in a process, since the start in a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `ms` milliseconds later, or the last one there is.
    pub fn plus(self, ms: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that lies ahead.
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_wraps() {
        assert_eq!(Timestamp(5).plus(3), Timestamp(8));
        assert_eq!(Timestamp(5).plus(u64::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(3)), 2);
        assert_eq!(Timestamp(3).since(Timestamp(5)), 0);
    }
}
