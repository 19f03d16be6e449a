//! A made-up run for the tests of the table and the report.

use crate::results::{MethodResult, Metric, Point, Results, Score, Tuned};

/// Three methods; dense was tuned.
pub(crate) fn results() -> Results {
    let mut dense = method("dense", [0.843, 3_378_432.0, 3_378_500.0]);
    dense.worker_rounds_per_s = 1203.7;
    dense.tuning = [(0.0005, 0.833), (0.001, 0.843), (0.002, 0.8391)]
        .map(|(learning_rate, accuracy)| Tuned { learning_rate, score: Score { accuracy, loss: 0.5 } })
        .to_vec();
    let packfed = method("packfed", [0.8412, 26_816.0, 27_012.0]);
    let lora = method("lora-r4", [0.829, 211_152.0, 211_200.0]);
    Results {
        task: "digits".to_owned(),
        seed: 7,
        metric: Metric::Accuracy,
        methods: vec![packfed, dense, lora],
        personal: None,
    }
}

/// A record with 60 rounds of eight workers.
pub(crate) fn method(name: &str, [accuracy, bytes_up, bytes_down]: [f64; 3]) -> MethodResult {
    MethodResult {
        name: name.to_owned(),
        score: Score { accuracy, loss: 0.5 },
        bytes_up,
        bytes_down,
        rounds: 60,
        worker_rounds_per_s: 41.27,
        digest: "0b".repeat(32),
        learning_rate: 0.001,
        tuning: Vec::new(),
        curve: (0..=60).map(|round| point(round, [accuracy, bytes_up, bytes_down])).collect(),
    }
}

/// A point of a curve that climbs from 0.1 towards `accuracy`.
fn point(round: u32, [accuracy, bytes_up, bytes_down]: [f64; 3]) -> Point {
    let done = f64::from(round);
    let total = |bytes: f64| (0..round * 8).fold(0_u64, |sum, _| sum + format!("{bytes:.0}").parse::<u64>().unwrap());
    Point {
        round: u64::from(round),
        score: Score { accuracy: accuracy - (accuracy - 0.1) * (-done / 12.0).exp(), loss: 2.0 - done / 40.0 },
        bytes_up: total(bytes_up),
        bytes_down: total(bytes_down),
        virtual_s: done * 2.5,
    }
}
