//! The blocks of the encoder and decoder: residual, attention, and levels of them.
//!
//! Each maps `[batch, channels, height, width]`. Those of the decoder can compute one band of rows at a time, to bound
//! their temporaries. The result is the same: a convolution also reads the rows next to its band, and group norms
//! compute their statistics over the whole image. Local networks have neither statistics nor attention.

use lumina_nn::Loader;
use lumina_nn::ops::{Bands, Conv2d, GroupNorm, Maps, maps_attention, norm_swish_conv};

use crate::config::GROUPS;

/// A norm of the networks: without statistics in local ones.
pub(crate) fn norm(loader: &Loader<'_>, channels: usize, is_local: bool) -> GroupNorm {
    if is_local { GroupNorm::affine(loader, channels) } else { GroupNorm::new(loader, channels, GROUPS) }
}

/// Norm, swish and convolution twice, plus a shortcut.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(crate) fn new(loader: &Loader<'_>, inputs: usize, outputs: usize, is_local: bool) -> Self {
        Self {
            norm1: norm(&loader.pp("norm1"), inputs, is_local),
            conv1: loader.pp("conv1").conv(inputs, outputs, 3),
            norm2: norm(&loader.pp("norm2"), outputs, is_local),
            conv2: loader.pp("conv2").conv(outputs, outputs, 3),
            nin_shortcut: (inputs != outputs).then(|| loader.pp("nin_shortcut").conv(inputs, outputs, 1)),
        }
    }

    pub(crate) fn forward(&self, x: Maps, bands: Bands) -> Maps {
        let first = norm_swish_conv(&self.norm1, &self.conv1, x.clone(), bands, None);
        match &self.nin_shortcut {
            Some(shortcut) => {
                let hidden = norm_swish_conv(&self.norm2, &self.conv2, first, bands, None);
                shortcut.forward_add(x, hidden)
            }
            None => norm_swish_conv(&self.norm2, &self.conv2, first, bands, Some(x)),
        }
    }
}

/// Self-attention over all positions, with one head.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct AttentionBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttentionBlock {
    pub(crate) fn new(loader: &Loader<'_>, channels: usize) -> Self {
        let conv = |name| loader.pp(name).conv(channels, channels, 1);
        Self {
            norm: norm(&loader.pp("norm"), channels, false),
            q: conv("q"),
            k: conv("k"),
            v: conv("v"),
            proj_out: conv("proj_out"),
        }
    }

    pub(crate) fn forward(&self, x: Maps) -> Maps {
        let normed = self.norm.forward(x.clone());
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|conv| conv.forward(normed.clone()));
        drop(normed);
        self.proj_out.forward_add(maps_attention(q, k, v), x)
    }
}

/// Residual block, attention unless the network is local, residual block, at the coarsest level.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct Middle {
    block_1: ResidualBlock,
    attn_1: Option<AttentionBlock>,
    block_2: ResidualBlock,
}

impl Middle {
    pub(crate) fn new(loader: &Loader<'_>, channels: usize, is_local: bool) -> Self {
        let block = |name| ResidualBlock::new(&loader.pp(name), channels, channels, is_local);
        Self {
            block_1: block("block_1"),
            attn_1: (!is_local).then(|| AttentionBlock::new(&loader.pp("attn_1"), channels)),
            block_2: block("block_2"),
        }
    }

    pub(crate) fn forward(&self, x: Maps) -> Maps {
        let x = self.block_1.forward(x, Bands::Whole);
        let x = match &self.attn_1 {
            Some(attention) => attention.forward(x),
            None => x,
        };
        self.block_2.forward(x, Bands::Whole)
    }
}

/// The size of a [`Level`].
pub(crate) struct LevelConfig {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) n_blocks: usize,
    pub(crate) has_attention: bool,
    pub(crate) is_local: bool,
}

/// The layers at one resolution: residual blocks, each followed by attention if the config asks for it.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct Level {
    block: Vec<ResidualBlock>,
    attn: Vec<AttentionBlock>,
}

impl Level {
    pub(crate) fn new(loader: &Loader<'_>, config: LevelConfig) -> Self {
        let LevelConfig { inputs, outputs, n_blocks, has_attention, is_local } = config;
        let (block, attn) = (loader.pp("block"), loader.pp("attn"));
        Self {
            block: block.parts(n_blocks, |loader, index| {
                ResidualBlock::new(loader, if index == 0 { inputs } else { outputs }, outputs, is_local)
            }),
            attn: attn
                .parts(if has_attention { n_blocks } else { 0 }, |loader, _| AttentionBlock::new(loader, outputs)),
        }
    }

    pub(crate) fn forward(&self, mut x: Maps, bands: Bands) -> Maps {
        for (index, block) in self.block.iter().enumerate() {
            x = block.forward(x, bands);
            if let Some(attention) = self.attn.get(index) {
                x = attention.forward(x);
            }
        }
        x
    }
}
