//! Convolutions of 3×3, upsampling by 2, and swish: where the VQGAN spends its time.

use std::ops::Range;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};

use super::burn::kernel::{Operand, operands, run};
use super::burn::{Conv, ScaledSwish, Upsample2x};

/// How a convolution of 3×3 goes over an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv3x3 {
    /// Rows of zeros above and below, 0 or 1 each.
    pub padding_rows: (usize, usize),
    /// 1 or 2. With 1 there is a column of zeros on either side, with 2 only on the right.
    pub stride: usize,
}

/// A convolution of 3×3: `x` `[batch, inputs, height, width]`, `weight` `[outputs, inputs, 3, 3]`, `bias` `[outputs]` →
/// `[batch, outputs, (height + padding − 3) / stride + 1, width / stride]`.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, options: Conv3x3) -> Tensor<4> {
    let kernel = Conv::of(&x, &weight, options);
    match kernel.zip(operands([Operand::of(&x), Operand::of(&weight), Operand::of(&bias)])) {
        Some((kernel, operands)) if kernel.computes(&operands) => run(kernel, operands),
        _ => {
            let Conv3x3 { padding_rows, stride } = options;
            let columns = (usize::from(stride == 1), 1);
            let options = ConvOptions::new_with_padding([stride; 2], [padding_rows, columns], [1, 1], 1);
            conv2d(x, weight, Some(bias), options)
        }
    }
}

/// `x` `[batch, channels, height, width]` with each pixel repeated to 2×2, and of the result, which has twice as many
/// rows, `rows`: `[batch, channels, rows.len(), 2 · width]`.
///
/// # Panics
/// If there are no such rows.
pub fn upsample2x(x: &Tensor<4>, rows: Range<usize>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    assert!(rows.end <= 2 * height, "rows {rows:?} of {}", 2 * height);
    match operands([Operand::of(x)]) {
        Some(operands) => run(Upsample2x { rows }, operands),
        None => {
            let (from, to) = (rows.start / 2, rows.end.div_ceil(2));
            let n = to - from;
            let coarse = x.clone().narrow(2, from, n).reshape([batch * channels * n, 1, width, 1]);
            let repeated: Tensor<4> = coarse.expand([batch * channels * n, 2, width, 2]);
            let fine: Tensor<4> = repeated.reshape([batch, channels, n * 2, width * 2]);
            fine.narrow(2, rows.start - from * 2, rows.len())
        }
    }
}

/// `swish(x · scale + shift)`, with `x` `[batch, channels, height, width]`, and `scale` and `shift` `[batch, channels,
/// 1, 1]`: a group norm whose statistics are known, and its activation.
pub fn scaled_swish(x: Tensor<4>, scale: Tensor<4>, shift: Tensor<4>) -> Tensor<4> {
    let [batch, channels, ..] = x.dims();
    let fits = scale.dims() == [batch, channels, 1, 1] && shift.dims() == scale.dims();
    match operands([Operand::of(&x), Operand::of(&scale), Operand::of(&shift)]).filter(|_| fits) {
        Some(operands) => run(ScaledSwish, operands),
        None => activation::silu(x * scale + shift),
    }
}
