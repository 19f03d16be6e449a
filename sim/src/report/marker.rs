//! How the curve of a method looks: its colour and the shape that marks its points.
//!
//! Knows a method by its place among the results only. The shape is a second sign for eyes that do not tell the
//! colours apart, and for methods beyond the number of colours.

use plotters::{
    element::{Circle, EmptyElement, Polygon},
    style::{Color, RGBColor},
};

use super::{plot::DrawError, scale::Chart};

/// Okabe and Ito's colours for all kinds of colour vision (2008), without black and yellow, which vanish on a dark and
/// on a light ground.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];
/// Radius of a round marker.
const RADIUS: i32 = 9;
/// Corners of the other markers, from their middle.
const POLYGONS: [&[(i32, i32)]; 3] =
    [&[(-8, -8), (8, -8), (8, 8), (-8, 8)], &[(0, -12), (11, 8), (-11, 8)], &[(0, -12), (12, 0), (0, 12), (-12, 0)]];

/// The colour of the method at `index`.
pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Marks points in the way of the method at `index`.
pub(crate) fn draw(chart: &mut Chart<'_, '_>, index: usize, points: &[(f64, f64)]) -> Result<(), DrawError> {
    let style = colour(index).filled();
    let points = points.iter().copied();
    match (index % (POLYGONS.len() + 1)).checked_sub(1) {
        None => chart.draw_series(points.map(|at| Circle::new(at, RADIUS, style))).map(drop),
        Some(shape) => {
            chart.draw_series(points.map(|at| EmptyElement::at(at) + Polygon::new(POLYGONS[shape], style))).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::plot;

    #[test]
    fn twelve_methods_look_different() {
        let looks: BTreeSet<String> = (0..12).map(|index| plot::swatch(index).unwrap()).collect();
        assert_eq!(looks.len(), 12);
        assert_eq!(plot::swatch(12).unwrap(), plot::swatch(0).unwrap());
    }
}
