//! Gates: what must hold of the reports before a release goes on, and what must not for it to go back.
//!
//! ```text
//!              bound
//!   ├── passes ──┤
//!         ├── undecided: more reports, or patience ──┤
//!                ├── fails ──┤
//!   the interval that holds the truth at the gates' confidence, of what got worse
//! ```
//!
//! A release passes when it is *shown* to be no worse than the bound, and fails when it is shown to be worse: a test of
//! non-inferiority, from either side. Of rates the interval is Wilson's (1927), and they pass as they stand: that a rare
//! failure is rare could not be shown on a small fleet, however long it waits.

use packfed_protocol::Failure;
use serde::{Deserialize, Serialize};

use super::report::Sums;

/// Bounds on what a release may make worse. None is no gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// How sure a judgement is, of either side: 0.5 to below 1.
    #[serde(default = "confidence")]
    pub confidence: f64,
    /// Held-out loss may grow by so many nats.
    #[serde(default)]
    pub loss_increase_max: Option<f64>,
    /// Accuracy may fall by so much of 1.
    #[serde(default)]
    pub accuracy_drop_max: Option<f64>,
    /// The time for an example may grow by this share of what it was.
    #[serde(default)]
    pub latency_increase_max: Option<f64>,
    /// Share of workers on which it crashes or is found ill.
    #[serde(default)]
    pub crash_rate_max: Option<f64>,
    /// Share of workers that cannot fetch or verify it.
    #[serde(default)]
    pub download_failure_rate_max: Option<f64>,
}

impl Default for Gates {
    /// The loss may grow by 0.05 nats, and neither accuracy fall nor a rate of failures be over 5 %.
    fn default() -> Self {
        Self {
            confidence: confidence(),
            loss_increase_max: Some(0.05),
            accuracy_drop_max: Some(0.05),
            latency_increase_max: None,
            crash_rate_max: Some(0.05),
            download_failure_rate_max: None,
        }
    }
}

const fn confidence() -> f64 {
    0.95
}

/// What was found of a release so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Workers that evaluated it.
    pub evaluated: u32,
    /// Workers that run it well and have nothing to evaluate it on.
    pub healthy: u32,
    /// Held-out loss.
    pub loss: Sums,
    /// Accuracy.
    pub accuracy: Sums,
    /// Milliseconds an example.
    pub latency_ms: Sums,
    /// Workers on which it crashed.
    pub crashed: u32,
    /// Workers that could not fetch or verify it.
    pub not_fetched: u32,
}

/// How one gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is shown to hold.
    Passes,
    /// Too little is known.
    Undecided,
    /// It is shown not to hold.
    Fails,
}

/// One gate, with all that its verdict follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What is judged.
    pub gate: String,
    /// How it stands.
    pub verdict: Verdict,
    /// How much worse the release is, at best and at worst, at the gates' confidence; none if nothing is known.
    pub interval: Option<[f64; 2]>,
    /// How much worse it may be.
    pub bound: f64,
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (gate, bound) = (&self.gate, self.bound);
        match self.interval {
            Some([least, most]) => write!(f, "{gate} is worse by {least:.4} to {most:.4}, allowed is {bound}"),
            None => write!(f, "nothing is known of {gate}, allowed to be worse by {bound}"),
        }
    }
}

impl Measure {
    /// Workers that said anything.
    #[must_use]
    pub const fn reports(&self) -> u32 {
        self.evaluated + self.healthy + self.crashed + self.not_fetched
    }

    /// Counts a failure.
    pub const fn fail(&mut self, failure: Failure) {
        match failure {
            Failure::Crash => self.crashed += 1,
            Failure::Download | Failure::Verify => self.not_fetched += 1,
        }
    }
}

impl Gates {
    /// What is wrong with the bounds, if anything.
    ///
    /// # Errors
    /// The name, the value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if !(0.5..1.0).contains(&self.confidence) {
            return Err(format!("gates.confidence is {}, allowed is 0.5 to below 1", self.confidence));
        }
        let bounds = [
            ("loss_increase_max", self.loss_increase_max, f64::MAX),
            ("accuracy_drop_max", self.accuracy_drop_max, 1.0),
            ("latency_increase_max", self.latency_increase_max, f64::MAX),
            ("crash_rate_max", self.crash_rate_max, 1.0),
            ("download_failure_rate_max", self.download_failure_rate_max, 1.0),
        ];
        let wrong = bounds.iter().find(|(_, bound, max)| bound.is_some_and(|bound| !(0.0..=*max).contains(&bound)));
        wrong.map_or(Ok(()), |(name, bound, max)| {
            let (bound, max) = (bound.unwrap_or_default(), if *max == 1.0 { "to 1" } else { "and more" });
            Err(format!("gates.{name} is {bound}, allowed is 0 {max}"))
        })
    }

    /// Judges every gate that there is.
    #[must_use]
    pub fn judge(&self, found: &Measure) -> Vec<Judgement> {
        let z = quantile(self.confidence);
        let mean = |gate: &str, sums: &Sums, bound: Option<f64>, sign: f64, relative: bool| {
            let bound = bound?;
            let interval = sums.difference().and_then(|(mean, error)| {
                let scale = if relative { sums.before().filter(|before| *before > 0.0)? } else { 1.0 };
                let (mean, error) = (sign * mean / scale, error / scale);
                Some([mean - z * error, mean + z * error])
            });
            Some(judged(gate, interval, bound))
        };
        let rate = |gate: &str, failed: u32, bound: Option<f64>| {
            let (bound, interval) = (bound?, wilson(failed, found.reports(), z));
            let judgement = judged(gate, interval, bound);
            let holds = interval.is_some() && f64::from(failed) <= bound * f64::from(found.reports());
            let verdict = if holds { Verdict::Passes } else { judgement.verdict };
            Some(Judgement { verdict, ..judgement })
        };
        let gates = [
            mean("loss", &found.loss, self.loss_increase_max, 1.0, false),
            mean("accuracy", &found.accuracy, self.accuracy_drop_max, -1.0, false),
            mean("latency", &found.latency_ms, self.latency_increase_max, 1.0, true),
            rate("crash rate", found.crashed, self.crash_rate_max),
            rate("download failure rate", found.not_fetched, self.download_failure_rate_max),
        ];
        let absent = |judgement: &Judgement| {
            // A decoder has no accuracy, and a device may not time itself: where others are evaluated, that is no gate.
            judgement.interval.is_none() && found.evaluated > 0
        };
        gates.into_iter().flatten().filter(|judgement| !absent(judgement)).collect()
    }
}

