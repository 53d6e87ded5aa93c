//! Small `f32` GEMM on one thread, with sums in registers: the inner loop of attention.

use std::ops::Range;

use super::f32_gemm::GemmShape;
use crate::simd::{F32s, LANES, Simd};

/// Rows of a tile, whose sums stay in registers.
const ROWS: usize = 4;

/// Rows of the right operand that are multiplied before the next ones: two vectors of each stay in the first-level
/// cache.
const BLOCK: usize = 128;

/// Distance between rows of `n` values of a right operand or a result: whole vectors, and an odd number of them. Rows
/// whose distance is a multiple of a large power of two would compete for few lines of the cache.
pub(crate) fn padded_stride(n: usize) -> usize {
    (n.div_ceil(LANES) | 1) * LANES
}

/// The left operand: element (i, k) is at `i · row_stride + k · column_stride`. One of the strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

/// The right operand: rows that are padded to whole vectors.
#[derive(Clone, Copy)]
pub(crate) struct Padded<'a> {
    pub(crate) values: &'a [f32],
    /// Distance between rows, as [`padded_stride`] or another multiple of a vector.
    pub(crate) stride: usize,
}

/// The result: rows that are padded to whole vectors. The padding is overwritten.
pub(crate) struct PaddedMut<'a> {
    pub(crate) values: &'a mut [f32],
    /// As of [`Padded`].
    pub(crate) stride: usize,
}

/// What becomes of the values that the result has before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    Overwrite,
    Add,
}

/// Part of a GEMM: one tile of the result, and some terms of its sums.
struct Tile {
    row: usize,
    column: usize,
    terms: Range<usize>,
    update: Update,
}

/// `result = left · right`, or `result += left · right`, for `left` `[m, k]`, `right` `[k, n]` and `result` `[m, n]`.
#[inline(always)]
pub(crate) fn gemm<S: Simd>(
    simd: S,
    left: Strided<'_>,
    right: Padded<'_>,
    mut result: PaddedMut<'_>,
    GemmShape { m, n, k }: GemmShape,
    update: Update,
) {
    for first in (0..k.max(1)).step_by(BLOCK) {
        let update = if first > 0 { Update::Add } else { update };
        for column in (0..n).step_by(2 * LANES) {
            let has_two = n - column > LANES;
            let mut row = 0;
            while row < m {
                let rows = if m - row >= ROWS { ROWS } else { 1 };
                let tile = Tile { row, column, terms: first..k.min(first + BLOCK), update };
                match (rows == ROWS, has_two) {
                    (true, true) => multiply_tile::<S, ROWS, 2>(simd, left, right, &mut result, tile),
                    (true, false) => multiply_tile::<S, ROWS, 1>(simd, left, right, &mut result, tile),
                    (false, true) => multiply_tile::<S, 1, 2>(simd, left, right, &mut result, tile),
                    (false, false) => multiply_tile::<S, 1, 1>(simd, left, right, &mut result, tile),
                }
                row += rows;
            }
        }
    }
}

/// A tile of `R` rows and `N` vectors.
#[inline(always)]
fn multiply_tile<S: Simd, const R: usize, const N: usize>(
    simd: S,
    left: Strided<'_>,
    right: Padded<'_>,
    result: &mut PaddedMut<'_>,
    Tile { row, column, terms, update }: Tile,
) {
    let mut sums = [[simd.splat(0.0); N]; R];
    if update == Update::Add {
        for (r, sums) in sums.iter_mut().enumerate() {
            let before = &result.values[(row + r) * result.stride + column..][..N * LANES];
            for (vector, sum) in sums.iter_mut().enumerate() {
                *sum = simd.load(&before[vector * LANES..]);
            }
        }
    }
    let right_values = right.values.get(column..).unwrap_or_default();
    let mut factors = [simd.splat(0.0); R];
    if left.column_stride == 1 {
        let mut rows = [&left.values[..0]; R];
        for (r, slice) in rows.iter_mut().enumerate() {
            *slice = &left.values[(row + r) * left.row_stride..][..terms.end];
        }
        for term in terms {
            for r in 0..R {
                factors[r] = simd.splat(rows[r][term]);
            }
            multiply_add(simd, &mut sums, &factors, &right_values[term * right.stride..]);
        }
    } else {
        for term in terms {
            let values = &left.values[term * left.column_stride + row * left.row_stride..][..R];
            for r in 0..R {
                factors[r] = simd.splat(values[r]);
            }
            multiply_add(simd, &mut sums, &factors, &right_values[term * right.stride..]);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let values = &mut result.values[(row + r) * result.stride + column..][..N * LANES];
        for (values, sum) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *values = sum.to_array();
        }
    }
}

/// Adds `factors[r]` times the first vectors of `values` to row r of the sums. It is a function, as the compiler may
/// leave a closure out of line, without the instruction set of its caller.
#[inline(always)]
fn multiply_add<S: Simd, const R: usize, const N: usize>(
    simd: S,
    sums: &mut [[S::F32s; N]; R],
    factors: &[S::F32s; R],
    values: &[f32],
) {
    let values = &values[..N * LANES];
    let mut vectors = [simd.splat(0.0); N];
    for (index, vector) in vectors.iter_mut().enumerate() {
        *vector = simd.load(&values[index * LANES..]);
    }
    for r in 0..R {
        for vector in 0..N {
            sums[r][vector] = sums[r][vector].multiply_add(factors[r], vectors[vector]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, numbers};
    use crate::simd::portable::Portable;

    #[test]
    fn matches_the_definition_for_both_layouts() {
        for [m, n, k] in [[1usize, 1, 1], [3, 17, 5], [4, 16, 1], [9, 33, 7], [8, 48, 40]] {
            let shape = GemmShape { m, n, k };
            let stride = n.next_multiple_of(LANES);
            let (left, mut right, before) = (numbers(m * k, 1), numbers(k * stride, 2), numbers(m * stride, 3));
            right.chunks_exact_mut(stride).for_each(|row| row[n..].fill(0.0));
            let mut transposed = vec![0.0; m * k];
            for (at, &value) in left.iter().enumerate() {
                transposed[at % k * m + at / k] = value;
            }
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let elements = (0..m).flat_map(|row| (0..n).map(move |column| (row, column)));
                let sum = |(row, column)| {
                    (0..k).map(|at| inputs[0][row * k + at] * inputs[1][at * stride + column]).sum::<f64>()
                };
                elements.map(|(row, column)| inputs[2][row * stride + column] + sum((row, column))).collect()
            };
            for left_operand in [
                Strided { values: &left, row_stride: k, column_stride: 1 },
                Strided { values: &transposed, row_stride: 1, column_stride: m },
            ] {
                let result = |update| {
                    let mut values = before.clone();
                    let result = PaddedMut { values: &mut values, stride };
                    gemm(Portable, left_operand, Padded { values: &right, stride }, result, shape, update);
                    values.chunks_exact(stride).flat_map(|row| row[..n].to_vec()).collect::<Vec<_>>()
                };
                assert_close(&result(Update::Add), &[&left, &right, &before], &reference);
                assert_close(&result(Update::Overwrite), &[&left, &right, &vec![0.0; m * stride]], &reference);
            }
        }
    }
}
