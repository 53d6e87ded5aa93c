//! Convolutions of 3×3, and swish: where the VQGAN spends its time.
//!
//! On the processor they are kernels of ours, with gradients of their own; elsewhere Burn's operations.

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};
use lumina_kernels::Activations;

/// A convolution of 3×3 with stride 1: `x` `[batch, inputs, height, width]`, `weight` `[outputs, inputs, 3, 3]`, `bias`
/// `[outputs]`. One column of zeros is put on the left and right, and `padding` rows, 0 or 1 each, above and below.
///
/// With [`Activations::Compact`] a CPU that multiplies `bf16` does so where there are many channels, and results are off by about 2⁻⁸ of their
/// root mean square; gradients stay `f32`.
pub fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    padding: (usize, usize),
    activations: Activations,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::flex::conv3x3(&x, &weight, &bias, padding, activations) {
        return y;
    }
    // Elsewhere the type of the tensors says what is computed in.
    let _ = activations;
    let options = ConvOptions::new_with_padding([1; 2], [padding, (1, 1)], [1, 1], 1);
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
