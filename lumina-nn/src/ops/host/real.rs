//! The kernels of feature maps in each type that they are computed in.

use std::ops::Range;

use lumina_kernels::attention::single_head;
use lumina_kernels::conv::conv3x3::{self, Conv3x3Shape};
use lumina_kernels::conv::im2col::{self, ConvShape, Element};
use lumina_kernels::conv::upsample2x::{self, PlaneSize};
use lumina_kernels::elementwise::scaled_swish;
use lumina_kernels::norm::group_moments::{self, GroupMoments};
use lumina_kernels::precise;

/// `f32`, or `f64` for maps of a few positions.
pub(in crate::ops) trait Real: Element {
    /// Mean and variance of each group of consecutive values.
    fn group_moments(x: &[Self], group_len: usize) -> (Vec<Self>, Vec<Self>);

    /// `1 / √(variance + 1e-6)`.
    fn inverse_deviation(variance: Self) -> Self;

    /// `swish(x · scale + shift)`, with a scale and a shift for each plane.
    fn scaled_swish(x: &[Self], scale: &[Self], shift: &[Self]) -> Vec<Self>;

    /// A convolution.
    fn conv(x: &[Self], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<Self>;

    /// Attention of one head over all positions of one image.
    fn attention(q: &[Self], k: &[Self], v: &[Self], channels: usize) -> Vec<Self>;

    /// Planes at twice the size, of which some rows are wanted.
    fn upsample2x(x: &[Self], plane: PlaneSize, rows: &Range<usize>) -> Vec<Self>;
}

impl Real for f32 {
    fn group_moments(x: &[Self], group_len: usize) -> (Vec<Self>, Vec<Self>) {
        let GroupMoments { means, variances } = group_moments::forward(x, group_len);
        (means, variances)
    }

    fn inverse_deviation(variance: Self) -> Self {
        (variance + 1e-6).sqrt().recip()
    }

    fn scaled_swish(x: &[Self], scale: &[Self], shift: &[Self]) -> Vec<Self> {
        scaled_swish::forward(x, scale, shift)
    }

    fn conv(x: &[Self], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<Self> {
        let &ConvShape { batch, in_channels, out_channels, height, width, kernel, padding, stride } = shape;
        if kernel == 3 && width >= conv3x3::MIN_WIDTH {
            let shape = Conv3x3Shape { batch, in_channels, out_channels, height, width, padding, stride };
            conv3x3::forward(x, weight, Some(bias), &shape)
        } else {
            im2col::forward(x, weight, bias, shape)
        }
    }

    fn attention(q: &[Self], k: &[Self], v: &[Self], channels: usize) -> Vec<Self> {
        single_head::forward(q, k, v, channels)
    }

    fn upsample2x(x: &[Self], plane: PlaneSize, rows: &Range<usize>) -> Vec<Self> {
        upsample2x::forward(x, plane, rows)
    }
}

impl Real for f64 {
    fn group_moments(x: &[Self], group_len: usize) -> (Vec<Self>, Vec<Self>) {
        precise::group_moments(x, group_len)
    }

    fn inverse_deviation(variance: Self) -> Self {
        (variance + 1e-6).sqrt().recip()
    }

    fn scaled_swish(x: &[Self], scale: &[Self], shift: &[Self]) -> Vec<Self> {
        precise::scaled_swish(x, scale, shift)
    }

    fn conv(x: &[Self], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<Self> {
        im2col::forward(x, weight, bias, shape)
    }

    fn attention(q: &[Self], k: &[Self], v: &[Self], channels: usize) -> Vec<Self> {
        precise::attention(q, k, v, channels)
    }

    fn upsample2x(x: &[Self], PlaneSize { height, width }: PlaneSize, rows: &Range<usize>) -> Vec<Self> {
        let planes = x.chunks_exact((height * width).max(1));
        let row = |plane: &'_ [Self], row: usize| {
            plane[row / 2 * width..][..width].iter().flat_map(|&value| [value; 2]).collect::<Vec<_>>()
        };
        planes.flat_map(|plane| rows.clone().flat_map(move |at| row(plane, at))).collect()
    }
}
