//! The files of a model's folder in the metadata of a GGUF file.

use bytes::Bytes;
use lumina_checkpoint::Result;
use lumina_checkpoint::gguf::{Metadata, Value};
use serde_json::{Map, Value as Json, json};

use super::row_order::is_chameleon;
use super::vocabulary::MAX_TOKENS;

/// The files of a model's folder that our GGUF files contain.
pub(super) const DOCUMENTS: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];

/// The key of such a file.
pub(super) fn document_key(name: &str) -> String {
    format!("lumina.{}", name.replace('.', "_"))
}

/// Properties of a model that follow from the names of its tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensors {
    /// Whether the projections of attention have biases.
    pub(super) attention_bias: bool,
    /// Whether the head has a weight of its own.
    pub(super) own_head: bool,
}

/// A file of the model's folder. The metadata of our own files contains it. For other files of the Chameleon
/// architecture, `config.json` is made from the metadata.
///
/// # Errors
/// [`Error::Metadata`](lumina_checkpoint::Error::Metadata) where a value that the config needs is missing or of another
/// type.
pub(super) fn document(metadata: &Metadata, tensors: Tensors, name: &str) -> Result<Option<Bytes>> {
    let key = document_key(name);
    match metadata.get(&key) {
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes().into())),
        Some(_) => Err(metadata.wrong(&key, "it is no text".to_owned())),
        None if name == "config.json" && is_chameleon(metadata) => {
            Ok(Some(config(metadata, tensors)?.to_string().into()))
        }
        None => Ok(None),
    }
}

/// The key `name` of the architecture.
fn key(metadata: &Metadata, name: &str) -> String {
    format!("{}.{name}", metadata.architecture())
}

/// Makes a `config.json` from the metadata of another program's file.
fn config(metadata: &Metadata, tensors: Tensors) -> Result<Json> {
    let key = |name: &str| key(metadata, name);
    let required = |name: &str| metadata.u64(&key(name))?.ok_or_else(|| metadata.missing(&key(name)));
    let tokens = metadata.get("tokenizer.ggml.tokens").and_then(Value::as_strings);
    let vocab_size = match (metadata.u64(&key("vocab_size"))?, tokens) {
        (Some(size), _) => size,
        (None, Some(tokens)) => tokens.len() as u64,
        (None, None) => return Err(metadata.missing(&key("vocab_size"))),
    };
    let (query_heads, _) = heads(metadata, true)?;
    let (kv_heads, _) = heads(metadata, false)?;
    let mut config = json!({
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        "vocab_size": vocab_size,
        "hidden_size": required("embedding_length")?,
        "intermediate_size": required("feed_forward_length")?,
        "num_hidden_layers": required("block_count")?,
        "num_attention_heads": query_heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": required("context_length")?,
        "attention_bias": tensors.attention_bias,
        "tie_word_embeddings": !tensors.own_head,
    });
    let mut set = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            config[name] = value;
        }
    };
    set("rms_norm_eps", metadata.float(&key("attention.layer_norm_rms_epsilon"))?.map(Into::into));
    set("rope_theta", metadata.float(&key("rope.freq_base"))?.map(Into::into));
    set("swin_norm", metadata.get(&key("swin_norm")).and_then(Value::as_bool).map(Into::into));
    set("head_dim", metadata.u64(&key("attention.key_length"))?.map(Into::into));
    set("bos_token_id", metadata.u64("tokenizer.ggml.bos_token_id")?.map(Into::into));
    set("eos_token_id", metadata.u64("tokenizer.ggml.eos_token_id")?.map(Into::into));
    let scaling = metadata.get(&key("rope.scaling.type")).and_then(Value::as_str).filter(|kind| *kind != "none");
    if let Some(kind) = scaling {
        let factor = metadata.float(&key("rope.scaling.factor"))?;
        set("rope_scaling", Some(json!({"rope_type": kind, "factor": factor})));
    }
    // The first of equal names counts. The names of image tokens say which codes they stand for.
    if let Some(tokens) = tokens {
        if tokens.len() > MAX_TOKENS {
            let reason = format!("{} tokens, more than the {MAX_TOKENS} of any model", tokens.len());
            return Err(metadata.wrong("tokenizer.ggml.tokens", reason));
        }
        let mut vocabulary = Map::new();
        for (id, token) in tokens.iter().enumerate() {
            vocabulary.entry(token).or_insert(id.into());
        }
        set("vocabulary_map", Some(vocabulary.into()));
    }
    Ok(config)
}

/// The number of heads of queries or keys, at least 1, and the key with it.
pub(super) fn heads(metadata: &Metadata, query: bool) -> Result<(usize, String)> {
    let named = |name: &str| key(metadata, name);
    let key = named("attention.head_count");
    let kv_key = named("attention.head_count_kv");
    // Without the key there are as many as for queries.
    let key = if query || metadata.get(&kv_key).is_none() { key } else { kv_key };
    let value = metadata.u64(&key)?.ok_or_else(|| metadata.missing(&key))?;
    match usize::try_from(value) {
        Ok(heads) if heads > 0 => Ok((heads, key)),
        _ => Err(metadata.wrong(&key, format!("{value} heads are none to compute with"))),
    }
}
