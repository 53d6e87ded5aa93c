//! The parts of a `tokenizer.json` that prepare text for the BPE, in the forms that are supported.
//!
//! The `tokenizers` crate knows more of them. Some lose text (`WhitespaceSplit`, `UnicodeScripts`), some need no end or
//! no bounded memory on some input (`FixedLength` of 0, a `Replace` that grows what another one made), and some panic
//! (`Precompiled`). Only forms that do none of this are read, and they are handed on as they were understood here.

use regex_syntax::hir::{Hir, HirKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a literal text in one of the parts. Longer ones would make a short text large.
const MAX_LITERAL_BYTES: usize = 16;
/// Bytes of a pattern that is not among the known ones.
const MAX_PATTERN_BYTES: usize = 1024;
/// Bytes that a pattern may look ahead before it knows whether it matches.
const MAX_LOOKAHEAD_BYTES: usize = 64;
/// Elements of a sequence, those of inner sequences included.
const MAX_PARTS: usize = 16;

/// Patterns with look-ahead, or with text after a repetition, that published tokenizers have. On each the `fancy-regex`
/// crate takes time in proportion to the text.
const KNOWN_PATTERNS: [&str; 7] = [
    // Chameleon.
    "<sentinel:[0-9]+>",
    // GPT-2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // GPT-4 and Llama 3.
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-4o.
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    // DeepSeek.
    r"\s+$",
];

/// What happens to a text before it is split.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(crate) enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc {},
    #[serde(rename = "NFD")]
    Nfd {},
    #[serde(rename = "NFKC")]
    Nfkc {},
    #[serde(rename = "NFKD")]
    Nfkd {},
    Lowercase {},
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Sequence {
        normalizers: Vec<Normalizer>,
    },
}

/// How a text is split into words.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(crate) enum PreTokenizer {
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    Punctuation {
        #[serde(default)]
        behavior: Behavior,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Pattern {
    String(String),
    Regex(String),
}

/// Where the text goes that a word is split at. There is no `Removed`, which loses it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) enum Behavior {
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

fn yes() -> bool {
    true
}

/// What is wrong with a part, as the end of a sentence that begins with its name.
type Reason = String;

/// Reads a part; `None` where there is none.
fn read<T: DeserializeOwned>(part: &Value) -> Result<Option<T>, Reason> {
    let unsupported = |error| format!("is of a form that is not supported ({})", lumina_core::Cause::new(&error));
    Option::deserialize(part).map_err(unsupported)
}

impl Normalizer {
    pub(crate) const SUPPORTED: &str =
        "none or `NFC`, `NFD`, `NFKC`, `NFKD`, `Lowercase`, and one `Prepend` and `Replace` of short literal texts";

    /// Reads and checks the normalizer.
    pub(crate) fn read(part: &Value) -> Result<Option<Self>, Reason> {
        let Some(normalizer) = read::<Self>(part)? else { return Ok(None) };
        let parts = normalizer.parts();
        check_count(parts.len())?;
        let count = |is: fn(&Self) -> bool| parts.iter().filter(|part| is(part)).count();
        if count(|part| matches!(part, Self::Prepend { .. })) > 1
            || count(|part| matches!(part, Self::Replace { .. })) > 1
        {
            // Each can grow what the one before has made.
            return Err("has more than one `Prepend` or `Replace`".to_owned());
        }
        for part in parts {
            match part {
                Self::Prepend { prepend } => check_literal("Prepend", prepend)?,
                Self::Replace { pattern: Pattern::String(pattern), content } => {
                    check_literal("Replace", pattern)?;
                    check_literal("Replace", content)?;
                }
                Self::Replace { pattern: Pattern::Regex(_), .. } => {
                    return Err(
                        "has a `Replace` of a regular expression; only a literal text can be replaced".to_owned()
                    );
                }
                _ => {}
            }
        }
        Ok(Some(normalizer))
    }

    /// All elements, in order.
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Sequence { normalizers } => normalizers.iter().flat_map(Self::parts).collect(),
            part => vec![part],
        }
    }

    /// An upper bound of how many bytes of text become one byte, and one byte of text becomes.
    pub(crate) fn max_ratio(&self) -> u64 {
        let ratio = |part: &Self| match part {
            // A composed character, of 2 bytes at least, has at most 4 characters of at most 4 bytes. U+FDFA, of 3
            // bytes, becomes 33.
            Self::Nfc {} | Self::Nfd {} | Self::Nfkc {} | Self::Nfkd {} => 12,
            Self::Lowercase {} => 4,
            Self::Prepend { prepend } => 1 + prepend.len() as u64,
            Self::Replace { pattern: Pattern::String(text), content } => text.len().max(content.len()) as u64,
            Self::Replace { .. } | Self::Sequence { .. } => 1,
        };
        let mut ratios: Vec<u64> = self.parts().into_iter().map(ratio).collect();
        // The same again, or another form of Unicode, changes hardly more.
        ratios.dedup();
        ratios.into_iter().fold(1, u64::saturating_mul)
    }
}

