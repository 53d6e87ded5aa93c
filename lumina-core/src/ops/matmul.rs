//! The product of activations with a mapped matrix.
//!
//! Each element of the result is one dot product, summed in an order that depends on the length alone: a row's
//! result is the same whatever else is in the batch. Weights are widened to `f32` once for all rows of `x`.

use rayon::prelude::*;

use super::mapped::MappedMatrix;

/// Partial sums of one dot product: one AVX-512 or two AVX2 registers.
const LANES: usize = 16;
/// Rows of the matrix, and of `x`, whose products are summed side by side: eight sums hide the latency of multiply-add,
/// and each value loaded serves several of them.
const TILE_ROWS: usize = 4;
const TILE_X: usize = 2;
/// Elements of a weight row widened at a time: a tile's worth stays in the first-level cache.
const BLOCK: usize = 1024;
/// Rows of the matrix that one task computes.
const TASK_ROWS: usize = 16;

type Sums = [f32; LANES];

/// `x · wᵀ`, `x` `[n, columns]`, result `[n, rows]`.
pub(super) fn matmul_transposed(x: &[f32], w: &MappedMatrix) -> Vec<f32> {
    let (rows, columns) = (w.rows(), w.columns());
    let n = x.len().checked_div(columns).unwrap_or(0);
    let mut result = vec![0.0; n * rows];
    if n == 0 || rows == 0 {
        return result;
    }
    if n == 1 {
        // One row of activations: the result's own memory is the task's output.
        result.par_chunks_mut(TASK_ROWS).enumerate().for_each(|(task, out)| {
            dispatch(x, n, w, task * TASK_ROWS, out);
        });
        return result;
    }
    // Tasks write `[rows of w, n]`; the transposition back is a small copy beside the products.
    let mut transposed = vec![0.0; n * rows];
    transposed.par_chunks_mut(TASK_ROWS * n).enumerate().for_each(|(task, out)| {
        dispatch(x, n, w, task * TASK_ROWS, out);
    });
    result.par_chunks_mut(rows).enumerate().for_each(|(row, out)| {
        for (value, column) in out.iter_mut().zip(transposed.chunks_exact(n)) {
            *value = column[row];
        }
    });
    result
}

