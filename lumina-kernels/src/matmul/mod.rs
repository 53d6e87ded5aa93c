//! Matmul of activations with weight matrices, `x · wᵀ`, with weights in the [`Format`](crate::Format) of their file.
//!
//! - Few rows of activations take a GEMV, which is bound by memory: weights are multiplied as they are read, the
//!   next rows are prefetched, and each thread reads its own part of the matrix from front to back. More than 8 rows
//!   go in tiles of 8, which read the weights from the cache.
//! - More rows take a GEMM, which is bound by arithmetic: as in BLIS, 32 rows of the weights at a time are packed into
//!   panels that fit a cache, and multiplied with tiles of all activations.
//!
//! `kernel` chooses the functions for an instruction set, `arithmetic` the types that are multiplied, `activations` and
//! the `*_pack` files put operands in the order of the kernels. [`f32_gemm`] and [`bf16_gemm`] are for training,
//! where both operands are `f32`.

use std::ops::Range;

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod arithmetic;
#[cfg(target_arch = "x86_64")]
mod avx2_gemm;
#[cfg(target_arch = "x86_64")]
mod avx2_gemv;
#[cfg(target_arch = "x86_64")]
mod avx2_pack;
#[cfg(target_arch = "x86_64")]
mod avx512_gemm;
#[cfg(target_arch = "x86_64")]
mod avx512_gemv;
#[cfg(target_arch = "x86_64")]
mod avx512_pack;
pub mod bf16_gemm;
mod blocks;
pub mod f32_gemm;
mod gemv;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon_gemm;
#[cfg(target_arch = "aarch64")]
mod neon_gemv;
mod portable_gemm;
pub(crate) mod serial_gemm;
mod task;
#[cfg(test)]
mod tests;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only vector kernels read blocks and prefetch"))]
mod weight_rows;
#[cfg(target_arch = "x86_64")]
mod x86_memory;

pub use arithmetic::ActivationPrecision;
pub use task::MatmulTask;

use crate::parallel::*;
use crate::scratch::{self, Lanes, Purpose};
use crate::{Error, Isa, Matrix, Result};
use activations::Layout;
use arithmetic::Arithmetic;
use kernel::{GROUP, GROUP_ROWS, Kernel, MAX_GEMV_ROWS};
use weight_rows::{PrefetchRows, WeightRows, with_min_rows};

/// From this many multiply-adds on, threads share a matmul. Fewer take about as long as waking a thread.
const MIN_PARALLEL: usize = 1 << 18;
/// Tasks of a thread, so that the others can take over from one that is delayed.
const TASKS_PER_THREAD: usize = 32;

/// Matmul on one instruction set, with one precision of activations: `x · wᵀ`.
///
/// # What a result depends on
///
/// A row's result depends on that row, the weights, the instruction set and the [`ActivationPrecision`] alone: not on
/// how many rows are multiplied at once, from one to thousands, nor on threads. Batched equals single, and a prefill in
/// pieces equals one in whole, to the bit. Columns are dealt in turn to 16 sums (pairs of columns in `bf16`), which are
/// then added up one after the other; integers have parts of 16 blocks.
///
/// | weights | [`F32`](ActivationPrecision::F32) | [`Reduced`](ActivationPrecision::Reduced) |
/// | --- | --- | --- |
/// | `F32`, `F16` | `f32` | `f32` |
/// | `BF16` | `f32` | `bf16` with AVX-512 BF16 or AMX, else `f32` |
/// | `Q8_0`, `Q4_0` | `f32`, weights dequantised at each call: slow | blocks of 32 8-bit integers |
/// | other quantised formats | `f32`, weights dequantised at each call: slow | the same |
///
/// Activations in `bf16` have a relative error of at most 2⁻⁸ each, and are summed in `f32`. In blocks of integers they
/// have an error of at most 1/254 of the block's largest each; sums of a block are exact, and results the same on every
/// instruction set.
///
/// A value that is not finite makes results of its row that are not finite, and no others. With blocks of integers they
/// are NaN.
///
/// # Memory and threads
///
/// The work is done in the current rayon pool: the global one, or one that the caller has entered with `install`.
/// Without the feature `threads` it is done on the calling thread. Each thread keeps up to 16 MiB of working memory
/// from call to call, so decoding allocates nothing after its first steps.
///
/// ```
/// use lumina_kernels::{ActivationPrecision, Format, Matmul, Matrix};
///
/// let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
/// let w = Matrix::new(Format::F32, 3, 2, &bytes)?;
/// let mut y = [0.0; 3];
/// Matmul::new(ActivationPrecision::F32).run(&[10.0, 1.0], w, &mut y)?;
/// assert_eq!(y, [12.0, 34.0, 56.0]);
/// # Ok::<(), lumina_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matmul {
    isa: Isa,
    precision: ActivationPrecision,
}

