//! The configuration that `init` writes: the example, with the base model's digest and layers if there is one.

use std::fmt::Write;

use super::base_model::{BaseModel, Matrix};

/// The example itself: its base and layers are placeholders.
pub(super) const PLACEHOLDER: &str = include_str!("../../coordinator.example.toml");

/// The example with this base model in it.
pub(super) fn for_base(base: &BaseModel) -> String {
    let placeholder_digest = "0".repeat(64);
    let (before, rest) = PLACEHOLDER.split_once(FIRST_LAYER).unwrap_or((PLACEHOLDER, ""));
    let after = rest.find(AFTER_LAYERS).map_or("", |at| &rest[at..]);
    let mut text = before.replace(&placeholder_digest, &base.digest.to_string());
    for (index, matrix) in base.matrices.iter().enumerate() {
        write_layer(&mut text, index, matrix);
    }
    text + after
}

fn write_layer(text: &mut String, index: usize, matrix: &Matrix) {
    let (block, residual) = if matrix.rows.min(matrix.cols) <= SMALL_EDGE { (4, 16) } else { (64, 48) };
    let gap = if index == 0 { "" } else { "\n" };
    let name = toml::Value::String(matrix.name.clone());
    let (rows, cols) = (matrix.rows, matrix.cols);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{gap}{FIRST_LAYER}\nname = {name}\nrows = {rows}\ncols = {cols}\nblock = {block}\nresidual = {residual}"
    );
}

const FIRST_LAYER: &str = "[[layers]]";
const AFTER_LAYERS: &str = "\n[training]";
/// A matrix with an edge up to this gets small blocks, all of whose 16 coefficients are kept.
const SMALL_EDGE: u64 = 16;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use packfed_coordinator::config::CoordinatorFile;
    use packfed_protocol::Digest;

    use super::*;

    #[test]
    fn a_base_model_replaces_the_placeholders_and_nothing_else() {
        let matrix = |name: &str, rows| Matrix { name: name.to_owned(), rows, cols: 100 };
        let matrices = vec![matrix("a \"quoted\".weight", 64), matrix("head.weight", 10)];
        let text = for_base(&BaseModel { digest: Digest([0xab; 32]), matrices });
        let plan = CoordinatorFile::parse(&text).unwrap().check(Path::new("")).unwrap().plan;
        let layers: Vec<_> = plan.raw().layers.iter().map(|l| (l.name.as_str(), l.rows, l.block, l.residual)).collect();
        assert_eq!(layers, [("a \"quoted\".weight", 64, 64, 48), ("head.weight", 10, 4, 16)]);
        assert_eq!(plan.raw().base, Digest([0xab; 32]));
        let placeholder = CoordinatorFile::parse(PLACEHOLDER).unwrap();
        assert_eq!(CoordinatorFile::parse(&text).unwrap().training, placeholder.training);
        assert!(text.contains("# levels = 1.0"), "comments stay");
    }
}
