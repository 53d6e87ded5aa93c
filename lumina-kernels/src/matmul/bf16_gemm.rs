//! GEMM of whole matrices whose values are rounded to `bf16`, either operand transposed or not: the linear layers of
//! training in mixed precision.
//!
//! It is [`Matmul`] with both operands put into the order that it reads: `A` row by row, and the transpose of `B` row
//! by row as the weights.

use std::mem::MaybeUninit;

use super::activations::bf16_bits;
use super::f32_gemm::{GemmShape, Operand};
use super::{ActivationPrecision, Matmul, MatmulTask};
use crate::parallel::*;
use crate::simd::{Simd, simd_dispatch};
use crate::{Format, Isa, Matrix};

/// Columns that a thread transposes at a time.
const COLUMNS: usize = 32;
/// Rows that are transposed at a time: a vector of them. Rows that are a power of two apart share few lines of a cache.
const ROWS: usize = 16;

/// `A · B`, `[m, n]`, of the values rounded to `bf16`, summed in `f32`: as
/// [`f32_gemm::gemm`](super::f32_gemm::gemm), with a relative error of at most 2⁻⁷ for each product. `None` where the
/// processor does not multiply `bf16`.
///
/// A row's result depends on that row and `B` alone, not on the number of rows or threads.
///
/// # Panics
/// If an operand has fewer values than `shape` says.
pub fn gemm(a: Operand<'_>, b: Operand<'_>, shape: GemmShape) -> Option<Vec<f32>> {
    let GemmShape { m, n, k } = shape;
    if Isa::best() < Isa::Avx512Bf16 {
        return None;
    }
    if m == 0 || n == 0 || k == 0 {
        return Some(vec![0.0; m * n]);
    }
    let transposed;
    let a = match a {
        Operand::Normal(values) => &values[..m * k],
        Operand::Transposed(values) => {
            transposed = transpose::<f32>(&values[..m * k], m);
            &transposed
        }
    };
    let weights: Vec<[u8; 2]> = match b {
        Operand::Transposed(values) => values[..n * k].par_iter().map(|value| Element::of(*value)).collect(),
        Operand::Normal(values) => transpose(&values[..n * k], n),
    };
    let weights = Matrix::new(Format::BF16, n, k, weights.as_flattened()).expect("it has `n` rows of `k`");
    let mut y: Vec<f32> = Vec::with_capacity(m * n);
    let task = MatmulTask::in_room(weights, &mut y.spare_capacity_mut()[..m * n]);
    Matmul::new(ActivationPrecision::Reduced).run_shared(a, k, &mut [task]).expect("`a` has rows of `k`, `y` of `n`");
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: the capacity is at least `m * n`, and a matmul writes all of its result where there are columns.
    unsafe {
        y.set_len(m * n);
    }
    Some(y)
}

/// What a transpose consists of.
trait Element: Copy + Send {
    /// The nearest one.
    fn of(value: f32) -> Self;

    /// Writes columns to rows of `stride` values, from value `first` of each on.
    fn transpose(rows: [&[f32]; ROWS], first: usize, stride: usize, to: &mut [MaybeUninit<Self>]);
}

impl Element for f32 {
    fn of(value: f32) -> Self {
        value
    }

    fn transpose(rows: [&[f32]; ROWS], first: usize, stride: usize, to: &mut [MaybeUninit<Self>]) {
        simd_dispatch!(fn floats(
            rows: [&[f32]; ROWS], first: usize, stride: usize, to: &mut [MaybeUninit<f32>]
        ) = transpose_rows);
        floats(rows, first, stride, to);
    }
}

/// The bytes of a `bf16`.
impl Element for [u8; 2] {
    #[inline(always)]
    fn of(value: f32) -> Self {
        (bf16_bits(value) as u16).to_le_bytes()
    }

    fn transpose(rows: [&[f32]; ROWS], first: usize, stride: usize, to: &mut [MaybeUninit<Self>]) {
        simd_dispatch!(fn rounded(
            rows: [&[f32]; ROWS], first: usize, stride: usize, to: &mut [MaybeUninit<[u8; 2]>]
        ) = transpose_rows);
        rounded(rows, first, stride, to);
    }
}

/// The body of [`Element::transpose`].
#[inline(always)]
fn transpose_rows<S: Simd, T: Element>(
    _: S,
    rows: [&[f32]; ROWS],
    first: usize,
    stride: usize,
    to: &mut [MaybeUninit<T>],
) {
    let rows = rows.map(|row| &row[..to.len() / stride]);
    for (column, to) in to.chunks_exact_mut(stride).enumerate() {
        let mut values = [0.0; ROWS];
        for (value, row) in values.iter_mut().zip(rows) {
            *value = row[column];
        }
        for (to, value) in to[first..][..ROWS].iter_mut().zip(values) {
            to.write(T::of(value));
        }
    }
}

/// The transpose of a matrix with this number of columns.
fn transpose<T: Element>(values: &[f32], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    let mut transposed: Vec<T> = Vec::with_capacity(values.len());
    let room = &mut transposed.spare_capacity_mut()[..values.len()];
    room.par_chunks_mut(COLUMNS * rows).enumerate().for_each(|(block, room)| {
        let width = room.len() / rows;
        let row = |row: usize| &values[row * columns + block * COLUMNS..][..width];
        let whole = rows / ROWS * ROWS;
        for first in (0..whole).step_by(ROWS) {
            T::transpose(std::array::from_fn(|index| row(first + index)), first, rows, room);
        }
        for index in whole..rows {
            for (room, value) in room.chunks_exact_mut(rows).zip(row(index)) {
                room[index].write(T::of(*value));
            }
        }
    });
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: the capacity is at least that, and all rows of all columns have been written.
    unsafe {
        transposed.set_len(values.len());
    }
    transposed
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::matmul::f32_gemm;
    use crate::numerical_gradients::numbers;

    #[test]
    fn is_the_product_of_rounded_values_for_all_layouts() {
        for [m, n, k] in [[1, 1, 1], [3, 17, 5], [40, 33, 512], [37, 160, 1100], [200, 64, 96]] {
            let shape = GemmShape { m, n, k };
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a_transposed, b_transposed) = (transpose::<f32>(&a, k), transpose::<f32>(&b, n));
            assert_eq!(transpose::<f32>(&a_transposed, m), a);
            let [rounded_a, rounded_b] = [&a, &b]
                .map(|values| -> Vec<f32> { values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect() });
            let expected = f32_gemm::gemm(Operand::Normal(&rounded_a), Operand::Normal(&rounded_b), shape);
            let Some(first) = gemm(Operand::Normal(&a), Operand::Normal(&b), shape) else {
                assert!(Isa::best() < Isa::Avx512Bf16, "the processor multiplies `bf16`");
                return;
            };
            for (got, expected) in first.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-6 * (k as f32).sqrt().max(8.0), "{got} {expected}");
            }
            for a in [Operand::Normal(&a), Operand::Transposed(&a_transposed)] {
                for b in [Operand::Normal(&b), Operand::Transposed(&b_transposed)] {
                    assert_eq!(gemm(a, b, shape).as_ref(), Some(&first), "{m} {n} {k}");
                }
            }
        }
        if let Some(nothing) = gemm(Operand::Normal(&[]), Operand::Normal(&[]), GemmShape { m: 2, n: 3, k: 0 }) {
            assert_eq!(nothing, [0.0; 6]);
        }
    }
}
