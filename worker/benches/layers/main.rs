//! A training step of a few transformer layers beside its dense products alone, and where the rest of its time goes.
//!
//! `cargo bench -p packfed-worker --bench layers` prints one table; `-- NAME` keeps the rows that contain NAME. A time is the
//! median of repeated runs, in milliseconds a layer; a step is forward and backward with Δ on every matrix.
#![expect(clippy::unwrap_used, reason = "a benchmark fails where a test would")]

mod parts;
mod shapes;

use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something to be timed.
pub(crate) struct Row {
    pub(crate) name: String,
    /// What its time is divided by.
    pub(crate) layers: u32,
    pub(crate) run: Box<dyn Fn() + Send + Sync>,
}

/// How long a row is repeated, and how often at least.
const AT_LEAST: (Duration, usize) = (Duration::from_millis(1500), 5);

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn median_ms(row: &Row) -> f64 {
    (row.run)();
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < AT_LEAST.0 || times.len() < AT_LEAST.1 {
        let start = Instant::now();
        (row.run)();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2] * 1e3 / f64::from(row.layers)
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["what", "threads", "ms a layer"]);
    for row in shapes::rows().iter().chain(&parts::rows()) {
        if wanted.as_ref().is_some_and(|wanted| !row.name.contains(wanted.as_str())) {
            continue;
        }
        for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let time = pool.install(|| median_ms(row));
            eprintln!("{} on {threads}: {time:.2} ms", row.name);
            table.add_row([row.name.clone(), threads.to_string(), format!("{time:.2}")]);
        }
    }
    println!("{table}");
}
