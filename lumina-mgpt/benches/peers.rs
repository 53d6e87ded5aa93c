//! `cargo bench -p lumina-mgpt --bench peers -- <folder> [<precision>…]`: what other programs are measured by as well, on any checkpoint; one JSON line
//! a figure. `benches/peers.py` runs it beside them.
//!
//! A prompt of 512 tokens with the head on its last; 64 steps after it, of one row, and of the two rows of guidance, with the whole head. The best
//! of three runs, as what else the machine does can only add to a time.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

mod measure;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use lumina_mgpt::{Compute, Dtype, KvCache, Row, Transformer, Weights, keep_freed_memory};
use measure::{Memory, fastest};
use serde_json::json;

const PROMPT: usize = 512;
const STEPS: usize = 64;
const RUNS: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [path, precisions @ ..] = words.as_slice() else {
        println!(
            "give the folder of a checkpoint: cargo bench -p lumina-mgpt --bench peers -- <folder> [<precision>…]"
        );
        return;
    };
    keep_freed_memory(1 << 30);
    let memory = Memory::new();
    let bandwidth = memory.per_second(fastest(9, || memory.read()));
    drop(memory);
    println!("{}", json!({ "what": "memory", "per_second": bandwidth }));
    // From within the pool, as an app that decodes would: from outside, every product wakes a thread more.
    rayon::scope(|_| {
        // Keys and values as wide as those of the peers.
        let narrow = Compute::cpu().kv_cache(Dtype::BF16);
        for (precision, compute) in [
            ("f32", Compute::cpu()),
            ("bf16", narrow.clone().compact()),
            ("q8_0", narrow.clone().weights(Weights::Q8)),
            ("q4_0", narrow.weights(Weights::Q4)),
        ] {
            if precisions.is_empty() || precisions.iter().any(|word| word == precision) {
                measure(path, precision, &compute);
            }
        }
    });
}

/// All figures of a checkpoint; `precision` names them, and what peers compute in for the same.
fn measure(path: impl AsRef<Path>, precision: &str, compute: &Compute) {
    let begun = Instant::now();
    let model = Transformer::open(path, compute).expect("a checkpoint");
    let line = |what: &str, per_second: f64| {
        println!("{}", json!({ "what": what, "precision": precision, "per_second": per_second }));
    };
    line("open", 1.0 / begun.elapsed().as_secs_f64());
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|token| 9000 + token).collect();
    let filled = || {
        let mut cache = model.new_cache(PROMPT + STEPS);
        let hidden = model.forward(&mut [Row::cached(&prompt, &mut cache)]).expect("fits");
        black_box(model.logits_at(&hidden, &[PROMPT - 1]).expect("computes"));
        cache
    };
    line("prefill", PROMPT as f64 / fastest(RUNS, || drop(filled())).as_secs_f64());
    let mut caches = [filled(), filled()];
    let steps = |caches: &mut [KvCache]| {
        let positions: Vec<usize> = (0..caches.len()).collect();
        let time = fastest(RUNS, || {
            for _ in 0..STEPS {
                let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(&prompt[..1], cache)).collect();
                let hidden = model.forward(&mut rows).expect("fits");
                black_box(model.logits_at(&hidden, &positions).expect("computes"));
            }
            caches.iter_mut().for_each(|cache| cache.truncate(PROMPT));
        });
        STEPS as f64 / time.as_secs_f64()
    };
    line("decode", steps(&mut caches[..1]));
    line("guided", steps(&mut caches));
}
