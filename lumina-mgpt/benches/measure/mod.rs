//! What the benchmarks measure by.
#![allow(dead_code, reason = "each of them needs a part")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use half::bf16;
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::{Architecture, ModelConfig};
use rayon::prelude::*;

/// The fastest of some runs of each, after one that is not counted: what else the machine does can only add to a time.
/// They take turns, as what a machine gives may change within seconds.
pub(crate) fn in_turn<const N: usize>(runs: usize, mut each: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut fastest = [Duration::MAX; N];
    for round in 0..=runs {
        for (run, fastest) in each.iter_mut().zip(&mut fastest) {
            let start = Instant::now();
            run();
            let time = start.elapsed();
            if round > 0 {
                *fastest = time.min(*fastest);
            }
        }
    }
    fastest
}

/// The fastest of some runs, as [`in_turn`] takes it.
pub(crate) fn fastest(runs: usize, mut run: impl FnMut()) -> Duration {
    let [time] = in_turn(runs, [&mut run]);
    time
}

/// Memory that all threads together read: the limit of decoding.
pub(crate) struct Memory(Vec<u64>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(vec![1; 1 << 26])
    }

    pub(crate) fn read(&self) {
        let sum = |chunk: &[u64]| chunk.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
        black_box(self.0.par_chunks(1 << 20).map(sum).sum::<u64>());
    }

    /// Bytes a second, where reading all takes so long.
    pub(crate) fn per_second(&self, time: Duration) -> f64 {
        (self.0.len() * size_of::<u64>()) as f64 / time.as_secs_f64()
    }
}

/// Weights in `bf16`, a block of values around zero, repeated: speed does not depend on them.
pub(crate) fn random_bytes(n: usize) -> Vec<u8> {
    let block: Vec<u8> = lumina_testing::lcg(1)
        .take(1 << 16)
        .flat_map(|state| bf16::from_f32(((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.08).to_le_bytes())
        .collect();
    block.into_iter().cycle().take(n).collect()
}

/// The shape of the transformers that are measured on a processor: width 2048, 4 layers, 65,536 tokens.
pub(crate) fn architecture() -> Architecture {
    let config = ModelConfig {
        hidden_size: 2048,
        intermediate_size: 5504,
        num_hidden_layers: 4,
        num_attention_heads: 16,
        ..ModelConfig::default()
    };
    config.resolve("config.json".as_ref()).expect("a valid shape")
}

/// [`random_bytes`] for tensors of these shapes, 0.94 GB for [`architecture`], in a file of a folder.
pub(crate) fn random_checkpoint(folder: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Checkpoint {
    let file = folder.join("model.safetensors");
    let tensors = shapes.iter().map(|(name, shape)| {
        let n_bytes = 2 * shape.iter().product::<usize>();
        (name.clone(), Dtype::BF16, shape.clone(), move || Ok(random_bytes(n_bytes).into()))
    });
    save_safetensors(&file, tensors).expect("room for the checkpoint");
    Checkpoint::open(&file).expect("just written")
}
