//! The metadata that is written with a model: its shape and vocabulary in llama.cpp's keys, and its files.

use std::path::{Path, PathBuf};

use lumina_checkpoint::gguf::Value;
use lumina_checkpoint::{Checkpoint, Dtype, Error, Result};
use serde::Deserialize;
use serde_json::Value as Json;

use super::config::{DOCUMENTS, document_key};
use super::row_order::{CHAMELEON, LUMINA, ROW_ORDER, RowOrder};
use super::vocabulary;

/// The version of the block formats. llama.cpp needs it for quantised tensors.
const QUANTISATION_VERSION: u32 = 2;

/// The settings of a `config.json` that have a key in the metadata. Defaults are those of `ChameleonConfig`, because
/// Hugging Face omits settings that equal them. The metadata also contains the whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    vocab_size: u32,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    max_position_embeddings: u32,
    rms_norm_eps: f32,
    rope_theta: f32,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    swin_norm: bool,
    bos_token_id: Option<Json>,
    eos_token_id: Option<Json>,
    pad_token_id: Option<Json>,
}

#[derive(Debug, Clone, Deserialize)]
struct Rope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f32>,
    rope_theta: Option<f32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 65_536,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rope_parameters: None,
            swin_norm: false,
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
        }
    }
}

impl Config {
    /// The config of a checkpoint, and the file with it.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<(Self, PathBuf)> {
        const NAME: &str = "config.json";
        let folder = checkpoint.path();
        let file = if folder.is_dir() { folder.join(NAME) } else { folder.to_owned() };
        let Some(text) = checkpoint.document(NAME)? else {
            return Err(Error::NoCheckpoint { folder: folder.to_owned(), looked_for: format!("`{NAME}`") });
        };
        let config: Self = serde_json::from_slice(&text).map_err(|source| Error::Json {
            file: file.clone(),
            problem: "`config.json` does not hold",
            source,
        })?;
        for (key, value) in [
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.heads(false)),
            ("hidden_size", config.hidden_size),
        ] {
            if value == 0 {
                return Err(wrong(&file, key, "it is 0"));
            }
        }
        Ok((config, file))
    }

    /// Number of heads of queries or keys.
    pub(super) fn heads(&self, query: bool) -> u32 {
        if query { self.num_attention_heads } else { self.num_key_value_heads.unwrap_or(self.num_attention_heads) }
    }
}

/// The metadata of a file made from `checkpoint`, whose linear layers are in `linear`.
pub(super) fn metadata(
    checkpoint: &Checkpoint,
    config: &Config,
    file: &Path,
    linear: Dtype,
    order: RowOrder,
) -> Result<Vec<(String, Value)>> {
    let architecture = match order {
        RowOrder::HuggingFace => LUMINA,
        RowOrder::LlamaCpp => CHAMELEON,
    };
    let mut entries = vec![
        ("general.architecture".to_owned(), architecture.into()),
        ("general.quantization_version".to_owned(), Value::U32(QUANTISATION_VERSION)),
        (ROW_ORDER.to_owned(), order.name().into()),
    ];
    if let Some(number) = file_type(linear) {
        entries.push(("general.file_type".to_owned(), Value::U32(number)));
    }
    if let Some(name) = checkpoint.path().file_stem().and_then(|name| name.to_str()) {
        entries.push(("general.name".to_owned(), name.into()));
    }
    let mut set = |name: &str, value: Value| entries.push((format!("{architecture}.{name}"), value));
    set("vocab_size", Value::U32(config.vocab_size));
    set("context_length", Value::U32(config.max_position_embeddings));
    set("embedding_length", Value::U32(config.hidden_size));
    set("block_count", Value::U32(config.num_hidden_layers));
    set("feed_forward_length", Value::U32(config.intermediate_size));
    set("attention.head_count", Value::U32(config.heads(true)));
    set("attention.head_count_kv", Value::U32(config.heads(false)));
    set("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps));
    set("rope.dimension_count", Value::U32(config.hidden_size / config.heads(true)));
    let newer = config.rope_parameters.as_ref();
    set("rope.freq_base", Value::F32(newer.and_then(|rope| rope.rope_theta).unwrap_or(config.rope_theta)));
    set("swin_norm", Value::Bool(config.swin_norm));
    if let Some(rope) = config.rope_scaling.as_ref().or(newer) {
        let kind = rope.rope_type.as_deref().or(rope.older_type.as_deref()).unwrap_or("default");
        match (kind, rope.factor) {
            ("default", _) => {}
            ("linear", Some(factor)) => {
                set("rope.scaling.type", kind.into());
                set("rope.scaling.factor", Value::F32(factor));
            }
            _ if order == RowOrder::HuggingFace => {}
            _ => return Err(wrong(file, "rope_scaling", &format!("llama.cpp has none of the type `{kind}`"))),
        }
    }
    for name in DOCUMENTS {
        let Some(bytes) = checkpoint.document(name)? else { continue };
        let text = std::str::from_utf8(&bytes).map_err(|error| Error::Damaged {
            file: checkpoint.path().to_owned(),
            reason: format!("`{name}` is not UTF-8 ({error})"),
        })?;
        // Only llama.cpp needs the vocabulary in keys, with as many tokens as the embedding has rows.
        if name == "tokenizer.json" && order == RowOrder::LlamaCpp {
            let embedding = checkpoint.get("model.embed_tokens.weight");
            let rows = embedding.and_then(|view| view.shape().first().copied()).unwrap_or_default();
            if rows != config.vocab_size as usize {
                return Err(wrong(file, "vocab_size", &format!("{} tokens for {rows} embeddings", config.vocab_size)));
            }
            let list = vocabulary::read(text, config.vocab_size).map_err(|reason| wrong(file, name, &reason))?;
            entries.extend(list.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        entries.push((document_key(name), text.into()));
    }
    if order == RowOrder::LlamaCpp {
        if !entries.iter().any(|(key, _)| key == vocabulary::MODEL) {
            entries.push((vocabulary::MODEL.to_owned(), "none".into()));
        }
        for (name, id) in
            [("bos", &config.bos_token_id), ("eos", &config.eos_token_id), ("padding", &config.pad_token_id)]
        {
            // A model can have several tokens that end a text. llama.cpp takes one.
            let first = id.as_ref().and_then(|id| id.as_array().map_or(Some(id), |ids| ids.first()));
            let id = first.and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
            if let Some(id) = id.filter(|&id| id < config.vocab_size) {
                entries.push((format!("tokenizer.ggml.{name}_token_id"), Value::U32(id)));
            }
        }
    }
    Ok(entries)
}

/// llama.cpp's number for a file whose tensors are mostly of one type.
fn file_type(linear: Dtype) -> Option<u32> {
    Some(match linear {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::Q8_0 => 7,
        Dtype::BF16 => 32,
        _ => return None,
    })
}

fn wrong(file: &Path, key: &str, reason: &str) -> Error {
    Error::Metadata { file: file.to_owned(), key: key.to_owned(), reason: reason.to_owned() }
}
