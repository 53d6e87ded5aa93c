//! Products with weights: `x · Wᵀ`.
//!
//! Weights are read in loads of 16 bytes, each for up to eight rows of activations. A team of lanes has some rows of
//! the weights; each lane adds up its loads in their order, and the lanes' sums are added in a fixed order: it
//! depends on the shape of the weights and on the device alone.
//!
//! With 8- and 4-bit weights activations are rounded to bytes, a scale for each 32 of them, as on the CPU: a block's
//! sum is then a whole number.
//!
//! Where a device has tensor cores whose registers a kernel can name (CUDA), they multiply weights in 16, 8 and 4
//! bits for any number of rows: see `mma`.

pub(crate) mod bytes;
pub(crate) mod floats;
pub(crate) mod mma;

use cubecl::prelude::*;

use crate::gpu::ALIGNMENT;
use crate::reduce::lane_sum;
use crate::weights::{Matrix, MatrixRows};
use crate::{Buffer, Gpu};

/// 16 bytes of weights.
pub(crate) type Load = Vector<u32, Const<4>>;

/// Four numbers of activations.
pub(crate) type Float4 = Vector<f32, Const<4>>;

/// The most matrices of one launch.
const MAX_GROUP: usize = 3;

/// The most rows of activations that a team has at once.
const MAX_ROWS: usize = 8;

/// How activations are rounded beside weights in 16 bits on tensor cores. Other kernels take them as they are beside 32
/// and 16 bits, and in bytes beside 8 and 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MatmulPrecision {
    /// The sum of two numbers of the weights' format: at least 16 bits of an `f32`'s 24 beside `bf16`, and 21 beside
    /// `f16`. It costs nothing where memory is the limit, and twice the time where arithmetic is: in long prompts.
    #[default]
    High,
    /// One number of the weights' format, as networks in 16 bits do.
    Fast,
}

/// Units of a cube.
const UNITS: u32 = 256;

/// Rows of weights of one matrix, as a launch sees them.
#[derive(CubeType, CubeLaunch, Clone, Copy, Default)]
pub(crate) struct Part {
    first_load: u32,
    first_scale: u32,
    outputs: u32,
    /// Where its results begin.
    out: u32,
    /// The first cube after its own.
    end: u32,
}

impl Part {
    fn arg(self) -> PartLaunch {
        PartLaunch::new(self.first_load, self.first_scale, self.outputs, self.out, self.end)
    }
}

/// The matrices of one launch, and how the work is dealt out.
struct Launch<'a> {
    gpu: &'a Gpu,
    matrix: &'a Matrix,
    parts: [Part; MAX_GROUP],
    /// Rows of activations.
    n: usize,
    /// Rows of activations of a team.
    rows: usize,
    /// Rows of weights of a team.
    per_team: usize,
}

impl Launch<'_> {
    fn teams(&self) -> u32 {
        UNITS / self.gpu.lanes()
    }

    fn count(&self) -> CubeCount {
        CubeCount::Static(self.parts[MAX_GROUP - 1].end, self.n.div_ceil(self.rows) as u32, 1)
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.gpu.lanes(), self.teams())
    }
}

/// `x · Wᵀ` with some rows of each matrix: `x` `[n, columns]` → `[n, rows]` each. The matrices have equal columns.
///
/// # Panics
/// If `x` is of another size, a matrix has other columns, or rows are not in their matrix.
pub fn matmul<const N: usize>(gpu: &Gpu, x: &Buffer, n: usize, weights: [MatrixRows<'_>; N]) -> [Buffer; N] {
    matmul_with(gpu, x, n, weights, MatmulPrecision::default())
}

/// [`matmul`] with a choice of precision, which a row's bits depend on.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_with<const N: usize>(
    gpu: &Gpu,
    x: &Buffer,
    n: usize,
    weights: [MatrixRows<'_>; N],
    precision: MatmulPrecision,
) -> [Buffer; N] {
    let columns = weights.first().map_or(0, |part| part.matrix.columns());
    assert_eq!(x.len(), n * columns, "activations are [{n}, {columns}]");
    for MatrixRows { matrix, rows } in &weights {
        assert_eq!(matrix.columns(), columns, "matrices of one input have equal columns");
        assert!(rows.start <= rows.end && rows.end <= matrix.rows(), "{rows:?} of {} rows", matrix.rows());
    }
    let mut end = 0;
    let places = weights.each_ref().map(|part| {
        let start = end;
        end = (start + n * part.rows.len()).next_multiple_of(ALIGNMENT);
        start..start + n * part.rows.len()
    });
    let out = gpu.empty(end);
    let mut inputs = Inputs { gpu, x, n, columns, precision, padded: None, quantised: None, packed: None };
    let mut done = 0;
    while done < N {
        let first = weights[done].matrix;
        let fits = |part: &&MatrixRows<'_>| part.matrix.lies_with(first);
        let len = weights[done..].iter().take(MAX_GROUP).take_while(fits).count();
        let group = weights[done..done + len].iter().zip(&places[done..]).map(|(part, place)| (part, place.start));
        inputs.run(first, group, &out);
        done += len;
    }
    places.map(|place| out.part(place))
}

/// Activations `[n, columns]` in the forms that kernels read, each made once.
struct Inputs<'a> {
    gpu: &'a Gpu,
    x: &'a Buffer,
    n: usize,
    columns: usize,
    precision: MatmulPrecision,
    padded: Option<Buffer>,
    quantised: Option<bytes::Quantised>,
    packed: Option<mma::Packed>,
}

