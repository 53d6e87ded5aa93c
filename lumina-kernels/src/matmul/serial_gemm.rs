//! Small products of matrices on one thread, in registers: the inside of attention.

use crate::simd::vector::{LANES, Vector};

/// Rows of a tile, whose sums stay in registers together.
const ROWS: usize = 4;

/// Rows of the right side that are multiplied before the next ones.
const RUN: usize = 128;

/// From a row to the next of a right side of so many numbers in a row: whole vectors, and an odd number of them, as rows that are a multiple of large
/// powers of two apart share few places in a cache.
pub fn step_of(n: usize) -> usize {
    (n.div_ceil(LANES) | 1) * LANES
}

/// The left side of a product: element (i, k) is at `i · row + k · column`. One of the steps is 1.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// `to = left · right`, or with `add` what is in `to` and that, for sizes `[m, n, k]`.
///
/// `right` `[k, n]` and `to` `[m, n]` come with the step from a row to the next; their rows go on to whole vectors, and what is
/// there in `to` is overwritten.
#[inline(always)]
pub fn product<V: Vector>(
    left: Left<'_>,
    right: (&[f32], usize),
    (to, step): (&mut [f32], usize),
    [m, n, k]: [usize; 3],
    add: bool,
) {
    // Two vectors of some rows of `right` stay in the first-level cache for all rows of `left`. Sums go on where they were left.
    for first in (0..k.max(1)).step_by(RUN) {
        let inner = (first, k.min(first + RUN));
        let add = add || first > 0;
        for column in (0..n).step_by(2 * LANES) {
            let two = n - column > LANES;
            let mut row = 0;
            while row < m {
                let rows = if m - row >= ROWS { ROWS } else { 1 };
                let at = (row, column);
                match (rows == ROWS, two) {
                    (true, true) => tile::<V, ROWS, 2>(left, right, (to, step), at, inner, add),
                    (true, false) => tile::<V, ROWS, 1>(left, right, (to, step), at, inner, add),
                    (false, true) => tile::<V, 1, 2>(left, right, (to, step), at, inner, add),
                    (false, false) => tile::<V, 1, 1>(left, right, (to, step), at, inner, add),
                }
                row += rows;
            }
        }
    }
}

#[inline(always)]
fn tile<V: Vector, const R: usize, const N: usize>(
    left: Left<'_>,
    (right, right_step): (&[f32], usize),
    (to, step): (&mut [f32], usize),
    (row, column): (usize, usize),
    (first, end): (usize, usize),
    add: bool,
) {
    let mut sums = [[V::splat(0.0); N]; R];
    if add {
        for (r, sums) in sums.iter_mut().enumerate() {
            let from = &to[(row + r) * step + column..][..N * LANES];
            for (vector, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(&from[vector * LANES..]);
            }
        }
    }
    let right = right.get(column..).unwrap_or_default();
    let mut factors = [V::splat(0.0); R];
    if left.column == 1 {
        let mut rows = [&left.values[..0]; R];
        for (r, slice) in rows.iter_mut().enumerate() {
            *slice = &left.values[(row + r) * left.row..][..end];
        }
        for inner in first..end {
            for r in 0..R {
                factors[r] = V::splat(rows[r][inner]);
            }
            add_products(&mut sums, &factors, &right[inner * right_step..]);
        }
    } else {
        for inner in first..end {
            let values = &left.values[inner * left.column + row * left.row..][..R];
            for r in 0..R {
                factors[r] = V::splat(values[r]);
            }
            add_products(&mut sums, &factors, &right[inner * right_step..]);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut to[(row + r) * step + column..][..N * LANES];
        for (to, sum) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *to = sum.array();
        }
    }
}

/// Adds to row r of the sums `factors[r]` times the first vectors of `from`. A function, as the compiler may leave a closure out
/// of line, where the instructions of its caller are not at hand.
#[inline(always)]
fn add_products<V: Vector, const R: usize, const N: usize>(sums: &mut [[V; N]; R], factors: &[V; R], from: &[f32]) {
    let from = &from[..N * LANES];
    let mut values = [V::splat(0.0); N];
    for (vector, value) in values.iter_mut().enumerate() {
        *value = V::load(&from[vector * LANES..]);
    }
    for r in 0..R {
        for vector in 0..N {
            sums[r][vector] = sums[r][vector].add_product(factors[r], values[vector]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, numbers};

    #[test]
    fn is_the_product_for_both_layouts() {
        for [m, n, k] in [[1usize, 1, 1], [3, 17, 5], [4, 16, 1], [9, 33, 7], [8, 48, 40]] {
            let step = n.next_multiple_of(LANES);
            let (left, mut right, before) = (numbers(m * k, 1), numbers(k * step, 2), numbers(m * step, 3));
            right.chunks_exact_mut(step).for_each(|row| row[n..].fill(0.0));
            let mut turned = vec![0.0; m * k];
            for (at, &value) in left.iter().enumerate() {
                turned[at % k * m + at / k] = value;
            }
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let places = (0..m).flat_map(|row| (0..n).map(move |column| (row, column)));
                let sum = |(row, column)| {
                    (0..k).map(|at| inputs[0][row * k + at] * inputs[1][at * step + column]).sum::<f64>()
                };
                places.map(|(row, column)| inputs[2][row * step + column] + sum((row, column))).collect()
            };
            for left_side in [Left { values: &left, row: k, column: 1 }, Left { values: &turned, row: 1, column: m }] {
                let (mut added, mut alone) = (before.clone(), before.clone());
                product::<[f32; LANES]>(left_side, (&right, step), (&mut added, step), [m, n, k], true);
                product::<[f32; LANES]>(left_side, (&right, step), (&mut alone, step), [m, n, k], false);
                let own =
                    |values: &[f32]| values.chunks_exact(step).flat_map(|row| row[..n].to_vec()).collect::<Vec<_>>();
                assert_close(&own(&added), &[&left, &right, &before], &plain);
                assert_close(&own(&alone), &[&left, &right, &vec![0.0; m * step]], &plain);
            }
        }
    }
}
