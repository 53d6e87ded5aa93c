//! Which `tokenizer.json` files are read, what is refused, and how large texts may be.
#![allow(clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use std::path::{Path, PathBuf};

use lumina_core::CodeGrid;
use lumina_testing::whole_message;
use lumina_tokenizer::{Conversation, Error, Part, Specials, TextTokenizer, UniRep};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A file of this repository's reference data, whatever data the tests run on.
fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tokenizer").join(path)
}

fn json_of(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(own(path)).expect("it is there")).expect("JSON")
}

fn tokenizer(json: &Value) -> lumina_tokenizer::Result<TextTokenizer> {
    TextTokenizer::from_json(json.to_string().as_bytes(), "folder/tokenizer.json")
}

/// The small tokenizer with a part changed.
fn with(part: &str, value: Value) -> lumina_tokenizer::Result<TextTokenizer> {
    let mut json = json_of("mini/tokenizer.json");
    json[part] = value;
    tokenizer(&json)
}

fn refusal(json: &Value) -> String {
    whole_message(&tokenizer(json).expect_err("it is refused"))
}

#[track_caller]
fn refused(part: &str, value: Value, words: &[&str]) {
    let shown = format!("{value:.80}");
    let message = whole_message(&with(part, value).expect_err(&shown));
    for word in ["folder/tokenizer.json", &format!("`{part}`"), "save the tokenizer"].iter().chain(words) {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    assert!(message.len() < 1500, "{message}");
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

fn before_byte_level(part: Value) -> Value {
    json!({ "type": "Sequence", "pretokenizers": [part, byte_level()] })
}

#[test]
fn normalizers_that_lose_text_or_do_not_end_are_refused() {
    let replace =
        |text: &str, content: &str| json!({ "type": "Replace", "pattern": { "String": text }, "content": content });
    let doubled: Vec<Value> = (0..40).map(|_| replace("a", "aa")).collect();
    for (normalizer, words) in [
        (json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" }), &["`Precompiled`", "`NFC`"][..]),
        (json!({ "type": "Precompiled", "precompiled_charsmap": null }), &["`Precompiled`"]),
        (replace("", "a"), &["`Replace`", "empty"]),
        (replace("a", ""), &["`Replace`", "empty"]),
        (replace("a", &"b".repeat(65)), &["65 bytes"]),
        (json!({ "type": "Replace", "pattern": { "Regex": "(a*)*" }, "content": "a" }), &["regular expression"]),
        (json!({ "type": "Sequence", "normalizers": doubled }), &["40 elements"]),
        (json!({ "type": "Sequence", "normalizers": [replace("a", "aa"), replace("a", "aa")] }), &["more than one"]),
        (json!({ "type": "Prepend", "prepend": "x".repeat(1 << 20) }), &["1048576 bytes"]),
        (json!({ "type": "Prepend", "prepend": "" }), &["empty"]),
        (json!({ "type": "StripAccents" }), &["`StripAccents`"]),
        (json!({ "type": "Strip", "strip_left": true, "strip_right": true }), &["`Strip`"]),
        (json!({ "type": "Nmt" }), &["`Nmt`"]),
        (
            json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true }),
            &["`BertNormalizer`"],
        ),
        (json!({ "type": "NFC", "form": "D" }), &["`form`"]),
        (json!({ "prepend": "x" }), &["`type`"]),
        (json!({ "type": "\u{1b}[2J".repeat(10_000) }), &["\\u{1b}"]),
        (json!("NFC"), &["not supported"]),
        (json!([]), &["not supported"]),
    ] {
        refused("normalizer", normalizer, words);
    }
}

#[test]
fn pre_tokenizers_that_lose_text_or_do_not_end_are_refused() {
    let split = |pattern: Value, behavior: &str| {
        before_byte_level(json!({ "type": "Split", "pattern": pattern, "behavior": behavior, "invert": false }))
    };
    refused("pre_tokenizer", Value::Null, &["null", "`ByteLevel`"]);
    for (pre_tokenizer, words) in [
        (json!({ "type": "Digits", "individual_digits": true }), &["`ByteLevel`"][..]),
        (json!({ "type": "Sequence", "pretokenizers": [] }), &["`ByteLevel`"]),
        (before_byte_level(byte_level()), &["more than once"]),
        (before_byte_level(json!({ "type": "FixedLength", "length": 0 })), &["`FixedLength`"]),
        (before_byte_level(json!({ "type": "Whitespace" })), &["`Whitespace`"]),
        (before_byte_level(json!({ "type": "WhitespaceSplit" })), &["`WhitespaceSplit`"]),
        // It loses characters of no script at the start of a text.
        (before_byte_level(json!({ "type": "UnicodeScripts" })), &["`UnicodeScripts`"]),
        (before_byte_level(json!({ "type": "BertPreTokenizer" })), &["`BertPreTokenizer`"]),
        (before_byte_level(json!({ "type": "CharDelimiterSplit", "delimiter": "a" })), &["`CharDelimiterSplit`"]),
        (
            before_byte_level(
                json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }),
            ),
            &["`Metaspace`"],
        ),
        (before_byte_level(json!({ "type": "Punctuation", "behavior": "Removed" })), &["`Removed`"]),
        (split(json!({ "String": " " }), "Removed"), &["`Removed`"]),
        (split(json!({ "String": "" }), "Isolated"), &["empty"]),
        (split(json!({ "Regex": "(a|aa)+$" }), "Isolated"), &["`(a|aa)+$`", "far ahead"]),
        (split(json!({ "Regex": "(?=a)" }), "Isolated"), &["`(?=a)`"]),
        (json!({ "type": "Sequence", "pretokenizers": vec![byte_level(); 20] }), &["20 elements"]),
        (json!({ "type": "Sequence" }), &["`pretokenizers`"]),
    ] {
        refused("pre_tokenizer", pre_tokenizer, words);
    }
}

