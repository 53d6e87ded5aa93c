//! RMS norm, alone and after a residual addition.

use cubecl::prelude::*;

use crate::reduce::cube_sum;
use crate::{Buffer, Gpu};

/// Units of a cube, which has a row.
const UNITS: u32 = 256;

/// Grid: a cube a row. With `add` the row of `y` is added first, and the sum goes to `sum`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    x: &[f32],
    y: &[f32],
    weight: &[f32],
    sum: &mut [f32],
    out: &mut [f32],
    width: u32,
    epsilon: f32,
    #[comptime] add: bool,
    #[comptime] lanes: u32,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!((UNITS / lanes) as usize));
    let base = CUBE_POS_X as usize * width as usize;
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width as usize {
        let mut value = x[base + at];
        if comptime!(add) {
            value = value + y[base + at];
            sum[base + at] = value;
        }
        squares = fma(value, value, squares);
        at += comptime!(UNITS as usize);
    }
    let squares = cube_sum(squares, &mut scratch, lanes, comptime!(UNITS / lanes));
    let factor = 1.0f32 / (squares / f32::cast_from(width) + epsilon).sqrt();
    let mut at = UNIT_POS as usize;
    while at < width as usize {
        // A unit reads what it has written itself.
        let value = if comptime!(add) { sum[base + at] } else { x[base + at] };
        out[base + at] = value * factor * weight[at];
        at += comptime!(UNITS as usize);
    }
}

fn launch(gpu: &Gpu, [x, y, weight]: [&Buffer; 3], [sum, out]: [&Buffer; 2], epsilon: f32, add: bool) {
    let width = weight.len();
    let n = x.len().checked_div(width).unwrap_or(0);
    assert!(x.len() == n * width && y.len() == x.len(), "{} numbers are no rows of {width}", x.len());
    if n == 0 {
        return;
    }
    // SAFETY: all have `n` rows of `width` numbers, and `weight` has one.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(n as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            x.arg(1),
            y.arg(1),
            weight.arg(1),
            sum.arg(1),
            out.arg(1),
            width as u32,
            epsilon,
            add,
            gpu.lanes(),
        );
    }
}

/// `x / √(mean(x²) + epsilon) · weight` over rows: `x` `[n, width]`, `weight` `[width]` → `[n, width]`.
///
/// # Panics
/// If `x` is no whole number of rows.
pub fn rms_norm(gpu: &Gpu, x: &Buffer, weight: &Buffer, epsilon: f32) -> Buffer {
    let out = gpu.empty(x.len());
    // Nothing is written to the sum, but drivers want no buffer twice where one is written.
    let unused = gpu.empty(1);
    launch(gpu, [x, x, weight], [&unused, &out], epsilon, false);
    out
}

/// `s = x + y`, all `[n, width]`, and the RMS norm of `s`: both.
///
/// # Panics
/// If `x` and `y` are not of one size, a whole number of rows.
pub fn add_rms_norm(gpu: &Gpu, x: &Buffer, y: &Buffer, weight: &Buffer, epsilon: f32) -> [Buffer; 2] {
    let [sum, out] = [gpu.empty(x.len()), gpu.empty(x.len())];
    launch(gpu, [x, y, weight], [&sum, &out], epsilon, true);
    [sum, out]
}
