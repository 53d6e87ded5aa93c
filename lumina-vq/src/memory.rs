//! Bytes that encoding and decoding take, from the network's shape: known before they are taken.

use lumina_nn::ops::Bands;

use crate::VqConfig;

/// Bytes for all that is small: biases, statistics, codes, the table of distances to the codebook.
const WORKING_BYTES: u64 = 24 << 20;

/// Bytes of a patch of a local network besides its pixels: its place, and its entry among the others.
const PATCH_BYTES: usize = 256;

/// Values of Winograd's transformed tiles, for each channel and thread: 36 points of 32 tiles.
const TILE_VALUES: u64 = 36 * 32;

/// Walks through a network, and keeps the most values that are there at once.
struct Walk {
    batch: u64,
    bands: Bands,
    /// Rows and columns of the activation.
    plane: [u64; 2],
    peak: u64,
}

/// The most bytes at once of decoding `batch` grids of `rows` × `columns` codes.
pub(crate) fn decode_bytes(config: &VqConfig, [batch, rows, columns]: [usize; 3], bands: Bands) -> u64 {
    let channels = config.level_channels();
    let coarsest = channels.len() - 1;
    let mut walk = Walk::new(batch, [rows, columns], bands);
    walk.conv(config.latent_channels, channels[coarsest], Bands::Whole);
    walk.middle(config, channels[coarsest]);
    for level in (0..=coarsest).rev() {
        let inputs = channels[(level + 1).min(coarsest)];
        if level < coarsest {
            walk.upsample(inputs);
        }
        walk.level(config, level, inputs, config.n_res_blocks + 1);
    }
    walk.conv(channels[0], 3, bands);
    walk.bytes()
}

/// The most patches that a local network encodes at a time: whole, as many pixels as the largest images have.
pub(crate) fn patches_at_once(bands: Bands) -> usize {
    match bands {
        Bands::Whole => 1024,
        Bands::Rows(rows) => rows.clamp(1, 1024),
    }
}

/// The most bytes at once of encoding `batch` images of `height` × `width` pixels.
pub(crate) fn encode_bytes(config: &VqConfig, [batch, height, width]: [usize; 3], bands: Bands) -> u64 {
    if !config.is_local {
        return encode_whole_bytes(config, [batch, height, width], bands);
    }
    let side = config.factor() as usize;
    let patches = (height / side).saturating_mul(width / side).saturating_mul(batch);
    let at_once = encode_whole_bytes(config, [patches.min(patches_at_once(bands)), side, side], bands);
    // The patches in 8 bits, and where each is.
    at_once.saturating_add((patches as u64).saturating_mul((3 * side * side + PATCH_BYTES) as u64))
}

fn encode_whole_bytes(config: &VqConfig, [batch, height, width]: [usize; 3], bands: Bands) -> u64 {
    let channels = config.level_channels();
    let coarsest = channels.len() - 1;
    let mut walk = Walk::new(batch, [height, width], bands);
    walk.conv(3, config.channels, Bands::Whole);
    for level in 0..=coarsest {
        let inputs = if level == 0 { config.channels } else { channels[level - 1] };
        walk.level(config, level, inputs, config.n_res_blocks);
        if level < coarsest {
            walk.hold([walk.values(channels[level]), walk.values(channels[level])]);
            walk.plane = walk.plane.map(|side| side / 2);
        }
    }
    walk.middle(config, channels[coarsest]);
    walk.conv(channels[coarsest], config.latent_channels, Bands::Whole);
    walk.bytes()
}

impl Walk {
    fn new(batch: usize, plane: [usize; 2], bands: Bands) -> Self {
        let mut walk = Self { batch: batch as u64, bands, plane: plane.map(|side| side as u64), peak: 0 };
        // Codes, latents and their copies, or pixels.
        walk.hold([walk.values(3); 3]);
        walk
    }

    /// Values of an activation.
    fn values(&self, channels: usize) -> u64 {
        self.rows_of(channels, self.plane[0])
    }

    /// Values of some rows of an activation.
    fn rows_of(&self, channels: usize, rows: u64) -> u64 {
        [self.batch, channels as u64, rows, self.plane[1]].into_iter().fold(1, u64::saturating_mul)
    }

    /// Notes that activations of so many values are there at once.
    fn hold<const N: usize>(&mut self, values: [u64; N]) {
        self.peak = self.peak.max(values.into_iter().fold(0, u64::saturating_add));
    }

