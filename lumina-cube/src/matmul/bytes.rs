//! Products with weights in 8 and 4 bits, on activations in bytes.

use cubecl::prelude::*;

use super::{Float4, Launch, Load, Part, pick, write_sums};
use crate::bits::{half_pair, round_byte};
use crate::weights::{BLOCK, Format};
use crate::{Buffer, Gpu};

/// Activations in bytes: `[n, columns]`, and a scale for each 32 of them.
pub(super) struct Quantised {
    bytes: Buffer,
    scales: Buffer,
}

/// Rounds a block, 32 numbers from `x[at]` on, to bytes in 8 words; its scale. `zero` is that of [`round_byte`].
#[cube]
pub(super) fn round_block(x: &[Float4], at: usize, words: &mut Array<u32>, zero: u32) -> f32 {
    let mut values = Array::<Float4>::new(8usize);
    let mut largest = 0u32;
    #[unroll]
    for v in 0..8usize {
        let four = x[at + v];
        values[v] = four;
        #[unroll]
        for i in 0..4usize {
            // As whole numbers magnitudes are ordered like the values, and what is not finite comes last.
            largest = max(largest, u32::reinterpret(four.extract(i)) & 0x7fff_ffffu32);
        }
    }
    let finite = largest < 0x7f80_0000u32;
    let scale = f32::reinterpret(select(finite, largest, 0u32)) / 127.0f32;
    let inverse = select(scale > 3.0e-39f32, 1.0f32 / scale, 0.0f32);
    #[unroll]
    for v in 0..8usize {
        let mut word = 0u32;
        #[unroll]
        for i in 0..4usize {
            word |= round_byte(values[v].extract(i) * inverse, zero) << comptime!(8 * i as u32);
        }
        words[v] = select(finite, word, 0u32);
    }
    select(finite, scale, f32::reinterpret(0x7fc0_0000u32 ^ zero))
}

/// A unit has a block. `zero` is that of [`round_byte`].
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn quantise_kernel(x: &[Float4], bytes: &mut [Load], scales: &mut [f32], blocks: u32, zero: u32) {
    let block = ABSOLUTE_POS;
    if (block as u32) < blocks {
        let mut words = Array::<u32>::new(8usize);
        scales[block] = round_block(x, block * 8, &mut words, zero);
        #[unroll]
        for half in 0..2usize {
            let mut load = Load::new(0u32);
            #[unroll]
            for w in 0..4usize {
                load.insert(w, words[half * 4 + w]);
            }
            bytes[block * 2 + half] = load;
        }
    }
}

/// Rounds activations to bytes by the CPU's rule: the largest of a block becomes 127. A block with a number that is not
/// finite gets the scale NaN.
pub(super) fn quantise(gpu: &Gpu, x: &Buffer, n: usize, columns: usize) -> Quantised {
    let blocks = n * columns / BLOCK;
    let quantised = Quantised { bytes: gpu.empty(n * columns / 4), scales: gpu.empty(blocks) };
    // SAFETY: columns are whole blocks, as those of the matrices are.
    unsafe {
        quantise_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(blocks),
            CubeDim::new_1d(256),
            x.arg(4),
            quantised.bytes.arg(4),
            quantised.scales.arg(1),
            blocks as u32,
            0,
        );
    }
    quantised
}

/// Four nibbles in two's complement, one in each byte, as four signed bytes.
#[cube]
fn widen(nibbles: u32) -> i32 {
    let sign = (nibbles >> 3u32) & 0x0101_0101u32;
    i32::reinterpret(nibbles | (sign * 0xf0u32))
}

