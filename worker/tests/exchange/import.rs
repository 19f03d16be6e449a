//! Deltas from files: a LoRA adapter, a fine-tuned model, a file of deltas.

use std::path::PathBuf;

use packfed_codec::{LayerSpec, Seed};
use packfed_worker::export::{Existing, Floats, MergedModel};
use packfed_worker::files::{ModelFiles, TensorFile};
use packfed_worker::import::{Deltas, DenseDelta, LoraAdapter, import};
use packfed_worker::nn::pool::Pooling;

use crate::models::{bert, gguf, llama, logits, matrices, noise, random_state, write_tensors};

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensor(name: &str, shape: &[usize]) -> (String, Vec<usize>, Vec<f32>) {
    (name.to_owned(), shape.to_vec(), noise(name.len() as u64, shape.iter().product()))
}

const QUERY: &str = "encoder.layer.0.attention.self.query";
const OUTPUT: &str = "encoder.layer.0.output.dense";

/// Query and output at different ranks, and a whole classifier.
fn tensors() -> Tensors {
    let key = |module: &str, part: &str| format!("base_model.model.bert.{module}.{part}.weight");
    vec![
        tensor(&key(QUERY, "lora_A"), &[2, 8]),
        tensor(&key(QUERY, "lora_B"), &[8, 2]),
        tensor(&key(OUTPUT, "lora_A"), &[3, 12]),
        tensor(&key(OUTPUT, "lora_B"), &[8, 3]),
        tensor("base_model.model.classifier.weight", &[5, 8]),
        tensor("base_model.model.bert.embeddings.LayerNorm.bias", &[8]),
    ]
}

const CONFIG: &str = r#"{ "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 8, "bias": "none", "use_dora": false,
    "init_lora_weights": true, "modules_to_save": ["classifier", "score"], "layer_replication": null,
    "rank_pattern": { "output.dense": 3 }, "alpha_pattern": { "^bert.encoder.layer.0.output.dense": 6.0 }, "use_rslora": false }"#;

fn adapter(config: &str, tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    write_tensors(&folder.path().join("adapter_model.safetensors"), tensors);
    folder
}

/// `scale·B·A` by its definition.
fn product(tensors: &Tensors, module: &str, scale: f32) -> Vec<f32> {
    let get = |part: &str| {
        let found = tensors.iter().find(|(name, ..)| name.ends_with(&format!("{module}.{part}.weight"))).unwrap();
        (found.1.clone(), found.2.clone())
    };
    let ((a_shape, a), (b_shape, b)) = (get("lora_A"), get("lora_B"));
    let (rank, cols) = (a_shape[0], a_shape[1]);
    let value = |n: usize| (0..rank).map(|k| b[n / cols * rank + k] * a[k * cols + n % cols]).sum::<f32>() * scale;
    (0..b_shape[0] * cols).map(value).collect()
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
}

#[test]
fn a_lora_adapter_is_alpha_by_r_of_its_product() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let tensors = tensors();
    let folder = adapter(CONFIG, &tensors);
    let deltas = LoraAdapter::open(folder.path(), &files).unwrap();
    let names: Vec<String> = deltas.tensors().into_iter().map(|tensor| tensor.name).collect();
    let [query, output] = [QUERY, OUTPUT].map(|module| format!("{module}.weight"));
    assert_eq!(names, ["classifier.weight", "embeddings.LayerNorm.bias", &query, &output]);
    near(&deltas.delta(&query).unwrap(), &product(&tensors, QUERY, 8.0 / 2.0));
    near(&deltas.delta(&output).unwrap(), &product(&tensors, OUTPUT, 6.0 / 3.0));
    near(&deltas.delta("classifier.weight").unwrap(), &tensors[4].2);
    // What was trained whole counts as what it has gained: the base's is noise too, of another seed.
    let was = noise(5, 8);
    let gained: Vec<f32> = tensors[5].2.iter().zip(&was).map(|(is, was)| is - was).collect();
    near(&deltas.delta("embeddings.LayerNorm.bias").unwrap(), &gained);
    let stabilized = adapter(&CONFIG.replace("\"use_rslora\": false", "\"use_rslora\": true"), &tensors);
    let deltas = LoraAdapter::open(stabilized.path(), &files).unwrap();
    near(&deltas.delta(&query).unwrap(), &product(&tensors, QUERY, 8.0 / 2f32.sqrt()));
}

