//! Activations in the order of the instructions' fragments.
//!
//! Rows are grouped by eight. Of a group, each step of k has 32 loads for each part, those of the lanes in their order:
//! a plane reads 512 bytes side by side. Rows that are not there, in the last group, have arbitrary content: they are
//! columns of their own in each product.

use cubecl::prelude::*;

use super::few::takes_plain;
use super::fragments::Q8_ORDER;
use super::{Kind, Runs, TILE_ROWS};
use crate::bits::{half_value, round_bf16, round_f16};
use crate::matmul::bytes::round_block;
use crate::matmul::{Float4, Load};
use crate::tensor_cores::PLANE;
use crate::weights::{BLOCK, Format};
use crate::{Buffer, Gpu};

/// Units of a cube.
const UNITS: u32 = 256;

/// Activations in the order of fragments, for weights of one kind; or as they are, where kernels take them so.
pub(in crate::matmul) struct Packed {
    pub(super) kind: Kind,
    pub(super) words: Buffer,
    /// What a block's numbers are multiplied with, at `scale_index`. Beside weights in `f16` a row is one block, beside
    /// `bf16` there are none.
    pub(super) scales: Buffer,
}

impl Packed {
    /// Whether it serves weights of a kind.
    pub(in crate::matmul) fn serves(&self, kind: Kind) -> bool {
        self.kind == kind
    }
}

/// The load of a row and a lane of its four, in a step of so many loads for each lane.
#[cube]
fn load_index(row: u32, step: u32, part: u32, lane: u32, steps: u32, loads: u32) -> usize {
    let group = (row / 8 * steps + step) * loads + part;
    (group * 32 + row % 8 * 4 + lane) as usize
}

/// The scale of a block of a row that has `padded`: two blocks of two rows lie side by side, as a lane's columns are
/// two.
#[cube]
fn scale_index(row: u32, block: u32, padded: u32) -> usize {
    let pair = (row / 8 * (padded / 2) + block / 2) * 4 + row % 8 / 2;
    (pair * 4 + block % 2 * 2 + row % 2) as usize
}

/// The first 16 bits of a number, and what they leave.
#[cube]
fn split(value: f32, #[comptime] format: Format) -> (u32, f32) {
    if comptime!(format == Format::BF16) {
        let word = round_bf16(value);
        (word, value - f32::reinterpret(word << 16u32))
    } else {
        let word = round_f16(value);
        // The value of NaN is a large number here, and what is left is of no use then.
        (word, value - half_value(word))
    }
}

/// Grid: a cube a row. Numbers become one or two of 16 bits. Beside `f16`, which ends at 65,504, a row is multiplied
/// with a power of two first, so that its largest number lies from 2¹⁴ to 2¹⁵.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn floats_kernel(
    x: &[Float4],
    words: &mut [Load],
    scales: &mut [f32],
    columns: u32,
    steps: u32,
    #[comptime] format: Format,
    #[comptime] parts: u32,
) {
    let row = CUBE_POS_X;
    let first = (row * (columns / 4)) as usize;
    let mut factor = 1.0f32;
    if comptime!(format == Format::F16) {
        let mut scratch = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
        let unit = UNIT_POS as usize;
        let mut largest = 0u32;
        let mut at = unit;
        while at < (columns / 4) as usize {
            let four = x[first + at];
            #[unroll]
            for i in 0..4usize {
                largest = max(largest, u32::reinterpret(four.extract(i)) & 0x7fff_ffffu32);
            }
            at += comptime!(UNITS as usize);
        }
        scratch[unit] = largest;
        sync_cube();
        #[unroll]
        for level in 0..8u32 {
            let half = comptime!(UNITS as usize >> (level as usize + 1));
            if unit < half {
                scratch[unit] = max(scratch[unit], scratch[unit + half]);
            }
            sync_cube();
        }
        let exponent = clamp(scratch[0] >> 23u32, 15u32, 254u32);
        factor = f32::reinterpret((268u32 - exponent) << 23u32);
        if UNIT_POS == 0 {
            scales[scale_index(row, 0u32, 2u32)] = f32::reinterpret((exponent - 14u32) << 23u32);
        }
    }
    let loads = columns / 8;
    let mut at = UNIT_POS;
    while at < steps * 4 {
        let inside = at < loads;
        let from = first + select(inside, at * 2, 0u32) as usize;
        let mut high = Load::new(0u32);
        let mut low = Load::new(0u32);
        #[unroll]
        for w in 0..4usize {
            let four = x[from + w / 2];
            let mut high_word = 0u32;
            let mut low_word = 0u32;
            #[unroll]
            for i in 0..2usize {
                let value = select(inside, four.extract(comptime!(w % 2 * 2 + i)) * factor, 0.0f32);
                let (first_bits, rest) = split(value, format);
                high_word |= first_bits << comptime!(16 * i as u32);
                if comptime!(parts == 2) {
                    let (rest_bits, _) = split(rest, format);
                    low_word |= rest_bits << comptime!(16 * i as u32);
                }
            }
            high.insert(w, high_word);
            low.insert(w, low_word);
        }
        words[load_index(row, at / 4, 0u32, at % 4, steps, parts)] = high;
        if comptime!(parts == 2) {
            words[load_index(row, at / 4, 1u32, at % 4, steps, parts)] = low;
        }
        at += UNITS;
    }
}