/// What published byte-level tokenizers have, with what is known of their result.
#[test]
fn parts_of_published_tokenizers_are_read() {
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let llama = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    let split = json!({ "type": "Split", "pattern": { "Regex": llama }, "behavior": "Isolated", "invert": false });
    let whole = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let text = "Hello  wörld 123, e\u{301}\n\nit's 世界\t x ";
    for pre_tokenizer in [
        byte_level(),
        // As written before there was `use_regex`.
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true }),
        before_byte_level(digits.clone()),
        json!({ "type": "Sequence", "pretokenizers": [split, whole] }),
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Punctuation", "behavior": "Contiguous" }, byte_level(), { "type": "Digits", "individual_digits": false },
            { "type": "Split", "pattern": { "Regex": "[0-9][0-9][0-9]" }, "behavior": "Isolated", "invert": false }] }),
    ] {
        let tokenizer = with("pre_tokenizer", pre_tokenizer).expect("it is known");
        for specials in [Specials::Plain, Specials::Parse] {
            let ids = tokenizer.encode(text, specials).expect("any text");
            assert_eq!(tokenizer.decode(&ids), text);
        }
    }
    for (normalizer, expected) in [
        (json!({ "type": "Sequence", "normalizers": [] }), text.to_owned()),
        (json!({ "type": "NFC" }), text.replace("e\u{301}", "é")),
        (
            json!({ "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Lowercase" }] }),
            text.replace("e\u{301}", "é").to_lowercase(),
        ),
        (
            json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }] }),
            format!("▁{text}").replace(' ', "▁"),
        ),
    ] {
        let tokenizer = with("normalizer", normalizer).expect("it is known");
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, Specials::Plain).expect("any text")), expected);
    }
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special })
}

