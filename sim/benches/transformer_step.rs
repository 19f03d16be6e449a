//! A local training step of two transformers: packfed beside LoRA of rank 8 and dense, time and peak memory.
//!
//! `cargo bench -p packfed-sim --bench transformer_step -- MODELS` with the folder that `sim/data/unpack_models.py` writes.
//! Every row is a process of its own, so that its peak memory is its own; a step is forward, backward and Adam on all
//! cores. `sim/benches/peft_step.py` measures PyTorch with `peft` on the same batches.
#![expect(clippy::unwrap_used, reason = "a benchmark fails where a test would")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Var;
use packfed_codec::{Seed, State, Window};
use packfed_coordinator::config::ProfileName;
use packfed_protocol::Digest;
use packfed_sim::options::{Options, UNEVEN};
use packfed_sim::text::flat::{Adaptation, FlatText};
use packfed_sim::text::run::{BANKING77, SHAKESPEARE};
use packfed_worker::data::TokenExample;
use packfed_worker::files::ModelFiles;
use packfed_worker::local::{LocalOptimizer, Optimizer, variables};
use packfed_worker::model::Activations;
use packfed_worker::model::linears::Linears;
use packfed_worker::pretrained::Pretrained;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Steps that are timed, after some that are not.
const STEPS: usize = 12;
const WARM: usize = 2;
const CLASSES: usize = 77;
const METHODS: [&str; 5] = ["base", "packfed", RECOMPUTED, "lora-r8", "dense"];
/// packfed with every layer's activations computed again in the backward pass.
const RECOMPUTED: &str = "packfed, recomputed";

/// 16 texts of 64 tokens, or 1 of 256.
fn batch(model: &str) -> Vec<TokenExample> {
    let (texts, tokens) = if model == "minilm" { (16, 64) } else { (1, 256) };
    let ids = |text: u32| (0..tokens).map(|n| 1000 + (text * tokens + n) % 1000).collect();
    (0..texts).map(|text| TokenExample { ids: ids(text), label: (model == "minilm").then_some(text) }).collect()
}

/// How the matrices are applied, and what is trained of them.
fn prepared(model: &Arc<Pretrained>, name: &str, method: &str) -> (Arc<dyn Linears>, Vec<Var>) {
    let adaptation = match method {
        "base" => return (model.base(), Vec::new()),
        "lora-r8" => Adaptation::LowRank(8),
        "dense" => Adaptation::Dense,
        _ => {
            let run = if name == "minilm" { BANKING77 } else { SHAKESPEARE };
            let (profile, threads) = (ProfileName::Nibble, 1);
            let options = Options { rounds: 1, workers: 1, cohort: 1, seed: 0, partition: UNEVEN, profile, threads };
            let plan = run.config(&options, model.matrices(), Digest([0; 32])).plan().unwrap();
            let state = State::zero(plan.layout().clone());
            let adapter = model.adapter(plan.layout()).unwrap();
            return adapter.packed(&state, Window::new(plan.raw().profile, 0)).unwrap();
        }
    };
    let (flat, parameters) = FlatText::new(model.clone(), adaptation, 1.0, &Seed::from_number(0)).unwrap();
    let trained = variables(&flat.shapes(), &parameters).unwrap();
    (flat.linears(&trained), trained)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn one(models: &Path, name: &str, method: &str) {
    let files = ModelFiles::open(&models.join(name)).unwrap();
    let model = Arc::new(Pretrained::open(&files, (name == "minilm").then_some(CLASSES)).unwrap());
    let (linears, trained) = prepared(&model, name, method);
    let examples = batch(name);
    let examples: Vec<&TokenExample> = examples.iter().collect();
    let activations = if method == RECOMPUTED { Activations::Recomputed } else { Activations::Kept };
    let mut optimizer = Optimizer::new(LocalOptimizer::ADAM, &trained);
    let mut times = Vec::new();
    for _ in 0..WARM + STEPS {
        let start = Instant::now();
        let loss = model.loss(&linears, &examples, activations).unwrap().mean;
        if !trained.is_empty() {
            let grads = loss.backward().unwrap();
            let gradients: Vec<_> = trained.iter().map(|var| grads.get(var).unwrap().contiguous().unwrap()).collect();
            assert!(optimizer.step(&gradients, 1.0, 1e-3).unwrap());
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let times = &mut times[WARM..];
    times.sort_by(f64::total_cmp);
    let (low, median, high) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{name:<12} {method:<19} {median:.3} s ({low:.3} - {high:.3})  peak {} MiB", peak_kib() / 1024);
}

/// The most memory that this process ever held, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [models, name, method] => one(Path::new(models), name, method),
        [models] => {
            println!("a step of training (of base: forward alone), median (lowest - highest) of {STEPS}");
            // A folder of the same model in 32-bit floats stands beside the 4-bit one, if `worker export` made it.
            let names = ["minilm", "smollm2", "smollm2-f32"];
            for name in names.into_iter().filter(|name| Path::new(models).join(name).exists()) {
                for method in METHODS {
                    let own = std::env::current_exe().unwrap();
                    assert!(Command::new(own).args([models, name, method]).status().unwrap().success());
                }
            }
        }
        _ => eprintln!("usage: cargo bench -p packfed-sim --bench transformer_step -- MODELS"),
    }
}
