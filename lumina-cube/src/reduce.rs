//! Sums over units in a fixed order.

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
        // Those who read the sums before are done.
        sync_cube();
        if UNIT_POS % lanes == 0 {
            scratch[(UNIT_POS / lanes) as usize] = own;
        }
        sync_cube();
        let mut sum = 0.0f32;
        #[unroll]
        for part in 0..parts {
            sum += scratch[part as usize];
        }
        sum
    }
}
