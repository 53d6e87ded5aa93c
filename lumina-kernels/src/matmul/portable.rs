//! Kernels in plain Rust: the path of processors without a kernel of their own, and what the others are tested against.

use super::arithmetic::{Arithmetic, BLOCK, INPUT_BLOCK, PANEL_BLOCK};
use super::kernel::{GROUP, Source};
use crate::Format;
use crate::format::{q4_0, q8_0, scale};
use crate::scratch::Lanes;

/// Activation rows of a tile: sums of one panel take 4 SSE2 or NEON registers a row.
pub(super) const TILE: usize = 3;

/// The product for an arithmetic that every processor can do.
pub(super) fn multiply(arithmetic: Arithmetic) -> unsafe fn(&[Lanes], &[u32], usize, &mut [Lanes]) {
    match arithmetic {
        Arithmetic::Float | Arithmetic::Bfloat => floats,
        Arithmetic::Bytes { .. } => bytes,
    }
}

fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes]) {
    match rows {
        1 => float_tile::<1, false>(group, x, sums),
        2 => float_tile::<2, false>(group, x, sums),
        _ => float_tile::<TILE, false>(group, x, sums),
    }
}

/// Without the instruction a fused multiply-add is a slow library call, so the portable path rounds twice.
#[inline(always)]
pub(super) fn float_tile<const X: usize, const FMA: bool>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[0.0f32; Lanes::COUNT]; X];
        for (w, x) in panel.iter().zip(x.as_chunks::<X>().0) {
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = f32::from_bits(*x);
                for (acc, w) in acc.iter_mut().zip(&w.0) {
                    let w = f32::from_bits(*w);
                    *acc = if FMA { w.mul_add(x, *acc) } else { w * x + *acc };
                }
            }
        }
        add(&acc, index, sums);
    }
}

/// The one fused multiply-add a block is affordable, and makes these products the same on every instruction set.
fn bytes(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes]) {
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
pub(super) fn pack(source: &Source<'_>, panel: &mut [Lanes]) {
    match source.matrix.format() {
        Format::Q8_0 | Format::Q4_0 if panel.len() == source.steps * PANEL_BLOCK => bytes_panel(source, panel),
        _ => float_panel(source, panel),
    }
}

/// Any format, widened to `f32`.
pub(super) fn float_panel(source: &Source<'_>, panel: &mut [Lanes]) {
    /// The largest block, and a whole number of any other.
    const PART: usize = 256;
    let format = source.matrix.format();
    let mut values = [0.0; PART];
    for lane in 0..Lanes::COUNT {
        for (part, panel) in panel.chunks_mut(PART).enumerate() {
            let start = format.bytes_before(source.step + part * PART);
            let bytes = &source.lane(lane, start)[..format.bytes_before(panel.len())];
            format.read(bytes, &mut values[..panel.len()]);
            for (value, vector) in values.iter().zip(panel) {
                vector.0[lane] = value.to_bits();
            }
        }
    }
}

fn bytes_panel(source: &Source<'_>, panel: &mut [Lanes]) {
    let format = source.matrix.format();
    for lane in 0..Lanes::COUNT {
        let row = source.lane(lane, source.step * format.block_bytes());
        for (block, panel) in row.chunks_exact(format.block_bytes()).zip(panel.as_chunks_mut::<PANEL_BLOCK>().0) {
            let mut quants = [0u8; BLOCK];
            match format {
                Format::Q8_0 => quants.copy_from_slice(&block[q8_0::QUANTS..]),
                _ => {
                    for (index, byte) in block[q4_0::QUANTS..].iter().enumerate() {
                        (quants[index], quants[index + BLOCK / 2]) = (byte & 15, byte >> 4);
                    }
                }
            }
            for (quad, vector) in quants.as_chunks::<4>().0.iter().zip(panel.iter_mut()) {
                vector.0[lane] = u32::from_le_bytes(*quad);
            }
            panel[PANEL_BLOCK - 1].0[lane] = scale(block, 0).to_bits();
        }
    }
}

/// Steps `from..` of a panel of pairs of `bf16`, where the last pair may be half a one.
pub(super) fn pairs_panel(source: &Source<'_>, from: usize, panel: &mut [Lanes]) {
    for lane in 0..Lanes::COUNT {
        let row = source.lane(lane, (source.step + from) * 4);
        for (pair, vector) in row.chunks(4).zip(&mut panel[from..]) {
            let high = if let [.., low, high] = pair
                && pair.len() == 4
            {
                [*low, *high]
            } else {
                [0; 2]
            };
            vector.0[lane] = u32::from_le_bytes([pair[0], pair[1], high[0], high[1]]);
        }
    }
}
