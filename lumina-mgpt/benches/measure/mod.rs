//! What the benchmarks measure by.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// The fastest of some runs, after one that is not counted: what else the machine does can only add to a time.
pub(crate) fn fastest(runs: usize, mut run: impl FnMut()) -> Duration {
    run();
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap_or_default()
}

/// Bytes a second at which all threads together read memory: the limit of decoding.
pub(crate) fn bandwidth() -> f64 {
    let memory = vec![1u64; 1 << 26];
    let time = fastest(9, || {
        let sum: u64 = memory
            .par_chunks(1 << 20)
            .map(|chunk| chunk.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
            .sum();
        black_box(sum);
    });
    (memory.len() * size_of::<u64>()) as f64 / time.as_secs_f64()
}
