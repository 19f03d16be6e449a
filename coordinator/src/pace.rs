//! When a worker that is not needed now comes back: small fleets together, large ones spread over time.
//!
//! ```text
//!   window k       ○ checks in: no
//!   window k + 1   ├──── spread ────┤            fleet / per_second, or all of the window
//!                         ○ comes back           a moment of its own, anew in each window
//! ```
//!
//! Pace steering (Bonawitz et al., "Towards Federated Learning at Scale: System Design", 2019, §2.3). Time is cut into
//! windows. Whoever checks in within one is told a moment within the next, drawn anew each time, so that a fleet of any
//! size arrives at the configured rate in every window, whatever happened before: when all came at once, the next
//! window has them spread, and whoever then finds nobody knows its moment in the one after that. As long as a window
//! is longer than the spread, the fleet comes at its beginning and is there together.
//!
//! It knows no connections and keeps no record of whom it told what; see [`Pace::moment`].

use packfed_codec::Seed;
use packfed_protocol::{Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, range};

/// `[pace]`: how fast workers may arrive, and how many are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Check-ins in a second that a fleet of workers who come back is spread to. Default 100.
    pub per_second: u32,
    /// Milliseconds after which a small fleet comes together again. Default 60,000.
    pub meeting_ms: u64,
    /// Milliseconds over which a fleet is spread at most; a larger one comes faster than `per_second`. Default a day.
    pub spread_ms_max: u64,
    /// Free workers that are held connected, to be told at once when they are drawn; others come back. Default 8,192.
    pub held_max: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Pace {
    /// The defaults.
    pub const DEFAULT: Self = Self { per_second: 100, meeting_ms: 60_000, spread_ms_max: DAY_MS, held_max: 8_192 };

    /// Milliseconds over which the check-ins of so many workers are spread.
    #[must_use]
    pub fn spread_ms(&self, fleet: u64) -> u64 {
        let at_the_rate = fleet.saturating_mul(1_000).div_ceil(u64::from(self.per_second).max(1));
        at_the_rate.clamp(1, self.spread_ms_max.max(1))
    }

    /// Milliseconds within which each of so many workers comes once.
    #[must_use]
    pub fn window_ms(&self, fleet: u64) -> u64 {
        self.spread_ms(fleet).max(self.meeting_ms)
    }

    /// When a worker comes back of a fleet of so many: its own moment in the window after the one in which
    /// `not_before` is. It follows from the run's seed, the key and the window alone.
    #[must_use]
    pub fn moment(&self, seed: &Seed, worker: &WorkerId, fleet: u64, not_before: Timestamp) -> Timestamp {
        self.moment_in(self.window_after(fleet, not_before), seed, worker, fleet)
    }

    /// Milliseconds that it waits then if it finds nobody: until its moment in the window after that. A fleet that is
    /// there together need not be spread, so 0.
    #[must_use]
    pub fn again_ms(&self, seed: &Seed, worker: &WorkerId, fleet: u64, not_before: Timestamp) -> u64 {
        if self.spread_ms(fleet) <= self.meeting_ms {
            return 0;
        }
        let next = self.window_after(fleet, not_before);
        let moment = |window| self.moment_in(window, seed, worker, fleet);
        moment(next.saturating_add(1)).since(moment(next))
    }

    fn window_after(&self, fleet: u64, moment: Timestamp) -> u64 {
        (moment.0 / self.window_ms(fleet)).saturating_add(1)
    }

    fn moment_in(&self, window: u64, seed: &Seed, worker: &WorkerId, fleet: u64) -> Timestamp {
        let own = seed.derive("packfed/pace/1", &[window]).derive_for_key("packfed/pace-of/1", &worker.0);
        Timestamp(window.saturating_mul(self.window_ms(fleet))).plus(own.stream().below(self.spread_ms(fleet)))
    }

    /// Checks every number; `held_min` workers have to be held together for the run to go on.
    pub(crate) fn check(&self, held_min: u64) -> Result<(), PlanError> {
        range("pace per_second", f64::from(self.per_second), 1.0..=1e6)?;
        range("pace meeting_ms", self.meeting_ms as f64, 100.0..=DAY_MS as f64)?;
        range("pace spread_ms_max", self.spread_ms_max as f64, 1_000.0..=30.0 * DAY_MS as f64)?;
        range("pace held_max", f64::from(self.held_max), held_min as f64..=1e6)
    }
}

