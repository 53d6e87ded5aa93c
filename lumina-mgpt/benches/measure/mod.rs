//! What the benchmarks measure by.
#![allow(dead_code, reason = "each of them needs a part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::bf16;
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
