//! The metadata that is written with a model: its shape and vocabulary in llama.cpp's keys, and its files.

use std::path::PathBuf;

use lumina_checkpoint::gguf::Value;
use lumina_checkpoint::{Checkpoint, Dtype, Error, Result};
use serde::Deserialize;
use serde_json::Value as Json;

use super::config::{DOCUMENTS, document_key};
use super::row_order::{CHAMELEON, LUMINA, ROW_ORDER, RowOrder};
use super::vocabulary;
use crate::model::config::{ModelConfig, RopeScaling};

/// The version of the block formats. llama.cpp needs it for quantised tensors.
const QUANTISATION_VERSION: u32 = 2;

/// The `config.json` of a checkpoint.
#[derive(Debug)]
pub(super) struct Config {
    model: ModelConfig,
    tokens: TokenIds,
    /// What errors call it.
    file: PathBuf,
}

/// Tokens with a role in every text.
#[derive(Debug, Deserialize)]
struct TokenIds {
    bos_token_id: Option<Json>,
    eos_token_id: Option<Json>,
    pad_token_id: Option<Json>,
}

impl Config {
    /// The config of a checkpoint.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        const NAME: &str = "config.json";
        let folder = checkpoint.path();
        let file = if folder.is_dir() { folder.join(NAME) } else { folder.to_owned() };
        let Some(text) = checkpoint.document(NAME)? else {
            return Err(Error::NoCheckpoint { folder: folder.to_owned(), looked_for: format!("`{NAME}`") });
        };
        lumina_core::file::check_json(&file, &text)?;
        let tokens = serde_json::from_slice(&text).map_err(|source| Error::Json {
            file: file.clone(),
            problem: "`config.json` is not JSON of the expected form",
            source,
        })?;
        let model = ModelConfig::from_json(&text, &file).map_err(|error| Error::Damaged {
            file: file.clone(),
            reason: format!("`{NAME}` does not hold: {error}"),
        })?;
        let config = Self { model, tokens, file };
        for (key, value) in [
            ("num_attention_heads", config.heads(true)),
            ("num_key_value_heads", config.heads(false)),
            ("hidden_size", config.model.hidden_size),
        ] {
            if value == 0 {
                return Err(config.wrong(key, "it is 0"));
            }
        }
        Ok(config)
    }

    /// Number of heads of queries or keys.
    pub(super) fn heads(&self, query: bool) -> usize {
        let heads = self.model.num_attention_heads;
        if query { heads } else { self.model.num_key_value_heads.unwrap_or(heads) }
    }

    fn wrong(&self, key: &str, reason: &str) -> Error {
        Error::Metadata { file: self.file.clone(), key: key.to_owned(), reason: reason.to_owned() }
    }
}

/// The metadata of a file made from `checkpoint`, whose linear layers are in `linear`.
pub(super) fn metadata(
    checkpoint: &Checkpoint,
    config: &Config,
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
    let model = &config.model;
    let (theta, scaling) = model.rope().map_err(|reason| config.wrong("rope_scaling", &reason))?;
    let mut set = |name: &str, value: Value| entries.push((format!("{architecture}.{name}"), value));
    for (name, key, value) in [
        ("vocab_size", "vocab_size", model.vocab_size),
        ("context_length", "max_position_embeddings", model.max_position_embeddings),
        ("embedding_length", "hidden_size", model.hidden_size),
        ("block_count", "num_hidden_layers", model.num_hidden_layers),
        ("feed_forward_length", "intermediate_size", model.intermediate_size),
        ("attention.head_count", "num_attention_heads", config.heads(true)),
        ("attention.head_count_kv", "num_key_value_heads", config.heads(false)),
        ("rope.dimension_count", "hidden_size", model.hidden_size / config.heads(true)),
    ] {
        let value = u32::try_from(value).map_err(|_| config.wrong(key, &format!("{value} is too large for GGUF")))?;
        set(name, Value::U32(value));
    }
    set("attention.layer_norm_rms_epsilon", Value::F32(model.rms_norm_eps as f32));
    set("rope.freq_base", Value::F32(theta as f32));
    set("swin_norm", Value::Bool(model.swin_norm));
    match scaling {
        RopeScaling::None => {}
        RopeScaling::Linear(factor) => {
            set("rope.scaling.type", "linear".into());
            set("rope.scaling.factor", Value::F32(factor as f32));
        }
        // In our own files `config.json` says it.
        RopeScaling::Dynamic(_) if order == RowOrder::HuggingFace => {}
        RopeScaling::Dynamic(_) => {
            return Err(config.wrong("rope_scaling", "llama.cpp has none of the type `dynamic`"));
        }
    }
    for name in DOCUMENTS {
        let Some(bytes) = checkpoint.document(name)? else { continue };
        lumina_core::file::check_json(&checkpoint.path().join(name), &bytes)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| Error::Damaged {
            file: checkpoint.path().to_owned(),
            reason: format!("`{name}` is not UTF-8 ({error})"),
        })?;
        // Only llama.cpp needs the vocabulary in keys, with as many tokens as the embedding has rows.
        if name == "tokenizer.json" && order == RowOrder::LlamaCpp {
            let embedding = checkpoint.get("model.embed_tokens.weight");
            let rows = embedding.and_then(|view| view.shape().first().copied()).unwrap_or_default();
            if rows != model.vocab_size {
                return Err(config.wrong("vocab_size", &format!("{} tokens for {rows} embeddings", model.vocab_size)));
            }
            let list = vocabulary::read(text, rows).map_err(|reason| config.wrong(name, &reason))?;
            entries.extend(list.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        entries.push((document_key(name), text.into()));
    }
    if order == RowOrder::LlamaCpp {
        if !entries.iter().any(|(key, _)| key == vocabulary::MODEL) {
            entries.push((vocabulary::MODEL.to_owned(), "none".into()));
        }
        let TokenIds { bos_token_id, eos_token_id, pad_token_id } = &config.tokens;
        for (name, id) in [("bos", bos_token_id), ("eos", eos_token_id), ("padding", pad_token_id)] {
            // A model can have several tokens that end a text. llama.cpp takes one.
            let first = id.as_ref().and_then(|id| id.as_array().map_or(Some(id), |ids| ids.first()));
            let id = first.and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
            if let Some(id) = id.filter(|&id| (id as usize) < model.vocab_size) {
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
