//! Models written and read back; `outputs.py` shows the same of `transformers` and real models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, Merger, PackedLayer, Seed, State};
use packfed_worker::export::{DestinationError, Existing, ExportError, Floats, MergedModel};
use packfed_worker::files::{Format, ModelFiles};
use packfed_worker::import::{Deltas, DenseDelta};
use packfed_worker::nn::pool::Pooling;
use packfed_worker::text::Marks;
use packfed_worker::weight::{Stored, Weight};

use crate::models::{bert, gguf, json, llama, llama_of, logits, matrices, random_state};

const TEXTS: [&[u32]; 2] = [&[3, 0, 1, 2, 3], &[2]];

fn texts() -> Vec<Vec<u32>> {
    TEXTS.map(<[u32]>::to_vec).to_vec()
}

fn merged<'a>(files: &'a ModelFiles, states: &'a [&'a State]) -> MergedModel<'a> {
    MergedModel { files, states, labels: &[], pooling: Pooling::Mean, floats: Floats::F32 }
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_written_model_gives_the_logits_of_the_packed_one() {
    for (base, labels) in [(bert(), 5), (llama(), 0), (gguf(), 0)] {
        let files = ModelFiles::open(base.path()).unwrap();
        let state = random_state(&matrices(&files, labels), 7, 0.3);
        let out = base.path().join("out");
        let states = [&state];
        let exported = merged(&files, &states).write(&out, Existing::Kept).unwrap();
        let bytes = std::fs::metadata(out.join("model.safetensors")).unwrap().len();
        assert_eq!(exported.bytes, bytes);
        let back = ModelFiles::open(&out).unwrap();
        assert_eq!((back.family(), back.tensors().count()), (files.family(), exported.tensors));
        let expected = logits(&files, labels, Some(&state), &texts());
        let found = logits(&back, labels, None, &texts());
        let worst = apart(&expected, &found);
        assert!(worst < 1e-4, "{}: {worst}", files.family().name());
        let moved = apart(&expected, &logits(&files, labels, None, &texts()));
        assert!(moved > 0.1, "Δ shows: {moved}");
    }
}

#[test]
fn every_kind_of_float_is_the_nearest() {
    let base = llama();
    let files = ModelFiles::open(base.path()).unwrap();
    let exact = logits(&files, 0, None, &texts());
    for (floats, name, format, bound) in
        [(Floats::F16, "float16", Format::F16, 0.02), (Floats::Bf16, "bfloat16", Format::Bf16, 0.2)]
    {
        let out = base.path().join(name);
        MergedModel { floats, ..merged(&files, &[]) }.write(&out, Existing::Kept).unwrap();
        let back = ModelFiles::open(&out).unwrap();
        assert!(back.tensors().all(|info| info.format == format));
        assert_eq!(json(&out.join("config.json"))["torch_dtype"], name);
        let worst = apart(&exact, &logits(&back, 0, None, &texts()));
        assert!(worst > 0.0 && worst < bound, "{name}: {worst}");
    }
}

#[test]
fn an_encoder_with_a_classifier_has_the_names_and_the_class_that_transformers_wants() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let state = random_state(&matrices(&files, 2), 7, 0.3);
    let labels = ["card_arrival".to_owned(), "card_lost".to_owned()];
    let out = base.path().join("out");
    let states = [&state];
    let model = MergedModel { labels: &labels, ..merged(&files, &states) };
    let exported = model.write(&out, Existing::Kept).unwrap();
    assert_eq!(exported.left_out, ["pooler.dense.bias", "pooler.dense.weight"]);
    assert_eq!(names(&out), ["config.json", "model.safetensors", "modeling_packfed.py", "tokenizer.json"]);
    let config = json(&out.join("config.json"));
    assert_eq!(config["architectures"][0], "BertForPooledSequenceClassification");
    assert_eq!((&config["id2label"]["1"], &config["label2id"]["card_arrival"]), (&"card_lost".into(), &0.into()));
    assert_eq!((&config["classifier_pooling"], &config["hidden_size"]), (&"mean".into(), &8.into()));
    let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut heads: Vec<_> = file.names().into_iter().filter(|name| !name.starts_with("bert.e")).collect();
    heads.sort_unstable();
    assert_eq!(heads, ["classifier.bias", "classifier.weight"]);
    assert!(file.tensor("bert.embeddings.LayerNorm.weight").is_ok(), "not gamma");
    // What was exported is a base again, with its head and its names of classes.
    let back = ModelFiles::open(&out).unwrap();
    let again = base.path().join("again");
    merged(&back, &[]).write(&again, Existing::Kept).unwrap();
    assert_eq!(std::fs::read(again.join("model.safetensors")).unwrap(), bytes);
    assert_eq!(json(&again.join("config.json")), config);
    let wrong = MergedModel { labels: &labels[..1], ..merged(&back, &[]) };
    let error = wrong.write(&base.path().join("wrong"), Existing::Kept).unwrap_err().to_string();
    assert_eq!(error, "1 labels for a classifier of 2 classes");
}

