//! Products of activations with weight matrices.

use std::ops::Range;

use crate::parallel::*;

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
pub mod f32_gemm;
mod gemv;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon_gemm;
#[cfg(target_arch = "aarch64")]
mod neon_gemv;
mod portable_gemm;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod prefetch;
pub mod serial_gemm;
mod task;
#[cfg(test)]
mod tests;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only vector kernels read blocks and prefetch"))]
mod weight_rows;

pub use arithmetic::ActivationPrecision;
pub use task::MatmulTask;

use crate::scratch::{self, Lanes, Use};
use crate::{Error, Isa, Matrix, Result};
use activations::Order;
use arithmetic::Arithmetic;
use kernel::{FEW, GROUP, GROUP_ROWS, Kernel};
use weight_rows::{Rows, Source, with_sixteen};

/// Multiply-adds from which on a product is shared among threads; fewer take about as long as waking one.
const PARALLEL: usize = 1 << 18;
/// Tasks a thread gets, so that one that is held up elsewhere is relieved by the others.
const TASKS: usize = 32;

/// The kernels of one instruction set, for one treatment of activations: the products `x · wᵀ`.
///
/// # What a result is
///
/// A row's result depends on that row, the weights, the instruction set and [`ActivationPrecision`] alone: not on how many rows are
/// given at once, from one to thousands, nor on threads. Batched equals single, and a prefill in pieces equals one in whole, to the bit.
/// Columns are dealt in turn to 16 sums (pairs of columns in `bf16`), which are then added up one after the other; in bytes, blocks go in runs of 16.
///
/// | weights | [`F32`](ActivationPrecision::F32) | [`Reduced`](ActivationPrecision::Reduced) |
/// | --- | --- | --- |
/// | `F32`, `F16` | `f32` | `f32` |
/// | `BF16` | `f32` | with AVX-512 BF16 or AMX: activations rounded to `bf16`, a relative error of at most 2⁻⁸ each, sums in `f32`; else `f32` |
/// | `Q8_0`, `Q4_0` | `f32`, weights widened at each call: slow | activations in blocks of 32 bytes: an error of at most 1/254 of the block's largest each; sums of a block are exact, and results the same on every instruction set |
/// | `Q4_K`, `Q6_K` | `f32`, weights widened at each call: slow | as `Full` |
///
/// A value that is not finite makes results of its row that are not finite or no number (in bytes: no number); other rows do not see it.
///
/// # Memory and threads
///
/// Products run in the current rayon pool: the global one, or one in which the caller `install`s them. Each thread keeps up to 16 MiB of working memory
/// from call to call, so that decoding allocates nothing once it has begun.
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
    /// Those of the best instruction set of this processor.
    pub fn new(precision: ActivationPrecision) -> Self {
        Self { isa: Isa::best(), precision }
    }

    /// Those of one instruction set, or `None` where the processor lacks it.
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
    /// If `x` is no whole number of rows, or `y` is not `[n, rows]`.
    pub fn run(&self, x: &[f32], w: Matrix<'_>, y: &mut [f32]) -> Result<()> {
        self.run_shared(x, w.columns(), &mut [MatmulTask::new(w, y)])
    }

    /// Several products of the same `x` `[n, columns]`, such as queries, keys and values: `x` is prepared once, and threads meet once.
    ///
    /// # Errors
    ///
    /// If `x` is no whole number of rows, a matrix has another number of columns, or a result is not `[n, rows]`.
    pub fn run_shared(&self, x: &[f32], columns: usize, products: &mut [MatmulTask<'_>]) -> Result<()> {
        let n = check(x, columns, products)?;
        if n == 0 {
            // Nothing in; and where there are no columns, sums of nothing.
            products.iter_mut().for_each(MatmulTask::clear);
            return Ok(());
        }
        // Products of one arithmetic go together; as a rule that is all of them.
        let kernel_of = |product: &MatmulTask<'_>| {
            let format = product.weight().format();
            let arithmetic = Arithmetic::choose(format, self.precision, self.isa, n);
            Kernel::new(arithmetic, format, self.isa).expect("`new` and `on` give only what the processor has")
        };
        let mut rest = products;
        while let Some(first) = rest.first() {
            let kernel = kernel_of(first);
            let is_alike = |other: Kernel| other.arithmetic == kernel.arithmetic && other.is_few(n) == kernel.is_few(n);
            let alike = rest.iter().take_while(|product| is_alike(kernel_of(product))).count();
            let (these, others) = std::mem::take(&mut rest).split_at_mut(alike);
            multiply(x, n, columns, kernel.arithmetic, these, &kernel_of);
            rest = others;
        }
        Ok(())
    }
}

