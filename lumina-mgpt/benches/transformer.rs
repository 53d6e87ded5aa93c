//! Decoding and prefill of a transformer of random weights: width 2048, 4 layers, 65,536 tokens; `bf16` as mapped, Q8
//! and Q4 as quantised at load.
//!
//! `cargo bench -p lumina-mgpt` writes a checkpoint of 0.94 GB to the temporary folder and removes it. Decoding is held
//! against reading the same bytes from memory once; prefill against Burn's own f32 matrix product.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

mod measure;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use lumina_checkpoint::Dtype;
use lumina_mgpt::{Compute, KvCache, Row, Transformer, Weights};
use measure::{Memory, architecture, fastest, in_turn, random_checkpoint};

const PREFILL: usize = 512;
/// Tokens before a step of decoding: few, for it is weights that are measured.
const CONTEXT: usize = 16;
/// Tokens of an image of 768×768, and its prompt.
const LONG_CONTEXT: usize = 2400;
/// The ids of image tokens in the published vocabulary.
const IMAGE_TOKENS: Range<usize> = 4..8196;

/// Bytes that a step reads: every weight but the embedding once.
fn step_bytes(shapes: &BTreeMap<String, Vec<usize>>, weights: Weights) -> f64 {
    let dtype = |name: &str| match weights {
        _ if name.contains("norm") => Dtype::F32,
        Weights::Q4 if !name.contains("lm_head") => Dtype::Q4_0,
        Weights::Q4 | Weights::Q8 => Dtype::Q8_0,
        _ => Dtype::BF16,
    };
    let read = shapes.iter().filter(|(name, _)| !name.contains("embed_tokens"));
    read.map(|(name, shape)| dtype(name).bytes_of(shape).expect("whole blocks") as f64).sum()
}

/// What a step of `rows` rows takes, each after a prompt of `tokens`, with the logits of `among`; beside it one of a
/// single row with all logits, and what memory gives.
struct Step {
    seconds: f64,
    /// Of the time of a single row.
    of_one: f64,
    bandwidth: f64,
}

fn decode(model: &Transformer, tokens: &[u32], rows: usize, among: Range<usize>) -> Step {
    let mut caches: Vec<_> = (0..rows).map(|_| model.new_cache(tokens.len() + 1)).collect();
    for cache in &mut caches {
        model.forward(&mut [Row::cached(tokens, cache)]).expect("fits");
    }
    let mut caches_of_one = [model.new_cache(tokens.len() + 1)];
    model.forward(&mut [Row::cached(tokens, &mut caches_of_one[0])]).expect("fits");
    let step = |caches: &mut [KvCache], among: Range<usize>| {
        let positions: Vec<usize> = (0..caches.len()).collect();
        let mut batch: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(&tokens[..1], cache)).collect();
        let hidden = model.forward(&mut batch).expect("fits");
        black_box(model.logits_among(&hidden, &positions, among).expect("computes"));
        caches.iter_mut().for_each(|cache| cache.truncate(tokens.len()));
    };
    let memory = Memory::new();
    let all = 0..model.architecture().vocab_size();
    let [time, of_one, reading] = in_turn(
        15,
        [&mut || step(&mut caches, among.clone()), &mut || step(&mut caches_of_one, all.clone()), &mut || {
            memory.read()
        }],
    );
    let seconds = time.as_secs_f64();
    Step { seconds, of_one: seconds / of_one.as_secs_f64(), bandwidth: memory.per_second(reading) }
}

/// Multiply-adds a second, counted twice, of Burn's own product in `f32`.
fn flops(device: &Device) -> f64 {
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, device);
    let (a, b) = (random([PREFILL, 2048]), random([2048, 2048]));
    let product = fastest(5, || drop(black_box(a.clone().matmul(b.clone()).into_data())));
    2.0 * (PREFILL * 2048 * 2048) as f64 / product.as_secs_f64()
}

