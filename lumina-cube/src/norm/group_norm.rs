//! The statistics of group norms.
//!
//! A group norm divides by the spread of a group, which can be a thousandth of its mean: whatever is rounded in the
//! mean is enlarged that much. So all is computed of differences from one number of the group, which are exact where
//! numbers are nearly equal: of these differences each unit has the mean and the squares of its own positions.

use std::fmt;

use cubecl::prelude::*;

use crate::conv::Maps;
use crate::matmul::Float4;
use crate::reduce::cube_sum;
use crate::{Buffer, Gpu};

/// Units of a cube.
const UNITS: u32 = 256;

/// Positions of a unit, at least.
const MIN_POSITIONS: usize = 32;

/// Positions that a unit loads at once.
const AT_ONCE: usize = 4;

/// The most parts of an image, each of which has a cube.
const MAX_PARTS: usize = 256;

/// What is added to the variance.
const EPSILON: f32 = 1e-6;

/// What a norm does to each channel of each image: `(x − pivot) · scale + shift`, the pivot of a group norm being a
/// number of the group.
#[derive(Clone)]
pub struct ScaleShift {
    /// `[batch, loads of a position, 3, 4]`.
    table: Buffer,
    batch: usize,
    channels: usize,
}

impl ScaleShift {
    /// That of maps of these images and channels, to be written.
    ///
    /// # Panics
    /// If channels are no multiple of four.
    pub(super) fn empty(gpu: &Gpu, maps: &Maps) -> Self {
        let [batch, channels, ..] = maps.shape();
        assert!(channels.is_multiple_of(4), "{channels} channels are no whole loads");
        Self { table: gpu.empty(batch * maps.loads() * 12), batch, channels }
    }

    pub(crate) fn table(&self) -> &Buffer {
        &self.table
    }

    /// Whether it is of maps of these images and channels.
    pub(crate) fn fits(&self, maps: &Maps) -> bool {
        let [batch, channels, ..] = maps.shape();
        (self.batch, self.channels) == (batch, channels)
    }
}

impl fmt::Debug for ScaleShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScaleShift")
            .field("batch", &self.batch)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

/// How the positions of an image are dealt out.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Split {
    positions: u32,
    /// Loads of a position.
    loads: u32,
    /// Loads of a position that a cube has, next to each other.
    columns: u32,
    /// Positions of a unit: every `UNITS / columns`-th of a part.
    per_unit: u32,
    parts: u32,
    /// Channels of a group.
    group: u32,
}

/// Grid: (parts, groups of columns, images). The mean and the sum of squared differences from it of each unit's
/// numbers, by channel: `[batch, parts, units of a column, loads, 2, 4]`. Means are relative to the first number of
/// their group.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn parts_kernel(x: &[Float4], first: &[f32], out: &mut [Float4], split: Split) {
    let units = comptime!(UNITS) / split.columns;
    let unit = UNIT_POS / split.columns;
    let column = CUBE_POS_Y * split.columns + UNIT_POS % split.columns;
    let base = CUBE_POS_Z * split.positions;
    let mut position = CUBE_POS_X * split.per_unit * units + unit;
    let end = min(split.positions, (CUBE_POS_X + 1) * split.per_unit * units);
    if unit < units && column < split.loads {
        let pivot = x[((base + min(position, split.positions - 1)) * split.loads + column) as usize];
        let mut mean = Float4::new(0.0f32);
        let mut spread = Float4::new(0.0f32);
        let mut count = 0.0f32;
        while position < end {
            // The squares of a few numbers from their own mean, and that of these means from each other: a pivot
            // that is far from all others costs no digits.
            let mut differences = Array::<Float4>::new(AT_ONCE);
            let mut keep = Array::<Float4>::new(AT_ONCE);
            let mut sum = Float4::new(0.0f32);
            let mut n = 0.0f32;
            #[unroll]
            for i in 0..AT_ONCE {
                let at = position + i as u32 * units;
                let one = select(at < end, 1.0f32, 0.0f32);
                let value = x[((base + min(at, end - 1u32)) * split.loads + column) as usize];
                differences[i] = value - pivot;
                keep[i] = Float4::new(one);
                sum = fma(differences[i], keep[i], sum);
                n += one;
            }
            let part = sum / Float4::new(n);
            let mut squares = Float4::new(0.0f32);
            #[unroll]
            for i in 0..AT_ONCE {
                let difference = (differences[i] - part) * keep[i];
                squares = fma(difference, difference, squares);
            }
            let apart = part - mean;
            let share = n / (count + n);
            mean = fma(apart, Float4::new(share), mean);
            spread += fma(apart * apart, Float4::new(count * share), squares);
            count += n;
            position += comptime!(AT_ONCE as u32) * units;
        }
        let mut own = Float4::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            let group = (column * 4u32 + i as u32) / split.group;
            own.insert(i, first[(base * split.loads * 4u32 + group * split.group) as usize]);
        }
        let at = (((CUBE_POS_Z * split.parts + CUBE_POS_X) * units + unit) * split.loads + column) * 2u32;
        out[at as usize] = pivot - own + mean;
        out[(at + 1) as usize] = spread;
    }
}

