//! The product that convolutions and attention are made of, in tiles.
//!
//! A cube has 64 outputs of 64 or 128 positions, a unit four outputs of four or eight of them. Inputs and weights of 16
//! steps of the sum are loaded together, into shared memory, while the steps before are summed. Each number of the
//! result is a sum of chains of 256 products, in the order of taps and channels, whatever the tile.

use cubecl::prelude::*;

use super::{LOAD, Resize};
use crate::matmul::Float4;
use crate::{Buffer, Gpu};

/// Units of a cube in either direction.
const SIDE: usize = 16;

/// Loads of a position that are there at once, and so a quarter of the steps.
const DEPTH: usize = 4;

/// Steps of the sum that are there at once.
const STEPS: usize = DEPTH * LOAD;

/// Turns of the loop after which a chain of products ends: it keeps more digits than one of thousands.
const CHAIN: u32 = 16;

/// From so many positions on, a unit has eight instead of four.
const MANY_POSITIONS: u32 = 1 << 14;

/// What is done to the input while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Transform {
    None,
    Norm,
    NormSwish,
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// Side of the convolution's kernel.
    kernel: u32,
    resize: Resize,
    transform: Transform,
    has_bias: bool,
    has_residual: bool,
    /// Positions of a unit.
    rows: usize,
}

impl Kind {
    pub(super) fn new(kernel: usize, resize: Resize, transform: Transform, has_bias: bool, has_residual: bool) -> Self {
        Self { kernel: kernel as u32, resize, transform, has_bias, has_residual, rows: 4 }
    }

    /// A product with a matrix.
    pub(super) fn product() -> Self {
        Self::new(1, Resize::Same, Transform::None, false, false)
    }

    /// Zeros above and to the left.
    const fn padding(self) -> u32 {
        if self.kernel == 3 && !matches!(self.resize, Resize::Halve) { 1 } else { 0 }
    }

    const fn stride(self) -> u32 {
        if matches!(self.resize, Resize::Halve) { 2 } else { 1 }
    }

    /// By how many bits coordinates in the image are larger than those in memory.
    const fn doublings(self) -> u32 {
        if matches!(self.resize, Resize::Double) { 1 } else { 0 }
    }

    /// Positions that a unit loads at once.
    const fn loads(self) -> usize {
        self.rows * DEPTH / SIDE
    }
}

/// Sizes of a product. Channels and places are in loads.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Size {
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    positions: u32,
    inputs: u32,
    outputs: u32,
    weight_rows: u32,
    weight_row: u32,
    first: u32,
    first_weight: u32,
    first_out: u32,
}

/// [`Size`] before it is an argument.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    /// Of the input, an image.
    pub(super) height: u32,
    pub(super) width: u32,
    /// Of the result, an image.
    pub(super) out_height: u32,
    pub(super) out_width: u32,
    /// Positions of the result, of all images.
    pub(super) positions: u32,
    /// Loads of a position of the input.
    pub(super) inputs: u32,
    /// Loads of a position of the result.
    pub(super) outputs: u32,
    /// Rows of the weights, steps of the sum. A row that lacks of the last load may be any number.
    pub(super) weight_rows: u32,
    /// Loads from a row of weights to the next; as `outputs`, if 0.
    pub(super) weight_row: u32,
    /// Where the input, the weights and the result begin.
    pub(super) first: u32,
    pub(super) first_weight: u32,
    pub(super) first_out: u32,
}

/// A product before it is launched.
pub(super) struct Call<'a> {
    gpu: &'a Gpu,
    kind: Kind,
    x: &'a Buffer,
    weight: &'a Buffer,
    /// Any buffer, where the kind has none; so are the next two.
    pub(super) bias: &'a Buffer,
    pub(super) norm: &'a Buffer,
    pub(super) residual: &'a Buffer,
    out: &'a Buffer,
    pub(super) size: Sizes,
}

/// The places of a unit's positions, for loading: image, row and column, and whether it is there.
#[derive(CubeType)]
struct Places {
    image: Array<u32>,
    row: Array<u32>,
    column: Array<u32>,
}

