//! Real models side by side: what is found is what each of them alone comes to.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, Seed, State};
use packfed_protocol::{Evaluation, ReleaseOutcome};
use packfed_worker::data::{Dataset, TokenExample};
use packfed_worker::evaluation::{Found, Unhealthy, Watch};
use packfed_worker::examples::Examples;
use packfed_worker::files::ModelFiles;
use packfed_worker::idx::Images;
use packfed_worker::loss::score;
use packfed_worker::mlp::{Dense, Mlp};
use packfed_worker::patterns::Blocks;
use packfed_worker::pretrained::Pretrained;
use packfed_worker::task::LocalTask;
use packfed_worker::text_task::TextTask;
use packfed_worker::tiny;
use packfed_worker::trainer::{Base, Trainer};

/// Each look at it is a millisecond later.
struct Ticking(f64);

impl Watch for Ticking {
    fn ms(&mut self) -> f64 {
        self.0 += 1.0;
        self.0
    }
}

/// A state whose lanes are all of about this size, of either sign.
fn noise(layout: &Arc<Layout>, size: i32) -> State {
    let mut stream = Seed::from_number(9).stream();
    let lane = |_| if stream.unit() < 0.5 { size } else { -size };
    let bytes: Vec<u8> = (0..layout.lanes()).map(lane).flat_map(i32::to_le_bytes).collect();
    State::from_bytes(layout.clone(), &bytes).unwrap()
}

fn examples(count: u8, shift: u8) -> Arc<Examples> {
    let pixels =
        (0..count).flat_map(|n| (0..8).map(move |at| n.wrapping_mul(37).wrapping_add(shift).wrapping_add(29 * at)));
    let labels: Vec<u8> = (0..count).map(|n| n % 4).collect();
    Arc::new(Examples::from_images(&Images { rows: 2, cols: 4, pixels: pixels.collect() }, &labels).unwrap())
}

/// A perceptron of so many layers, and a layout of all their weights.
fn perceptron(depth: usize) -> (Arc<Mlp>, Arc<Layout>) {
    let layer = |n: usize| {
        let outputs = if n + 1 == depth { 4 } else { 8 };
        let weight = (0..8 * outputs).map(|at| ((at * 7 + n) as f32 * 1.7).sin()).collect();
        Dense { weight: Arc::new(weight), bias: Arc::new(vec![0.1; outputs]), inputs: 8 }
    };
    let model = Mlp { layers: (0..depth).map(layer).collect() };
    let spec = |(n, layer): (usize, &Dense)| LayerSpec {
        name: format!("layers.{n}.weight"),
        rows: layer.outputs(),
        cols: 8,
        block: 4,
        residual: 16,
        gain_exponent: 6,
    };
    let specs = model.layers.iter().enumerate().map(spec).collect();
    (Arc::new(model), Arc::new(Layout::new(&Seed::from_number(1), specs).unwrap()))
}

fn evaluated(found: &Found) -> Evaluation {
    match found.outcome(None) {
        Ok(ReleaseOutcome::Evaluated(evaluation)) => evaluation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_perceptrons_figures_are_those_of_the_held_out_images() {
    let (model, layout) = perceptron(2);
    let held_out = examples(20, 100);
    let mut trainer =
        Trainer::new(Arc::new(Base::new(model.clone())), examples(10, 0)).holding_out(Some(held_out.clone()));
    let (zero, bad) = (State::zero(layout.clone()), noise(&layout, 40 << 20));
    let found = evaluated(&trainer.evaluate([&zero, &bad], 100, &mut Ticking(0.0)).unwrap());
    assert_eq!((found.examples, found.check(20)), (20, Ok(())));
    let logits = model.forward(held_out.values());
    let alone = logits.chunks(4).zip(held_out.labels()).map(|(row, &label)| score(row, label as usize).unwrap());
    let (loss, right) = alone.fold((0.0, 0), |(loss, right), (l, r)| (loss + l / 20.0, right + u32::from(r)));
    assert!((found.loss.before - loss).abs() < 1e-5, "{} {loss}", found.loss.before);
    assert_eq!(found.accuracy.unwrap().before, f64::from(right) / 20.0);
    assert!(found.loss.after > 2.0 * loss, "a bad head is found: {found:?}");
    let latency = found.latency_ms.unwrap();
    assert_eq!((latency.before, latency.after, latency.squares), (1.0, 1.0, 0.0));
    let same = evaluated(&trainer.evaluate([&bad, &bad], 7, &mut Ticking(0.0)).unwrap());
    assert_eq!((same.examples, same.loss.squares, same.accuracy.unwrap().squares), (7, 0.0, 0.0));
    assert!(trainer.fits(&layout).is_ok() && trainer.fits(&perceptron(3).1).is_err());
}

#[test]
fn a_release_that_overflows_is_found_though_nothing_is_held_out() {
    // Of eleven such layers the last one overflows.
    let (model, layout) = perceptron(11);
    let mut trainer = Trainer::new(Arc::new(Base::new(model)), examples(10, 0));
    let zero = State::zero(layout.clone());
    let mut look = |state: &State| trainer.evaluate([&zero, state], 100, &mut Ticking(0.0)).unwrap().outcome(None);
    assert_eq!(look(&zero), Ok(ReleaseOutcome::Healthy));
    let poisoned = look(&noise(&layout, i32::MAX));
    assert!(matches!(poisoned, Err(Unhealthy::Loss { example: 0, .. })), "{poisoned:?}");
}

#[test]
fn figures_of_texts_are_those_of_the_whole_evaluation() {
    for labels in [Some(3), None] {
        let folder = tempfile::tempdir().unwrap();
        match labels {
            Some(_) => tiny::write_bert(folder.path(), &Seed::from_number(1)).unwrap(),
            None => tiny::write_llama(folder.path(), &Seed::from_number(1)).unwrap(),
        }
        let model = Arc::new(Pretrained::open(&ModelFiles::open(folder.path()).unwrap(), labels).unwrap());
        let example = |n: u32| TokenExample { ids: vec![5 + n, 7, 9 + n % 3, 20], label: labels.map(|_| n % 3) };
        let dataset = |range: std::ops::Range<u32>| Dataset { examples: range.map(example).collect(), skipped: 0 };
        let held_out = Arc::new(dataset(10..22));
        let task = TextTask::new(model.clone(), Arc::new(dataset(0..4)));
        let blocks = Blocks { block: 16, residual: 5, head_block: 4 };
        let layout = Arc::new(Layout::new(&Seed::from_number(3), blocks.layers(model.matrices())).unwrap());
        let (zero, other) = (State::zero(layout.clone()), noise(&layout, 1 << 18));
        let mut measured = task.clone().holding_out(held_out.clone());
        let found = evaluated(&measured.evaluate([&zero, &other], 100, &mut Ticking(0.0)).unwrap());
        assert_eq!(found.check(12), Ok(()));
        for (state, loss, right) in [
            (&zero, found.loss.before, found.accuracy.unwrap().before),
            (&other, found.loss.after, found.accuracy.unwrap().after),
        ] {
            let alone = model.evaluate_all(&model.global(state).unwrap(), &held_out.examples).unwrap();
            assert!((loss - alone.mean_loss()).abs() < 1e-4, "{loss} {}", alone.mean_loss());
            assert!((right - alone.accuracy()).abs() < 1e-9);
        }
        let mut unmeasured = task.holding_out(Arc::new(dataset(0..0)));
        let found = unmeasured.evaluate([&zero, &other], 100, &mut Ticking(0.0)).unwrap();
        assert_eq!(found.outcome(None), Ok(ReleaseOutcome::Healthy));
    }
}
