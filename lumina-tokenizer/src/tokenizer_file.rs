//! The content of a `tokenizer.json`, checked before anything is built from it, and its copy without special tokens.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use lumina_core::{Cause, is_special_name, quoted};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::tokenizer_parts::{Normalizer, PreTokenizer};
use crate::{Error, Result};

/// No model has ids from here on, which would overflow in the `tokenizers` crate.
const MAX_ID: u64 = 1 << 31;
/// Tokens of a vocabulary; published ones have up to half of this.
const MAX_TOKENS: usize = 1 << 19;
/// Merges, and values in the file. With those of [`MAX_TOKENS`] they bound the memory that opening takes.
const MAX_MERGES: usize = 1 << 20;
const MAX_VALUES: usize = 1 << 23;
/// Added tokens, each of which takes some 2 kB while the tokenizer is built. Published files have an eighth of this.
const MAX_ADDED: usize = 1 << 18;
/// Bytes of the names of all added tokens, which text is searched for.
const MAX_ADDED_BYTES: usize = 1 << 23;
/// Bytes of the name of a token. A prompt is bounded by the longest.
const MAX_NAME_BYTES: usize = 4096;

/// The keys of the file and of its model that the `tokenizers` crate reads. It stumbles over others.
const KEYS: [&str; 9] = [
    "added_tokens",
    "decoder",
    "model",
    "normalizer",
    "padding",
    "post_processor",
    "pre_tokenizer",
    "truncation",
    "version",
];
const MODEL_KEYS: [&str; 10] = [
    "byte_fallback",
    "continuing_subword_prefix",
    "dropout",
    "end_of_word_suffix",
    "fuse_unk",
    "ignore_merges",
    "merges",
    "type",
    "unk_token",
    "vocab",
];

pub(crate) struct TokenizerFile {
    file: PathBuf,
    json: Value,
    max_ratio: u64,
}

impl TokenizerFile {
    pub(crate) fn parse(json: &[u8], file: &Path) -> Result<Self> {
        lumina_core::file::check_lfs(file, json)?;
        let json = lumina_core::file::without_mark(json);
        let file = file.to_owned();
        // Each value but the last of a list or a map is followed by a comma.
        let values = json.iter().filter(|&&byte| byte == b',').count();
        if values > MAX_VALUES {
            return Err(Error::TokenizerSize { file, what: "values", found: values, limit: MAX_VALUES });
        }
        lumina_core::file::check_json(&file, json)?;
        let json = match serde_json::from_slice(json) {
            Ok(json) => json,
            Err(error) => return Err(Error::Json { file, source: Cause::new(&error) }),
        };
        let mut this = Self { file, json, max_ratio: 1 };
        this.check_model()?;
        this.check_parts()?;
        this.keep_what_is_read();
        Ok(this)
    }

    /// An upper bound of how many bytes of text become one byte of tokens, and one becomes.
    pub(crate) fn max_ratio(&self) -> u64 {
        self.max_ratio
    }

