//! What several measurements of one thing came to.

use std::fmt;

use serde::Serialize;

/// Median, least and most.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: quantile(&values, 0.5), least: quantile(&values, 0.0), most: quantile(&values, 1.0) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(1);
        let Self { median, least, most } = self;
        write!(f, "{median:.precision$} [{least:.precision$}, {most:.precision$}]")
    }
}

/// The value of ascending ones that this share of them does not exceed; 0 of none.
pub(crate) fn quantile(ascending: &[f64], share: f64) -> f64 {
    let rank = (1..ascending.len()).filter(|&rank| (rank as f64) < share * ascending.len() as f64).count();
    ascending.get(rank).copied().unwrap_or(0.0)
}
