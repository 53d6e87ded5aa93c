//! GEMV in plain Rust, and what the GEMV kernels share.
//!
//! A GEMV of floats multiplies weights as it reads them. The lanes of a sum are columns; they are added up at the end
//! of a row.

use half::{bf16, f16};

use super::arithmetic::Arithmetic;
use super::kernel::{Gemv, MAX_GEMV_ROWS};
use super::weight_rows::WeightRows;
use crate::Format;
use crate::scratch::Lanes;

/// Columns that are cast up to `f32` at a time: they stay in the first-level cache.
const RUN: usize = 1024;

/// The sums of 16 weight rows with up to [`MAX_GEMV_ROWS`] activation rows, before their 16 lanes are added up.
pub(super) type RowLanes = [[[f32; Lanes::COUNT]; Lanes::COUNT]; MAX_GEMV_ROWS];

/// The function for floats; blocks of integers have none.
pub(super) fn portable(arithmetic: Arithmetic, format: Format) -> Option<Gemv> {
    match (arithmetic, format) {
        (Arithmetic::F32, Format::F32 | Format::F16 | Format::BF16) => Some(floats),
        _ => None,
    }
}

#[inline(always)]
fn floats(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    let (format, block_bytes) = (weights.format, weights.format.block_bytes());
    let n = sums.len();
    let row_words = x.len() / n;
    let mut totals: RowLanes = [[[0.0; Lanes::COUNT]; Lanes::COUNT]; MAX_GEMV_ROWS];
    for row in 0..Lanes::COUNT {
        let mut acc = [[0.0f32; Lanes::COUNT]; MAX_GEMV_ROWS];
        for (run, bytes) in weights.row(row).chunks(RUN * block_bytes).enumerate() {
            let mut values = [0.0f32; RUN];
            to_f32(format, bytes, &mut values);
            let count = (bytes.len() / block_bytes).next_multiple_of(Lanes::COUNT);
            for (acc, x) in acc.iter_mut().zip(x.chunks_exact(row_words)) {
                let x = x[run * RUN..run * RUN + count].as_chunks::<{ Lanes::COUNT }>().0;
                // A local copy, which the compiler keeps in registers.
                let mut local = *acc;
                for (x, w) in x.iter().zip(values.as_chunks::<{ Lanes::COUNT }>().0) {
                    for j in 0..Lanes::COUNT {
                        let x = f32::from_bits(x[j]);
                        local[j] += w[j] * x;
                    }
                }
                *acc = local;
            }
        }
        for (totals, acc) in totals[..n].iter_mut().zip(&acc) {
            totals[row] = *acc;
        }
    }
    add_lanes(&totals, sums);
}

/// Adds up the lanes of 16 weight rows together. Row by row, each addition would wait for the one before.
#[inline(always)]
pub(super) fn add_lanes(totals: &RowLanes, sums: &mut [Lanes]) {
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

/// The GEMV of floats for an instruction set whose module has `multiply_rows`, which multiplies some weight rows with
/// one activation row or two, and `store_rows`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! float_gemv {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        fn floats<const KIND: u8>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
            let n = sums.len();
            let mut totals: RowLanes = [[[0.0; Lanes::COUNT]; Lanes::COUNT]; MAX_GEMV_ROWS];
            let x_row = |i: usize| &x[i * (x.len() / n)..][..x.len() / n];
            if n == 1 {
                for row in (0..Lanes::COUNT).step_by(4) {
                    store_rows(multiply_rows::<4, 1, KIND>(weights, row, [x_row(0)]), row, &mut totals);
                }
            } else {
                for row in (0..Lanes::COUNT).step_by(2) {
                    for i in (0..n / 2 * 2).step_by(2) {
                        let acc = multiply_rows::<2, 2, KIND>(weights, row, [x_row(i), x_row(i + 1)]);
                        store_rows(acc, row, &mut totals[i..]);
                    }
                    if n % 2 == 1 {
                        let acc = multiply_rows::<2, 1, KIND>(weights, row, [x_row(n - 1)]);
                        store_rows(acc, row, &mut totals[n - 1..]);
                    }
                }
            }
            add_lanes(&totals, sums);
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use float_gemv;

#[inline(always)]
fn to_f32(format: Format, bytes: &[u8], values: &mut [f32; RUN]) {
    match format {
        Format::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Format::F16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}