/// The reference's tokenizer with tokens added, as `tokenizer.add_tokens([…])` saves it.
fn with_added(tokens: &[(&str, bool)]) -> TextTokenizer {
    let mut json = json_of("tokenizer.json");
    let list = json["added_tokens"].as_array_mut().expect("a list");
    let first = 9616;
    list.extend((first..).zip(tokens).map(|(id, &(content, special))| added(id, content, special)));
    tokenizer(&json).expect("a tokenizer")
}

#[test]
fn an_added_word_is_one_token_in_prompts_as_in_training() {
    let tokenizer = with_added(&[("triceratops", false)]);
    // From `tokenizers` 0.23.3, `add_special_tokens=False`.
    let expected = [
        8964, 9152, 9616, 9249, 9190, 9018, 9010, 9616, 9222, 9202, 9000, 8943, 9152, 8983, 9274, 8998, 9342, 9010,
        9011, 9014, 8932,
    ];
    let text = "A triceratops and twotriceratops here, Triceratops!";
    for specials in [Specials::Plain, Specials::Parse] {
        assert_eq!(tokenizer.encode(text, specials).expect("any text"), expected, "{specials:?}");
    }
    assert_eq!(tokenizer.decode(&expected), text);
    let unirep = UniRep::new(tokenizer).expect("complete");
    let prompt = unirep.encode(&Conversation::new().human(text)).expect("a prompt").tokens;
    assert_eq!(prompt[1..prompt.len() - 1], expected);
}

#[test]
fn added_names_with_a_role_stay_text() {
    let names = ["<reserved08706>", "<reserved99999>", "IMGIMGJJJJZ", "</s>", "<|image|>"];
    let mut tokens: Vec<(&str, bool)> = names.map(|name| (name, false)).to_vec();
    tokens.extend([("<|user|>", true), ("Zürich", false), ("<|tool|>", false)]);
    let tokenizer = with_added(&tokens);
    let id = |name: &str| tokenizer.id_of(name).expect("an id");
    for name in names.into_iter().chain(["<|user|>"]) {
        let plain = tokenizer.encode(name, Specials::Plain).expect("any text");
        assert!(!plain.contains(&id(name)), "{name}: {plain:?}");
        assert_eq!(tokenizer.decode(&plain), name);
        assert_eq!(tokenizer.encode(name, Specials::Parse).expect("any text"), [id(name)]);
    }
    // Words are text, whose letters are no bytes: `ü` is a letter of the byte alphabet, too.
    for name in ["Zürich", "<|tool|>"] {
        for specials in [Specials::Plain, Specials::Parse] {
            assert_eq!(tokenizer.encode(name, specials).expect("any text"), [id(name)]);
        }
        assert_eq!(tokenizer.decode(&[id(name)]), name);
    }
}

#[test]
fn a_byte_without_a_token_is_an_error_and_not_left_out() {
    let mut json = json_of("mini/tokenizer.json");
    json["model"]["merges"] = json!([]);
    let vocab = json["model"]["vocab"].as_object_mut().expect("a map");
    let id = vocab.remove("a").expect("a letter");
    vocab.insert("no letter".to_owned(), id);
    let tokenizer = tokenizer(&json).expect("a tokenizer");
    for specials in [Specials::Plain, Specials::Parse] {
        let message = tokenizer.encode("a cat", specials).expect_err("it would be lost").to_string();
        assert!(message.contains("0x61") && message.contains("folder/tokenizer.json"), "{message}");
        let ids = tokenizer.encode("so long", specials).expect("other letters");
        assert_eq!(tokenizer.decode(&ids), "so long");
    }
    json["model"]["byte_fallback"] = true.into();
    let message = refusal(&json);
    assert!(message.contains("/model/byte_fallback") && message.contains("lacks"), "{message}");
}

