//! How a pass over rows is split: over the current rayon pool, in pieces that cannot show in a result.
//!
//! Either every row is computed by itself, or pieces are the same whatever the number of threads and are put
//! together in their order. A pool of one thread runs everything where it is called.

use rayon::prelude::*;

/// Values below which a split costs more than it saves.
const WORTH_SPLITTING: usize = 1 << 15;

/// Calls `work` with the first row and the values of consecutive pieces of `out`, whose rows are `width` long and
/// computed each by itself.
pub(crate) fn rows<T: Send>(out: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || out.len() < WORTH_SPLITTING {
        work(0, out);
        return;
    }
    let rows = (out.len() / width).div_ceil(threads);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(n, piece)| work(n * rows, piece));
}

/// As [`rows`] for two outputs with as many rows, each given with its width.
pub(crate) fn rows_of_two<T: Send, U: Send>(
    (first, first_width): (&mut [T], usize),
    (second, second_width): (&mut [U], usize),
    work: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let threads = rayon::current_num_threads();
    if threads == 1 || first.len() < WORTH_SPLITTING {
        work(0, first, second);
        return;
    }
    let rows = (first.len() / first_width).div_ceil(threads);
    let pieces = first.par_chunks_mut(rows * first_width).zip(second.par_chunks_mut(rows * second_width));
    pieces.enumerate().for_each(|(n, (first, second))| work(n * rows, first, second));
}

/// Computes `count` pieces in any order and places them in theirs.
pub(crate) fn ordered<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync + Send, mut place: impl FnMut(usize, R)) {
    if rayon::current_num_threads() == 1 || count == 1 {
        (0..count).for_each(|n| place(n, work(n)));
        return;
    }
    let pieces: Vec<R> = (0..count).into_par_iter().map(&work).collect();
    pieces.into_iter().enumerate().for_each(|(n, piece)| place(n, piece));
}
