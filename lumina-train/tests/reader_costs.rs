//! What opening takes on the worst inputs of the largest size that is read: less than 1 GB each, or it is refused. A
//! test binary of its own, as it counts the allocations of a whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use lumina_checkpoint::{Adapter, Checkpoint};
use lumina_core::Limits;
use lumina_mgpt::{ModelConfig, convert};
use lumina_testing::{Counting, own};
use lumina_tokenizer::TextTokenizer;
use lumina_train::data::{Dataset, Records, TokenItems};
use lumina_vq::VqConfig;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Bytes are those of the whole process, so one test counts at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of the largest document, and of the largest header.
const DOCUMENT: usize = 60 << 20;

/// The error of opening, if it is refused. It may take 1 GB.
fn cost<T, E: std::fmt::Display>(what: &str, open: impl FnOnce() -> Result<T, E>) -> Option<String> {
    let (result, peak) = ALLOCATOR.peak_of(open);
    assert!(peak < 1 << 30, "{what}: {peak} bytes");
    result.err().map(|error| error.to_string())
}

/// [`cost`] of what must be refused at once, with a message of these words.
fn refused<T, E: std::fmt::Display>(what: &str, words: &str, open: impl FnOnce() -> Result<T, E>) {
    let (result, peak) = ALLOCATOR.peak_of(open);
    assert!(peak < 64 << 20, "{what}: {peak} bytes");
    let message = result.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains(words) && message.len() < 1000, "{what}: {message}");
}

/// Different names of `length` letters.
fn name(mut number: usize, length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz?!%&+~";
    let mut next = || {
        let letter = LETTERS[number % 32];
        number /= 32;
        char::from(letter)
    };
    (0..length).map(|_| next()).collect()
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut list = String::new();
    for item in items {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&item);
    }
    list
}

/// As many entries of a map as `bytes` have room for.
fn entries(bytes: usize, value: &str) -> String {
    let n = bytes / (9 + value.len());
    list((0..n).map(|number| format!("\"{}\":{value}", name(number, 5))))
}

/// Maps within maps, each of which takes 640 bytes in memory.
fn maps(bytes: usize) -> String {
    let one = ["{\"\":".repeat(100), "0".to_owned(), "}".repeat(100)].concat();
    format!("[{}]", vec![one.as_str(); bytes / (one.len() + 1)].join(","))
}

/// The small tokenizer with more added tokens, more of a vocabulary, other merges, and more keys.
fn tokenizer(added: &str, vocabulary: &str, merges: &str, more: &str) -> String {
    let json = lumina_testing::json_file(&own("tokenizer/mini/tokenizer.json"));
    let inner = |pointer: &str| {
        let text = json.pointer(pointer).unwrap().to_string();
        text[1..text.len() - 1].to_owned()
    };
    let joined = |first: String, more: &str| if more.is_empty() { first } else { format!("{first},{more}") };
    format!(
        r#"{{"version":"1.0","normalizer":{},"pre_tokenizer":{},"decoder":{},"added_tokens":[{}],"model":{{"type":"BPE",
        "vocab":{{{}}},"merges":[{}]}}{more}}}"#,
        json["normalizer"],
        json["pre_tokenizer"],
        json["decoder"],
        joined(inner("/added_tokens"), added),
        joined(inner("/model/vocab"), vocabulary),
        if merges.is_empty() { inner("/model/merges") } else { merges.to_owned() },
    )
}

#[test]
fn tokenizers() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |json: &str| TextTokenizer::from_json(json.as_bytes(), "tokenizer.json");

    // Half a million tokens, each merged in all ways from two shorter ones. Pairs take more memory than texts.
    let words: Vec<String> = (2..=4)
        .flat_map(|length| (0..32usize.pow(length as u32)).map(move |number| name(number, length)))
        .take(500_000)
        .collect();
    let vocabulary = list(words.iter().zip(1_000_000..).map(|(word, id)| format!("\"{word}\":{id}")));
    let pairs = words.iter().flat_map(|word| (1..word.len()).map(|at| word.split_at(at)));
    let merges = list(pairs.take(900_000).map(|(left, right)| format!("[\"{left}\",\"{right}\"]")));
    let letters =
        list((0..32).map(|number| name(number, 1)).zip(3_000_000..).map(|(word, id)| format!("\"{word}\":{id}")));
    let json = tokenizer("", &format!("{vocabulary},{letters}"), &merges, "");
    assert_eq!(cost("merges", || open(&json)), None);

    let added = |n: usize| {
        let token = |number: usize| {
            let content = format!("{}{}", name(number, 5), name(number * 7919, 20));
            format!(
                r#"{{"id":0,"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,
                "special":false}}"#
            )
        };
        list((0..n).map(token))
    };
    assert_eq!(cost("added tokens", || open(&tokenizer(&added(250_000), "", "", ""))), None);
    assert!(cost("more added tokens", || open(&tokenizer(&added(301_000), "", "", ""))).is_some());

    // What nobody reads is dropped.
    assert_eq!(cost("a key of no use", || open(&tokenizer("", "", "", &format!(",\"x\":{}", maps(2 << 20))))), None);
    let json = tokenizer("", "", "", &format!(",\"x\":{}", maps(DOCUMENT)));
    refused("maps", "its JSON takes up to", || open(&json));
}

