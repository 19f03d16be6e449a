//! Real time, for speeds: the one place of the simulator's library that reads a clock beside the display.

use std::time::{Duration, Instant};

/// Adds up the time between [`Stopwatch::start`] and [`Stopwatch::pause`].
#[derive(Debug, Default)]
pub struct Stopwatch {
    total: Duration,
    since: Option<Instant>,
}

#[expect(clippy::disallowed_methods, reason = "speeds are measured in real time")]
fn now() -> Instant {
    Instant::now()
}

impl Stopwatch {
    /// A stopwatch that runs.
    #[must_use]
    pub fn started() -> Self {
        Self { total: Duration::ZERO, since: Some(now()) }
    }

    /// Goes on.
    pub fn start(&mut self) {
        self.since.get_or_insert_with(now);
    }

    /// Stands still until [`Stopwatch::start`].
    pub fn pause(&mut self) {
        self.total += self.since.take().map_or(Duration::ZERO, |since| now() - since);
    }

    /// Seconds so far.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.total + self.since.map_or(Duration::ZERO, |since| now() - since)).as_secs_f64()
    }
}