#[test]
fn an_encoder_without_a_classifier_stays_a_bare_one() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let out = base.path().join("out");
    merged(&files, &[]).write(&out, Existing::Kept).unwrap();
    assert_eq!(json(&out.join("config.json"))["architectures"][0], "BertModel");
    assert_eq!(names(&out), ["config.json", "model.safetensors", "tokenizer.json"]);
    let back = ModelFiles::open(&out).unwrap();
    assert!(back.weight("pooler.dense.weight", &[8, 8]).is_ok());
}

#[test]
fn a_quantized_file_becomes_a_directory_with_configuration_and_tokenizer() {
    let base = gguf();
    let files = ModelFiles::open(base.path()).unwrap();
    let out = base.path().join("out");
    merged(&files, &[]).write(&out, Existing::Kept).unwrap();
    let expected =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(&out), expected);
    let config = json(&out.join("config.json"));
    assert_eq!((&config["architectures"][0], &config["eos_token_id"]), (&"LlamaForCausalLM".into(), &0.into()));
    assert_eq!((&config["tie_word_embeddings"], &config["rope_theta"]), (&true.into(), &500.0.into()));
    let about = json(&out.join("tokenizer_config.json"));
    assert_eq!((&about["eos_token"], &about["chat_template"]), (&"<end>".into(), &"{{ messages }}".into()));
    let (before, after) = (files.tokenizer().unwrap(), ModelFiles::open(&out).unwrap().tokenizer().unwrap());
    for text in ["abba", "ab<end>a", "b"] {
        let ids = |tokenizer: &packfed_worker::text::Tokenizer| tokenizer.encode(text, Marks::Around, 9).unwrap();
        assert_eq!(ids(&before), ids(&after));
    }
    assert_eq!(before.special(), after.special());
}

/// Rows of values of one tensor.
fn floats(weight: &Weight) -> &[f32] {
    let Stored::F32(values) = &weight.stored else { panic!("{weight:?}") };
    values
}

fn one_layer(name: &str, rows: usize, cols: usize, lane: f64) -> State {
    let spec = LayerSpec { name: name.into(), rows, cols, block: 8, residual: 2, gain_exponent: 4 };
    let layout = Arc::new(Layout::new(&Seed::from_number(3), vec![spec]).unwrap());
    #[expect(clippy::cast_possible_truncation, reason = "a lane is within ±2048")]
    let lane = (lane * f64::from(1 << 20)) as i32;
    State::from_bytes(layout.clone(), &lane.to_le_bytes().repeat(layout.lanes())).unwrap()
}

#[test]
fn deltas_of_several_states_add_up_and_a_bias_may_have_one() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let name = "encoder.layer.0.attention.self.query.bias";
    let (global, personal) = (one_layer(name, 8, 1, 0.25), one_layer(name, 8, 1, 0.5));
    let bias = |states: &[&State], folder: &str| {
        let out = base.path().join(folder);
        merged(&files, states).write(&out, Existing::Kept).unwrap();
        floats(&ModelFiles::open(&out).unwrap().weight(name, &[8]).unwrap()).to_vec()
    };
    let (none, one, both) = (bias(&[], "none"), bias(&[&global], "one"), bias(&[&global, &personal], "both"));
    assert!(apart(&none, &one) > 0.05);
    let tripled: Vec<f32> = none.iter().zip(&one).map(|(none, one)| none + 3.0 * (one - none)).collect();
    assert!(apart(&both, &tripled) < 1e-4, "{both:?} {tripled:?}");
}