#[test]
fn documents_of_json() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let deep = format!("{{\"x\":{}}}", maps(DOCUMENT));
    let wide = format!("{{\"vocabulary_map\":{{{}}}}}", entries(DOCUMENT, "0"));
    let numbers = format!("{{\"x\":[{}0]}}", "0,".repeat(DOCUMENT / 2));
    for json in [&deep, &wide, &numbers] {
        let config = || ModelConfig::from_json(json.as_bytes(), "config.json".as_ref());
        refused("config.json", "its JSON takes up to", config);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("text_tokenizer.json"), json).unwrap();
        let vocabulary = || lumina_tokenizer::read_text_tokenizer(file("text_tokenizer.json"));
        let (result, peak) = ALLOCATOR.peak_of(vocabulary);
        assert!(peak < 128 << 20 && result.is_err_and(|error| error.to_string().contains("its JSON takes up to")));
        let files = || [(Adapter::CONFIG, json.clone().into_bytes())];
        assert!(cost(Adapter::CONFIG, || Adapter::from_files("adapter", files())).is_some());
    }
    let json = format!("{{\"vocabulary_map\":{{{}}}}}", entries(DOCUMENT / 4, "0"));
    assert_eq!(cost("names", || ModelConfig::from_json(json.as_bytes(), "config.json".as_ref())), None);

    for (key, value) in [
        ("rank_pattern", format!("{{{}}}", entries(1 << 20, "4"))),
        ("target_modules", { format!("[{}\"\"]", "\"a\",".repeat(1 << 20)) }),
    ] {
        let config = format!(r#"{{"peft_type":"LORA","r":8,"lora_alpha":16,"{key}":{value}}}"#);
        let error = cost(key, || Adapter::from_files("adapter", [(Adapter::CONFIG, config.into_bytes())])).unwrap();
        assert!(error.contains(key) && error.contains("names, more than 4096") && error.len() < 1000, "{error}");
    }
}

/// An index names shards, which an index of a folder in memory need not have.
#[test]
fn indexes_of_shards() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |json: String| Checkpoint::from_files("model", [("model.safetensors.index.json", json.into_bytes())]);
    let index = |bytes| format!("{{\"weight_map\":{{{}}}}}", entries(bytes, "\"a.safetensors\""));
    let error = cost("an index", || open(index(DOCUMENT / 2))).unwrap();
    assert!(error.contains("a.safetensors"), "{error}");
    let (json, words) = (format!("{{\"weight_map\":{{{}}}}}", entries(DOCUMENT, "\"\"")), "its JSON takes up to");
    refused("a longer index", words, || open(json));
}

#[test]
fn yaml() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut aliases = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for number in 1..40 {
        let list = vec![format!("*a{}", number - 1); 9].join(",");
        writeln!(aliases, "a{number}: &a{number} [{list}]").unwrap();
    }
    let keys = (0..DOCUMENT / 9).map(|number| name(number, 5) + ": 1\n").collect::<String>();
    let text = ["x: \"", &"a".repeat(DOCUMENT), "\"\n"].concat();
    let deep = ["model: ", &"[".repeat(DOCUMENT)].concat();
    for (what, yaml) in [("aliases", aliases), ("keys", keys), ("a text", text), ("depth", deep)] {
        assert!(cost(what, || VqConfig::from_yaml(&yaml, "vqgan.yaml".as_ref())).is_some(), "{what}");
    }
}

