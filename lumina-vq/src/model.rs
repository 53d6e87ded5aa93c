//! The VQGAN: encoder, codebook, decoder.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lumina_nn::Loader;
use lumina_nn::ops::read;

use crate::layers::{Bands, Conv, as_type, in_precision};
use crate::networks::{Decoder, Encoder};
use crate::{Error, Result, VqConfig};

/// A VQGAN on a Burn device, for training. To encode and decode images, use
/// [`ImageTokenizer`](crate::ImageTokenizer).
///
/// The functions map tensors to tensors. All but [`VqModel::quantize`] are differentiable.
/// Mirrors `taming.models.vqgan.VQModel`.
#[derive(Module)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv,
    codebook: Param<Tensor<2>>,
    decode: Option<LatentDecoder>,
}

/// Latents to pixels.
#[derive(Module, Debug)]
struct LatentDecoder {
    post_quant_conv: Conv,
    decoder: Decoder,
}

/// Positions that are compared with the codebook at a time; bounds the memory of the distances.
const QUANTIZE_CHUNK: usize = 256;

impl VqModel {
    /// Builds the network from its tensors. Without a decoder (Hugging Face folders contain none) it can encode only.
    /// [`Loader::finish`] reports missing and wrong tensors.
    pub fn new(loader: &Loader<'_>, config: &VqConfig, with_decoder: bool) -> Self {
        let (embed, latent) = (config.embed_dim, config.latent_channels);
        Self {
            encoder: Encoder::new(&loader.pp("encoder"), config),
            quant_conv: Conv::new(&loader.pp("quant_conv"), latent, embed, 1),
            codebook: loader.param("quantize.embedding.weight", [config.n_codes, embed]),
            decode: with_decoder.then(|| LatentDecoder {
                post_quant_conv: Conv::new(&loader.pp("post_quant_conv"), embed, latent, 1),
                decoder: Decoder::new(&loader.pp("decoder"), config),
            }),
        }
    }

    /// Whether the network can decode codes.
    pub fn has_decoder(&self) -> bool {
        self.decode.is_some()
    }

    /// Encodes pixels in −1 ..= 1, `[batch, 3, height, width]`, to latents before quantization,
    /// `[batch, embed_dim, height / factor, width / factor]`. Height and width must be multiples of the
    /// [factor](VqConfig::factor), 16 in published models.
    pub fn latents(&self, pixels: Tensor<4>) -> Tensor<4> {
        self.latents_in(pixels, Bands::Whole)
    }

    /// [`VqModel::latents`] that computes some rows of an activation at a time.
    pub(crate) fn latents_in(&self, pixels: Tensor<4>, bands: Bands) -> Tensor<4> {
        let dtype = pixels.dtype();
        as_type(self.quant_conv.forward(self.encoder.forward(pixels, bands)), dtype)
    }

    /// The code with the smallest squared L2 distance to each latent, in the order batch, row, column. Of equal
    /// distances the smaller code wins.
    ///
    /// # Errors
    /// [`Error::Nn`] if the device fails, [`Error::NotFinite`] if a latent is not finite.
    pub fn quantize(&self, latents: Tensor<4>) -> Result<Vec<u32>> {
        let [batch, embed, height, width] = latents.dims();
        let flat = latents.permute([0, 2, 3, 1]).reshape([batch * height * width, embed]);
        let codebook = self.codebook.val();
        let norms = read(codebook.clone().square().sum_dim(1))?;
        let transposed = codebook.transpose();
        let n_positions = batch * height * width;
        let mut codes = Vec::with_capacity(n_positions);
        for start in (0..n_positions).step_by(QUANTIZE_CHUNK) {
            let positions = flat.clone().narrow(0, start, QUANTIZE_CHUNK.min(n_positions - start));
            let products = read(positions.matmul(transposed.clone()))?;
            for row in products.chunks_exact(norms.len()) {
                // |z − e|² = |e|² − 2·z·e + |z|², and |z|² is the same for all codes.
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

    /// Looks up the codebook entries of `codes`, as latents `[batch, embed_dim, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Code`] if a code is not in the codebook, [`Error::Batch`] if the number of codes is not
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

    /// Replaces the codebook, for training methods that do not update it by gradients.
    ///
    /// # Errors
    /// [`Error::CodebookShape`] if the shape differs.
    pub fn set_codebook(&mut self, entries: Tensor<2>) -> Result<()> {
        let (found, expected) = (entries.dims(), self.codebook.dims());
        if found != expected {
            return Err(Error::CodebookShape { found, expected });
        }
        self.codebook = self.codebook.clone().map(|old| {
            let tracked = old.is_require_grad();
            entries.detach().set_require_grad(tracked)
        });
        Ok(())
    }

    /// The output of all decoder layers but the last convolution, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn decode_features(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let dtype = latents.dtype();
        let features = part.decoder.features(part.post_quant_conv.forward(in_precision(latents, dtype)), dtype);
        Ok(as_type(features, dtype))
    }

    /// The last convolution of the decoder, `decoder.conv_out`: features of [`VqModel::decode_features`] to pixels. The
    /// adaptive weight of the adversarial loss is computed from its gradients.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn last_layer(&self, features: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.decode.as_ref().ok_or(Error::NoDecoder)?.decoder.last_layer(features))
    }

    /// Decodes latents of [`VqModel::lookup`] to pixels, `[batch, 3, rows · factor, columns · factor]`. They are not
    /// clamped.
    ///
    /// # Errors
    /// [`Error::NoDecoder`].
    pub fn decode(&self, latents: Tensor<4>, bands: Bands) -> Result<Tensor<4>> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let dtype = latents.dtype();
        let pixels = part.decoder.forward(part.post_quant_conv.forward(in_precision(latents, dtype)), dtype, bands);
        Ok(as_type(pixels, dtype))
    }
}

impl std::fmt::Debug for VqModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VqModel")
            .field("codebook", &self.codebook.dims())
            .field("has_decoder", &self.has_decoder())
            .finish_non_exhaustive()
    }
}