#[test]
fn an_adapter_packed_whole_is_the_adapter_merged() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let folder = adapter(CONFIG, &tensors());
    let deltas = LoraAdapter::open(folder.path(), &files).unwrap();
    let specs = matrices(&files, 5).into_iter().map(|matrix| LayerSpec {
        name: matrix.name,
        rows: matrix.outputs,
        cols: matrix.inputs,
        block: 4,
        residual: 16,
        gain_exponent: 4,
    });
    let imported = import(&Seed::from_number(1), specs.collect(), &deltas, 1.0).unwrap();
    assert_eq!(imported.left_out.len(), 1, "the norm's bias");
    let changed: Vec<&str> =
        imported.layers.iter().filter(|layer| layer.captured.is_some()).map(|layer| layer.name.as_str()).collect();
    assert_eq!(changed, [&format!("{QUERY}.weight"), &format!("{OUTPUT}.weight"), "classifier.weight"]);
    for layer in imported.layers.iter().filter(|layer| layer.captured.is_some()) {
        assert!(layer.captured.unwrap() > 1.0 - 1e-8 && layer.is_whole(), "{layer:?}");
    }
    // The same by hand: the base's weights and the products.
    let out = base.path().join("out");
    let states = [&imported.state];
    let model =
        MergedModel { files: &files, states: &states, labels: &[], pooling: Pooling::Mean, floats: Floats::F32 };
    model.write(&out, Existing::Kept).unwrap();
    let back = ModelFiles::open(&out).unwrap();
    let dense = DenseDelta::of_models(&files, &back).unwrap();
    near(&dense.delta(&format!("{QUERY}.weight")).unwrap(), &product(&tensors(), QUERY, 4.0));
}

#[test]
fn what_an_adapter_asks_for_and_is_not_built_is_refused_by_name() {
    let base = bert();
    let files = ModelFiles::open(base.path()).unwrap();
    let open = |config: &str, tensors: &Tensors| {
        let folder = adapter(config, tensors);
        LoraAdapter::open(folder.path(), &files).unwrap_err().to_string()
    };
    for (from, to, expected) in [
        ("\"use_dora\": false", "\"use_dora\": true", "adapter_config.json: use_dora is set"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias is \"all\", supported is \"none\""),
        ("LORA", "LOHA", "peft_type is \"LOHA\""),
        ("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\"", "changes the base's weights too"),
        ("\"layer_replication\": null", "\"layer_replication\": [[0, 4]]", "layer_replication is set"),
        ("\"output.dense\": 3", "\"output\\\\..*\": 3", "is a regular expression"),
        ("\"output.dense\": 3", "\"output.dense\": 3, \"dense\": 2", "two patterns with different values"),
        ("\"output.dense\": 3", "\"key\": 3", "has shape [3, 12], expected [2, 12]"),
        ("\"r\": 2,", "", "missing field `r`"),
    ] {
        assert!(CONFIG.contains(from));
        let error = open(&CONFIG.replace(from, to), &tensors());
        assert!(error.contains(expected), "{error}");
    }
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors();
        change(&mut tensors);
        open(CONFIG, &tensors)
    };
    let rename = |index: usize, name: &'static str| with(&|tensors| tensors[index].0 = name.into());
    let vector = "base_model.model.bert.encoder.layer.0.output.dense.lora_magnitude_vector.weight";
    assert!(rename(5, vector).contains("belongs to a kind of LoRA that is not built here"));
    assert!(rename(5, "bert.encoder").contains("does not begin with base_model.model."));
    assert!(rename(4, "base_model.model.score.weight").contains("changes score.weight, which the base"));
    assert!(with(&|tensors| drop(tensors.remove(1))).contains("lora_B.weight is missing, beside the lora_A"));
    assert!(with(&|tensors| drop(tensors.remove(0))).contains("lora_A.weight is missing, beside the lora_B"));
    let wide = with(&|tensors| tensors[0] = tensor(&tensors[0].0, &[2, 9]));
    assert!(wide.ends_with("query.weight has shape [8, 9], expected [8, 8]"), "{wide}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), CONFIG).unwrap();
    let error = LoraAdapter::open(folder.path(), &files).unwrap_err().to_string();
    assert!(error.contains("no adapter_model.safetensors"), "{error}");
}

