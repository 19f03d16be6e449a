//! Outputs against those of the `transformers` library.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use packfed_worker::model::bert::{Bert, BertConfig, Classifier};
use packfed_worker::model::linears::{Linear, Linears, Packed, load};
use packfed_worker::model::llama::{Llama, LlamaConfig};
use packfed_worker::model::tokens::Tokens;
use packfed_worker::model::{Activations, LoadError, MatrixSpec};
use packfed_worker::nn::activation::Activation;
use packfed_worker::nn::pool::Pooling;
use packfed_worker::weight::{Stored, Weight};
use safetensors::SafeTensors;

/// A file of weights and of what comes of them.
struct Reference {
    bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[error("no tensor {0}")]
struct Missing(String);

impl Reference {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers").join(name);
        Self { bytes: std::fs::read(path).unwrap() }
    }

    fn words(&self, name: &str) -> Option<(Vec<usize>, Vec<[u8; 4]>)> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).ok()?;
        Some((tensor.shape().to_vec(), tensor.data().as_chunks().0.to_vec()))
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).unwrap().1.into_iter().map(f32::from_le_bytes).collect()
    }

    fn source(&self) -> impl FnMut(&str, &[usize]) -> Result<Weight, Missing> + '_ {
        |name, _| {
            let (shape, words) = self.words(name).ok_or_else(|| Missing(name.into()))?;
            let values = words.into_iter().map(f32::from_le_bytes).collect();
            Ok(Weight { name: name.into(), shape, stored: Stored::F32(Arc::new(values)) })
        }
    }

    fn tokens(&self) -> Tokens {
        let whole = |name: &str| self.words(name).unwrap().1.into_iter().map(u32::from_le_bytes).collect::<Vec<u32>>();
        let ids = whole("ids");
        let mut rest = ids.as_slice();
        let sequences: Vec<&[u32]> = whole("lengths")
            .into_iter()
            .map(|length| {
                let (sequence, later) = rest.split_at(length as usize);
                rest = later;
                sequence
            })
            .collect();
        Tokens::new(&sequences)
    }

    fn frozen(&self, matrices: &[MatrixSpec]) -> Arc<dyn Linears> {
        let linears = load::<f32, _>(matrices, &mut self.source()).unwrap();
        Arc::new(Packed::new(linears.into_iter().map(Linear::Frozen).collect()))
    }

    fn check(&self, name: &str, found: &Tensor) {
        let (found, expected) = (found.flatten_all().unwrap().to_vec1::<f32>().unwrap(), self.floats(name));
        assert_eq!(found.len(), expected.len(), "{name}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "{name}: {worst:e}");
    }
}

const CLASSIFIER: Classifier = Classifier { pooling: Pooling::Mean, labels: 5 };

fn bert_config() -> BertConfig {
    BertConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        intermediate: 48,
        vocabulary: 40,
        positions_max: 12,
        token_types: 2,
        norm_eps: 1e-12,
        activation: Activation::Gelu,
    }
}

#[test]
fn an_encoder_gives_the_outputs_of_transformers() {
    let (reference, config) = (Reference::open("bert.safetensors"), bert_config());
    let bert = Bert::<f32>::load(config, &mut reference.source()).unwrap();
    let (linears, tokens) = (reference.frozen(&config.matrices(CLASSIFIER)), reference.tokens());
    reference.check("hidden", &bert.hidden(&linears, &tokens, Activations::Kept).unwrap());
    reference.check("logits", &bert.logits(&linears, CLASSIFIER.pooling, &tokens, Activations::Kept).unwrap());
}

#[test]
fn decoders_give_the_outputs_of_transformers() {
    let tied = LlamaConfig {
        hidden: 24,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_size: 4,
        intermediate: 40,
        vocabulary: 40,
        positions_max: 12,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        tied_embeddings: true,
        activation: Activation::Silu,
    };
    let untied = LlamaConfig { heads: 2, kv_heads: 1, head_size: 16, tied_embeddings: false, ..tied };
    for (file, config) in [("llama.safetensors", tied), ("llama-untied.safetensors", untied)] {
        let reference = Reference::open(file);
        let llama = Llama::<f32>::load(config, &mut reference.source()).unwrap();
        let (linears, tokens) = (reference.frozen(&config.matrices()), reference.tokens());
        reference.check("hidden", &llama.hidden(&linears, &tokens, Activations::Kept).unwrap());
        reference.check("logits", &llama.logits(&linears, &tokens).unwrap());
        reference.check("loss", &llama.loss(&linears, &tokens, &tokens.next(), Activations::Recomputed).unwrap());
    }
}

#[test]
fn a_model_that_does_not_fit_its_file_is_an_error_that_names_tensor_and_shapes() {
    let reference = Reference::open("bert.safetensors");
    let load = |config| Bert::<f32>::load(config, &mut reference.source()).map(drop).unwrap_err();
    let error = load(BertConfig { vocabulary: 41, ..bert_config() });
    assert!(matches!(error, LoadError::Shape { .. }));
    let text = "tensor embeddings.word_embeddings.weight has shape [40, 32], expected [41, 32]";
    assert_eq!(error.to_string(), text);
    let error = load(BertConfig { layers: 3, ..bert_config() });
    assert_eq!(error.to_string(), "no tensor encoder.layer.2.attention.output.LayerNorm.weight");
    let error = load(BertConfig { heads: 5, ..bert_config() });
    assert_eq!(error.to_string(), "the configuration makes no model: hidden size 32 in 5 heads");
}
