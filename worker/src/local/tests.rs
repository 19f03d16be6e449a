//! What a step is, whatever it is cut into.

use super::snapshot::Snapshot;
use super::*;
use crate::task::NotFinite;

const INPUTS: usize = 3;

/// Uneven examples of a small regression, one to three terms each: `w` is trained to fit `x·w`.
fn example(n: usize) -> (Vec<f32>, usize) {
    let x = (0..INPUTS).map(|i| ((n * INPUTS + i) as f32 * 1.3).sin() * (1.0 + n as f32)).collect();
    (x, 1 + n % 3)
}

fn weights() -> Var {
    Var::from_slice(&[0.3f32, -0.2, 0.1], (INPUTS, 1), &Device::Cpu).unwrap()
}

/// Mean of `terms·cos(x·w)` over the terms of some examples.
fn loss(w: &Var, examples: &[usize]) -> TensorResult<MeanLoss> {
    let all: Vec<_> = examples.iter().map(|&n| example(n)).collect();
    let x: Vec<f32> = all.iter().flat_map(|(x, _)| x.clone()).collect();
    let terms: Vec<f32> = all.iter().map(|&(_, terms)| terms as f32).collect();
    let total = terms.iter().sum::<f32>();
    let y = Tensor::from_vec(x, (examples.len(), INPUTS), &Device::Cpu)?.matmul(w)?.cos()?.flatten_all()?;
    let mean = ((y * Tensor::from_vec(terms, examples.len(), &Device::Cpu)?)?.sum_all()? / f64::from(total))?;
    Ok(MeanLoss { mean, terms: all.iter().map(|(_, terms)| terms).sum() })
}

/// Five examples a step, in turn.
fn order() -> impl FnMut(usize) -> Vec<usize> {
    let mut next = 0;
    move |size| {
        next += size;
        (next - size..next).map(|n| n % 7).collect()
    }
}

fn rules() -> [LocalSteps; 4] {
    let adam = LocalSteps::adam(6, 5, 0.02);
    let sgd = LocalOptimizer::Sgd { momentum: 0.9, weight_decay: 0.01 };
    let warm = LocalSteps { warmup: 4, clip_norm: Some(0.3), ..adam };
    [adam, warm, LocalSteps { optimizer: sgd, ..adam }, LocalSteps { proximal: 4.0, ..warm }]
}

/// Final weights and loss.
fn run(steps: &LocalSteps, micro_batch: usize) -> (Vec<f32>, f32) {
    let w = weights();
    let outcome =
        steps.run_at(place(micro_batch, &mut Unattended), std::slice::from_ref(&w), order(), |i| loss(&w, i)).unwrap();
    assert_eq!(outcome.steps, steps.steps);
    (flat_values(&[w]).unwrap(), outcome.loss)
}

fn place(micro_batch: usize, host: &mut dyn Host) -> Place<'_> {
    Place { job: JobDigest([1; 32]), micro_batch, factors: &[], host }
}

/// Breaks off after some steps and keeps a snapshot.
#[derive(Default)]
struct Interrupting {
    after: u32,
    kept: Option<Snapshot>,
    told: Vec<(u32, u32, f32)>,
}

impl Host for Interrupting {
    fn resume(&mut self, _: &JobDigest) -> Option<Snapshot> {
        self.kept.take()
    }

    fn stepped(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self.told.push((step.done, step.of, step.loss));
        if step.done != self.after {
            return ControlFlow::Continue(());
        }
        self.kept = Some(Snapshot::decode(&step.snapshot().unwrap().encode()).unwrap());
        ControlFlow::Break(())
    }
}

#[test]
fn a_step_is_the_whole_batchs_however_it_is_cut() {
    for steps in rules() {
        let (whole, loss) = run(&steps, 5);
        assert_eq!(run(&steps, usize::MAX), (whole.clone(), loss));
        for micro_batch in [0, 1, 2, 3, 4] {
            let (cut, cut_loss) = run(&steps, micro_batch);
            assert!((cut_loss - loss).abs() < 1e-6, "{micro_batch}: {cut_loss} {loss}");
            for (cut, whole) in cut.iter().zip(&whole) {
                assert!((cut - whole).abs() < 2e-6, "{micro_batch}: {cut} {whole}");
            }
        }
    }
}