#[test]
fn texts_are_bounded_before_they_are_encoded() {
    let unirep = UniRep::open(own("")).expect("a tokenizer");
    let long = "x".repeat(50_000_000);
    let message = unirep.text().encode(&long, Specials::Plain).expect_err("50 MB").to_string();
    for word in ["50000000 bytes", "1048576 bytes", "shorten"] {
        assert!(message.contains(word), "{message}");
    }
    let context = 4096;
    let limit = unirep.text().max_text_bytes(context);
    let prompt = Conversation::new().human(long.as_str());
    let error = unirep.encode_within(&prompt, context).expect_err("50 MB");
    assert!(matches!(error, Error::ConversationTooLong { bytes: 50_000_000, .. }));
    let message = error.to_string();
    for word in ["50000000 bytes", &format!("{limit} at most"), "4096 tokens", "shorten"] {
        assert!(message.contains(word), "{message}");
    }
    // A character of 3 bytes that the normalizer makes 33 of.
    let tokenizer = with("normalizer", json!({ "type": "NFKC" })).expect("it is known");
    let message = tokenizer.encode(&"\u{fdfa}".repeat(200_000), Specials::Plain).expect_err("6.6 MB").to_string();
    assert!(message.contains("6600000 bytes"), "{message}");
    // Many turns are as long as one.
    let piece = "x".repeat(limit as usize / 4);
    let turns = (0..5).fold(Conversation::new(), |turns, turn| {
        if turn % 2 == 0 { turns.human(piece.as_str()) } else { turns.assistant(piece.as_str()) }
    });
    assert!(matches!(unirep.encode_within(&turns, context), Err(Error::ConversationTooLong { .. })));
    let image = CodeGrid::new(2, 2, vec![1, 2, 3, 4]).expect("codes");
    let spread = Conversation::new().human([Part::from(long.as_str()), image.into(), "?".into()]);
    assert!(unirep.encode_within(&spread, context).is_err());
}

/// The longest text of as many tokens as the context holds is encoded.
#[test]
fn a_text_that_fits_is_never_too_long() {
    let unirep = UniRep::open(own("")).expect("a tokenizer");
    let text = unirep.text();
    let names = (0..text.n_tokens() as u32).map(|id| (text.decode(&[id]), id));
    // The longest word that is one token again.
    let is_word = |word: &str| text.encode(word, Specials::Plain).is_ok_and(|ids| ids.len() == 1);
    let words = names.filter(|(word, _)| is_word(word)).max_by_key(|(word, _)| word.len());
    let (word, _) = words.expect("a word");
    let long = word.repeat(2000);
    let tokens = text.encode(&long, Specials::Plain).expect("any text").len();
    assert!(long.len() as u64 <= text.max_text_bytes(tokens));
    let prompt = Conversation::new().human(long);
    assert_eq!(unirep.encode_within(&prompt, tokens).expect("it fits").tokens.len(), tokens + 2);

    // A word that takes all the spaces around it away.
    let mut json = json_of("tokenizer.json");
    let mut word = added(9616, "triceratops", false);
    (word["lstrip"], word["rstrip"]) = (true.into(), true.into());
    json["added_tokens"].as_array_mut().expect("a list").push(word);
    let unirep = UniRep::new(tokenizer(&json).expect("a tokenizer")).expect("complete");
    let spaces = " ".repeat(200_000);
    let prompt = Conversation::new().human(format!("{spaces}triceratops{spaces}"));
    assert_eq!(unirep.encode_within(&prompt, 8).expect("it fits").tokens.len(), 3);
}

#[test]
fn files_that_are_not_there_say_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokenizer.json");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9085698\n";
    std::fs::write(&file, pointer).expect("writable");
    let errors = [
        TextTokenizer::open(folder.path()).map(drop).expect_err("a pointer"),
        TextTokenizer::from_json(pointer.as_bytes(), &file).map(drop).expect_err("a pointer"),
        lumina_tokenizer::read_text_tokenizer(&file).map(drop).expect_err("a pointer"),
    ];
    for error in errors {
        let message = whole_message(&error);
        assert!(message.contains("git lfs pull") && message.contains("tokenizer.json"), "{message}");
    }
    #[cfg(target_os = "linux")]
    for device in ["/dev/zero", "/dev/stdin"] {
        let message = whole_message(&TextTokenizer::open(device).expect_err("a device"));
        assert!(message.contains("not a regular file"), "{message}");
    }
    // A byte order mark is none of the text.
    let marked = ["\u{feff}".as_bytes(), &std::fs::read(own("mini/tokenizer.json")).expect("it is there")].concat();
    std::fs::write(&file, marked).expect("writable");
    TextTokenizer::open(&file).expect("a tokenizer");
}

