//! Products of whole matrices on all threads, each side as it lies or turned over: the linear layers of training.
//!
//! Both sides are laid out for the inner loop: of the right, panels of [`WIDTH`] columns for all threads; of the left, tiles of
//! [`ROWS`] rows by the thread that needs them. A sum runs over k from the first to the last, [`DEPTH`] at a time, whatever the
//! number of rows or threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::vector::{LANES, Vector, best_instructions};

/// Rows of a tile.
const ROWS: usize = 8;
/// Columns of a panel.
const WIDTH: usize = 2 * LANES;
/// Terms of the sums that are laid out at a time: a panel of them fits the second cache beside a band.
const DEPTH: usize = 512;
/// Most rows of a band, which a thread lays out at a time.
const BAND: usize = 128;
/// Multiply-adds from which on threads share the work.
const PARALLEL: usize = 1 << 17;

/// A matrix `[rows, columns]` in a slice, row after row.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// As it lies.
    Plain(&'a [f32]),
    /// With rows for columns.
    Turned(&'a [f32]),
}

/// Part of a row of a panel, on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; WIDTH]);

/// `a · b` for `a` `[m, k]` and `b` `[k, n]`, into `[m, n]`.
///
/// # Panics
/// If a side has fewer numbers than that.
pub fn product(a: Side<'_>, b: Side<'_>, [m, n, k]: [usize; 3]) -> Vec<f32> {
    if m == 0 || n == 0 || k == 0 {
        return vec![0.0; m * n];
    }
    let alone = m.saturating_mul(n).saturating_mul(k) < PARALLEL;
    let threads = if alone { 1 } else { rayon::current_num_threads() };
    let band = if alone { m } else { m.div_ceil(threads * 4).next_multiple_of(ROWS).min(BAND) };

    let mut y: Vec<f32> = Vec::with_capacity(m * n);
    let room = &mut y.spare_capacity_mut()[..m * n];
    let mut panels = vec![Line([0.0; WIDTH]); n.div_ceil(WIDTH) * DEPTH.min(k)];
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        let panels = &mut panels[..n.div_ceil(WIDTH) * depth];
        let lay = |(panel, to): (usize, &mut [Line])| lay_panel(b, [n, k], (first, panel * WIDTH), to);
        let multiply = |panels: &[Line], band_of: usize, to: &mut [MaybeUninit<f32>], tiles: &mut Vec<[f32; ROWS]>| {
            let rows = to.len() / n;
            lay_tiles(a, [m, k], (band_of * band, first), (rows, depth), tiles);
            for (panel, lines) in panels.chunks_exact(depth).enumerate() {
                for (tile, tiles) in tiles.chunks_exact(depth).enumerate() {
                    let mut sums = [[0.0; WIDTH]; ROWS];
                    sum_tile(tiles, lines, &mut sums);
                    let columns = panel * WIDTH..n.min((panel + 1) * WIDTH);
                    let rows = to[tile * ROWS * n..].chunks_mut(n);
                    for (to, sums) in rows.zip(&sums) {
                        put(&mut to[columns.clone()], sums, first == 0);
                    }
                }
            }
        };
        if alone {
            panels.chunks_exact_mut(depth).enumerate().for_each(lay);
            room.chunks_mut(band * n).enumerate().for_each(|(of, to)| multiply(panels, of, to, &mut Vec::new()));
        } else {
            panels.par_chunks_exact_mut(depth).enumerate().for_each(lay);
            let bands = room.par_chunks_mut(band * n).enumerate();
            bands.for_each_init(Vec::new, |tiles, (of, to)| multiply(panels, of, to, tiles));
        }
    }
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: there is room for so many. Bands, their tiles and panels cover `[m, n]`, and each tile of each panel was written
    // when `first` was 0.
    unsafe {
        y.set_len(m * n);
    }
    y
}

/// Writes a row of a tile, or adds it to what the terms before gave.
fn put(to: &mut [MaybeUninit<f32>], sums: &[f32], is_first: bool) {
    if is_first {
        to.iter_mut().zip(sums).for_each(|(to, sum)| _ = to.write(*sum));
    } else {
        for (to, sum) in to.iter_mut().zip(sums) {
            #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
            // SAFETY: written when the terms from the first on were summed.
            let before = unsafe { to.assume_init() };
            to.write(before + sum);
        }
    }
}

/// Columns from `at.1` on and rows from `at.0` on, as many as `to` has lines, of a right side `[k, n]`.
fn lay_panel(b: Side<'_>, [n, k]: [usize; 2], at: (usize, usize), to: &mut [Line]) {
    let width = WIDTH.min(n - at.1);
    match b {
        Side::Plain(values) => {
            for (Line(to), row) in to.iter_mut().zip(values[at.0 * n..].chunks(n)) {
                match row[at.1..].first_chunk() {
                    Some(row) => *to = *row,
                    None => {
                        to[..width].copy_from_slice(&row[at.1..]);
                        to[width..].fill(0.0);
                    }
                }
            }
        }
        Side::Turned(values) => {
            let depth = to.len();
            to.iter_mut().for_each(|Line(to)| to[width..].fill(0.0));
            // Some columns at a time, so that what is written lies together.
            for first in (0..width).step_by(ROWS) {
                for column in first..width.min(first + ROWS) {
                    let row = &values[(at.1 + column) * k + at.0..][..depth];
                    to.iter_mut().zip(row).for_each(|(Line(to), value)| to[column] = *value);
                }
            }
        }
    }
}

