use std::collections::BTreeMap;

use packfed_codec::{Direct, Layer, Scalar, Spectrum};

use super::*;
use crate::nn::check::noise;

/// Deltas in memory.
#[derive(Default)]
struct Given(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Given {
    fn with(mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        self.0.insert(name.into(), (shape.to_vec(), values));
        self
    }
}

impl Deltas for Given {
    fn tensors(&self) -> Vec<DeltaTensor> {
        let all = self.0.iter();
        all.map(|(name, (shape, _))| DeltaTensor { name: name.clone(), shape: shape.clone() }).collect()
    }

    fn delta(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        Ok(self.0[name].1.clone())
    }
}

fn spec(name: &str, rows: usize, cols: usize, block: usize, residual: usize) -> LayerSpec {
    LayerSpec { name: name.into(), rows, cols, block, residual, gain_exponent: 4 }
}

fn seed() -> Seed {
    Seed::from_number(9)
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| <f32 as Scalar>::from_f64(value)).collect()
}

/// Δ of a layer under these lanes, by the kernels that train it.
fn dense(layer: &Layer, lanes: &[f64]) -> Vec<f32> {
    let (rows, cols) = (layer.spec().rows, layer.spec().cols);
    let direct = Direct::<f64>::new(layer);
    let identity: Vec<f64> = (0..cols * cols).map(|n| f64::from(u8::from(n / cols == n % cols))).collect();
    let mut columns = vec![0.0; cols * rows];
    direct.forward(&direct.coefficients(lanes), &identity, &mut columns, &mut Spectrum::default());
    floats(&(0..rows * cols).map(|n| columns[n % cols * rows + n / cols]).collect::<Vec<_>>())
}

#[test]
fn a_delta_that_lies_in_the_span_comes_back_to_the_quantum_with_no_more_positions() {
    // Whole blocks, edges, a bias, and a second layer, whose positions are others.
    let shapes = [("a", 16, 24, 8, 20), ("b", 13, 18, 8, 7), ("c", 24, 8, 8, 30)];
    let specs: Vec<LayerSpec> = shapes.iter().map(|&(name, r, c, b, k)| spec(name, r, c, b, k)).collect();
    let layout = Layout::new(&seed(), specs.clone()).unwrap();
    let lanes = noise(1, layout.lanes());
    let deltas = layout.layers().iter().fold(Given::default(), |given, layer| {
        let spec = layer.spec();
        given.with(&spec.name, &[spec.rows, spec.cols], dense(layer, &lanes[layer.lanes()]))
    });
    let all = specs.iter().map(|spec| LayerSpec { residual: 64, ..spec.clone() }).collect();
    let found = import(&seed(), all, &deltas, 1.0 - 1e-10).unwrap();
    for (layer, spec) in found.state.layout().layers().iter().zip(&specs) {
        assert_eq!(layer.spec().residual, spec.residual, "{}", spec.name);
    }
    // Not lane by lane: where the residual has taken a wave's whole spectrum, the two can share it in many ways.
    for layer in found.state.layout().layers() {
        let (given, back) = (&deltas.0[&layer.spec().name].1, dense(layer, &found.state.values(layer)));
        let worst = given.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) * (1 << 20) as f32;
        assert!(worst < 1.5, "{}: {worst} quanta", layer.spec().name);
    }
}

#[test]
fn the_report_is_what_a_decoder_measures() {
    let values = floats(&noise(2, 13 * 18));
    let deltas = Given::default().with("a", &[13, 18], values.clone());
    let found = import(&seed(), vec![spec("a", 13, 18, 8, 64)], &deltas, 0.6).unwrap();
    let layer = &found.state.layout().layers()[0];
    let decoded = Merger::new().delta(layer, &PackedLayer::from_state(&found.state, layer));
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    let error: f64 = values.iter().zip(&decoded).map(square).sum();
    let [report] = found.layers.as_slice() else { panic!("{:?}", found.layers) };
    assert!((report.captured.unwrap() - (1.0 - error / energy(&values))).abs() < 1e-12);
    assert!((report.rmse - (error / values.len() as f64).sqrt()).abs() < 1e-12);
    assert!((found.captured().unwrap() - report.captured.unwrap()).abs() < 1e-12);
    assert_eq!((report.dense_bytes, report.positions), (4 * 13 * 18, 64));
    let lanes: usize = layer.blocks().iter().map(|block| block.lanes().len()).sum();
    assert_eq!(report.packed_bytes, (16 * 6 + 4 * lanes) as u64);
}

