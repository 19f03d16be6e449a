//! Flags of what a run bears: the aggregation rule, and workers that lie.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use packfed_coordinator::config::{AggregationTable, RuleName};
use packfed_sim::attack::{Attack, Malice};
use packfed_sim::resilience::Resilience;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ResilienceArgs {
    /// How packfed's updates become one delta.
    #[arg(long, value_enum, default_value_t = Aggregation::Mean)]
    aggregation: Aggregation,
    /// Share of the values that trimmed-mean cuts off at each end [default: 0.3].
    #[arg(long)]
    trim: Option<f64>,
    /// Lying updates of a round that multi-krum bears [default: as many as the cohort allows, (cohort − 3) / 2].
    #[arg(long)]
    malicious_max: Option<u32>,
    /// The longest that an update may be, as a Frobenius norm; 0 leaves every update as it is.
    #[arg(long, default_value_t = 0.0)]
    clip_norm: f64,
    /// What malicious workers send; without --compare only packfed runs then.
    #[arg(long, value_enum)]
    attack: Option<AttackName>,
    /// Share of the workers that are malicious [default: 0.2].
    #[arg(long, requires = "attack")]
    malicious: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Aggregation {
    /// The mean, weighted by examples; bears nobody who lies.
    Mean,
    /// The median of every lane.
    Median,
    /// The mean of every lane without its smallest and largest values.
    TrimmedMean,
    /// The mean of the updates that lie closest to the others.
    MultiKrum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AttackName {
    /// The opposite of what was learned.
    SignFlip,
    /// A hundred times what was learned, as far as words carry it.
    Scale,
    /// The same, and as many examples as may be claimed.
    Inflate,
    /// Random words.
    Random,
}

/// Cut off at each end by default: three of ten.
const TRIM: f64 = 0.3;
/// Malicious workers by default.
const MALICIOUS: f64 = 0.2;

impl ResilienceArgs {
    /// Whether somebody lies.
    pub(super) const fn attacks(&self) -> bool {
        self.attack.is_some()
    }

    /// For rounds of so many workers.
    pub(super) fn resilience(&self, cohort: u32) -> Result<Resilience> {
        let share = self.malicious.unwrap_or(MALICIOUS);
        ensure!((0.0..=1.0).contains(&share), "--malicious is {share}, allowed is 0 to 1, a share of the workers");
        let rule = match self.aggregation {
            Aggregation::Mean => RuleName::Mean,
            Aggregation::Median => RuleName::Median,
            Aggregation::TrimmedMean => RuleName::TrimmedMean,
            Aggregation::MultiKrum => RuleName::MultiKrum,
        };
        let most = cohort.saturating_sub(3) / 2;
        let aggregation = AggregationTable {
            rule,
            clip_norm: self.clip_norm,
            trim: self.trim.or((rule == RuleName::TrimmedMean).then_some(TRIM)),
            malicious_max: self.malicious_max.or((rule == RuleName::MultiKrum).then_some(most)),
            selected: None,
        };
        let attack = self.attack.map(|attack| match attack {
            AttackName::SignFlip => Attack::SignFlip,
            AttackName::Scale => Attack::Scale,
            AttackName::Inflate => Attack::Inflate,
            AttackName::Random => Attack::Random,
        });
        Ok(Resilience { aggregation, malice: attack.map(|attack| Malice { attack, share }) })
    }
}
