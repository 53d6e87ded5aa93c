//! GEMM with NEON: four vectors are 16 rows of the weights. Integers are multiplied by the dot products of Armv8.2,
//! where the processor has them.

use std::arch::aarch64::*;

use super::arithmetic::Arithmetic;
use super::blocks::{ActivationBlock, PanelBlock};
use super::kernel::{GROUP, Gemm, with_constant_rows};
use super::weight_rows::PrefetchRows;
use crate::Isa;
use crate::scratch::Lanes;

/// Activation rows of a tile: 24 sums of the 32 registers.
pub(super) const TILE: usize = 6;

/// Sixteen lanes.
pub(super) type Floats = [float32x4_t; 4];

pub(super) fn gemm(arithmetic: Arithmetic, isa: Isa) -> Gemm {
    match arithmetic {
        Arithmetic::F32 | Arithmetic::Bf16 | Arithmetic::AmxBf16 => floats,
        Arithmetic::Int8 { .. } | Arithmetic::AmxInt8 if isa >= Isa::NeonDot => by_dots::integers,
        Arithmetic::Int8 { .. } | Arithmetic::AmxInt8 => by_pairs::integers,
    }
}

#[target_feature(enable = "neon")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: PrefetchRows) {
    with_constant_rows!(rows, [1, 2, 3, 4, 5], TILE, X => float_tile::<X>(group, x, sums));
}

#[target_feature(enable = "neon")]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[vdupq_n_f32(0.0); 4]; X];
        for (w, x) in panel.iter().zip(x.as_chunks::<X>().0) {
            let w = as_floats(load(w));
            for i in 0..X {
                for q in 0..4 {
                    acc[i][q] = vfmaq_n_f32(acc[i][q], w[q], f32::from_bits(x[i]));
                }
            }
        }
        for i in 0..X {
            add(&mut sums[i * GROUP + index], acc[i]);
        }
    }
}

/// The loop over blocks of integers, for either way to multiply them.
macro_rules! integer_gemm {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn integers(
                group: &[Lanes],
                x: &[u32],
                rows: usize,
                sums: &mut [Lanes],
                _: PrefetchRows,
            ) {
                with_constant_rows!(rows, [1, 2, 3, 4, 5], TILE, X => tile::<X>(group, x, sums));
            }

            #[target_feature(enable = $features)]
            fn tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
                let x = ActivationBlock::slice(x);
                for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
                    let mut acc = [[vdupq_n_f32(0.0); 4]; X];
                    for (block, x) in PanelBlock::slice(panel).iter().zip(x.as_chunks::<X>().0) {
                        let scales = as_floats(load(&block.scales));
                        let mut dots = [[vdupq_n_s32(0); 4]; X];
                        for i in 0..X {
                            dots[i] = [vdupq_n_s32(x[i].start); 4];
                        }
                        for j in 0..8 {
                            let w = load(&block.quads[j]);
                            for i in 0..X {
                                let x = vreinterpretq_s8_s32(vdupq_n_s32(x[i].quads[j]));
                                for q in 0..4 {
                                    dots[i][q] = $dot(dots[i][q], vreinterpretq_s8_u32(w[q]), x);
                                }
                            }
                        }
                        for i in 0..X {
                            for q in 0..4 {
                                let scale = vmulq_n_f32(scales[q], x[i].scale);
                                acc[i][q] = vfmaq_f32(acc[i][q], vcvtq_f32_s32(dots[i][q]), scale);
                            }
                        }
                    }
                    for i in 0..X {
                        add(&mut sums[i * GROUP + index], acc[i]);
                    }
                }
            }
        }
    };
}

integer_gemm!(by_pairs, "neon", dot_pairs);
integer_gemm!(by_dots, "neon,dotprod", dot);

/// Adds to each lane of `sums` the products of four signed integers. Two products, at most 2 · 128 · 127, fit 16 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_pairs(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let (low, high) = (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

/// The same in one instruction.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    #[allow(unsafe_code, reason = "the intrinsic is not stable yet")]
    // SAFETY: the function is compiled for the feature of the instruction, which uses its registers only.
    unsafe {
        std::arch::asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

#[inline]
#[target_feature(enable = "neon")]
fn load(lanes: &Lanes) -> [uint32x4_t; 4] {
    let mut all = [vdupq_n_u32(0); 4];
    for (all, four) in all.iter_mut().zip(lanes.0.as_chunks::<4>().0) {
        #[allow(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: `four` is 16 bytes.
        unsafe {
            *all = vld1q_u32(four.as_ptr());
        }
    }
    all
}

#[inline]
#[target_feature(enable = "neon")]
fn as_floats([a, b, c, d]: [uint32x4_t; 4]) -> Floats {
    [vreinterpretq_f32_u32(a), vreinterpretq_f32_u32(b), vreinterpretq_f32_u32(c), vreinterpretq_f32_u32(d)]
}

#[inline]
#[target_feature(enable = "neon")]
fn add(sums: &mut Lanes, acc: Floats) {
    let before = as_floats(load(sums));
    let mut after = before;
    for q in 0..4 {
        after[q] = vaddq_f32(before[q], acc[q]);
    }
    store(sums, after);
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(to: &mut Lanes, values: Floats) {
    for (to, four) in to.0.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        #[allow(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: `to` is 16 bytes.
        unsafe {
            vst1q_u32(to.as_mut_ptr(), vreinterpretq_u32_f32(four));
        }
    }
}