#[test]
fn k_is_the_fewest_positions_that_hold_the_target() {
    let deltas = Given::default().with("a", &[64, 64], floats(&noise(3, 64 * 64)));
    let at = |most: usize, target: f64| {
        let report = import(&seed(), vec![spec("a", 64, 64, 16, most)], &deltas, target).unwrap().layers.remove(0);
        (report.residual, report.captured.unwrap(), report.is_whole())
    };
    for target in [0.3, 0.7, 0.95] {
        let (k, captured, whole) = at(256, target);
        assert!(captured >= target - 1e-6 && !whole, "{target}: {captured} by {k}");
        // A delta without preferences, as said above: K of n positions hold K/n.
        assert!((k as f64 / 256.0 - target).abs() < 0.03, "{target}: {k}");
        let (fewer, less, _) = at(k - 1, target);
        assert!(fewer == k - 1 && less < target, "{target}: {less} by {fewer}");
    }
    let (k, captured, whole) = at(256, 1.0);
    assert!(k == 256 && whole && captured > 1.0 - 1e-9, "{k} {captured}");
}

#[test]
fn no_other_lanes_of_the_same_layout_are_nearer() {
    let values = floats(&noise(4, 9 * 14));
    let deltas = Given::default().with("a", &[9, 14], values.clone());
    let found = import(&seed(), vec![spec("a", 9, 14, 8, 12)], &deltas, 1.0).unwrap();
    let layer = &found.state.layout().layers()[0];
    let lanes: Vec<f64> = found.state.values(layer);
    let error =
        |lanes: &[f64]| -> f64 { dense(layer, lanes).iter().zip(&values).map(|(a, b)| f64::from(a - b).powi(2)).sum() };
    let least = error(&lanes);
    for lane in 0..lanes.len() {
        for by in [-0.01, 0.01] {
            let mut moved = lanes.clone();
            moved[lane] += by;
            assert!(error(&moved) > least, "lane {lane}");
        }
    }
}

#[test]
fn a_wave_stays_within_the_gain() {
    let layout = Layout::new(&seed(), vec![spec("a", 8, 8, 8, 0)]).unwrap();
    let huge = dense(&layout.layers()[0], &[100.0, 0.0]);
    let deltas = Given::default().with("a", &[8, 8], huge);
    let found = import(&seed(), vec![spec("a", 8, 8, 8, 0)], &deltas, 1.0).unwrap();
    let (x, y) = found.state.wave(&layout.layers()[0], &layout.layers()[0].blocks()[0]);
    assert!((x.hypot(y) - 16.0).abs() < 1e-5, "{x} {y}");
    assert!((found.captured().unwrap() - (1.0 - 0.84f64.powi(2))).abs() < 1e-3);
}

#[test]
fn what_no_layer_takes_is_told_and_counts_as_lost() {
    let deltas = Given::default().with("a", &[8, 8], vec![0.5; 64]).with("norm", &[4], vec![2.0; 4]).with(
        "same",
        &[4],
        vec![0.0; 4],
    );
    let specs = vec![spec("a", 8, 8, 8, 64), spec("none", 8, 8, 8, 64)];
    let found = import(&seed(), specs, &deltas, 1.0).unwrap();
    assert_eq!(found.left_out, [LeftOut { name: "norm".into(), energy: 16.0 }]);
    let none = &found.layers[1];
    assert_eq!((none.residual, none.captured, none.rmse, none.packed_bytes), (0, None, 0.0, 24));
    assert!((found.captured().unwrap() - 0.5).abs() < 1e-6);
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let with = |value: f32, shape: &[usize], target: f64| {
        let deltas = Given::default().with("a", shape, vec![value; 64]);
        import(&seed(), vec![spec("a", 8, 8, 8, 64)], &deltas, target).unwrap_err().to_string()
    };
    assert_eq!(with(1.0, &[8, 8], 0.0), "a target of 0 of the energy, allowed is above 0 and at most 1");
    assert_eq!(with(1.0, &[4, 16], 0.5), "the delta: tensor a has shape [4, 16], expected [8, 8]");
    assert!(with(f32::NAN, &[8, 8], 0.5).contains("the delta of a: a coefficient of block 0 is NaN"));
    assert!(with(1e6, &[8, 8], 1.0).ends_with("allowed is ±2048"));
}

#[test]
fn the_number_of_threads_does_not_show() {
    let deltas = Given::default().with("a", &[40, 50], floats(&noise(5, 2_000)));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| import(&seed(), vec![spec("a", 40, 50, 8, 64)], &deltas, 0.5).unwrap())
    };
    assert_eq!(on(1), on(3));
}
