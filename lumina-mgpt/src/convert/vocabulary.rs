//! The vocabulary of a `tokenizer.json` as llama.cpp keeps it.

use std::collections::BTreeMap;

use lumina_checkpoint::gguf::{Array, Value};
use serde::Deserialize;

/// The key of the tokenizer's kind.
pub(super) const MODEL: &str = "tokenizer.ggml.model";

/// llama.cpp's numbers for kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// More tokens than any model has. The limit is needed because missing tokens are filled in, and each takes a
/// hundred bytes in a config.
pub(super) const MAX_TOKENS: usize = 1 << 20;

#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Bpe,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// Both forms that files have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// Keys and values for a tokenizer with `size` tokens, or the reason why it cannot be used.
pub(super) fn read(text: &str, size: usize) -> Result<Vec<(&'static str, Value)>, String> {
    if size > MAX_TOKENS {
        return Err(format!("a vocabulary of {size} tokens, more than {MAX_TOKENS}"));
    }
    let Tokenizer { added_tokens, model } =
        serde_json::from_str(text).map_err(|error| format!("not a byte-pair tokenizer: {error}"))?;
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; tokens.len()];
    let normal = model.vocab.into_iter().map(|(token, id)| (token, id, NORMAL));
    let added = added_tokens
        .into_iter()
        .map(|Added { id, content, special }| (content, id, if special { CONTROL } else { USER_DEFINED }));
    // A token can be in both lists, and then the entry in `added_tokens` counts. A placeholder beyond the embedding is
    // not a token of the model.
    for (token, id, kind) in normal.chain(added) {
        if let (Some(place), Some(place_of_kind)) = (tokens.get_mut(id as usize), kinds.get_mut(id as usize)) {
            *place = token;
            *place_of_kind = kind;
        }
    }
    let merges = model.merges.into_iter().map(|merge| match merge {
        Merge::Text(text) => text,
        // A space separates the two tokens, so spaces within tokens are written as byte-level tokenizers write them.
        Merge::Pair(left, right) => [left, right].map(|part| part.replace(' ', "\u{120}")).join(" "),
    });
    Ok(vec![
        (MODEL, "gpt2".into()),
        ("tokenizer.ggml.pre", "chameleon".into()),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(merges.collect()))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_merges_and_gaps() {
        let text = r#"{"added_tokens": [{"id": 0, "content": "<s>", "special": true}, {"id": 9, "content": "<|image|>"}],
            "model": {"vocab": {"<s>": 0, "a": 2, "b": 3}, "merges": ["a b", ["a", "a b"]]}}"#;
        let entries = read(text, 4).unwrap();
        let strings = |values: &[&str]| Value::Array(Array::String(values.iter().map(|&v| v.to_owned()).collect()));
        assert_eq!(entries[2].1, strings(&["<s>", "[PAD1]", "a", "b"]));
        assert_eq!(entries[3].1, Value::Array(Array::I32(vec![CONTROL, UNUSED, NORMAL, NORMAL])));
        assert_eq!(entries[4].1, strings(&["a b", "a a\u{120}b"]));
        assert!(read("{}", 4).unwrap_err().contains("byte-pair"));
        assert!(read(text, u32::MAX as usize).unwrap_err().contains("4294967295"));
    }
}
