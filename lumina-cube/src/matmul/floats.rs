//! Products with weights in 32 and 16 bits.

use cubecl::prelude::*;

use super::{Float4, Launch, Load, Part, pick, write_sums};
use crate::bits::half_pair;
use crate::weights::Format;
use crate::{Buffer, Gpu};

/// The numbers of a load, in their order.
#[cube]
fn unpack(load: Load, #[comptime] format: Format) -> Array<f32> {
    let mut values = Array::<f32>::new(comptime!(format.per_load()));
    #[unroll]
    for w in 0..4usize {
        let word = load.extract(w);
        if comptime!(format == Format::F32) {
            values[w] = f32::reinterpret(word);
        } else if comptime!(format == Format::BF16) {
            values[w * 2] = f32::reinterpret(word << 16u32);
            values[w * 2 + 1] = f32::reinterpret(word & 0xffff_0000u32);
        } else {
            let pair = half_pair(word);
            values[w * 2] = pair.extract(0usize);
            values[w * 2 + 1] = pair.extract(1usize);
        }
    }
    values
}

/// Grid: (cubes of all parts, groups of rows). Cube: (lanes, teams). `x` `[n, k]`, `k` being that of whole loads.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    weights: &[Load],
    x: &[Float4],
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
    let per = comptime!(format.per_load());
    let vectors = comptime!(per / 4);
    let loads = k as usize / per;
    let x_row = k as usize / 4;
    let (part, cube) = pick(a, b, c);
    let first = (cube * CUBE_DIM_Y + UNIT_POS_Y) * per_team as u32;
    let outputs = part.outputs;
    let first_row = CUBE_POS_Y * rows as u32;

    // Rows that are not there are computed as the last one, and not written.
    let mut weight_rows = Array::<usize>::new(per_team);
    #[unroll]
    for p in 0..per_team {
        weight_rows[p] = part.first_load as usize + min(first + p as u32, outputs - 1u32) as usize * loads;
    }
    let mut x_rows = Array::<usize>::new(rows);
    #[unroll]
    for r in 0..rows {
        x_rows[r] = min(first_row + r as u32, n - 1u32) as usize * x_row;
    }
    let mut sums = Array::<f32>::new(comptime!(rows * per_team));
    #[unroll]
    for i in 0..comptime!(rows * per_team) {
        sums[i] = 0.0f32;
    }

    let mut at = UNIT_POS_X as usize;
    while at < loads {
        let mut loaded = Array::<Load>::new(per_team);
        #[unroll]
        for p in 0..per_team {
            loaded[p] = weights[weight_rows[p] + at];
        }
        #[unroll]
        for r in 0..rows {
            let mut xs = Array::<Float4>::new(vectors);
            #[unroll]
            for v in 0..vectors {
                xs[v] = x[x_rows[r] + at * vectors + v];
            }
            #[unroll]
            for p in 0..per_team {
                let w = unpack(loaded[p], format);
                #[unroll]
                for i in 0..per {
                    sums[r * per_team + p] = fma(w[i], xs[i / 4].extract(comptime!(i % 4)), sums[r * per_team + p]);
                }
            }
        }
        at += lanes as usize;
    }

    write_sums(out, &sums, &part, n, first_row, first, rows, per_team, lanes);
}

pub(super) fn launch(launch: &Launch<'_>, x: &Buffer, out: &Buffer) {
    let &Launch { gpu, matrix, parts: [a, b, c], n, rows, per_team } = launch;
    // SAFETY: parts are rows of the matrix, `x` has `n` rows, and results have their places in `out`.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            launch.count(),
            launch.dim(),
            matrix.words().arg(4),
            x.arg(4),
            out.arg(1),
            matrix.padded_columns() as u32,
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

/// Grid: units of 256. Rows of `from` numbers to rows of `to`, the rest zeros.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn pad_kernel(x: &[f32], out: &mut [f32], from: u32, to: u32, len: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let row = at / to;
        let column = at % to;
        let inside = column < from;
        let value = x[select(inside, row * from + column, 0u32) as usize];
        out[at as usize] = select(inside, value, 0.0f32);
    }
}

/// `x` `[n, from]` with zeros at the end of each row: `[n, to]`.
pub(super) fn pad(gpu: &Gpu, x: &Buffer, n: usize, from: usize, to: usize) -> Buffer {
    let out = gpu.empty(n * to);
    // SAFETY: both have `n` rows.
    unsafe {
        pad_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(n * to),
            CubeDim::new_1d(256),
            x.arg(1),
            out.arg(1),
            from as u32,
            to as u32,
            (n * to) as u32,
        );
    }
    out
}
