//! Convolutions by tensor cores, for devices that have them with fragments in registers (CUDA from compute capability
//! 8.0).
//!
//! Positions are the 16 rows of a matrix instruction, outputs its eight columns. A number of 32 bits is the sum of two
//! in `f16`, and a product three of those: what is dropped is 2⁻²² of it, so that the sums are those of `f32`. With
//! [`ConvPrecision::F16`] it is one product of the numbers rounded to `f16`. Weights are scaled by a power of two for
//! each output, so that their small halves are no subnormal numbers. An input beyond 65,504 becomes infinite, and what
//! comes of it is not finite.
//!
//! Inputs and weights of 32 channels go through shared memory, while those before are multiplied. A lane's load of 16
//! bytes of a row serves two instructions: inside of them any order of k will do if both sides share it. The order of
//! sums depends on the layer alone.

use cubecl::prelude::*;
use half::f16;

use super::input::{Loading, Places, Size, find_places, load_input};
use super::{ConvPrecision, LOAD, padded};
use crate::bits::{Float2, half_pair, round_f16};
use crate::matmul::Load;
use crate::tensor_cores::{instruction, scratch_words};
use crate::weights::Format;
use crate::{Buffer, Gpu, tensor_cores};

/// Lanes of a plane, which multiply a tile together.
const PLANE: usize = tensor_cores::PLANE as usize;

/// Planes of a cube along positions, and along outputs.
const POSITION_PLANES: usize = 2;
const OUTPUT_PLANES: usize = 4;
const UNITS: usize = PLANE * POSITION_PLANES * OUTPUT_PLANES;

/// Positions and outputs of an instruction.
const TILE_POSITIONS: usize = 16;
const TILE_OUTPUTS: usize = 8;

/// Channels of a step, and the loads of 16 bytes that they are in `f16`.
const STEP: usize = 32;
const STEP_LOADS: usize = 4;

/// Steps after which a chain of products ends: the sums inside of it are cut off, not rounded.
const CHAIN: u32 = 8;

/// So many cubes keep a device busy: below, tiles are made smaller.
const MANY_CUBES: usize = 128;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    loading: Loading,
    has_residual: bool,
    /// Numbers in `f16` of an input and a weight: 1 or 2.
    parts: usize,
    /// Tiles of a plane along positions: 1, 2 or 4.
    rows: usize,
    /// Tiles of a plane along outputs: 1, 2 or 4.
    columns: usize,
    /// The instruction is computed number by number instead, for tests on devices without it.
    emulated: bool,
}

impl Kind {
    /// With the tile for a result of so many positions and outputs.
    pub(crate) fn new(
        loading: Loading,
        has_residual: bool,
        precision: ConvPrecision,
        [positions, outputs]: [usize; 2],
        emulated: bool,
    ) -> Self {
        let parts = if precision == ConvPrecision::F16 { 1 } else { 2 };
        let columns = match outputs {
            ..=32 => 1,
            33..=64 => 2,
            // Source of this size takes minutes to compile.
            _ if emulated => 1,
            _ => 4,
        };
        // With two parts the sums are there twice, which is registers enough.
        let mut kind = Self { loading, has_residual, parts, rows: 4 / parts, columns, emulated };
        let cubes = |kind: Self| positions.div_ceil(kind.positions()) * outputs.div_ceil(kind.outputs());
        while kind.rows > 1 && cubes(kind) < MANY_CUBES {
            kind.rows /= 2;
        }
        kind
    }

    const fn positions(self) -> usize {
        POSITION_PLANES * self.rows * TILE_POSITIONS
    }

    const fn outputs(self) -> usize {
        OUTPUT_PLANES * self.columns * TILE_OUTPUTS
    }

    /// Loads that a unit brings to shared memory for a step, of inputs and of one part of the weights. If the first is
    /// not whole, half of the units bring it.
    const fn input_loads(self) -> usize {
        (self.positions() * STEP_LOADS).div_ceil(UNITS)
    }

    const fn weight_loads(self) -> usize {
        (self.outputs() * STEP_LOADS).div_ceil(UNITS)
    }

    const fn tiles(self) -> usize {
        self.rows * self.columns
    }
}

/// Weights in two parts of `f16`, in the order of steps.
#[derive(Clone)]
pub(super) struct Halves {
    /// `[parts, steps, outputs, 4]` loads.
    words: Buffer,
    /// `[2, outputs]`: the scale of each output's weights, and its bias.
    scale_bias: Buffer,
    emulated: bool,
}

