//! The encoder and the decoder of the VQGAN.

use lumina_checkpoint::Dtype;
use lumina_nn::Loader;
use lumina_nn::ops::{Bands, Conv2d, GroupNorm, Maps, downsample, norm_swish, norm_swish_conv, upsample};

use crate::VqConfig;
use crate::layers::{Level, LevelConfig, Middle, norm};

/// Pixels `[batch, 3, height, width]` to latents `[batch, latent_channels, height/16, width/16]`.
///
/// Mirrors `taming.modules.diffusionmodules.model.Encoder`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct Encoder {
    conv_in: Conv2d,
    down: Vec<Level>,
    downsample: Vec<Conv2d>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    /// The side of a patch, where each is encoded by itself.
    patch: Option<usize>,
}

impl Encoder {
    pub(crate) fn new(loader: &Loader<'_>, config: &VqConfig) -> Self {
        let channels = config.level_channels();
        let coarsest = channels.len() - 1;
        let down = loader.pp("down");
        Self {
            conv_in: loader.pp("conv_in").conv(3, config.channels, 3),
            down: down.parts(channels.len(), |loader, level| {
                let level_config = LevelConfig {
                    inputs: if level == 0 { config.channels } else { channels[level - 1] },
                    outputs: channels[level],
                    n_blocks: config.n_res_blocks,
                    has_attention: config.has_attention(level),
                    is_local: config.is_local,
                };
                Level::new(loader, level_config)
            }),
            downsample: down.parts(coarsest, |loader, level| {
                loader.pp("downsample.conv").conv(channels[level], channels[level], 3)
            }),
            mid: Middle::new(&loader.pp("mid"), channels[coarsest], config.is_local),
            norm_out: norm(&loader.pp("norm_out"), channels[coarsest], config.is_local),
            conv_out: loader.pp("conv_out").conv(channels[coarsest], config.latent_channels, 3),
            patch: config.is_local.then_some(1 << coarsest),
        }
    }

    /// Small activations, and so maybe the result, are in `f64`.
    pub(crate) fn forward(&self, pixels: Maps, bands: Bands) -> Maps {
        let Some(side) = self.patch else { return self.images(pixels, bands) };
        let [batch, _, height, width] = pixels.dims();
        self.images(pixels.into_patches(side), bands).from_patches([batch, height / side, width / side])
    }

    fn images(&self, pixels: Maps, bands: Bands) -> Maps {
        let dtype = pixels.dtype();
        let mut x = self.conv_in.forward(in_precision(&self.norm_out, pixels, dtype));
        for (index, level) in self.down.iter().enumerate() {
            x = level.forward(x, bands);
            if let Some(conv) = self.downsample.get(index) {
                x = in_precision(&self.norm_out, downsample(conv, x), dtype);
            }
        }
        let x = self.mid.forward(x);
        norm_swish_conv(&self.norm_out, &self.conv_out, x, Bands::Whole, None)
    }
}

/// The maps in the type that a layer before such norms computes them in: without statistics nothing enlarges the errors
/// of rounding.
fn in_precision(norm: &GroupNorm, x: Maps, dtype: Dtype) -> Maps {
    if norm.has_statistics() { x.in_precision(dtype) } else { x }
}

/// Latents to pixels. Mirrors `taming.modules.diffusionmodules.model.Decoder`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct Decoder {
    conv_in: Conv2d,
    mid: Middle,
    /// The finest level first, as in the checkpoint. They run in reverse order.
    up: Vec<Level>,
    /// `upsample[i]` enlarges the output of level `i + 1` for level `i`.
    upsample: Vec<Conv2d>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(crate) fn new(loader: &Loader<'_>, config: &VqConfig) -> Self {
        let channels = config.level_channels();
        let coarsest = channels.len() - 1;
        let up = loader.pp("up");
        Self {
            conv_in: loader.pp("conv_in").conv(config.latent_channels, channels[coarsest], 3),
            mid: Middle::new(&loader.pp("mid"), channels[coarsest], config.is_local),
            up: up.parts(channels.len(), |loader, level| {
                let level_config = LevelConfig {
                    inputs: channels[(level + 1).min(coarsest)],
                    outputs: channels[level],
                    n_blocks: config.n_res_blocks + 1,
                    has_attention: config.has_attention(level),
                    is_local: config.is_local,
                };
                Level::new(loader, level_config)
            }),
            // The finest level has none.
            upsample: up.parts(coarsest, |_, below| {
                let level = below + 1;
                up.pp(level).pp("upsample.conv").conv(channels[level], channels[level], 3)
            }),
            norm_out: norm(&loader.pp("norm_out"), channels[0], config.is_local),
            conv_out: loader.pp("conv_out").conv(channels[0], 3, 3),
        }
    }

    /// Small activations are in `f64`, those of the last level in `dtype`.
    pub(crate) fn forward(&self, latents: Maps, dtype: Dtype, bands: Bands) -> Maps {
        norm_swish_conv(&self.norm_out, &self.conv_out, self.levels(latents, dtype, bands), bands, None)
    }

    /// [`Maps::in_precision`], where norms have statistics.
    pub(crate) fn in_precision(&self, x: Maps, dtype: Dtype) -> Maps {
        in_precision(&self.norm_out, x, dtype)
    }

    /// All layers but the last convolution.
    pub(crate) fn features(&self, latents: Maps, dtype: Dtype) -> Maps {
        norm_swish(&self.norm_out, self.levels(latents, dtype, Bands::Whole))
    }

    /// The last convolution.
    pub(crate) fn last_layer(&self, features: Maps) -> Maps {
        self.conv_out.forward(features)
    }

    fn levels(&self, latents: Maps, dtype: Dtype, bands: Bands) -> Maps {
        let mut x = self.mid.forward(self.conv_in.forward(latents));
        for (index, level) in self.up.iter().enumerate().rev() {
            if let Some(conv) = self.upsample.get(index) {
                x = self.in_precision(upsample(conv, &x, bands), dtype);
            }
            x = level.forward(x, bands);
        }
        x
    }
}