#[test]
fn headers_of_safetensors() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let tensor = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let shape = |bytes: usize| {
        format!(r#"{{"a":{{"dtype":"U8","shape":[{}0],"data_offsets":[0,0]}}}}"#, "1,".repeat(bytes / 2))
    };
    for (what, header) in [
        ("tensors", format!("{{{}}}", entries(95_000_000, tensor))),
        ("metadata", format!("{{\"__metadata__\":{{{}}}}}", entries(95_000_000, "\"\""))),
        ("axes", shape(95_000_000)),
        ("maps", format!("{{\"a\":{}}}", maps(95_000_000))),
    ] {
        let file = file(&header);
        refused(what, "its JSON takes up to", || Checkpoint::from_bytes("model.safetensors", file));
    }
    for (what, header) in [
        ("fewer tensors", format!("{{{}}}", entries(15_000_000, tensor))),
        ("less metadata", format!("{{\"__metadata__\":{{{}}}}}", entries(18_000_000, "\"\""))),
        ("fewer axes", shape(8_000_000)),
    ] {
        let file = file(&header);
        cost(what, || Checkpoint::from_bytes("model.safetensors", file));
    }
}

/// A GGUF file without tensors, of entries that are written already.
fn gguf(n_entries: usize, entries: &[u8]) -> Vec<u8> {
    let counts = [0u64.to_le_bytes(), (n_entries as u64).to_le_bytes()].concat();
    let mut file = [&b"GGUF\x03\0\0\0"[..], &counts, entries].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file
}

fn gguf_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An array of arrays or texts, `n` times the same.
fn gguf_array(key: &str, kind: u32, n: usize, element: &[u8]) -> Vec<u8> {
    let head = [gguf_text(key), 9u32.to_le_bytes().to_vec(), kind.to_le_bytes().to_vec()].concat();
    [&head[..], &(n as u64).to_le_bytes(), &element.repeat(n)].concat()
}

#[test]
fn headers_of_gguf() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |file: Vec<u8>| Checkpoint::from_bytes("model.gguf", file);
    let n = DOCUMENT / 18;
    let entry = |number: usize| [gguf_text(&name(number, 5)), vec![0, 0, 0, 0, 1]].concat();
    let file = gguf(n, &(0..n).flat_map(entry).collect::<Vec<_>>());
    refused("entries", "entries of metadata", || open(file));

    let number = [&0u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[7]].concat();
    let list = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &number].concat();
    for (what, kind, element) in [("texts", 8, gguf_text("a")), ("arrays", 9, number), ("arrays of arrays", 9, list)] {
        let file = gguf(1, &gguf_array("a", kind, DOCUMENT / element.len(), &element));
        assert_eq!(cost(what, || open(file)), None, "{what}");
        let file = gguf(1, &gguf_array("a", kind, 90_000_000 / element.len(), &element));
        assert!(cost(what, || open(file)).unwrap().contains("a header of more than"), "{what}");
    }

    // A vocabulary is part of the config that is made of such a file.
    let text = |key: &str, text: &str| [gguf_text(key), 8u32.to_le_bytes().to_vec(), gguf_text(text)].concat();
    let number = |key: &str| [gguf_text(key), vec![4, 0, 0, 0, 4, 0, 0, 0]].concat();
    let mut entries = text("general.architecture", "chameleon");
    let keys = ["context_length", "embedding_length", "feed_forward_length", "attention.head_count", "block_count"];
    keys.iter().for_each(|key| entries.extend(number(&format!("chameleon.{key}"))));
    let n = DOCUMENT / 13;
    entries.extend(gguf_array("tokenizer.ggml.tokens", 8, 0, &[]));
    let at = entries.len() - 8;
    entries[at..].copy_from_slice(&(n as u64).to_le_bytes());
    (0..n).for_each(|number| entries.extend(gguf_text(&name(number, 5))));
    let model = convert::as_model(open(gguf(7, &entries)).unwrap()).unwrap();
    refused("a vocabulary", "more than the 1048576 of any model", || model.document("config.json"));
}

