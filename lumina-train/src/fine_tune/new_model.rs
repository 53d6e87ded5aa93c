//! New models of random weights.

use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::{Dtype, save_safetensors};
use lumina_mgpt::{ModelConfig, Preset, Transformer};
use lumina_nn::Compute;
use lumina_tokenizer::TextTokenizer;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::checkpoint::{self, TOKENIZER_FILES, copy_if_present, write_json};

/// The shape of a new model. The default, and all that is not in it, is that of Lumina-mGPT 7B.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct NewModel {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// The longest context in tokens.
    pub max_position_embeddings: usize,
    /// Whether outputs of attention and MLP are normalised, as in 34B.
    pub swin_norm: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// The initial weights follow from it.
    pub seed: u64,
    /// How the model is to be used, for its `generation_config.json`: sampling, sizes, tasks and words.
    #[serde(skip)]
    pub preset: Preset,
}

/// `generation_config.json`.
#[derive(Serialize)]
struct GenerationConfig<'a> {
    _from_model_config: bool,
    bos_token_id: u32,
    eos_token_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lumina: Option<&'a Preset>,
}

impl Default for NewModel {
    fn default() -> Self {
        Self {
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            max_position_embeddings: 10_240,
            swin_norm: false,
            initializer_range: 0.02,
            seed: 0,
            preset: Preset::default(),
        }
    }
}

impl NewModel {
    /// Writes a Hugging Face folder with random weights in `f32` and the tokenizer of the folder `tokenizer`.
    ///
    /// Matrices are normal with a standard deviation of `initializer_range`, norms 1, biases 0, as in
    /// `ChameleonPreTrainedModel._init_weights`. The folder is made under a temporary name and then renamed.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer), [`Error::Model`](crate::Error::Model) where no model has this
    /// shape, [`Error::Write`](crate::Error::Write), also where the folder exists already.
    pub fn create(&self, tokenizer: &Path, folder: &Path, compute: &Compute) -> Result<()> {
        let text = TextTokenizer::open(tokenizer)?;
        checkpoint::create(folder, |partial| {
            let config = self.config(&text)?;
            let file = partial.join("config.json");
            write_json(&file, &config)?;
            for name in TOKENIZER_FILES {
                copy_if_present(&tokenizer.join(name), &partial.join(name))?;
            }
            let lumina = (self.preset != Preset::default()).then_some(&self.preset);
            let generation = GenerationConfig { _from_model_config: true, bos_token_id: 0, eos_token_id: 2, lumina };
            write_json(&partial.join("generation_config.json"), &generation)?;
            let architecture = ModelConfig::open(&file)?.resolve(&file)?;
            let tensors = Transformer::tensor_shapes(&architecture, compute);
            let tensors = tensors.iter().enumerate().map(|(stream, (name, shape))| {
                let values = move || Ok(self.values(name, shape.iter().product(), stream as u64));
                (name, Dtype::F32, shape, values)
            });
            save_safetensors(partial.join("model.safetensors"), tensors)?;
            Ok(())
        })
    }

    /// `config.json` for a vocabulary.
    fn config(&self, text: &TextTokenizer) -> Result<Value> {
        // The embedding has a row for each token up to the last one of the vocabulary. The placeholder has none.
        let vocab_size = text.vocabulary()?.max_id() as usize + 1;
        let vocab_size = vocab_size.max(text.n_tokens());
        let names = (0..vocab_size as u32).filter_map(|id| Some((text.name_of(id)?, Value::from(id))));
        let mut config = match serde_json::to_value(self) {
            Ok(Value::Object(config)) => config,
            _ => Map::new(),
        };
        config.remove("seed");
        let fixed = json!({
            "architectures": ["ChameleonForConditionalGeneration"],
            "model_type": "chameleon",
            "vocab_size": vocab_size,
            "vocabulary_map": names.collect::<Map<_, _>>(),
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": false,
            "model_parallel_size": 1,
            "mask_image_logits": false,
            "bos_token_id": text.vocabulary()?.bos(),
            "torch_dtype": "float32",
        });
        if let Value::Object(fixed) = fixed {
            config.extend(fixed);
        }
        Ok(Value::Object(config))
    }

    /// The initial values of a tensor, `f32`.
    fn values(&self, name: &str, count: usize, stream: u64) -> Bytes {
        let is_matrix = !name.contains("norm") && !name.ends_with("bias");
        let constant = if name.ends_with("bias") { 0.0 } else { 1.0 };
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        random.set_stream(stream);
        let mut normal = move || self.initializer_range as f32 * standard_normal(&mut random);
        let values = (0..count).map(|_| if is_matrix { normal() } else { constant });
        values.flat_map(f32::to_le_bytes).collect()
    }
}

/// A random number of the standard normal distribution, by Box and Muller.
fn standard_normal(random: &mut impl Rng) -> f32 {
    // In (0, 1], so that the logarithm is finite.
    let mut uniform = || (f64::from(random.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
    let radius = (-2.0 * uniform().ln()).sqrt();
    (radius * (std::f64::consts::TAU * uniform()).cos()) as f32
}