/// Whether a device has the instructions.
pub(super) fn is_offered(gpu: &Gpu) -> bool {
    tensor_cores::are_offered(gpu.client(), &[Format::F16])
}

/// Steps of a layer.
fn steps(inputs: usize, taps: usize) -> usize {
    taps * inputs.div_ceil(STEP)
}

impl Halves {
    /// Weights `[outputs, inputs, taps]` and a bias `[outputs]` on the device.
    pub(super) fn new(gpu: &Gpu, shape: [usize; 3], weight: &[f32], bias: &[f32], emulated: bool) -> Self {
        let [outputs, inputs, taps] = shape;
        let (row, chunks) = (padded(outputs), inputs.div_ceil(STEP));
        let part = steps(inputs, taps) * row * STEP;
        let mut halves = vec![0u16; 2 * part];
        let mut scale_bias = vec![0.0f32; 2 * row];
        for (output, weight) in weight.chunks_exact(inputs * taps).enumerate() {
            let largest = weight.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            // The largest lies from 2¹³ to 2¹⁴ then.
            let exponent = if largest > 0.0 { (13 - largest.log2().floor() as i32).clamp(-100, 100) } else { 0 };
            let factor = f32::powi(2.0, exponent);
            scale_bias[output] = f32::powi(2.0, -exponent);
            scale_bias[row + output] = bias[output];
            for (input, weight) in weight.chunks_exact(taps).enumerate() {
                for (tap, weight) in weight.iter().enumerate() {
                    let step = tap * chunks + input / STEP;
                    let at = (step * row + output) * STEP + input % STEP;
                    let value = weight * factor;
                    let high = f16::from_f32(value);
                    halves[at] = high.to_bits();
                    halves[part + at] = f16::from_f32(value - high.to_f32()).to_bits();
                }
            }
        }
        let words: Vec<u32> =
            halves.as_chunks::<2>().0.iter().map(|[low, high]| u32::from(*low) | (u32::from(*high) << 16)).collect();
        Self { words: gpu.upload(&words), scale_bias: gpu.upload_f32(&scale_bias), emulated }
    }

    pub(super) fn words(&self) -> &Buffer {
        &self.words
    }
}

/// Two numbers in `f16`, as a word.
#[cube]
fn to_halves(pair: Float2, #[comptime] emulated: bool) -> u32 {
    if comptime!(emulated) {
        round_f16(pair.extract(0usize)) | (round_f16(pair.extract(1usize)) << 16u32)
    } else {
        u32::reinterpret(Vector::<f16, Const<2>>::cast_from(pair))
    }
}

/// Loads the inputs of a step: eight channels of each of a unit's positions, as one or two loads of `f16`.
#[cube]
fn load_inputs(
    x: &[Vector<f32, Const<4>>],
    norm: &[Vector<f32, Const<4>>],
    places: &Places,
    loaded: &mut Array<Load>,
    step: u32,
    size: &Size,
    #[comptime] kind: Kind,
) {
    let chunks = size.inputs.div_ceil(8u32);
    let load = step % chunks * 8 + UNIT_POS % 4 * 2;
    #[unroll]
    for i in 0..comptime!(kind.input_loads()) {
        let mut high = Load::new(0u32);
        let mut low = Load::new(0u32);
        #[unroll]
        for j in 0..2usize {
            let value = load_input(
                x,
                norm,
                places,
                step / chunks,
                load + comptime!(j as u32),
                size,
                i,
                comptime!(kind.loading),
            );
            #[unroll]
            for k in 0..2usize {
                let mut pair = Float2::new(value.extract(comptime!(2 * k)));
                pair.insert(1usize, value.extract(comptime!(2 * k + 1)));
                let word = to_halves(pair, kind.emulated);
                high.insert(comptime!(2 * j + k), word);
                if comptime!(kind.parts == 2) {
                    low.insert(comptime!(2 * j + k), to_halves(pair - half_pair(word), kind.emulated));
                }
            }
        }
        loaded[comptime!(i * kind.parts)] = high;
        if comptime!(kind.parts == 2) {
            loaded[comptime!(i * kind.parts + 1)] = low;
        }
    }
}

