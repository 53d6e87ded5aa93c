//! Convolutions, upsampling and swish as kernels with gradients.

use std::ops::Range;

use burn::tensor::Tensor;
use lumina_kernels::conv::conv3x3::{self, Conv3x3Shape, RowPadding};
use lumina_kernels::conv::conv3x3_gradients;
use lumina_kernels::conv::upsample2x::{self, PlaneSize};
use lumina_kernels::elementwise::scaled_swish::{self, ScaledSwishGradients};

use super::kernel::{Array, Gradient, Kernel, Operand, View};
use crate::ops::Conv3x3;

/// A convolution of 3×3.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Conv {
    shape: Conv3x3Shape,
}

impl Conv {
    /// `None` where Burn's convolution is to be used.
    pub(in crate::ops) fn of(x: &Tensor<4>, weight: &Tensor<4>, options: Conv3x3) -> Option<Self> {
        let ([batch, in_channels, height, width], [out_channels, _, 3, 3]) = (x.dims(), weight.dims()) else {
            return None;
        };
        let Conv3x3 { padding_rows: (top, bottom), stride } = options;
        // Narrow images would leave most of a vector empty. Burn's im2col suits them.
        if width < 12 || top > 1 || bottom > 1 || !(1..=2).contains(&stride) {
            return None;
        }
        let padding = RowPadding { top, bottom };
        let shape = Conv3x3Shape { batch, in_channels, out_channels, height, width, padding, stride };
        (shape.output_height() > 0).then_some(Self { shape })
    }

    /// Whether there are gradients where they are recorded: those of stride 1 alone.
    pub(in crate::ops) fn computes(&self, operands: &[Operand]) -> bool {
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
pub(in crate::ops) struct Upsample2x {
    pub(in crate::ops) rows: Range<usize>,
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
pub(in crate::ops) struct ScaledSwish;

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