/// A unit has a block of a row, of `padded` blocks; those beyond `blocks` are zeros. `zero` is that of `round_byte`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn bytes_kernel(
    x: &[Float4],
    words: &mut [Vector<u32, Const<2>>],
    scales: &mut [f32],
    blocks: u32,
    padded: u32,
    len: u32,
    zero: u32,
    #[comptime] format: Format,
) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let row = at / padded;
        let block = at % padded;
        let inside = block < blocks;
        let from = (row * blocks + min(block, blocks - 1u32)) as usize;
        let mut rounded = Array::<u32>::new(8usize);
        let scale = round_block(x, from * 8, &mut rounded, zero);
        scales[scale_index(row, block, padded)] = select(inside, scale, 0.0f32);
        #[unroll]
        for lane in 0..comptime!(Q8_ORDER.len()) {
            // A step of 64 numbers for each lane: blocks of a pair lie side by side.
            let load = load_index(row, block / 2, 0u32, lane as u32, padded / 2, 1u32);
            let order = comptime!(if format == Format::Q8_0 {
                [Q8_ORDER[lane] * 2, Q8_ORDER[lane] * 2 + 1]
            } else {
                [lane, lane + 4]
            });
            let mut pair = Vector::<u32, Const<2>>::new(select(inside, rounded[comptime!(order[0])], 0u32));
            pair.insert(1usize, select(inside, rounded[comptime!(order[1])], 0u32));
            words[load * 2 + (block % 2) as usize] = pair;
        }
    }
}

/// `x` `[n, columns]` in the form that kernels read beside weights of a kind: packed, or as it is.
pub(in crate::matmul) fn pack(gpu: &Gpu, kind: Kind, x: &Buffer, n: usize, columns: usize) -> Packed {
    if takes_plain(kind, n) {
        return Packed { kind, words: x.clone(), scales: x.clone() };
    }
    pack_rows(gpu, kind, x, n, columns)
}

/// Packs `x` `[n, columns]`.
pub(super) fn pack_rows(gpu: &Gpu, kind: Kind, x: &Buffer, n: usize, columns: usize) -> Packed {
    let steps = Runs::new(kind, columns).steps();
    let groups = n.div_ceil(TILE_ROWS);
    let words = gpu.empty(groups * steps * kind.loads() * PLANE as usize * 4);
    let padded = steps * kind.step() / BLOCK;
    let scales = gpu.empty(groups * TILE_ROWS * if kind.format.has_scales() { padded } else { 2 });
    // SAFETY: rows are whole blocks, and each step of each group has its place in `words` and `scales`.
    unsafe {
        if kind.format.has_scales() {
            bytes_kernel::launch_unchecked(
                gpu.client(),
                gpu.cubes_for(n * padded),
                CubeDim::new_1d(UNITS),
                x.arg(4),
                words.arg(2),
                scales.arg(1),
                (columns / BLOCK) as u32,
                padded as u32,
                (n * padded) as u32,
                0,
                kind.format,
            );
        } else {
            floats_kernel::launch_unchecked(
                gpu.client(),
                CubeCount::Static(n as u32, 1, 1),
                CubeDim::new_1d(UNITS),
                x.arg(4),
                words.arg(4),
                scales.arg(1),
                columns as u32,
                steps as u32,
                kind.format,
                kind.parts as u32,
            );
        }
    }
    Packed { kind, words, scales }
}