    /// The input of a convolution of `rows` rows, its result, and what the convolution itself takes: Winograd's
    /// transformed weights, or, in narrow images in tensors, Burn's copies of both in another order.
    fn conv_of(&self, inputs: usize, outputs: usize, rows: u64) -> u64 {
        let weights = 36 * (inputs as u64) * (outputs.next_multiple_of(8) as u64);
        let (x, y) = (self.rows_of(inputs, rows.saturating_add(2)), self.rows_of(outputs, rows));
        let tiles = rayon::current_num_threads() as u64 * TILE_VALUES * (inputs as u64 + 32);
        let copies = if self.plane[1] < 12 { x.saturating_add(y) } else { weights + tiles };
        // Small activations are computed in `f64`, with a copy of the weights.
        let copies = copies.max(if self.plane[0].saturating_mul(self.plane[1]) <= 64 { weights } else { 0 });
        x.saturating_add(y).saturating_add(copies)
    }

    fn conv(&mut self, inputs: usize, outputs: usize, bands: Bands) {
        // Norm and swish before it keep another input.
        self.norm_swish_conv(inputs, outputs, bands, 0);
    }

    /// `held` values are there besides.
    fn norm_swish_conv(&mut self, inputs: usize, outputs: usize, bands: Bands, held: u64) {
        let height = self.plane[0];
        let rows = match bands {
            Bands::Whole => height,
            Bands::Rows(rows) => height.min(rows.max(1) as u64),
        };
        let x = self.values(inputs);
        // The bands are copied out of the input, and into the result.
        let (copy, result) =
            if rows < height { (self.rows_of(inputs, rows.saturating_add(2)), self.values(outputs)) } else { (0, 0) };
        self.hold([held, x, copy, self.conv_of(inputs, outputs, rows), result]);
    }

    fn residual(&mut self, inputs: usize, outputs: usize, bands: Bands) {
        self.norm_swish_conv(inputs, outputs, bands, 0);
        self.norm_swish_conv(outputs, outputs, bands, self.values(inputs));
        // The shortcut, to which the result is added.
        self.hold([self.values(inputs), self.values(outputs), self.values(outputs)]);
    }

    /// Queries, keys, values, and tables of scores of all positions for each other: two in tensors, one in host memory.
    fn attention(&mut self, channels: usize) {
        let positions = self.values(1) / self.batch.max(1);
        let scores = self.values(1).saturating_mul(positions);
        self.hold([self.values(channels).saturating_mul(6), scores, scores]);
    }

    fn middle(&mut self, config: &VqConfig, channels: usize) {
        self.residual(channels, channels, Bands::Whole);
        if !config.is_local {
            self.attention(channels);
        }
    }

    fn level(&mut self, config: &VqConfig, level: usize, inputs: usize, n_blocks: usize) {
        let outputs = config.level_channels()[level];
        for index in 0..n_blocks {
            self.residual(if index == 0 { inputs } else { outputs }, outputs, self.bands);
        }
        if config.has_attention(level) && n_blocks > 0 {
            self.attention(outputs);
        }
    }

    fn upsample(&mut self, channels: usize) {
        let coarse = self.values(channels);
        self.plane = self.plane.map(|side| side.saturating_mul(2));
        let height = self.plane[0];
        let (rows, result) = match self.bands {
            Bands::Rows(rows) if (rows as u64) < height => (rows.max(1) as u64, self.values(channels)),
            _ => (height, 0),
        };
        self.hold([coarse, self.conv_of(channels, channels, rows), result]);
    }

    fn bytes(&self) -> u64 {
        self.peak.saturating_mul(size_of::<f32>() as u64).saturating_add(WORKING_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use lumina_core::{Limits, crop_sizes};

    use super::*;
    use crate::VqHyperparameters;

    /// Meta's network.
    fn published() -> VqConfig {
        let hyperparameters = VqHyperparameters {
            embed_dim: 256,
            n_codes: 8192,
            channels: 128,
            multipliers: vec![1, 1, 2, 2, 4],
            n_res_blocks: 2,
            attention_resolutions: Vec::new(),
            latent_channels: 256,
            resolution: 512,
            is_local: false,
        };
        VqConfig::new(hyperparameters).expect("valid")
    }

    #[test]
    fn the_default_limit_is_enough_for_every_published_size() {
        let limit = Limits::default().vq_decode_bytes;
        for size in [512, 768, 1024].into_iter().flat_map(|target| crop_sizes(target).expect("a target size")) {
            let grid = [1, size.latent_rows() as usize, size.latent_columns() as usize];
            let pixels = [1, size.height_px() as usize, size.width_px() as usize];
            for bytes in
                [decode_bytes(&published(), grid, Bands::Whole), encode_bytes(&published(), pixels, Bands::Whole)]
            {
                assert!(bytes < limit / 2, "{size}: {bytes}");
            }
        }
    }

    #[test]
    fn sizes_that_nobody_has_are_counted_without_overflow() {
        for side in [0, 1, usize::MAX] {
            let bytes = decode_bytes(&published(), [side; 3], Bands::Rows(side));
            assert_eq!(bytes == u64::MAX, side == usize::MAX);
        }
    }
}
