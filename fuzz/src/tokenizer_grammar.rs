//! `tokenizer.json` files from bytes: each part is one that the format knows, with usual and unusual settings.

use serde_json::{Value, json};

/// The choices that bytes make; 0 where there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        let index = usize::from(self.byte()) % values.len();
        &values[index]
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn number(&mut self) -> u64 {
        *self.of(&[0, 1, 2, 3, 17, 1 << 16, 1 << 32, u64::MAX])
    }

    fn text(&mut self) -> String {
        let text = *self.of(&["", " ", "a", "aa", "\u{120}", "\u{2581}", "<s>", "\u{e9}", "0", "[", "."]);
        text.repeat(*self.of(&[1, 1, 1, 2, 64, 4096]))
    }

    fn pattern(&mut self) -> Value {
        let text = self.text();
        let regex = *self.of(&["", "a*", "\\s+", "(a|a)*b", "[", "(?=a)", "\\p{L}+|\\p{N}", "^", "$"]);
        if self.flag() { json!({"String": text}) } else { json!({"Regex": regex}) }
    }

    fn parts(&mut self, depth: u8, part: fn(&mut Self, u8) -> Value) -> Vec<Value> {
        let n = self.byte() % 5;
        (0..n).map(|_| part(self, depth + 1)).collect()
    }

    fn normalizer(&mut self, depth: u8) -> Value {
        match self.byte() % 14 {
            0 => Value::Null,
            1 if depth < 4 => json!({"type": "Sequence", "normalizers": self.parts(depth, Self::normalizer)}),
            2 => json!({"type": self.of(&["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents"])}),
            3 => json!({"type": "Prepend", "prepend": self.text()}),
            4 => json!({"type": "Replace", "pattern": self.pattern(), "content": self.text()}),
            5 => json!({"type": "Strip", "strip_left": self.flag(), "strip_right": self.flag()}),
            6 => json!({"type": "Precompiled", "precompiled_charsmap": self.of(&["", "AAAA", "tAAAAA=="])}),
            7 => json!({"type": "BertNormalizer", "clean_text": self.flag(), "handle_chinese_chars": self.flag(),
                "strip_accents": self.flag(), "lowercase": self.flag()}),
            8 => json!({"type": "ByteLevel"}),
            _ => Value::Null,
        }
    }

    fn pre_tokenizer(&mut self, depth: u8) -> Value {
        let behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
        match self.byte() % 14 {
            0 => Value::Null,
            1 if depth < 4 => json!({"type": "Sequence", "pretokenizers": self.parts(depth, Self::pre_tokenizer)}),
            2 => json!({"type": self.of(&["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"])}),
            3 => {
                json!({"type": "Split", "pattern": self.pattern(), "behavior": self.of(&behaviors), "invert": self.flag()})
            }
            4 => json!({"type": "Digits", "individual_digits": self.flag()}),
            5 => json!({"type": "Punctuation", "behavior": self.of(&behaviors)}),
            6 => json!({"type": "Metaspace", "replacement": self.of(&["\u{2581}", "a", ""]),
                "prepend_scheme": self.of(&["always", "never", "first"]), "split": self.flag()}),
            7 => json!({"type": "FixedLength", "length": self.number()}),
            8 => json!({"type": "CharDelimiterSplit", "delimiter": self.of(&["a", "", " "])}),
            _ => json!({"type": "ByteLevel", "add_prefix_space": self.flag(), "trim_offsets": self.flag(),
                "use_regex": self.flag()}),
        }
    }

    fn post_processor(&mut self, depth: u8) -> Value {
        match self.byte() % 8 {
            1 if depth < 4 => json!({"type": "Sequence", "processors": self.parts(depth, Self::post_processor)}),
            2 => json!({"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": self.text(), "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {}}),
            3 => json!({"type": "ByteLevel", "add_prefix_space": self.flag(), "trim_offsets": self.flag(),
                "use_regex": self.flag()}),
            4 => json!({"type": "RobertaProcessing", "sep": [self.text(), self.number()], "cls": [self.text(), 0],
                "trim_offsets": true, "add_prefix_space": false}),
            _ => Value::Null,
        }
    }

    fn decoder(&mut self, depth: u8) -> Value {
        match self.byte() % 8 {
            0 => Value::Null,
            1 if depth < 4 => json!({"type": "Sequence", "decoders": self.parts(depth, Self::decoder)}),
            2 => json!({"type": "Replace", "pattern": self.pattern(), "content": self.text()}),
            3 => {
                json!({"type": "Strip", "content": self.of(&["a", " "]), "start": self.number(), "stop": self.number()})
            }
            4 => json!({"type": "WordPiece", "prefix": self.text(), "cleanup": self.flag()}),
            _ => json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        }
    }

    fn added(&mut self) -> Value {
        let id = if self.flag() { self.number() } else { 256 + u64::from(self.byte()) };
        json!({"id": id, "content": self.text(), "single_word": self.flag(), "lstrip": self.flag(),
            "rstrip": self.flag(), "normalized": self.flag(), "special": self.flag()})
    }
}

/// A byte-level vocabulary of all bytes and two merges.
fn vocabulary() -> serde_json::Map<String, Value> {
    let printable = (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff).map(char::from);
    let others = (0u32..68).filter_map(|index| char::from_u32(256 + index));
    let bytes = printable.chain(others).map(String::from);
    bytes.chain(["aa".to_owned(), "aaa".to_owned()]).zip(0u32..).map(|(token, id)| (token, id.into())).collect()
}

/// A `tokenizer.json`, and a text to encode with it.
pub(super) fn tokenizer(data: &[u8]) -> (Vec<u8>, String) {
    let mut choices = Choices(data);
    let n_added = choices.byte() % 4;
    let added: Vec<Value> = (0..n_added).map(|_| choices.added()).collect();
    let json = json!({
        "version": "1.0",
        "truncation": if choices.byte() == 1 {
            json!({"max_length": choices.number(), "stride": choices.number(), "strategy": "LongestFirst", "direction": "Right"})
        } else { Value::Null },
        "padding": if choices.byte() == 1 {
            json!({"strategy": {"Fixed": choices.number()}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": choices.text()})
        } else { Value::Null },
        "added_tokens": added,
        "normalizer": choices.normalizer(0),
        "pre_tokenizer": choices.pre_tokenizer(0),
        "post_processor": choices.post_processor(0),
        "decoder": choices.decoder(0),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": choices.of(&["", "a"]),
            "end_of_word_suffix": choices.of(&["", "a"]), "fuse_unk": choices.flag(), "byte_fallback": choices.flag(),
            "ignore_merges": choices.flag(), "vocab": vocabulary(), "merges": ["a a", "aa a"],
        },
    });
    let text = if choices.0.is_empty() {
        "aaa a\u{e9} 12 <s>".to_owned()
    } else {
        String::from_utf8_lossy(choices.0).into_owned()
    };
    (json.to_string().into_bytes(), text)
}
