//! Which matrices of a model are adapted, with which blocks: name patterns, and good ones for each family.
//!
//! A coordinator knows no models, so a run's layers are worked out here, by whoever sets it up, and go into its plan.

use globset::{Glob, GlobMatcher};
use packfed_codec::LayerSpec;
use thiserror::Error;

use crate::model::{Kind, MatrixSpec};

/// One pattern of names and the blocks of the matrices that it takes.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: GlobMatcher,
    block: usize,
    residual: usize,
}

/// Why matrices cannot be chosen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// A rule is not `PATTERN=BLOCK:RESIDUAL`.
    #[error("{rule:?} is no rule: {why}; expected PATTERN=BLOCK:RESIDUAL, as in \"encoder.layer.*.weight=64:28\"")]
    Rule {
        /// The rule.
        rule: String,
        /// What is wrong.
        why: String,
    },
    /// A pattern that no name fits, or only names that an earlier one took.
    #[error("pattern {pattern:?} takes none of the model's {matrices} matrices; the first is {first:?}")]
    Nothing {
        /// The pattern.
        pattern: String,
        /// Matrices of the model.
        matrices: usize,
        /// The first one's name.
        first: String,
    },
}

/// A wave stays below two to this, far above what training reaches.
const GAIN_EXPONENT: i8 = 6;

/// Blocks by what a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Edge of the blocks of attention and feed-forward matrices.
    pub block: usize,
    /// Residual positions of such a block.
    pub residual: usize,
    /// Edge of a classifier's blocks, all of whose positions are used.
    pub head_block: usize,
}

impl Blocks {
    /// Good ones for every family.
    pub const DEFAULT: Self = Self { block: 64, residual: 28, head_block: 4 };

    /// Every matrix as a layer.
    #[must_use]
    pub fn layers(&self, matrices: &[MatrixSpec]) -> Vec<LayerSpec> {
        let layer = |matrix: &MatrixSpec| match matrix.kind {
            Kind::Attention | Kind::Mlp => spec(matrix, self.block, self.residual),
            Kind::Head => spec(matrix, self.head_block, self.head_block * self.head_block),
        };
        matrices.iter().map(layer).collect()
    }
}

impl Rule {
    /// Reads `PATTERN=BLOCK:RESIDUAL`; in a pattern `*` stands for any characters, `?` for one, `{a,b}` for either.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(rule: &str) -> Result<Self, PatternError> {
        let error = |why: &str| PatternError::Rule { rule: rule.to_owned(), why: why.to_owned() };
        let (pattern, sizes) = rule.rsplit_once('=').ok_or_else(|| error("there is no ="))?;
        let (block, residual) = sizes.split_once(':').ok_or_else(|| error("there is no : behind the ="))?;
        let number = |text: &str| text.parse().map_err(|_| error(&format!("{text:?} is no number")));
        let pattern = Glob::new(pattern).map_err(|fault| error(&fault.kind().to_string()))?.compile_matcher();
        Ok(Self { pattern, block: number(block)?, residual: number(residual)? })
    }
}

/// The layers that rules choose, in the model's order. The first rule that fits a name counts; a matrix that none fits
/// stays frozen.
///
/// # Errors
/// If a rule chooses nothing.
pub fn layers(matrices: &[MatrixSpec], rules: &[Rule]) -> Result<Vec<LayerSpec>, PatternError> {
    let chosen = |matrix: &MatrixSpec| rules.iter().position(|rule| rule.pattern.is_match(&matrix.name));
    if let Some(idle) = (0..rules.len()).find(|&n| matrices.iter().all(|matrix| chosen(matrix) != Some(n))) {
        let pattern = rules[idle].pattern.glob().to_string();
        let first = matrices.first().map_or_else(String::new, |matrix| matrix.name.clone());
        return Err(PatternError::Nothing { pattern, matrices: matrices.len(), first });
    }
    let layer = |matrix: &MatrixSpec| {
        let rule = &rules[chosen(matrix)?];
        Some(spec(matrix, rule.block, rule.residual))
    };
    Ok(matrices.iter().filter_map(layer).collect())
}

fn spec(matrix: &MatrixSpec, block: usize, residual: usize) -> LayerSpec {
    let (name, rows, cols) = (matrix.name.clone(), matrix.outputs, matrix.inputs);
    LayerSpec { name, rows, cols, block, residual, gain_exponent: GAIN_EXPONENT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrices() -> Vec<MatrixSpec> {
        let matrix = |name: &str, kind| MatrixSpec { name: name.into(), outputs: 8, inputs: 6, kind, bias: None };
        vec![
            matrix("encoder.layer.0.attention.self.query.weight", Kind::Attention),
            matrix("encoder.layer.0.output.dense.weight", Kind::Mlp),
            matrix("classifier.weight", Kind::Head),
        ]
    }

    fn blocks(layers: &[LayerSpec]) -> Vec<(&str, usize, usize)> {
        layers.iter().map(|layer| (layer.name.rsplit('.').nth(1).unwrap(), layer.block, layer.residual)).collect()
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_what_none_fits_stays_frozen() {
        let rules = ["encoder.*.{query,key}.weight=32:5", "encoder.*=16:3"].map(|rule| Rule::parse(rule).unwrap());
        assert_eq!(blocks(&layers(&matrices(), &rules).unwrap()), [("query", 32, 5), ("dense", 16, 3)]);
        assert_eq!(
            blocks(&Blocks::DEFAULT.layers(&matrices())),
            [("query", 64, 28), ("dense", 64, 28), ("classifier", 4, 16)]
        );
    }

    #[test]
    fn what_is_no_rule_or_chooses_nothing_is_named() {
        let error = |rule: &str| Rule::parse(rule).unwrap_err().to_string();
        assert!(error("encoder.*").starts_with("\"encoder.*\" is no rule: there is no =; expected"));
        assert!(error("a=64").contains("there is no : behind the ="));
        assert!(error("a=64:x").contains("\"x\" is no number"));
        assert!(error("a[=64:1").contains("\"a[=64:1\" is no rule"));
        let rules = ["*=8:1", "classifier.*=4:16"].map(|rule| Rule::parse(rule).unwrap());
        let error = layers(&matrices(), &rules).unwrap_err().to_string();
        assert!(
            error.starts_with("pattern \"classifier.*\" takes none of the model's 3 matrices; the first"),
            "{error}"
        );
    }
}
