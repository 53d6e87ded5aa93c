//! Bad input, and what is said about it.
#![allow(clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use std::path::Path;

use lumina_core::CodeGrid;
use lumina_testing::{part, whole_message};
use lumina_tokenizer::{Conversation, Malformed, Part, Record, Specials, TextTokenizer, UniRep};
use serde_json::{Value, json};

fn reference() -> Value {
    lumina_testing::json("tokenizer/tokenizer.json")
}

fn unirep() -> UniRep {
    UniRep::open(part("tokenizer")).expect("the reference's tokenizer")
}

fn tokenizer(json: &Value) -> lumina_tokenizer::Result<TextTokenizer> {
    TextTokenizer::from_json(json.to_string().as_bytes(), "folder/tokenizer.json")
}

/// What is said about the reference's tokenizer after a change to its file.
fn message(change: impl FnOnce(&mut Value)) -> String {
    let mut json = reference();
    change(&mut json);
    match tokenizer(&json).and_then(UniRep::new) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => whole_message(&error),
    }
}

#[track_caller]
fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

/// Gives tokens of a tokenizer's file names that mean nothing.
fn without(json: &mut Value, gone: impl Fn(&str) -> bool) {
    let rename = |name: String| if gone(&name) { format!("was {name}") } else { name };
    let vocab = json["model"]["vocab"].as_object_mut().expect("a map");
    *vocab = std::mem::take(vocab).into_iter().map(|(name, id)| (rename(name), id)).collect();
    for token in json["added_tokens"].as_array_mut().expect("a list") {
        token["content"] = rename(token["content"].as_str().expect("a name").to_owned()).into();
    }
    json["model"]["merges"] = json!([]);
}

#[test]
fn a_tokenizer_without_image_tokens() {
    let message = message(|json| without(json, |name| name.starts_with("IMGIMG")));
    says(&message, &["folder/tokenizer.json", "`IMGIMGAZ`", "Lumina-mGPT"]);
}

#[test]
fn a_tokenizer_without_row_end() {
    let message = message(|json| without(json, |name| name == "<reserved08799>"));
    says(&message, &["folder/tokenizer.json", "`<reserved08799>`", "end of an image row"]);
}

#[test]
fn a_tokenizer_with_a_gap_in_its_image_tokens() {
    let message = message(|json| without(json, |name| name == "IMGIMGBAZ"));
    says(&message, &["folder/tokenizer.json", "code 10"]);
}

#[test]
fn malformed_json() {
    let whole = reference().to_string();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        let error = TextTokenizer::from_json(&whole.as_bytes()[..cut], "folder/tokenizer.json").expect_err("it is cut");
        says(&whole_message(&error), &["folder/tokenizer.json", "JSON", "line 1"]);
    }
    for json in ["null", "[]", "3", "{}", r#"{"model":{}}"#, r#"{"model":[],"added_tokens":3}"#] {
        let error = TextTokenizer::from_json(json.as_bytes(), "folder/tokenizer.json").expect_err("it is no tokenizer");
        says(&whole_message(&error), &["folder/tokenizer.json", "/model/type", "absent", "`BPE`"]);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let error = TextTokenizer::open("no/such/folder").expect_err("it is not there");
    says(&whole_message(&error), &["no/such/folder", "cannot be read"]);
}

#[test]
fn tokenizers_of_another_kind() {
    says(&message(|json| json["model"]["type"] = "Unigram".into()), &["/model/type", "\"Unigram\"", "`BPE`"]);
    says(&message(|json| json["decoder"]["type"] = "Metaspace".into()), &["/decoder/type", "`ByteLevel`"]);
    says(&message(|json| json["decoder"] = Value::Null), &["/decoder/type", "absent"]);
    says(&message(|json| json["model"]["dropout"] = 0.1.into()), &["/model/dropout", "0.1"]);
    // Longer than the second half of every merge, on which the `tokenizers` crate would panic.
    says(
        &message(|json| json["model"]["continuing_subword_prefix"] = "##########".into()),
        &["/model/continuing_subword_prefix", "##########"],
    );
    says(&message(|json| json["model"]["vocab"]["a"] = u32::MAX.into()), &["/model/vocab", "below 2^31"]);
    says(&message(|json| json["model"]["vocab"]["a"] = "x".into()), &["/model/vocab", "below 2^31"]);
    says(&message(|json| json["model"]["vocab"] = json!([["a", 0.0]])), &["/model/vocab", "a list"]);
}

