//! Results of splits into one, in their order.

use cubecl::prelude::*;

use super::kv::AttentionShape;
use super::pass::Pass;
use super::split::{LOWEST, SPLIT};
use crate::{Buffer, Gpu};

/// Results of splits for some tokens of a pass, by their places in its tiles.
pub(super) struct Parts {
    /// Weighted sums of values, `[tokens, heads, splits, padded_dim]`.
    pub(super) sums: Buffer,
    /// The largest score and the sum of weights, `[tokens, heads, splits, 2]`.
    pub(super) stats: Buffer,
    pub(super) first_place: usize,
    pub(super) tokens: usize,
    pub(super) splits: usize,
}

/// Grid: (heads, tokens), of which tiles of one token are a list. A unit has a number of the head. Splits that the
/// token does not see are not read.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    sums: &[f32],
    stats: &[f32],
    positions: &[u32],
    tiles: &[u32],
    out: &mut [f32],
    first_place: u32,
    splits: u32,
    #[comptime] shape: AttentionShape,
) {
    let heads = comptime!(shape.heads as u32);
    let padded = comptime!(shape.padded_dim());
    let number = UNIT_POS as usize;
    let token = tiles[(first_place + CUBE_POS_Y) as usize * 3];
    let used = positions[token as usize] / comptime!(SPLIT as u32) + 1u32;
    let first = ((CUBE_POS_Y * heads + CUBE_POS_X) * splits) as usize;
    if number < comptime!(shape.head_dim) {
        let mut most = f32::new(LOWEST);
        for split in 0..used as usize {
            most = max(most, stats[(first + split) * 2]);
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for split in 0..used as usize {
            let share = (stats[(first + split) * 2] - most).exp();
            sum = fma(sums[(first + split) * padded + number], share, sum);
            total = fma(stats[(first + split) * 2 + 1], share, total);
        }
        out[(token * heads + CUBE_POS_X) as usize * comptime!(shape.head_dim) + number] = sum / total;
    }
}

/// The tokens' rows of `out` `[n, heads · head_dim]`.
pub(super) fn launch(gpu: &Gpu, shape: &AttentionShape, pass: &Pass, parts: &Parts, out: &Buffer) {
    // SAFETY: parts have results of each token, head and split, and `out` has a number for each unit.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(shape.heads as u32, parts.tokens as u32, 1),
            CubeDim::new_1d(shape.head_dim.next_multiple_of(32) as u32),
            parts.sums.arg(1),
            parts.stats.arg(1),
            pass.positions.arg(1),
            pass.tiles.arg(1),
            out.arg(1),
            parts.first_place as u32,
            parts.splits as u32,
            *shape,
        );
    }
}
