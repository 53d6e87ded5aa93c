//! The product that convolutions and attention are made of, in tiles.
//!
//! A cube has 64 outputs of 64 or 128 positions, a unit four outputs of four or eight of them. Inputs and weights of 16
//! steps of the sum are loaded together, into shared memory, while the steps before are summed. Each number of the
//! result is a sum of chains of 256 products, in the order of taps and channels, whatever the tile.

use cubecl::prelude::*;

use super::LOAD;
use super::input::{Loading, Places, Size, find_places, load_input};
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

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    loading: Loading,
    has_bias: bool,
    has_residual: bool,
    /// Positions of a unit.
    rows: usize,
}

impl Kind {
    /// With the tile for so many positions.
    pub(crate) fn new(loading: Loading, has_bias: bool, has_residual: bool, positions: u32) -> Self {
        Self { loading, has_bias, has_residual, rows: if positions >= MANY_POSITIONS { 8 } else { 4 } }
    }

    /// Positions that a unit loads at once.
    const fn loads(self) -> usize {
        self.rows * DEPTH / SIDE
    }
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
    pub(super) size: Size,
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
    #[unroll]
    for i in 0..comptime!(kind.loads()) {
        loaded[i] = load_input(x, norm, places, at / size.inputs, at % size.inputs, size, i, comptime!(kind.loading));
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
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
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

    let apart = comptime!((SIDE * SIDE / DEPTH) as u32);
    let places = find_places(first + UNIT_POS / comptime!(DEPTH as u32), apart, &size, comptime!(kind.loads()));
    let mut loaded = Array::<Float4>::new(comptime!(kind.loads()));
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
                totals[r] += sums[r];
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
                sum += bias[output as usize];
            }
            if comptime!(kind.has_residual) {
                sum += residual[at];
            }
            out[at] = sum;
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(gpu: &'a Gpu, kind: Kind, x: &'a Buffer, weight: &'a Buffer, out: &'a Buffer) -> Self {
        Self { gpu, kind, x, weight, bias: x, norm: x, residual: x, out, size: Size::default() }
    }

    /// A product of `rows` rows with a matrix, of which the sizes of rows are to be told yet.
    pub(super) fn product(gpu: &'a Gpu, rows: usize, x: &'a Buffer, weight: &'a Buffer, out: &'a Buffer) -> Self {
        let rows = rows as u32;
        let mut call = Self::new(gpu, Kind::new(Loading::PLAIN, false, false, rows), x, weight, out);
        call.size = Size { height: 1, width: rows, out_height: 1, out_width: rows, positions: rows, ..call.size };
        call
    }

    /// Launches it.
    pub(super) fn run(self) {
        let Self { gpu, kind, x, weight, bias, norm, residual, out, mut size } = self;
        if size.positions == 0 || size.outputs == 0 {
            return;
        }
        if size.weight_row == 0 {
            size.weight_row = size.outputs;
        }
        let tiles = size.positions.div_ceil((SIDE * kind.rows) as u32);
        let count = gpu.columns(size.outputs.div_ceil(SIDE as u32) as usize, tiles as usize);
        let words = LOAD as u64;
        let (inputs, outputs) = (u64::from(size.inputs), u64::from(size.outputs));
        let plane = u64::from(size.out_height) * u64::from(size.out_width);
        let images = u64::from(size.positions).div_ceil(plane.max(1));
        let x_loads = u64::from(size.first) + images * u64::from(size.height) * u64::from(size.width) * inputs;
        let out_loads = u64::from(size.first_out) + u64::from(size.positions) * outputs;
        let weight_loads =
            u64::from(size.first_weight) + u64::from(size.weight_rows - 1) * u64::from(size.weight_row) + outputs;
        assert!(x_loads * words <= x.len().next_multiple_of(LOAD) as u64, "the input of a product is inside");
        assert!(out_loads * words <= out.len().next_multiple_of(LOAD) as u64, "the result of a product is inside");
        assert!(weight_loads * words <= weight.len().next_multiple_of(LOAD) as u64, "weights of a product are inside");
        assert!(x_loads.max(out_loads) <= u64::from(u32::MAX), "an index has 32 bits");
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
                size.arg(),
                kind,
            );
        }
    }
}
