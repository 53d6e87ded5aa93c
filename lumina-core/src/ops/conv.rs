//! Convolutions of 3×3, and swish: where the VQGAN spends its time.
//!
//! On the processor they are kernels of ours, with gradients of their own; elsewhere Burn's operations.

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};

/// A convolution of 3×3 with stride 1 or 2: `x` `[batch, inputs, height, width]`, `weight` `[outputs, inputs, 3, 3]`, `bias`
/// `[outputs]`. One column of zeros is put on the left and right, with stride 2 only on the right, and `padding` rows, 0 or 1 each, above and below.
pub fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    padding: (usize, usize),
    stride: usize,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::flex::conv3x3(&x, &weight, &bias, padding, stride) {
        return y;
    }
    let columns = (usize::from(stride == 1), 1);
    let options = ConvOptions::new_with_padding([stride; 2], [padding, columns], [1, 1], 1);
    conv2d(x, weight, Some(bias), options)
}

/// `swish(x · scale + shift)`, with `x` `[batch, channels, height, width]`, and `scale` and `shift`
/// `[batch, channels, 1, 1]`: a group norm whose statistics are known, and its activation.
pub fn scaled_swish(x: Tensor<4>, scale: Tensor<4>, shift: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::flex::scaled_swish(&x, &scale, &shift) {
        return y;
    }
    activation::silu(x * scale + shift)
}