#[test]
fn parts_that_do_not_fit_together() {
    says(
        &message(|json| json["model"]["merges"] = json!(["a nothing-like-this"])),
        &["folder/tokenizer.json", "cannot be built", "nothing-like-this"],
    );
    says(
        &message(|json| {
            json["pre_tokenizer"] =
                json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false })
        }),
        &["folder/tokenizer.json", "cannot be built"],
    );
    let turn_end = unirep().vocabulary().turn_end();
    says(
        &message(|json| json["model"]["vocab"]["a"] = turn_end.into()),
        &["folder/tokenizer.json", &format!("id {turn_end}"), "`a`", "`<reserved08706>`"],
    );
}

#[test]
fn a_file_that_pads_or_truncates_changes_nothing() {
    let mut json = reference();
    json["truncation"] = json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    json["padding"] = json!({ "strategy": { "Fixed": 50 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>" });
    let (text, unirep) = ("a text of more than three tokens", unirep());
    let ids = tokenizer(&json).expect("a tokenizer").encode(text, Specials::Plain).expect("any text");
    assert_eq!(ids, unirep.text().encode(text, Specials::Plain).expect("any text"));
}

#[test]
fn an_unknown_token_that_ends_the_turn() {
    let mut json = reference();
    json["model"]["unk_token"] = "<reserved08706>".into();
    json["model"]["merges"] = json!([]);
    let name = json["model"]["vocab"]["a"].take();
    json["model"]["vocab"]["no letter"] = name;
    json["model"]["vocab"].as_object_mut().expect("a map").remove("a");
    let tokenizer = tokenizer(&json).expect("a tokenizer");
    let turn_end = tokenizer.vocabulary().expect("complete").turn_end();
    assert_eq!(tokenizer.encode("a", Specials::Parse).expect("any text"), [turn_end]);
    let error = tokenizer.encode("a", Specials::Plain).expect_err("it would be left out");
    says(&error.to_string(), &["folder/tokenizer.json", "0x61", "left out"]);
}

#[test]
fn a_vocabulary_smaller_than_the_ids_it_holds() {
    let unirep = unirep();
    let n_tokens = unirep.text().n_tokens();
    unirep.text().check_fits(n_tokens).expect("a row for each token");
    let error = unirep.text().check_fits(n_tokens / 2).expect_err("half the rows");
    says(&error.to_string(), &["tokenizer.json", &format!("ends at {}", n_tokens / 2), "one checkpoint"]);
}

#[test]
fn image_tokens_that_differ_between_the_files() {
    let unirep = unirep();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text_tokenizer.json");
    let check = |json: &Value| {
        std::fs::write(&file, json.to_string()).expect("writable");
        whole_message(&unirep.check_image_tokens(&file).expect_err("they differ"))
    };
    let mut json = lumina_testing::json("tokenizer/text_tokenizer.json");
    let vocab = &mut json["model"]["vocab"];
    let (first, second) = (vocab["IMGIMGDZ"].take(), vocab["IMGIMGFZ"].take());
    (vocab["IMGIMGDZ"], vocab["IMGIMGFZ"]) = (second.clone(), first.clone());
    says(&check(&json), &["code 3", &first.to_string(), &second.to_string(), "text_tokenizer.json"]);

    without(&mut json, |name| name.starts_with("IMGIMG") && name.len() > "IMGIMGDZ".len());
    json["model"]["vocab"]["IMGIMGDZ"] = first;
    json["model"]["vocab"]["IMGIMGFZ"] = second;
    says(&check(&json), &["code 10", "absent"]);
    says(&check(&json!({ "model": {} })), &["text_tokenizer.json", "missing field `vocab`"]);
    let error = unirep.check_image_tokens(Path::new("no/such/file")).expect_err("it is not there");
    says(&error.to_string(), &["no/such/file"]);
}

#[test]
fn images_that_the_stream_cannot_state() {
    let unirep = unirep();
    let message = |rows: u32, columns: u32, code: u32| {
        let grid = CodeGrid::new(rows, columns, vec![code; (rows * columns) as usize]).expect("a code for each");
        unirep.encode_image(&grid).expect_err("it cannot be stated").to_string()
    };
    says(&message(3, 2, 0), &["32x48", "multiples of 32"]);
    says(&message(2, 40_000, 0), &["640000x32", "20000 cells"]);
    let n_codes = unirep.vocabulary().n_codes();
    says(&message(2, 2, n_codes as u32), &[&format!("code {n_codes}"), "row 0, column 0", "has no token"]);
}

#[test]
fn malformed_images() {
    let unirep = unirep();
    let grid = CodeGrid::new(4, 2, (0..8).collect()).expect("a code for each");
    let whole = unirep.encode_image(&grid).expect("an allowed size");
    let end = unirep.vocabulary().image_end();
    let check = |tokens: &[u32], words: &[&str], rows: u32| {
        let error = unirep.decode(tokens, Malformed::Error).expect_err("it is malformed");
        says(&error.to_string(), words);
        let decoded = unirep.decode(tokens, Malformed::Partial).expect("never fails");
        let image = decoded.malformed().next().expect("it is reported");
        assert_eq!(image.rows.as_ref().map_or(0, CodeGrid::rows), rows);
        decoded.text()
    };
    check(&whole[..1], &["starts at token 0", "its height at token 1", "found the end of the stream", "Partial"], 0);
    check(&whole[..2], &["its width at token 2"], 0);
    check(&whole[..10], &["row 2, column 1 at token 10"], 2);
    check(&whole[..whole.len() - 1], &["the image's end"], 4);

    // What follows the next image-end is text again.
    let text = unirep.text().encode("after", Specials::Plain).expect("any text");
    let early_end = [&whole[..9], &[end], &text].concat();
    assert_eq!(check(&early_end, &["row 2, column 0 at token 9", &format!("found token {end}")], 2), "after");
    let row_too_many = [&whole[..whole.len() - 1], &whole[3..6], &[end], &text].concat();
    assert_eq!(check(&row_too_many, &["the image's end at token 15"], 4), "after");
    let no_row_end = [&whole[..5], &[end], &text].concat();
    assert_eq!(check(&no_row_end, &["the end of row 0 at token 5"], 1), "after");
}

#[test]
fn conversations_that_do_not_alternate() {
    let unirep = unirep();
    let message = |conversation| unirep.encode(&conversation).expect_err("it does not alternate").to_string();
    says(&message(Conversation::new()), &["no turns"]);
    says(&message(Conversation::new().assistant("hi")), &["turn 0", "`assistant`", "expected human"]);
    says(&message(Conversation::new().human("a").human("b")), &["turn 1", "`human`", "expected assistant"]);
    let nothing = unirep.encode(&Conversation::new().human("a")).expect("an open prompt").for_training();
    says(&nothing.expect_err("no answer").to_string(), &["nothing to predict"]);
}

#[test]
fn placeholders_that_do_not_match_the_images() {
    let unirep = unirep();
    let parsed = Conversation::new().human("a <|image|>").specials(Specials::Parse);
    says(&unirep.encode(&parsed).expect_err("no image").to_string(), &["1 `<|image|>`", "0 images"]);
    unirep.encode(&Conversation::new().human("a <|image|>")).expect("it is plain text");

    let grid = CodeGrid::new(2, 2, vec![0; 4]).expect("a code for each");
    let record = Record::from_json(r#"{"conversations":[{"from":"human","value":"a <|image|>"}]}"#).expect("a record");
    let error = unirep.encode_record(&record, &[grid.clone(), grid]).expect_err("an image too many");
    says(&error.to_string(), &["1 `<|image|>`", "2 images"]);
}

#[test]
fn records_of_another_form() {
    let message = |json: &str| whole_message(&Record::from_json(json).expect_err("no record"));
    says(&message("{"), &["`from` and `value`", "line 1"]);
    says(&message("{}"), &["missing field `conversations`"]);
    says(&message(r#"{"conversations":[{"value":"x"}]}"#), &["missing field `from`"]);
    says(&message(r#"{"conversations":[{"from":"human"}]}"#), &["missing field `value`"]);
    says(&message(r#"{"conversations":[],"image":3}"#), &["a path or a list of paths"]);
}

#[test]
fn where_a_record_names_its_images() {
    let image = |rest: &str| {
        let record = Record::from_json(&format!(r#"{{"conversations":[]{rest}}}"#)).expect("a record");
        record.image.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(image(""), [""; 0]);
    assert_eq!(image(r#","image":null"#), [""; 0]);
    assert_eq!(image(r#","image":"a.png""#), ["a.png"]);
    assert_eq!(image(r#","image":["a.png","b.png"]"#), ["a.png", "b.png"]);
    assert_eq!(image(r#","<|image|>":["a.png"],"image":["b.png"]"#), ["a.png"]);
}

#[test]
fn values_survive_json() {
    let grid = CodeGrid::new(2, 2, vec![0, 1, 2, 3]).expect("a code for each");
    let conversation = Conversation::new().human([Part::Image(grid), "what?".into()]).assistant("noise");
    let json = serde_json::to_string(&conversation).expect("plain data");
    assert_eq!(serde_json::from_str::<Conversation>(&json).expect("its own JSON"), conversation);
}
