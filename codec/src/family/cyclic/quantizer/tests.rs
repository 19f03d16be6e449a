//! Claims about the learnable quantizer, the last of them that a layer of codes trains.

use super::super::code::{Code8, Code16};
use super::super::engine::Engine;
use super::super::layer::unit;
use super::*;
use crate::seed::{Seed, Stream};

fn noise(stream: &mut Stream, n: usize) -> Vec<f32> {
    (0..n).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect()
}

fn quantizer<C: Code>(map: RadiusMap) -> Quantizer<C> {
    Quantizer::from_weights(map, 50, &noise(&mut Seed::from_number(1).stream(), 1_000)).unwrap()
}

fn grid_is_kept<C: Code>() {
    for map in RadiusMap::ALL {
        let codes: Vec<C> = (0..C::CODES).map(C::from_bits).collect();
        let mut quantizer = Quantizer::<C>::from_weights(map, codes.len(), &vec![1.0; codes.len()]).unwrap();
        quantizer.parameters.angles = codes.iter().map(|&code| f32::from_f64(angle(code) - 3.0 * TAU)).collect();
        quantizer.parameters.radii = codes.iter().map(|code| radius::<C>(map, code.radius())).collect();
        quantizer.requantize();
        let engine = Engine::<C>::new(map);
        for (code, &value) in codes.iter().zip(&quantizer.values) {
            assert!((value - unit(engine.value(*code))).abs() < 1e-5, "{map:?}: {code:?} became {value}");
        }
    }
}

#[test]
fn requantizing_the_parameters_of_a_code_keeps_its_weight_whatever_the_turn() {
    grid_is_kept::<Code8>();
    grid_is_kept::<Code16>();
}

/// Parameters anywhere, radii beyond the first and the last code as well.
fn scatter<C: Code>(quantizer: &mut Quantizer<C>) {
    let (mut stream, domain) = (Seed::from_number(5).stream(), f64::from(quantizer.continuous.map.domain()));
    quantizer.parameters.angles.iter_mut().for_each(|angle| *angle = f32::from_f64(20.0 * stream.unit() - 10.0));
    quantizer.parameters.radii.iter_mut().for_each(|r| *r = f32::from_f64(domain * (1.2 * stream.unit() - 0.1)));
}

fn rounding_is_joint<C: Code>(power_max: f32) {
    for map in RadiusMap::ALL {
        let mut quantizer = quantizer::<C>(map);
        scatter(&mut quantizer);
        quantizer.requantize();
        let (mut rounded, mut exact) = (vec![0.0; 1_000], vec![0.0; 1_000]);
        quantizer.weights(Path::Codes, &mut rounded);
        quantizer.weights(Path::Continuous, &mut exact);
        let apart: Vec<f32> = rounded.iter().zip(&exact).map(|(rounded, exact)| rounded - exact).collect();
        let share = power(&apart) / power(&exact);
        assert!(share < power_max, "{map:?}: {share}");
        let mut stored = vec![0.0; 1_000];
        quantizer.layer().unwrap().decode(&mut stored).unwrap();
        assert_eq!(stored, rounded);
    }
}

#[test]
fn rounding_leaves_what_the_nearest_code_leaves_of_the_power() {
    // Rounded one by one, Lorentz' 8 bits would leave 2 % of it.
    rounding_is_joint::<Code8>(3e-4);
    rounding_is_joint::<Code16>(1e-8);
}

#[test]
fn requantizing_is_the_same_whatever_the_neighbours() {
    let mut whole = quantizer::<Code8>(RadiusMap::Poincare);
    scatter(&mut whole);
    whole.requantize();
    for index in [0, 1, 255, 256, 999] {
        let mut single = Quantizer::<Code8>::from_weights(RadiusMap::Poincare, 1, &[1.0]).unwrap();
        single.parameters.angles[0] = whole.parameters.angles[index];
        single.parameters.radii[0] = whole.parameters.radii[index];
        single.requantize();
        assert_eq!(single.codes[0], whole.codes[index]);
    }
}

#[test]
fn on_the_grid_the_gradients_are_the_engines_derivatives() {
    for map in RadiusMap::ALL {
        let (quantizer, engine) = (quantizer::<Code16>(map), Engine::<Code16>::new(map));
        let gradients = quantizer.backward(Path::Codes, &[1.0; 1_000]);
        for (n, &code) in quantizer.codes().iter().enumerate() {
            let scale = quantizer.parameters.log_scales[n / 50].exp();
            assert!((gradients.angles[n] - scale * unit(engine.angle_derivative(code, 1))).abs() < 1e-5);
            assert!((gradients.radii[n] - scale * unit(engine.radius_derivative(code))).abs() < 1e-5);
        }
    }
}

/// A weight at scale 1 in double precision; ρ held between the first and the last code.
fn exact<C: Code>(map: RadiusMap, angle: f64, r: f64) -> f64 {
    map.value(r.clamp(radius::<C>(map, 0).into(), radius::<C>(map, C::RADII - 1).into())) * angle.sin()
}

