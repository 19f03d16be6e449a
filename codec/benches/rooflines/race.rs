//! Two kernels timed in turn: what is between them is the ratio, whatever else the machine does meanwhile.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// One side's work, with its own data: called again and again.
pub(crate) type Work = Box<dyn FnMut() + Send>;

/// What a figure is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Our speed is at least this share of theirs.
    SpeedShare(f64),
    /// Our time is at most this share of theirs.
    TimeShare(f64),
    /// At least so many gigabytes a second.
    Rate(f64),
    /// At most so long.
    Within(Duration),
    /// Just to see.
    None,
}

/// A kernel of ours and what it is measured beside.
pub(crate) struct Race {
    /// The kernel.
    pub(crate) name: String,
    /// What it is measured beside.
    pub(crate) beside: &'static str,
    /// Bytes that one call of ours moves, where a rate means something.
    pub(crate) bytes: Option<usize>,
    /// What it should reach.
    pub(crate) goal: Goal,
    /// Makes our side's work, once a thread.
    pub(crate) ours: Box<dyn Fn() -> Work>,
    /// Makes theirs.
    pub(crate) theirs: Box<dyn Fn() -> Work>,
}

/// Pairs that are timed.
const PAIRS: usize = 31;
/// Least time of one sample.
const SAMPLE: Duration = Duration::from_millis(12);

impl Race {
    /// Times both sides in turn, on so many threads at once, each with data of its own.
    pub(crate) fn run(&self, threads: usize) -> Outcome<'_> {
        let mut ours: Vec<Work> = (0..threads).map(|_| (self.ours)()).collect();
        let mut theirs: Vec<Work> = (0..threads).map(|_| (self.theirs)()).collect();
        let (our_calls, their_calls) = (calls(&mut ours), calls(&mut theirs));
        let mut pairs: Vec<(f64, f64)> =
            (0..PAIRS).map(|_| (sample(&mut ours, our_calls), sample(&mut theirs, their_calls))).collect();
        let ours = median(pairs.iter().map(|pair| pair.0));
        let theirs = median(pairs.iter().map(|pair| pair.1));
        pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let ratio = |n: usize| pairs[n].0 / pairs[n].1;
        let ratios = [ratio(PAIRS / 4), ratio(PAIRS / 2), ratio(3 * PAIRS / 4)];
        Outcome { race: self, threads, ours, theirs, ratios }
    }
}

/// How often to call, so that a sample is long enough.
fn calls(work: &mut [Work]) -> usize {
    let mut calls = 1;
    while sample(work, calls) * (calls as f64) < SAMPLE.as_secs_f64() {
        calls *= 2;
    }
    calls
}

/// Seconds a call, all threads running at once.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn sample(work: &mut [Work], calls: usize) -> f64 {
    if let [work] = work {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        return start.elapsed().as_secs_f64() / calls as f64;
    }
    let barrier = Barrier::new(work.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = work
            .iter_mut()
            .map(|work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    (0..calls).for_each(|_| work());
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().expect("a kernel does not panic");
        }
        start.elapsed().as_secs_f64() / calls as f64
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a race came to; times in seconds a call.
pub(crate) struct Outcome<'a> {
    race: &'a Race,
    threads: usize,
    ours: f64,
    theirs: f64,
    /// Lower quartile, median and upper quartile of our time over theirs.
    ratios: [f64; 3],
}

impl Outcome<'_> {
    fn rate(&self) -> Option<f64> {
        self.race.bytes.map(|bytes| (bytes * self.threads) as f64 / self.ours / 1e9)
    }

    fn goal(&self) -> (String, Option<bool>) {
        match self.race.goal {
            Goal::SpeedShare(least) => (format!("speed ≥ {:.0} %", 100.0 * least), Some(1.0 / self.ratios[1] >= least)),
            Goal::TimeShare(most) => (format!("time ≤ {:.0} %", 100.0 * most), Some(self.ratios[1] <= most)),
            Goal::Rate(least) => (format!("≥ {least} GB/s"), self.rate().map(|rate| rate >= least)),
            Goal::Within(most) => (format!("≤ {most:?}"), Some(self.ours <= most.as_secs_f64())),
            Goal::None => (String::new(), None),
        }
    }

    /// The cells of the table.
    pub(crate) fn row(&self) -> [String; 8] {
        let (goal, met) = self.goal();
        let rate = self.rate().map_or(String::new(), |rate| format!(", {rate:.1} GB/s"));
        [
            self.race.name.clone(),
            self.race.beside.to_owned(),
            self.threads.to_string(),
            format!("{}{rate}", shown(self.ours)),
            shown(self.theirs),
            self.shown_ratio(),
            goal,
            met.map_or("", |met| if met { "met" } else { "missed" }).to_owned(),
        ]
    }

    /// One line of progress.
    pub(crate) fn line(&self) -> String {
        format!("{} ({} core(s)): {}, {}", self.race.name, self.threads, shown(self.ours), self.shown_ratio())
    }

    /// One JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        let (goal, met) = self.goal();
        serde_json::json!({
            "kernel": self.race.name, "beside": self.race.beside, "cores": self.threads, "seconds": self.ours,
            "theirs_seconds": self.theirs, "gigabytes_per_second": self.rate(), "time_ratio": self.ratios[1],
            "time_ratio_quartiles": [self.ratios[0], self.ratios[2]], "goal": goal, "met": met,
        })
    }

    fn shown_ratio(&self) -> String {
        let [low, middle, high] = self.ratios;
        let (low, middle, high, of) = match self.race.goal {
            Goal::SpeedShare(_) => (1.0 / high, 1.0 / middle, 1.0 / low, "speed"),
            _ => (low, middle, high, "time"),
        };
        format!("{of} {:.1} % ({:.1}–{:.1})", 100.0 * middle, 100.0 * low, 100.0 * high)
    }
}

fn shown(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
