//! What a GGUF file says beside its tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, json};

use super::value::{Array, Value};
use crate::{Error, Result};

/// The architecture of files in llama.cpp's order of rows.
pub(super) const CHAMELEON: &str = "chameleon";

/// The architecture of files in Hugging Face's order of rows. llama.cpp would compute nonsense with them, so they have
/// a name that it refuses.
pub(super) const LUMINA: &str = "lumina";

/// The key of our files that says in which order their rows are.
pub(super) const ROW_ORDER: &str = "lumina.row_order";

/// The files of a model's folder that ours carry along.
pub(super) const DOCUMENTS: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];

/// The key under which such a file is carried.
pub(super) fn document_key(name: &str) -> String {
    format!("lumina.{}", name.replace('.', "_"))
}

/// In which order the channels of queries and keys are within each head.
///
/// The two belong to two ways of writing rotary positions; see the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// Channel `i` turns with `i + width / 2`, as in the checkpoints and in this crate: rows are used where they lie.
    #[default]
    HuggingFace,
    /// Channel `2i` turns with `2i + 1`, as llama.cpp has it: queries and keys are put in order on the heap when read.
    LlamaCpp,
}

impl RowOrder {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "huggingface",
            Self::LlamaCpp => "llama.cpp",
        }
    }
}

/// The metadata of a GGUF file: values by key.
///
/// Got from [`Checkpoint::metadata`](crate::Checkpoint::metadata).
#[derive(Debug, Clone)]
pub struct Metadata {
    file: Arc<Path>,
    entries: BTreeMap<String, Value>,
    /// Whether the projections of attention have biases, and whether there is a head of its own: what tensors say.
    attention_bias: bool,
    own_head: bool,
}

impl Metadata {
    pub(super) fn new(file: &Path, entries: BTreeMap<String, Value>) -> Self {
        Self { file: file.into(), entries, attention_bias: false, own_head: true }
    }

