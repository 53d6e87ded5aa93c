//! The limit of decoding: how fast this machine reads memory.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// Bytes a second at which all threads together read memory: the best of nine runs.
pub(crate) fn bandwidth() -> f64 {
    let memory = vec![1u64; 1 << 26];
    let times = (0..9).map(|_| {
        let begun = Instant::now();
        let sum: u64 = memory
            .par_chunks(1 << 20)
            .map(|chunk| chunk.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
            .sum();
        black_box(sum);
        begun.elapsed().as_secs_f64()
    });
    (memory.len() * size_of::<u64>()) as f64 / times.fold(f64::INFINITY, f64::min)
}
