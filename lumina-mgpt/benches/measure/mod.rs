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

/// The fastest of some runs, and the bytes a second at which all threads together read memory, the limit of decoding: in turn, as what a machine
/// gives may change within seconds.
pub(crate) fn fastest_and_bandwidth(runs: usize, mut run: impl FnMut()) -> (Duration, f64) {
    let memory = vec![1u64; 1 << 26];
    let read = || {
        let sum: u64 = memory
            .par_chunks(1 << 20)
            .map(|chunk| chunk.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
            .sum();
        black_box(sum);
    };
    let (mut time, mut reading) = (Duration::MAX, Duration::MAX);
    for _ in 0..runs {
        time = time.min(fastest(1, &mut run));
        reading = reading.min(fastest(1, read));
    }
    (time, (memory.len() * size_of::<u64>()) as f64 / reading.as_secs_f64())
}