const DAY_MS: u64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_750_000_000_000);

    fn key(n: u64) -> WorkerId {
        WorkerId(*Seed::from_number(n).bytes())
    }

    /// The moments of a fleet that all checks in now, ascending.
    fn moments(pace: &Pace, fleet: u64, now: Timestamp) -> Vec<u64> {
        let seed = Seed::from_number(1);
        let mut moments: Vec<u64> = (0..fleet).map(|n| pace.moment(&seed, &key(n), fleet, now).0).collect();
        moments.sort_unstable();
        moments
    }

    fn peak_per_second(moments: &[u64]) -> usize {
        moments.chunk_by(|a, b| a / 1_000 == b / 1_000).map(<[u64]>::len).max().unwrap_or(0)
    }

    #[test]
    fn a_small_fleet_comes_together_however_its_check_ins_were_spread() {
        let (pace, seed) = (Pace::DEFAULT, Seed::from_number(1));
        // The window that the moment is in has begun a while ago.
        let begun = NOON.0 / 60_000 * 60_000;
        let told = |n: u64| pace.moment(&seed, &key(n), 20, Timestamp(begun + 2_999 * n)).0;
        let moments: Vec<u64> = (0..20).map(told).collect();
        assert!(moments.iter().all(|at| (begun + 60_000..begun + 60_200).contains(at)), "{moments:?}");
        assert!(moments.iter().any(|at| at != &moments[0]), "but not in the same millisecond");
    }

    #[test]
    fn a_large_fleet_is_spread_over_a_window_that_grows_with_it() {
        let pace = Pace::DEFAULT;
        assert_eq!([20, 6_000, 100_000].map(|fleet| pace.window_ms(fleet)), [60_000, 60_000, 1_000_000]);
        let moments = moments(&pace, 100_000, NOON);
        let (first, last) = (moments[0], moments[moments.len() - 1]);
        assert!(first > NOON.0 && last - first > 990_000 && last - first <= 1_000_000);
        // 100 on average; a Poisson count beyond its mean by five deviations comes once in millions of seconds.
        assert!(peak_per_second(&moments) <= 150, "{}", peak_per_second(&moments));
    }

    #[test]
    fn a_fleet_beyond_the_longest_spread_comes_faster_and_no_later() {
        let pace = Pace { spread_ms_max: 10_000, meeting_ms: 1_000, ..Pace::DEFAULT };
        let moments = moments(&pace, 10_000, NOON);
        assert!(moments[moments.len() - 1] <= NOON.0 + 2 * 10_000);
        assert!(peak_per_second(&moments) > 900);
    }

    #[test]
    fn the_same_worker_is_told_the_same_and_another_window_or_seed_says_otherwise() {
        let pace = Pace::DEFAULT;
        let told = |seed, n, now| pace.moment(&Seed::from_number(seed), &key(n), 100_000, now);
        assert_eq!(told(1, 1, NOON), told(1, 1, NOON));
        assert_ne!(told(1, 1, NOON), told(2, 1, NOON));
        assert_ne!(told(1, 1, NOON), told(1, 2, NOON));
        let later = told(1, 1, NOON.plus(1_000_000));
        assert_ne!(later.0, told(1, 1, NOON).0 + 1_000_000, "no worker has the same place in every window");
        let end = Timestamp(u64::MAX);
        assert_eq!(told(1, 1, end), end, "time never wraps");
        let again = |fleet| pace.again_ms(&Seed::from_number(1), &key(1), fleet, NOON);
        assert_eq!(told(1, 1, NOON).plus(again(100_000)), told(1, 1, NOON.plus(1_000_000)), "it is its next moment");
        assert_eq!(again(6_000), 0);
    }

    #[test]
    fn numbers_out_of_bounds_are_named_with_their_bound() {
        let error = |pace: Pace| pace.check(16).unwrap_err().to_string();
        assert_eq!(Pace::DEFAULT.check(16), Ok(()));
        assert_eq!(error(Pace { per_second: 0, ..Pace::DEFAULT }), "pace per_second is 0, allowed is 1 to 1000000");
        assert_eq!(error(Pace { held_max: 15, ..Pace::DEFAULT }), "pace held_max is 15, allowed is 16 to 1000000");
        assert!(error(Pace { meeting_ms: 0, ..Pace::DEFAULT }).starts_with("pace meeting_ms is 0, allowed is 100 to"));
        assert!(error(Pace { spread_ms_max: 0, ..Pace::DEFAULT }).starts_with("pace spread_ms_max is 0, allowed is"));
    }
}
