//! Functions of single numbers.

use cubecl::prelude::*;

use crate::matmul::Load;
use crate::{Buffer, Gpu};

/// Units of a cube.
pub(crate) const UNITS: u32 = 256;

#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn swiglu_kernel(gate: &[f32], up: &[f32], out: &mut [f32], len: u32) {
    let at = ABSOLUTE_POS;
    if (at as u32) < len {
        let g = gate[at];
        // For g below −88 the exponential is infinite, and the quotient 0, as it should be.
        out[at] = g / (1.0f32 + (-g).exp()) * up[at];
    }
}

/// `silu(gate) · up`, of equal sizes.
///
/// # Panics
/// If the sizes differ.
pub fn swiglu(gpu: &Gpu, gate: &Buffer, up: &Buffer) -> Buffer {
    assert_eq!(gate.len(), up.len(), "gate and up are of one size");
    let out = gpu.empty(gate.len());
    // SAFETY: all are of one size.
    unsafe {
        swiglu_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(gate.len()),
            CubeDim::new_1d(UNITS),
            gate.arg(1),
            up.arg(1),
            out.arg(1),
            gate.len() as u32,
        );
    }
    out
}

/// `y` is repeated over `x`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn add_kernel(x: &[f32], y: &[f32], out: &mut [f32], scale: f32, len: u32, period: u32) {
    let at = ABSOLUTE_POS;
    if (at as u32) < len {
        out[at] = fma(scale, y[(at as u32 % period) as usize], x[at]);
    }
}

/// `x + scale · y`: `y` of the size of `x`, or of its last axes, as a bias is.
///
/// # Panics
/// If the size of `x` is no multiple of that of `y`.
pub fn add_scaled(gpu: &Gpu, x: &Buffer, y: &Buffer, scale: f32) -> Buffer {
    assert!(x.len().is_multiple_of(y.len().max(1)), "{} numbers are no multiple of {}", x.len(), y.len());
    let out = gpu.empty(x.len());
    // SAFETY: `out` has the size of `x`, and the index into `y` is below its size.
    unsafe {
        add_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(x.len()),
            CubeDim::new_1d(UNITS),
            x.arg(1),
            y.arg(1),
            out.arg(1),
            scale,
            x.len() as u32,
            y.len().max(1) as u32,
        );
    }
    out
}

/// A unit copies 16 bytes.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn copy_kernel(from: &[Load], to: &mut [Load], len: u32) {
    let at = ABSOLUTE_POS;
    if (at as u32) < len {
        to[at] = from[at];
    }
}

/// [`Gpu::copy`].
pub(crate) fn copy(gpu: &Gpu, from: &Buffer, to: &Buffer) {
    assert!(from.len() <= to.len(), "{} words do not fit a buffer of {}", from.len(), to.len());
    // The padding after a buffer may be copied, words after the part that is meant may not.
    let is_whole = from.len().is_multiple_of(4) || from.len() == to.len();
    assert!(is_whole, "{} words are no whole number of 16 bytes", from.len());
    let loads = from.len().div_ceil(4);
    if loads == 0 {
        return;
    }
    // SAFETY: both have so many loads, as buffers are padded to whole ones.
    unsafe {
        copy_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(loads),
            CubeDim::new_1d(UNITS),
            from.arg(4),
            to.arg(4),
            loads as u32,
        );
    }
}