fn main() {
    let architecture = architecture();
    let vocab_size = architecture.vocab_size();
    let shapes = Transformer::tensor_shapes(&architecture, &Compute::cpu());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = random_checkpoint(folder.path(), &shapes);

    let flops = flops(&Compute::cpu().device());
    println!("Burn's f32 product: {:.0} GFLOP/s", flops / 1e9);

    let context: Vec<u32> = (0..CONTEXT as u32).collect();
    let prompt: Vec<u32> = (0..PREFILL as u32).collect();
    let long: Vec<u32> = (0..LONG_CONTEXT as u32).collect();
    for weights in [Weights::AsStored, Weights::Q8, Weights::Q4] {
        let compute = Compute::cpu().weights(weights);
        let start = Instant::now();
        let model = Transformer::from_checkpoint(&checkpoint, architecture.clone(), &compute, &|_| {});
        let model = model.expect("complete");
        let opened = start.elapsed().as_secs_f64();
        let bytes = step_bytes(&shapes, weights);
        let name = if weights == Weights::AsStored { "bf16".to_owned() } else { weights.to_string() };
        println!("{name}: opened in {:.1} ms; a step reads {:.2} GB", opened * 1e3, bytes / 1e9);

        for rows in [1, 2, 4, 8, 16] {
            let step = decode(&model, &context, rows, 0..vocab_size);
            println!(
                "  decode, {rows} row(s): {:.1} ms, {:.2} of the memory limit ({:.1} GB/s), {:.2} of the time of one row: {:.1} times its tokens",
                step.seconds * 1e3,
                bytes / step.bandwidth / step.seconds,
                step.bandwidth / 1e9,
                step.of_one,
                rows as f64 / step.of_one
            );
        }
        let step = decode(&model, &context, 1, IMAGE_TOKENS);
        println!(
            "  decode in an image, 1 row: {:.1} ms, {:.2} of the time with the whole head",
            step.seconds * 1e3,
            step.of_one
        );

        let prefill = |model: &Transformer, what: &str| {
            let time = fastest(1, || {
                let mut cache = model.new_cache(PREFILL);
                let hidden = model.forward(&mut [Row::cached(&prompt, &mut cache)]).expect("fits");
                black_box(model.logits_at(&hidden, &[PREFILL - 1]).expect("computes"));
            });
            let of_layers = shapes.iter().filter(|(name, _)| name.contains("layers"));
            let layers: usize = of_layers.map(|(_, shape)| shape.iter().product::<usize>()).sum();
            println!(
                "  prefill of {PREFILL}{what}: {:.0} ms, {:.2} of Burn's f32 product",
                time.as_secs_f64() * 1e3,
                2.0 * (layers * PREFILL) as f64 / flops / time.as_secs_f64()
            );
        };
        prefill(&model, "");
        let open = |compute: &Compute| {
            let model = Transformer::from_checkpoint(&checkpoint, architecture.clone(), compute, &|_| {});
            model.expect("complete")
        };
        if weights == Weights::AsStored {
            prefill(&open(&compute.clone().bf16_activations()), ", bf16 activations");
        }
        if weights == Weights::Q4 {
            for dtype in Compute::KV_CACHE_DTYPES {
                let model = open(&compute.clone().kv_cache(dtype));
                let step = decode(&model, &long, 1, IMAGE_TOKENS);
                let cache = model.new_cache(LONG_CONTEXT).bytes_of(LONG_CONTEXT) as f64;
                let head = (vocab_size - IMAGE_TOKENS.len()) as f64 / vocab_size as f64;
                let bytes =
                    bytes - head * Dtype::Q8_0.bytes_of(&[vocab_size, 2048]).expect("whole blocks") as f64 + cache;
                println!(
                    "  decode in an image after {LONG_CONTEXT} tokens, keys and values in {dtype}: {:.1} ms, {:.2} of the memory limit",
                    step.seconds * 1e3,
                    bytes / step.bandwidth / step.seconds
                );
            }
        }
    }
}