/// `size.0` rows from `at.0` on and `size.1` columns from `at.1` on of a left side `[m, k]`, in tiles.
fn lay_tiles(a: Side<'_>, [m, k]: [usize; 2], at: (usize, usize), size: (usize, usize), to: &mut Vec<[f32; ROWS]>) {
    let (rows, depth) = size;
    to.resize(rows.div_ceil(ROWS) * depth, [0.0; ROWS]);
    for (tile, to) in to.chunks_exact_mut(depth).enumerate() {
        let first = at.0 + tile * ROWS;
        let rows = ROWS.min(at.0 + rows - first);
        if rows < ROWS {
            to.fill([0.0; ROWS]);
        }
        match a {
            Side::Plain(values) if rows == ROWS => {
                let row = |row: usize| &values[(first + row) * k + at.1..][..depth];
                let rows: [&[f32]; ROWS] = std::array::from_fn(row);
                for (column, to) in to.iter_mut().enumerate() {
                    for (to, row) in to.iter_mut().zip(rows) {
                        *to = row[column];
                    }
                }
            }
            Side::Plain(values) => {
                for row in 0..rows {
                    let from = &values[(first + row) * k + at.1..][..depth];
                    to.iter_mut().zip(from).for_each(|(to, value)| to[row] = *value);
                }
            }
            Side::Turned(values) => {
                for (to, from) in to.iter_mut().zip(values[at.1 * m..].chunks(m)) {
                    match from[first..].first_chunk() {
                        Some(from) => *to = *from,
                        None => to[..rows].copy_from_slice(&from[first..][..rows]),
                    }
                }
            }
        }
    }
}

best_instructions!(sum_tile = sum_tile_body(a: &[[f32; ROWS]], b: &[Line], sums: &mut [[f32; WIDTH]; ROWS]));

#[inline(always)]
fn sum_tile_body<V: Vector>(a: &[[f32; ROWS]], b: &[Line], sums: &mut [[f32; WIDTH]; ROWS]) {
    if V::MANY {
        sum_part::<V, ROWS, 2>(a, b, (0, 0), sums);
    } else {
        for row in (0..ROWS).step_by(4) {
            sum_part::<V, 4, 1>(a, b, (row, 0), sums);
            sum_part::<V, 4, 1>(a, b, (row, LANES), sums);
        }
    }
}

/// `R` rows and `N` vectors of a tile, whose sums stay in registers together.
#[inline(always)]
fn sum_part<V: Vector, const R: usize, const N: usize>(
    a: &[[f32; ROWS]],
    b: &[Line],
    (row, column): (usize, usize),
    to: &mut [[f32; WIDTH]; ROWS],
) {
    let mut sums = [[V::splat(0.0); N]; R];
    for (a, Line(b)) in a.iter().zip(b) {
        let mut values = [V::splat(0.0); N];
        for (vector, value) in values.iter_mut().enumerate() {
            *value = V::load(&b[column + vector * LANES..][..LANES]);
        }
        for r in 0..R {
            let factor = V::splat(a[row + r]);
            for vector in 0..N {
                sums[r][vector] = sums[r][vector].add_product(factor, values[vector]);
            }
        }
    }
    for (to, sums) in to[row..].iter_mut().zip(&sums) {
        for (to, sum) in to[column..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *to = sum.array();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    fn turned(values: &[f32], columns: usize) -> Vec<f32> {
        let rows = values.len() / columns;
        (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
    }

    #[test]
    fn is_the_product_for_all_layouts() {
        for [m, n, k] in [[1, 1, 1], [3, 17, 5], [8, 32, 512], [9, 33, 513], [300, 40, 70], [37, 160, 1100]] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a_turned, b_turned) = (turned(&a, k), turned(&b, n));
            let exact: Vec<f64> = (0..m * n)
                .map(|at| (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * n + at % n])).sum())
                .collect();
            let first = product(Side::Plain(&a), Side::Plain(&b), [m, n, k]);
            for (got, exact) in first.iter().zip(&exact) {
                assert!((f64::from(*got) - exact).abs() < 1e-6 * (k as f64).sqrt().max(8.0), "{got} {exact}");
            }
            for a in [Side::Plain(&a), Side::Turned(&a_turned)] {
                for b in [Side::Plain(&b), Side::Turned(&b_turned)] {
                    assert_eq!(product(a, b, [m, n, k]), first, "{m} {n} {k}");
                }
            }
            let last = product(Side::Plain(&a[(m - 1) * k..]), Side::Plain(&b), [1, n, k]);
            assert_eq!(last, first[(m - 1) * n..], "a row alone");
        }
        assert_eq!(product(Side::Plain(&[]), Side::Plain(&[]), [2, 3, 0]), [0.0; 6]);
    }
}
