//! Convolutions of feature maps, alone, after a group norm and swish, and with another size of the result.

use super::bands::Bands;
use super::group_norm::GroupNorm;
use super::{Maps, MapsData};
use crate::ops::ONE_PLACE;
use crate::ops::host::HostConv;

/// A convolution of 1×1 or 3×3 with its bias. Made by [`Loader::conv`](crate::Loader::conv).
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub struct Conv2d {
    weights: ConvWeights,
}

/// Weights and bias, where the convolution computes.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) enum ConvWeights {
    Host(HostConv),
    #[cfg(feature = "cube")]
    Gpu(GpuConv),
    #[cfg(feature = "burn")]
    Burn(crate::ops::burn::TensorConv),
}

/// Cloning it copies no weight.
#[cfg(feature = "cube")]
#[derive(Debug, Clone)]
pub(crate) struct GpuConv(pub(crate) lumina_cube::conv::ConvWeights);

impl Conv2d {
    pub(crate) fn new(weights: ConvWeights) -> Self {
        Self { weights }
    }

    /// Convolves the whole image with stride 1 and zeros around it: the size is kept.
    #[must_use]
    pub fn forward(&self, x: Maps) -> Maps {
        match (&self.weights, x.0) {
            (ConvWeights::Host(conv), MapsData::Host(x)) => x.conv(conv).into(),
            #[cfg(feature = "cube")]
            (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => conv.run(&x, lumina_cube::conv::ConvOptions::default()),
            #[cfg(feature = "burn")]
            (ConvWeights::Burn(conv), MapsData::Burn(x)) => conv.same(x).into(),
            _ => unreachable!("{ONE_PLACE}"),
        }
    }

    /// [`Conv2d::forward`] plus `residual`, which has the result's shape.
    #[must_use]
    pub fn forward_add(&self, x: Maps, residual: Maps) -> Maps {
        match (&self.weights, x.0, residual.0) {
            (ConvWeights::Host(conv), MapsData::Host(x), MapsData::Host(residual)) => {
                x.conv(conv).add(&residual).into()
            }
            #[cfg(feature = "cube")]
            (ConvWeights::Gpu(conv), MapsData::Gpu(x), MapsData::Gpu(residual)) => {
                let residual = Some(&residual.maps);
                conv.run(&x, lumina_cube::conv::ConvOptions { residual, ..Default::default() })
            }
            #[cfg(feature = "burn")]
            (ConvWeights::Burn(conv), MapsData::Burn(x), MapsData::Burn(residual)) => (conv.same(x) + residual).into(),
            _ => unreachable!("{ONE_PLACE}"),
        }
    }
}

#[cfg(feature = "cube")]
impl GpuConv {
    fn run(&self, x: &super::GpuMaps, options: lumina_cube::conv::ConvOptions<'_>) -> Maps {
        let options = lumina_cube::conv::ConvOptions { precision: x.precision, ..options };
        x.with(lumina_cube::conv::conv(&x.gpu, &x.maps, &self.0, options))
    }
}

/// `conv(swish(norm(x)))`, plus a residual of the result's shape: the parts of residual blocks, and the last layers of
/// both networks. `x` `[batch, inputs, height, width]` → `[batch, outputs, height, width]`.
#[must_use]
pub fn norm_swish_conv(norm: &GroupNorm, conv: &Conv2d, x: Maps, bands: Bands, residual: Option<Maps>) -> Maps {
    match (&conv.weights, x.0, residual.map(|maps| maps.0)) {
        (ConvWeights::Host(conv), MapsData::Host(x), None) => x.norm_swish_conv(norm.on_host(), conv, bands).into(),
        (ConvWeights::Host(conv), MapsData::Host(x), Some(MapsData::Host(residual))) => {
            let result = x.norm_swish_conv(norm.on_host(), conv, bands);
            // Not needed any more, and as large as the result.
            drop(x);
            result.add(&residual).into()
        }
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x), residual) => {
            let residual = residual.map(|maps| match maps {
                MapsData::Gpu(own) => own.maps,
                _ => unreachable!("{ONE_PLACE}"),
            });
            let norm = norm.on_gpu(&x);
            let input = lumina_cube::conv::Input::NormedSwish(&norm);
            conv.run(&x, lumina_cube::conv::ConvOptions { input, residual: residual.as_ref(), ..Default::default() })
        }
        #[cfg(feature = "burn")]
        (ConvWeights::Burn(conv), MapsData::Burn(x), None) => conv.after_norm_swish(norm, x, bands).into(),
        #[cfg(feature = "burn")]
        (ConvWeights::Burn(conv), MapsData::Burn(x), Some(MapsData::Burn(residual))) => {
            let result = conv.after_norm_swish(norm, x, bands);
            (residual + result).into()
        }
        _ => unreachable!("{ONE_PLACE}"),
    }
}

/// Halves the size by a convolution of stride 2, with zeros to the right and below.
#[must_use]
pub fn downsample(conv: &Conv2d, x: Maps) -> Maps {
    match (&conv.weights, x.0) {
        (ConvWeights::Host(conv), MapsData::Host(x)) => x.halved(conv).into(),
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => {
            let resize = lumina_cube::conv::Resize::Halve;
            conv.run(&x, lumina_cube::conv::ConvOptions { resize, ..Default::default() })
        }
        #[cfg(feature = "burn")]
        (ConvWeights::Burn(conv), MapsData::Burn(x)) => conv.padded(x, (0, 1), 2).into(),
        _ => unreachable!("{ONE_PLACE}"),
    }
}

/// Doubles the size by repeating pixels, followed by a convolution.
#[must_use]
pub fn upsample(conv: &Conv2d, x: &Maps, bands: Bands) -> Maps {
    match (&conv.weights, &x.0) {
        (ConvWeights::Host(conv), MapsData::Host(x)) => x.doubled(conv, bands).into(),
        #[cfg(feature = "cube")]
        (ConvWeights::Gpu(conv), MapsData::Gpu(x)) => {
            let resize = lumina_cube::conv::Resize::Double;
            conv.run(x, lumina_cube::conv::ConvOptions { resize, ..Default::default() })
        }
        #[cfg(feature = "burn")]
        (ConvWeights::Burn(conv), MapsData::Burn(x)) => conv.after_doubling(x, bands).into(),
        _ => unreachable!("{ONE_PLACE}"),
    }
}
