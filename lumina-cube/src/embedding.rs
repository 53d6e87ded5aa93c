//! Rows of a table.

use cubecl::prelude::*;

use crate::bits::half_pair;
use crate::elementwise::UNITS;
use crate::weights::{BLOCK, Format, Matrix};
use crate::{Buffer, Gpu};

/// A unit has a number of the result.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    table: &[u32],
    scales: &[u32],
    indices: &[u32],
    out: &mut [f32],
    first_word: u32,
    first_scale: u32,
    row_words: u32,
    entries: u32,
    width: u32,
    len: u32,
    #[comptime] format: Format,
) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let column = at % width;
        let row = min(indices[(at / width) as usize], entries - 1u32);
        let base = first_word + row * row_words;
        if comptime!(format == Format::F32) {
            out[at as usize] = f32::reinterpret(table[(base + column) as usize]);
        } else if comptime!(format == Format::BF16) {
            let word = table[(base + column / 2) as usize];
            out[at as usize] = f32::reinterpret((word >> (column % 2 * 16u32)) << 16u32);
        } else if comptime!(format == Format::F16) {
            let word = table[(base + column / 2) as usize];
            out[at as usize] = half_pair((word >> (column % 2 * 16u32)) & 0xffffu32).extract(0usize);
        } else {
            let block = column / comptime!(BLOCK as u32);
            let inside = column % comptime!(BLOCK as u32);
            let index = first_scale + row * (width / comptime!(BLOCK as u32)) + block;
            let scale = half_pair((scales[(index / 2) as usize] >> (index % 2 * 16u32)) & 0xffffu32).extract(0usize);
            if comptime!(format == Format::Q8_0) {
                let word = table[(base + column / 4) as usize];
                let byte = i32::reinterpret(word << (24u32 - 8u32 * (inside % 4))) >> 24i32;
                out[at as usize] = f32::cast_from(byte) * scale;
            } else {
                // Low halves of the 16 bytes are numbers 0 … 15, high halves 16 … 31.
                let word = table[(base + block * 4 + inside % 16 / 4) as usize];
                let nibble = (word >> (8u32 * (inside % 4) + 4u32 * (inside / 16))) & 15u32;
                out[at as usize] = (f32::cast_from(nibble) - 8.0f32) * scale;
            }
        }
    }
}

/// The rows of `table` `[entries, width]` at `indices`: `[indices.len(), width]`. An index beyond the table is its last
/// row.
pub fn embedding(gpu: &Gpu, table: &Matrix, indices: &Buffer) -> Buffer {
    let len = indices.len() * table.columns();
    let out = gpu.empty(len);
    if len == 0 || table.rows() == 0 {
        return out;
    }
    // SAFETY: the row is one of the table, and `out` has a number for each unit.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(len),
            CubeDim::new_1d(UNITS),
            table.words().arg(1),
            table.scales().arg(1),
            indices.arg(1),
            out.arg(1),
            table.load_of(0) as u32 * 4,
            table.scale_of(0) as u32,
            (table.load_of(1) - table.load_of(0)) as u32 * 4,
            table.rows() as u32,
            table.columns() as u32,
            len as u32,
            table.format(),
        );
    }
    out
}

/// Grid: units of 256. A unit has a number of the result.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn select_kernel(x: &[f32], indices: &[u32], out: &mut [f32], width: u32, len: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let row = indices[(at / width) as usize];
        out[at as usize] = x[(row * width + at % width) as usize];
    }
}

/// The rows of `x` `[n, width]` at `indices`, each of which is one: `[indices.len(), width]`.
pub fn select(gpu: &Gpu, x: &Buffer, width: usize, indices: &Buffer) -> Buffer {
    let len = indices.len() * width;
    let out = gpu.empty(len);
    if len == 0 {
        return out;
    }
    // SAFETY: indices are rows of `x`, which its callers make of what they know of it.
    unsafe {
        select_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(len),
            CubeDim::new_1d(UNITS),
            x.arg(1),
            indices.arg(1),
            out.arg(1),
            width as u32,
            len as u32,
        );
    }
    out
}
