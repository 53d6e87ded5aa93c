//! The shape of the transformer: what `config.json` says, and what the network uses.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result};

/// What `config.json` of a Lumina-mGPT or Chameleon folder says.
///
/// Keys that do not change the result are tolerated; defaults are those of `ChameleonConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// `chameleon`.
    pub model_type: String,
    /// Rows of the embedding and the head.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; absent means as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; absent means `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Activation of the MLP; only `silu` is supported.
    pub hidden_act: String,
    /// Longest context that the model was trained for, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// How rotary positions are stretched.
    pub rope_scaling: Option<RopeScalingConfig>,
    /// The form in which newer exports hold `rope_theta` and `rope_scaling`.
    pub rope_parameters: Option<RopeScalingConfig>,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether the MLP projections have biases.
    pub mlp_bias: bool,
    /// Whether the head shares the embedding's weight.
    pub tie_word_embeddings: bool,
    /// Whether norms act on the outputs of attention and MLP (34B).
    pub swin_norm: bool,
    /// Number of parts that the QK-norm was trained in.
    pub model_parallel_size: usize,
    /// Whether image tokens are suppressed in the logits.
    pub mask_image_logits: bool,
    /// Token names and ids; says which tokens `mask_image_logits` suppresses.
    pub vocabulary_map: Option<HashMap<String, u32>>,
    /// The image tokenizer's shape.
    pub vq_config: serde_json::Value,
}

/// `rope_scaling` of a `config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct RopeScalingConfig {
    /// `linear`, `dynamic` or `default`.
    pub rope_type: Option<String>,
    /// The same under its older name; files may have both.
    #[serde(rename = "type")]
    pub older_type: Option<String>,
    /// How much further positions reach.
    pub factor: Option<f64>,
    /// The base, where newer exports put it.
    pub rope_theta: Option<f64>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            model_type: "chameleon".to_owned(),
            vocab_size: 65_536,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".to_owned(),
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rope_parameters: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            swin_norm: false,
            model_parallel_size: 1,
            mask_image_logits: false,
            vocabulary_map: None,
            vq_config: serde_json::Value::Null,
        }
    }
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Config`].
    pub fn open(file: &Path) -> Result<Self> {
        let json = std::fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        Self::from_json(&json, file)
    }

    /// The config of a `config.json` in memory; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn from_json(json: &[u8], file: &Path) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| Error::Config { file: file.to_owned(), reason: error.to_string() })
    }

    /// The checked shape; `file` is for messages.
    ///
    /// # Errors
    /// [`Error::Config`] where a value is out of range, does not fit the others, or is not supported.
    pub fn resolve(&self, file: &Path) -> Result<Architecture> {
        let refuse = |reason: String| Err(Error::Config { file: file.to_owned(), reason });
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads.unwrap_or(self.num_attention_heads)),
            ("max_position_embeddings", self.max_position_embeddings),
            ("model_parallel_size", self.model_parallel_size),
        ];
        // Large enough for any real model, small enough that no product of two overflows.
        const LARGEST: usize = 1 << 24;
        for (name, value) in sizes {
            if value == 0 || value > LARGEST {
                return refuse(format!("`{name}` is {value}, expected 1 to {LARGEST}"));
            }
        }
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let divides = [
            ("hidden_size", self.hidden_size, "num_attention_heads", heads),
            ("num_attention_heads", heads, "num_key_value_heads", kv_heads),
            ("num_attention_heads", heads, "model_parallel_size", self.model_parallel_size),
        ];
        for (whole_name, whole, part_name, part) in divides {
            if !whole.is_multiple_of(part) {
                return refuse(format!("`{whole_name}` {whole} is no multiple of `{part_name}` {part}"));
            }
        }
        let head_dim = self.hidden_size / heads;
        if !head_dim.is_multiple_of(2) {
            return refuse(format!("`hidden_size` / `num_attention_heads` is {head_dim}, expected an even head width"));
        }
        if self.head_dim.is_some_and(|given| given != head_dim) {
            return refuse(format!(
                "`head_dim` other than `hidden_size` / `num_attention_heads` = {head_dim} is not supported"
            ));
        }
        if self.model_type != "chameleon" {
            return refuse(format!("`model_type` is `{}`, expected `chameleon`", self.model_type));
        }
        if self.hidden_act != "silu" {
            return refuse(format!("`hidden_act` `{}` is not supported, only `silu`", self.hidden_act));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let newer_theta = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        let theta = newer_theta.unwrap_or(self.rope_theta);
        if !positive(self.rms_norm_eps) || !positive(theta) {
            return refuse("`rms_norm_eps` and `rope_theta` must be positive".to_owned());
        }
        let scaling = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let factor = scaling.and_then(|rope| rope.factor);
        let kind = scaling.and_then(|rope| rope.rope_type.as_deref().or(rope.older_type.as_deref()));
        let scaling = match (kind, factor) {
            (None | Some("default"), None) => RopeScaling::None,
            (Some("linear"), Some(factor)) if positive(factor) => RopeScaling::Linear(factor),
            (Some("dynamic"), Some(factor)) if factor.is_finite() && factor >= 1.0 => RopeScaling::Dynamic(factor),
            (kind, factor) => {
                let kind = kind.unwrap_or("none");
                return refuse(format!(
                    "`rope_scaling` `{kind}` with factor {factor:?} is not supported; linear and dynamic with a factor are"
                ));
            }
        };
        let mut masked: Vec<u32> = Vec::new();
        if self.mask_image_logits {
            let images = self.vocabulary_map.iter().flatten().filter(|(name, _)| name.starts_with("IMGIMG"));
            masked = images.map(|(_, &id)| id).collect();
            masked.sort_unstable();
            if masked.is_empty() {
                return refuse("`mask_image_logits` needs the image tokens in `vocabulary_map`".to_owned());
            }
            if let Some(id) = masked.last().filter(|&&id| id as usize >= self.vocab_size) {
                return refuse(format!("`vocabulary_map` has id {id}, beyond `vocab_size` {}", self.vocab_size));
            }
        }
        Ok(Architecture {
            vocab_size: self.vocab_size,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            max_positions: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: theta,
            rope_scaling: scaling,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            tied_head: self.tie_word_embeddings,
            swin_norm: self.swin_norm,
            qk_norm_parts: self.model_parallel_size,
            masked_logits: masked,
        })
    }
}

/// How rotary positions are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// Positions are divided by the factor.
    Linear(f64),
    /// Beyond the trained context the base grows with the length.
    Dynamic(f64),
}

/// The checked shape of a transformer, made by [`ModelConfig::resolve`].
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    pub(crate) vocab_size: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    pub(crate) rope_scaling: RopeScaling,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) tied_head: bool,
    pub(crate) swin_norm: bool,
    pub(crate) qk_norm_parts: usize,
    pub(crate) masked_logits: Vec<u32>,
}

impl Architecture {
    /// Rows of the embedding and the head.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers
    }
    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.hidden
    }
    /// Longest context, in tokens: what generation stops at.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }
    /// Bytes of keys and values that one token takes in all layers, at `bytes_per_value` bytes a value.
    pub fn cache_bytes_per_token(&self, bytes_per_value: usize) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value
    }
}