impl PreTokenizer {
    pub(crate) const SUPPORTED: &str = "`ByteLevel` with `Split`, `Digits` and `Punctuation` that remove nothing, and patterns of published tokenizers";

    /// Reads and checks the pre-tokenizer.
    pub(crate) fn read(part: &Value) -> Result<Self, Reason> {
        let Some(pre_tokenizer) = read::<Self>(part)? else {
            return Err("is null, so spaces and all that is not ASCII would be lost: it needs `ByteLevel`".to_owned());
        };
        let parts = pre_tokenizer.parts();
        check_count(parts.len())?;
        match parts.iter().filter(|part| matches!(part, Self::ByteLevel { .. })).count() {
            1 => {}
            0 => return Err("has no `ByteLevel`, without which text would be lost".to_owned()),
            _ => return Err("has `ByteLevel` more than once, which encodes the bytes of bytes".to_owned()),
        }
        for part in parts {
            match part {
                Self::Split { pattern: Pattern::String(text), .. } => check_literal("Split", text)?,
                Self::Split { pattern: Pattern::Regex(pattern), .. } => check_pattern(pattern)?,
                _ => {}
            }
        }
        Ok(pre_tokenizer)
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Sequence { pretokenizers } => pretokenizers.iter().flat_map(Self::parts).collect(),
            part => vec![part],
        }
    }
}

fn check_count(parts: usize) -> Result<(), Reason> {
    if parts <= MAX_PARTS { Ok(()) } else { Err(format!("has {parts} elements, more than {MAX_PARTS}")) }
}

fn check_literal(part: &str, text: &str) -> Result<(), Reason> {
    match text.len() {
        0 => Err(format!("has a `{part}` with an empty text")),
        1..=MAX_LITERAL_BYTES => Ok(()),
        bytes => Err(format!("has a `{part}` with a text of {bytes} bytes, more than {MAX_LITERAL_BYTES}")),
    }
}

/// Accepts patterns that match a text in time proportional to it, and never nothing.
fn check_pattern(pattern: &str) -> Result<(), Reason> {
    if KNOWN_PATTERNS.contains(&pattern) {
        return Ok(());
    }
    let quoted = lumina_core::quoted(pattern);
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("has a `Split` at {quoted}, a pattern of more than {MAX_PATTERN_BYTES} bytes"));
    }
    match regex_syntax::parse(pattern) {
        Err(_) => Err(format!(
            "has a `Split` at {quoted}, which is no regular expression, or one that looks around and that no published \
             tokenizer has"
        )),
        Ok(hir) if hir.properties().minimum_len().is_none_or(|bytes| bytes == 0) => {
            Err(format!("has a `Split` at {quoted}, which matches an empty text"))
        }
        Ok(hir) if !decides_at_once(&hir) => {
            Err(format!("has a `Split` at {quoted}, which can look far ahead for the end of a match"))
        }
        Ok(_) => Ok(()),
    }
}

