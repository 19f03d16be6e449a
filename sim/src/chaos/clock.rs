//! A process's wall clock: off by some seconds, and set anew now and then.
//!
//! Timers do not follow it. As in the shells that ship, a process that waits for a moment works out once how long
//! that is by its clock, and then waits that long in true time.

use packfed_protocol::Timestamp;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at true time 0.
    shows_at_zero: Timestamp,
}

/// What a clock that is right shows at true time 0: far from zero, so that it can be set back.
const EPOCH_MS: u64 = 1_000_000_000_000;

impl Clock {
    /// A clock that is right to the millisecond.
    pub const RIGHT: Self = Self { shows_at_zero: Timestamp(EPOCH_MS) };

    /// Sets it to so many milliseconds before or after what is right.
    pub fn set(&mut self, offset_ms: i64) {
        self.shows_at_zero = Timestamp(EPOCH_MS.saturating_add_signed(offset_ms));
    }

    /// What it shows.
    #[must_use]
    pub fn shows(&self, true_time: Timestamp) -> Timestamp {
        self.shows_at_zero.plus(true_time.0)
    }

    /// When a wait that begins now for a moment of this clock ends, in true time.
    #[must_use]
    pub fn wait_until(&self, moment: Timestamp, true_time: Timestamp) -> Timestamp {
        true_time.plus(moment.since(self.shows(true_time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_measured_once_and_ends_early_by_a_clock_that_is_set_back() {
        let mut clock = Clock::RIGHT;
        let moment = clock.shows(Timestamp(1_000));
        let ends = clock.wait_until(moment, Timestamp(400));
        assert_eq!(ends, Timestamp(1_000));
        clock.set(-300);
        assert!(clock.shows(ends) < moment);
        assert_eq!(clock.wait_until(moment, ends), Timestamp(1_300));
    }
}