#[test]
fn files_with_more_than_any_tokenizer_has_are_refused() {
    let list = |n: usize| format!("[{}0]", "0,".repeat(n));
    let message =
        whole_message(&TextTokenizer::from_json(list(9_000_000).as_bytes(), "big.json").expect_err("9 million"));
    assert!(message.contains("9000000 values") && message.contains("big.json"), "{message}");
    let mut json = json_of("mini/tokenizer.json");
    json["added_tokens"] = json!([added(400, &"x".repeat(5000), false)]);
    let message = refusal(&json);
    assert!(message.contains("5000 bytes in the name of a token"), "{message}");
}

/// `"a b"` and `["a", "b"]` are the same, and only the latter can have a space in a name. Keys that nobody reads do no harm.
#[test]
fn merges_are_texts_or_pairs() {
    let mut json = json_of("mini/tokenizer.json");
    let merges = json["model"]["merges"].as_array().expect("a list").clone();
    let pair = |merge: &Value| match merge {
        Value::String(text) => json!(text.split(' ').collect::<Vec<_>>()),
        pair => pair.clone(),
    };
    let pairs: Vec<Value> = merges.iter().map(pair).collect();
    let texts: Vec<Value> = pairs
        .iter()
        .map(|pair| json!([&pair[0], &pair[1]].map(|part| part.as_str().expect("a text")).join(" ")))
        .collect();
    let mut with_space = pairs.clone();
    with_space.push(json!(["x y", "z"]));
    let text = "The bird is flying over the water, 2024 times.";
    let mut encoded = Vec::new();
    for merges in [texts, pairs, with_space] {
        json["model"]["merges"] = merges.into();
        for (name, id) in [("x y", 100_000), ("z", 100_001), ("x yz", 100_002)] {
            let vocabulary = json["model"]["vocab"].as_object_mut().expect("a map");
            vocabulary.entry(name).or_insert(id.into());
        }
        json["x"] = json!({ "y": [1, {}] });
        json["model"]["x"] = json!("z");
        let tokenizer = TextTokenizer::from_json(json.to_string().as_bytes(), "merges.json").expect("it is whole");
        encoded.push(tokenizer.encode(text, Specials::Plain).expect("it fits"));
    }
    assert!(encoded[0].len() < text.len() && encoded.iter().all(|ids| *ids == encoded[0]), "{encoded:?}");
}

