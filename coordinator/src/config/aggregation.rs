//! `[aggregation]`: the rule by its name, and the numbers that go with it.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::aggregation::{Aggregation, RobustRule, Rule};

/// The table as it is written. A number that its rule does not take is an error, and so is one that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregationTable {
    /// How updates become one delta. Default mean.
    pub rule: RuleName,
    /// The longest that an update may be, in units of an orthonormal coefficient; 0, the default, leaves every update as
    /// it is.
    pub clip_norm: f64,
    /// Of trimmed-mean: the share that is cut off at each end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trim: Option<f64>,
    /// Of multi-krum: most updates of a round that may lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malicious_max: Option<u32>,
    /// Of multi-krum: updates that are averaged; by default all but `malicious_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected: Option<u32>,
}

/// A rule by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleName {
    /// The mean, weighted by examples.
    #[default]
    Mean,
    /// The median of every lane.
    Median,
    /// The mean of every lane without its ends.
    TrimmedMean,
    /// The mean of the updates that lie closest to the others.
    MultiKrum,
}

impl AggregationTable {
    /// The rule with its numbers; whether they are within their bounds is for the plan to say.
    ///
    /// # Errors
    /// If the rule does not take these numbers.
    pub fn aggregation(self) -> Result<Aggregation, ConfigError> {
        let Self { rule, clip_norm, trim, malicious_max, selected } = self;
        let given = (trim, malicious_max, selected);
        let rule = match (rule, given) {
            (RuleName::Mean, (None, None, None)) => Rule::Mean,
            (RuleName::Median, (None, None, None)) => Rule::Robust(RobustRule::Median),
            (RuleName::TrimmedMean, (Some(trim), None, None)) => Rule::Robust(RobustRule::TrimmedMean { trim }),
            (RuleName::MultiKrum, (None, Some(malicious_max), selected)) => {
                Rule::Robust(RobustRule::MultiKrum { malicious_max, selected })
            }
            (rule, (trim, malicious_max, selected)) => {
                let keys = [
                    ("trim", trim.is_some()),
                    ("malicious_max", malicious_max.is_some()),
                    ("selected", selected.is_some()),
                ];
                let given: Vec<&str> = keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
                let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
                return Err(ConfigError::RuleNumbers { rule: rule.name(), takes: rule.takes(), given });
            }
        };
        // Below 0 it stays, to be refused with its bound.
        Ok(Aggregation { rule, clip_norm: (clip_norm != 0.0).then_some(clip_norm) })
    }
}

impl RuleName {
    /// As it is written.
    const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::TrimmedMean => "trimmed-mean",
            Self::MultiKrum => "multi-krum",
        }
    }

    /// What has to be said beside it.
    const fn takes(self) -> &'static str {
        match self {
            Self::Mean | Self::Median => "no number but clip_norm",
            Self::TrimmedMean => "trim",
            Self::MultiKrum => "malicious_max, and selected if not all others are averaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Aggregation, String> {
        let table: AggregationTable = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        assert_eq!(
            toml::from_str::<AggregationTable>(&toml::to_string(&table).unwrap()),
            Ok(table),
            "it is written as read"
        );
        table.aggregation().map_err(|error| error.to_string())
    }

    #[test]
    fn every_rule_is_read_with_its_numbers() {
        let of = |rule, clip_norm| Ok(Aggregation { rule, clip_norm });
        assert_eq!(read(""), of(Rule::Mean, None));
        assert_eq!(read("rule = \"median\"\nclip_norm = 2.5"), of(Rule::Robust(RobustRule::Median), Some(2.5)));
        let trimmed = Rule::Robust(RobustRule::TrimmedMean { trim: 0.2 });
        assert_eq!(read("rule = \"trimmed-mean\"\ntrim = 0.2"), of(trimmed, None));
        let krum = |selected| Rule::Robust(RobustRule::MultiKrum { malicious_max: 2, selected });
        assert_eq!(read("rule = \"multi-krum\"\nmalicious_max = 2"), of(krum(None), None));
        assert_eq!(read("rule = \"multi-krum\"\nmalicious_max = 2\nselected = 4"), of(krum(Some(4)), None));
    }

    #[test]
    fn a_number_that_is_missing_or_of_another_rule_is_an_error() {
        assert_eq!(
            read("rule = \"trimmed-mean\"").unwrap_err(),
            "aggregation rule trimmed-mean takes trim; given are none"
        );
        assert_eq!(
            read("trim = 0.1\nselected = 3").unwrap_err(),
            "aggregation rule mean takes no number but clip_norm; given are trim, selected"
        );
        assert!(read("rule = \"multi-krum\"\nselected = 3").unwrap_err().contains("takes malicious_max, and"));
        assert!(read("rule = \"krum\"").unwrap_err().contains("unknown variant `krum`"));
        assert!(read("byzantine = 3").unwrap_err().contains("unknown field `byzantine`"));
    }
}
