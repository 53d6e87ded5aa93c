//! The VQGAN: encoder, codebook, decoder.

use burn::module::Module;
use burn::tensor::Tensor;
use lumina_nn::Loader;
use lumina_nn::ops::{Bands, Codebook, Conv2d, Maps};

use crate::networks::{Decoder, Encoder};
use crate::{Error, Result, VqConfig};

/// A VQGAN, for training. To encode and decode images, use [`ImageTokenizer`](crate::ImageTokenizer).
///
/// The functions map tensors to tensors. All but [`VqModel::quantize`] are differentiable on a Burn device. Where the
/// weights are on a GPU for the kernels of `lumina-cube`, tensors are copied there and back.
/// Mirrors `taming.models.vqgan.VQModel`.
#[derive(Module)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv2d,
    codebook: Codebook,
    decode: Option<LatentDecoder>,
}

/// Latents to pixels.
#[derive(Module, Debug)]
struct LatentDecoder {
    post_quant_conv: Conv2d,
    decoder: Decoder,
}

impl VqModel {
    /// Builds the network from its tensors. Without a decoder (Hugging Face folders contain none) it can encode only.
    /// [`Loader::finish`] reports missing and wrong tensors.
    pub fn new(loader: &Loader<'_>, config: &VqConfig, with_decoder: bool) -> Self {
        let (embed, latent) = (config.embed_dim, config.latent_channels);
        Self {
            encoder: Encoder::new(&loader.pp("encoder"), config),
            quant_conv: loader.pp("quant_conv").conv(latent, embed, 1),
            codebook: loader.codebook("quantize.embedding.weight", [config.n_codes, embed]),
            decode: with_decoder.then(|| LatentDecoder {
                post_quant_conv: loader.pp("post_quant_conv").conv(embed, latent, 1),
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
    ///
    /// # Errors
    /// [`Error::Nn`] if a GPU fails.
    pub fn latents(&self, pixels: Tensor<4>) -> Result<Tensor<4>> {
        let device = pixels.device();
        Ok(self.latents_of(self.codebook.maps(pixels)?, Bands::Whole).into_tensor(&device)?)
    }

    /// [`VqModel::latents`] that computes some rows of an activation at a time.
    pub(crate) fn latents_of(&self, pixels: Maps, bands: Bands) -> Maps {
        let dtype = pixels.dtype();
        self.quant_conv.forward(self.encoder.forward(pixels, bands)).cast(dtype)
    }

    /// The code with the smallest squared L2 distance to each latent, in the order batch, row, column. Of equal
    /// distances the smaller code wins.
    ///
    /// # Errors
    /// [`Error::Nn`] if the device fails, [`Error::NotFinite`] if a latent is not finite.
    pub fn quantize(&self, latents: Tensor<4>) -> Result<Vec<u32>> {
        self.codes_of(self.codebook.maps(latents)?)
    }

    pub(crate) fn codes_of(&self, latents: Maps) -> Result<Vec<u32>> {
        self.codebook.nearest(latents)?.into_iter().map(|code| code.ok_or(Error::NotFinite)).collect()
    }

    /// Looks up the codebook entries of `codes`, as latents `[batch, embed_dim, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Code`] if a code is not in the codebook, [`Error::Batch`] if the number of codes is not
    /// `batch · rows · columns`.
    pub fn lookup(&self, codes: &[u32], grids: [usize; 3]) -> Result<Tensor<4>> {
        let device = self.codebook.device();
        Ok(self.latents_at(codes, grids)?.into_tensor(&device)?)
    }

    pub(crate) fn latents_at(&self, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Result<Maps> {
        if codes.len() != batch * rows * columns || codes.is_empty() {
            return Err(Error::Batch {
                reason: format!("{} codes for {batch} grids of {rows}x{columns}", codes.len()),
            });
        }
        let [n_codes, _] = self.codebook.dims();
        if let Some(&code) = codes.iter().find(|&&code| code as usize >= n_codes) {
            return Err(Error::Code { code, n_codes });
        }
        Ok(self.codebook.lookup(codes, [batch, rows, columns]))
    }

    /// The codebook, `[n_codes, embed_dim]`.
    pub fn codebook(&self) -> Tensor<2> {
        self.codebook.tensor()
    }

    /// Replaces the codebook, for training methods that do not update it by gradients.
    ///
    /// # Errors
    /// [`Error::CodebookShape`] if the shape differs, [`Error::Nn`] if a GPU fails.
    pub fn set_codebook(&mut self, entries: Tensor<2>) -> Result<()> {
        let (found, expected) = (entries.dims(), self.codebook.dims());
        if found != expected {
            return Err(Error::CodebookShape { found, expected });
        }
        Ok(self.codebook.set(entries)?)
    }

    /// The output of all decoder layers but the last convolution, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a GPU fails.
    pub fn decode_features(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let (device, dtype) = (latents.device(), latents.dtype());
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let latents = self.codebook.maps(latents)?.in_precision(dtype);
        let features = part.decoder.features(part.post_quant_conv.forward(latents), dtype);
        Ok(features.cast(dtype).into_tensor(&device)?)
    }

    /// The last convolution of the decoder, `decoder.conv_out`: features of [`VqModel::decode_features`] to pixels. The
    /// adaptive weight of the adversarial loss is computed from its gradients.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a GPU fails.
    pub fn last_layer(&self, features: Tensor<4>) -> Result<Tensor<4>> {
        let device = features.device();
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        Ok(part.decoder.last_layer(self.codebook.maps(features)?).into_tensor(&device)?)
    }

    /// Decodes latents of [`VqModel::lookup`] to pixels, `[batch, 3, rows · factor, columns · factor]`. They are not
    /// clamped.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a GPU fails.
    pub fn decode(&self, latents: Tensor<4>, bands: Bands) -> Result<Tensor<4>> {
        let device = latents.device();
        Ok(self.pixels_of(self.codebook.maps(latents)?, bands)?.into_tensor(&device)?)
    }

    pub(crate) fn pixels_of(&self, latents: Maps, bands: Bands) -> Result<Maps> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let dtype = latents.dtype();
        let latents = part.post_quant_conv.forward(latents.in_precision(dtype));
        Ok(part.decoder.forward(latents, dtype, bands).cast(dtype))
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
