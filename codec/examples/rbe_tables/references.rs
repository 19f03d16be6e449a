//! Every published figure, recomputed. It knows the references and how far from one is still met, not how to print.

use anyhow::Context;
use indicatif::ProgressBar;
use packfed_codec::family::{Derivative, Fit, HASHED_START, HashedTarget, Packed64, Radial128, RadialTarget, Training};
use packfed_codec::quality::rmse;
use serde::Serialize;

use crate::codes::{Hybrid, encode_hybrid};
use crate::weights;

/// How much above its reference an error may lie.
pub(crate) const TOLERANCE: f64 = 1.12;

/// One figure beside the one that was published; smaller is better for both.
#[derive(Serialize)]
pub(crate) struct Reference {
    /// Whose figure it is.
    pub(crate) code: &'static str,
    /// What was measured, on what.
    pub(crate) what: String,
    /// The published RMSE, or the least that is possible; `None` for a figure of ours beside which nothing stands.
    pub(crate) reference: Option<f64>,
    /// Our RMSE.
    pub(crate) ours: f64,
    /// The published ratio of bytes.
    pub(crate) reference_ratio: Option<f64>,
    /// Bytes of the values as f32, divided by ours.
    pub(crate) ratio: f64,
}

impl Reference {
    /// Ours divided by the reference.
    pub(crate) fn relative(&self) -> Option<f64> {
        self.reference.map(|reference| self.ours / reference)
    }

    /// Whether ours is within the tolerance, or better.
    pub(crate) fn is_met(&self) -> bool {
        self.relative().is_none_or(|relative| relative <= TOLERANCE)
    }
}

/// All of them, in the order in which they are printed.
pub(crate) fn all(progress: &ProgressBar) -> anyhow::Result<Vec<Reference>> {
    let mut rows = Vec::new();
    progress.set_length(2 + HYBRID.len() as u64);
    progress.set_message("radial block");
    rows.extend(radial()?);
    progress.inc(1);
    progress.set_message("hashed block");
    rows.extend(hashed()?);
    progress.inc(1);
    for reference in HYBRID {
        progress.set_message(format!("hybrid block, {0} × {0}", reference.edge));
        rows.push(hybrid(reference)?);
        progress.inc(1);
    }
    Ok(rows)
}

const RADIAL_EDGE: usize = 32;
const RADIAL_STEPS: u32 = 4_000;
/// The corners and the middle of the published range of starts, r in [0.8, 1] and θ in [-0.5, 0.5].
const RADIAL_STARTS: [(f64, f64); 5] = [(0.8, -0.5), (0.8, 0.5), (1.0, -0.5), (1.0, 0.5), (0.9, 0.0)];
/// Where the published training ends, to the digits given.
pub(crate) const RADIAL_END: (f64, f64) = (0.7072, 0.2928);

fn radial() -> anyhow::Result<Vec<Reference>> {
    let values = cone();
    let target = RadialTarget::new(&values, RADIAL_EDGE, RADIAL_EDGE)?;
    let train = |start, derivative, steps| target.encode(start, derivative, &Training::constant(0.01, steps));
    let row = |what: String, reference, ours| Reference {
        code: "radial",
        what,
        reference,
        ours,
        reference_ratio: Some(256.0),
        ratio: ratio(values.len(), size_of::<Radial128>()),
    };
    let mut fits = RADIAL_STARTS.iter().map(|&start| train(start, Derivative::Analytic, RADIAL_STEPS));
    let worst = fits.try_fold(None, |worst: Option<Fit<Radial128>>, fit| {
        fit.map(|fit| worst.filter(|worst| worst.rmse >= fit.rmse).or(Some(fit)))
    })?;
    let worst = worst.context("there is at least one start")?;
    let (r, theta) = worst.block.parameters();
    let mut decoded = vec![0.0; values.len()];
    worst.block.decode_quantized_into(RADIAL_EDGE, RADIAL_EDGE, &mut decoded);
    let end = format!("worst of five starts, Seed1: r = {r:.7}, θ = {theta:.7}, {} steps", worst.steps);
    let early = train((0.9, 0.0), Derivative::Analytic, 200)?;
    let central = train((0.9, 0.0), Derivative::Central, 200)?;
    let central_end = train((0.9, 0.0), Derivative::Central, RADIAL_STEPS)?;
    let as_published = target.loss(RADIAL_END.0, RADIAL_END.1).sqrt();
    Ok(vec![
        row(end, Some(3e-8), worst.rmse),
        row("the same block from its Seed0".into(), Some(3e-8), rmse(&values, &decoded)?),
        row("200 steps from (0.9, 0), analytic gradient".into(), Some(1e-5), early.rmse),
        row("200 steps from (0.9, 0), central difference".into(), Some(1e-5), central.rmse),
        row(format!("{} steps, central difference, held off by the kink", central_end.steps), None, central_end.rmse),
        row(format!("at the published r = {}, θ = {}", RADIAL_END.0, RADIAL_END.1), None, as_published),
    ])
}

