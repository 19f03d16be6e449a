//! Both families against the `transformers` library, against finite differences, and against themselves.
//!
//! The files beside this were written by `transformers/outputs.py`, which names its versions.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "transformers/models.rs"]
mod models;
#[path = "transformers/reference.rs"]
mod reference;

use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Tensor, Var};
use models::{Model, Packing, bert, llama};
use packfed_worker::adapted::Element;
use packfed_worker::model::Activations;
use packfed_worker::model::linears::Linears;

/// Loss and gradients of every matrix's delta.
fn gradients<E: Element>(model: &Model<E>, packing: &Packing<E>, activations: Activations) -> (f64, Vec<Vec<f64>>) {
    let linears: Arc<dyn Linears> = Arc::new(packing.packed());
    let loss = model.loss(&linears, activations);
    let grads = loss.backward().unwrap();
    let gradients = packing.deltas.iter().map(|delta| flat(grads.get(delta).expect("every delta gets a gradient")));
    (flat(&loss)[0], gradients.collect())
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The loss with one lane of one matrix nudged.
fn nudged(model: &Model<f64>, packing: &Packing<f64>, matrix: usize, lane: usize, by: f64) -> f64 {
    let mut packing = packing.clone();
    let delta = &packing.deltas[matrix];
    let mut values = flat(delta);
    values[lane] += by;
    packing.deltas[matrix] = Var::from_vec(values, delta.dims(), delta.device()).unwrap();
    let linears: Arc<dyn Linears> = Arc::new(packing.packed());
    flat(&model.loss(&linears, Activations::Kept))[0]
}

fn check_differences(model: &Model<f64>, kind: Option<GgmlDType>) {
    let packing = model.packing(kind);
    let (_, found) = gradients(model, &packing, Activations::Kept);
    let step = 1e-4;
    for (matrix, found) in found.iter().enumerate() {
        // Every third lane, from another one in each matrix.
        for lane in (matrix % 3..found.len()).step_by(3) {
            let [up, down] = [step, -step].map(|by| nudged(model, &packing, matrix, lane, by));
            let (found, expected) = (found[lane], (up - down) / (2.0 * step));
            assert!(
                (found - expected).abs() < 1e-7 + 1e-5 * expected.abs(),
                "{kind:?} {matrix} {lane}: {found} {expected}"
            );
        }
    }
}

#[test]
fn gradients_of_a_whole_encoder_agree_with_finite_differences() {
    for kind in [None, Some(GgmlDType::Q4_1), Some(GgmlDType::Q8_0)] {
        check_differences(&Model::Bert(bert()), kind);
    }
}

#[test]
fn gradients_of_a_whole_decoder_agree_with_finite_differences() {
    for kind in [None, Some(GgmlDType::Q4_1), Some(GgmlDType::Q8_0)] {
        check_differences(&Model::Llama(llama()), kind);
    }
}

#[test]
fn every_trainable_lane_gets_a_gradient() {
    for model in [Model::<f32>::Bert(bert()), Model::Llama(llama())] {
        let packing = model.packing(None);
        let (_, gradients) = gradients(&model, &packing, Activations::Kept);
        for (n, (gradient, used)) in gradients.iter().zip(&packing.used).enumerate() {
            assert_eq!(gradient.len(), used.len());
            for (slot, (&gradient, &used)) in gradient.iter().zip(used).enumerate() {
                assert_eq!(gradient != 0.0, used, "matrix {n}, slot {slot}: {gradient}");
            }
        }
    }
}

#[test]
fn recomputed_activations_change_no_bit() {
    for model in [Model::<f32>::Bert(bert()), Model::Llama(llama())] {
        let packing = model.packing(Some(GgmlDType::Q8_0));
        let kept = gradients(&model, &packing, Activations::Kept);
        assert_eq!(kept, gradients(&model, &packing, Activations::Recomputed));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for model in [Model::<f32>::Bert(bert()), Model::Llama(llama())] {
        let packing = model.packing(Some(GgmlDType::Q4_1));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gradients(&model, &packing, Activations::Kept))
        };
        assert_eq!(on(1), on(3));
    }
}

#[test]
fn steps_with_a_cache_give_the_logits_of_the_whole_text() {
    let model = llama::<f32>();
    let linears: Arc<dyn Linears> = Arc::new(Model::Llama(model.clone()).packing(None).packed());
    let text = [3u32, 17, 0, 9, 9, 21, 5];
    let tokens = packfed_worker::model::tokens::Tokens::new(&[text]);
    let whole = model.llama.logits(&linears, &tokens).unwrap().to_vec2::<f32>().unwrap();
    let mut cache = model.llama.cache();
    let mut at = 0;
    for count in [3, 1, 2, 1] {
        let last = model.llama.step(&*linears, &text[at..at + count], &mut cache).unwrap();
        at += count;
        assert_eq!(cache.tokens(), at);
        let worst = last.iter().zip(&whole[at - 1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "after {at} tokens: {worst}");
    }
    let error = model.llama.step(&*linears, &[1; 20], &mut cache).unwrap_err().to_string();
    assert!(error.contains("20 tokens after 7, the model takes 16"), "{error}");
}