/// `Σ gradient·w` of the continuous path in f64, with the parameters moved off the grid.
struct Loss {
    map: RadiusMap,
    angles: Vec<f64>,
    radii: Vec<f64>,
    log_scales: Vec<f64>,
    gradient: Vec<f32>,
}

impl Loss {
    fn value(&self) -> f64 {
        let cols = self.angles.len() / self.log_scales.len();
        let term = |n: usize| {
            let value = exact::<Code8>(self.map, self.angles[n], self.radii[n]);
            f64::from(self.gradient[n]) * self.log_scales[n / cols].exp() * value
        };
        (0..self.angles.len()).map(term).sum()
    }

    fn difference(&mut self, part: fn(&mut Self) -> &mut Vec<f64>, at: usize) -> f64 {
        let (step, start) = (1e-5, part(self)[at]);
        part(self)[at] = start + step;
        let above = self.value();
        part(self)[at] = start - step;
        let below = self.value();
        part(self)[at] = start;
        (above - below) / (2.0 * step)
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for map in RadiusMap::ALL {
        let mut stream = Seed::from_number(3).stream();
        let mut quantizer = Quantizer::<Code8>::from_weights(map, 8, &noise(&mut stream, 24)).unwrap();
        let ends = [0, Code8::RADII - 1].map(|index| f64::from(radius::<Code8>(map, index)));
        quantizer.parameters.angles.iter_mut().for_each(|angle| *angle = f32::from_f64(9.0 * stream.unit()));
        let inside = |part: f64| f32::from_f64(ends[0] + (ends[1] - ends[0]) * (0.01 + 0.98 * part));
        quantizer.parameters.radii.iter_mut().for_each(|radius| *radius = inside(stream.unit()));
        let gradient = noise(&mut stream, 24);
        let found = quantizer.backward(Path::Continuous, &gradient);
        let double = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let Parameters { angles, radii, log_scales } = quantizer.parameters();
        let (angles, radii, log_scales) = (double(angles), double(radii), double(log_scales));
        let mut loss = Loss { map, angles, radii, log_scales, gradient };
        for n in 0..24 {
            assert!((f64::from(found.angles[n]) - loss.difference(|loss| &mut loss.angles, n)).abs() < 1e-6);
            assert!((f64::from(found.radii[n]) - loss.difference(|loss| &mut loss.radii, n)).abs() < 1e-6);
        }
        for n in 0..3 {
            assert!((f64::from(found.log_scales[n]) - loss.difference(|loss| &mut loss.log_scales, n)).abs() < 1e-6);
        }
    }
}

#[test]
fn a_radius_beyond_the_codes_is_held_and_may_only_return() {
    let map = RadiusMap::Lorentz;
    let mut quantizer = Quantizer::<Code8>::from_weights(map, 2, &[1.0, 1.0]).unwrap();
    quantizer.parameters.radii = vec![50.0, -50.0];
    quantizer.requantize();
    for path in [Path::Codes, Path::Continuous] {
        let up = quantizer.backward(path, &[-1.0, -1.0]).radii;
        let down = quantizer.backward(path, &[1.0, 1.0]).radii;
        assert!(up[0] == 0.0 && up[1] < 0.0 && down[0] > 0.0 && down[1] == 0.0, "{up:?} {down:?}");
    }
}

#[test]
fn what_cannot_be_quantized_is_an_error_with_its_numbers() {
    let error = |cols, weights: &[f32]| Quantizer::<Code8>::from_weights(RadiusMap::Klein, cols, weights).unwrap_err();
    assert_eq!(error(2, &[0.0; 3]), QuantizerError::Rows { found: 3, cols: 2 });
    assert_eq!(error(0, &[]), QuantizerError::Rows { found: 0, cols: 0 });
    assert_eq!(error(1, &[0.0, f32::NAN]), QuantizerError::NotFinite { index: 1 });
}

#[test]
fn a_zero_weight_is_as_small_as_the_documentation_says() {
    for map in RadiusMap::ALL {
        let smallest = |weights: &mut [f32]| weights.iter().fold(1.0f32, |least, weight| least.min(weight.abs()));
        let mut weights = [0.0; 2];
        Quantizer::<Code8>::from_weights(map, 2, &[0.0, 1.0]).unwrap().weights(Path::Codes, &mut weights);
        assert!(smallest(&mut weights) < 0.007, "{map:?}: {weights:?}");
        Quantizer::<Code16>::from_weights(map, 2, &[0.0, 1.0]).unwrap().weights(Path::Codes, &mut weights);
        assert!(smallest(&mut weights) < 0.000_05, "{map:?}: {weights:?}");
        Quantizer::<Code8>::from_weights(map, 2, &[0.0, 0.0]).unwrap().weights(Path::Codes, &mut weights);
        assert!(smallest(&mut weights) < 1e-8, "{map:?}: {weights:?}");
    }
}

#[test]
fn zero_weights_of_a_row_cancel_in_its_sum() {
    let mut weights = [0.0; 101];
    weights[100] = 1.0;
    let quantizer = Quantizer::<Code8>::from_weights(RadiusMap::Poincare, 101, &weights).unwrap();
    quantizer.weights(Path::Codes, &mut weights);
    assert!(weights[..100].iter().sum::<f32>().abs() < 1e-5, "{weights:?}");
}

/// Adam on one slice.
struct Adam {
    moments: Vec<(f32, f32)>,
    steps: i32,
}

impl Adam {
    fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f32) {
        self.steps += 1;
        let (first, second) = (1.0 - 0.9f32.powi(self.steps), 1.0 - 0.999f32.powi(self.steps));
        for ((value, &gradient), (mean, square)) in values.iter_mut().zip(gradient).zip(&mut self.moments) {
            *mean = 0.9 * *mean + 0.1 * gradient;
            *square = 0.999 * *square + 0.001 * gradient * gradient;
            *value -= rate * *mean / first / ((*square / second).sqrt() + 1e-8);
        }
    }
}