#[test]
fn a_fine_tuned_model_less_its_base_is_the_delta_that_it_got() {
    for (base, labels) in [(bert(), 5), (llama(), 0), (gguf(), 0)] {
        let files = ModelFiles::open(base.path()).unwrap();
        let state = random_state(&matrices(&files, labels), 7, 0.3);
        let out = base.path().join("tuned");
        let states = [&state];
        let model =
            MergedModel { files: &files, states: &states, labels: &[], pooling: Pooling::Mean, floats: Floats::F32 };
        model.write(&out, Existing::Kept).unwrap();
        let tuned = ModelFiles::open(&out).unwrap();
        let deltas = DenseDelta::of_models(&files, &tuned).unwrap();
        // The run's own layout: the delta lies in its span.
        let specs = state.layout().layers().iter().map(|layer| layer.spec().clone()).collect();
        let imported = import(&Seed::from_number(7), specs, &deltas, 1.0).unwrap();
        assert!(imported.captured().unwrap() > 1.0 - 1e-6, "{:?}", imported.captured());
        assert_eq!(imported.left_out, []);
        let ids = [vec![1, 3, 2]];
        let (expected, found) =
            (logits(&files, labels, Some(&state), &ids), logits(&files, labels, Some(&imported.state), &ids));
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-3), "{}", files.family().name());
    }
}

#[test]
fn a_file_of_deltas_is_taken_as_it_is() {
    let base = llama();
    let files = ModelFiles::open(base.path()).unwrap();
    let path = base.path().join("deltas.safetensors");
    let name = "layers.0.mlp.up_proj.weight";
    write_tensors(&path, &[tensor(name, &[12, 8])]);
    let file = TensorFile::open(&path).unwrap();
    let deltas = DenseDelta::File { file: &file, family: files.family() };
    assert_eq!(deltas.tensors()[0].name, format!("model.{name}"));
    near(&deltas.delta(&format!("model.{name}")).unwrap(), &noise(name.len() as u64, 96));
    assert!(deltas.delta("model.norm.weight").unwrap_err().to_string().ends_with("model.norm.weight is missing"));
    let encoder = bert();
    let other = ModelFiles::open(encoder.path()).unwrap();
    let error = DenseDelta::of_models(&other, &files).unwrap_err().to_string();
    assert!(error.ends_with("a llama cannot have been fine-tuned from a bert"), "{error}");
}

/// See `adapters.py`.
#[test]
#[ignore = "for adapters.py: needs a model in PACKFED_BASE and adapters of it in PACKFED_ADAPTERS"]
fn adapters_of_peft_are_what_the_library_merges() {
    let [base, adapters] = ["PACKFED_BASE", "PACKFED_ADAPTERS"].map(|name| PathBuf::from(std::env::var(name).unwrap()));
    let files = ModelFiles::open(&base).unwrap();
    for name in ["plain", "rslora", "patterns"] {
        let adapter = LoraAdapter::open(&adapters.join(name).join("adapter"), &files).unwrap();
        let merged = ModelFiles::open(&adapters.join(name).join("merged")).unwrap();
        let dense = DenseDelta::of_models(&files, &merged).unwrap();
        let changed = adapter.tensors();
        assert_eq!(changed.len(), 6 * 3 + 2);
        for tensor in changed {
            let (ours, theirs) = (adapter.delta(&tensor.name).unwrap(), dense.delta(&tensor.name).unwrap());
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{name}: {} by {worst}", tensor.name);
        }
        let specs = matrices(&files, 77).into_iter().map(|matrix| LayerSpec {
            block: if matrix.name == "classifier.weight" { 4 } else { 64 },
            name: matrix.name,
            rows: matrix.outputs,
            cols: matrix.inputs,
            residual: 4096,
            gain_exponent: 4,
        });
        let specs: Vec<LayerSpec> = specs.collect();
        for target in [0.5, 0.9, 0.99] {
            let imported = import(&Seed::from_number(1), specs.clone(), &adapter, target).unwrap();
            let changed = || imported.layers.iter().filter(|layer| layer.captured.is_some());
            for layer in changed() {
                assert!(layer.captured.unwrap() > target - 1e-6, "{target}: {layer:?}");
            }
            let (packed, dense) =
                changed().fold((0, 0), |(p, d), layer| (p + layer.packed_bytes, d + layer.dense_bytes));
            let query = changed().next().unwrap();
            println!("{name} {target}: captured {:?}, {packed} bytes of {dense}, {query:?}", imported.captured());
        }
    }
}
