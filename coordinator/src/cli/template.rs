//! The configuration that `init` writes: the example, with the base model's digest and layers if there is one.

use std::fmt::Write;

use packfed_coordinator::config::LayerTable;

use super::layers_file::LayersFile;

/// The example itself: its base and layers are placeholders.
pub(super) const PLACEHOLDER: &str = include_str!("../../coordinator.example.toml");

/// The example with this base model and these layers in it.
pub(super) fn for_layers(file: &LayersFile) -> String {
    let placeholder_digest = "0".repeat(64);
    let (before, rest) = PLACEHOLDER.split_once(FIRST_LAYER).unwrap_or((PLACEHOLDER, ""));
    let after = rest.find(AFTER_LAYERS).map_or("", |at| &rest[at..]);
    let mut text = before.replace(&placeholder_digest, &file.base.to_string());
    for (index, layer) in file.layers.iter().enumerate() {
        write_layer(&mut text, index, layer);
    }
    text + after
}

fn write_layer(text: &mut String, index: usize, layer: &LayerTable) {
    let gap = if index == 0 { "" } else { "\n" };
    let name = toml::Value::String(layer.name.clone());
    let LayerTable { rows, cols, block, residual, gain_exponent, .. } = layer;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{gap}{FIRST_LAYER}\nname = {name}\nrows = {rows}\ncols = {cols}\nblock = {block}\nresidual = {residual}\n\
         gain_exponent = {gain_exponent}"
    );
}

const FIRST_LAYER: &str = "[[layers]]";
const AFTER_LAYERS: &str = "\n[training]";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use packfed_coordinator::config::CoordinatorFile;
    use packfed_protocol::Digest;

    use super::*;
    use crate::cli::base_model::{BaseModel, Matrix};

    #[test]
    fn a_base_model_replaces_the_placeholders_and_nothing_else() {
        let matrix = |name: &str, rows| Matrix { name: name.to_owned(), rows, cols: 100 };
        let matrices = vec![matrix("a \"quoted\".weight", 64), matrix("head.weight", 10)];
        let text = for_layers(&BaseModel { digest: Digest([0xab; 32]), matrices }.layers());
        let plan = CoordinatorFile::parse(&text).unwrap().check(Path::new("")).unwrap().plan;
        let layers: Vec<_> = plan.raw().layers.iter().map(|l| (l.name.as_str(), l.rows, l.block, l.residual)).collect();
        assert_eq!(layers, [("a \"quoted\".weight", 64, 64, 48), ("head.weight", 10, 4, 16)]);
        assert_eq!(plan.raw().base, Digest([0xab; 32]));
        let placeholder = CoordinatorFile::parse(PLACEHOLDER).unwrap();
        assert_eq!(CoordinatorFile::parse(&text).unwrap().training, placeholder.training);
        assert!(text.contains("# levels = 1.0"), "comments stay");
    }
}
