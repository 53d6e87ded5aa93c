//! The content of a `tokenizer.json`, checked before anything is built from it, and its copy without special tokens.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use lumina_core::is_special_name;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::{Error, Result};

/// No model has ids from here on, which would overflow in the `tokenizers` crate.
const MAX_ID: u64 = 1 << 31;

pub(crate) struct TokenizerFile {
    file: PathBuf,
    json: Value,
}

impl TokenizerFile {
    pub(crate) fn parse(json: &[u8], file: &Path) -> Result<Self> {
        let json = serde_json::from_slice(json).map_err(|source| Error::Json { file: file.to_owned(), source })?;
        let mut this = Self { file: file.to_owned(), json };
        this.check()?;
        // The original encodes with neither, whatever the file says; `<s>` is added by the conversation.
        for field in ["truncation", "padding", "post_processor"] {
            this.json[field] = Value::Null;
        }
        Ok(this)
    }

    /// Refuses settings that would change the result silently or make the `tokenizers` crate panic.
    fn check(&self) -> Result<()> {
        let is = |path: &str, wanted: &str| self.json.pointer(path).and_then(Value::as_str) == Some(wanted);
        let empty = |path: &str| {
            self.json.pointer(path).is_none_or(|value| value.is_null() || value == "" || value.as_f64() == Some(0.0))
        };
        let ids = self.json.pointer("/model/vocab").and_then(Value::as_object);
        let ids_fit = ids.is_some_and(|vocab| vocab.values().all(|id| id.as_u64().is_some_and(|id| id < MAX_ID)));
        let checks = [
            ("/model/type", is("/model/type", "BPE"), "`BPE`"),
            ("/decoder/type", is("/decoder/type", "ByteLevel"), "`ByteLevel`"),
            ("/model/continuing_subword_prefix", empty("/model/continuing_subword_prefix"), "none"),
            ("/model/end_of_word_suffix", empty("/model/end_of_word_suffix"), "none"),
            ("/model/dropout", empty("/model/dropout"), "none"),
            ("/model/vocab", ids_fit, "a map of names to ids below 2^31"),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            None => Ok(()),
            Some((field, _, supported)) => {
                let found = match self.json.pointer(field) {
                    None => "absent".to_owned(),
                    Some(Value::Object(_)) => "another map".to_owned(),
                    Some(Value::Array(_)) => "a list".to_owned(),
                    Some(value) => value.to_string(),
                };
                Err(Error::Unsupported { file: self.file.clone(), field, found, supported })
            }
        }
    }

    pub(crate) fn build(&self) -> Result<Tokenizer> {
        // Through bytes: the `tokenizers` crate borrows strings from its input, which a `Value` does not allow.
        serde_json::to_vec(&self.json)
            .map_err(Into::into)
            .and_then(Tokenizer::from_bytes)
            .map_err(|source| Error::Tokenizer { file: self.file.clone(), source })
    }

    /// Removes every special token from the added tokens, the vocabulary and the merges.
    ///
    /// The merges matter as much as the names: in the reference's tokenizer they build an image token from letters.
    pub(crate) fn remove_specials(&mut self) {
        let added = self.json["added_tokens"].take();
        let added: HashSet<&str> =
            added.as_array().into_iter().flatten().filter_map(|token| token["content"].as_str()).collect();
        // An added token of one character is a letter of the byte alphabet, without which text could not be encoded.
        let special = |name: &str| is_special_name(name) || (added.contains(name) && name.chars().nth(1).is_some());

        self.json["added_tokens"] = Value::Array(Vec::new());
        let model = &mut self.json["model"];
        model["unk_token"] = Value::Null;
        if let Some(vocab) = model["vocab"].as_object_mut() {
            vocab.retain(|name, _| !special(name));
        }
        if let Some(merges) = model["merges"].as_array_mut() {
            merges.retain(|merge| match merge_pair(merge) {
                Some((left, right)) => !special(left) && !special(right) && !special(&format!("{left}{right}")),
                None => true,
            });
        }
    }
}

/// Both spellings of a merge: `"a b"` and `["a", "b"]`.
fn merge_pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(pair) => pair.split_once(' '),
        pair => Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
    }
}
