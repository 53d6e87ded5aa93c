//! Attention of one head over all positions of an image.

use cubecl::prelude::*;

use super::tiles::Call;
use super::{LOAD, Maps, padded};
use crate::reduce::{cube_max, cube_sum};
use crate::{Buffer, Gpu};

/// Units of a cube that has a row of scores.
const UNITS: u32 = 256;

/// The most words of scores at a time: 32 MiB. At least one row is there.
const SCORE_WORDS: usize = 8 << 20;

/// Units of a side of the tile that is transposed.
const SIDE: usize = 16;

/// Grid: (tiles of positions, tiles of channels, images). Keys `[batch, positions, channels]` to `[batch, channels,
/// row]`, with zeros beyond the last position.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn transpose_kernel(x: &[f32], out: &mut [f32], positions: u32, channels: u32, row: u32) {
    let mut tile = Shared::<[f32]>::new_slice(comptime!(SIDE * (SIDE + 1)));
    let side = comptime!(SIDE as u32);
    let position = CUBE_POS_X * side + UNIT_POS_Y;
    let channel = CUBE_POS_Y * side + UNIT_POS_X;
    let source = (CUBE_POS_Z * positions + min(position, positions - 1u32)) * channels + min(channel, channels - 1u32);
    let value = select(position < positions, x[source as usize], 0.0f32);
    tile[(UNIT_POS_Y * comptime!(SIDE as u32 + 1) + UNIT_POS_X) as usize] = value;
    sync_cube();
    let position = CUBE_POS_X * side + UNIT_POS_X;
    let channel = CUBE_POS_Y * side + UNIT_POS_Y;
    if position < row && channel < channels {
        let target = (CUBE_POS_Z * channels + channel) * row + position;
        out[target as usize] = tile[(UNIT_POS_X * comptime!(SIDE as u32 + 1) + UNIT_POS_Y) as usize];
    }
}

/// Grid: a cube a row of scores, folded. `softmax(scale · scores)` in place, with zeros beyond the last position.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn softmax_kernel(
    scores: &mut [f32],
    positions: u32,
    row: u32,
    rows: u32,
    scale: f32,
    #[comptime] lanes: u32,
) {
    let parts = comptime!(UNITS / lanes);
    let mut scratch = Shared::<[f32]>::new_slice(comptime!((UNITS / lanes) as usize));
    // Cubes beyond the last row compute it again, and do not write.
    let index = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let base = min(index, rows - 1u32) * row;
    let mut most = scores[base as usize];
    let mut at = UNIT_POS;
    while at < positions {
        most = max(most, scores[(base + at) as usize]);
        at += comptime!(UNITS);
    }
    let most = cube_max(most, &mut scratch, lanes, parts);
    let mut sum = 0.0f32;
    let mut at = UNIT_POS;
    while at < positions {
        sum += ((scores[(base + at) as usize] - most) * scale).exp();
        at += comptime!(UNITS);
    }
    let sum = cube_sum(sum, &mut scratch, lanes, parts);
    if index < rows {
        let mut at = UNIT_POS;
        while at < row {
            // A unit reads and writes its own numbers alone.
            let score = scores[(base + at) as usize];
            let weight = ((score - most) * scale).exp() / sum;
            scores[(base + at) as usize] = select(at < positions, weight, 0.0f32);
            at += comptime!(UNITS);
        }
    }
}

/// The keys of all images, `[batch, channels, row]`.
fn transpose(gpu: &Gpu, keys: &Maps, row: usize) -> Buffer {
    let [batch, channels, height, width] = keys.shape;
    let out = gpu.empty(batch * padded(channels) * row);
    let side = SIDE as u32;
    let count = CubeCount::Static((row as u32).div_ceil(side), (padded(channels) as u32).div_ceil(side), batch as u32);
    // SAFETY: keys are `[batch, positions, padded channels]`, the result is as they, transposed.
    unsafe {
        transpose_kernel::launch_unchecked(
            gpu.client(),
            count,
            CubeDim::new_2d(side, side),
            keys.values.arg(1),
            out.arg(1),
            (height * width) as u32,
            padded(channels) as u32,
            row as u32,
        );
    }
    out
}

fn softmax(gpu: &Gpu, scores: &Buffer, [rows, positions, row]: [usize; 3], scale: f32) {
    // SAFETY: the scores are `[rows, row]`.
    unsafe {
        softmax_kernel::launch_unchecked(
            gpu.client(),
            gpu.line(rows),
            CubeDim::new_1d(UNITS),
            scores.arg(1),
            positions as u32,
            row as u32,
            rows as u32,
            scale,
            gpu.lanes(),
        );
    }
}

/// `softmax(q · kᵀ / √channels) · v` over the positions of each image: `q`, `k`, `v` `[batch, channels, height, width]`
/// → the same. The scores of some positions are in memory at a time, 32 MiB of them.
///
/// # Panics
/// If the shapes differ.
pub fn attention(gpu: &Gpu, q: &Maps, k: &Maps, v: &Maps) -> Maps {
    assert!(q.shape == k.shape && q.shape == v.shape, "queries, keys and values are of one shape");
    let [batch, channels, height, width] = q.shape;
    let out = Maps::empty(gpu, q.shape);
    let positions = height * width;
    if positions == 0 || batch == 0 || channels == 0 {
        return out;
    }
    let (row, loads) = (padded(positions), q.loads());
    let keys = transpose(gpu, k, row);
    let chunk = (SCORE_WORDS / row).clamp(1, positions);
    let scale = (channels as f64).powf(-0.5) as f32;
    for image in 0..batch {
        for start in (0..positions).step_by(chunk) {
            let rows = chunk.min(positions - start);
            let first = ((image * positions + start) * loads) as u32;
            let scores = gpu.empty(rows * row);
            let mut call = Call::product(gpu, rows, &q.values, &keys, &scores);
            call.size.inputs = loads as u32;
            call.size.outputs = (row / LOAD) as u32;
            call.size.weight_rows = padded(channels) as u32;
            call.size.first = first;
            call.size.first_weight = (image * padded(channels) * row / LOAD) as u32;
            call.run();
            softmax(gpu, &scores, [rows, positions, row], scale);
            let mut call = Call::product(gpu, rows, &scores, &v.values, &out.values);
            call.size.inputs = (row / LOAD) as u32;
            call.size.outputs = loads as u32;
            call.size.weight_rows = positions as u32;
            call.size.first_weight = (image * positions * loads) as u32;
            call.size.first_out = first;
            call.run();
        }
    }
    out
}