    /// Notes what the names of the tensors, as the file has them, say of the model.
    pub(super) fn note_tensors(&mut self, has: impl Fn(&str) -> bool) {
        self.attention_bias = has("blk.0.attn_q.bias");
        self.own_head = has("output.weight");
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// `general.architecture`, or nothing where it is no text.
    pub fn architecture(&self) -> &str {
        self.get("general.architecture").and_then(Value::as_str).unwrap_or_default()
    }

    /// In which order queries and keys are in the file. [`Checkpoint`](crate::Checkpoint) gives them in
    /// Hugging Face's in any case.
    ///
    /// # Errors
    /// [`Error::Metadata`] where our own key has a value of another version.
    pub fn row_order(&self) -> Result<RowOrder> {
        match self.get(ROW_ORDER) {
            None if self.architecture() == CHAMELEON => Ok(RowOrder::LlamaCpp),
            None => Ok(RowOrder::HuggingFace),
            Some(value) => [RowOrder::HuggingFace, RowOrder::LlamaCpp]
                .into_iter()
                .find(|order| value.as_str() == Some(order.name()))
                .ok_or_else(|| self.wrong(ROW_ORDER, "it names no order of rows that is known".to_owned())),
        }
    }

    /// A file of the model's folder: carried in the metadata by our own files; for others of the Chameleon
    /// architecture, a `config.json` made from what their metadata says.
    ///
    /// # Errors
    /// [`Error::Metadata`] where a value that the config needs is missing or of another type.
    pub fn document(&self, name: &str) -> Result<Option<Bytes>> {
        let key = document_key(name);
        match self.get(&key) {
            Some(Value::String(text)) => Ok(Some(text.clone().into_bytes().into())),
            Some(_) => Err(self.wrong(&key, "it is no text".to_owned())),
            None if name == "config.json" && self.is_chameleon() => Ok(Some(self.config()?.to_string().into())),
            None => Ok(None),
        }
    }

    /// The `config.json` that the metadata of another program's file amounts to.
    fn config(&self) -> Result<serde_json::Value> {
        let tokens = self.get("tokenizer.ggml.tokens").and_then(Value::as_strings);
        let vocab_size = match (self.u64(&self.key("vocab_size"))?, tokens) {
            (Some(size), _) => size,
            (None, Some(tokens)) => tokens.len() as u64,
            (None, None) => return Err(self.missing(&self.key("vocab_size"))),
        };
        let (heads, _) = self.heads(true)?;
        let (kv_heads, _) = self.heads(false)?;
        let mut config = json!({
            "architectures": ["ChameleonForConditionalGeneration"],
            "model_type": "chameleon",
            "vocab_size": vocab_size,
            "hidden_size": self.required("embedding_length")?,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_hidden_layers": self.required("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": self.required("context_length")?,
            "attention_bias": self.attention_bias,
            "tie_word_embeddings": !self.own_head,
        });
        let mut set = |name: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                config[name] = value;
            }
        };
        set("rms_norm_eps", self.float("attention.layer_norm_rms_epsilon")?.map(Into::into));
        set("rope_theta", self.float("rope.freq_base")?.map(Into::into));
        set("swin_norm", self.get(&self.key("swin_norm")).and_then(Value::as_bool).map(Into::into));
        set("head_dim", self.u64(&self.key("attention.key_length"))?.map(Into::into));
        set("bos_token_id", self.u64("tokenizer.ggml.bos_token_id")?.map(Into::into));
        set("eos_token_id", self.u64("tokenizer.ggml.eos_token_id")?.map(Into::into));
        let scaling = self.get(&self.key("rope.scaling.type")).and_then(Value::as_str).filter(|kind| *kind != "none");
        if let Some(kind) = scaling {
            let factor = self.float("rope.scaling.factor")?;
            set("rope_scaling", Some(json!({"rope_type": kind, "factor": factor})));
        }
        // Of equal names the first one counts; which image token has which code goes by name.
        if let Some(tokens) = tokens {
            let mut vocabulary = Map::new();
            for (id, token) in tokens.iter().enumerate() {
                vocabulary.entry(token).or_insert(id.into());
            }
            set("vocabulary_map", Some(vocabulary.into()));
        }
        Ok(config)
    }

    /// Number of heads of queries or keys, at least 1, and the key that says so.
    pub(super) fn heads(&self, query: bool) -> Result<(usize, String)> {
        let key = self.key("attention.head_count");
        let kv_key = self.key("attention.head_count_kv");
        // Absent, there are as many as for queries.
        let key = if query || self.get(&kv_key).is_none() { key } else { kv_key };
        let value = self.u64(&key)?.ok_or_else(|| self.missing(&key))?;
        match usize::try_from(value) {
            Ok(heads) if heads > 0 => Ok((heads, key)),
            _ => Err(self.wrong(&key, format!("{value} heads are none to compute with"))),
        }
    }

    /// Whether this is a transformer of the kind that this workspace runs.
    pub(super) fn is_chameleon(&self) -> bool {
        [CHAMELEON, LUMINA].contains(&self.architecture())
    }

    /// A key below that of the architecture.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture())
    }

    /// The value of a key that must be a whole number where it is there. An array of one number, as some files have for
    /// each layer, is that number.
    pub(super) fn u64(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let same = |first: Option<u64>, all: bool| first.filter(|_| all);
        let number = match value {
            Value::Array(Array::U32(values)) => {
                same(values.first().map(|&value| value.into()), values.windows(2).all(|pair| pair[0] == pair[1]))
            }
            Value::Array(Array::I32(values)) => {
                let first = values.first().and_then(|&value| value.try_into().ok());
                same(first, values.windows(2).all(|pair| pair[0] == pair[1]))
            }
            value => value.as_u64(),
        };
        number.map(Some).ok_or_else(|| self.wrong(key, "it is no whole number from 0 on".to_owned()))
    }

    fn required(&self, name: &str) -> Result<u64> {
        let key = self.key(name);
        self.u64(&key)?.ok_or_else(|| self.missing(&key))
    }

    fn float(&self, name: &str) -> Result<Option<f64>> {
        let key = self.key(name);
        let Some(value) = self.get(&key) else { return Ok(None) };
        let wrong = || self.wrong(&key, "it is no finite number".to_owned());
        let float = match *value {
            // The decimal that was meant, 1e-5, not what its nearest `f32` is as an `f64`.
            Value::F32(value) => value.to_string().parse().map_err(|_| wrong())?,
            ref value => value.as_f64().ok_or_else(wrong)?,
        };
        if float.is_finite() { Ok(Some(float)) } else { Err(wrong()) }
    }

    fn missing(&self, key: &str) -> Error {
        self.wrong(key, "it is missing".to_owned())
    }

    pub(super) fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Metadata { file: self.file.to_path_buf(), key: key.to_owned(), reason }
    }
}