impl Matmul {
    /// On the best instruction set of this processor.
    pub fn new(precision: ActivationPrecision) -> Self {
        Self { isa: Isa::best(), precision }
    }

    /// On the given instruction set, or `None` if the processor lacks it.
    pub fn with_isa(isa: Isa, precision: ActivationPrecision) -> Option<Self> {
        isa.is_available().then_some(Self { isa, precision })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The precision of activations.
    pub fn precision(&self) -> ActivationPrecision {
        self.precision
    }

    /// `x · wᵀ`: `x` `[n, columns]` with `w` `[rows, columns]` into `y` `[n, rows]`.
    ///
    /// # Errors
    ///
    /// If `x` is not a whole number of rows, or `y` is not `[n, rows]`.
    pub fn run(&self, x: &[f32], w: Matrix<'_>, y: &mut [f32]) -> Result<()> {
        self.run_shared(x, w.columns(), &mut [MatmulTask::new(w, y)])
    }

    /// Several matmuls with the same `x` `[n, columns]`, such as queries, keys and values: `x` is packed once, and
    /// threads are synchronised once.
    ///
    /// # Errors
    ///
    /// If `x` is not a whole number of rows, a matrix has another number of columns, or a result is not `[n, rows]`.
    pub fn run_shared(&self, x: &[f32], columns: usize, tasks: &mut [MatmulTask<'_>]) -> Result<()> {
        let n = check(x, columns, tasks)?;
        if n == 0 {
            // There are no activations, or no columns, whose sums are zero.
            tasks.iter_mut().for_each(MatmulTask::clear);
            return Ok(());
        }
        // Matrices of one arithmetic are multiplied together; usually that is all of them.
        let kernel_of = |task: &MatmulTask<'_>| {
            let format = task.weight().format();
            let arithmetic = Arithmetic::choose(format, self.precision, self.isa, n);
            Kernel::new(arithmetic, format, self.isa).expect("the constructors check that the processor has `isa`")
        };
        let mut rest = tasks;
        while let Some(first) = rest.first() {
            let kernel = kernel_of(first);
            let is_alike =
                |other: Kernel| other.arithmetic == kernel.arithmetic && other.is_gemv(n) == kernel.is_gemv(n);
            let alike = rest.iter().take_while(|task| is_alike(kernel_of(task))).count();
            let (these, others) = std::mem::take(&mut rest).split_at_mut(alike);
            multiply(x, n, columns, these, &kernel_of);
            rest = others;
        }
        Ok(())
    }
}

/// The number of rows of `x`; also 0 if rows have no columns.
fn check(x: &[f32], columns: usize, tasks: &[MatmulTask<'_>]) -> Result<usize> {
    let n = x.len().checked_div(columns).unwrap_or(0);
    if n * columns != x.len() {
        return Err(Error::Input { found: x.len(), columns });
    }
    for task in tasks {
        let weight = task.weight();
        if weight.columns() != columns {
            return Err(Error::Columns { expected: columns, found: weight.columns() });
        }
        let whole = columns == 0 && task.len().checked_rem(weight.rows()).unwrap_or(task.len()) == 0;
        if !whole && n.checked_mul(weight.rows()) != Some(task.len()) {
            return Err(Error::Output { n, rows: weight.rows(), found: task.len() });
        }
    }
    Ok(n)
}

/// Matmuls of one arithmetic, which are all a GEMV or all a GEMM.
fn multiply(
    x: &[f32],
    n: usize,
    columns: usize,
    tasks: &[MatmulTask<'_>],
    kernel_of: &(impl Fn(&MatmulTask<'_>) -> Kernel + Sync),
) {
    let Some(first) = tasks.first().map(kernel_of) else { return };
    let arithmetic = first.arithmetic;
    let layout = if first.is_gemv(n) { Layout::Rows } else { Layout::Tiles(first.tile) };
    let words = n * arithmetic.row_words(columns);
    scratch::with(Purpose::Activations, words.div_ceil(Lanes::COUNT), |lanes| {
        let packed = &mut Lanes::words_mut(lanes)[..words];
        activations::pack(arithmetic, layout, x, columns, packed);
        let packed = &*packed;
        let groups_of = |task: &MatmulTask<'_>| task.weight().rows().div_ceil(GROUP_ROWS);
        let groups: usize = tasks.iter().map(groups_of).sum();
        // Groups `first..end` of all matrices, counted from the first matrix on.
        let run = |first: usize, end: usize| {
            let mut before = 0;
            for task in tasks {
                let count = groups_of(task);
                let range = first.clamp(before, before + count) - before..end.clamp(before, before + count) - before;
                let part = Part { n, packed, kernel: &kernel_of(task), task, groups: range };
                match layout {
                    Layout::Rows => part.gemv(),
                    Layout::Tiles(_) => part.gemm(),
                }
                before += count;
            }
        };
        let rows: usize = tasks.iter().map(|task| task.weight().rows()).sum();
        let threads = current_num_threads();
        if threads == 1 || n.saturating_mul(rows).saturating_mul(columns) < MIN_PARALLEL {
            run(0, groups);
        } else {
            // The groups of a job are consecutive, and so are the jobs of a thread: each streams its own part of the
            // weights.
            let batch = if layout == Layout::Rows { 1 } else { first.batch };
            let job = groups.div_ceil(threads * TASKS_PER_THREAD).max(batch.min(groups.div_ceil(threads)));
            let jobs = groups.div_ceil(job);
            (0..jobs).into_par_iter().for_each(|index| run(index * job, ((index + 1) * job).min(groups)));
        }
    });
}

/// Some groups of weight rows of a matmul, which one thread computes.
struct Part<'a> {
    /// Rows of activations.
    n: usize,
    /// Packed activations.
    packed: &'a [u32],
    kernel: &'a Kernel,
    task: &'a MatmulTask<'a>,
    groups: Range<usize>,
}

/// Groups of weight rows that a GEMM multiplies together.
#[derive(Clone, Copy)]
struct Batch<'a> {
    weight: Matrix<'a>,
    /// The first group.
    first: usize,
    /// Groups of this batch.
    count: usize,
    /// Groups of a full batch.
    full: usize,
}

impl Batch<'_> {
    /// The first row of panel `index` of a group.
    fn first_row(&self, group: usize, index: usize) -> usize {
        (self.first + group) * GROUP_ROWS + index * Lanes::COUNT
    }
}

impl Part<'_> {
    /// With few rows of activations, in tiles of up to [`MAX_GEMV_ROWS`]: after the first tile the weights are in the
    /// cache.
    fn gemv(&self) {
        let rows = self.task.weight().rows();
        let rows = self.groups.start * GROUP_ROWS..rows.min(self.groups.end * GROUP_ROWS);
        let tile_words = MAX_GEMV_ROWS * self.kernel.arithmetic.row_words(self.task.weight().columns());
        with_min_rows(self.task.weight(), |weight| {
            let mut sums = [Lanes::ZERO; MAX_GEMV_ROWS];
            for row in rows.step_by(Lanes::COUNT) {
                let weights = WeightRows::new(weight, row);
                for (tile, x) in self.packed.chunks(tile_words).enumerate() {
                    let first = tile * MAX_GEMV_ROWS;
                    let sums = &mut sums[..MAX_GEMV_ROWS.min(self.n - first)];
                    self.kernel.gemv(&weights, x, sums);
                    for (index, sums) in sums.iter().enumerate() {
                        self.store(weight, first + index, row, sums);
                    }
                }
            }
        });
    }

    /// With any number of rows of activations.
    fn gemm(&self) {
        let Self { n, kernel, groups, .. } = self;
        let columns = self.task.weight().columns();
        let full = kernel.batch.min(groups.len()).max(1);
        let span_lanes = kernel.spans(columns).map(|span| span.len() * self.step_lanes()).max().unwrap_or(0);
        with_min_rows(self.task.weight(), |weight| {
            scratch::with(Purpose::Panels, full * (span_lanes + GROUP * n), |lanes| {
                let (panels, sums) = lanes.split_at_mut(full * span_lanes);
                for first in groups.clone().step_by(full) {
                    let batch = Batch { weight, first, count: full.min(groups.end - first), full };
                    // Of each tile, of each group, of each row.
                    let sums = &mut sums[..batch.count * GROUP * n];
                    sums.fill(Lanes::ZERO);
                    for span in kernel.spans(columns) {
                        self.pack_span(batch, &span, panels);
                        self.multiply_span(batch, &span, panels, sums);
                    }
                    self.store_batch(batch, sums);
                }
            });
        });
    }

    /// Lanes of a step of a packed group.
    fn step_lanes(&self) -> usize {
        GROUP * self.kernel.arithmetic.step_vectors()
    }

    /// Packs steps `span` of the groups of a batch.
    fn pack_span(&self, batch: Batch<'_>, span: &Range<usize>, panels: &mut [Lanes]) {
        let groups = panels.chunks_exact_mut(span.len() * self.step_lanes());
        for (group, panels) in groups.take(batch.count).enumerate() {
            for index in 0..GROUP {
                let weights = WeightRows::new(batch.weight, batch.first_row(group, index));
                self.kernel.pack(&weights.steps(span, self.kernel.arithmetic), index, panels);
            }
        }
    }

    /// Multiplies steps `span` of a batch with all tiles of activations.
    fn multiply_span(&self, batch: Batch<'_>, span: &Range<usize>, panels: &[Lanes], sums: &mut [Lanes]) {
        let Self { n, packed, kernel, .. } = *self;
        let (arithmetic, columns) = (kernel.arithmetic, self.task.weight().columns());
        let (row_words, step_words) = (arithmetic.row_words(columns), arithmetic.step_words());
        let step_lanes = self.step_lanes() * batch.count;
        let next = self.next_rows(batch, span);
        let parts = || {
            let parts = arithmetic.parts(columns).skip_while(|part| part.start < span.start);
            parts.take_while(|part| part.end <= span.end)
        };
        let tiles = n.div_ceil(kernel.tile);
        let calls = parts().count() * tiles;
        for (number, part) in parts().enumerate() {
            let panels = &panels[(part.start - span.start) * step_lanes..][..part.len() * step_lanes];
            for (tile, sums) in sums.chunks_mut(kernel.tile * GROUP * batch.count).enumerate() {
                let rows = sums.len() / (GROUP * batch.count);
                let from = tile * kernel.tile * row_words + part.start * rows * step_words;
                let x = &packed[from..from + part.len() * rows * step_words];
                let next = if kernel.batch == 1 {
                    next.share(GROUP_ROWS, number * tiles + tile, calls)
                } else {
                    next.at_row(tile * kernel.tile / Lanes::COUNT)
                };
                let next = PrefetchRows { tile: x.as_ptr().wrapping_add(kernel.tile * row_words), ..next };
                kernel.gemm(panels, x, rows, sums, next);
            }
        }
    }

    /// The weights that are packed after `span`: the next span of these rows, or the rows of the next batch.
    fn next_rows(&self, batch: Batch<'_>, span: &Range<usize>) -> PrefetchRows {
        let arithmetic = self.kernel.arithmetic;
        let weights = WeightRows::new(batch.weight, batch.first_row(0, 0));
        if span.end < arithmetic.steps(batch.weight.columns()) {
            weights.steps(&(span.end..span.end + 1), arithmetic).prefetch_from(0)
        } else {
            weights.prefetch_from(batch.full * GROUP_ROWS)
        }
    }

    /// Stores the sums of a batch.
    fn store_batch(&self, batch: Batch<'_>, sums: &[Lanes]) {
        let tile_rows = self.kernel.tile;
        for (tile, sums) in sums.chunks(tile_rows * GROUP * batch.count).enumerate() {
            let rows = sums.len() / (GROUP * batch.count);
            for row in 0..rows {
                for group in 0..batch.count {
                    for (index, sums) in sums[(group * rows + row) * GROUP..][..GROUP].iter().enumerate() {
                        self.store(batch.weight, tile * tile_rows + row, batch.first_row(group, index), sums);
                    }
                }
            }
        }
    }

    /// Stores the sums of activation row `row` with the 16 weight rows that [`WeightRows::new`] returns for `first`.
    fn store(&self, weight: Matrix<'_>, row: usize, first: usize, sums: &Lanes) {
        // Those before `first` are stored with other rows. The second panel of a group may begin beyond the last row.
        let sums = sums.0.get(WeightRows::rows_before(weight, first)..).unwrap_or_default();
        #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
        // SAFETY: a group of weight rows is computed by one thread.
        unsafe {
            self.task.store(row, first, sums);
        }
    }
}
