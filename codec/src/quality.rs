//! How close a decoded matrix is (`metrics.rs`), and what no code can do with white noise (`shannon.rs`).

mod metrics;
mod shannon;

pub(crate) use metrics::mean_square_difference;
pub use metrics::{MetricError, captured_energy, psnr, rmse, ssim};
pub use shannon::{GUARD_CHANCE, GuardError, ShannonGuard, WhiteNoiseBound};