    /// Refuses settings of the model that would change the result silently or make the `tokenizers` crate panic.
    fn check_model(&self) -> Result<()> {
        let is = |path: &str, wanted: &str| self.json.pointer(path).and_then(Value::as_str) == Some(wanted);
        let empty = |path: &str| {
            self.json.pointer(path).is_none_or(|value| value.is_null() || value == "" || value.as_f64() == Some(0.0))
        };
        let ids = self.json.pointer("/model/vocab").and_then(Value::as_object);
        let ids_fit = ids.is_some_and(|vocab| vocab.values().all(|id| id.as_u64().is_some_and(|id| id < MAX_ID)));
        // Letters that are spelled in bytes would decode to the names of the bytes.
        let spells_bytes =
            self.json.pointer("/model/byte_fallback").is_some_and(|value| value != false && !value.is_null());
        let has_letters = ids.is_some_and(|vocab| letters().all(|(_, letter)| vocab.contains_key(letter.as_str())));
        let checks = [
            ("/model/type", is("/model/type", "BPE"), "`BPE`"),
            ("/decoder/type", is("/decoder/type", "ByteLevel"), "`ByteLevel`"),
            ("/model/continuing_subword_prefix", empty("/model/continuing_subword_prefix"), "none"),
            ("/model/end_of_word_suffix", empty("/model/end_of_word_suffix"), "none"),
            ("/model/dropout", empty("/model/dropout"), "none"),
            ("/model/vocab", ids_fit, "a map of names to ids below 2^31"),
            ("/model/byte_fallback", !spells_bytes || has_letters, "`false`, as the vocabulary lacks bytes,"),
        ];
        if let Some((field, _, supported)) = checks.into_iter().find(|(_, holds, _)| !holds) {
            let found = match self.json.pointer(field) {
                None => "absent".to_owned(),
                Some(Value::Object(_)) => "another map".to_owned(),
                Some(Value::Array(_)) => "a list".to_owned(),
                Some(value) => quoted(&value.to_string()).to_string(),
            };
            return Err(Error::Unsupported { file: self.file.clone(), field, found, supported });
        }
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<()> {
        let too_large = |what, found, limit| Error::TokenizerSize { file: self.file.clone(), what, found, limit };
        let vocab = self.json.pointer("/model/vocab").and_then(Value::as_object);
        let merges = self.json.pointer("/model/merges").and_then(Value::as_array);
        let n_merges = merges.map_or(0, Vec::len);
        if n_merges > MAX_MERGES {
            return Err(too_large("merges", n_merges, MAX_MERGES));
        }
        let n_added = self.added_tokens().count();
        if n_added > MAX_ADDED {
            return Err(too_large("added tokens", n_added, MAX_ADDED));
        }
        let n_tokens = vocab.map_or(0, |vocab| vocab.len()) + n_added;
        if n_tokens > MAX_TOKENS {
            return Err(too_large("tokens", n_tokens, MAX_TOKENS));
        }
        let added_bytes = self.added_names().map(str::len).sum();
        if added_bytes > MAX_ADDED_BYTES {
            return Err(too_large("bytes in the names of added tokens", added_bytes, MAX_ADDED_BYTES));
        }
        let names = vocab.into_iter().flat_map(|vocab| vocab.keys().map(String::as_str)).chain(self.added_names());
        match names.map(str::len).max() {
            Some(longest) if longest > MAX_NAME_BYTES => {
                Err(too_large("bytes in the name of a token", longest, MAX_NAME_BYTES))
            }
            _ => Ok(()),
        }
    }

    /// Reads the other parts, and writes them back as they were understood.
    fn check_parts(&mut self) -> Result<()> {
        let refused = |part, supported| {
            let file = self.file.clone();
            move |reason| Error::TokenizerPart { file, part, reason, supported }
        };
        let normalizer = Normalizer::read(&self.json["normalizer"]);
        let normalizer = normalizer.map_err(refused("normalizer", Normalizer::SUPPORTED))?;
        let pre_tokenizer = PreTokenizer::read(&self.json["pre_tokenizer"]);
        let pre_tokenizer = pre_tokenizer.map_err(refused("pre_tokenizer", PreTokenizer::SUPPORTED))?;
        self.max_ratio = normalizer.as_ref().map_or(1, Normalizer::max_ratio);
        self.json["normalizer"] = serde_json::to_value(normalizer).unwrap_or_default();
        self.json["pre_tokenizer"] = serde_json::to_value(pre_tokenizer).unwrap_or_default();
        // The original encodes with none of these, whatever the file says; `<s>` is added by the conversation, and
        // tokens are decoded by `TextTokenizer`.
        for field in ["truncation", "padding", "post_processor", "decoder"] {
            self.json[field] = Value::Null;
        }
        Ok(())
    }

    /// Drops what nobody reads, and writes merges as texts where all can be: lists of two texts take several times as
    /// much memory, here and in the `tokenizers` crate.
    fn keep_what_is_read(&mut self) {
        let Some(file) = self.json.as_object_mut() else { return };
        file.retain(|key, _| KEYS.contains(&key.as_str()));
        let Some(model) = file.get_mut("model").and_then(Value::as_object_mut) else { return };
        model.retain(|key, _| MODEL_KEYS.contains(&key.as_str()));
        let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) else { return };
        if merges.iter().all(|merge| pair_as_text(merge).is_some()) {
            for merge in merges {
                *merge = pair_as_text(merge).into();
            }
        }
    }

