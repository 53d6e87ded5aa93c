//! Group norm of feature maps, and the norm without statistics in its place.

use super::{Maps, MapsData};
use crate::Loader;
use crate::ops::Values;
use crate::ops::host::HostNorm;

/// Group norm with an epsilon of 1e-6, or `x · weight + bias` for each channel.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub struct GroupNorm {
    pub(in crate::ops) weight: Values<1>,
    pub(in crate::ops) bias: Values<1>,
    /// None where there are no statistics.
    pub(in crate::ops) groups: Option<usize>,
}

impl GroupNorm {
    /// `weight` and `bias`, `[channels]` each. Channels are a multiple of groups.
    pub fn new(loader: &Loader<'_>, channels: usize, groups: usize) -> Self {
        Self { groups: Some(groups), ..Self::affine(loader, channels) }
    }

    /// `x · weight + bias` with `weight` and `bias`, `[channels]` each, in the place of a group norm. A position does
    /// not depend on others, as it does where they share statistics.
    pub fn affine(loader: &Loader<'_>, channels: usize) -> Self {
        Self { weight: loader.values("weight", [channels]), bias: loader.values("bias", [channels]), groups: None }
    }

    /// Whether a group's spread divides its values, and so enlarges errors of rounding.
    pub fn has_statistics(&self) -> bool {
        self.groups.is_some()
    }

    /// `x` `[batch, channels, height, width]` → the same.
    #[must_use]
    pub fn forward(&self, x: Maps) -> Maps {
        match x.0 {
            MapsData::Host(x) => x.norm(self.on_host()).into(),
            #[cfg(feature = "cube")]
            MapsData::Gpu(x) => x.with(lumina_cube::norm::scaled(&x.gpu, &x.maps, &self.on_gpu(&x), false)),
            #[cfg(feature = "burn")]
            MapsData::Burn(x) => crate::ops::burn::group_norm(self, x).into(),
        }
    }

    pub(super) fn on_host(&self) -> HostNorm<'_> {
        let [weight, bias] = [&self.weight, &self.bias].map(|values| values.slice().expect(crate::ops::ONE_PLACE));
        HostNorm { weight, bias, groups: self.groups }
    }

    #[cfg(feature = "cube")]
    pub(super) fn on_gpu(&self, x: &super::GpuMaps) -> lumina_cube::norm::ScaleShift {
        let [weight, bias] = [&self.weight, &self.bias].map(|values| values.buffer().expect(crate::ops::ONE_PLACE));
        match self.groups {
            Some(groups) => lumina_cube::norm::group_norm(&x.gpu, &x.maps, groups, weight, bias),
            None => lumina_cube::norm::affine(&x.gpu, &x.maps, weight, bias),
        }
    }
}

/// Norm and swish.
#[must_use]
pub fn norm_swish(norm: &GroupNorm, x: Maps) -> Maps {
    match x.0 {
        MapsData::Host(x) => x.norm_swish(norm.on_host()).into(),
        #[cfg(feature = "cube")]
        MapsData::Gpu(x) => x.with(lumina_cube::norm::scaled(&x.gpu, &x.maps, &norm.on_gpu(&x), true)),
        #[cfg(feature = "burn")]
        MapsData::Burn(x) => crate::ops::burn::norm_swish(norm, x).into(),
    }
}