/// Loads the weights of a step, of a cube's outputs. Those beyond the last output are some of it.
#[cube]
fn load_weights(weights: &[Load], loaded: &mut Array<Load>, step: u32, size: &Size, #[comptime] kind: Kind) {
    let row = size.outputs * comptime!(LOAD as u32);
    #[unroll]
    for i in 0..comptime!(kind.weight_loads()) {
        let local = UNIT_POS / 4 + comptime!((i * UNITS / STEP_LOADS) as u32);
        let output = min(CUBE_POS_X * comptime!(kind.outputs() as u32) + local, row - 1);
        #[unroll]
        for part in 0..comptime!(kind.parts) {
            let first = comptime!(part as u32) * size.weight_rows + step;
            let at = (first * row + output) * comptime!(STEP_LOADS as u32) + UNIT_POS % 4;
            loaded[comptime!(i * kind.parts + part)] = weights[at as usize];
        }
    }
}

/// Grid: (tiles of outputs, tiles of positions, folded). Cube: 256 units. `weight_rows` of the size are steps.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    x: &[Vector<f32, Const<4>>],
    weights: &[Load],
    scale_bias: &[Float2],
    norm: &[Vector<f32, Const<4>>],
    residual: &[Float2],
    out: &mut [Float2],
    size: Size,
    #[comptime] kind: Kind,
) {
    let parts = comptime!(kind.parts);
    let x_part = comptime!(kind.positions() * STEP_LOADS);
    let w_part = comptime!(kind.outputs() * STEP_LOADS);
    let mut x_shared = Shared::<[Load]>::new_slice(comptime!(kind.parts * kind.positions() * STEP_LOADS));
    let mut w_shared = Shared::<[Load]>::new_slice(comptime!(kind.parts * kind.outputs() * STEP_LOADS));
    let mut scratch = Shared::<[u32]>::new_slice(comptime!(scratch_words(UNITS, kind.emulated)));
    let unit = UNIT_POS as usize;
    let plane = UNIT_POS / comptime!(PLANE as u32);
    let lane = UNIT_POS % comptime!(PLANE as u32);
    let first = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) * comptime!(kind.positions() as u32);
    // The first position and output of the plane.
    let x_tile = plane % comptime!(POSITION_PLANES as u32) * comptime!((kind.rows * TILE_POSITIONS) as u32);
    let w_tile = plane / comptime!(POSITION_PLANES as u32) * comptime!((kind.columns * TILE_OUTPUTS) as u32);

    let apart = comptime!((UNITS / STEP_LOADS) as u32);
    let places = find_places(first + UNIT_POS / 4, apart, &size, comptime!(kind.input_loads()));
    let mut x_loaded = Array::<Load>::new(comptime!(kind.input_loads() * kind.parts));
    let mut w_loaded = Array::<Load>::new(comptime!(kind.weight_loads() * kind.parts));

    let mut sums = Array::<Float2>::new(comptime!(2 * kind.tiles()));
    let mut totals = Array::<Float2>::new(comptime!(2 * kind.tiles()));
    #[unroll]
    for i in 0..comptime!(2 * kind.tiles()) {
        sums[i] = Float2::new(0.0f32);
        totals[i] = Float2::new(0.0f32);
    }

    let steps = size.weight_rows;
    load_inputs(x, norm, &places, &mut x_loaded, 0u32, &size, kind);
    load_weights(weights, &mut w_loaded, 0u32, &size, kind);
    let mut step = 0u32;
    while step < steps {
        // Those who read the step before are done.
        sync_cube();
        #[unroll]
        for part in 0..parts {
            #[unroll]
            for i in 0..comptime!(kind.input_loads()) {
                let at = unit + i * UNITS;
                if at < x_part {
                    x_shared[at + part * x_part] = x_loaded[comptime!(i * kind.parts + part)];
                }
            }
            #[unroll]
            for i in 0..comptime!(kind.weight_loads()) {
                let at = unit + i * UNITS;
                if at < w_part {
                    w_shared[at + part * w_part] = w_loaded[comptime!(i * kind.parts + part)];
                }
            }
        }
        sync_cube();
        step += 1;
        if step < steps {
            load_inputs(x, norm, &places, &mut x_loaded, step, &size, kind);
            load_weights(weights, &mut w_loaded, step, &size, kind);
        }

        // Load `lane % 4` of row `lane / 4` of each tile.
        let mut w = Array::<Load>::new(comptime!(kind.columns * kind.parts));
        #[unroll]
        for n in 0..comptime!(kind.columns) {
            #[unroll]
            for part in 0..parts {
                let at = (w_tile + comptime!((n * TILE_OUTPUTS) as u32)) * 4 + lane;
                w[comptime!(n * kind.parts + part)] = w_shared[at as usize + part * w_part];
            }
        }
        #[unroll]
        for m in 0..comptime!(kind.rows) {
            let mut values = Array::<Load>::new(comptime!(2 * kind.parts));
            #[unroll]
            for part in 0..parts {
                let at = (x_tile + comptime!((m * TILE_POSITIONS) as u32)) * 4 + lane;
                values[comptime!(2 * part)] = x_shared[at as usize + part * x_part];
                values[comptime!(2 * part + 1)] = x_shared[at as usize + comptime!(PLANE) + part * x_part];
            }
            #[unroll]
            for n in 0..comptime!(kind.columns) {
                let tile = comptime!(2 * (m * kind.columns + n));
                let mut tile_sums = Array::<Float2>::new(2usize);
                tile_sums[0] = sums[tile];
                tile_sums[1] = sums[comptime!(tile + 1)];
                #[unroll]
                for half in 0..2usize {
                    // The small products first: high · low, low · high, high · high.
                    #[unroll]
                    for product in 0..comptime!(2 * kind.parts - 1) {
                        let a_part = comptime!(usize::from(kind.parts == 2 && product == 1));
                        let b_part = comptime!(usize::from(kind.parts == 2 && product == 0));
                        let mut a = Array::<u32>::new(4usize);
                        a[0] = values[comptime!(2 * a_part)].extract(comptime!(2 * half));
                        a[1] = values[comptime!(2 * a_part + 1)].extract(comptime!(2 * half));
                        a[2] = values[comptime!(2 * a_part)].extract(comptime!(2 * half + 1));
                        a[3] = values[comptime!(2 * a_part + 1)].extract(comptime!(2 * half + 1));
                        let mut b = Array::<u32>::new(2usize);
                        b[0] = w[comptime!(n * kind.parts + b_part)].extract(comptime!(2 * half));
                        b[1] = w[comptime!(n * kind.parts + b_part)].extract(comptime!(2 * half + 1));
                        instruction(&a, &b, &mut tile_sums, &mut scratch, Format::F16, kind.emulated);
                    }
                }
                sums[tile] = tile_sums[0];
                sums[comptime!(tile + 1)] = tile_sums[1];
            }
        }
        if comptime!(kind.parts == 2) && (step % comptime!(CHAIN) == 0 || step == steps) {
            #[unroll]
            for i in 0..comptime!(2 * kind.tiles()) {
                totals[i] += sums[i];
                sums[i] = Float2::new(0.0f32);
            }
        }
    }

    let row = size.outputs * comptime!(LOAD as u32 / 2);
    #[unroll]
    for m in 0..comptime!(kind.rows) {
        #[unroll]
        for n in 0..comptime!(kind.columns) {
            #[unroll]
            for half in 0..2usize {
                let position = first + x_tile + comptime!((m * TILE_POSITIONS + half * 8) as u32) + lane / 4;
                // Pairs of outputs.
                let output =
                    (CUBE_POS_X * comptime!(kind.outputs() as u32) + w_tile + comptime!((n * TILE_OUTPUTS) as u32)) / 2
                        + lane % 4;
                if position < size.positions && output < row {
                    let i = comptime!(2 * (m * kind.columns + n) + half);
                    let sum = if comptime!(kind.parts == 2) { totals[i] } else { sums[i] };
                    let at = (position * row + output) as usize;
                    let mut value = fma(sum, scale_bias[output as usize], scale_bias[(row + output) as usize]);
                    if comptime!(kind.has_residual) {
                        value += residual[at];
                    }
                    out[at] = value;
                }
            }
        }
    }
}

/// Launches a convolution of `x` with `taps` taps; `norm` and `residual` are any buffers where it has none.
pub(super) fn launch(
    gpu: &Gpu,
    [x, norm, residual, out]: [&Buffer; 4],
    weights: &Halves,
    loading: Loading,
    has_residual: bool,
    precision: ConvPrecision,
    mut size: Size,
) {
    if size.positions == 0 {
        return;
    }
    let (positions, outputs) = (size.positions as usize, size.outputs as usize * LOAD);
    size.weight_rows = steps(size.inputs as usize * LOAD, (loading.kernel * loading.kernel) as usize) as u32;
    let kind = Kind::new(loading, has_residual, precision, [positions, outputs], weights.emulated);
    // SAFETY: the caller has `x`, the norm, the residual and the result of the layer's shape, and weights of its
    // channels.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            gpu.columns(outputs.div_ceil(kind.outputs()), positions.div_ceil(kind.positions())),
            CubeDim::new_1d(UNITS as u32),
            x.arg(LOAD),
            weights.words.arg(LOAD),
            weights.scale_bias.arg(2),
            norm.arg(LOAD),
            residual.arg(2),
            out.arg(2),
            size.arg(),
            kind,
        );
    }
}
