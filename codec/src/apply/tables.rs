//! The tables that one vector's passes look up in, kept by each thread: at their length they are too long to be made
//! anew for every pass, and what is touched of them stays in the nearest cache from one layer to the next.

use std::cell::Cell;

use crate::apply::aligned::Aligned;
use crate::scalar::Scalar;

/// Values of a table: what 16 bits can name, so that a look-up needs no check.
pub(crate) const TABLE: usize = 1 << 16;
/// The last place of every table, which is zero: what is missing is read from there.
pub(crate) const NOWHERE: u16 = u16::MAX;

/// A table.
pub(crate) type Table<S> = [S; TABLE];

/// Three tables, as many as a backward pass needs; zero in the last place, elsewhere whatever they were left with.
pub struct Tables<S>([Aligned<S>; 3]);

impl<S: Scalar> Tables<S> {
    /// The tables.
    pub(crate) fn each(&mut self) -> [&mut Table<S>; 3] {
        self.0.each_mut().map(|table| {
            let table: &mut Table<S> = table.get_mut().first_chunk_mut().expect("made at this length");
            table[usize::from(NOWHERE)] = S::ZERO;
            table
        })
    }

    /// Lends this thread's tables.
    pub(crate) fn lent<R>(kept: &Cell<Option<Self>>, run: impl FnOnce(&mut Self) -> R) -> R {
        let mut tables = kept.take().unwrap_or_else(|| Self(std::array::from_fn(|_| Aligned::zeroed(TABLE))));
        let result = run(&mut tables);
        kept.set(Some(tables));
        result
    }
}