/// Products of all `n` rows of `x` with the rows of `w` from `first`, into `out` `[rows, n]`.
fn dispatch(x: &[f32], n: usize, w: &MappedMatrix, first: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            #[allow(unsafe_code, reason = "calls a function compiled for features just detected")]
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { rows_avx512(x, n, w, first, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            #[allow(unsafe_code, reason = "calls a function compiled for features just detected")]
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { rows_avx2(x, n, w, first, out) };
        }
    }
    rows_portable::<false>(x, n, w, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn rows_avx512(x: &[f32], n: usize, w: &MappedMatrix, first: usize, out: &mut [f32]) {
    rows_portable::<true>(x, n, w, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows_avx2(x: &[f32], n: usize, w: &MappedMatrix, first: usize, out: &mut [f32]) {
    rows_portable::<true>(x, n, w, first, out);
}

/// The one body, compiled anew inside each caller with that caller's instructions.
#[inline(always)]
fn rows_portable<const FMA: bool>(x: &[f32], n: usize, w: &MappedMatrix, first: usize, out: &mut [f32]) {
    let rows = out.len() / n;
    let whole = rows / TILE_ROWS * TILE_ROWS;
    let mut sums = vec![[0.0; LANES]; n * TILE_ROWS];
    for row in (0..whole).step_by(TILE_ROWS) {
        row_tile::<FMA, TILE_ROWS>(x, w, first + row, &mut sums, &mut out[row * n..(row + TILE_ROWS) * n]);
    }
    for row in whole..rows {
        row_tile::<FMA, 1>(x, w, first + row, &mut sums, &mut out[row * n..(row + 1) * n]);
    }
}

/// All rows of `x` with `R` rows of `w`.
#[inline(always)]
fn row_tile<const FMA: bool, const R: usize>(
    x: &[f32],
    w: &MappedMatrix,
    row: usize,
    sums: &mut [Sums],
    out: &mut [f32],
) {
    let (columns, n) = (w.columns(), out.len() / R);
    let mut weights = [[0.0f32; BLOCK]; R];
    let sums = &mut sums.as_chunks_mut::<R>().0[..n];
    sums.fill([[0.0; LANES]; R]);
    for start in (0..columns).step_by(BLOCK) {
        let len = BLOCK.min(columns - start);
        for (index, weights) in weights.iter_mut().enumerate() {
            w.widen(row + index, start, &mut weights[..len]);
        }
        let x_row = |index: usize| &x[index * columns + start..index * columns + start + len];
        let (pairs, rest) = sums.as_chunks_mut::<TILE_X>();
        let n_paired = pairs.len() * TILE_X;
        for (pair, sums) in pairs.iter_mut().enumerate() {
            tile::<FMA, R, TILE_X>([x_row(pair * 2), x_row(pair * 2 + 1)], &weights, len, sums);
        }
        for (index, sums) in rest.iter_mut().enumerate() {
            tile::<FMA, R, 1>([x_row(n_paired + index)], &weights, len, std::array::from_mut(sums));
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        for (r, sums) in sums.iter().enumerate() {
            out[r * n + index] = reduce(sums);
        }
    }
}

/// Adds the products of a block to `X` × `R` sums, which stay in registers.
#[inline(always)]
fn tile<const FMA: bool, const R: usize, const X: usize>(
    x: [&[f32]; X],
    weights: &[[f32; BLOCK]; R],
    len: usize,
    sums: &mut [[Sums; R]; X],
) {
    let mut local = *sums;
    let chunks = len / LANES;
    for chunk in 0..chunks {
        let at = chunk * LANES;
        let x: [Sums; X] = std::array::from_fn(|i| load(x[i], at));
        for r in 0..R {
            let w = load(&weights[r], at);
            for i in 0..X {
                local[i][r] = fma::<FMA>(&x[i], &w, &local[i][r]);
            }
        }
    }
    for at in chunks * LANES..len {
        for i in 0..X {
            for r in 0..R {
                let sum = &mut local[i][r][at % LANES];
                *sum = multiply_add::<FMA>(x[i][at], weights[r][at], *sum);
            }
        }
    }
    *sums = local;
}

#[inline(always)]
fn load(x: &[f32], at: usize) -> Sums {
    *x[at..].first_chunk().expect("chunks end before the block does")
}

/// By value, which lets the compiler keep sums in registers.
#[inline(always)]
fn fma<const FMA: bool>(a: &Sums, b: &Sums, c: &Sums) -> Sums {
    std::array::from_fn(|lane| multiply_add::<FMA>(a[lane], b[lane], c[lane]))
}

/// Without the instruction a fused multiply-add is a slow library call, so the portable path rounds twice.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sums the lanes pairwise.
#[inline(always)]
fn reduce(sums: &Sums) -> f32 {
    let mut sums = *sums;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dtype;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn matrix(rows: usize, columns: usize, dtype: Dtype) -> MappedMatrix {
        let bytes: Vec<u8> = values(rows * columns, 7)
            .into_iter()
            .flat_map(|value| match dtype {
                Dtype::F32 => value.to_le_bytes().to_vec(),
                Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
                _ => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            })
            .collect();
        MappedMatrix::from_parts(rows, columns, dtype, bytes.into())
    }

    fn reference(x: &[f32], w: &MappedMatrix) -> Vec<f32> {
        let mut row = vec![0.0; w.columns()];
        let mut result = Vec::new();
        for x in x.chunks_exact(w.columns()) {
            for index in 0..w.rows() {
                w.widen(index, 0, &mut row);
                result.push(x.iter().zip(&row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32);
            }
        }
        result
    }

    #[test]
    fn equals_the_plain_sum_on_every_path() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for (n, rows, columns) in [(1, 1, 1), (1, 37, 33), (3, 17, 64), (5, 50, 4100), (2, 16, 2048), (4, 7, 1025)]
            {
                let (x, w) = (values(n * columns, 3), matrix(rows, columns, dtype));
                let expected = reference(&x, &w);
                let mut portable = vec![0.0; n * rows];
                rows_portable::<false>(&x, n, &w, 0, &mut portable);
                let portable: Vec<f32> = (0..n * rows).map(|i| portable[i % rows * n + i / rows]).collect();
                for found in [matmul_transposed(&x, &w), portable] {
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!((found - expected).abs() <= 1e-5 * columns as f32, "{dtype} {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_batch() {
        let (x, w) = (values(7 * 2100, 5), matrix(40, 2100, Dtype::BF16));
        let together = matmul_transposed(&x, &w);
        for (row, x) in x.chunks_exact(2100).enumerate() {
            assert_eq!(matmul_transposed(x, &w), together[row * 40..(row + 1) * 40]);
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(matmul_transposed(&[], &matrix(3, 4, Dtype::F32)).is_empty());
    }
}