#[test]
fn steps_are_the_formulas() {
    // Plain gradient descent with warm-up, clipping and a proximal term, in f64, over the same examples.
    let sgd = LocalOptimizer::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let steps = LocalSteps { optimizer: sgd, warmup: 4, clip_norm: Some(2.0), ..LocalSteps::adam(6, 5, 0.5) };
    for proximal in [0.0f32, 0.75] {
        let steps = LocalSteps { proximal, ..steps };
        let (expected, clipped) = descended(proximal.into());
        assert!((1..6).contains(&clipped), "some steps are clipped and some are not: {clipped}");
        for (found, expected) in run(&steps, 2).0.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

/// Where the formulas lead, and how many of the steps are clipped.
fn descended(proximal: f64) -> ([f64; INPUTS], usize) {
    const START: [f64; INPUTS] = [0.3, -0.2, 0.1];
    let (mut order, mut w, mut clipped) = (order(), START, 0);
    for rate in [0.125, 0.25, 0.375, 0.5, 0.5, 0.5] {
        let (mut gradient, mut terms) = ([0.0f64; INPUTS], 0.0);
        for (x, n) in order(5).into_iter().map(example) {
            let y: f64 = x.iter().zip(w).map(|(&x, w)| f64::from(x) * w).sum();
            gradient.iter_mut().zip(&x).for_each(|(g, &x)| *g -= n as f64 * y.sin() * f64::from(x));
            terms += n as f64;
        }
        // ∇(F(w) + μ/2·‖w − w₀‖²)
        let gradient: [f64; INPUTS] = std::array::from_fn(|i| gradient[i] / terms + proximal * (w[i] - START[i]));
        let norm = gradient.iter().map(|g| g.powi(2)).sum::<f64>().sqrt();
        clipped += usize::from(norm > 2.0);
        w.iter_mut().zip(gradient).for_each(|(w, g)| *w -= rate * (2.0 / norm).min(1.0) * g);
    }
    (w, clipped)
}

#[test]
fn a_proximal_term_keeps_training_closer_to_where_it_began() {
    let distance = |proximal| {
        let (values, _) = run(&LocalSteps { proximal, ..LocalSteps::adam(6, 5, 0.02) }, 5);
        values.iter().zip([0.3, -0.2, 0.1]).map(|(v, start): (&f32, f32)| (v - start).powi(2)).sum::<f32>()
    };
    let distances = [0.0, 20.0, 100.0].map(distance);
    assert!(distances.is_sorted_by(|a, b| *a > 1.2 * b), "{distances:?}");
}

#[test]
fn interrupted_after_any_step_it_ends_in_the_same_bits() {
    for steps in rules() {
        let undisturbed = run(&steps, 2);
        for after in 1..=steps.steps {
            let mut host = Interrupting { after, ..Interrupting::default() };
            let mut part = || {
                let w = weights();
                let place = place(2, &mut host);
                let outcome =
                    steps.run_at(place, std::slice::from_ref(&w), order(), |examples| loss(&w, examples)).unwrap();
                (outcome.steps, (flat_values(&[w]).unwrap(), outcome.loss))
            };
            assert_eq!(part().0, after);
            let (done, resumed) = part();
            assert_eq!(done, steps.steps);
            assert_eq!(resumed, undisturbed, "{after}");
            let told: Vec<u32> = host.told.iter().map(|&(done, ..)| done).collect();
            assert_eq!(told, (1..=steps.steps).collect::<Vec<_>>(), "no step is done twice");
        }
    }
}

#[test]
fn a_snapshot_of_anything_else_is_ignored() {
    let [adam, _, sgd, _] = rules();
    let snapshot = |steps: &LocalSteps| {
        let (w, mut host) = (weights(), Interrupting { after: 3, ..Interrupting::default() });
        steps.run_at(place(5, &mut host), std::slice::from_ref(&w), order(), |examples| loss(&w, examples)).unwrap();
        host.kept.unwrap()
    };
    let good = snapshot(&adam);
    let (mut short, mut far) = (good.clone(), good.clone());
    short.parameters.truncate(2);
    far.steps = 7;
    let foreign = Snapshot { job: JobDigest([2; 32]), ..good.clone() };
    let undisturbed = run(&adam, 5);
    for (kept, steps) in [(good, 3), (short, 6), (far, 6), (foreign, 6), (snapshot(&sgd), 6)] {
        let (w, mut host) = (weights(), Interrupting { kept: Some(kept), ..Interrupting::default() });
        let outcome =
            adam.run_at(place(5, &mut host), std::slice::from_ref(&w), order(), |examples| loss(&w, examples)).unwrap();
        assert_eq!(host.told.len(), steps, "steps from the start or from the snapshot");
        assert_eq!((flat_values(&[w]).unwrap(), outcome.loss), undisturbed);
    }
}

#[test]
fn a_round_that_ends_early_has_the_loss_of_its_steps() {
    let (w, mut host) = (weights(), Interrupting { after: 2, ..Interrupting::default() });
    let steps = rules()[0];
    let outcome =
        steps.run_at(place(5, &mut host), std::slice::from_ref(&w), order(), |examples| loss(&w, examples)).unwrap();
    let losses: Vec<f32> = host.told.iter().map(|&(_, _, loss)| loss).collect();
    assert_eq!(outcome, LocalOutcome { steps: 2, loss: (losses[0] + losses[1]) / 2.0 });
}

#[test]
fn the_rate_rises_to_its_place_and_stays() {
    let rates = |warmup| [0, 1, 2, 3, 9].map(|n| LocalSteps { warmup, ..LocalSteps::adam(10, 1, 0.8) }.rate(n));
    assert_eq!(rates(0), [0.8; 5]);
    assert_eq!(rates(1), [0.8; 5]);
    assert_eq!(rates(4), [0.2, 0.4, 0.6, 0.8, 0.8]);
}

#[test]
fn what_is_not_finite_ends_training_with_its_step() {
    let fault = |steps: LocalSteps, mean: &dyn Fn(&Var, u32) -> Tensor, micro_batch| {
        let w = weights();
        let step = std::cell::Cell::new(0);
        let mut order = order();
        let order = |size| {
            step.set(step.get() + 1);
            order(size)
        };
        let loss = |examples: &[usize]| Ok(MeanLoss { mean: mean(&w, step.get() - 1), terms: examples.len() });
        match steps.run_at(place(micro_batch, &mut Unattended), std::slice::from_ref(&w), order, loss).unwrap_err() {
            TaskError::NotFinite { step, fault } => (step, format!("{fault}")),
            other => panic!("{other}"),
        }
    };
    let steps = LocalSteps::adam(6, 5, 0.1);
    for micro_batch in [2, 5] {
        let log = |w: &Var, step| (w.sum_all().unwrap() * if step == 3 { -1e9 } else { 1.0 }).unwrap().log().unwrap();
        let sum = |w: &Var| w.sqr().unwrap().sum_all().unwrap();
        let nan = |w: &Var, step| if step == 3 { log(w, 3) } else { sum(w) };
        assert_eq!(fault(steps, &nan, micro_batch), (3, "the loss is NaN".into()));
        let zero = |w: &Var| (w.as_tensor() * 1e-30).unwrap().sqr().unwrap().sum_all().unwrap();
        // √0 has a finite value and an infinite slope.
        let root = |w: &Var, step| if step == 2 { zero(w).sqrt().unwrap() } else { sum(w) };
        assert_eq!(fault(steps, &root, micro_batch), (2, "a gradient is not finite".into()));
        let wild = LocalOptimizer::Sgd { momentum: 0.0, weight_decay: 1e21 };
        let far = LocalSteps { optimizer: wild, ..steps };
        let flat = |w: &Var, _| (w.as_tensor() * 1e-30).unwrap().sum_all().unwrap();
        assert_eq!(fault(far, &flat, micro_batch), (1, "a parameter is not finite".into()));
    }
    let error = TaskError::NotFinite { step: 3, fault: NotFinite::Loss(f32::NAN) };
    assert_eq!(error.to_string(), "the loss is NaN in step 3; lower the learning rate or check the data");
}