    /// The text that [`build`] reads.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.json)
            .map_err(|error| Error::Tokenizer { file: self.file.clone(), source: Cause::new(&error) })
    }

    fn added_tokens(&self) -> impl Iterator<Item = &Value> {
        self.json["added_tokens"].as_array().into_iter().flatten()
    }

    fn added_names(&self) -> impl Iterator<Item = &str> {
        self.added_tokens().filter_map(|token| token["content"].as_str())
    }

    /// Whether a token can stand for a text of any length: it takes the whitespace next to it away, or all unknown
    /// bytes in a row are one.
    pub(crate) fn has_unbounded_token(&self) -> bool {
        let strips = |token: &Value| token["lstrip"] == true || token["rstrip"] == true;
        let fuses = self.json["model"]["fuse_unk"] == true && self.has_unknown_token();
        self.added_tokens().any(strips) || (fuses && !self.missing_bytes().is_empty())
    }

    /// The bytes that no token encodes, of those that UTF-8 has.
    pub(crate) fn missing_bytes(&self) -> Vec<u8> {
        let vocab = &self.json["model"]["vocab"];
        let missing = letters().filter(|(_, letter)| vocab.get(letter.as_str()).is_none());
        missing.map(|(byte, _)| byte).filter(|byte| !matches!(byte, 0xC0 | 0xC1 | 0xF5..)).collect()
    }

    /// The names of added tokens that the model's vocabulary lacks: text, not bytes.
    pub(crate) fn added_texts(&self) -> HashSet<String> {
        let vocab = &self.json["model"]["vocab"];
        self.added_names().filter(|name| vocab.get(name).is_none()).map(str::to_owned).collect()
    }

    /// Whether an unknown byte is a token, as the original has it where the file says so.
    pub(crate) fn has_unknown_token(&self) -> bool {
        self.json["model"]["unk_token"].is_string()
    }

    /// Removes every special token from the added tokens, the vocabulary and the merges. Added tokens that are ordinary
    /// words stay, with the ids that `ids` gives them.
    ///
    /// The merges matter as much as the names: in the reference's tokenizer they build an image token from letters.
    pub(crate) fn remove_specials(&mut self, ids: &HashMap<String, u32>) {
        let added = self.json["added_tokens"].take();
        let added: Vec<Value> = if let Value::Array(added) = added { added } else { Vec::new() };
        let is_word = |token: &Value| {
            let name = token["content"].as_str().unwrap_or_default();
            token["special"] == false && !is_special_name(name) && !is_letter(name)
        };
        let (words, specials): (Vec<Value>, Vec<Value>) = added.into_iter().partition(is_word);
        let specials: HashSet<&str> = specials.iter().filter_map(|token| token["content"].as_str()).collect();
        // An added token of one character is a letter of the byte alphabet, without which text could not be encoded.
        let special = |name: &str| is_special_name(name) || (specials.contains(name) && name.chars().nth(1).is_some());

        let model = &mut self.json["model"];
        model["unk_token"] = Value::Null;
        if let Some(vocab) = model["vocab"].as_object_mut() {
            vocab.retain(|name, _| !special(name));
            // In the vocabulary their ids are fixed. Otherwise they would be counted from its new length on.
            for name in words.iter().filter_map(|token| token["content"].as_str()) {
                if let Some(&id) = ids.get(name) {
                    vocab.entry(name).or_insert_with(|| id.into());
                }
            }
        }
        if let Some(merges) = model["merges"].as_array_mut() {
            merges.retain(|merge| match merge_pair(merge) {
                Some((left, right)) => !special(left) && !special(right) && !special(&format!("{left}{right}")),
                None => true,
            });
        }
        self.json["added_tokens"] = Value::Array(words);
    }
}

/// The tokenizer of a description, by way of its text: the `tokenizers` crate borrows strings from its input, which a
/// `Value` does not allow.
pub(crate) fn build(json: &[u8], file: &Path) -> Result<Tokenizer> {
    Tokenizer::from_bytes(json).map_err(|error| Error::Tokenizer { file: file.to_owned(), source: Cause::new(&error) })
}

/// A merge of two texts as one text, if that can be told apart again and is no comment.
fn pair_as_text(merge: &Value) -> Option<String> {
    let [Value::String(left), Value::String(right)] = merge.as_array()?.as_slice() else { return None };
    let can_be = !left.contains(' ') && !right.contains(' ') && !left.starts_with("#version");
    can_be.then(|| [left, " ", right].concat())
}

/// Whether a name is a letter of the byte alphabet that is no ASCII character: a byte, not the character of the text.
fn is_letter(name: &str) -> bool {
    let mut characters = name.chars();
    !name.is_ascii() && characters.next().and_then(crate::text::byte_of_char).is_some() && characters.next().is_none()
}

/// The letters of the byte alphabet, each with its byte.
fn letters() -> impl Iterator<Item = (u8, String)> {
    ('!'..='\u{143}').filter_map(|letter| Some((crate::text::byte_of_char(letter)?, letter.to_string())))
}

/// Both spellings of a merge: `"a b"` and `["a", "b"]`.
fn merge_pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(pair) => pair.split_once(' '),
        pair => Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
    }
}
