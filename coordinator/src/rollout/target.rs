//! Which workers a rollout is for, by their labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the operator calls a worker by: `channel=beta`, `model=x2`, `region=eu`.
pub type Labels = BTreeMap<String, String>;

/// The label that names a worker's channel.
pub const CHANNEL: &str = "channel";
/// The channel of a worker without that label.
pub const STABLE: &str = "stable";

/// Labels that a worker must have, and labels that it must not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A worker has all of these. Default none.
    #[serde(default)]
    pub only: Labels,
    /// A worker has none of these. Default none.
    #[serde(default)]
    pub except: Labels,
}

impl Target {
    /// Whether a worker with these labels is meant.
    #[must_use]
    pub fn takes(&self, labels: &Labels) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.only.iter().all(has) && !self.except.iter().any(has)
    }
}

/// The channel that a worker with these labels follows.
#[must_use]
pub fn channel(labels: &Labels) -> &str {
    labels.get(CHANNEL).map_or(STABLE, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_worker_has_all_that_it_must_and_nothing_that_it_must_not() {
        let target = Target { only: labels(&[("region", "eu")]), except: labels(&[("model", "x1"), ("model2", "a")]) };
        assert!(target.takes(&labels(&[("region", "eu"), ("model", "x2")])));
        assert!(!target.takes(&labels(&[("region", "us")])));
        assert!(!target.takes(&labels(&[])));
        assert!(!target.takes(&labels(&[("region", "eu"), ("model", "x1")])));
        assert!(Target::default().takes(&labels(&[])));
    }

    #[test]
    fn a_worker_without_a_channel_follows_stable() {
        assert_eq!(channel(&labels(&[])), "stable");
        assert_eq!(channel(&labels(&[("channel", "beta")])), "beta");
    }
}
