//! Convolutions of feature maps, alone, after a group norm and swish, and with another size of the result.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

#[cfg(feature = "cube")]
use super::ONE_PLACE;
use super::bands::{Bands, in_bands, rows};
use super::group_norm::GroupNorm;
use super::{Maps, MapsData, as_type};
use crate::ops::{Conv3x3, conv3x3, scaled_swish, upsample2x};

/// A convolution of 1×1 or 3×3 with its bias. Made by [`Loader::conv`](crate::Loader::conv).
#[derive(Module, Debug)]
pub struct Conv2d {
    weights: ConvWeights,
}

/// Weights and bias, where the convolution computes.
#[derive(Module, Debug)]
enum ConvWeights {
    Burn(BurnConv),
    #[cfg(feature = "cube")]
    Gpu(GpuConv),
}

#[derive(Module, Debug)]
struct BurnConv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    kernel: usize,
}

/// Cloning it copies no weight.
#[cfg(feature = "cube")]
#[derive(Module, Debug)]
struct GpuConv {
    #[module(skip)]
    weights: lumina_cube::conv::ConvWeights,
}

impl Conv2d {
    /// Of parameters: `weight` `[outputs, inputs, kernel, kernel]`, `bias` `[outputs]`.
    pub(crate) fn new(weight: Param<Tensor<4>>, bias: Param<Tensor<1>>, kernel: usize) -> Self {
        Self { weights: ConvWeights::Burn(BurnConv { weight, bias, kernel }) }
    }

    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(weights: lumina_cube::conv::ConvWeights) -> Self {
        Self { weights: ConvWeights::Gpu(GpuConv { weights }) }
    }

    /// Convolves the whole image with stride 1 and zeros around it: the size is kept.
    #[must_use]
    pub fn forward(&self, x: Maps) -> Maps {
        match (&self.weights, x.0) {
            #[cfg(feature = "cube")]
            (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => conv.run(&x, lumina_cube::conv::ConvOptions::default()),
            (ConvWeights::Burn(conv), MapsData::Burn(x)) => conv.same(x).into(),
            #[cfg(feature = "cube")]
            _ => unreachable!("{ONE_PLACE}"),
        }
    }

    /// [`Conv2d::forward`] plus `residual`, which has the result's shape.
    #[must_use]
    pub fn forward_add(&self, x: Maps, residual: Maps) -> Maps {
        match (&self.weights, x.0, residual.0) {
            #[cfg(feature = "cube")]
            (ConvWeights::Gpu(conv), MapsData::Gpu(x), MapsData::Gpu(residual)) => {
                let residual = Some(&residual.maps);
                conv.run(&x, lumina_cube::conv::ConvOptions { residual, ..Default::default() })
            }
            (ConvWeights::Burn(conv), MapsData::Burn(x), MapsData::Burn(residual)) => (conv.same(x) + residual).into(),
            #[cfg(feature = "cube")]
            _ => unreachable!("{ONE_PLACE}"),
        }
    }
}

#[cfg(feature = "cube")]
impl GpuConv {
    fn run(&self, x: &super::GpuMaps, options: lumina_cube::conv::ConvOptions<'_>) -> Maps {
        let options = lumina_cube::conv::ConvOptions { precision: x.precision, ..options };
        x.with(lumina_cube::conv::conv(&x.gpu, &x.maps, &self.weights, options))
    }
}

impl BurnConv {
    fn same(&self, x: Tensor<4>) -> Tensor<4> {
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

/// `conv(swish(norm(x)))`, plus a residual of the result's shape: the parts of residual blocks, and the last layers of
/// both networks. `x` `[batch, inputs, height, width]` → `[batch, outputs, height, width]`.
#[must_use]
pub fn norm_swish_conv(norm: &GroupNorm, conv: &Conv2d, x: Maps, bands: Bands, residual: Option<Maps>) -> Maps {
    match (&conv.weights, x.0) {
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => {
            let residual = residual.map(|maps| match maps.0 {
                MapsData::Gpu(own) => own.maps,
                MapsData::Burn(_) => unreachable!("{ONE_PLACE}"),
            });
            let norm = norm.on_gpu(&x);
            let input = lumina_cube::conv::Input::NormedSwish(&norm);
            conv.run(&x, lumina_cube::conv::ConvOptions { input, residual: residual.as_ref(), ..Default::default() })
        }
        (ConvWeights::Burn(conv), MapsData::Burn(x)) => {
            let scale_shift = norm.scale_shift(&x, bands);
            let height = x.dims()[2];
            let input = |band| scaled_swish(rows(&x, band), scale_shift.scale.clone(), scale_shift.shift.clone());
            let result = in_bands(bands, height, |band| conv.forward_band(band, height, input));
            // Not needed any more, and as large as the result.
            drop(x);
            match residual.map(|maps| maps.0) {
                Some(MapsData::Burn(residual)) => (residual + result).into(),
                #[cfg(feature = "cube")]
                Some(MapsData::Gpu(_)) => unreachable!("{ONE_PLACE}"),
                None => result.into(),
            }
        }
        #[cfg(feature = "cube")]
        _ => unreachable!("{ONE_PLACE}"),
    }
}

/// Halves the size by a convolution of stride 2, with zeros to the right and below.
#[must_use]
pub fn downsample(conv: &Conv2d, x: Maps) -> Maps {
    match (&conv.weights, x.0) {
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => {
            let resize = lumina_cube::conv::Resize::Halve;
            conv.run(&x, lumina_cube::conv::ConvOptions { resize, ..Default::default() })
        }
        (ConvWeights::Burn(conv), MapsData::Burn(x)) => conv.padded(x, (0, 1), 2).into(),
        #[cfg(feature = "cube")]
        _ => unreachable!("{ONE_PLACE}"),
    }
}

/// Doubles the size by repeating pixels, followed by a convolution.
#[must_use]
pub fn upsample(conv: &Conv2d, x: &Maps, bands: Bands) -> Maps {
    match (&conv.weights, &x.0) {
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => {
            let resize = lumina_cube::conv::Resize::Double;
            conv.run(x, lumina_cube::conv::ConvOptions { resize, ..Default::default() })
        }
        (ConvWeights::Burn(conv), MapsData::Burn(x)) => {
            let height = 2 * x.dims()[2];
            let result = in_bands(bands, height, |band| conv.forward_band(band, height, |rows| upsample2x(x, rows)));
            result.into()
        }
        #[cfg(feature = "cube")]
        _ => unreachable!("{ONE_PLACE}"),
    }
}
