//! One local training step on the digits task, batch 32, one thread: packfed beside dense and LoRA.
//!
//! All three run the same loop, loss and optimizer and the same product kernel; they differ in what is
//! tracked. A worker-round of ten steps is timed, with all that belongs to it, and reported per step.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group};
use packfed_codec::{State, Window};
use packfed_coordinator::config::ProfileName;
use packfed_sim::baseline::dense::DenseModel;
use packfed_sim::baseline::fedavg::FlatModel;
use packfed_sim::baseline::lora::LoraModel;
use packfed_sim::federated::FederatedTask;
use packfed_sim::options::{BATCH, Options, STEPS, UNEVEN, digits_run};
use packfed_sim::task::Task;
use packfed_worker::local::LocalSteps;
use packfed_worker::local::host::Unattended;
use packfed_worker::task::{Job, LocalTask};
use packfed_worker::trainer::{Base, Trainer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn step(criterion: &mut Criterion) {
    let options = Options {
        rounds: 1,
        workers: 50,
        cohort: 10,
        seed: 0,
        partition: UNEVEN,
        profile: ProfileName::Plain,
        threads: 1,
    };
    let seed = options.run_seed();
    let task = Task::digits(&options).expect("the digits are embedded");
    let plan = digits_run(&options, &task.base, task.base_digest()).plan().expect("the task's own plan is valid");
    let examples = task.examples[0].clone();
    let mut group = criterion.benchmark_group("local training, steps");
    group.throughput(Throughput::Elements(STEPS.into())).measurement_time(Duration::from_secs(8)).sample_size(20);

    let mut trainer = Trainer::new(Arc::new(Base::new(task.base.clone())), examples.clone());
    let job = Job {
        factors: [].into(),
        state: Arc::new(State::zero(plan.layout().clone())),
        window: Window::new(plan.raw().profile, 0),
        local: LocalSteps::adam(STEPS, BATCH, plan.raw().training.learning_rate),
        seed,
    };
    group
        .bench_function("packfed", |bencher| bencher.iter(|| trainer.train(&job, &mut Unattended).expect("it trains")));

    let steps = LocalSteps::adam(STEPS, BATCH, 1e-3);
    let (dense, parameters) = DenseModel::new(&task.base);
    group.bench_function("dense", |bencher| {
        bencher.iter(|| dense.train(&parameters, &examples, &seed, steps).expect("it trains"));
    });
    let (lora, parameters) = LoraModel::new(task.base, 8, &seed).expect("the base is tensors");
    group.bench_function("lora-r8", |bencher| {
        bencher.iter(|| lora.train(&parameters, &examples, &seed, steps).expect("it trains"));
    });
    group.finish();
}

criterion_group!(benches, step);

fn main() {
    #[expect(unsafe_code, reason = "sets a variable for Candle")]
    // SAFETY: this is the first thing that main does, so no other thread exists.
    unsafe {
        packfed_sim::parallel::keep_candle_to_one_thread();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