const INPUTS: usize = 12;
const OUTPUTS: usize = 5;

/// `y = Wx` of a teacher, learned by codes from a random start. Returns the loss, relative to the teacher's
/// power, before and after.
fn regression<C: Code>(map: RadiusMap, every: usize) -> (f32, f32) {
    let mut stream = Seed::from_number(4).stream();
    let teacher = noise(&mut stream, OUTPUTS * INPUTS);
    let mut quantizer = Quantizer::<C>::from_weights(map, INPUTS, &noise(&mut stream, OUTPUTS * INPUTS)).unwrap();
    let adam = |n: usize| Adam { moments: vec![(0.0, 0.0); n], steps: 0 };
    let mut adams = [adam(OUTPUTS * INPUTS), adam(OUTPUTS * INPUTS), adam(OUTPUTS)];
    let (mut weights, mut first) = (vec![0.0; OUTPUTS * INPUTS], None);
    let (steps, batch) = (3_000, 24);
    for step in 0..steps {
        let path = if step % every == 0 { Path::Codes } else { Path::Continuous };
        quantizer.requantize();
        quantizer.weights(path, &mut weights);
        let error: Vec<f32> = weights.iter().zip(&teacher).map(|(w, t)| w - t).collect();
        first.get_or_insert(power(&error) / power(&teacher));
        let gradient = gradient(&error, &noise(&mut stream, batch * INPUTS));
        let gradients = quantizer.backward(path, &gradient);
        let rate = 0.03 * (1.0 - step as f32 / steps as f32);
        let parameters = quantizer.parameters_mut();
        adams[0].step(parameters.angles, &gradients.angles, rate);
        adams[1].step(parameters.radii, &gradients.radii, rate);
        adams[2].step(parameters.log_scales, &gradients.log_scales, rate);
    }
    quantizer.requantize();
    quantizer.weights(Path::Codes, &mut weights);
    let stored = CodedLayer::<C>::from_bytes(&quantizer.layer().unwrap().to_bytes(), OUTPUTS * INPUTS).unwrap();
    let mut decoded = vec![0.0; OUTPUTS * INPUTS];
    stored.decode(&mut decoded).unwrap();
    assert_eq!(decoded, weights, "the stored codes are the trained weights, bit for bit");
    let error: Vec<f32> = weights.iter().zip(&teacher).map(|(w, t)| w - t).collect();
    (first.unwrap(), power(&error) / power(&teacher))
}

fn power(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum()
}

/// Gradient of the mean square of `error·x` over a batch.
fn gradient(error: &[f32], batch: &[f32]) -> Vec<f32> {
    let mut gradient = vec![0.0; error.len()];
    for x in batch.chunks_exact(INPUTS) {
        for (error, gradient) in error.chunks_exact(INPUTS).zip(gradient.chunks_exact_mut(INPUTS)) {
            let wrong: f32 = error.iter().zip(x).map(|(e, x)| e * x).sum();
            gradient.iter_mut().zip(x).for_each(|(g, x)| *g += wrong * x);
        }
    }
    gradient
}

#[test]
fn a_layer_of_codes_learns_a_linear_map() {
    let bounds = [(RadiusMap::Poincare, 2e-4, 1e-6), (RadiusMap::Lorentz, 4e-4, 1e-6), (RadiusMap::Klein, 2e-4, 1e-5)];
    for ((map, narrow_max, wide_max), every) in bounds.into_iter().flat_map(|bound| [(bound, 1), (bound, 4)]) {
        let (start, narrow) = regression::<Code8>(map, every);
        let (_, wide) = regression::<Code16>(map, every);
        assert!(start > 1.0, "{map:?}: starts as far as a random start is, {start}");
        assert!(narrow < narrow_max, "{map:?}, every {every}: 8 bit ends at {narrow}");
        assert!(wide < wide_max, "{map:?}, every {every}: 16 bit ends at {wide}");
    }
}