/// A zip archive whose entries are stored, with its directory in the form for many.
fn zip(entries: &[(String, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let (at, length) = ((file.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes());
        let head = [&[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0][..], &length, &length].concat();
        let head = [&head[..], &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        file.extend([b"PK\x03\x04", &head[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\x14\0", &head[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let (start, n) = (file.len() as u64, entries.len() as u64);
    let end = start + directory.len() as u64;
    file.extend(&directory);
    file.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
    [n, n, directory.len() as u64, start].iter().for_each(|number| file.extend(number.to_le_bytes()));
    file.extend([&b"PK\x06\x07\0\0\0\0"[..], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    file.extend([&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0, 0]].concat());
    file
}

#[test]
fn files_saved_by_torch() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // One tensor of one element and sixteen axes, under many names.
    let ones = b"K\x01".repeat(16);
    let storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0";
    let tensor =
        [&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], storage, b"(", &ones, b"t(", &ones, b"t\x89}tRq\x010"].concat();
    let pickle = |names: usize| {
        let mut pickle = [&b"\x80\x02}"[..], &tensor].concat();
        for number in 0..names {
            pickle.extend([&b"\x8c\x05"[..], name(number, 5).as_bytes(), b"h\x01s"].concat());
        }
        pickle.push(b'.');
        pickle
    };
    let file = |pickle: &[u8]| zip(&[("a/data.pkl".to_owned(), pickle), ("a/data/0".to_owned(), &[0; 4])]);
    let open = |file: Vec<u8>| Checkpoint::from_bytes("model.pt", file);
    let checkpoint = open(file(&pickle(1000))).unwrap();
    assert_eq!((checkpoint.names().count(), checkpoint.get("aaaaa").unwrap().shape().len()), (1000, 16));
    let error = cost("names", || open(file(&pickle(1_000_000)))).unwrap();
    assert!(error.contains("1000000 tensors, more than the 131072"), "{error}");

    let many = (0..2_000_000).map(|number| (name(number, 5), &b""[..]));
    let mut entries = vec![("a/data.pkl".to_owned(), &b"\x80\x02}."[..])];
    entries.extend(many);
    let file = zip(&entries);
    drop(entries);
    let error = cost("entries", || open(file)).unwrap();
    assert!(error.contains("not a whole zip archive"), "{error}");
}

#[test]
fn records_and_indexes_of_items() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.jsonl");
    let write = |bytes: Vec<u8>| std::fs::write(&file, bytes).unwrap();
    let lines = 40_000_000;
    write(b"1\n".repeat(lines));
    refused_records("lines", &file);
    write([&b"["[..], &b"1,".repeat(lines), b"1]"].concat());
    refused_records("a list", &file);
    // Records of a few bytes more are as many as there are.
    write(b"{\"conversations\":[]}\n".repeat(5_000_000));
    assert_eq!(Records::open(&file).unwrap().len(), 5_000_000);
    let long = Limits::default().document_bytes as usize;
    write([&b"{\"conversations\":[],\"x\":\""[..], &b"x".repeat(long), b"\"}\n"].concat());
    let records = Records::open(&file).unwrap();
    refused("a long record", "more than the limit", || records.load(0));
    write([b"{\"conversations\":[],\"x\":", maps(DOCUMENT).as_bytes(), b"}\n"].concat());
    let records = Records::open(&file).unwrap();
    refused("a record of maps", "its JSON takes up to", || records.load(0));

    // One image that a record names many times.
    image::GrayImage::new(9500, 9500).save(folder.path().join("large.png")).unwrap();
    let images = vec!["\"large.png\""; 100].join(",");
    write(format!("{{\"conversations\":[],\"image\":[{images}]}}\n").into_bytes());
    let records = Records::open(&file).unwrap();
    let message = cost("images", || records.load(0)).unwrap();
    assert!(message.contains("record 0 have more than 357913940 pixels together"), "{message}");

    // An index takes its file and at most twice as much.
    let line = b"{\"file\":\"0.pkl\",\"len\":0,\"id\":0}\n";
    let n = 3_000_000;
    for list in [false, true] {
        let bytes = match list {
            false => line.repeat(n),
            true => [&b"["[..], &[&line[..line.len() - 1], b","].concat().repeat(n - 1), &line[..line.len() - 1], b"]"]
                .concat(),
        };
        let size = bytes.len();
        write(bytes);
        let (items, peak) = ALLOCATOR.peak_of(|| TokenItems::open(&file));
        assert_eq!(items.unwrap().len(), n);
        assert!(peak < 8 * size, "{peak} bytes for {size}");
    }
}

/// A data config can name one index many times.
#[test]
fn data_configs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (index, config) = (folder.path().join("index.jsonl"), folder.path().join("data.yaml"));
    std::fs::write(&index, b"{\"file\":\"0.pkl\",\"len\":0,\"id\":0}\n".repeat(20_000)).unwrap();
    let yaml = |n: usize| ["META:\n", &"- {path: index.jsonl}\n".repeat(n)].concat();
    std::fs::write(&config, yaml(4000)).unwrap();
    let (dataset, peak) = ALLOCATOR.peak_of(|| Dataset::open(&config));
    assert_eq!(dataset.unwrap().len(), 80_000_000);
    assert!(peak < 64 << 20, "{peak} bytes");
    std::fs::write(&config, yaml(5000)).unwrap();
    refused("sources", "5000 sources, more than 4096", || Dataset::open(&config));
}

fn refused_records(what: &str, file: &Path) {
    let (result, peak) = ALLOCATOR.peak_of(|| Records::open(file));
    let message = result.err().unwrap().to_string();
    assert!(peak < 256 << 20 && message.contains("too short to be records"), "{what}: {peak} bytes: {message}");
}