/// Grid: (cubes of all parts, groups of rows). Cube: (lanes, teams). A lane takes a block at a time.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    weights: &[Load],
    scales: &[u32],
    x: &[Load],
    x_scales: &[f32],
    out: &mut [f32],
    k: u32,
    n: u32,
    a: Part,
    b: Part,
    c: Part,
    #[comptime] rows: usize,
    #[comptime] format: Format,
    #[comptime] per_team: usize,
    #[comptime] lanes: u32,
) {
    let loads = comptime!(if matches!(format, Format::Q8_0) { 2usize } else { 1usize });
    let blocks = k as usize / comptime!(BLOCK);
    let (part, cube) = pick(a, b, c);
    let first = (cube * CUBE_DIM_Y + UNIT_POS_Y) * per_team as u32;
    let outputs = part.outputs;
    let first_row = CUBE_POS_Y * rows as u32;

    // Rows that are not there are computed as the last one, and not written.
    let mut weight_rows = Array::<usize>::new(per_team);
    let mut scale_rows = Array::<usize>::new(per_team);
    #[unroll]
    for p in 0..per_team {
        let row = min(first + p as u32, outputs - 1u32) as usize;
        weight_rows[p] = part.first_load as usize + row * blocks * loads;
        scale_rows[p] = part.first_scale as usize + row * blocks;
    }
    let mut x_rows = Array::<usize>::new(rows);
    #[unroll]
    for r in 0..rows {
        x_rows[r] = min(first_row + r as u32, n - 1u32) as usize * blocks;
    }
    let mut sums = Array::<f32>::new(comptime!(rows * per_team));
    #[unroll]
    for i in 0..comptime!(rows * per_team) {
        sums[i] = 0.0f32;
    }

    let mut block = UNIT_POS_X as usize;
    while block < blocks {
        let mut loaded = Array::<Load>::new(comptime!(per_team * loads));
        let mut factors = Array::<f32>::new(per_team);
        #[unroll]
        for p in 0..per_team {
            #[unroll]
            for l in 0..loads {
                loaded[p * loads + l] = weights[weight_rows[p] + block * loads + l];
            }
            let index = scale_rows[p] + block;
            let word = scales[index / 2] >> ((index % 2) as u32 * 16u32);
            factors[p] = half_pair(word & 0xffffu32).extract(0usize);
        }
        #[unroll]
        for r in 0..rows {
            let low = x[(x_rows[r] + block) * 2];
            let high = x[(x_rows[r] + block) * 2 + 1];
            let factor = x_scales[x_rows[r] + block];
            #[unroll]
            for p in 0..per_team {
                let mut sum = 0i32;
                #[unroll]
                for w in 0..4usize {
                    let first = loaded[p * loads].extract(w);
                    if comptime!(matches!(format, Format::Q8_0)) {
                        let second = loaded[p * loads + comptime!(loads - 1)].extract(w);
                        sum = dp4a(i32::reinterpret(first), i32::reinterpret(low.extract(w)), sum);
                        sum = dp4a(i32::reinterpret(second), i32::reinterpret(high.extract(w)), sum);
                    } else {
                        // Numbers from 0 to 15, less 8: flipping the highest bit gives two's complement.
                        let nibbles = first ^ 0x8888_8888u32;
                        let first_half = widen(nibbles & 0x0f0f_0f0fu32);
                        let second_half = widen((nibbles >> 4u32) & 0x0f0f_0f0fu32);
                        sum = dp4a(first_half, i32::reinterpret(low.extract(w)), sum);
                        sum = dp4a(second_half, i32::reinterpret(high.extract(w)), sum);
                    }
                }
                sums[r * per_team + p] = fma(f32::cast_from(sum), factors[p] * factor, sums[r * per_team + p]);
            }
        }
        block += lanes as usize;
    }

    write_sums(out, &sums, &part, n, first_row, first, rows, per_team, lanes);
}

pub(super) fn launch(launch: &Launch<'_>, x: &Quantised, out: &Buffer) {
    let &Launch { gpu, matrix, parts: [a, b, c], n, rows, per_team } = launch;
    // SAFETY: parts are rows of the matrix, `x` has `n` rows, and results have their places in `out`.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            launch.count(),
            launch.dim(),
            matrix.words().arg(4),
            matrix.scales().arg(1),
            x.bytes.arg(4),
            x.scales.arg(1),
            out.arg(1),
            matrix.columns() as u32,
            n as u32,
            a.arg(),
            b.arg(),
            c.arg(),
            rows,
            matrix.format(),
            per_team,
            gpu.lanes(),
        );
    }
}
