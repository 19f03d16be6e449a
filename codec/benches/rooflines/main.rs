//! packfed-codec's kernels beside the machine's limits, each pair timed in turn in the same run.
//!
//! `cargo bench -p packfed-codec` prints one table; `-- NAME` keeps the rows that contain NAME, `-- --json` prints
//! one object a row. A ratio is the median of many pairs, with the middle half of them in brackets.

mod apply;
mod decode;
mod race;
mod robust;
mod words;

use race::Race;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut races: Vec<Race> = Vec::new();
    races.extend(words::races());
    races.extend(robust::races());
    races.extend(apply::races());
    races.extend(decode::races());
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["kernel", "beside", "cores", "ours", "theirs", "ours / theirs", "goal", ""]);
    for race in races.iter().filter(|race| wanted.is_none_or(|wanted| race.name.contains(wanted.as_str()))) {
        for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
            let result = race.run(threads);
            if json {
                println!("{}", result.json());
            } else {
                eprintln!("{}", result.line());
                table.add_row(result.row());
            }
        }
    }
    if !json {
        println!("{table}");
    }
}
