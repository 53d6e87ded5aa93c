//! Packing and GEMM in plain Rust: for processors without kernels of their own, and what the other kernels are tested
//! against.

use super::arithmetic::{Arithmetic, BLOCK, BLOCK_PART};
use super::blocks::{ActivationBlock, PanelBlock};
use super::kernel::{GROUP, Gemm, with_constant_rows};
use super::weight_rows::{PrefetchRows, WeightRows};
use crate::Format;
use crate::format::{Block, q4_0::BlockQ4_0, q8_0::BlockQ8_0};
use crate::scratch::Lanes;

/// Activation rows of a tile: sums of one panel take 4 SSE2 or NEON registers a row.
pub(super) const TILE: usize = 3;

/// The GEMM for an arithmetic that every processor can do.
pub(super) fn gemm(arithmetic: Arithmetic) -> Gemm {
    match arithmetic {
        Arithmetic::F32 | Arithmetic::Bf16 | Arithmetic::AmxBf16 => floats,
        Arithmetic::Int8 { .. } | Arithmetic::AmxInt8 => integers,
    }
}

fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: PrefetchRows) {
    with_constant_rows!(rows, [1, 2], TILE, X => float_tile::<X>(group, x, sums));
}

/// Without the instruction a fused multiply-add is a slow library call, so this rounds twice.
#[inline(always)]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[0.0f32; Lanes::COUNT]; X];
        for (w, x) in panel.iter().zip(x.as_chunks::<X>().0) {
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = f32::from_bits(*x);
                for (acc, w) in acc.iter_mut().zip(&w.0) {
                    let w = f32::from_bits(*w);
                    *acc += w * x;
                }
            }
        }
        add(&acc, index, sums);
    }
}

/// One fused multiply-add a block is affordable, and makes results the same on every instruction set.
fn integers(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: PrefetchRows) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        for row in 0..rows {
            let mut acc = [[0.0f32; Lanes::COUNT]];
            let x_blocks = ActivationBlock::slice(x)[row..].iter().step_by(rows);
            for (w, x) in PanelBlock::slice(panel).iter().zip(x_blocks) {
                let mut dots = [x.start; Lanes::COUNT];
                for (w, x) in w.quads.iter().zip(x.quads) {
                    let x = x.to_le_bytes().map(|byte| i32::from(byte as i8));
                    for (dot, w) in dots.iter_mut().zip(&w.0) {
                        let w = w.to_le_bytes().map(|byte| i32::from(byte as i8));
                        *dot += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
                    }
                }
                for ((acc, dot), w_scale) in acc[0].iter_mut().zip(dots).zip(&w.scales.0) {
                    *acc = (dot as f32).mul_add(f32::from_bits(*w_scale) * x.scale, *acc);
                }
            }
            add(&acc, index, &mut sums[row * GROUP..]);
        }
    }
}

/// Adds the sums of panel `index` to those of its group.
fn add<const X: usize>(acc: &[[f32; Lanes::COUNT]; X], index: usize, sums: &mut [Lanes]) {
    for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<GROUP>().0) {
        for (sum, acc) in sums[index].0.iter_mut().zip(acc) {
            *sum = (f32::from_bits(*sum) + acc).to_bits();
        }
    }
}

/// Packs for `f32` arithmetic, from any format, or 8- and 4-bit blocks for integer arithmetic, with unchanged integers:
/// signed, or from 0 to 15.
pub(super) fn pack(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let columns = weights.columns;
    let format = weights.format;
    if format.block_elements() == BLOCK && group.len() == GROUP * PanelBlock::VECTORS * columns / BLOCK {
        match format {
            Format::Q8_0 => pack_blocks(weights, index, group, |block: &BlockQ8_0| {
                (block.quants.map(i8::cast_unsigned), block.scale())
            }),
            _ => pack_blocks(weights, index, group, |block: &BlockQ4_0| (block.quants(), block.scale())),
        }
    } else {
        pack_floats(weights, index, group, 0);
    }
}

/// Packs any format as `f32`, from line `first` of 16 columns on, where a block begins.
#[inline(always)]
pub(super) fn pack_floats(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes], first: usize) {
    /// The largest block, and a whole number of any other.
    const RUN: usize = 256;
    let format = weights.format;
    let part = group.len() / GROUP / Lanes::COUNT;
    let run_bytes = format.bytes_of(RUN);
    for row in 0..Lanes::COUNT {
        let bytes = &weights.row(row)[format.bytes_of(first * Lanes::COUNT)..];
        for (run, bytes) in bytes.chunks(run_bytes).enumerate() {
            let mut values = [0.0; RUN];
            let count = bytes.len() / format.block_bytes() * format.block_elements();
            format.dequantise_blocks(bytes, &mut values[..count]);
            for (m, values) in values.chunks(Lanes::COUNT).enumerate().take(count.div_ceil(Lanes::COUNT)) {
                let m = first + run * (RUN / Lanes::COUNT) + m;
                for (class, value) in values.iter().enumerate() {
                    group[(class * GROUP + index) * part + m].0[row] = value.to_bits();
                }
            }
        }
    }
}

/// The place of block `block` of panel `index` in a group of `blocks` a panel, in blocks.
pub(super) fn block_place(block: usize, blocks: usize, index: usize) -> usize {
    let first = block / BLOCK_PART * BLOCK_PART;
    let part = BLOCK_PART.min(blocks - first);
    first * GROUP + index * part + block % BLOCK_PART
}

#[inline(always)]
fn pack_blocks<B: Block<BLOCK>>(
    weights: &WeightRows<'_>,
    index: usize,
    group: &mut [Lanes],
    read: impl Fn(&B) -> ([u8; BLOCK], f32),
) {
    let blocks = weights.columns / BLOCK;
    for row in 0..Lanes::COUNT {
        for (number, block) in B::slice(weights.row(row)).iter().enumerate() {
            let to = PanelBlock::at(group, block_place(number, blocks, index));
            let (quants, scale) = read(block);
            for (quad, vector) in quants.as_chunks::<4>().0.iter().zip(&mut to.quads) {
                vector.0[row] = u32::from_le_bytes(*quad);
            }
            to.scales.0[row] = scale.to_bits();
        }
    }
}
