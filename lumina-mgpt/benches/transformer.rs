//! Decoding and prefill of a transformer of random weights: width 2048, 4 layers, 65,536 tokens, bf16, as mapped.
//!
//! `cargo bench -p lumina-mgpt` writes a checkpoint of 0.94 GB to the temporary folder and removes it. Decoding is held
//! against reading the same bytes from memory once; prefill against Burn's own f32 matrix product.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Distribution, Tensor};
use half::bf16;
use lumina_core::checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::{Architecture, Compute, ModelConfig, Row, Transformer};
use rayon::prelude::*;

const PREFILL: usize = 512;

fn config() -> Architecture {
    let config = ModelConfig {
        hidden_size: 2048,
        intermediate_size: 5504,
        num_hidden_layers: 4,
        num_attention_heads: 16,
        ..ModelConfig::default()
    };
    config.resolve("config.json".as_ref()).expect("a valid shape")
}

/// A block of values around zero, repeated: speed does not depend on them.
fn random_bytes(n: usize) -> Vec<u8> {
    let block: Vec<u8> = lumina_testing::lcg(1)
        .take(1 << 16)
        .flat_map(|state| bf16::from_f32(((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.08).to_le_bytes())
        .collect();
    block.into_iter().cycle().take(n).collect()
}

/// The median of some runs, after one that is not counted.
fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    run();
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Bytes a second at which all threads together read memory.
fn bandwidth() -> f64 {
    let memory = vec![1u64; 1 << 26];
    let time = median(9, || {
        let sum: u64 = memory
            .par_chunks(1 << 20)
            .map(|chunk| chunk.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
            .sum();
        black_box(sum);
    });
    (memory.len() * 8) as f64 / time.as_secs_f64()
}

fn main() {
    let compute = Compute::cpu();
    let architecture = config();
    let shapes = Transformer::tensor_shapes(&architecture, &compute);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.safetensors");
    let tensors = shapes.iter().map(|(name, shape)| {
        let n_bytes = 2 * shape.iter().product::<usize>();
        (name.clone(), Dtype::BF16, shape.clone(), move || Ok(random_bytes(n_bytes).into()))
    });
    save_safetensors(&file, tensors).expect("room for the checkpoint");
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&file).expect("just written");
    let model = Transformer::from_checkpoint(&checkpoint, architecture, &compute, &|_| {}).expect("complete");
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    // A step reads every weight but the embedding once.
    let step_bytes: usize = shapes
        .iter()
        .filter(|(name, _)| !name.contains("embed_tokens"))
        .map(|(_, shape)| 2 * shape.iter().product::<usize>())
        .sum();
    let bandwidth = bandwidth();
    println!("memory: {:.1} GB/s; a step reads {:.2} GB", bandwidth / 1e9, step_bytes as f64 / 1e9);

    let tokens: Vec<u32> = (0..PREFILL as u32).collect();
    for rows in [1, 2, 4] {
        let mut caches: Vec<_> = (0..rows).map(|_| model.new_cache(PREFILL + 1)).collect();
        for cache in &mut caches {
            model.forward(&mut [Row::cached(&tokens, cache)]).expect("fits");
        }
        let time = median(7, || {
            let mut batch: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(&tokens[..1], cache)).collect();
            let hidden = model.forward(&mut batch).expect("fits");
            let positions: Vec<usize> = (0..rows).collect();
            black_box(model.logits_at(hidden, &positions).expect("computes"));
            caches.iter_mut().for_each(|cache| cache.truncate(PREFILL));
        });
        let limit = step_bytes as f64 / bandwidth;
        println!(
            "decode step, {rows} row(s) after {PREFILL} tokens: {:.1} ms, {:.2} of the memory limit",
            time.as_secs_f64() * 1e3,
            limit / time.as_secs_f64()
        );
    }

    let device = compute.device();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, device);
    let (a, b) = (random([PREFILL, 2048]), random([2048, 2048]));
    let product = median(5, || drop(black_box(a.clone().matmul(b.clone()).into_data())));
    let flops = 2.0 * (PREFILL * 2048 * 2048) as f64 / product.as_secs_f64();
    let time = median(3, || {
        let mut cache = model.new_cache(PREFILL);
        let hidden = model.forward(&mut [Row::cached(&tokens, &mut cache)]).expect("fits");
        black_box(model.logits_at(hidden, &[PREFILL - 1]).expect("computes"));
    });
    let layers: usize = shapes
        .iter()
        .filter(|(name, _)| name.contains("layers"))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    let limit = 2.0 * (layers * PREFILL) as f64 / flops;
    println!(
        "prefill of {PREFILL}: {:.0} ms, {:.2} of Burn's f32 product at {:.0} GFLOP/s",
        time.as_secs_f64() * 1e3,
        limit / time.as_secs_f64(),
        flops / 1e9
    );
}
