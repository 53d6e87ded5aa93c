//! The VQGAN: encoder, codebook, decoder.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lumina_nn::Loader;

use crate::layers::{Bands, Conv};
use crate::networks::{Decoder, Encoder};
use crate::{Error, Result, VqConfig};

/// A VQGAN on a Burn device; users hold an [`ImageTokenizer`](crate::ImageTokenizer), trainers this.
///
/// The functions map tensors to tensors, and gradients flow through all but [`VqModel::quantize`].
/// Mirrors `taming.models.vqgan.VQModel`.
#[derive(Module, Debug)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv,
    codebook: Param<Tensor<2>>,
    decode: Option<DecodePart>,
}

#[derive(Module, Debug)]
struct DecodePart {
    post_quant_conv: Conv,
    decoder: Decoder,
}

/// Positions looked up in the codebook at a time; bounds the table of distances.
const LOOKUP: usize = 256;

impl VqModel {
    /// Builds the network from its tensors. Without a decoder in the checkpoint (Hugging Face folders have none) it
    /// can encode only. Problems are reported by [`Loader::finish`].
    pub fn new(loader: &Loader<'_>, config: &VqConfig, with_decoder: bool) -> Self {
        let (embed, latent) = (config.embed_dim, config.latent_channels);
        Self {
            // Which code is the nearest may hang on little; pixels do not.
            encoder: Encoder::new(&loader.pp("encoder"), config),
            quant_conv: Conv::new(&loader.pp("quant_conv"), latent, embed, 1),
            codebook: loader.param("quantize.embedding.weight", [config.n_codes, embed]),
            decode: with_decoder.then(|| DecodePart {
                post_quant_conv: Conv::new(&loader.pp("post_quant_conv"), embed, latent, 1),
                decoder: Decoder::new(&loader.pp("decoder"), config),
            }),
        }
    }

    /// Whether codes can be decoded.
    pub fn has_decoder(&self) -> bool {
        self.decode.is_some()
    }

    /// Pixels in −1 ..= 1, `[batch, 3, height, width]`, to latents before quantization,
    /// `[batch, embed_dim, height/16, width/16]`. Height and width must be multiples of the factor.
    pub fn latents(&self, pixels: Tensor<4>) -> Tensor<4> {
        self.quant_conv.forward(self.encoder.forward(pixels))
    }

    /// The nearest code of each latent by squared L2 distance, the first of equals; in the order batch, row, column.
    ///
    /// # Errors
    /// [`Error::Compute`] where the device fails, [`Error::NotFinite`] where a latent has no nearest code.
    pub fn quantize(&self, latents: Tensor<4>) -> Result<Vec<u32>> {
        let [batch, embed, height, width] = latents.dims();
        let flat = latents.permute([0, 2, 3, 1]).reshape([batch * height * width, embed]);
        let codebook = self.codebook.val();
        let norms: Vec<f32> = lumina_nn::ops::read(codebook.clone().square().sum_dim(1))?;
        let transposed = codebook.transpose();
        let n_positions = batch * height * width;
        let mut codes = Vec::with_capacity(n_positions);
        for start in (0..n_positions).step_by(LOOKUP) {
            let positions = flat.clone().narrow(0, start, LOOKUP.min(n_positions - start));
            let products: Vec<f32> = lumina_nn::ops::read(positions.matmul(transposed.clone()))?;
            for row in products.chunks_exact(norms.len()) {
                // |z − e|² without |z|², which is the same for all codes.
                let distances = row.iter().zip(&norms).map(|(product, norm)| norm - 2.0 * product);
                let nearest = distances
                    .enumerate()
                    .filter(|(_, distance)| distance.is_finite())
                    .reduce(|best, candidate| if candidate.1 < best.1 { candidate } else { best });
                codes.push(nearest.ok_or(Error::NotFinite)?.0 as u32);
            }
        }
        Ok(codes)
    }

    /// The codebook's entries for `codes`, as latents `[batch, embed_dim, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Code`] where a code is not in the codebook, [`Error::Batch`] where the number of codes is not
    /// `batch · rows · columns`.
    pub fn lookup(&self, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Result<Tensor<4>> {
        if codes.len() != batch * rows * columns || codes.is_empty() {
            return Err(Error::Batch {
                reason: format!("{} codes for {batch} grids of {rows}x{columns}", codes.len()),
            });
        }
        let codebook = self.codebook.val();
        let [n_codes, embed] = codebook.dims();
        if let Some(&code) = codes.iter().find(|&&code| code as usize >= n_codes) {
            return Err(Error::Code { code, n_codes });
        }
        let indices: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
        let indices = Tensor::from_data(indices.as_slice(), &codebook.device());
        Ok(codebook.select(0, indices).reshape([batch, rows, columns, embed]).permute([0, 3, 1, 2]))
    }

    /// The codebook, `[n_codes, embed_dim]`.
    pub fn codebook(&self) -> Tensor<2> {
        self.codebook.val()
    }

    /// Replaces the codebook by another of its shape: for training, where some codes are not found by gradients.
    ///
    /// # Errors
    /// [`Error::Batch`] where the shape is another.
    pub fn set_codebook(&mut self, entries: Tensor<2>) -> Result<()> {
        let (found, expected) = (entries.dims(), self.codebook.dims());
        if found != expected {
            return Err(Error::Batch { reason: format!("a codebook of {found:?} in place of one of {expected:?}") });
        }
        self.codebook = self.codebook.clone().map(|old| {
            let tracked = old.is_require_grad();
            entries.detach().set_require_grad(tracked)
        });
        Ok(())
    }

    /// The first part of [`VqModel::decode`]: all but the last convolution, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn decode_features(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        Ok(part.decoder.features(part.post_quant_conv.forward(latents)))
    }

    /// The last convolution of [`VqModel::decode`], `decoder.conv_out`: what a GAN's adaptive weight is measured at.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn last_layer(&self, features: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.decode.as_ref().ok_or(Error::NoDecoder)?.decoder.last_layer(features))
    }

    /// Latents from [`VqModel::lookup`] to pixels, `[batch, 3, rows·16, columns·16]`, not clamped.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn decode(&self, latents: Tensor<4>, bands: Bands) -> Result<Tensor<4>> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        Ok(part.decoder.forward(part.post_quant_conv.forward(latents), bands))
    }
}