/// Grid: (groups, images). The parts of a group make its mean and variance, and these the table.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn table_kernel(
    parts: &[f32],
    first: &[f32],
    weight: &[f32],
    bias: &[f32],
    table: &mut [f32],
    split: Split,
    epsilon: f32,
    #[comptime] lanes: u32,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!((UNITS / lanes) as usize));
    let cubes = comptime!(UNITS / lanes);
    let units = comptime!(UNITS) / split.columns;
    let image = CUBE_POS_Y;
    let group = CUBE_POS_X * split.group;
    let rows = split.parts * units;
    let n = f32::cast_from(split.positions * split.group);

    let mut sum = 0.0f32;
    let mut at = UNIT_POS;
    while at < rows * split.group {
        let row = at / split.group;
        let channel = group + at % split.group;
        let value = parts[place(image * rows + row, channel, split.loads)];
        sum = fma(count(row, units, &split), value, sum);
        at += comptime!(UNITS);
    }
    let mean = cube_sum(sum, &mut scratch, lanes, cubes) / n;

    let mut squares = 0.0f32;
    let mut at = UNIT_POS;
    while at < rows * split.group {
        let row = at / split.group;
        let channel = group + at % split.group;
        let from = place(image * rows + row, channel, split.loads);
        let difference = parts[from] - mean;
        let of = count(row, units, &split);
        if of > 0.0f32 {
            squares += fma(difference * difference, of, parts[from + 4]);
        }
        at += comptime!(UNITS);
    }
    let variance = max(cube_sum(squares, &mut scratch, lanes, cubes) / n, 0.0f32);

    let inverse = 1.0f32 / (variance + epsilon).sqrt();
    let pivot = first[(image * split.positions * split.loads * 4u32 + group) as usize];
    let mut at = UNIT_POS;
    while at < split.group {
        let channel = group + at;
        let scale = inverse * weight[channel as usize];
        let to = ((image * split.loads + channel / 4u32) * 12u32 + channel % 4u32) as usize;
        table[to] = pivot;
        table[to + 4] = scale;
        table[to + 8] = fma(-mean, scale, bias[channel as usize]);
        at += comptime!(UNITS);
    }
}

/// Where the mean of a channel of a row of parts is; its squares are four numbers later.
#[cube]
fn place(row: u32, channel: u32, loads: u32) -> usize {
    ((row * loads + channel / 4u32) * 8u32 + channel % 4u32) as usize
}

/// How many positions a unit has: row `part · units + unit`.
#[cube]
fn count(row: u32, units: u32, split: &Split) -> f32 {
    let start = row / units * split.per_unit * units + row % units;
    let end = min(split.positions, (row / units + 1u32) * split.per_unit * units);
    f32::cast_from(select(start < end, (max(end, start) - start + units - 1u32) / units, 0u32))
}

