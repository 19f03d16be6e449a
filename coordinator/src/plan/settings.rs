//! What of a plan operators may set while it is run, there and back.

use packfed_protocol::Settings;

use super::{PlanError, RunPlan};

impl RunPlan {
    /// The plan with other settings.
    ///
    /// # Errors
    /// If a number is out of bounds then.
    pub fn with(&self, settings: &Settings) -> Result<Self, PlanError> {
        let mut raw = self.raw().clone();
        let &Settings { rounds, steps, batch, learning_rate, over_selection, .. } = settings;
        raw.rounds = rounds.unwrap_or(raw.rounds);
        raw.training.steps = steps.unwrap_or(raw.training.steps);
        raw.training.batch = batch.unwrap_or(raw.training.batch);
        raw.training.learning_rate = learning_rate.unwrap_or(raw.training.learning_rate);
        raw.over_selection = over_selection.unwrap_or(raw.over_selection);
        raw.selection.goal = settings.selection_goal.unwrap_or(raw.selection.goal);
        raw.selection.min = settings.selection_min.unwrap_or(raw.selection.min);
        raw.selection.timeout_ms = settings.selection_timeout_ms.unwrap_or(raw.selection.timeout_ms);
        raw.reporting.goal = settings.reporting_goal.unwrap_or(raw.reporting.goal);
        raw.reporting.min = settings.reporting_min.unwrap_or(raw.reporting.min);
        raw.reporting.timeout_ms = settings.reporting_timeout_ms.unwrap_or(raw.reporting.timeout_ms);
        Self::new(raw)
    }

    /// What of the plan an operator may set, as it is.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        let raw = self.raw();
        Settings {
            rounds: Some(raw.rounds),
            steps: Some(raw.training.steps),
            batch: Some(raw.training.batch),
            learning_rate: Some(raw.training.learning_rate),
            selection_goal: Some(raw.selection.goal),
            selection_min: Some(raw.selection.min),
            selection_timeout_ms: Some(raw.selection.timeout_ms),
            reporting_goal: Some(raw.reporting.goal),
            reporting_min: Some(raw.reporting.min),
            reporting_timeout_ms: Some(raw.reporting.timeout_ms),
            over_selection: Some(raw.over_selection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::raw;
    use super::*;

    #[test]
    fn a_plan_with_its_own_settings_is_itself() {
        let plan = RunPlan::new(raw()).unwrap();
        assert_eq!(plan.with(&plan.settings()), Ok(plan.clone()));
        assert_eq!(plan.with(&Settings::default()), Ok(plan));
    }
}
