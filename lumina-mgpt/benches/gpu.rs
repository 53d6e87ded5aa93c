//! A transformer of random weights on a GPU: opening, the first pass, decoding, windows of several tokens, prompts.
//!
//! `cargo bench -p lumina-mgpt --features cuda --bench gpu -- cuda 7b bf16 q8 q4` (or `wgpu`; `1b` or `tiny`) writes a
//! checkpoint, 13.5 GB for `7b`, to the folder in `LUMINA_BENCH_DIR`, by default the system's for temporary files, and
//! uses the one that is there. Steps are held against copying memory on the device in the same run, and each time is
//! the fastest of several. `benches/gpu/run.py` runs it beside PyTorch.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

mod measure;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::{Architecture, Compute, KvCache, ModelConfig, Row, Transformer, Weights};
use lumina_nn::ops::AttentionPath;
use measure::random_bytes;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The ids of image tokens in the published vocabulary.
const IMAGE_TOKENS: std::ops::Range<usize> = 4..8196;

/// Tokens before a step that is timed: few, for it is weights that are measured.
const CONTEXT: usize = 16;

const STEPS: usize = 20;

fn architecture(shape: &str) -> Result<Architecture> {
    let (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads) = match shape {
        "7b" => (4096, 11008, 32, 32),
        "1b" => (2048, 5504, 16, 16),
        "tiny" => (256, 704, 2, 4),
        _ => return Err(format!("`{shape}` is none of 7b, 1b, tiny").into()),
    };
    let config = ModelConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        ..ModelConfig::default()
    };
    Ok(config.resolve("config.json".as_ref())?)
}

/// A checkpoint of this shape, written where it is not there yet.
fn checkpoint(shape: &str, architecture: &Architecture) -> Result<Checkpoint> {
    let folder = std::env::var_os("LUMINA_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let file = folder.join(format!("lumina-bench-{shape}.safetensors"));
    if !file.exists() {
        let shapes: BTreeMap<String, Vec<usize>> = Transformer::tensor_shapes(architecture, &Compute::cpu());
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let n_bytes = 2 * shape.iter().product::<usize>();
            (name, Dtype::BF16, shape, move || Ok(random_bytes(n_bytes).into()))
        });
        save_safetensors(&file, tensors)?;
    }
    Ok(Checkpoint::open(&file)?)
}

/// Bytes that a step reads: every weight once, but of the embedding one row and of the head the image tokens.
fn step_bytes(architecture: &Architecture, weights: Weights) -> f64 {
    let shapes = Transformer::tensor_shapes(architecture, &Compute::cpu());
    let bytes = |(name, shape): (&String, &Vec<usize>)| {
        let dtype = match weights {
            Weights::Q4 if !name.contains("lm_head") => Dtype::Q4_0,
            Weights::Q4 | Weights::Q8 => Dtype::Q8_0,
            _ => Dtype::BF16,
        };
        let rows = if name.contains("lm_head") { IMAGE_TOKENS.len() } else { shape[0] };
        dtype.bytes_of(&[rows, shape[1]]).unwrap_or(0) as f64
    };
    shapes.iter().filter(|(name, _)| name.contains("_proj") || name.contains("lm_head")).map(bytes).sum()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Passes of `rows` sequences of `tokens` tokens each, with logits of all of them.
fn step(model: &Transformer, rows: usize, tokens: usize) -> Result<Duration> {
    let context: Vec<u32> = (0..CONTEXT as u32).collect();
    let next: Vec<u32> = (0..tokens as u32).collect();
    let mut caches: Vec<KvCache> = (0..rows).map(|_| model.new_cache(CONTEXT + tokens)).collect();
    for cache in &mut caches {
        model.forward(&mut [Row::cached(&context, cache)])?;
    }
    let mut fastest = Duration::MAX;
    for _ in 0..STEPS {
        caches.iter_mut().for_each(|cache| cache.truncate(CONTEXT));
        let window = |cache| {
            let attention = AttentionPath::AsDecoding;
            Row { logits: 0..tokens, attention, ..Row::cached(&next, cache) }
        };
        let mut batch: Vec<Row<'_>> = caches.iter_mut().map(window).collect();
        let start = Instant::now();
        model.run(&mut batch, IMAGE_TOKENS)?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

/// A prompt, with the logits after its last token: the first time, and the fastest of the next.
fn prompt(model: &Transformer, tokens: usize) -> Result<(Duration, Duration)> {
    let prompt: Vec<u32> = (0..tokens as u32).collect();
    let mut times = Vec::new();
    for _ in 0..4 {
        let mut cache = model.new_cache(tokens);
        let start = Instant::now();
        model.run(&mut [Row::cached(&prompt, &mut cache)], IMAGE_TOKENS)?;
        times.push(start.elapsed());
    }
    Ok((times[0], times[1..].iter().copied().min().unwrap_or_default()))
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [device, shape, formats @ ..] = &words[..] else {
        println!("cargo bench -p lumina-mgpt --features cuda --bench gpu -- cuda|wgpu 7b|1b|tiny bf16|q8|q4 ...");
        return Ok(());
    };
    let base: Compute = device.parse()?;
    base.check()?;
    let architecture = architecture(shape)?;
    let checkpoint = checkpoint(shape, &architecture)?;
    let copied = base.copy_bandwidth()?;
    println!("| {base}, {shape} | |\n| --- | --- |");
    println!("| memory, read and written | {:.0} GB/s |", copied / 1e9);
    for format in formats {
        let weights = if format == "bf16" { Weights::AsStored } else { format.parse()? };
        let compute = base.clone().weights(weights);
        let start = Instant::now();
        let model = Transformer::from_checkpoint(&checkpoint, architecture.clone(), &compute, &|_| {})?;
        compute.sync()?;
        let opened = start.elapsed();
        println!("| {format}: open | {:.2} s |", opened.as_secs_f64());
        let (first, _) = prompt(&model, 100)?;
        println!("| {format}: first pass, 100 tokens, kernels compiled | {:.2} s |", first.as_secs_f64());
        let bytes = step_bytes(&architecture, weights);
        for (rows, tokens) in [(1, 1), (2, 1), (4, 1), (8, 1), (2, 16), (2, 32), (2, 64)] {
            let time = step(&model, rows, tokens)?;
            let share = bytes / time.as_secs_f64() / copied;
            println!("| {format}: {rows} × {tokens} | {} ({:.0} % of memory) |", milliseconds(time), share * 100.0);
        }
        for tokens in [512, 2048] {
            let (_, time) = prompt(&model, tokens)?;
            println!("| {format}: prompt of {tokens} | {} |", milliseconds(time));
        }
    }
    Ok(())
}
