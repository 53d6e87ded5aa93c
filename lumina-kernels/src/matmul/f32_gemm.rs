//! GEMM of whole `f32` matrices on all threads, either operand transposed or not: the linear layers of training.
//!
//! `C = A · B` with `A` `[m, k]` and `B` `[k, n]`. As in BLIS, both operands are packed for the inner loop: `B` into
//! panels of `WIDTH` columns that all threads share, `A` into tiles of `ROWS` rows by the thread that needs them. A
//! sum runs over `k` from first to last, `DEPTH` terms at a time, whatever the number of rows or threads, so a row of
//! the result does not depend on its batch.

use std::mem::MaybeUninit;

use crate::parallel::*;

use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// Rows of a tile of `A`.
pub(crate) const ROWS: usize = 8;
/// Columns of a panel of `B`.
pub(crate) const WIDTH: usize = 2 * LANES;
/// Terms of the sums that are packed at a time: a panel of them and a band fit the second-level cache together.
const DEPTH: usize = 512;
/// Maximum rows of a band, which a thread packs at a time.
const MAX_BAND: usize = 128;
/// From this many multiply-adds on, threads share the work.
const MIN_PARALLEL: usize = 1 << 17;

/// A matrix `[rows, columns]`, row by row, as an operand.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// The matrix itself.
    Normal(&'a [f32]),
    /// The transpose of the matrix in memory.
    Transposed(&'a [f32]),
}

/// Sizes of `A` `[m, k]` · `B` `[k, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmShape {
    /// Rows of `A` and of the result.
    pub m: usize,
    /// Columns of `B` and of the result.
    pub n: usize,
    /// Columns of `A` and rows of `B`.
    pub k: usize,
}

/// A row of a panel of `B`, aligned to cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct PanelRow<T>(pub(crate) [T; WIDTH]);

/// A row and a column of a matrix.
#[derive(Clone, Copy)]
struct Position {
    row: usize,
    column: usize,
}

/// `A · B`, `[m, n]`.
///
/// # Panics
/// If an operand has fewer values than `shape` says.
pub fn gemm(a: Operand<'_>, b: Operand<'_>, shape: GemmShape) -> Vec<f32> {
    let GemmShape { m, n, k } = shape;
    if m == 0 || n == 0 || k == 0 {
        return vec![0.0; m * n];
    }
    let is_serial = m.saturating_mul(n).saturating_mul(k) < MIN_PARALLEL;
    let threads = if is_serial { 1 } else { current_num_threads() };
    let band = if is_serial { m } else { m.div_ceil(threads * 4).next_multiple_of(ROWS).min(MAX_BAND) };

    let mut y: Vec<f32> = Vec::with_capacity(m * n);
    let room = &mut y.spare_capacity_mut()[..m * n];
    let mut panels = vec![PanelRow([0.0; WIDTH]); n.div_ceil(WIDTH) * DEPTH.min(k)];
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        let panels = &mut panels[..n.div_ceil(WIDTH) * depth];
        let pack = |(panel, packed): (usize, &mut [PanelRow<f32>])| {
            pack_panel(b, shape, Position { row: first, column: panel * WIDTH }, packed);
        };
        let multiply = |panels: &[PanelRow<f32>],
                        index: usize,
                        y: &mut [MaybeUninit<f32>],
                        tiles: &mut Vec<[f32; ROWS]>| {
            let rows = y.len() / n;
            let start = Position { row: index * band, column: first };
            pack_tiles(a, shape, start, rows, depth, tiles);
            for (panel, panel_rows) in panels.chunks_exact(depth).enumerate() {
                for (tile, tiles) in tiles.chunks_exact(depth).enumerate() {
                    let mut sums = [[0.0; WIDTH]; ROWS];
                    multiply_tile(tiles, panel_rows, &mut sums);
                    let columns = panel * WIDTH..n.min((panel + 1) * WIDTH);
                    let rows = y[tile * ROWS * n..].chunks_mut(n);
                    for (y, sums) in rows.zip(&sums) {
                        let y = &mut y[columns.clone()];
                        if first == 0 {
                            store_row(y, sums);
                        } else {
                            #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
                            // SAFETY: the pass with `first == 0` has stored all rows of all tiles and panels.
                            unsafe {
                                add_row(y, sums);
                            }
                        }
                    }
                }
            }
        };
        if is_serial {
            panels.chunks_exact_mut(depth).enumerate().for_each(pack);
            room.chunks_mut(band * n).enumerate().for_each(|(index, y)| multiply(panels, index, y, &mut Vec::new()));
        } else {
            panels.par_chunks_exact_mut(depth).enumerate().for_each(pack);
            let bands = room.par_chunks_mut(band * n).enumerate();
            bands.for_each_init(Vec::new, |tiles, (index, y)| multiply(panels, index, y, tiles));
        }
    }
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: the capacity is at least `m * n`. Bands, their tiles and the panels cover `[m, n]`, and the pass with
    // `first == 0` has stored each tile of each panel.
    unsafe {
        y.set_len(m * n);
    }
    y
}

