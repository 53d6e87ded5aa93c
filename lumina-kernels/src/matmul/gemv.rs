//! A few rows of activations with weights straight from where they lie, in plain Rust: the lanes of a sum are columns, and are added up
//! at the end of a row.

use half::{bf16, f16};

use super::arithmetic::Arithmetic;
use super::kernel::{FEW, Few};
use super::weight_rows::Source;
use crate::Format;
use crate::scratch::Lanes;

/// Columns that are widened at a time: they stay in the first-level cache.
const RUN: usize = 1024;

/// The function for words; blocks of bytes have none.
pub(super) fn plain(arithmetic: Arithmetic, format: Format) -> Option<Few> {
    match (arithmetic, format) {
        (Arithmetic::Float, Format::F32 | Format::F16 | Format::BF16) => Some(floats),
        _ => None,
    }
}

#[inline(always)]
fn floats(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    let format = source.format;
    let n = sums.len();
    let row_words = x.len() / n;
    // For each row of activations, the lanes of each row of weights.
    let mut totals = [[[0.0f32; Lanes::COUNT]; Lanes::COUNT]; FEW];
    for lane in 0..Lanes::COUNT {
        let mut acc = [[0.0f32; Lanes::COUNT]; FEW];
        for (run, bytes) in source.lane(lane).chunks(RUN * format.block_bytes()).enumerate() {
            let mut weights = [0.0f32; RUN];
            widen(format, bytes, &mut weights);
            let count = (bytes.len() / format.block_bytes()).next_multiple_of(Lanes::COUNT);
            for (acc, x) in acc.iter_mut().zip(x.chunks_exact(row_words)) {
                let x = x[run * RUN..run * RUN + count].as_chunks::<{ Lanes::COUNT }>().0;
                // By value, which lets the compiler keep sums in registers.
                let mut local = *acc;
                for (x, w) in x.iter().zip(weights.as_chunks::<{ Lanes::COUNT }>().0) {
                    for j in 0..Lanes::COUNT {
                        let x = f32::from_bits(x[j]);
                        local[j] += w[j] * x;
                    }
                }
                *acc = local;
            }
        }
        for (totals, acc) in totals[..n].iter_mut().zip(&acc) {
            totals[lane] = *acc;
        }
    }
    add_lanes(&totals, sums);
}

/// Adds up lane by lane, for 16 rows of weights side by side: row by row, each addition would wait for the one before.
#[inline(always)]
pub(super) fn add_lanes(totals: &[[[f32; Lanes::COUNT]; Lanes::COUNT]; FEW], sums: &mut [Lanes]) {
    for (sums, totals) in sums.iter_mut().zip(totals) {
        let mut sum = [0.0f32; Lanes::COUNT];
        for j in 0..Lanes::COUNT {
            for (sum, total) in sum.iter_mut().zip(totals) {
                *sum += total[j];
            }
        }
        sums.0 = sum.map(f32::to_bits);
    }
}

/// The function for words, made of a module's `tile`, which multiplies some rows of weights with one row of activations or two, and `put`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! words_by_twos {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn words<const KIND: u8>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
            let n = sums.len();
            let mut totals = [[[0.0f32; Lanes::COUNT]; Lanes::COUNT]; FEW];
            let row = |i: usize| &x[i * (x.len() / n)..][..x.len() / n];
            if n == 1 {
                for lane in (0..Lanes::COUNT).step_by(4) {
                    put(tile::<4, 1, KIND>(source, lane, [row(0)]), lane, &mut totals);
                }
            } else {
                for lane in (0..Lanes::COUNT).step_by(2) {
                    for i in (0..n / 2 * 2).step_by(2) {
                        put(tile::<2, 2, KIND>(source, lane, [row(i), row(i + 1)]), lane, &mut totals[i..]);
                    }
                    if n % 2 == 1 {
                        put(tile::<2, 1, KIND>(source, lane, [row(n - 1)]), lane, &mut totals[n - 1..]);
                    }
                }
            }
            add_lanes(&totals, sums);
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use words_by_twos;

#[inline(always)]
fn widen(format: Format, bytes: &[u8], to: &mut [f32; RUN]) {
    match format {
        Format::F32 => {
            for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                *to = f32::from_le_bytes(*bytes);
            }
        }
        Format::F16 => {
            for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                *to = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => {
            for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                *to = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}
