//! An axis as plotters wants it: values to pixels, and what is written at a mark.
//!
//! Knows nothing of what is measured.

use std::ops::Range;

use plotters::{
    backend::SVGBackend,
    chart::ChartContext,
    coord::{
        cartesian::Cartesian2d,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
};

use super::axis::Axis;

/// Two scales on a drawing.
pub(crate) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale, Scale>>;

/// A linear axis that is marked exactly where its `Axis` says.
pub(crate) struct Scale {
    axis: Axis,
    pixels: RangedCoordf64,
}

impl Scale {
    /// The scale of an axis.
    pub(crate) fn of(axis: Axis) -> Self {
        Self { pixels: axis.range.clone().into(), axis }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.pixels.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.axis.marks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.axis.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        self.axis.label(*value)
    }
}
