//! The layers of the encoder and decoder: convolution, group norm, residual block, attention, resampling.
//!
//! Every layer maps `[batch, channels, height, width]`. Layers of the decoder can compute one band of rows at a time,
//! to bound their temporaries. The result is the same: a convolution also reads the rows next to its band, and group
//! norms compute their statistics over the whole image.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, activation};
use lumina_nn::Loader;
use lumina_nn::ops::{Conv3x3, RowWriter, conv3x3, group_moments, is_on_cpu, scaled_swish, upsample2x};

use crate::config::GROUPS;

/// How many rows of an activation a layer computes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bands {
    /// All rows at once: the fastest.
    #[default]
    Whole,
    /// This many rows at a time, at least 1. Temporaries are as large as a band instead of the image: about a quarter
    /// less memory in all.
    Rows(usize),
}

impl Bands {
    /// The bands of rows of an activation of `height` rows.
    fn split(self, height: usize) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows(height);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// Rows of a band of an activation of `height` rows.
    fn rows(self, height: usize) -> usize {
        match self {
            Self::Whole => height.max(1),
            Self::Rows(rows) => rows.max(1),
        }
    }
}

/// Activations of at most this many positions, 8×8, are computed in `f64`.
const MAX_PRECISE_POSITIONS: usize = 64;

/// The activation in the type that a layer computes it in: `f64` where it is small, else `dtype`.
///
/// A group norm over a few values divides by their spread, which can be a thousandth of their magnitude, and so
/// enlarges rounding errors that much. In a larger activation the spread is that of the image. Small ones cost next to
/// nothing. Where gradients are recorded, and on other backends, nothing changes.
pub(crate) fn in_precision(x: Tensor<4>, dtype: DType) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let is_small = height * width <= MAX_PRECISE_POSITIONS;
    let precise = is_small && dtype == DType::F32 && (x.dtype() == DType::F64 || is_on_cpu(&x));
    as_type(x, if precise { DType::F64 } else { dtype })
}

/// The tensor in another type.
pub(crate) fn as_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

/// A convolution with its bias.
#[derive(Module, Debug)]
pub(crate) struct Conv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    kernel: usize,
}

impl Conv {
    /// A kernel of `kernel` × `kernel`, with stride 1 and padding that keeps the size.
    pub(crate) fn new(loader: &Loader<'_>, inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            weight: loader.param("weight", [outputs, inputs, kernel, kernel]),
            bias: loader.param("bias", [outputs]),
            kernel,
        }
    }

    /// Convolves the whole image; keeps the size.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        self.padded(x, (pad, pad), 1)
    }

    /// Computes the rows `band` of the result. `input` returns rows of the input, which has `height` rows in all.
    fn forward_band(&self, band: Range<usize>, height: usize, input: impl Fn(Range<usize>) -> Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        let rows = band.start.saturating_sub(pad)..(band.end + pad).min(height);
        // Rows beyond the image are padding. Rows beyond the band, but inside the image, are read from the input.
        let padding = (pad - (band.start - rows.start), pad - (rows.end - band.end));
        self.padded(input(rows), padding, 1)
    }

    /// Convolves with `padding` rows of zeros above and below.
    fn padded(&self, x: Tensor<4>, padding: (usize, usize), stride: usize) -> Tensor<4> {
        let (weight, bias) = (as_type(self.weight.val(), x.dtype()), as_type(self.bias.val(), x.dtype()));
        match self.kernel {
            3 => conv3x3(x, weight, bias, Conv3x3 { padding_rows: padding, stride }),
            _ => conv2d(x, weight, Some(bias), ConvOptions::new([stride; 2], [0, 0], [1, 1], 1)),
        }
    }
}

/// An activation of `height` rows, of which `compute` gives bands. Each is written into the result at once, so that no
/// more than one is there besides.
fn in_bands(bands: Bands, height: usize, compute: impl Fn(Range<usize>) -> Tensor<4>) -> Tensor<4> {
    if bands.rows(height) >= height {
        return compute(0..height);
    }
    let mut result: Option<RowWriter> = None;
    for band in bands.split(height) {
        let part = compute(band.clone());
        let whole = result.take().unwrap_or_else(|| RowWriter::new(height, &part));
        result = Some(whole.write(band, part));
    }
    result.expect("an activation has rows").finish()
}

