//! Convolutions of 3×3, doubling of pixels, and swish: where the VQGAN spends its time.
//!
//! On the processor they are kernels of ours, with gradients of their own; elsewhere Burn's operations.

use std::ops::Range;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};

/// A convolution of 3×3 with stride 1 or 2: `x` `[batch, inputs, height, width]`, `weight` `[outputs, inputs, 3, 3]`, `bias`
/// `[outputs]`. One column of zeros is put on the left and right, with stride 2 only on the right, and `padding` rows, 0 or 1 each, above and below.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, padding: (usize, usize), stride: usize) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::conv3x3(&x, &weight, &bias, padding, stride) {
        return y;
    }
    let columns = (usize::from(stride == 1), 1);
    let options = ConvOptions::new_with_padding([stride; 2], [padding, columns], [1, 1], 1);
    conv2d(x, weight, Some(bias), options)
}

/// `x` `[batch, channels, height, width]` with each pixel repeated to 2×2, and of the result, which has twice as many rows, `rows`:
/// `[batch, channels, rows.len(), 2 · width]`.
///
/// # Panics
/// If there are no such rows.
pub fn doubled(x: &Tensor<4>, rows: Range<usize>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    assert!(rows.end <= 2 * height, "rows {rows:?} of {}", 2 * height);
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::doubled(x, &rows) {
        return y;
    }
    let (from, to) = (rows.start / 2, rows.end.div_ceil(2));
    let coarse = x.clone().narrow(2, from, to - from).reshape([batch * channels * (to - from), 1, width, 1]);
    let repeated: Tensor<4> = coarse.expand([batch * channels * (to - from), 2, width, 2]);
    let fine: Tensor<4> = repeated.reshape([batch, channels, (to - from) * 2, width * 2]);
    fine.narrow(2, rows.start - from * 2, rows.len())
}

/// `swish(x · scale + shift)`, with `x` `[batch, channels, height, width]`, and `scale` and `shift`
/// `[batch, channels, 1, 1]`: a group norm whose statistics are known, and its activation.
pub fn scaled_swish(x: Tensor<4>, scale: Tensor<4>, shift: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::scaled_swish(&x, &scale, &shift) {
        return y;
    }
    activation::silu(x * scale + shift)
}