fn judged(gate: &str, interval: Option<[f64; 2]>, bound: f64) -> Judgement {
    let verdict = match interval {
        Some([least, _]) if least > bound => Verdict::Fails,
        Some([_, most]) if most <= bound => Verdict::Passes,
        Some(_) | None => Verdict::Undecided,
    };
    Judgement { gate: gate.to_owned(), verdict, interval, bound }
}

/// Wilson's interval of a rate.
fn wilson(failed: u32, of: u32, z: f64) -> Option<[f64; 2]> {
    if of == 0 {
        return None;
    }
    let (n, rate) = (f64::from(of), f64::from(failed) / f64::from(of));
    let (square, scale) = (z * z, 1.0 + z * z / n);
    let middle = (rate + square / (2.0 * n)) / scale;
    let half = z / scale * (rate * (1.0 - rate) / n + square / (4.0 * n * n)).sqrt();
    Some([(middle - half).max(0.0), (middle + half).min(1.0)])
}

/// The value that a standard normal variable is below with this probability.
fn quantile(probability: f64) -> f64 {
    let below = |z: f64| 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
    let (mut low, mut high) = (0.0, 9.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use packfed_protocol::Paired;

    use super::*;

    fn found(workers: u32, examples: u32, difference: f64, deviation: f64) -> Measure {
        let mut measure = Measure { evaluated: workers, ..Measure::default() };
        for _ in 0..workers {
            let squares = f64::from(examples) * (difference * difference + deviation * deviation);
            measure.loss.add(examples, &Paired { before: 1.0, after: 1.0 + difference, squares });
        }
        measure
    }

    fn loss_alone() -> Gates {
        Gates { accuracy_drop_max: None, crash_rate_max: None, ..Gates::default() }
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, z) in [(0.5, 0.0), (0.95, 1.644_854), (0.975, 1.959_964), (0.999, 3.090_232)] {
            assert!((quantile(probability) - z).abs() < 1e-5, "{probability}");
        }
    }

    #[test]
    fn a_gate_passes_fails_or_waits() {
        let verdict = |found: &Measure| loss_alone().judge(found)[0].verdict;
        assert_eq!(verdict(&found(20, 50, 0.0, 0.2)), Verdict::Passes);
        assert_eq!(verdict(&found(20, 50, 0.5, 0.2)), Verdict::Fails);
        assert_eq!(verdict(&found(1, 10, 0.04, 0.2)), Verdict::Undecided);
        assert_eq!(verdict(&Measure::default()), Verdict::Undecided);
    }

    #[test]
    fn a_poisoned_release_fails_on_one_worker() {
        assert_eq!(loss_alone().judge(&found(1, 20, 3.0, 1.0))[0].verdict, Verdict::Fails);
    }

    #[test]
    fn wilsons_interval_is_that_of_the_literature() {
        // 1 of 10 at 95 % of either side of two: Wilson 0.0179 to 0.4042.
        let [low, high] = wilson(1, 10, 1.959_964).unwrap();
        assert!((low - 0.0179).abs() < 1e-4 && (high - 0.4042).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0, 1.6), None);
        assert!(wilson(0, 5, 1.6).unwrap()[0] < 1e-12);
    }

    #[test]
    fn crashes_alone_can_fail_a_release() {
        let gates = Gates { crash_rate_max: Some(0.05), ..Gates::default() };
        let crashed = Measure { crashed: 4, ..found(1, 20, 0.0, 0.1) };
        let judgements = gates.judge(&crashed);
        let crash = judgements.iter().find(|judgement| judgement.gate == "crash rate").unwrap();
        assert_eq!(crash.verdict, Verdict::Fails, "{crash}");
        assert!(judgements.iter().all(|judgement| judgement.gate != "accuracy"), "nobody has one");
    }

    #[test]
    fn bounds_that_make_no_sense_are_named() {
        let wrong = |gates: Gates| gates.check().unwrap_err();
        assert_eq!(
            wrong(Gates { confidence: 1.0, ..Gates::default() }),
            "gates.confidence is 1, allowed is 0.5 to below 1"
        );
        let gates = Gates { crash_rate_max: Some(1.5), ..Gates::default() };
        assert_eq!(wrong(gates), "gates.crash_rate_max is 1.5, allowed is 0 to 1");
        let gates = Gates { loss_increase_max: Some(-0.1), ..Gates::default() };
        assert_eq!(wrong(gates), "gates.loss_increase_max is -0.1, allowed is 0 and more");
        assert_eq!(Gates::default().check(), Ok(()));
    }
}