/// What a group norm computes from an image's statistics: `norm(x) = x · scale + shift`, both
/// `[batch, channels, 1, 1]`.
struct ScaleShift {
    scale: Tensor<4>,
    shift: Tensor<4>,
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

    fn scale_shift(&self, x: &Tensor<4>, bands: Bands) -> ScaleShift {
        let [batch, channels, height, _] = x.dims();
        let [mean, variance] = group_moments(x, GROUPS, bands.rows(height));
        let inverse = (variance + 1e-6).sqrt().recip();
        let per_channel =
            |group: Tensor<3>| group.expand([batch, GROUPS, channels / GROUPS]).reshape([batch, channels, 1, 1]);
        let parameter = |value: &Param<Tensor<1>>| as_type(value.val(), x.dtype()).reshape([1, self.channels, 1, 1]);
        let scale = per_channel(inverse) * parameter(&self.weight);
        let shift = parameter(&self.bias) - per_channel(mean) * scale.clone();
        ScaleShift { scale, shift }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let ScaleShift { scale, shift } = self.scale_shift(&x, Bands::Whole);
        x * scale + shift
    }
}

fn rows(x: &Tensor<4>, rows: Range<usize>) -> Tensor<4> {
    x.clone().narrow(2, rows.start, rows.len())
}

/// Norm, swish and convolution: the parts of residual blocks, and the last layers of both networks.
pub(crate) fn norm_swish_conv(norm: &Norm, conv: &Conv, x: &Tensor<4>, bands: Bands) -> Tensor<4> {
    let ScaleShift { scale, shift } = norm.scale_shift(x, bands);
    let height = x.dims()[2];
    let input = |band| scaled_swish(rows(x, band), scale.clone(), shift.clone());
    in_bands(bands, height, |band| conv.forward_band(band, height, input))
}

/// Norm and swish.
pub(crate) fn norm_swish(norm: &Norm, x: Tensor<4>) -> Tensor<4> {
    activation::silu(norm.forward(x))
}

/// Norm, swish and convolution twice, plus a shortcut.
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
        let first = norm_swish_conv(&self.norm1, &self.conv1, &x, bands);
        let hidden = norm_swish_conv(&self.norm2, &self.conv2, &first, bands);
        // Not needed any more, and as large as the result.
        drop(first);
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x) + hidden,
            None => x + hidden,
        }
    }
}

/// Self-attention over all positions, with one head.
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

/// Residual block, attention, residual block, at the coarsest level.
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

/// The size of a [`Level`].
pub(crate) struct LevelConfig {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) n_blocks: usize,
    pub(crate) has_attention: bool,
}

/// The layers at one resolution: residual blocks, each followed by attention if the config asks for it.
#[derive(Module, Debug)]
pub(crate) struct Level {
    block: Vec<ResidualBlock>,
    attn: Vec<AttentionBlock>,
}

impl Level {
    pub(crate) fn new(loader: &Loader<'_>, config: LevelConfig) -> Self {
        let LevelConfig { inputs, outputs, n_blocks, has_attention } = config;
        let (block, attn) = (loader.pp("block"), loader.pp("attn"));
        Self {
            block: block.parts(n_blocks, |loader, index| {
                ResidualBlock::new(loader, if index == 0 { inputs } else { outputs }, outputs)
            }),
            attn: attn
                .parts(if has_attention { n_blocks } else { 0 }, |loader, _| AttentionBlock::new(loader, outputs)),
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

/// Halves the size by a convolution of stride 2, with zeros to the right and below.
pub(crate) fn downsample(conv: &Conv, x: Tensor<4>) -> Tensor<4> {
    conv.padded(x, (0, 1), 2)
}

/// Doubles the size by repeating pixels, followed by a convolution.
pub(crate) fn upsample(conv: &Conv, x: &Tensor<4>, bands: Bands) -> Tensor<4> {
    let height = 2 * x.dims()[2];
    in_bands(bands, height, |band| conv.forward_band(band, height, |rows| upsample2x(x, rows)))
}
