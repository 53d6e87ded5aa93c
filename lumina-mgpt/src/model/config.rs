//! The shape of the transformer: what `config.json` says, and what the network uses.

use std::collections::HashMap;
use std::path::Path;

use lumina_checkpoint::Checkpoint;
use lumina_core::{file, quoted};
use serde::Deserialize;
use serde_json::Value;

use crate::document::document;
use crate::{Error, Result};

/// What `config.json` of a Lumina-mGPT or Chameleon folder says.
///
/// Keys that do not change the result are tolerated; defaults are those of `ChameleonConfig`. A `null` stands for the
/// default, as newer versions of transformers write it.
#[derive(Clone, Deserialize)]
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
    /// Base of the rotary angles, where neither `rope_scaling` nor `rope_parameters` has one.
    pub rope_theta: f64,
    /// How rotary positions are stretched.
    pub rope_scaling: Option<RopeScalingConfig>,
    /// The form in which newer exports hold `rope_theta` and `rope_scaling`. They also read `rope_scaling` in this
    /// form, and prefer it.
    pub rope_parameters: Option<RopeScalingConfig>,
    /// Share of a head's channels that are rotated; only 1 is supported.
    pub partial_rotary_factor: Option<f64>,
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
    pub vq_config: Value,
}

/// `rope_scaling` or `rope_parameters` of a `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
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
    /// Share of a head's channels that are rotated, where newer exports put it; only 1 is supported.
    pub partial_rotary_factor: Option<f64>,
    /// The context before it was stretched; only the model's own is supported.
    pub original_max_position_embeddings: Option<usize>,
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
            partial_rotary_factor: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            swin_norm: false,
            model_parallel_size: 1,
            mask_image_logits: false,
            vocabulary_map: None,
            vq_config: Value::Null,
        }
    }
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Config`].
    pub fn open(path: &Path) -> Result<Self> {
        let json = file::read_document(path)?;
        Self::from_json(&json, path)
    }

    /// The config of a `config.json` in memory; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn from_json(json: &[u8], file: &Path) -> Result<Self> {
        let refuse = |reason| Error::Config { file: file.to_owned(), reason };
        file::check_json(file, json)?;
        let mut value: Value = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        // All keys have defaults, so a list would be taken for a config without any.
        if !value.is_object() {
            return Err(refuse(format!(
                "it is {}, not an object with the model's settings",
                quoted(&value.to_string())
            )));
        }
        remove_nulls(&mut value);
        serde_path_to_error::deserialize(value)
            .map_err(|error| refuse(format!("`{}`: {}", error.path(), error.inner())))
    }

    /// The config in a checkpoint, and the shape that follows from it.
    ///
    /// # Errors
    /// [`Error::Read`] where there is none, [`Error::Config`], and [`Error::Checkpoint`] where it cannot be read.
    pub(crate) fn of_checkpoint(checkpoint: &Checkpoint) -> Result<(Self, Architecture)> {
        let (json, file) = document(checkpoint, "config.json")?;
        let config = Self::from_json(&json, &file)?;
        let architecture = config.resolve(&file)?;
        Ok((config, architecture))
    }

    /// The base of the rotary angles, and how positions are stretched. Versions of transformers keep both in three
    /// places; where several say something, the newest version's choice is taken.
    ///
    /// # Errors
    /// What is not supported, as a sentence.
    pub(crate) fn rope(&self) -> std::result::Result<(f64, RopeScaling), String> {
        // An empty object is none, as in Python.
        let empty = RopeScalingConfig::default();
        let stated =
            || [&self.rope_scaling, &self.rope_parameters].into_iter().flatten().filter(|rope| **rope != empty);
        let theta = stated().find_map(|rope| rope.rope_theta).unwrap_or(self.rope_theta);
        let partial = stated().find_map(|rope| rope.partial_rotary_factor).or(self.partial_rotary_factor);
        if let Some(partial) = partial.filter(|partial| *partial != 1.0) {
            return Err(format!("`partial_rotary_factor` {partial} is not supported, only 1"));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(theta) {
            return Err(format!("`rope_theta` is {theta}, expected a positive number"));
        }
        let Some(scaling) = stated().next() else { return Ok((theta, RopeScaling::None)) };
        let kind = scaling.rope_type.as_deref().or(scaling.older_type.as_deref());
        let scaling = match (kind, scaling.factor) {
            (None, None) | (Some("default"), _) => RopeScaling::None,
            (Some("linear"), Some(factor)) if positive(factor) => RopeScaling::Linear(factor),
            (Some("dynamic"), Some(factor)) if factor.is_finite() && factor >= 1.0 => {
                let original = scaling.original_max_position_embeddings.unwrap_or(self.max_position_embeddings);
                if original != self.max_position_embeddings {
                    let own = self.max_position_embeddings;
                    return Err(format!(
                        "`original_max_position_embeddings` {original} is not supported with `dynamic` `rope_scaling`, \
                         only `max_position_embeddings` {own}"
                    ));
                }
                RopeScaling::Dynamic(factor)
            }
            (kind, factor) => {
                let kind = kind.map_or_else(|| "without a type".to_owned(), |kind| format!("of the type `{kind}`"));
                let factor = factor.map_or_else(|| "no factor".to_owned(), |factor| format!("factor {factor}"));
                return Err(format!(
                    "`rope_scaling` {kind} with {factor} is not supported; `linear` with a positive factor and `dynamic` \
                     with one from 1 on are"
                ));
            }
        };
        Ok((theta, scaling))
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
        const MOST_LAYERS: usize = 1 << 12;
        for (name, value) in sizes {
            let largest = if name == "num_hidden_layers" { MOST_LAYERS } else { LARGEST };
            if value == 0 || value > largest {
                return refuse(format!("`{name}` is {value}, expected 1 to {largest}"));
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
        if !self.rms_norm_eps.is_finite() || self.rms_norm_eps <= 0.0 {
            return refuse(format!("`rms_norm_eps` is {}, expected a positive number", self.rms_norm_eps));
        }
        let (theta, scaling) = self.rope().map_err(|reason| Error::Config { file: file.to_owned(), reason })?;
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

/// Removes the keys without a value from an object and the objects in it.
fn remove_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(remove_nulls);
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
#[derive(Clone, PartialEq)]
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

impl std::fmt::Debug for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Architecture")
            .field("vocab_size", &self.vocab_size)
            .field("hidden", &self.hidden)
            .field("intermediate", &self.intermediate)
            .field("layers", &self.layers)
            .field("heads", &self.heads)
            .field("kv_heads", &self.kv_heads)
            .field("head_dim", &self.head_dim)
            .field("max_positions", &self.max_positions)
            .field("rope_theta", &self.rope_theta)
            .field("rope_scaling", &self.rope_scaling)
            .field("swin_norm", &self.swin_norm)
            .field("qk_norm_parts", &self.qk_norm_parts)
            .field("masked_logits", &self.masked_logits.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelConfig")
            .field("vocab_size", &self.vocab_size)
            .field("hidden_size", &self.hidden_size)
            .field("intermediate_size", &self.intermediate_size)
            .field("num_hidden_layers", &self.num_hidden_layers)
            .field("num_attention_heads", &self.num_attention_heads)
            .field("max_position_embeddings", &self.max_position_embeddings)
            .field("rope_theta", &self.rope_theta)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rope(config: Value) -> std::result::Result<(f64, RopeScaling), String> {
        ModelConfig::from_json(config.to_string().as_bytes(), "config.json".as_ref()).unwrap().rope()
    }

    /// What transformers 5.24 makes of each.
    #[test]
    fn the_rotary_base_is_read_where_any_version_of_transformers_writes_it() {
        let linear = RopeScaling::Linear(2.0);
        for (config, expected) in [
            (json!({}), (10_000.0, RopeScaling::None)),
            (json!({"rope_theta": 5000.0}), (5000.0, RopeScaling::None)),
            (json!({"rope_scaling": {"rope_theta": 5000.0, "rope_type": "default"}}), (5000.0, RopeScaling::None)),
            (
                json!({"rope_theta": 10_000.0, "rope_scaling": {"rope_theta": 5000.0, "rope_type": "default"}}),
                (5000.0, RopeScaling::None),
            ),
            (json!({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 5000.0}}), (5000.0, RopeScaling::None)),
            (json!({"rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 5000.0}}), (5000.0, linear)),
            (
                json!({"rope_scaling": {"rope_type": "dynamic", "factor": 3, "rope_theta": 5000}}),
                (5000.0, RopeScaling::Dynamic(3.0)),
            ),
            (
                json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}}),
                (9.0, linear),
            ),
            (json!({"rope_scaling": {"type": "default", "factor": 1.0}}), (10_000.0, RopeScaling::None)),
            (
                json!({"rope_scaling": {"type": null, "factor": null}, "rope_theta": null}),
                (10_000.0, RopeScaling::None),
            ),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2, "original_max_position_embeddings": 4096}}),
                (10_000.0, RopeScaling::Dynamic(2.0)),
            ),
            (json!({"partial_rotary_factor": 1.0}), (10_000.0, RopeScaling::None)),
        ] {
            assert_eq!(rope(config.clone()).as_ref(), Ok(&expected), "{config}");
        }
        for (config, says) in [
            (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` 0.5"),
            (json!({"rope_parameters": {"partial_rotary_factor": 0.25}}), "`partial_rotary_factor` 0.25"),
            (json!({"rope_scaling": {"rope_theta": -1}}), "`rope_theta` is -1"),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2, "original_max_position_embeddings": 1024}}),
                "`original_max_position_embeddings` 1024",
            ),
            (json!({"rope_scaling": {"type": "yarn", "factor": 2.5}}), "of the type `yarn` with factor 2.5 is not"),
            (json!({"rope_scaling": {"factor": 2.5}}), "without a type with factor 2.5"),
        ] {
            let message = rope(config.clone()).unwrap_err();
            assert!(message.contains(says), "{config}: {message}");
        }
    }

    #[test]
    fn a_null_is_the_default() {
        let nulls = json!({"attention_bias": null, "swin_norm": null, "model_parallel_size": null, "vocab_size": null});
        let config = ModelConfig::from_json(nulls.to_string().as_bytes(), "config.json".as_ref()).unwrap();
        assert_eq!(config.resolve("".as_ref()).unwrap(), ModelConfig::default().resolve("".as_ref()).unwrap());
    }

    #[test]
    fn a_config_is_an_object() {
        for json in ["[]", "[1]", "null", "7"] {
            let error = ModelConfig::from_json(json.as_bytes(), "config.json".as_ref()).unwrap_err().to_string();
            assert!(error.contains(json) && error.contains("not an object"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        for (config, says) in [
            (json!({"rope_scaling": {"factor": "two"}}), "config.json: `rope_scaling.factor`: invalid type: string"),
            (json!({"hidden_size": -1}), "config.json: `hidden_size`: invalid value: integer `-1`"),
        ] {
            let error = ModelConfig::from_json(config.to_string().as_bytes(), "config.json".as_ref()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
