//! What a run bears, and what it is made to bear: its aggregation rule, and workers that lie.

use packfed_coordinator::config::{AggregationTable, ConfigError, RunConfig};

use crate::attack::Malice;

/// By default the mean and nobody who lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resilience {
    /// How updates become one delta.
    pub aggregation: AggregationTable,
    /// Who attacks, and how.
    pub malice: Option<Malice>,
}

impl Resilience {
    /// A run under this rule; it waits for as many updates as the rule needs.
    ///
    /// # Errors
    /// If the rule's numbers are not those that it takes.
    pub fn applied(&self, mut run: RunConfig) -> Result<RunConfig, ConfigError> {
        let needed = u32::try_from(self.aggregation.aggregation()?.updates_min()).unwrap_or(u32::MAX);
        run.aggregation = self.aggregation;
        run.reporting.min = run.reporting.min.max(needed).min(run.reporting.goal);
        Ok(run)
    }
}
