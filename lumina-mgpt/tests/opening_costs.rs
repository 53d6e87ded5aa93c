//! Opening costs no more than a file says: numbers in small files make no large networks. A test binary of its own, as
//! it counts the allocations of a whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::path::Path;
use std::sync::Mutex;

use lumina_checkpoint::Checkpoint;
use lumina_checkpoint::gguf::{GgufWriter, Value};
use lumina_mgpt::{Compute, Dtype, ImageTokenizer, ModelConfig, Transformer, convert};
use lumina_testing::{Counting, part};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Counts are those of the whole process, so one test counts at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The error of opening, which may take 64 MB and 100,000 allocations: the reference's networks take a tenth.
fn refused<T>(open: impl FnOnce() -> Result<T, String>) -> String {
    let _alone = ALONE.lock().unwrap();
    let before = ALLOCATOR.count();
    let (result, peak) = ALLOCATOR.peak_of(open);
    let count = ALLOCATOR.count() - before;
    let message = result.err().expect("it does not fit");
    assert!(peak < 64 << 20 && count < 100_000, "{peak} bytes, {count} allocations: {message}");
    assert!(message.len() < 10_000, "{} bytes of message", message.len());
    message
}

fn open_transformer(checkpoint: &Checkpoint) -> Result<Transformer, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let json = checkpoint.document("config.json").map_err(|error| text(&error))?.unwrap();
    let config = ModelConfig::from_json(&json, "config.json".as_ref()).map_err(|error| text(&error))?;
    let architecture = config.resolve("config.json".as_ref()).map_err(|error| text(&error))?;
    Transformer::from_checkpoint(checkpoint, architecture, &Compute::cpu(), &|_| {}).map_err(|error| text(&error))
}

/// The reference's model under a config that says another number of layers.
#[test]
fn layers_that_are_not_there_are_not_made() {
    let source = part("model/prenorm");
    for (layers, says) in [(1 << 24, "`num_hidden_layers`"), (4096, "more; the rest was not looked at")] {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let file = folder.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["num_hidden_layers"] = layers.into();
        std::fs::write(&file, config.to_string()).unwrap();
        let message = refused(|| open_transformer(&Checkpoint::open(folder.path()).unwrap()));
        assert!(message.contains(says), "{message}");
    }
}

/// A GGUF file of some hundred bytes.
#[test]
fn blocks_of_a_gguf_that_are_not_there_are_not_made() {
    let folder = tempfile::tempdir().unwrap();
    for blocks in [1u32 << 24, 4096] {
        let file = folder.path().join("model.gguf");
        let entries = [
            ("general.architecture", Value::from("chameleon")),
            ("chameleon.vocab_size", Value::U32(8)),
            ("chameleon.context_length", Value::U32(8)),
            ("chameleon.embedding_length", Value::U32(4)),
            ("chameleon.feed_forward_length", Value::U32(4)),
            ("chameleon.attention.head_count", Value::U32(1)),
            ("chameleon.block_count", Value::U32(blocks)),
        ];
        let metadata = entries.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let shape = vec![4];
        let writer = GgufWriter::create(&file, metadata, [("output_norm.weight", Dtype::F32, &shape)]);
        let mut writer = writer.unwrap();
        writer.append(&[0; 16]).unwrap();
        writer.finish().unwrap();
        let message = refused(|| open_transformer(&convert::open(&file).unwrap()));
        assert!(message.contains("num_hidden_layers") || message.contains("not looked at"), "{message}");
    }
}

#[test]
fn blocks_of_an_image_tokenizer_that_are_not_there_are_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::copy(part("vq/vqgan.ckpt"), file("vqgan.ckpt")).unwrap();
    let yaml = std::fs::read_to_string(part("vq/vqgan.yaml")).unwrap();
    let line = yaml.lines().find(|line| line.trim().starts_with("num_res_blocks")).unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    for (blocks, says) in [(1u32 << 20, "`num_res_blocks`"), (1024, "the rest was not looked at")] {
        std::fs::write(file("vqgan.yaml"), yaml.replace(line, &format!("{indent}num_res_blocks: {blocks}"))).unwrap();
        let open = |folder: &Path| ImageTokenizer::open(folder, &Compute::cpu()).map_err(|error| error.to_string());
        let message = refused(|| open(folder.path()));
        assert!(message.contains(says), "{message}");
    }
}
