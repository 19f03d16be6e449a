//! Two models side by side on the same held-out examples, and whether the second is in good health.
//!
//! Examples go through both models one at a time, in turns of who is first, so that the time that each takes can be
//! compared: what a machine does beside that, and what is warm already, falls on both alike. Nothing here knows where
//! the models come from.

use packfed_protocol::{Evaluation, Paired, ReleaseOutcome};
use thiserror::Error;

use crate::task::TaskError;

/// What a model made of one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Cross-entropy in nats, the mean over its targets.
    pub loss: f64,
    /// Share of its targets that were the likeliest: 0 or 1 of a label, anything between of a text's tokens.
    pub right: f64,
    /// Milliseconds that it took.
    pub ms: f64,
}

/// What came of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Scores of the model before and of the model after, for every held-out example; at least one.
    HeldOut(Vec<[Score; 2]>),
    /// Nothing is held out: the score of the model after on an example that is trained on.
    Healthy(Score),
}

/// A model that is not to be run.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum Unhealthy {
    /// It computes no number.
    #[error("its loss on example {example} is {loss}")]
    Loss {
        /// Number of the example, from 0.
        example: usize,
        /// Its loss.
        loss: f64,
    },
    /// It is worse than allowed here.
    #[error(
        "its loss is {after:.4} after {before:.4}: more by {:.4}, allowed is {max} by releases.loss_increase_max",
        after - before
    )]
    Increase {
        /// Mean loss of the model before.
        before: f64,
        /// Its own.
        after: f64,
        /// Most that it may be more.
        max: f64,
    },
}

impl Found {
    /// Without the model before; an example whose loss is no number stands for all.
    #[must_use]
    pub fn alone(self) -> Self {
        match self {
            Self::Healthy(score) => Self::Healthy(score),
            Self::HeldOut(pairs) => {
                let scores = || pairs.iter().map(|[_, after]| *after);
                let nothing = Score { loss: 0.0, right: 0.0, ms: 0.0 };
                Self::Healthy(scores().find(|score| !score.loss.is_finite()).or(scores().next()).unwrap_or(nothing))
            }
        }
    }

    /// What is reported, if the model after is in good health: its losses are numbers, and their mean is not more than
    /// `loss_increase_max` above that of the model before.
    ///
    /// # Errors
    /// If it is not.
    pub fn outcome(&self, loss_increase_max: Option<f64>) -> Result<ReleaseOutcome, Unhealthy> {
        let pairs = match self {
            Self::Healthy(score) => return finite(0, score).map(|()| ReleaseOutcome::Healthy),
            Self::HeldOut(pairs) => pairs,
        };
        pairs.iter().enumerate().try_for_each(|(example, [_, after])| finite(example, after))?;
        let of = |what: fn(&Score) -> f64| {
            let pairs: Vec<(f64, f64)> = pairs.iter().map(|[before, after]| (what(before), what(after))).collect();
            Paired::of(&pairs)
        };
        let loss = of(|score| score.loss).filter(|loss| loss.before.is_finite() && loss.squares.is_finite());
        // A model before that computes no numbers is nothing to compare with.
        let Some(loss) = loss else { return Ok(ReleaseOutcome::Healthy) };
        if let Some(max) = loss_increase_max.filter(|max| loss.after - loss.before > *max) {
            return Err(Unhealthy::Increase { before: loss.before, after: loss.after, max });
        }
        Ok(ReleaseOutcome::Evaluated(Evaluation {
            examples: u32::try_from(pairs.len()).unwrap_or(u32::MAX),
            loss,
            accuracy: of(|score| score.right),
            latency_ms: of(|score| score.ms),
        }))
    }
}

fn finite(example: usize, score: &Score) -> Result<(), Unhealthy> {
    match score.loss.is_finite() {
        true => Ok(()),
        false => Err(Unhealthy::Loss { example, loss: score.loss }),
    }
}

/// Who keeps the time of an evaluation, and may end it.
pub trait Watch {
    /// Milliseconds since some moment.
    fn ms(&mut self) -> f64;

    /// Whether anybody still wants the result.
    fn is_wanted(&self) -> bool {
        true
    }
}

/// One of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that runs.
    Before,
    /// The one that is to run.
    After,
}

/// Scores both models on examples 0 to `examples`; `score` gives a loss and the share that is right.
///
/// # Errors
/// As `score`, or if nobody wants the result any more.
pub fn side_by_side(
    examples: usize,
    watch: &mut dyn Watch,
    score: &mut dyn FnMut(Side, usize) -> Result<(f64, f64), TaskError>,
) -> Result<Vec<[Score; 2]>, TaskError> {
    if examples > 0 {
        // The first pass through a model finds nothing in the caches.
        score(Side::Before, 0)?;
        score(Side::After, 0)?;
    }
    let mut pairs = Vec::with_capacity(examples);
    for example in 0..examples {
        if !watch.is_wanted() {
            return Err(TaskError::NotWanted);
        }
        let mut timed = |side| measure(watch, &mut *score, side, example);
        pairs.push(match example % 2 {
            0 => {
                let before = timed(Side::Before)?;
                [before, timed(Side::After)?]
            }
            _ => {
                let after = timed(Side::After)?;
                [timed(Side::Before)?, after]
            }
        });
    }
    Ok(pairs)
}

