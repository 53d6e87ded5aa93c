//! The layers of the encoder and decoder: convolution, group norm, residual block, attention, resampling.
//!
//! Every layer works on `[batch, channels, height, width]`, and in bands of rows if asked: a band sees the rows that
//! its convolution needs from its neighbours, and group norms take their statistics over the whole image, so the
//! result is that of the whole image with the temporaries of one band.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};
use lumina_nn::Loader;
use lumina_nn::ops::{Conv3x3, conv3x3, group_moments, scaled_swish, upsample2x};

use crate::config::GROUPS;

/// How many rows of an activation are computed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bands {
    /// All at once: the fastest.
    #[default]
    Whole,
    /// This many rows of pixels at a time: the temporaries of a band instead of a picture. At least 1.
    Rows(usize),
}

impl Bands {
    /// The bands `start..end` of an activation of `height` rows.
    fn of(self, height: usize) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.rows(height);
        (0..height).step_by(rows).map(move |start| (start, (start + rows).min(height)))
    }

    /// Rows of a band of an activation of `height` rows.
    fn rows(self, height: usize) -> usize {
        match self {
            Self::Whole => height.max(1),
            Self::Rows(rows) => rows.max(1),
        }
    }
}

/// A convolution with its bias.
#[derive(Module, Debug)]
pub(crate) struct Conv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    kernel: usize,
}

impl Conv {
    /// `kernel` × `kernel`, stride 1, padded to keep the size.
    pub(crate) fn new(loader: &Loader<'_>, inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            weight: loader.param("weight", [outputs, inputs, kernel, kernel]),
            bias: loader.param("bias", [outputs]),
            kernel,
        }
    }

    /// Keeps the size.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        self.padded(x, (pad, pad), 1)
    }

    /// Rows `band` of the result, of an input that `make` gives in a range of rows.
    fn band(&self, (start, end): (usize, usize), height: usize, make: impl Fn(usize, usize) -> Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        let (from, to) = (start.saturating_sub(pad), (end + pad).min(height));
        // What the image's edge lacks is padding; what a band's edge lacks comes from its neighbour.
        let missing = (pad - (start - from), pad - (to - end));
        self.padded(make(from, to), missing, 1)
    }

    /// With so many rows of zeros above and below.
    fn padded(&self, x: Tensor<4>, rows: (usize, usize), stride: usize) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        match self.kernel {
            3 => conv3x3(x, weight, bias, Conv3x3 { padding_rows: rows, stride }),
            _ => conv2d(x, weight, Some(bias), ConvOptions::new([stride; 2], [0, 0], [1, 1], 1)),
        }
    }
}

/// Collects bands of rows into one tensor.
fn collect(bands: impl Iterator<Item = Tensor<4>>) -> Tensor<4> {
    let mut bands: Vec<_> = bands.collect();
    match bands.len() {
        1 => bands.swap_remove(0),
        _ => Tensor::cat(bands, 2),
    }
}

/// GroupNorm(32, eps 1e-6).
#[derive(Module, Debug)]
pub(crate) struct Norm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    channels: usize,
}

impl Norm {
    pub(crate) fn new(loader: &Loader<'_>, channels: usize) -> Self {
        Self { weight: loader.param("weight", [channels]), bias: loader.param("bias", [channels]), channels }
    }

    /// What the norm multiplies and adds, per channel: two tensors `[batch, channels, 1, 1]`.
    fn scale_and_shift(&self, x: &Tensor<4>, bands: Bands) -> (Tensor<4>, Tensor<4>) {
        let [batch, channels, height, _] = x.dims();
        let [mean, variance] = group_moments(x, GROUPS, bands.rows(height));
        let inverse = (variance + 1e-6).sqrt().recip();
        let spread =
            |group: Tensor<3>| group.expand([batch, GROUPS, channels / GROUPS]).reshape([batch, channels, 1, 1]);
        let per_channel = |value: &Param<Tensor<1>>| value.val().reshape([1, self.channels, 1, 1]);
        let scale = spread(inverse) * per_channel(&self.weight);
        let shift = per_channel(&self.bias) - spread(mean) * scale.clone();
        (scale, shift)
    }

    /// The norm alone.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (scale, shift) = self.scale_and_shift(&x, Bands::Whole);
        x * scale + shift
    }
}

fn rows(x: &Tensor<4>, start: usize, end: usize) -> Tensor<4> {
    x.clone().narrow(2, start, end - start)
}

/// Norm, swish, convolution: what residual blocks and the last layer of both networks are made of.
pub(crate) fn norm_swish_conv(norm: &Norm, conv: &Conv, x: &Tensor<4>, bands: Bands) -> Tensor<4> {
    let (scale, shift) = norm.scale_and_shift(x, bands);
    let height = x.dims()[2];
    let input = |from, to| scaled_swish(rows(x, from, to), scale.clone(), shift.clone());
    collect(bands.of(height).map(|band| conv.band(band, height, input)))
}

