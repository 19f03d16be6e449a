//! A Candle tensor as a slice, without a copy; and sums over slices in an order that no register width changes.

use std::marker::PhantomData;
use std::ops::Deref;

use candle_core::{Result, Storage, Tensor, bail};

use crate::adapted::Element;

/// Partial sums of a reduction: one AVX-512 register of `f32`.
pub(crate) const LANES: usize = 16;

/// A tensor's storage while it is borrowed, and the part of it that is meant.
struct Values<G, E> {
    storage: G,
    range: (usize, usize),
    element: PhantomData<E>,
}

/// The values of a contiguous CPU tensor.
pub(crate) fn values<'a, E: Element>(tensor: &'a Tensor) -> Result<impl Deref<Target = [E]> + use<'a, E>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some(range) = layout.contiguous_offsets() else { bail!("a strided tensor where a contiguous one is needed") };
    match &*storage {
        Storage::Cpu(cpu) => E::cpu_storage_as_slice(cpu)?,
        Storage::Cuda(_) | Storage::Metal(_) => bail!("a tensor of another device where one of the CPU is needed"),
    };
    Ok(Values { storage, range, element: PhantomData })
}

impl<G: Deref<Target = Storage>, E: Element> Deref for Values<G, E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        match &*self.storage {
            Storage::Cpu(cpu) => {
                let values = E::cpu_storage_as_slice(cpu).expect("the type was checked at the start");
                &values[self.range.0..self.range.1]
            }
            Storage::Cuda(_) | Storage::Metal(_) => unreachable!("the device was checked at the start"),
        }
    }
}

/// The number of rows of a tokens × `width` tensor.
pub(crate) fn rows_of(name: &str, x: &Tensor, width: usize) -> Result<usize> {
    match x.dims() {
        &[rows, found] if found == width => Ok(rows),
        found => bail!("{name}: input of shape {found:?}, expected tokens × {width}"),
    }
}

/// The sum of partial sums.
#[inline(always)]
pub(crate) fn total<E: Element>(mut lanes: [E; LANES]) -> E {
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, &high) in low.iter_mut().zip(high.iter()) {
            *low += high;
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ row`.
#[inline(always)]
pub(crate) fn sum<E: Element>(row: &[E]) -> E {
    let mut lanes = [E::zero(); LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    total(lanes)
}

/// `Σ a·b`.
#[inline(always)]
pub(crate) fn dot<E: Element>(a: &[E], b: &[E]) -> E {
    let mut lanes = [E::zero(); LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    total(lanes)
}

/// The largest of a row, which has a first; a value that is not a number is passed over.
#[inline(always)]
pub(crate) fn highest<E: Element>(row: &[E]) -> E {
    let mut lanes = [row[0]; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = if value > *lane { value } else { *lane };
    }
    let mut highest = lanes[0];
    for value in lanes {
        highest = if value > highest { value } else { highest };
    }
    highest
}