/// Scores one model on one example.
///
/// # Errors
/// As `score`.
pub fn measure(
    watch: &mut dyn Watch,
    score: &mut dyn FnMut(Side, usize) -> Result<(f64, f64), TaskError>,
    side: Side,
    example: usize,
) -> Result<Score, TaskError> {
    let begun = watch.ms();
    let (loss, right) = score(side, example)?;
    let ms = watch.ms() - begun;
    // Rounding may leave a loss of nothing just below it; a loss that is no number stays one.
    let loss = if loss < 0.0 { 0.0 } else { loss };
    Ok(Score { loss, right, ms: if ms < 0.0 { 0.0 } else { ms } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(before: f64, after: f64) -> [Score; 2] {
        [before, after].map(|loss| Score { loss, right: f64::from(loss < 1.0), ms: 2.0 * loss })
    }

    #[test]
    fn figures_are_of_pairs_and_can_be() {
        let found = Found::HeldOut(vec![pair(2.0, 0.5), pair(0.25, 0.75), pair(1.5, 1.25)]);
        let Ok(ReleaseOutcome::Evaluated(evaluation)) = found.outcome(None) else { panic!("it is healthy") };
        assert_eq!(evaluation.check(3), Ok(()));
        let loss = Paired { before: 1.25, after: 2.5 / 3.0, squares: 1.5 * 1.5 + 0.25 + 0.0625 };
        assert_eq!(evaluation.loss, loss);
        let accuracy = evaluation.accuracy.unwrap();
        assert_eq!((accuracy.before, accuracy.after, accuracy.squares), (1.0 / 3.0, 2.0 / 3.0, 1.0));
        assert_eq!(evaluation.latency_ms.unwrap().before, 2.5);
    }

    #[test]
    fn a_loss_that_is_no_number_is_ill_health() {
        let found = Found::HeldOut(vec![pair(1.0, 1.0), pair(1.0, f64::NAN)]);
        assert!(matches!(found.outcome(None), Err(Unhealthy::Loss { example: 1, .. })));
        let [_, infinite] = pair(1.0, f64::INFINITY);
        assert_eq!(Found::Healthy(infinite).outcome(None).unwrap_err().to_string(), "its loss on example 0 is inf");
    }

    #[test]
    fn a_model_before_that_computes_no_number_is_nothing_to_compare_with() {
        let found = Found::HeldOut(vec![pair(f64::NAN, 1.0)]);
        assert_eq!(found.outcome(Some(0.1)), Ok(ReleaseOutcome::Healthy));
    }

    #[test]
    fn an_increase_is_refused_only_beyond_the_bound() {
        let found = Found::HeldOut(vec![pair(1.0, 1.5), pair(0.5, 0.5)]);
        assert!(found.outcome(None).is_ok() && found.outcome(Some(0.25)).is_ok());
        let error = found.outcome(Some(0.2)).unwrap_err().to_string();
        let expected = "its loss is 1.0000 after 0.7500: more by 0.2500, allowed is 0.2 by releases.loss_increase_max";
        assert_eq!(error, expected);
    }

    /// Each look is a millisecond later; nobody wants more than so many examples.
    struct Ticking(f64, std::cell::Cell<u32>);

    impl Watch for Ticking {
        fn ms(&mut self) -> f64 {
            self.0 += 1.0;
            self.0
        }

        fn is_wanted(&self) -> bool {
            let left = self.1.get();
            self.1.set(left.saturating_sub(1));
            left > 0
        }
    }

    #[test]
    fn both_models_take_turns_after_a_pass_that_is_not_counted() {
        let mut order = Vec::new();
        let mut score = |side, example| {
            order.push((side, example));
            Ok((-1e-18, 1.0))
        };
        let pairs = side_by_side(2, &mut Ticking(0.0, 9.into()), &mut score).unwrap();
        assert_eq!(pairs, [[Score { loss: 0.0, right: 1.0, ms: 1.0 }; 2]; 2], "a loss below nothing is rounding");
        use Side::{After, Before};
        assert_eq!(order, [(Before, 0), (After, 0), (Before, 0), (After, 0), (After, 1), (Before, 1)]);
    }

    #[test]
    fn an_evaluation_that_nobody_wants_ends_at_the_next_example() {
        let ended = side_by_side(5, &mut Ticking(0.0, 2.into()), &mut |_, _| Ok((1.0, 0.0)));
        assert!(matches!(ended, Err(TaskError::NotWanted)));
    }
}