/// Stores a row of a tile, of the first terms of the sums.
fn store_row(y: &mut [MaybeUninit<f32>], sums: &[f32]) {
    y.iter_mut().zip(sums).for_each(|(y, sum)| _ = y.write(*sum));
}

/// Adds a row of a tile, of later terms of the sums.
///
/// # Safety
///
/// All of `y` is initialised.
#[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
unsafe fn add_row(y: &mut [MaybeUninit<f32>], sums: &[f32]) {
    for (y, sum) in y.iter_mut().zip(sums) {
        // SAFETY: the caller has initialised it.
        let before = unsafe { y.assume_init() };
        y.write(before + sum);
    }
}

/// Packs a panel of `B`: rows and columns from `start` on, as many rows as `packed` has. Missing columns are zero.
fn pack_panel(b: Operand<'_>, GemmShape { n, k, .. }: GemmShape, start: Position, packed: &mut [PanelRow<f32>]) {
    let width = WIDTH.min(n - start.column);
    match b {
        Operand::Normal(values) => {
            for (PanelRow(packed), row) in packed.iter_mut().zip(values[start.row * n..].chunks(n)) {
                match row[start.column..].first_chunk() {
                    Some(row) => *packed = *row,
                    None => {
                        packed[..width].copy_from_slice(&row[start.column..]);
                        packed[width..].fill(0.0);
                    }
                }
            }
        }
        Operand::Transposed(values) => {
            let depth = packed.len();
            packed.iter_mut().for_each(|PanelRow(packed)| packed[width..].fill(0.0));
            // Some columns at a time, so that what is written stays in the cache.
            for first in (0..width).step_by(ROWS) {
                for column in first..width.min(first + ROWS) {
                    let row = &values[(start.column + column) * k + start.row..][..depth];
                    packed.iter_mut().zip(row).for_each(|(PanelRow(packed), value)| packed[column] = *value);
                }
            }
        }
    }
}

/// Packs `rows` rows and `depth` columns of `A` from `start` on, in tiles. Missing rows are zero.
fn pack_tiles(
    a: Operand<'_>,
    GemmShape { m, k, .. }: GemmShape,
    start: Position,
    rows: usize,
    depth: usize,
    packed: &mut Vec<[f32; ROWS]>,
) {
    packed.resize(rows.div_ceil(ROWS) * depth, [0.0; ROWS]);
    for (tile, packed) in packed.chunks_exact_mut(depth).enumerate() {
        let first = start.row + tile * ROWS;
        let rows = ROWS.min(start.row + rows - first);
        if rows < ROWS {
            packed.fill([0.0; ROWS]);
        }
        match a {
            Operand::Normal(values) if rows == ROWS => {
                let row = |row: usize| &values[(first + row) * k + start.column..][..depth];
                let rows: [&[f32]; ROWS] = std::array::from_fn(row);
                for (column, packed) in packed.iter_mut().enumerate() {
                    for (packed, row) in packed.iter_mut().zip(rows) {
                        *packed = row[column];
                    }
                }
            }
            Operand::Normal(values) => {
                for row in 0..rows {
                    let values = &values[(first + row) * k + start.column..][..depth];
                    packed.iter_mut().zip(values).for_each(|(packed, value)| packed[row] = *value);
                }
            }
            Operand::Transposed(values) => {
                for (packed, values) in packed.iter_mut().zip(values[start.column * m..].chunks(m)) {
                    match values[first..].first_chunk() {
                        Some(values) => *packed = *values,
                        None => packed[..rows].copy_from_slice(&values[first..][..rows]),
                    }
                }
            }
        }
    }
}

