//! Products with weights in 32 and 16 bits.

use cubecl::prelude::*;
use half::f16;

use super::{Float4, Launch, Load, Part, pick};
use crate::reduce::lane_sum;
use crate::weights::Format;
use crate::{Buffer, Gpu};

/// naga 30 gives a wrong result for `bitcast<vec2<f16>>(u32)`, which is what WGSL gets of `reinterpret`; SPIR-V, MSL
/// and CUDA are right. Of these three only CUDA can be told by its features.
const NATIVE_F16: bool = cfg!(any(feature = "vulkan", feature = "metal"));

/// Whether a word is reinterpreted as two `f16`, and not decoded in whole numbers.
#[cube]
pub(crate) fn native_f16() -> comptime_type!(bool) {
    let properties = comptime::device_properties().comptime();
    comptime!(NATIVE_F16 || properties.features.memory_reinterpret)
}

/// The two `f16` of a word.
#[cube]
pub(crate) fn half_pair(word: u32) -> Vector<f32, Const<2>> {
    let native = native_f16();
    if comptime!(native) {
        Vector::<f32, Const<2>>::cast_from(Vector::<f16, Const<2>>::reinterpret(word))
    } else {
        let mut pair = Vector::<f32, Const<2>>::new(half_value(word & 0xffffu32));
        pair.insert(1usize, half_value(word >> 16u32));
        pair
    }
}

/// The value of an `f16`, in whole numbers; infinity and NaN become large numbers, which files are checked for.
#[cube]
pub(super) fn half_value(half: u32) -> f32 {
    let magnitude = half & 0x7fffu32;
    let normal = f32::reinterpret((magnitude << 13u32) + 0x3800_0000u32);
    // 2⁻²⁴, the unit of subnormal numbers.
    let small = f32::cast_from(magnitude) * 5.960_464_5e-8f32;
    let value = select(magnitude < 0x400u32, small, normal);
    f32::reinterpret(u32::reinterpret(value) | ((half & 0x8000u32) << 16u32))
}

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

    #[unroll]
    for r in 0..rows {
        #[unroll]
        for p in 0..per_team {
            let sum = lane_sum(sums[r * per_team + p], lanes);
            let row = first_row + r as u32;
            let output = first + p as u32;
            if UNIT_POS_X == 0 && row < n && output < outputs {
                out[(part.out + row * outputs + output) as usize] = sum;
            }
        }
    }
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