/// Whether a match is certain a bounded number of bytes after its start: no text comes after an unbounded repetition.
/// Otherwise each start of a match could cost a look at all the rest of the text.
fn decides_at_once(hir: &Hir) -> bool {
    let is_short = |bytes: Option<usize>| bytes.is_some_and(|bytes| bytes <= MAX_LOOKAHEAD_BYTES);
    let properties = hir.properties();
    if !properties.look_set().is_empty() || !is_short(properties.minimum_len()) {
        return false;
    }
    match hir.kind() {
        HirKind::Alternation(branches) => branches.iter().all(decides_at_once),
        HirKind::Capture(capture) => decides_at_once(&capture.sub),
        HirKind::Concat(parts) => parts.split_last().is_none_or(|(last, before)| {
            let ahead: Option<usize> = before.iter().map(|part| part.properties().maximum_len()).sum();
            is_short(ahead) && decides_at_once(last)
        }),
        HirKind::Repetition(repetition) if repetition.max.is_none() => {
            matches!(repetition.sub.kind(), HirKind::Class(_))
                || matches!(repetition.sub.kind(), HirKind::Literal(literal) if literal.0.len() == 1)
        }
        _ => is_short(properties.maximum_len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tokenizers::{NormalizedString, Normalizer as _, NormalizerWrapper};

    use super::*;
    use crate::{Specials, TextTokenizer};

    /// The small tokenizer of this repository with other parts.
    fn tokenizer(normalizer: &Value, pre_tokenizer: &Value) -> crate::Result<TextTokenizer> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer/mini/tokenizer.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        json["normalizer"] = normalizer.clone();
        json["pre_tokenizer"] = pre_tokenizer.clone();
        TextTokenizer::from_json(json.to_string().as_bytes(), "tokenizer.json")
    }

    fn split(pattern: &Value, behavior: &str, invert: bool) -> Value {
        json!({ "type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert })
    }

    fn byte_level() -> impl Strategy<Value = (bool, Value)> {
        any::<(bool, bool)>().prop_map(|(prefix, regex)| {
            let part =
                json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex });
            (prefix, part)
        })
    }

    /// Everything else that is accepted.
    fn word_splitter() -> impl Strategy<Value = Value> {
        let behaviors = || prop::sample::select(vec!["Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]);
        let simple = [r"\p{N}{1,3}", r"\s?\p{L}+", "[0-9][0-9][0-9]", r"(?i:ab|cd)", " ?[^(\\s|[.,!?…。，、।۔،])]+"];
        let patterns: Vec<&str> = KNOWN_PATTERNS.into_iter().chain(simple).collect();
        prop_oneof![
            any::<bool>().prop_map(|individual| json!({ "type": "Digits", "individual_digits": individual })),
            behaviors().prop_map(|behavior| json!({ "type": "Punctuation", "behavior": behavior })),
            Just(json!({ "type": "Punctuation" })),
            Just(json!({ "type": "Sequence", "pretokenizers": [] })),
            (prop::sample::select(patterns), behaviors(), any::<bool>()).prop_map(|(pattern, behavior, invert)| split(
                &json!({ "Regex": pattern }),
                behavior,
                invert
            )),
            ("[ a-d1-3.]{1,3}", behaviors(), any::<bool>()).prop_map(|(text, behavior, invert)| split(
                &json!({ "String": text }),
                behavior,
                invert
            )),
        ]
    }

    fn normalizer() -> impl Strategy<Value = Value> {
        let unicode = prop::sample::select(vec!["NFC", "NFD", "NFKC", "NFKD", "Lowercase"]);
        let unicode = prop::collection::vec(unicode.prop_map(|name| json!({ "type": name })), 0..3);
        let prepend = prop::option::of("[ ▁a]{1,3}".prop_map(|text| json!({ "type": "Prepend", "prepend": text })));
        let replace = prop::option::of(("[ ab.]{1,2}", "[▁xy ]{1,3}").prop_map(
            |(text, content)| json!({ "type": "Replace", "pattern": { "String": text }, "content": content }),
        ));
        (unicode, prepend, replace, any::<bool>()).prop_map(|(unicode, prepend, replace, alone)| {
            let mut parts: Vec<Value> = unicode.into_iter().chain(prepend).chain(replace).collect();
            match parts.pop() {
                Some(part) if alone => part,
                Some(part) => {
                    parts.push(part);
                    json!({ "type": "Sequence", "normalizers": parts })
                }
                None => Value::Null,
            }
        })
    }

    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![any::<String>(), "[ a-d1-3.,!\n\t▁]{0,12}", "(e\u{301}|가|ﬁ|𝐀|K|Ǆ|  )+"];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever parts are accepted: the tokens are all of the text, as it was normalized.
        #[test]
        fn no_text_is_lost(
            normalizer in normalizer(),
            (adds_spaces, byte_level) in byte_level(),
            splitters in prop::collection::vec(word_splitter(), 0..4),
            place in any::<prop::sample::Index>(),
            text in text(),
        ) {
            let mut parts = splitters;
            parts.insert(place.index(parts.len() + 1), byte_level);
            let pre_tokenizer = match <[Value; 1]>::try_from(parts) {
                Ok([part]) => part,
                Err(parts) => json!({ "type": "Sequence", "pretokenizers": parts }),
            };
            let tokenizer = tokenizer(&normalizer, &pre_tokenizer).unwrap();
            let ids = tokenizer.encode(&text, Specials::Plain).unwrap();
            let mut expected = NormalizedString::from(text.as_str());
            if let Some(normalizer) = serde_json::from_value::<Option<NormalizerWrapper>>(normalizer).unwrap() {
                normalizer.normalize(&mut expected).unwrap();
            }
            let (found, expected) = (tokenizer.decode(&ids), expected.get());
            if adds_spaces {
                prop_assert_eq!(found.replace(' ', ""), expected.replace(' ', ""));
            } else {
                prop_assert_eq!(&found, expected);
            }
            // A text that fits is never called too long.
            prop_assert!(text.len() as u64 <= tokenizer.max_text_bytes(ids.len()), "{} bytes, {ids:?}", text.len());
        }
    }

    /// For each character and each normalizer: no more bytes become one than `max_ratio` says, and one becomes no more.
    #[test]
    fn normalizers_change_lengths_no_more_than_is_said() {
        for name in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase"] {
            let part = json!({ "type": name });
            let max_ratio = Normalizer::read(&part).unwrap().unwrap().max_ratio() as f64;
            let normalizer: NormalizerWrapper = serde_json::from_value(part).unwrap();
            let normalize = |text: &str| {
                let mut normalized = NormalizedString::from(text);
                normalizer.normalize(&mut normalized).unwrap();
                normalized.get().len()
            };
            let mut worst = 0.0f64;
            for character in '\0'..=char::MAX {
                let alone = character.to_string();
                // What is composed of marks, and what marks are composed with.
                let marked: String = [character, '\u{302}', '\u{301}', '\u{345}'].into_iter().collect();
                for text in [alone, marked] {
                    let ratio = text.len() as f64 / normalize(&text) as f64;
                    worst = worst.max(ratio).max(1.0 / ratio);
                }
            }
            assert!(worst > 1.0 && worst <= max_ratio, "{name}: {worst}");
        }
    }

    #[test]
    fn only_patterns_of_bounded_time_are_accepted() {
        for pattern in [r"\d", r"\s+", r"\p{N}{1,3}", "a|bc|[0-9]+", r"\s?[a-z]+", "(IMGIMG)((A|B){1,4})Z"] {
            check_pattern(pattern).unwrap();
        }
        for (pattern, reason) in [
            ("(", "no regular expression"),
            (r"(\w)\1", "no regular expression"),
            (r"a(?!b)", "looks around"),
            ("", "an empty text"),
            ("a*", "an empty text"),
            (".*[^A-Z]|[A-Z]", "far ahead"),
            ("(a+)+b", "far ahead"),
            ("(a+)+", "far ahead"),
            ("(ab?)+", "far ahead"),
            (r"a+$", "far ahead"),
            (r"\p{L}{1,60}x\p{L}{1,60}", "far ahead"),
            ("[ab]{100000,}", "far ahead"),
        ] {
            let error = check_pattern(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert!(check_pattern(&"a".repeat(2000)).unwrap_err().contains("1024 bytes"));
    }
}
