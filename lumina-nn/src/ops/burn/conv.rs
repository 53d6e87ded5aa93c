//! Convolutions of 3×3, upsampling by 2, and swish, with gradients: where the VQGAN spends its time.

use std::ops::Range;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};
use lumina_kernels::conv::conv3x3::{self, Conv3x3Shape, RowPadding};
use lumina_kernels::conv::conv3x3_gradients;
use lumina_kernels::conv::upsample2x::{self, PlaneSize};
use lumina_kernels::elementwise::scaled_swish::{self, ScaledSwishGradients};

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

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

/// A convolution of 3×3.
#[derive(Debug, Clone)]
struct Conv {
    shape: Conv3x3Shape,
}

impl Conv {
    /// `None` where Burn's convolution is to be used.
    fn of(x: &Tensor<4>, weight: &Tensor<4>, options: Conv3x3) -> Option<Self> {
        let ([batch, in_channels, height, width], [out_channels, _, 3, 3]) = (x.dims(), weight.dims()) else {
            return None;
        };
        let Conv3x3 { padding_rows: (top, bottom), stride } = options;
        // Burn's im2col suits narrow images.
        if width < conv3x3::MIN_WIDTH || top > 1 || bottom > 1 || !(1..=2).contains(&stride) {
            return None;
        }
        let padding = RowPadding { top, bottom };
        let shape = Conv3x3Shape { batch, in_channels, out_channels, height, width, padding, stride };
        (shape.output_height() > 0).then_some(Self { shape })
    }

    /// Whether there are gradients where they are recorded: those of stride 1 alone.
    fn computes(&self, operands: &[Operand]) -> bool {
        self.shape.stride == 1 || !operands.iter().any(Operand::is_recorded)
    }
}

impl Kernel<3> for Conv {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [View<'_>; 3]) -> (Array, ()) {
        let shape = &self.shape;
        let values = conv3x3::forward(x.values, weight.values, Some(bias.values), shape);
        (
            Array { values, shape: vec![shape.batch, shape.out_channels, shape.output_height(), shape.output_width()] },
            (),
        )
    }

    fn backward(
        &self,
        [x, weight, _]: [View<'_>; 3],
        (): (),
        dy: &[f32],
        [dx, dweight, dbias]: [bool; 3],
    ) -> [Option<Gradient>; 3] {
        let Self { shape, .. } = self;
        let bias_gradient = || {
            let mut sums = vec![0.0; shape.out_channels];
            let plane = shape.output_height() * shape.width;
            for (index, plane) in dy.chunks_exact(plane.max(1)).enumerate() {
                sums[index % shape.out_channels] += plane.iter().sum::<f32>();
            }
            sums
        };
        [
            dx.then(|| conv3x3_gradients::input_gradient(dy, weight.values, shape).into()),
            dweight.then(|| conv3x3_gradients::weight_gradient(x.values, dy, shape).into()),
            dbias.then(|| bias_gradient().into()),
        ]
    }
}

/// Upsampling by 2, of which some rows are wanted.
#[derive(Debug, Clone)]
struct Upsample2x {
    rows: Range<usize>,
}

impl Kernel<1> for Upsample2x {
    type Saved = ();

    fn forward(&self, [x]: [View<'_>; 1]) -> (Array, ()) {
        let &[batch, channels, height, width] = x.shape else { return (x.like(x.values.to_vec()), ()) };
        let values = upsample2x::forward(x.values, PlaneSize { height, width }, &self.rows);
        (Array { values, shape: vec![batch, channels, self.rows.len(), 2 * width] }, ())
    }

    fn backward(&self, [x]: [View<'_>; 1], (): (), dy: &[f32], _: [bool; 1]) -> [Option<Gradient>; 1] {
        let &[batch, channels, height, width] = x.shape else { return [None] };
        [Some(upsample2x::backward(dy, batch * channels, PlaneSize { height, width }, &self.rows).into())]
    }
}

/// `swish(x · scale + shift)`.
#[derive(Debug, Clone)]
struct ScaledSwish;

impl Kernel<3> for ScaledSwish {
    type Saved = ();

    fn forward(&self, [x, scale, shift]: [View<'_>; 3]) -> (Array, ()) {
        (x.like(scaled_swish::forward(x.values, scale.values, shift.values)), ())
    }

    fn backward(&self, [x, scale, shift]: [View<'_>; 3], (): (), dy: &[f32], _: [bool; 3]) -> [Option<Gradient>; 3] {
        let ScaledSwishGradients { dx, dscale, dshift } =
            scaled_swish::backward(x.values, scale.values, shift.values, dy);
        [dx, dscale, dshift].map(|gradient| Some(gradient.into()))
    }
}