impl Inputs<'_> {
    /// One launch for matrices that lie in one buffer, each with the place of its results.
    fn run<'m>(&mut self, matrix: &Matrix, group: impl Iterator<Item = (&'m MatrixRows<'m>, usize)>, out: &Buffer) {
        let &mut Self { gpu, x, n, columns, .. } = self;
        let mut parts = [Part::default(); MAX_GROUP];
        for (part, (MatrixRows { matrix, rows }, place)) in parts.iter_mut().zip(group) {
            part.first_load = matrix.load_of(rows.start) as u32;
            part.first_scale = matrix.scale_of(rows.start) as u32;
            part.outputs = rows.len() as u32;
            part.out = place as u32;
        }
        if n == 0 || parts.iter().all(|part| part.outputs == 0) {
            return;
        }
        if gpu.has_tensor_cores() && mma::takes(matrix) {
            self.run_on_tensor_cores(matrix, parts, out);
            return;
        }
        let rows = n.next_power_of_two().clamp(1, MAX_ROWS);
        // More rows of activations are read again for each row of weights: more of those share them.
        let per_team = if rows >= 4 { 4 } else { 2 };
        let mut launch = Launch { gpu, matrix, parts, n, rows, per_team };
        let mut end = 0;
        for part in &mut launch.parts {
            end += (part.outputs as usize).div_ceil(per_team * (UNITS / gpu.lanes()) as usize) as u32;
            part.end = end;
        }
        let padded = matrix.padded_columns();
        if matrix.format().has_scales() {
            let x = self.quantised.get_or_insert_with(|| bytes::quantise(gpu, x, n, columns));
            bytes::launch(&launch, x, out);
        } else if padded == columns {
            floats::launch(&launch, x, out);
        } else {
            // Formats of one launch differ in no padding but that of the first; others have launches of their own.
            if self.padded.as_ref().is_none_or(|padded_x| padded_x.len() != n * padded) {
                self.padded = Some(floats::pad(gpu, x, n, columns, padded));
            }
            if let Some(x) = &self.padded {
                floats::launch(&launch, x, out);
            }
        }
    }

    fn run_on_tensor_cores(&mut self, matrix: &Matrix, parts: [Part; MAX_GROUP], out: &Buffer) {
        let &mut Self { gpu, x, n, columns, precision, .. } = self;
        let kind = mma::Kind::new(matrix.format(), columns, precision);
        let x = match self.packed.take() {
            Some(packed) if packed.serves(kind) => packed,
            _ => mma::pack(gpu, kind, x, n, columns),
        };
        mma::Launch { gpu, kind, matrix, parts, n, x: &x, out }.run();
        self.packed = Some(x);
    }
}

/// Adds up the lanes' sums, `[rows, per_team]` from row `first_row` of activations and row `first` of weights on, and
/// writes those of rows that are there.
#[cube]
fn write_sums(
    out: &mut [f32],
    sums: &Array<f32>,
    part: &Part,
    n: u32,
    first_row: u32,
    first: u32,
    #[comptime] rows: usize,
    #[comptime] per_team: usize,
    #[comptime] lanes: u32,
) {
    #[unroll]
    for r in 0..rows {
        #[unroll]
        for p in 0..per_team {
            let sum = lane_sum(sums[r * per_team + p], lanes);
            let row = first_row + r as u32;
            let output = first + p as u32;
            if UNIT_POS_X == 0 && row < n && output < part.outputs {
                out[(part.out + row * part.outputs + output) as usize] = sum;
            }
        }
    }
}

/// The part of a launch that a cube works on, and which of the part's cubes it is.
#[cube]
fn pick(a: Part, b: Part, c: Part) -> (Part, u32) {
    let cube = CUBE_POS_X;
    let second = cube >= a.end;
    let third = cube >= b.end;
    let start = select(third, b.end, select(second, a.end, 0u32));
    let part = Part {
        first_load: select(third, c.first_load, select(second, b.first_load, a.first_load)),
        first_scale: select(third, c.first_scale, select(second, b.first_scale, a.first_scale)),
        outputs: select(third, c.outputs, select(second, b.outputs, a.outputs)),
        out: select(third, c.out, select(second, b.out, a.out)),
        end: start,
    };
    (part, cube - start)
}
