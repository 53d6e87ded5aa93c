//! Kernels in `f64`, by their definitions, for activations of a few positions.
//!
//! A group norm over a few values divides by their spread, which can be a thousandth of their magnitude, and so
//! enlarges rounding errors. Convolutions in `f64` are in [`im2col`](crate::conv::im2col).

/// Mean and (biased) variance of each `group_len` consecutive values of `x`.
pub fn group_moments(x: &[f64], group_len: usize) -> (Vec<f64>, Vec<f64>) {
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / group_len as f64;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / group_len as f64)
    };
    x.chunks(group_len.max(1)).map(moments).unzip()
}

/// `swish(x · scale + shift)`: `x` `[planes, plane]` with `scale` and `shift` `[planes]`, as `x`.
pub fn scaled_swish(x: &[f64], scale: &[f64], shift: &[f64]) -> Vec<f64> {
    let size = (x.len() / scale.len().max(1)).max(1);
    let planes = x.chunks_exact(size).zip(scale.iter().zip(shift));
    let swish = |u: f64| u / (1.0 + (-u).exp());
    planes.flat_map(|(x, (scale, shift))| x.iter().map(move |x| swish(x * scale + shift))).collect()
}

/// `softmax(q · kᵀ / √channels) · v`, all `[channels, positions]`.
pub fn attention(q: &[f64], k: &[f64], v: &[f64], channels: usize) -> Vec<f64> {
    let positions = q.len() / channels.max(1);
    let scale = (channels as f64).powf(-0.5);
    let mut attended = vec![0.0; q.len()];
    for query in 0..positions {
        let mut weights = vec![0.0; positions];
        for (q, k) in q.chunks_exact(positions).zip(k.chunks_exact(positions)) {
            weights.iter_mut().zip(k).for_each(|(score, k)| *score += q[query] * k);
        }
        let max = weights.iter().fold(f64::NEG_INFINITY, |max, score| max.max(score * scale));
        weights.iter_mut().for_each(|score| *score = (*score * scale - max).exp());
        let sum: f64 = weights.iter().sum();
        for (attended, v) in attended.chunks_exact_mut(positions).zip(v.chunks_exact(positions)) {
            attended[query] = weights.iter().zip(v).map(|(weight, v)| weight * v).sum::<f64>() / sum;
        }
    }
    attended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_examples_are_exact() {
        assert_eq!(group_moments(&[1.0, 3.0, -2.0, -2.0], 2), (vec![2.0, -2.0], vec![1.0, 0.0]));
        let swish = |u: f64| u / (1.0 + (-u).exp());
        assert_eq!(scaled_swish(&[1.0, 0.0, -2.0, 5.0], &[2.0, 1.0], &[1.0, 0.0]), [3.0, 1.0, -2.0, 5.0].map(swish));
        // Equal scores: the mean of the values.
        let v = [1.0, 2.0, 6.0, 0.0, 0.0, 3.0];
        assert_eq!(attention(&[0.0; 6], &[1.0; 6], &v, 2), [3.0, 3.0, 3.0, 1.0, 1.0, 1.0]);
        // A key that outweighs the others: its value.
        let far = attention(&[1.0; 3], &[0.0, 1000.0, 0.0], &[1.0, 2.0, 3.0], 1);
        assert_eq!(far, [2.0; 3]);
        assert!(attention(&[], &[], &[], 0).is_empty() && group_moments(&[], 0).0.is_empty());
        assert!(scaled_swish(&[], &[], &[]).is_empty());
    }
}