#[test]
fn a_matrix_that_is_widened_in_parts_gets_the_delta_of_each() {
    // 136,000 halves, more than are widened at a time.
    let (rows, name) = (17_000, "model.embed_tokens.weight");
    let base = llama_of(rows);
    let (halves, out) = (base.path().join("halves"), base.path().join("out"));
    let wide = ModelFiles::open(base.path()).unwrap();
    MergedModel { floats: Floats::F16, ..merged(&wide, &[]) }.write(&halves, Existing::Kept).unwrap();
    let files = ModelFiles::open(&halves).unwrap();
    let state = one_layer(name, rows, 8, 0.25);
    merged(&files, &[&state]).write(&out, Existing::Kept).unwrap();
    let back = ModelFiles::open(&out).unwrap();
    let found = DenseDelta::of_models(&files, &back).unwrap().delta(name).unwrap();
    let layer = &state.layout().layers()[0];
    let expected = Merger::new().delta(layer, &PackedLayer::from_state(&state, layer));
    assert!(apart(&found, &expected) < 1e-6);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_left() {
    let base = llama();
    let files = ModelFiles::open(base.path()).unwrap();
    let out = base.path().join("out");
    let before = names(base.path());
    let refusal = |model: MergedModel<'_>, path: &Path| {
        let error = model.write(path, Existing::Replaced).unwrap_err();
        assert_eq!(names(base.path()), before, "nothing is left over");
        error
    };
    let unknown = one_layer("model.layers.9.mlp.up_proj.weight", 12, 8, 0.1);
    let text = "layer model.layers.9.mlp.up_proj.weight of shape [12, 8] has a delta, the model has no such tensor";
    assert_eq!(refusal(merged(&files, &[&unknown]), &out).to_string(), text);
    let other = one_layer("model.layers.0.mlp.up_proj.weight", 8, 12, 0.1);
    let error = refusal(merged(&files, &[&other]), &out).to_string();
    assert!(error.ends_with("of shape [8, 12] has a delta, the model's has shape [12, 8]"), "{error}");
    let labels = ["one".to_owned()];
    let error = refusal(MergedModel { labels: &labels, ..merged(&files, &[]) }, &out);
    assert!(matches!(error, ExportError::Labels { found: 1, expected: 0 }));
    let error = refusal(merged(&files, &[]), base.path());
    assert!(matches!(error, ExportError::Destination(DestinationError::Other { why: "the base model", .. })));
    // Sixty times what one state may hold.
    let huge = one_layer("model.norm.weight", 8, 1, 2000.0);
    let huge = [&huge; 60];
    let error = refusal(MergedModel { floats: Floats::F16, ..merged(&files, &huge) }, &out);
    assert!(matches!(&error, ExportError::Range { tensor, .. } if tensor == "model.norm.weight"), "{error}");
}

/// `PACKFED_BASE=… PACKFED_OUT=… cargo test -p packfed-worker --release --test exchange -- --ignored`, then
/// `python tests/exchange/outputs.py $PACKFED_OUT`.
#[test]
#[ignore = "for outputs.py: needs a model in PACKFED_BASE and writes to PACKFED_OUT"]
fn a_model_and_its_logits_for_transformers() {
    let [base, out] = ["PACKFED_BASE", "PACKFED_OUT"].map(|name| PathBuf::from(std::env::var(name).unwrap()));
    let files = ModelFiles::open(&base).unwrap();
    let (labels, size) = if files.family().name() == "bert" { (77, 0.2) } else { (0, 0.02) };
    let state = random_state(&matrices(&files, labels), 7, size);
    merged(&files, &[&state]).write(&out, Existing::Replaced).unwrap();
    let tokenizer = files.tokenizer().unwrap();
    let texts = ["My card has not arrived yet.", "Why?"];
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text, Marks::Around, 64).unwrap()).collect();
    let back = ModelFiles::open(&out).unwrap();
    let of = |files: &ModelFiles, state: Option<&State>, ids: &Vec<u32>| {
        logits(files, labels, state, std::slice::from_ref(ids))
    };
    let of_each: Vec<Vec<f32>> = ids.iter().map(|ids| of(&back, None, ids)).collect();
    // Against Δ applied in training's form, whose waves are not rounded to Seed0; and against no Δ.
    let packed = apart(&of_each[0], &of(&files, Some(&state), &ids[0]));
    let moved = apart(&of_each[0], &of(&files, None, &ids[0]));
    let expected =
        serde_json::json!({ "texts": texts, "ids": ids, "logits": of_each, "packed": packed, "moved": moved });
    std::fs::write(out.join("expected.json"), expected.to_string()).unwrap();
}
