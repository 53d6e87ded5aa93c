//! The original's tokens, labels, texts and errors, case by case.
//!
//! Tolerance: none. Everything here is integers and strings.
#![allow(clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use lumina_core::CodeGrid;
use lumina_testing::{cases, integers, json, lcg, part, report, sha256_i32};
use lumina_tokenizer::{
    Conversation, Encoded, Error, Malformed, Part, Record, Result, Specials, Task, TaskDefaults, TextTokenizer, UniRep,
    read_text_tokenizer,
};
use serde_json::{Value, json};

fn unirep() -> UniRep {
    UniRep::open(part("tokenizer")).expect("the reference's tokenizer")
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("`{key}` is no string in {case:.200}"))
}

fn number(case: &Value, key: &str) -> u32 {
    case[key].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_else(|| panic!("no `{key}` in {case:.200}"))
}

#[test]
fn texts() {
    let mut ran = 0;
    for folder in ["tokenizer", "tokenizer/mini"] {
        let tokenizer = TextTokenizer::open(part(folder)).expect("the reference's tokenizer");
        let bos = tokenizer.id_of("<s>").expect("`<s>`");
        for case in cases(&format!("{folder}/cases.json")) {
            let ids = tokenizer.encode(text(&case, "text"), Specials::Parse).expect("any text");
            assert_eq!(ids, integers::<u32>(&case["ids"]), "{case}");
            let with_bos: Vec<u32> = std::iter::once(bos).chain(ids.iter().copied()).collect();
            assert_eq!(with_bos, integers::<u32>(&case["ids_with_bos"]), "{case}");
            assert_eq!(tokenizer.decode(&ids), text(&case, "decoded"));
            ran += 1;
        }
    }
    report("tokenizer: texts", ran);
}

#[test]
fn random_ids() {
    let tokenizer = TextTokenizer::open(part("tokenizer")).expect("the reference's tokenizer");
    let cases = cases("tokenizer/decode_cases.json");
    for case in &cases {
        assert_eq!(tokenizer.decode(&integers::<u32>(&case["ids"])), text(case, "decoded"));
    }
    report("tokenizer: decoding of random ids", cases.len());
}

#[test]
fn vocabulary() {
    let unirep = unirep();
    let (tokenizer, vocabulary) = (unirep.text(), unirep.vocabulary());
    let special = json("tokenizer/special.json");
    assert_eq!(tokenizer.n_tokens(), number(&special, "len_tokenizer") as usize);
    tokenizer.check_fits(number(&special, "n_vocab_model") as usize).expect("it is of this model");

    let map = integers::<u32>(&json("tokenizer/image_token_map.json"));
    assert_eq!(vocabulary.image_tokens(), map);
    unirep.check_image_tokens(part("tokenizer/text_tokenizer.json")).expect("both files agree");

    let ids = special["ids"].as_object().expect("names and ids");
    for (name, id) in ids {
        assert_eq!(tokenizer.id_of(name).map(Value::from), Some(id.clone()), "{name}");
    }
    let grids = special["n_grids"].as_object().expect("cells and ids");
    for (cells, id) in grids {
        let cells = cells.parse().expect("a number of cells");
        assert_eq!(vocabulary.size_token(cells).map(Value::from), Some(id.clone()), "{cells} cells");
    }
    let info = &special["vocab_info"];
    for vocabulary in [vocabulary.as_ref(), &read_text_tokenizer(part("tokenizer/text_tokenizer.json")).expect("whole")]
    {
        assert_eq!(vocabulary.bos(), number(info, "bos_id"));
        assert_eq!(vocabulary.pad(), number(info, "pad_id"));
        assert_eq!(vocabulary.image_start(), number(info, "boi_id"));
        assert_eq!(vocabulary.image_end(), number(info, "eoi_id"));
        assert_eq!(vocabulary.turn_end(), number(info, "eot_id"));
        assert_eq!(vocabulary.n_codes(), number(info, "n_image_tokens") as usize);
    }

    let mini = TextTokenizer::open(part("tokenizer/mini")).expect("the reference's small tokenizer");
    let special = json("tokenizer/mini/special.json");
    assert_eq!(mini.id_of("<|image|>"), Some(number(&special, "image_symbol_id")));
    assert_eq!(mini.n_tokens(), number(&special, "n_in_file") as usize + 1);
    report("tokenizer: vocabulary", map.len() + ids.len() + grids.len());
}

fn encode(unirep: &UniRep, case: &Value, images: &[CodeGrid]) -> Result<Encoded> {
    let record = Record::from_json(&json!({ "conversations": case["conversations"] }).to_string())?;
    let encoded = unirep.encode_record(&record, images)?;
    if case["training_mode"] == true { encoded.for_training() } else { Ok(encoded) }
}

fn images(case: &Value) -> Vec<CodeGrid> {
    let images = case["images"].as_array().expect("a list of images");
    images.iter().map(|image| grid(image, integers(&image["codes"]))).collect()
}

