//! Matmul with NEON: four vectors are 16 rows of the weights. Bytes are multiplied by the dot products of Armv8.2, where the processor has them.

use std::arch::aarch64::*;

use super::arithmetic::{Arithmetic, INPUT_BLOCK, PANEL_BLOCK};
use super::kernel::{Few, GROUP, Multiply, by_rows};
use super::neon_gemv;
use super::weight_rows::Rows;
use crate::scratch::Lanes;
use crate::{Format, Isa};

/// Activation rows of a tile: 24 sums of the 32 registers.
pub(super) const TILE: usize = 6;

/// Sixteen lanes.
pub(super) type Floats = [float32x4_t; 4];

pub(super) fn multiply(arithmetic: Arithmetic, isa: Isa) -> Multiply {
    match arithmetic {
        Arithmetic::Float | Arithmetic::Bfloat | Arithmetic::Tiles => floats,
        Arithmetic::Bytes { .. } | Arithmetic::TileBytes if isa >= Isa::NeonDot => by_dots::bytes,
        Arithmetic::Bytes { .. } | Arithmetic::TileBytes => by_pairs::bytes,
    }
}

pub(super) fn few(arithmetic: Arithmetic, format: Format, isa: Isa) -> Option<Few> {
    Some(match (arithmetic, format, isa >= Isa::NeonDot) {
        (Arithmetic::Float, Format::F32, _) => neon_gemv::words::<{ neon_gemv::FLOATS }>,
        (Arithmetic::Float, Format::F16, _) => neon_gemv::words::<{ neon_gemv::HALVES }>,
        (Arithmetic::Float, Format::BF16, _) => neon_gemv::words::<{ neon_gemv::BFLOATS }>,
        (Arithmetic::Bytes { .. }, Format::Q8_0, true) => neon_gemv::by_dots::bytes::<false>,
        (Arithmetic::Bytes { .. }, Format::Q4_0, true) => neon_gemv::by_dots::bytes::<true>,
        (Arithmetic::Bytes { .. }, Format::Q8_0, false) => neon_gemv::by_pairs::bytes::<false>,
        (Arithmetic::Bytes { .. }, Format::Q4_0, false) => neon_gemv::by_pairs::bytes::<true>,
        _ => return None,
    })
}

#[target_feature(enable = "neon")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: Rows) {
    by_rows!(rows, [1, 2, 3, 4, 5], TILE, X => float_tile::<X>(group, x, sums));
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

/// The loop over blocks of bytes, for either way to multiply them.
macro_rules! byte_tiles {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn bytes(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: Rows) {
                by_rows!(rows, [1, 2, 3, 4, 5], TILE, X => tile::<X>(group, x, sums));
            }

            #[target_feature(enable = $features)]
            fn tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
                let x = x.as_chunks::<INPUT_BLOCK>().0;
                for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
                    let mut acc = [[vdupq_n_f32(0.0); 4]; X];
                    for (block, x) in panel.as_chunks::<PANEL_BLOCK>().0.iter().zip(x.as_chunks::<X>().0) {
                        let scales = as_floats(load(&block[PANEL_BLOCK - 1]));
                        let mut dots = [[vdupq_n_s32(0); 4]; X];
                        for i in 0..X {
                            dots[i] = [vdupq_n_s32(x[i][9].cast_signed()); 4];
                        }
                        for j in 0..PANEL_BLOCK - 1 {
                            let w = load(&block[j]);
                            for i in 0..X {
                                let x = vreinterpretq_s8_u32(vdupq_n_u32(x[i][j]));
                                for q in 0..4 {
                                    dots[i][q] = $dot(dots[i][q], vreinterpretq_s8_u32(w[q]), x);
                                }
                            }
                        }
                        for i in 0..X {
                            for q in 0..4 {
                                let scale = vmulq_n_f32(scales[q], f32::from_bits(x[i][8]));
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

byte_tiles!(by_pairs, "neon", dot_of_pairs);
byte_tiles!(by_dots, "neon,dotprod", dot);

/// Adds to each lane of `sums` the products of four signed bytes. Two products, at most 2 · 128 · 127, fit 16 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_of_pairs(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let (low, high) = (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

/// The same in one instruction.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    #[allow(unsafe_code, reason = "the intrinsic is not stable yet")]
    // SAFETY: the instruction is that of the feature, and touches nothing but its registers.
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