/// Norm and swish.
pub(crate) fn norm_swish(norm: &Norm, x: Tensor<4>) -> Tensor<4> {
    activation::silu(norm.forward(x))
}

/// Two times norm, swish, convolution, beside a shortcut.
#[derive(Module, Debug)]
pub(crate) struct ResidualBlock {
    norm1: Norm,
    conv1: Conv,
    norm2: Norm,
    conv2: Conv,
    nin_shortcut: Option<Conv>,
}

impl ResidualBlock {
    pub(crate) fn new(loader: &Loader<'_>, inputs: usize, outputs: usize) -> Self {
        Self {
            norm1: Norm::new(&loader.pp("norm1"), inputs),
            conv1: Conv::new(&loader.pp("conv1"), inputs, outputs, 3),
            norm2: Norm::new(&loader.pp("norm2"), outputs),
            conv2: Conv::new(&loader.pp("conv2"), outputs, outputs, 3),
            nin_shortcut: (inputs != outputs).then(|| Conv::new(&loader.pp("nin_shortcut"), inputs, outputs, 1)),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>, bands: Bands) -> Tensor<4> {
        let hidden = norm_swish_conv(&self.norm1, &self.conv1, &x, bands);
        let hidden = norm_swish_conv(&self.norm2, &self.conv2, &hidden, bands);
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x) + hidden,
            None => x + hidden,
        }
    }
}

/// Attention of every position to every other, with one head.
#[derive(Module, Debug)]
pub(crate) struct AttentionBlock {
    norm: Norm,
    q: Conv,
    k: Conv,
    v: Conv,
    proj_out: Conv,
}

impl AttentionBlock {
    pub(crate) fn new(loader: &Loader<'_>, channels: usize) -> Self {
        let conv = |name| Conv::new(&loader.pp(name), channels, channels, 1);
        Self {
            norm: Norm::new(&loader.pp("norm"), channels),
            q: conv("q"),
            k: conv("k"),
            v: conv("v"),
            proj_out: conv("proj_out"),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let normed = self.norm.forward(x.clone());
        let flat = |conv: &Conv| conv.forward(normed.clone()).reshape([batch, channels, height * width]);
        let (q, k, v) = (flat(&self.q), flat(&self.k), flat(&self.v));
        let scores = q.swap_dims(1, 2).matmul(k) * (channels as f64).powf(-0.5);
        let attended = v.matmul(activation::softmax(scores, 2).swap_dims(1, 2));
        x + self.proj_out.forward(attended.reshape([batch, channels, height, width]))
    }
}

/// Residual, attention, residual, at the coarsest level.
#[derive(Module, Debug)]
pub(crate) struct Middle {
    block_1: ResidualBlock,
    attn_1: AttentionBlock,
    block_2: ResidualBlock,
}

impl Middle {
    pub(crate) fn new(loader: &Loader<'_>, channels: usize) -> Self {
        Self {
            block_1: ResidualBlock::new(&loader.pp("block_1"), channels, channels),
            attn_1: AttentionBlock::new(&loader.pp("attn_1"), channels),
            block_2: ResidualBlock::new(&loader.pp("block_2"), channels, channels),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.block_1.forward(x, Bands::Whole);
        let x = self.attn_1.forward(x);
        self.block_2.forward(x, Bands::Whole)
    }
}

/// One resolution: residual blocks, each followed by attention where the config says so.
#[derive(Module, Debug)]
pub(crate) struct Level {
    block: Vec<ResidualBlock>,
    attn: Vec<AttentionBlock>,
}

impl Level {
    pub(crate) fn new(loader: &Loader<'_>, inputs: usize, outputs: usize, blocks: usize, attention: bool) -> Self {
        let (block, attn) = (loader.pp("block"), loader.pp("attn"));
        Self {
            block: (0..blocks)
                .map(|index| ResidualBlock::new(&block.pp(index), if index == 0 { inputs } else { outputs }, outputs))
                .collect(),
            attn: (0..if attention { blocks } else { 0 })
                .map(|index| AttentionBlock::new(&attn.pp(index), outputs))
                .collect(),
        }
    }

    pub(crate) fn forward(&self, mut x: Tensor<4>, bands: Bands) -> Tensor<4> {
        for (index, block) in self.block.iter().enumerate() {
            x = block.forward(x, bands);
            if let Some(attention) = self.attn.get(index) {
                x = attention.forward(x);
            }
        }
        x
    }
}

/// Half the size, by a convolution of stride 2 padded on the right and below.
pub(crate) fn downsample(conv: &Conv, x: Tensor<4>) -> Tensor<4> {
    conv.padded(x, (0, 1), 2)
}

/// Twice the size, by repetition and a convolution.
pub(crate) fn upsample(conv: &Conv, x: &Tensor<4>, bands: Bands) -> Tensor<4> {
    let height = 2 * x.dims()[2];
    collect(bands.of(height).map(|band| conv.band(band, height, |from, to| upsample2x(x, from..to))))
}