/// The radial reference's target, `1 − d/√2`.
fn cone() -> Vec<f32> {
    grid(RADIAL_EDGE, |d| 1.0 - d / 2f64.sqrt())
}

/// The hashed pattern has no published figure; beside ours stands the least that it can have.
fn hashed() -> anyhow::Result<Vec<Reference>> {
    const EDGE: usize = 128;
    let mut pattern = vec![0.0; EDGE * EDGE];
    Packed64::new(0.4, 0.8).decode_into(EDGE, EDGE, &mut pattern);
    let noise = weights::noise("noise", EDGE, EDGE, (0.0, 0.05), 0)?.values;
    let noisy: Vec<f32> = pattern.iter().zip(&noise).map(|(a, b)| a + b).collect();
    let targets = [("its pattern under noise of 0.05", noisy), ("noise of 0.05", noise), ("1/(1+ρ)", hyperbola(EDGE))];
    let row = |(name, values): (&str, Vec<f32>)| -> anyhow::Result<Reference> {
        let target = HashedTarget::new(&values, EDGE, EDGE)?;
        let fit = target.encode(HASHED_START, &Training::constant(0.01, 5_000))?;
        Ok(Reference {
            code: "hashed",
            what: format!("{name}, {} steps; beside it the least squares", fit.steps),
            reference: Some(target.best_rmse()),
            ours: fit.rmse,
            reference_ratio: None,
            ratio: ratio(values.len(), size_of::<Packed64>()),
        })
    };
    targets.into_iter().map(row).collect()
}

/// A row of the published table: `1/(1+ρ)`, DCT, blocks of 128.
#[derive(Clone, Copy)]
struct HybridReference {
    edge: usize,
    kept: u16,
    ratio: f64,
    rmse: f64,
}

const fn published(edge: usize, kept: u16, ratio: f64, rmse: f64) -> HybridReference {
    HybridReference { edge, kept, ratio, rmse }
}

const HYBRID: [HybridReference; 8] = [
    published(256, 50, 151.0, 1.91e-3),
    published(512, 50, 151.0, 5.91e-4),
    published(1024, 24, 292.0, 4.1e-4),
    published(1024, 40, 186.0, 2.4e-4),
    published(1024, 50, 151.0, 1.91e-4),
    published(1024, 100, 78.8, 8.81e-5),
    published(1024, 200, 40.2, 3.98e-5),
    published(1024, 400, 20.3, 1.80e-5),
];

fn hybrid(reference: HybridReference) -> anyhow::Result<Reference> {
    let HybridReference { edge, kept, .. } = reference;
    let values = hyperbola(edge);
    let encoded = encode_hybrid(&values, edge, edge, Hybrid { block: 128, kept })?;
    Ok(Reference {
        code: "hybrid",
        what: format!("{edge} × {edge}, K = {kept}"),
        reference: Some(reference.rmse),
        ours: rmse(&values, &encoded.decoded)?,
        reference_ratio: Some(reference.ratio),
        ratio: ratio(values.len(), encoded.bytes),
    })
}

/// The hybrid reference's target: `1/(1+ρ)` over [-1, 1]², brought to 0–1.
fn hyperbola(edge: usize) -> Vec<f32> {
    let least = 1.0 / (1.0 + 2f64.sqrt());
    let most = grid(edge, |d| 1.0 / (1.0 + d)).into_iter().fold(0.0f32, f32::max);
    grid(edge, |d| (1.0 / (1.0 + d) - least) / (f64::from(most) - least))
}

/// A function of the distance from the centre, rows and columns from −1 to 1.
fn grid(edge: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
    let coordinate = |n: usize| (2 * n) as f64 / (edge - 1) as f64 - 1.0;
    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    let at = |n: usize| value(coordinate(n / edge).hypot(coordinate(n % edge))) as f32;
    (0..edge * edge).map(at).collect()
}

/// Bytes of so many f32 divided by `bytes`.
pub(crate) fn ratio(values: usize, bytes: usize) -> f64 {
    (4 * values) as f64 / bytes as f64
}
