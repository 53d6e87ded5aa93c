//! Fuzz targets of everything that reads what the program did not write: each takes bytes, and must neither panic, nor
//! abort, nor take more time or memory than a file of that size may.
//!
//! - `fuzz/run 60` runs each target for 60 seconds with libFuzzer, on a nightly compiler with `cargo-fuzz`.
//! - `cargo test -p lumina-fuzz` feeds the kept corpus and some thousand changes of it to each target, on any compiler.

mod tokenizer_grammar;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_mgpt::{ModelConfig, Request, convert};
use lumina_tokenizer::{Malformed, Record, TextTokenizer, UniRep};
use lumina_train::data::{IndexEntry, Records, TokenShard};
use lumina_vq::VqConfig;
use lumina_vq::preprocess::{InputImage, Preprocessor};

/// A target: its name, which is also that of its corpus, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("image", image),
    ("safetensors", safetensors),
    ("torch", torch),
    ("gguf", gguf),
    ("tokenizer", tokenizer),
    ("vqgan_yaml", vqgan_yaml),
    ("config", config),
    ("request", request),
    ("shard", shard),
    ("records", records),
    ("unirep", unirep),
];

/// The most bytes of text that a target passes on: time is measured on what a file may ask for, not on long inputs.
const MAX_TEXT: usize = 1 << 12;

/// Decodes an image file, and prepares it for the image tokenizer.
pub fn image(data: &[u8]) {
    if let Ok(image) = InputImage::from_bytes(data) {
        drop(Preprocessor::new(64).and_then(|preprocessor| preprocessor.prepare(&image)));
    }
}

/// Reads all tensors and documents of a checkpoint.
fn read(checkpoint: &Checkpoint) {
    for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let _ = (view.bytes(), view.dtype() == Dtype::F32);
    }
    for name in ["config.json", "tokenizer.json"] {
        drop(checkpoint.document(name));
    }
}

/// Opens a safetensors file.
pub fn safetensors(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes("model.safetensors", data.to_vec()) {
        read(&checkpoint);
    }
}

/// Opens a torch file: a zip archive with a pickle.
pub fn torch(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes("model.ckpt", data.to_vec()) {
        read(&checkpoint);
    }
}

/// Opens a GGUF file, as a container and as a model.
pub fn gguf(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes("model.gguf", data.to_vec()) {
        read(&checkpoint);
        if let Ok(model) = convert::as_model(checkpoint) {
            read(&model);
        }
    }
}

/// Opens a `tokenizer.json` that a grammar makes of the bytes, or, where they begin with `{`, the bytes themselves; and
/// encodes and decodes a text with it.
pub fn tokenizer(data: &[u8]) {
    let (json, text) = match data.first() {
        Some(b'{') => (data.to_vec(), "The quick brown fox: 123, 4.5 <|image|> \u{e9}\u{301}\u{10348}".to_owned()),
        _ => tokenizer_grammar::tokenizer(data),
    };
    let text: String = text.chars().take(MAX_TEXT / 4).collect();
    if let Ok(tokenizer) = TextTokenizer::from_json(&json, "tokenizer.json")
        && let Ok(ids) = tokenizer.encode(&text, Default::default())
    {
        drop(tokenizer.decode(&ids));
    }
}

/// Reads a `vqgan.yaml`.
pub fn vqgan_yaml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(VqConfig::from_yaml(text, Path::new("vqgan.yaml")));
    }
}

/// Reads a `config.json`, and checks it.
pub fn config(data: &[u8]) {
    let file = Path::new("config.json");
    if let Ok(config) = ModelConfig::from_json(data, file) {
        drop(config.resolve(file));
    }
    if let Ok(value) = serde_json::from_slice(data) {
        drop(VqConfig::from_json(&value, file));
    }
}

/// Reads a request as a client sends it, and makes tokens of it.
pub fn request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data)
        && let Ok(conversation) = request.prompt.conversation()
    {
        with_unirep(|unirep| drop(unirep.encode(&conversation)));
    }
}

/// A file of these bytes, in a folder of this thread.
fn with_file(name: &str, data: &[u8], use_file: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: Option<tempfile::TempDir> = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).ok();
    }
    FOLDER.with(|folder| {
        let Some(folder) = folder else { return };
        let file: PathBuf = folder.path().join(name);
        if std::fs::write(&file, data).is_ok() {
            use_file(&file);
        }
    });
}

/// Reads a shard of tokens whose index is the first line, and its items.
pub fn shard(data: &[u8]) {
    let (index, shard) = data.split_at(data.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1));
    with_file("0-of-1-record.jsonl", index, |file| {
        let entries = IndexEntry::read_all(file).map(|(entries, _)| entries).unwrap_or_default();
        with_file("0-of-1.tokens", shard, |file| {
            if let Ok(shard) = TokenShard::open(file) {
                let places = entries.iter().filter_map(|entry| Some((entry.offset?, entry.len)));
                places.chain([(8, 4)]).for_each(|(offset, len)| drop(shard.item(offset, len)));
            }
        });
    });
}

/// Reads a file of records: lines, a list, and one record alone.
pub fn records(data: &[u8]) {
    for name in ["records.jsonl", "records.json"] {
        with_file(name, data, |file| {
            if let Ok(records) = Records::open(file) {
                (0..records.len().min(100)).for_each(|index| drop(records.load(index)));
            }
        });
    }
    if let Ok(text) = std::str::from_utf8(data) {
        drop(Record::from_json(text));
    }
}

/// The tokenizer of the tests.
fn with_unirep(use_unirep: impl FnOnce(&UniRep)) {
    const JSON: &[u8] = include_bytes!("../../tests/reference/tokenizer/tokenizer.json");
    thread_local! {
        static UNIREP: OnceCell<Option<UniRep>> = const { OnceCell::new() };
    }
    UNIREP.with(|unirep| {
        let made = || TextTokenizer::from_json(JSON, "tokenizer.json").and_then(UniRep::new).ok();
        unirep.get_or_init(made).as_ref().map(use_unirep)
    });
}

/// Decodes tokens, whole and as a stream, which must agree on the images.
///
/// # Panics
/// Where they do not agree, which is what the fuzzer looks for.
pub fn unirep(data: &[u8]) {
    with_unirep(|unirep| {
        let special: Vec<u32> = [unirep.vocabulary().image_start(), unirep.vocabulary().image_end()]
            .into_iter()
            .chain([unirep.vocabulary().row_end(), unirep.vocabulary().turn_end()])
            .collect();
        let tokens: Vec<u32> = data
            .chunks(2)
            .take(MAX_TEXT)
            .map(|pair| match *pair {
                // Tokens that lay images out, more often than chance would have them.
                [choice, _] if choice < 32 => special[usize::from(choice) % special.len()],
                [choice, cells] if choice < 48 => {
                    unirep.vocabulary().size_token(u32::from(cells) % 8 + 1).unwrap_or_default()
                }
                [choice, code] if choice < 160 => {
                    unirep.vocabulary().token_of_code(u32::from(code)).unwrap_or_default()
                }
                [high, low] => u32::from(high) << 8 | u32::from(low),
                _ => u32::MAX,
            })
            .collect();
        let whole = unirep.decode(&tokens, Malformed::Partial);
        drop(unirep.decode(&tokens, Malformed::Error));
        let mut stream = unirep.stream();
        tokens.iter().for_each(|&token| drop(stream.push(token)));
        drop(stream);
        if let Ok(decoded) = whole {
            assert!(
                decoded.images().all(|grid| grid.codes().len() <= tokens.len()),
                "an image of more codes than tokens"
            );
        }
    });
}
