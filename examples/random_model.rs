//! `cargo run --release --example random_model -- out/random-7b`
//!
//! Writes a checkpoint of any size with random bf16 weights and the published layout, to measure speed and memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use lumina_checkpoint::{Dtype, save_safetensors};
use lumina_examples::{say, test_data};
use lumina_mgpt::{Compute, ModelConfig, Transformer};
use lumina_tokenizer::TextTokenizer;
use serde_json::{Value, json};

/// Writes a checkpoint with random bf16 weights; by default of the size of Lumina-mGPT 7B, 14 GB.
#[derive(Parser)]
struct Args {
    /// The folder to create; its tokenizer is that of the test data
    folder: PathBuf,
    /// Number of layers
    #[arg(long, value_name = "N", default_value_t = 32)]
    layers: usize,
    /// Hidden size
    #[arg(long, value_name = "N", default_value_t = 4096)]
    hidden: usize,
    /// Intermediate size of the MLP
    #[arg(long, value_name = "N", default_value_t = 11_008)]
    intermediate: usize,
    /// Number of query heads
    #[arg(long, value_name = "N", default_value_t = 32)]
    heads: usize,
    /// Number of key and value heads [default: that of query heads]
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Vocabulary size
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    vocab: usize,
    /// Longest context in tokens
    #[arg(long, value_name = "N", default_value_t = 10_240)]
    context: usize,
    /// Normalise the outputs of attention and MLP, like the 34B model
    #[arg(long)]
    swin_norm: bool,
    /// Largest size of a shard in gigabytes
    #[arg(long, value_name = "GB", default_value_t = 5.0)]
    shard_gb: f64,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Names and shapes of the tensors of a shard.
type Shard = Vec<(String, Vec<usize>)>;

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let folder = &args.folder;
    if folder.exists() {
        return Err(anyhow!("{}: already exists; choose another folder, or remove it", folder.display()).into());
    }
    let file = folder.join("config.json");
    let config = config(&args)?;
    let architecture = serde_json::from_value::<ModelConfig>(config.clone())?.resolve(&file)?;
    TextTokenizer::open(test_data("model/prenorm"))?.check_fits(architecture.vocab_size())?;

    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
        let from = test_data("model/prenorm").join(file);
        fs::copy(&from, folder.join(file)).with_context(|| format!("{}: cannot be copied", from.display()))?;
    }
    fs::write(&file, config.to_string())?;
    let compute = Compute::available().into_iter().next().context("no backend is compiled in")?;
    let (shards, total_bytes) = shards(Transformer::tensor_shapes(&architecture, &compute), args.shard_gb);
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")?;
    let bar = ProgressBar::new(total_bytes).with_style(style);
    let mut weight_map = BTreeMap::new();
    let mut counter = args.seed << 40;
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        let tensors = shard.iter().map(|(tensor, shape)| {
            let (first, n_bytes) = (counter, bytes(shape));
            counter += n_bytes / 8 + 1;
            let bar = &bar;
            let fill = move || {
                bar.inc(n_bytes);
                Ok(values(tensor, n_bytes as usize, first).into())
            };
            (tensor, Dtype::BF16, shape, fill)
        });
        save_safetensors(folder.join(&name), tensors)?;
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor, name.clone())));
    }
    let index = json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    bar.finish_and_clear();
    say!("wrote {}: {} in {} shards", folder.display(), DecimalBytes(total_bytes), shards.len())?;
    say!("it has no image tokenizer: pass one with `--image-tokenizer`, such as {}", test_data("vq").display())?;
    Ok(())
}

/// The config of the test checkpoint with the requested sizes.
fn config(args: &Args) -> Result<Value> {
    let mut config: Value = serde_json::from_slice(&fs::read(test_data("model/prenorm/config.json"))?)?;
    config["num_hidden_layers"] = args.layers.into();
    config["hidden_size"] = args.hidden.into();
    config["intermediate_size"] = args.intermediate.into();
    config["num_attention_heads"] = args.heads.into();
    config["num_key_value_heads"] = args.kv_heads.unwrap_or(args.heads).into();
    config["vocab_size"] = args.vocab.into();
    config["max_position_embeddings"] = args.context.into();
    config["swin_norm"] = args.swin_norm.into();
    Ok(config)
}

/// Splits tensors into shards of limited size. Also returns the bytes of all tensors.
fn shards(tensors: BTreeMap<String, Vec<usize>>, shard_gb: f64) -> (Vec<Shard>, u64) {
    let (mut shards, mut shard_bytes, mut total) = (vec![Shard::new()], 0, 0);
    for (name, shape) in tensors {
        let bytes = bytes(&shape);
        total += bytes;
        shard_bytes += bytes;
        match shards.last_mut() {
            Some(shard) if shard_bytes as f64 <= shard_gb * 1e9 || shard.is_empty() => shard.push((name, shape)),
            _ => {
                shards.push(vec![(name, shape)]);
                shard_bytes = bytes;
            }
        }
    }
    (shards, total)
}

fn bytes(shape: &[usize]) -> u64 {
    shape.iter().map(|&side| side as u64).product::<u64>() * 2
}

/// The bf16 values of a tensor: norms are 1, biases 0, others uniform with a standard deviation of 0.02.
fn values(tensor: &str, n_bytes: usize, first: u64) -> Vec<u8> {
    const MAX_WEIGHT: f32 = 0.02 * 1.732_050_8;
    let constant = match tensor {
        _ if tensor.ends_with("norm.weight") => Some(1.0),
        _ if tensor.ends_with(".bias") => Some(0.0),
        _ => None,
    };
    let mut values = vec![0; n_bytes];
    for (counter, four) in (first..).zip(values.chunks_mut(8)) {
        let mut random = mix(counter);
        for value in four.as_chunks_mut::<2>().0 {
            let number = constant.unwrap_or(f32::from(random as i16) * (MAX_WEIGHT / 32_768.0));
            random >>= 16;
            // The upper half of an f32 is a bf16.
            let [_, _, upper @ ..] = number.to_le_bytes();
            *value = upper;
        }
    }
    values
}

/// The finaliser of SplitMix64: maps a counter to 64 random bits, without state.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
