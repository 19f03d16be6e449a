//! The two tables, for a person and as JSON. It computes nothing but what is printed of a figure.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use serde_json::json;

use crate::codes::Measured;
use crate::references::{RADIAL_END, Reference, TOLERANCE};

/// Both tables in one object, with whether every reference is met.
pub(crate) fn json(references: &[Reference], measured: &[Measured]) -> anyhow::Result<String> {
    let met = references.iter().all(Reference::is_met);
    Ok(serde_json::to_string_pretty(&json!({ "met": met, "references": references, "weights": measured }))?)
}

/// Both tables as text.
pub(crate) fn text(references: &[Reference], measured: &[Measured], file: Option<&Path>) -> String {
    let source = file.map_or("Gaussian noise (no file was given)".to_owned(), |file| file.display().to_string());
    let mut out = format!("References, met up to {:.0} % above\n", 100.0 * (TOLERANCE - 1.0));
    out += &reference_table(references);
    out += &reference_notes(references);
    let _ = write!(out, "\nThe same codes on {source}\n{}", weights_table(measured));
    out += &weights_notes(measured);
    out
}

fn reference_table(references: &[Reference]) -> String {
    let mut table =
        plain(["code", "what", "reference\nRMSE", "our\nRMSE", "ours ÷\ntheirs", "reference\nratio", "our\nratio", ""]);
    for row in references {
        let verdict = match row.relative() {
            None => "",
            Some(_) if row.is_met() => "met",
            Some(_) => "MISSED",
        };
        table.add_row([
            row.code.to_owned(),
            row.what.clone(),
            row.reference.map_or(ABSENT.to_owned(), |rmse| format!("{rmse:.2e}")),
            format!("{:.2e}", row.ours),
            row.relative().map_or(ABSENT.to_owned(), |relative| format!("{relative:.3}")),
            row.reference_ratio.map_or(ABSENT.to_owned(), |ratio| format!("{ratio:.1}")),
            format!("{:.1}", row.ratio),
            verdict.to_owned(),
        ]);
    }
    finish(table, 2)
}

fn reference_notes(references: &[Reference]) -> String {
    let missed = references.iter().filter(|row| !row.is_met()).count();
    let published = references.iter().filter(|row| row.reference.is_some()).count();
    let (r, theta) = RADIAL_END;
    format!(
        "ratio: bytes of f32 ÷ bytes of the code. {missed} of {published} missed.\n\
         The published end of the radial training, r = {r} and θ = {theta}, is not where its RMSE is: the target is the\n\
         block r = 1/√2 = 0.70711, θ = 1 − 1/√2 = 0.29289 itself, and rounded to those digits it is as far off as the last\n\
         radial row says. The two statements cannot both hold; ours ends at the exact block.\n"
    )
}

fn weights_table(measured: &[Measured]) -> String {
    let mut table = plain([
        "matrix",
        "code",
        "bytes",
        "ratio",
        "RMSE\n÷ σ",
        "captured",
        "of noise,\nmeasured",
        "of noise,\nShannon",
    ]);
    let mut last = "";
    for row in measured {
        let named = format!("{}\n{} × {}, σ = {:.4}", row.matrix, row.shape.0, row.shape.1, row.deviation);
        table.add_row([
            if row.matrix == last { String::new() } else { named },
            row.code.clone(),
            row.bytes.to_string(),
            format!("{:.1}", row.ratio),
            format!("{:.4}", row.relative_rmse),
            percent(row.captured),
            percent(row.captured_of_noise),
            percent(row.shannon),
        ]);
        last = &row.matrix;
    }
    finish(table, 2)
}

fn weights_notes(measured: &[Measured]) -> String {
    let mut out = String::from(
        "captured: 1 − ‖w−ŵ‖²/‖w‖². Of noise: the same code on Gaussian noise of the same shape and σ, and the most that is\n\
         to be expected of any code with so many coefficients and bytes.\n",
    );
    for row in measured {
        if let Some(refusal) = &row.guard {
            let _ = writeln!(out, "GUARD: {} on noise of {}'s shape: {refusal}", row.code, row.matrix);
        }
    }
    let extreme = |what: &str, row: &Measured| {
        format!(
            "{what}: {}, of noise {} ({} of {}, {:.0}:1), leaving an RMSE of {:.3} σ.\n",
            percent(row.captured),
            percent(row.captured_of_noise),
            row.code,
            row.matrix,
            row.ratio,
            row.relative_rmse
        )
    };
    let excess = |row: &Measured| row.captured - row.captured_of_noise;
    if let Some(most) = measured.iter().max_by(|a, b| a.captured.total_cmp(&b.captured)) {
        out += &extreme("Most captured", most);
    }
    if let Some(most) = measured.iter().max_by(|a, b| excess(a).total_cmp(&excess(b))) {
        out += &extreme("Furthest above noise", most);
    }
    out + "These codes keep what is concentrated in few coefficients. Where a matrix's figures are close to those of noise there is\n\
           nothing of the kind in it: it is nearly white to the code, and an RMSE near σ means that the weights are lost. Densely\n\
           trained weights are like that and do not compress this way. packfed does not try: it freezes them and trains a delta\n\
           whose trainable parameters *are* the coefficients, so that nothing is approximated afterwards. What such a delta cannot\n\
           express it does not learn; that cost is measured by training one, not here.\n"
}

/// Stands where there is no number.
const ABSENT: &str = "–";

fn percent(share: f64) -> String {
    format!("{:.3} %", 100.0 * share)
}

fn plain<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())).set_header(headings);
    table
}

/// The table with its first `left` columns to the left, the numbers to the right.
fn finish(mut table: Table, left: usize) -> String {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if index < left { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.trim_fmt() + "\n"
}