/// The grid of an image whose size is given in pixels.
fn grid(image: &Value, codes: Vec<u32>) -> CodeGrid {
    CodeGrid::new(number(image, "height") / 16, number(image, "width") / 16, codes).expect("a code for each latent")
}

fn check_encoded(case: &Value, encoded: &Encoded) {
    assert_eq!(encoded.tokens, integers::<u32>(&case["expected_tokens"]), "{}", case["name"]);
    assert_eq!(encoded.tokens.len(), encoded.labels.len());
    if !case["expected_labels"].is_null() {
        assert_eq!(encoded.labels, integers::<i64>(&case["expected_labels"]), "{}", case["name"]);
    }
}

#[test]
fn conversations() {
    let unirep = unirep();
    let cases = cases("unirep/cases.json");
    for case in &cases {
        let images = images(case);
        let encoded = encode(&unirep, case, &images).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        check_encoded(case, &encoded);
        // The same, with the images put in by the caller instead of by the text. A record's text is parsed.
        if let Some(conversation) = built(case, &images) {
            let same = |conversation: &Conversation| {
                assert_eq!(unirep.encode(conversation).expect("the record was fine"), encoded, "{}", case["name"]);
            };
            same(&conversation.clone().specials(Specials::Parse));
            if !names_specials(&unirep, &conversation) {
                same(&conversation);
            }
        }
    }
    report("unirep: conversations", cases.len());
}

/// The conversation of a case, made without parsing; `None` where the case leaves the place of images open.
fn built(case: &Value, images: &[CodeGrid]) -> Option<Conversation> {
    let mut images = images.iter();
    let mut conversation = Conversation::new();
    for (index, turn) in case["conversations"].as_array()?.iter().enumerate() {
        let Some(value) = turn["value"].as_str() else { break };
        let mut parts = Vec::new();
        for (i, text) in value.split("<|image|>").enumerate() {
            if i > 0 {
                parts.push(Part::Image(images.next()?.clone()));
            }
            parts.push(Part::from(text));
        }
        conversation = if index % 2 == 0 { conversation.human(parts) } else { conversation.assistant(parts) };
    }
    images.next().is_none().then_some(conversation)
}

/// Whether a text of a conversation has the name of a special token, which plain text does not become.
fn names_specials(unirep: &UniRep, conversation: &Conversation) -> bool {
    let parts = conversation.turns.iter().flat_map(|turn| &turn.content.0);
    let texts = parts.filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
    let ids = texts.flat_map(|text| unirep.text().encode(text, Specials::Parse).expect("any text"));
    let mut names = ids.filter_map(|id| unirep.text().name_of(id));
    names.any(|name| lumina_core::is_special_name(&name))
}

/// The record of another data set, whose human names special tokens.
#[test]
fn a_record_that_names_special_tokens_is_parsed() {
    let unirep = unirep();
    let case = json!({
        "name": "special names", "training_mode": false,
        "conversations": [{ "from": "human", "value": "a<reserved08706> <|image|>IMGIMGAZ" }, { "from": "gpt", "value": "b" }],
    });
    let images = [CodeGrid::new(2, 2, vec![0; 4]).expect("a code for each")];
    let encoded = encode(&unirep, &case, &images).expect("a record");
    let conversation = built(&case, &images).expect("the image has a place");
    assert!(names_specials(&unirep, &conversation));
    assert_ne!(unirep.encode(&conversation).expect("plain"), encoded);
    assert_eq!(unirep.encode(&conversation.specials(Specials::Parse)).expect("parsed"), encoded);
}

#[test]
fn conversations_that_the_original_refuses() {
    let unirep = unirep();
    let cases = cases("unirep/errors.json");
    for case in &cases {
        let encoded = encode(&unirep, case, &images(case));
        match (case["error"] == true, encoded) {
            (false, Ok(encoded)) => check_encoded(case, &encoded),
            (true, Err(error)) => check_kind(case, &error),
            (_, other) => panic!("{}: {other:?}", case["name"]),
        }
    }
    report("unirep: refused conversations", cases.len());
}

/// Each exception of the original has its counterpart here.
fn check_kind(case: &Value, error: &Error) {
    let fits = match (text(case, "exception"), case["message"].as_str().unwrap_or_default()) {
        ("IndexError", _) => matches!(error, Error::EmptyConversation),
        ("KeyError", _) => matches!(error, Error::Record(_)),
        ("LabelAllZeroError", _) => matches!(error, Error::NothingToPredict),
        ("TypeError", _) => matches!(error, Error::OpenTurn { .. }),
        ("AssertionError", message) if message.contains("exists in text") => {
            matches!(error, Error::Placeholders { .. })
        }
        ("AssertionError", message) if message.contains("None") => matches!(error, Error::OpenTurn { .. }),
        ("AssertionError", "") => matches!(error, Error::Role { .. }),
        _ => false,
    };
    assert!(fits, "{}: {} {} became: {error}", case["name"], case["exception"], case["message"]);
}

