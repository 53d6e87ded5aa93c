//! Group norm of feature maps.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::bands::Bands;
use super::{Maps, MapsData, as_type};
use crate::Loader;
use crate::ops::{Values, group_moments};

/// Group norm with 32 groups and an epsilon of 1e-6.
#[derive(Module, Debug)]
pub struct GroupNorm {
    weight: Values<1>,
    bias: Values<1>,
    groups: usize,
}

/// What a group norm computes from an image's statistics: `norm(x) = x · scale + shift`, both
/// `[batch, channels, 1, 1]`.
pub(super) struct ScaleShift {
    pub(super) scale: Tensor<4>,
    pub(super) shift: Tensor<4>,
}

impl GroupNorm {
    /// `weight` and `bias`, `[channels]` each. Channels are a multiple of groups.
    pub fn new(loader: &Loader<'_>, channels: usize, groups: usize) -> Self {
        Self { weight: loader.values("weight", [channels]), bias: loader.values("bias", [channels]), groups }
    }

    /// `x` `[batch, channels, height, width]` → the same.
    #[must_use]
    pub fn forward(&self, x: Maps) -> Maps {
        match x.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(x) => x.with(lumina_cube::norm::scaled(&x.gpu, &x.maps, &self.on_gpu(&x), false)),
            MapsData::Burn(x) => self.in_tensors(x).into(),
        }
    }

    fn in_tensors(&self, x: Tensor<4>) -> Tensor<4> {
        let ScaleShift { scale, shift } = self.scale_shift(&x, Bands::Whole);
        x * scale + shift
    }

    pub(super) fn scale_shift(&self, x: &Tensor<4>, bands: Bands) -> ScaleShift {
        let [batch, channels, height, _] = x.dims();
        let groups = self.groups;
        let [mean, variance] = group_moments(x, groups, bands.rows(height));
        let inverse = (variance + 1e-6).sqrt().recip();
        let per_channel =
            |group: Tensor<3>| group.expand([batch, groups, channels / groups]).reshape([batch, channels, 1, 1]);
        let parameter = |value: &Values<1>| as_type(value.tensor(), x.dtype()).reshape([1, value.dims()[0], 1, 1]);
        let scale = per_channel(inverse) * parameter(&self.weight);
        let shift = parameter(&self.bias) - per_channel(mean) * scale.clone();
        ScaleShift { scale, shift }
    }

    #[cfg(feature = "cube")]
    pub(super) fn on_gpu(&self, x: &super::GpuMaps) -> lumina_cube::norm::ScaleShift {
        let [weight, bias] = [&self.weight, &self.bias].map(|values| values.buffer().expect(super::ONE_PLACE));
        lumina_cube::norm::group_norm(&x.gpu, &x.maps, self.groups, weight, bias)
    }
}

/// Norm and swish.
#[must_use]
pub fn norm_swish(norm: &GroupNorm, x: Maps) -> Maps {
    match x.0 {
        #[cfg(feature = "cube")]
        MapsData::Gpu(x) => x.with(lumina_cube::norm::scaled(&x.gpu, &x.maps, &norm.on_gpu(&x), true)),
        MapsData::Burn(x) => activation::silu(norm.in_tensors(x)).into(),
    }
}