/// A group norm with an epsilon of 1e-6 over `groups` groups of consecutive channels of each image of `x`, with
/// `weight` and `bias` `[channels]`: what it does to each channel.
///
/// # Panics
/// If channels are no multiple of groups or of four, or `weight` and `bias` have others.
pub fn group_norm(gpu: &Gpu, x: &Maps, groups: usize, weight: &Buffer, bias: &Buffer) -> ScaleShift {
    let [batch, channels, height, width] = x.shape();
    assert!(groups > 0 && channels.is_multiple_of(groups), "{channels} channels are no {groups} groups");
    assert!(weight.len() == channels && bias.len() == channels, "weight and bias have {channels} channels");
    let (positions, loads) = (height * width, x.loads());
    let result = ScaleShift::empty(gpu, x);
    if batch == 0 || positions == 0 || channels == 0 {
        return result;
    }
    let columns = loads.min(UNITS as usize);
    let units = UNITS as usize / columns;
    let per_unit = positions.div_ceil(units * MAX_PARTS).max(MIN_POSITIONS);
    let parts = positions.div_ceil(units * per_unit);
    let means = gpu.empty(batch * parts * units * loads * 8);
    let split = || {
        let [positions, loads, columns, per_unit, parts, group] =
            [positions, loads, columns, per_unit, parts, channels / groups].map(|number| number as u32);
        SplitLaunch::new(positions, loads, columns, per_unit, parts, group)
    };
    // SAFETY: `x` is `[batch, positions, loads]`, and the others have the sizes above.
    unsafe {
        parts_kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(parts as u32, loads.div_ceil(columns) as u32, batch as u32),
            CubeDim::new_1d(UNITS),
            x.values().arg(4),
            x.values().arg(1),
            means.arg(4),
            split(),
        );
        table_kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(groups as u32, batch as u32, 1),
            CubeDim::new_1d(UNITS),
            means.arg(1),
            x.values().arg(1),
            weight.arg(1),
            bias.arg(1),
            result.table.arg(1),
            split(),
            EPSILON,
            gpu.lanes(),
        );
    }
    result
}

/// What a group norm does to a load of a position, and swish after it. `entry` is that of the load in the table.
#[cube]
pub(crate) fn apply(value: Float4, table: &[Float4], entry: usize, #[comptime] swish: bool) -> Float4 {
    let mut value = fma(value - table[entry], table[entry + 1], table[entry + 2]);
    if comptime!(swish) {
        value = value / (Float4::new(1.0f32) + (Float4::new(0.0f32) - value).exp());
    }
    value
}

/// A unit has a load of the result.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn scaled_kernel(
    x: &[Float4],
    table: &[Float4],
    out: &mut [Float4],
    loads: u32,
    image_loads: u32,
    len: u32,
    #[comptime] swish: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let entry = ((at / image_loads * loads + at % loads) * 3) as usize;
        out[at as usize] = apply(x[at as usize], table, entry, swish);
    }
}

/// What a group norm does to `x`, and swish after it if it is asked for. Convolutions do the same while they load.
///
/// # Panics
/// If the norm is of other images or channels.
pub fn scaled(gpu: &Gpu, x: &Maps, norm: &ScaleShift, swish: bool) -> Maps {
    assert!(norm.fits(x), "a norm is that of the input");
    let [batch, ..] = x.shape();
    let out = Maps::empty(gpu, x.shape());
    let len = x.values().len() / 4;
    if len == 0 {
        return out;
    }
    // SAFETY: both are of one size, and the table has an entry for each image and load.
    unsafe {
        scaled_kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(len),
            CubeDim::new_1d(UNITS),
            x.values().arg(4),
            norm.table.arg(4),
            out.values().arg(4),
            x.loads() as u32,
            (len / batch) as u32,
            len as u32,
            swish,
        );
    }
    out
}
