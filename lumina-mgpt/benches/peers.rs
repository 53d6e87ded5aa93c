//! `cargo bench -p lumina-mgpt --bench peers -- <checkpoint> <precision>`: what other programs are measured by as well,
//! on any checkpoint. `benches/peers.py` runs it and them in turn.
//!
//! It prints `open` once the model is, and the seconds that took on standard error. Then it runs what each line of its
//! input names, and prints the seconds: `prefill`, a prompt of 512 tokens with the head on its last; `decode`, 16 steps
//! after it of one row; `guided`, of the two rows of guidance; `memory`, half a gigabyte read by all threads, 32 times:
//! about as long as the rest takes, as some machines give more for a moment.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

mod measure;

use std::hint::black_box;
use std::time::Instant;

use lumina_mgpt::{Compute, Dtype, KvCache, Row, Transformer, Weights, keep_freed_memory};
use measure::Memory;

const PROMPT: usize = 512;
const STEPS: usize = 16;
const READS: usize = 32;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    // Keys and values in the type of the peers.
    let base = Compute::cpu().kv_cache(Dtype::BF16);
    let compute = match words.get(1).map(String::as_str) {
        Some("f32") => Compute::cpu(),
        Some("bf16") => base.bf16_activations(),
        Some("q8_0") => base.weights(Weights::Q8),
        Some("q4_0") => base.weights(Weights::Q4),
        _ => {
            println!("cargo bench -p lumina-mgpt --bench peers -- <checkpoint> f32 | bf16 | q8_0 | q4_0");
            return;
        }
    };
    keep_freed_memory(1 << 30);
    // From within the pool, as an app that decodes would: from outside, every product wakes a thread more.
    rayon::scope(|_| serve(&words[0], &compute));
}

fn serve(path: &str, compute: &Compute) {
    let begun = Instant::now();
    let model = Transformer::open(path, compute).expect("a checkpoint");
    eprintln!("opened in {:.3} s", begun.elapsed().as_secs_f64());
    let memory = Memory::new();
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|token| 9000 + token).collect();
    let filled = || {
        let mut cache = model.new_cache(PROMPT + STEPS);
        let hidden = model.forward(&mut [Row::cached(&prompt, &mut cache)]).expect("fits");
        black_box(model.logits_at(&hidden, &[PROMPT - 1]).expect("computes"));
        cache
    };
    let mut caches = [filled(), filled()];
    let steps = |caches: &mut [KvCache]| {
        let positions: Vec<usize> = (0..caches.len()).collect();
        for _ in 0..STEPS {
            let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(&prompt[..1], cache)).collect();
            let hidden = model.forward(&mut rows).expect("fits");
            black_box(model.logits_at(&hidden, &positions).expect("computes"));
        }
        caches.iter_mut().for_each(|cache| cache.truncate(PROMPT));
    };
    println!("open");
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let begun = Instant::now();
        match line.as_str() {
            "prefill" => drop(filled()),
            "decode" => steps(&mut caches[..1]),
            "guided" => steps(&mut caches),
            "memory" => (0..READS).for_each(|_| memory.read()),
            _ => return eprintln!("{line}: neither prefill, decode, guided nor memory"),
        }
        println!("{}", begun.elapsed().as_secs_f64());
    }
}
