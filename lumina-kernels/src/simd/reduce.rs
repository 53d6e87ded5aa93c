//! Sums and maxima of slices, in an order that depends on the length alone.

use super::{F32s, LANES, Simd};

/// The sum of sixteen values, by halves.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The dot product of two slices of one length.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = simd.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = sum.multiply_add(simd.load(a), simd.load(b));
    }
    sum.sum() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The largest value; NaN where there is one.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &value| larger(max, value))
}

/// The sum of rows of `width` values, in their order: of the sums that tasks have computed.
pub(crate) fn sum_rows(rows: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::simd_dispatch;
    use super::*;

    simd_dispatch!(fn best_dot(a: &[f32], b: &[f32]) -> f32 = dot);
    simd_dispatch!(fn interleaved(groups: &[[f32; 4]]) -> [f32; 4 * LANES] = interleaved_body);
    simd_dispatch!(fn without_ends(values: &[f32]) -> [f32; LANES] = without_ends_body);

    #[inline(always)]
    fn interleaved_body<S: Simd>(simd: S, groups: &[[f32; 4]]) -> [f32; 4 * LANES] {
        S::F32s::interleave(simd.load_deinterleaved(groups))
    }

    #[inline(always)]
    fn without_ends_body<S: Simd>(simd: S, values: &[f32]) -> [f32; LANES] {
        (simd.load(values).zero_first() + simd.load(values).zero_last() - simd.splat(1.0)).to_array()
    }

    #[test]
    fn vectors_do_as_arrays() {
        let groups: [[f32; 4]; LANES] = std::array::from_fn(|lane| [0.0, 0.1, 0.2, 0.3].map(|at| at + lane as f32));
        assert_eq!(interleaved(&groups), groups.as_flattened());
        let values: [f32; LANES] = std::array::from_fn(|lane| lane as f32 + 1.0);
        let mut expected = values.map(|value| 2.0 * value - 1.0);
        (expected[0], expected[LANES - 1]) = (0.0, 15.0);
        assert_eq!(without_ends(&values), expected);
        // Small whole numbers, whose sums are exact in any order.
        assert_eq!(best_dot(&[2.0; 37], &[3.0; 37]), 6.0 * 37.0);
        assert_eq!(total(values), 136.0);
    }

    #[test]
    fn the_largest_value_is_nan_where_there_is_one() {
        let mut values = vec![-3.0; 40];
        values[21] = 7.0;
        assert_eq!(largest(&values), 7.0);
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
        for at in [0, 21, 39] {
            let mut values = values.clone();
            values[at] = f32::NAN;
            assert!(largest(&values).is_nan());
        }
    }
}
