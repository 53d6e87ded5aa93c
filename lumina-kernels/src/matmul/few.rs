//! A few rows of activations with weights straight from where they lie, in plain Rust: the lanes of a sum are columns, and are added up
//! at the end of a row.

use half::{bf16, f16};

use super::arithmetic::Arithmetic;
use super::kernel::{FEW, Few};
use super::source::Source;
use crate::Format;
use crate::scratch::Lanes;

/// Columns that are widened at a time: they stay in the first-level cache.
const RUN: usize = 1024;

/// The function for words; blocks of bytes have none.
pub(super) fn plain(arithmetic: Arithmetic, format: Format) -> Option<Few> {
    match (arithmetic, format) {
        (Arithmetic::Float, Format::F32 | Format::F16 | Format::BF16) => Some(floats::<false>),
        _ => None,
    }
}

#[inline(always)]
pub(super) fn floats<const FMA: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    let format = source.format;
    let n = sums.len();
    let row_words = x.len() / n;
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
                        local[j] = if FMA { w[j].mul_add(x, local[j]) } else { w[j] * x + local[j] };
                    }
                }
                *acc = local;
            }
        }
        for (sums, acc) in sums.iter_mut().zip(&acc) {
            sums.0[lane] = acc.iter().fold(0.0, |sum, acc| sum + acc).to_bits();
        }
    }
}

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