/// The number of rows of `x`; 0 also where rows have no columns.
fn check(x: &[f32], columns: usize, products: &[MatmulTask<'_>]) -> Result<usize> {
    let n = x.len().checked_div(columns).unwrap_or(0);
    if n * columns != x.len() {
        return Err(Error::Input { found: x.len(), columns });
    }
    for product in products {
        let weight = product.weight();
        if weight.columns() != columns {
            return Err(Error::Columns { expected: columns, found: weight.columns() });
        }
        let whole = columns == 0 && product.len().checked_rem(weight.rows()).unwrap_or(product.len()) == 0;
        if !whole && n.checked_mul(weight.rows()) != Some(product.len()) {
            return Err(Error::Output { n, rows: weight.rows(), found: product.len() });
        }
    }
    Ok(n)
}

fn multiply(
    x: &[f32],
    n: usize,
    columns: usize,
    arithmetic: Arithmetic,
    products: &[MatmulTask<'_>],
    kernel_of: &(impl Fn(&MatmulTask<'_>) -> Kernel + Sync),
) {
    let Some(first) = products.first().map(kernel_of) else { return };
    let order = if first.is_few(n) { Order::Rows } else { Order::Tiles(first.tile) };
    let words = n * arithmetic.row_words(columns);
    scratch::with(Use::Input, words.div_ceil(Lanes::COUNT), |lanes| {
        let packed = &mut Lanes::words_mut(lanes)[..words];
        activations::pack(arithmetic, order, x, columns, packed);
        let packed = &*packed;
        let groups_of = |product: &MatmulTask<'_>| product.weight().rows().div_ceil(GROUP_ROWS);
        let groups: usize = products.iter().map(groups_of).sum();
        // A task's groups lie one after the other, and so do a thread's tasks: each streams its own part of the weights.
        let run = |first: usize, end: usize| {
            let mut before = 0;
            for product in products {
                let count = groups_of(product);
                let range = first.clamp(before, before + count) - before..end.clamp(before, before + count) - before;
                if order == Order::Rows {
                    few_rows(n, packed, &kernel_of(product), product, range);
                } else {
                    many_rows(n, packed, &kernel_of(product), product, range);
                }
                before += count;
            }
        };
        let rows: usize = products.iter().map(|product| product.weight().rows()).sum();
        let threads = current_num_threads();
        if threads == 1 || n.saturating_mul(rows).saturating_mul(columns) < PARALLEL {
            run(0, groups);
        } else {
            let batch = if order == Order::Rows { 1 } else { first.batch };
            let a_task = groups.div_ceil(threads * TASKS).max(batch.min(groups.div_ceil(threads)));
            let tasks = groups.div_ceil(a_task);
            (0..tasks).into_par_iter().for_each(|task| run(task * a_task, ((task + 1) * a_task).min(groups)));
        }
    });
}

/// Computes the results of some groups of rows of the weights with a few rows of activations.
fn few_rows(n: usize, packed: &[u32], kernel: &Kernel, product: &MatmulTask<'_>, groups: Range<usize>) {
    let rows = product.weight().rows();
    with_sixteen(product.weight(), |weight| {
        let mut sums = [Lanes::ZERO; FEW];
        for row in (groups.start * GROUP_ROWS..rows.min(groups.end * GROUP_ROWS)).step_by(Lanes::COUNT) {
            let (source, before) = Source::new(weight, row);
            kernel.few(&source, packed, &mut sums[..n]);
            for (index, sums) in sums[..n].iter().enumerate() {
                #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
                // SAFETY: a group of weight rows belongs to one thread.
                unsafe {
                    product.store(index, row, &sums.0[before..]);
                }
            }
        }
    });
}

/// Computes the results of some groups of rows of the weights with any number of rows of activations.
fn many_rows(n: usize, packed: &[u32], kernel: &Kernel, product: &MatmulTask<'_>, groups: Range<usize>) {
    let arithmetic = kernel.arithmetic;
    let columns = product.weight().columns();
    let (row_words, words) = (arithmetic.row_words(columns), arithmetic.step_words());
    // Lanes of a step of a group.
    let step_lanes = GROUP * arithmetic.step_vectors();
    let batch = kernel.batch.min(groups.len()).max(1);
    let span_lanes = kernel.spans(columns).map(|span| span.len() * step_lanes).max().unwrap_or(0);
    let multiply = |weight: Matrix<'_>, lanes: &mut [Lanes]| {
        let (panels, sums) = lanes.split_at_mut(batch * span_lanes);
        for first in groups.clone().step_by(batch) {
            let count = batch.min(groups.end - first);
            let first_row = |group: usize, index: usize| (first + group) * GROUP_ROWS + index * Lanes::COUNT;
            // Of each tile, of each group, of each row.
            let sums = &mut sums[..count * GROUP * n];
            sums.fill(Lanes::ZERO);
            for span in kernel.spans(columns) {
                for (group, panels) in panels.chunks_exact_mut(span.len() * step_lanes).take(count).enumerate() {
                    for index in 0..GROUP {
                        let (source, _) = Source::new(weight, first_row(group, index));
                        kernel.pack(&source.steps(&span, arithmetic), index, panels);
                    }
                }
                let (here, _) = Source::new(weight, first_row(0, 0));
                let next = if span.end < arithmetic.steps(columns) {
                    here.steps(&(span.end..span.end + 1), arithmetic).rows(0)
                } else {
                    here.rows(batch * GROUP_ROWS)
                };
                let parts = || {
                    let parts = arithmetic.parts(columns).skip_while(|part| part.start < span.start);
                    parts.take_while(|part| part.end <= span.end)
                };
                let (a_part, calls) = (n.div_ceil(kernel.tile), parts().count() * n.div_ceil(kernel.tile));
                for (number, part) in parts().enumerate() {
                    let at = (part.start - span.start) * step_lanes * count;
                    let panels = &panels[at..at + part.len() * step_lanes * count];
                    let tiles = sums.chunks_mut(kernel.tile * GROUP * count);
                    for (tile, sums) in tiles.enumerate() {
                        let rows = sums.len() / (GROUP * count);
                        let from = tile * kernel.tile * row_words + part.start * rows * words;
                        let x = &packed[from..from + part.len() * rows * words];
                        let next = if kernel.batch == 1 {
                            next.share(GROUP_ROWS, number * a_part + tile, calls)
                        } else {
                            next.from(tile * kernel.tile / Lanes::COUNT)
                        };
                        let next = Rows { tile: x.as_ptr().wrapping_add(kernel.tile * row_words), ..next };
                        kernel.multiply(panels, x, rows, sums, next);
                    }
                }
            }
            for (tile, sums) in sums.chunks(kernel.tile * GROUP * count).enumerate() {
                let rows = sums.len() / (GROUP * count);
                for row in 0..rows {
                    for group in 0..count {
                        for (index, sums) in sums[(group * rows + row) * GROUP..][..GROUP].iter().enumerate() {
                            let first = first_row(group, index);
                            // The second panel may begin beyond the last row.
                            let before = Source::before(weight, first);
                            #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
                            // SAFETY: a group of weight rows belongs to one thread.
                            unsafe {
                                let sums = sums.0.get(before..).unwrap_or_default();
                                product.store(tile * kernel.tile + row, first, sums);
                            }
                        }
                    }
                }
            }
        }
    };
    with_sixteen(product.weight(), |weight| {
        scratch::with(Use::Task, batch * (span_lanes + GROUP * n), |lanes| multiply(weight, lanes));
    });
}