/// Loads the inputs of some steps, 16 bytes for each of a unit's positions.
#[cube]
fn load_inputs(
    x: &[Float4],
    norm: &[Float4],
    places: &Places,
    loaded: &mut Array<Float4>,
    step: u32,
    size: &Size,
    #[comptime] kind: Kind,
) {
    let at = step * comptime!(DEPTH as u32) + UNIT_POS % comptime!(DEPTH as u32);
    let tap = at / size.inputs;
    let channel = at % size.inputs;
    let is_tap = tap < comptime!(kind.kernel * kind.kernel);
    let dy = tap / comptime!(kind.kernel);
    let dx = tap % comptime!(kind.kernel);
    let doublings = comptime!(kind.doublings());
    #[unroll]
    for i in 0..comptime!(kind.loads()) {
        // Coordinates above and to the left of the image become very large.
        let row = places.row[i] * comptime!(kind.stride()) + dy - comptime!(kind.padding());
        let column = places.column[i] * comptime!(kind.stride()) + dx - comptime!(kind.padding());
        let inside = is_tap && row < (size.height << doublings) && column < (size.width << doublings);
        let source = (places.image[i] * size.height + (row >> doublings)) * size.width + (column >> doublings);
        let mut value = x[(size.first + select(inside, source * size.inputs + channel, 0u32)) as usize];
        if comptime!(kind.transform != Transform::None) {
            let entry = ((places.image[i] * size.inputs + channel) * 3) as usize;
            value = fma(value - norm[entry], norm[entry + 1], norm[entry + 2]);
            if comptime!(kind.transform == Transform::NormSwish) {
                value = value / (Float4::new(1.0f32) + (Float4::new(0.0f32) - value).exp());
            }
        }
        loaded[i] = select(inside, value, Float4::new(0.0f32));
    }
}

/// Loads 16 bytes of the weights of some steps. Rows beyond the last are that, and meet zeros.
#[cube]
fn load_weights(weight: &[Float4], step: u32, size: &Size) -> Float4 {
    let side = comptime!(SIDE as u32);
    let row = min(step * comptime!(STEPS as u32) + UNIT_POS / side, size.weight_rows - 1);
    let column = min(CUBE_POS_X * side + UNIT_POS % side, size.outputs - 1);
    weight[(size.first_weight + row * size.weight_row + column) as usize]
}

