//! How long devices take: a factor that a device keeps, and stragglers, jobs that take much longer once.
//!
//! Everything follows from a seed, the device's number and the round. It knows no steps and no network.

use packfed_codec::Seed;
use packfed_protocol::Round;
use rand_distr::{Distribution, LogNormal, Pareto};
use serde::{Deserialize, Serialize};

/// How a fleet's devices differ from the fastest ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Spread {
    /// One to four times its time, evenly by ratio, and always the same.
    Even,
    /// Log-normal with median 2 over devices, and now and then a job that takes Pareto-distributed times as long.
    HeavyTailed(Tail),
}

/// The parameters of a heavy-tailed fleet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Standard deviation of the logarithm of a device's factor.
    pub sigma: f64,
    /// Share of the jobs that straggle.
    pub straggling: f64,
    /// Shape of the Pareto distribution of a straggler's factor, which is at least [`Tail::LEAST`]; at 1 and below
    /// it has no mean.
    pub shape: f64,
}

impl Tail {
    /// The least factor of a straggling job.
    pub const LEAST: f64 = 3.0;
    /// The largest factor of a job in all: a day for what takes a minute and a half.
    pub const MOST: f64 = 1_000.0;
    /// One device in six is e times slower than the median, one in forty e² times; one job in ten straggles, with a
    /// mean factor of 9.
    pub const USUAL: Self = Self { sigma: 1.0, straggling: 0.1, shape: 1.5 };
}

/// Median of the devices' factors, the same in both spreads.
const MEDIAN: f64 = 2.0;

impl Spread {
    /// The factors that devices keep.
    #[must_use]
    pub fn devices(self, seed: &Seed, devices: usize) -> Vec<f64> {
        let mut stream = seed.derive("packfed/speeds/1", &[]).stream();
        let slowness = match self {
            Self::Even => None,
            Self::HeavyTailed(tail) => LogNormal::new(MEDIAN.ln(), tail.sigma).ok(),
        };
        let factor = |_| match &slowness {
            Some(slowness) => slowness.sample(&mut stream),
            None => 4f64.powf(stream.unit()),
        };
        (0..devices).map(factor).collect()
    }

    /// The factor of one job, on top of its device's.
    #[must_use]
    pub fn job(self, seed: &Seed, device: usize, round: Round) -> f64 {
        let Self::HeavyTailed(tail) = self else { return 1.0 };
        let mut stream = seed.derive("packfed/straggling/1", &[device as u64, round.0]).stream();
        if stream.unit() >= tail.straggling {
            return 1.0;
        }
        let factor = Pareto::new(Tail::LEAST, tail.shape).map_or(Tail::LEAST, |pareto| pareto.sample(&mut stream));
        factor.min(Tail::MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAVY: Spread = Spread::HeavyTailed(Tail::USUAL);

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    #[test]
    fn both_spreads_have_one_median_and_only_one_has_a_tail() {
        let devices = |spread: Spread| spread.devices(&Seed::from_number(1), 10_000);
        for spread in [Spread::Even, HEAVY] {
            assert!((median(devices(spread)) - MEDIAN).abs() < 0.1);
        }
        assert!(devices(Spread::Even).iter().all(|factor| (1.0..4.0).contains(factor)));
        let slow = devices(HEAVY).iter().filter(|&&factor| factor > MEDIAN * std::f64::consts::E).count();
        assert!((1_400..1_800).contains(&slow), "{slow} of 10,000 are beyond one sigma");
    }

    #[test]
    fn one_job_in_ten_straggles_and_few_straggle_much() {
        let seed = Seed::from_number(1);
        let jobs: Vec<f64> = (0..10_000).map(|n| HEAVY.job(&seed, n % 50, Round(n as u64))).collect();
        let above = |least: f64| jobs.iter().filter(|&&factor| factor >= least).count();
        assert!((900..1_100).contains(&above(Tail::LEAST)), "{}", above(Tail::LEAST));
        // P(factor > 12) = (3/12)^1.5 = 1/8.
        assert!((90..160).contains(&above(12.0)), "{}", above(12.0));
        assert!(jobs.iter().all(|factor| (1.0..=Tail::MOST).contains(factor)));
        assert_eq!(HEAVY.job(&seed, 3, Round(4)), HEAVY.job(&seed, 3, Round(4)));
        assert_eq!(Spread::Even.job(&seed, 3, Round(4)), 1.0);
    }
}
