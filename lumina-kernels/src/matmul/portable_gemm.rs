//! Matmul in plain Rust: the path of processors without a kernel of their own, and what the others are tested against.

use super::arithmetic::{Arithmetic, BLOCK, BLOCK_RUN, INPUT_BLOCK, PANEL_BLOCK};
use super::kernel::{GROUP, Multiply, by_rows};
use super::weight_rows::{Rows, Source};
use crate::Format;
use crate::format::{q4_0, q8_0, scale};
use crate::scratch::Lanes;

/// Activation rows of a tile: sums of one panel take 4 SSE2 or NEON registers a row.
pub(super) const TILE: usize = 3;

/// The product for an arithmetic that every processor can do.
pub(super) fn multiply(arithmetic: Arithmetic) -> Multiply {
    match arithmetic {
        Arithmetic::Float | Arithmetic::Bfloat | Arithmetic::Tiles => floats,
        Arithmetic::Bytes { .. } | Arithmetic::TileBytes => bytes,
    }
}

fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: Rows) {
    by_rows!(rows, [1, 2], TILE, X => float_tile::<X>(group, x, sums));
}

/// Without the instruction a fused multiply-add is a slow library call, so the portable path rounds twice.
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

/// The one fused multiply-add a block is affordable, and makes these products the same on every instruction set.
fn bytes(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: Rows) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        for row in 0..rows {
            let mut acc = [[0.0f32; Lanes::COUNT]];
            let records = x.as_chunks::<INPUT_BLOCK>().0[row..].iter().step_by(rows);
            for (w, x) in panel.as_chunks::<PANEL_BLOCK>().0.iter().zip(records) {
                let mut dots = [x[9] as i32; Lanes::COUNT];
                for (w, x) in w.iter().zip(&x[..8]) {
                    let x = x.to_le_bytes().map(|byte| i32::from(byte as i8));
                    for (dot, w) in dots.iter_mut().zip(&w.0) {
                        let w = w.to_le_bytes().map(|byte| i32::from(byte as i8));
                        *dot += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
                    }
                }
                let x_scale = f32::from_bits(x[8]);
                for ((acc, dot), w_scale) in acc[0].iter_mut().zip(dots).zip(&w[8].0) {
                    *acc = (dot as f32).mul_add(f32::from_bits(*w_scale) * x_scale, *acc);
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

/// Packs for `f32` arithmetic, from any format, and for bytes with weights as they are: signed, or from 0 to 15.
pub(super) fn pack(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let columns = source.columns;
    let format = source.format;
    if format.block_elements() == BLOCK && group.len() == GROUP * PANEL_BLOCK * columns / BLOCK {
        bytes_panel(source, index, group);
    } else {
        float_panel(source, index, group, 0);
    }
}

/// Any format, widened to `f32`, from line `first` of 16 columns on, where a block begins.
#[inline(always)]
pub(super) fn float_panel(source: &Source<'_>, index: usize, group: &mut [Lanes], first: usize) {
    /// The largest block, and a whole number of any other.
    const RUN: usize = 256;
    let format = source.format;
    let part = group.len() / GROUP / Lanes::COUNT;
    let run_bytes = format.bytes_of(RUN);
    for lane in 0..Lanes::COUNT {
        let bytes = &source.lane(lane)[format.bytes_of(first * Lanes::COUNT)..];
        for (run, bytes) in bytes.chunks(run_bytes).enumerate() {
            let mut values = [0.0; RUN];
            let count = bytes.len() / format.block_bytes() * format.block_elements();
            format.read(bytes, &mut values[..count]);
            for (m, values) in values.chunks(Lanes::COUNT).enumerate().take(count.div_ceil(Lanes::COUNT)) {
                let m = first + run * (RUN / Lanes::COUNT) + m;
                for (class, value) in values.iter().enumerate() {
                    group[(class * GROUP + index) * part + m].0[lane] = value.to_bits();
                }
            }
        }
    }
}

/// Where block `block` of panel `index` begins in a group of `blocks` a panel.
pub(super) fn block_place(block: usize, blocks: usize, index: usize) -> usize {
    let first = block / BLOCK_RUN * BLOCK_RUN;
    let run = BLOCK_RUN.min(blocks - first);
    (first * GROUP + index * run + block % BLOCK_RUN) * PANEL_BLOCK
}

fn bytes_panel(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let format = source.format;
    let blocks = source.columns / BLOCK;
    for lane in 0..Lanes::COUNT {
        for (number, block) in source.lane(lane).chunks_exact(format.block_bytes()).enumerate() {
            let place = block_place(number, blocks, index);
            let to = &mut group[place..place + PANEL_BLOCK];
            for (quad, vector) in quants(format, block).as_chunks::<4>().0.iter().zip(to.iter_mut()) {
                vector.0[lane] = u32::from_le_bytes(*quad);
            }
            to[PANEL_BLOCK - 1].0[lane] = scale(block, 0).to_bits();
        }
    }
}

/// The numbers of a block: signed, or from 0 to 15.
#[inline(always)]
pub(super) fn quants(format: Format, block: &[u8]) -> [u8; BLOCK] {
    let mut quants = [0u8; BLOCK];
    match format {
        Format::Q8_0 => quants.copy_from_slice(&block[q8_0::QUANTS..]),
        _ => {
            for (index, byte) in block[q4_0::QUANTS..].iter().enumerate() {
                (quants[index], quants[index + BLOCK / 2]) = (byte & 15, byte >> 4);
            }
        }
    }
    quants
}