/// Grid: (tiles of outputs, tiles of positions, folded). Cube: 16 × 16, outputs × positions.
#[cube(launch_unchecked)]
fn kernel(
    x: &[Float4],
    weight: &[Float4],
    bias: &[Float4],
    norm: &[Float4],
    residual: &[Float4],
    out: &mut [Float4],
    size: Size,
    #[comptime] kind: Kind,
) {
    let mut inputs = Shared::<[Float4]>::new_slice(comptime!(SIDE * kind.rows * DEPTH));
    let mut weights = Shared::<[Float4]>::new_slice(comptime!(STEPS * SIDE));
    let rows = comptime!(kind.rows);
    let first = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) * comptime!((SIDE * kind.rows) as u32);

    let mut places = Places {
        image: Array::<u32>::new(comptime!(kind.loads())),
        row: Array::<u32>::new(comptime!(kind.loads())),
        column: Array::<u32>::new(comptime!(kind.loads())),
    };
    let mut loaded = Array::<Float4>::new(comptime!(kind.loads()));
    #[unroll]
    for i in 0..comptime!(kind.loads()) {
        let local = UNIT_POS / comptime!(DEPTH as u32) + comptime!((i * SIDE * SIDE / DEPTH) as u32);
        // Positions that are not there are computed as the last one, and not written.
        let position = min(first + local, size.positions - 1);
        let plane = size.out_height * size.out_width;
        let inside = position % plane;
        places.image[i] = position / plane;
        places.row[i] = inside / size.out_width;
        places.column[i] = inside % size.out_width;
    }

    let mut sums = Array::<Float4>::new(rows);
    let mut totals = Array::<Float4>::new(rows);
    #[unroll]
    for r in 0..rows {
        sums[r] = Float4::new(0.0f32);
        totals[r] = Float4::new(0.0f32);
    }
    let steps = (size.weight_rows + comptime!(STEPS as u32 - 1)) / comptime!(STEPS as u32);
    load_inputs(x, norm, &places, &mut loaded, 0u32, &size, kind);
    let mut loaded_weight = load_weights(weight, 0u32, &size);
    let mut step = 0u32;
    while step < steps {
        // Those who read the steps before are done.
        sync_cube();
        #[unroll]
        for i in 0..comptime!(kind.loads()) {
            inputs[UNIT_POS as usize + i * comptime!(SIDE * SIDE)] = loaded[i];
        }
        weights[UNIT_POS as usize] = loaded_weight;
        sync_cube();
        step += 1;
        if step < steps {
            load_inputs(x, norm, &places, &mut loaded, step, &size, kind);
            loaded_weight = load_weights(weight, step, &size);
        }
        #[unroll]
        for d in 0..DEPTH {
            let mut w = Array::<Float4>::new(LOAD);
            #[unroll]
            for i in 0..LOAD {
                w[i] = weights[(d * LOAD + i) * SIDE + UNIT_POS_X as usize];
            }
            #[unroll]
            for r in 0..rows {
                let values = inputs[(r * SIDE + UNIT_POS_Y as usize) * DEPTH + d];
                #[unroll]
                for i in 0..LOAD {
                    sums[r] = fma(Float4::new(values.extract(i)), w[i], sums[r]);
                }
            }
        }
        if step % comptime!(CHAIN) == 0 || step == steps {
            #[unroll]
            for r in 0..rows {
                totals[r] = totals[r] + sums[r];
                sums[r] = Float4::new(0.0f32);
            }
        }
    }

    let output = CUBE_POS_X * comptime!(SIDE as u32) + UNIT_POS_X;
    #[unroll]
    for r in 0..rows {
        let position = first + comptime!((r * SIDE) as u32) + UNIT_POS_Y;
        if position < size.positions && output < size.outputs {
            let at = (size.first_out + position * size.outputs + output) as usize;
            let mut sum = totals[r];
            if comptime!(kind.has_bias) {
                sum = sum + bias[output as usize];
            }
            if comptime!(kind.has_residual) {
                sum = sum + residual[at];
            }
            out[at] = sum;
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(gpu: &'a Gpu, kind: Kind, x: &'a Buffer, weight: &'a Buffer, out: &'a Buffer) -> Self {
        Self { gpu, kind, x, weight, bias: x, norm: x, residual: x, out, size: Sizes::default() }
    }

    /// Launches it.
    pub(super) fn run(self) {
        let Self { gpu, mut kind, x, weight, bias, norm, residual, out, size } = self;
        if size.positions == 0 || size.outputs == 0 {
            return;
        }
        kind.rows = if size.positions >= MANY_POSITIONS { 8 } else { 4 };
        let weight_row = if size.weight_row == 0 { size.outputs } else { size.weight_row };
        let tiles = size.positions.div_ceil((SIDE * kind.rows) as u32);
        let most = gpu.client().properties().hardware.max_cube_count.1.max(1);
        let y = tiles.min(most);
        let count = CubeCount::Static(size.outputs.div_ceil(SIDE as u32), y, tiles.div_ceil(y));
        let words = LOAD as u64;
        let (inputs, outputs) = (u64::from(size.inputs), u64::from(size.outputs));
        let plane = u64::from(size.out_height) * u64::from(size.out_width);
        let images = u64::from(size.positions).div_ceil(plane.max(1));
        let x_loads = u64::from(size.first) + images * u64::from(size.height) * u64::from(size.width) * inputs;
        let out_loads = u64::from(size.first_out) + u64::from(size.positions) * outputs;
        let weight_loads =
            u64::from(size.first_weight) + u64::from(size.weight_rows - 1) * u64::from(weight_row) + outputs;
        assert!(x_loads * words <= x.len().next_multiple_of(LOAD) as u64, "the input of a product is inside");
        assert!(out_loads * words <= out.len().next_multiple_of(LOAD) as u64, "the result of a product is inside");
        assert!(weight_loads * words <= weight.len().next_multiple_of(LOAD) as u64, "weights of a product are inside");
        assert!(x_loads.max(out_loads) <= u64::from(u32::MAX), "an index has 32 bits");
        let arg = SizeLaunch::new(
            size.height,
            size.width,
            size.out_height,
            size.out_width,
            size.positions,
            size.inputs,
            size.outputs,
            size.weight_rows,
            weight_row,
            size.first,
            size.first_weight,
            size.first_out,
        );
        // SAFETY: what is read and written is inside, as was checked; the caller has bias, norm and residual of the
        // result's and the input's shape.
        unsafe {
            kernel::launch_unchecked(
                gpu.client(),
                count,
                CubeDim::new_2d(SIDE as u32, SIDE as u32),
                x.arg(LOAD),
                weight.arg(LOAD),
                bias.arg(LOAD),
                norm.arg(LOAD),
                residual.arg(LOAD),
                out.arg(LOAD),
                arg,
                kind,
            );
        }
    }
}