simd_dispatch!(pub(crate) fn multiply_tile(
    a: &[[f32; ROWS]], b: &[PanelRow<f32>], sums: &mut [[f32; WIDTH]; ROWS]
) = multiply_tile_body);

#[inline(always)]
fn multiply_tile_body<S: Simd>(simd: S, a: &[[f32; ROWS]], b: &[PanelRow<f32>], sums: &mut [[f32; WIDTH]; ROWS]) {
    if S::WIDE_TILES {
        multiply_part::<S, ROWS, 2>(simd, a, b, Position { row: 0, column: 0 }, sums);
    } else {
        for row in (0..ROWS).step_by(4) {
            multiply_part::<S, 4, 1>(simd, a, b, Position { row, column: 0 }, sums);
            multiply_part::<S, 4, 1>(simd, a, b, Position { row, column: LANES }, sums);
        }
    }
}

/// `R` rows and `N` vectors of columns of a tile, whose sums stay in registers.
#[inline(always)]
fn multiply_part<S: Simd, const R: usize, const N: usize>(
    simd: S,
    a: &[[f32; ROWS]],
    b: &[PanelRow<f32>],
    start: Position,
    result: &mut [[f32; WIDTH]; ROWS],
) {
    let mut sums = [[simd.splat(0.0); N]; R];
    for (a, PanelRow(b)) in a.iter().zip(b) {
        let mut values = [simd.splat(0.0); N];
        for (vector, value) in values.iter_mut().enumerate() {
            *value = simd.load(&b[start.column + vector * LANES..][..LANES]);
        }
        for r in 0..R {
            let factor = simd.splat(a[start.row + r]);
            for vector in 0..N {
                sums[r][vector] = sums[r][vector].multiply_add(factor, values[vector]);
            }
        }
    }
    for (result, sums) in result[start.row..].iter_mut().zip(&sums) {
        for (result, sum) in result[start.column..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *result = sum.to_array();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
        let rows = values.len() / columns;
        (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
    }

    #[test]
    fn matches_the_definition_for_all_layouts() {
        for [m, n, k] in [[1, 1, 1], [3, 17, 5], [8, 32, 512], [9, 33, 513], [300, 40, 70], [37, 160, 1100]] {
            let shape = GemmShape { m, n, k };
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a_transposed, b_transposed) = (transpose(&a, k), transpose(&b, n));
            let exact: Vec<f64> = (0..m * n)
                .map(|at| (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * n + at % n])).sum())
                .collect();
            let first = gemm(Operand::Normal(&a), Operand::Normal(&b), shape);
            for (got, exact) in first.iter().zip(&exact) {
                assert!((f64::from(*got) - exact).abs() < 1e-6 * (k as f64).sqrt().max(8.0), "{got} {exact}");
            }
            for a in [Operand::Normal(&a), Operand::Transposed(&a_transposed)] {
                for b in [Operand::Normal(&b), Operand::Transposed(&b_transposed)] {
                    assert_eq!(gemm(a, b, shape), first, "{m} {n} {k}");
                }
            }
            let last = gemm(Operand::Normal(&a[(m - 1) * k..]), Operand::Normal(&b), GemmShape { m: 1, ..shape });
            assert_eq!(last, first[(m - 1) * n..], "a row alone");
        }
        assert_eq!(gemm(Operand::Normal(&[]), Operand::Normal(&[]), GemmShape { m: 2, n: 3, k: 0 }), [0.0; 6]);
    }
}
