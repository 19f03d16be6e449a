//! An ordered parallel map: results stand where their inputs stood, whatever the number of threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of threads that a simulation uses unless told otherwise.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Keeps dense products and kernels to the thread that calls them, for the same reason.
pub fn keep_kernels_to_one_thread() {
    // There is a pool already only if this was called before; then it has one thread.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
}

/// Keeps Candle to the thread that calls it, unless `CANDLE_NUM_THREADS` says otherwise: workers are
/// computed in parallel already, and Candle's own pool, which spins while it waits, would only get in
/// their way.
///
/// # Safety
/// No other thread may exist yet: this is for the first line of a `main`.
#[expect(unsafe_code, reason = "setting a variable is unsafe once there are threads")]
pub unsafe fn keep_candle_to_one_thread() {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // SAFETY: the caller promises that no other thread exists that could read the environment.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
}

const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// `items.map(f)` on up to `threads` threads; an item is taken as soon as a thread is free.
///
/// Why nothing is lost or done twice: adding to the counter is one atomic step, so every index goes to one thread,
/// whatever the ordering; a result is written under its slot's lock by that thread alone, and read after the scope
/// has joined all of them, which orders the writes before the reads. No lock is held while another is taken.
///
/// # Panics
/// If `f` panics.
pub fn map<T: Sync, R: Send>(items: &[T], threads: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = f(item);
            *done[index].lock().expect("a slot is written once") = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    done.into_iter().map(|slot| slot.into_inner().ok().flatten().expect("every index was taken")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_order_on_any_number_of_threads() {
        let items: Vec<u64> = (0..100).collect();
        let expected: Vec<u64> = items.iter().map(|n| n * n).collect();
        for threads in [1, 2, 7, 200] {
            assert_eq!(map(&items, threads, |n| n * n), expected);
        }
        assert!(map(&[] as &[u8], 4, |n| *n).is_empty());
    }
}