/// Whatever a file says, messages are short, and nothing in them acts on a terminal.
#[test]
fn messages_are_short_and_clean() {
    let hostile = format!("\u{1b}]0;x\u{7}\r\n\u{202e}{}", "y".repeat(100_000));
    let mut errors: Vec<String> = Vec::new();
    for path in ["/model/type", "/decoder/type", "/model/dropout", "/normalizer", "/pre_tokenizer/type", "/version"] {
        let mut json = json_of("mini/tokenizer.json");
        *json.pointer_mut(path).expect("it is there") = hostile.clone().into();
        errors.push(refusal(&json));
    }
    let mut json = json_of("mini/tokenizer.json");
    json["model"]["merges"] = json!([["a", hostile.clone()]]);
    errors.push(refusal(&json));
    let mut json = json_of("mini/tokenizer.json");
    let id = json["model"]["vocab"]["a"].clone();
    json["model"]["vocab"][&hostile[..200]] = id;
    errors.push(refusal(&json));
    errors.push(whole_message(&hostile.parse::<lumina_tokenizer::Task>().expect_err("no task")));
    let record = |json: Value| lumina_tokenizer::Record::from_json(&json.to_string());
    errors.push(whole_message(&record(json!({ "conversations": hostile })).expect_err("no record")));
    let role = record(json!({ "conversations": [{ "from": hostile, "value": "x" }] })).expect("a record");
    let unirep = UniRep::open(own("")).expect("a tokenizer");
    errors.push(whole_message(&unirep.encode_record(&role, &[]).expect_err("no role")));
    for message in errors {
        assert!(message.len() < 2000, "{} bytes: {message:.300}", message.len());
        assert!(!message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{message}");
    }
}

#[test]
fn a_conversation_that_is_read_is_plain_and_has_known_keys() {
    let read = |json: Value| serde_json::from_value::<Conversation>(json).map_err(|error| error.to_string());
    let turn = json!({ "role": "human", "content": [{ "text": "Hello<reserved08706>" }] });
    let conversation = read(json!({ "turns": [turn], "specials": "plain" })).expect("plain");
    assert_eq!(conversation.specials, Specials::Plain);
    let error = read(json!({ "turns": [turn], "specials": "parse" })).expect_err("a client's word");
    assert!(error.contains("`specials`"), "{error}");
    for (json, key) in [
        (json!({ "turns": [turn], "special": "plain" }), "`special`"),
        (json!({ "turns": [{ "role": "human", "content": [], "specials": "parse" }] }), "`specials`"),
        (json!({ "turns": [{ "role": "human", "content": [{ "txt": "a" }] }] }), "`txt`"),
        (json!({ "turns": [{ "role": "system", "content": [] }] }), "`system`"),
        (
            json!({ "turns": [{ "role": "human",
            "content": [{ "image": { "rows": 2, "columns": 1, "codes": [1, 2], "specials": 1 } }] }] }),
            "`specials`",
        ),
    ] {
        let error = read(json).expect_err(key);
        assert!(error.contains(key), "{error}");
    }
}

/// Values that a damaged or hostile file may have anywhere.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0u64, 1, 7, 333, 334, u64::from(u32::MAX), 1 << 31, u64::MAX]).prop_map(Value::from),
        "\\PC{0,4}|<s>|a|Ġ|<reserved08706>|NFC|ByteLevel|Sequence|BPE".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!({ "type": "Sequence", "normalizers": [], "pretokenizers": [] })),
        Just(json!([["a", "b"], "a b", ["a"]])),
    ]
}

/// All places in a JSON value.
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{place}/{}", escape(key)), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{place}/{i}"), found))
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A file with anything anywhere is refused, or read, and then encodes without a panic.
    #[test]
    fn damaged_files_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
        text in "\\PC{0,20}|(<s>| |a|the){0,9}",
    ) {
        let mut json = json_of("mini/tokenizer.json");
        for (place, value) in changes {
            let mut found = Vec::new();
            // Whole vocabularies would hide the rest.
            for part in ["/added_tokens", "/normalizer", "/pre_tokenizer", "/model/vocab", "/model/merges", "/decoder"] {
                if let Some(part_value) = json.pointer(part) {
                    places(part_value, part, &mut found);
                }
            }
            found.extend(["/model/unk_token", "/model/fuse_unk", "/model/byte_fallback", "/version"].map(str::to_owned));
            if let Some(slot) = json.pointer_mut(&found[place.index(found.len())]) {
                *slot = value;
            }
        }
        match tokenizer(&json) {
            Ok(tokenizer) => for specials in [Specials::Plain, Specials::Parse] {
                if let Ok(ids) = tokenizer.encode(&text, specials) {
                    tokenizer.decode(&ids);
                }
            },
            Err(error) => prop_assert!(whole_message(&error).contains("folder/tokenizer.json"), "{error}"),
        }
    }
}
