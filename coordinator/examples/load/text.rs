//! Findings for people.

use crate::{idle, updates};

/// Of rounds.
pub(crate) fn updates(f: &updates::Findings) {
    let (m, p) = (&f.memory, &f.cpu.percent);
    println!("{} workers, {} rounds, updates of {} bytes, {} cores", f.workers, f.rounds, f.update_bytes, f.cores);
    println!("  updates per second: {}, {} MB/s", f.updates_per_second, f.mb_per_second);
    println!("  last byte to verdict: p50 {:.1} ms, p99 {:.1} ms", f.verdict_ms.p50, f.verdict_ms.p99);
    for bare in &f.bare {
        println!("  bare QUIC, {} at once: {} MB/s", bare.at_once, bare.mb_per_second);
    }
    println!("  of the fastest of these: {:.2}", f.of_bare);
    println!(
        "  memory: peak {:.1} MiB, {:.1} when it listened ({:.1} of it anonymous), {:.1} with all workers",
        mib(m.peak),
        mib(m.listening),
        mib(m.listening_anonymous),
        mib(m.connected)
    );
    println!(
        "  goal {:.1} MiB: 3 x the accumulator of {:.1} MiB and 64 KiB a connection; it grew by {:.1} MiB",
        mib(m.goal),
        mib(m.accumulator),
        mib(m.peak_beyond_listening)
    );
    println!("  workers: {:.2} ms of CPU an update", f.cpu.workers_ms);
    println!("  coordinator: {:.2} ms of CPU an update, {:.2} cores busy", f.cpu.ms, f.cpu.cores);
    let quic = p.quic.map_or("not known".to_owned(), |quic| format!("{quic:.0} %"));
    println!("    QUIC {quic} (its AEAD {:.0} %), signature {:.0} %, hash {:.0} %", p.quic_aead, p.signature, p.hash);
    println!("    journal {:.0} %, folding {:.0} %, everything else {:.0} %", p.journal, p.fold, p.rest);
}

/// Of connections with nothing to do.
pub(crate) fn idle(f: &idle::Findings) {
    println!("{} connections, checked in after {:.1} s", f.connections, f.connecting_seconds);
    println!("  held for {:.1} s: {:.1} MiB, {:.3} cores busy", f.held_seconds, mib(f.held), f.held_cores);
    println!("  it listened with {:.1} MiB: {} bytes a connection", mib(f.listening), f.per_connection);
    println!("  one more, and all had an assignment after {:.0} ms; peak {:.1} MiB", f.assigned_ms, mib(f.peak));
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
