//! A worker's own labelled examples, and the order in which a round sees them.
//!
//! The examples never leave this machine; only their number does. The order follows from a seed, so a
//! method that is compared with another can be shown the same batches.

use candle_core::{Device, Tensor};
use packfed_codec::Seed;
use thiserror::Error;

use crate::data::held_out;
use crate::idx::Images;

/// Labelled feature vectors in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    features: usize,
    values: Vec<f32>,
    labels: Vec<u32>,
}

/// Why images and labels are not a set of examples.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExamplesError {
    /// Another number of labels than of images.
    #[error("{images} images and {labels} labels")]
    Count {
        /// Images given.
        images: usize,
        /// Labels given.
        labels: usize,
    },
    /// There is nothing to train on.
    #[error("there are no examples")]
    Empty,
}

impl Examples {
    /// Images flattened and scaled by 1/255, with their labels.
    ///
    /// # Errors
    /// If the numbers differ or are 0.
    pub fn from_images(images: &Images, labels: &[u8]) -> Result<Self, ExamplesError> {
        let features = images.rows * images.cols;
        let count = images.pixels.len().checked_div(features).unwrap_or(0);
        if count != labels.len() {
            return Err(ExamplesError::Count { images: count, labels: labels.len() });
        }
        if count == 0 {
            return Err(ExamplesError::Empty);
        }
        let values = images.pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
        Ok(Self { features, values, labels: labels.iter().map(|&label| label.into()).collect() })
    }

    /// Two sets: those to train on, and the `share` (0 to 1) that is held out, each `None` if it has none. Which is which
    /// follows from the seed and from each example's own features and label, so others more or less move none.
    #[must_use]
    pub fn split(self, seed: &Seed, share: f64) -> (Option<Self>, Option<Self>) {
        let is_held_out = |n: &usize| {
            let (values, labels) = self.batch(&[*n]);
            let mut hasher = blake3::Hasher::new();
            values.iter().for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
            hasher.update(&labels[0].to_le_bytes());
            held_out(seed, hasher.finalize().as_bytes(), share)
        };
        let (held_out, training): (Vec<usize>, Vec<usize>) = (0..self.len()).partition(is_held_out);
        let part = |indices: &[usize]| {
            let (values, labels) = self.batch(indices);
            (!indices.is_empty()).then_some(Self { features: self.features, values, labels })
        };
        (part(&training), part(&held_out))
    }

    /// Number of examples.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none; never true of a set that was made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Length of one feature vector.
    #[must_use]
    pub const fn features(&self) -> usize {
        self.features
    }

    /// All feature vectors, examples × features.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All labels.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The feature vectors and labels at some indices.
    #[must_use]
    pub fn batch(&self, indices: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let features = |&i: &usize| &self.values[i * self.features..(i + 1) * self.features];
        let values = indices.iter().flat_map(features).copied().collect();
        (values, indices.iter().map(|&i| self.labels[i]).collect())
    }

    /// The feature vectors at some indices, examples × features, and their labels.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn tensors(&self, indices: &[usize]) -> Result<(Tensor, Tensor), candle_core::Error> {
        let (values, labels) = self.batch(indices);
        let x = Tensor::from_vec(values, (indices.len(), self.features), &Device::Cpu)?;
        Ok((x, Tensor::from_vec(labels, indices.len(), &Device::Cpu)?))
    }
}

/// Batches without end: pass after pass over the examples, each newly shuffled.
#[derive(Clone)]
pub struct BatchOrder {
    stream: packfed_codec::Stream,
    order: Vec<usize>,
    next: usize,
}

impl BatchOrder {
    /// The order of `examples` examples under a seed.
    #[must_use]
    pub fn new(seed: &Seed, examples: usize) -> Self {
        Self { stream: seed.stream(), order: (0..examples).collect(), next: examples }
    }

    /// The next `size` indices; a batch may straddle two passes.
    pub fn batch(&mut self, size: usize) -> Vec<usize> {
        (0..size).map(|_| self.index()).collect()
    }

    fn index(&mut self) -> usize {
        if self.next == self.order.len() {
            self.stream.shuffle(&mut self.order);
            self.next = 0;
        }
        self.next += 1;
        self.order[self.next - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_shows_every_example_once() {
        let mut order = BatchOrder::new(&Seed::from_number(1), 10);
        let mut seen: Vec<usize> = (0..5).flat_map(|_| order.batch(2)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(order.batch(32).len(), 32, "more than there are");
    }

    #[test]
    fn the_two_parts_of_a_split_are_the_whole_and_nothing_is_held_out_unless_it_is_said() {
        let pixels = (0..200u8).flat_map(|n| [n, n.wrapping_mul(7)]).collect();
        let images = Images { rows: 1, cols: 2, pixels };
        let labels: Vec<u8> = (0..200).map(|n| n % 10).collect();
        let examples = Examples::from_images(&images, &labels).unwrap();
        let (training, held_out) = examples.clone().split(&Seed::from_number(1), 0.25);
        let (training, held_out) = (training.unwrap(), held_out.unwrap());
        assert_eq!(training.len() + held_out.len(), 200);
        assert!((30..70).contains(&held_out.len()), "{}", held_out.len());
        let shown = |examples: &Examples| {
            (0..examples.len()).map(|n| format!("{:?}", examples.batch(&[n]))).collect::<Vec<_>>()
        };
        assert!(shown(&training).iter().all(|one| !shown(&held_out).contains(one)));
        let (all, none) = examples.clone().split(&Seed::from_number(1), 0.0);
        assert_eq!((all, none), (Some(examples.clone()), None), "in the same order");
        assert_eq!(examples.split(&Seed::from_number(1), 1.0).0, None);
    }

    #[test]
    fn pixels_become_unit_features() {
        let images = Images { rows: 1, cols: 2, pixels: vec![0, 255, 51, 0] };
        let examples = Examples::from_images(&images, &[7, 8]).unwrap();
        assert_eq!(examples.batch(&[1, 0]), (vec![0.2, 0.0, 0.0, 1.0], vec![8, 7]));
        let error = Examples::from_images(&images, &[7]).unwrap_err();
        assert_eq!(error, ExamplesError::Count { images: 2, labels: 1 });
    }
}
