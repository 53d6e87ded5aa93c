//! Sums over units in a fixed order, and the greatest of them.

use cubecl::prelude::*;

/// The sum over `lanes` consecutive units of a plane, which all of them get.
#[cube]
pub(crate) fn lane_sum(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0..comptime!(lanes.ilog2()) {
        let mask = comptime!(1u32 << step);
        sum += plane_shuffle_xor(sum, mask);
    }
    sum
}

/// The greatest of `lanes` consecutive units of a plane, which all of them get.
#[cube]
pub(crate) fn lane_max(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut greatest = value;
    #[unroll]
    for step in 0..comptime!(lanes.ilog2()) {
        let mask = comptime!(1u32 << step);
        greatest = max(greatest, plane_shuffle_xor(greatest, mask));
    }
    greatest
}

/// The sum over all units of a cube of `parts` · `lanes` units, which all of them get. `scratch` has `parts` numbers.
#[cube]
pub(crate) fn cube_sum(value: f32, scratch: &mut Shared<[f32]>, #[comptime] lanes: u32, #[comptime] parts: u32) -> f32 {
    let own = lane_sum(value, lanes);
    if comptime!(parts == 1) {
        own
    } else {
        share(own, scratch, lanes);
        let mut sum = 0.0f32;
        #[unroll]
        for part in 0..parts {
            sum += scratch[part as usize];
        }
        sum
    }
}

/// The greatest of all units of a cube, as [`cube_sum`].
#[cube]
pub(crate) fn cube_max(value: f32, scratch: &mut Shared<[f32]>, #[comptime] lanes: u32, #[comptime] parts: u32) -> f32 {
    let own = lane_max(value, lanes);
    if comptime!(parts == 1) {
        own
    } else {
        share(own, scratch, lanes);
        let mut greatest = scratch[0];
        #[unroll]
        for part in 1..parts {
            greatest = max(greatest, scratch[part as usize]);
        }
        greatest
    }
}

/// What the lanes of each part have in common, to all units of the cube.
#[cube]
fn share(own: f32, scratch: &mut Shared<[f32]>, #[comptime] lanes: u32) {
    // Those who read the numbers before are done.
    sync_cube();
    if UNIT_POS % lanes == 0 {
        scratch[(UNIT_POS / lanes) as usize] = own;
    }
    sync_cube();
}