#[test]
fn aspect_ratios() {
    let unirep = unirep();
    let cases = cases("unirep/aspect_ratios.json");
    for case in &cases {
        let n_codes = (number(case, "height") / 16 * (number(case, "width") / 16)) as usize;
        let codes = lcg(number(case, "lcg_seed")).take(n_codes).map(|state| state >> 19).collect();
        let image = grid(case, codes);
        let Encoded { tokens, labels } = encode(&unirep, case, &[image]).expect("an allowed size");
        let name = format!("{}x{}", case["width"], case["height"]);
        assert_eq!(tokens.len(), number(case, "n_tokens") as usize, "{name}");
        assert!(tokens.starts_with(&integers::<u32>(&case["head"])), "{name}");
        assert!(tokens.ends_with(&integers::<u32>(&case["tail"])), "{name}");
        assert_eq!(sha256_i32(tokens.iter().map(|&token| token as i32)), text(case, "tokens_sha256"), "{name}");
        if let Some(sha256) = case["labels_sha256"].as_str() {
            assert_eq!(sha256_i32(labels.iter().map(|&label| label as i32)), sha256, "{name}");
            let ignored = labels.iter().filter(|&&label| label == lumina_tokenizer::IGNORED).count();
            assert_eq!(ignored, number(case, "n_labels_ignored") as usize, "{name}");
        }
    }
    report("unirep: aspect ratios", cases.len());
}

#[test]
fn generated_streams() {
    let unirep = unirep();
    let cases = cases("unirep/decode.json");
    for case in &cases {
        let name = &case["name"];
        let mut tokens = integers::<u32>(&case["tokens"]);
        if text(case, "via") == "generate" && tokens.last() == Some(&unirep.vocabulary().turn_end()) {
            tokens.pop();
        }
        let strict = unirep.decode(&tokens, Malformed::Error);
        let partial = unirep.decode(&tokens, Malformed::Partial).expect("never fails");
        let malformed = partial.malformed().count() > 0;
        match &strict {
            Ok(decoded) => assert_eq!(decoded, &partial, "{name}"),
            Err(error) => assert!(matches!(error, Error::Malformed(_)), "{name}: {error}"),
        }
        assert_eq!(strict.is_err(), malformed, "{name}");
        if case["error"] == true {
            assert!(malformed, "{name}: the original fails");
            continue;
        }
        let expected = case["expected_images"].as_array().expect("a list of images");
        // The original hands these to a VQ decoder that cannot decode them; the run that recorded them had none.
        if expected.iter().any(|image| number(image, "h") == 0 || number(image, "w") == 0) {
            assert!(malformed, "{name}: an image without rows or columns");
            continue;
        }
        assert_eq!(partial.text(), text(case, "expected_text"), "{name}");
        let images: Vec<CodeGrid> = partial.images().cloned().collect();
        let grid = |image: &Value| CodeGrid::new(number(image, "h"), number(image, "w"), integers(&image["codes"]));
        let expected: Vec<CodeGrid> = expected.iter().map(|image| grid(image).expect("a whole grid")).collect();
        assert_eq!(images, expected, "{name}");
    }
    report("unirep: generated streams", cases.len());
}

#[test]
fn task_prompts() {
    let prompts = json("unirep/prompts.json");
    let entries: Vec<&Value> = prompts["tasks"].as_array().expect("a list of tasks").iter().collect();
    let of_task = |task: Task| entries.iter().filter(move |entry| entry["task"] == task.to_string());
    for task in Task::ALL {
        let spec = task.spec();
        for entry in of_task(task) {
            assert_eq!(spec.template, text(entry, "template"), "{task}");
            assert_eq!(json!(spec.images), entry["images"], "{task}");
        }
        assert!(of_task(task).any(|entry| samples_so(&spec.defaults, entry)), "{task}: {:?}", spec.defaults);
    }
    // Nothing but training data is without a task.
    for entry in &entries {
        assert!(entry["template"].is_null() || text(entry, "task").parse::<Task>().is_ok(), "{entry}");
    }
    report("unirep: task prompts", entries.len());
}

fn samples_so(defaults: &TaskDefaults, entry: &Value) -> bool {
    let sampling = &entry["sampling"];
    let is = |value: &Value, expected: f64| value.as_f64() == Some(expected);
    is(&sampling["cfg"], defaults.guidance_scale.into())
        && is(&sampling["image_top_k"], defaults.image_top_k as f64)
        && is(&sampling["text_top_k"], defaults.text_top_k as f64)
        && is(&sampling["temperature"], defaults.temperature.into())
        && is(&sampling["max_gen_len"], defaults.max_new_tokens as f64)
        && is(&entry["target_size_default"], defaults.target_size_px.into())
}
