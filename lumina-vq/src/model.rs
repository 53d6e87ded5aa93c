//! The VQGAN: encoder, codebook, decoder.

use lumina_nn::Loader;
use lumina_nn::ops::{Bands, Codebook, Conv2d, Maps};

use crate::networks::{Decoder, Encoder};
use crate::{Error, Result, VqConfig};

/// A VQGAN, from feature maps to feature maps. To encode and decode images, use
/// [`ImageTokenizer`](crate::ImageTokenizer).
///
/// [`Maps`] are where the weights are: in host memory, on a GPU, or, for training, in Burn's tensors, where all
/// functions but [`VqModel::quantize`] are differentiable. Maps that are elsewhere are copied there. With the feature
/// `burn` a tensor becomes maps by `into`, and maps become a tensor by `into_tensor`.
/// Mirrors `taming.models.vqgan.VQModel`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv2d,
    codebook: Codebook,
    decode: Option<LatentDecoder>,
}

/// Latents to pixels.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
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
    /// [factor](VqConfig::factor), 16 in published models. Activations have some rows at a time.
    ///
    /// # Errors
    /// [`Error::Nn`] if a device fails.
    pub fn latents(&self, pixels: impl Into<Maps>, bands: Bands) -> Result<Maps> {
        let pixels = self.codebook.place(pixels.into())?;
        let dtype = pixels.dtype();
        Ok(self.quant_conv.forward(self.encoder.forward(pixels, bands)).cast(dtype))
    }

    /// The code with the smallest squared L2 distance to each latent, in the order batch, row, column. Of equal
    /// distances the smaller code wins.
    ///
    /// # Errors
    /// [`Error::Nn`] if the device fails, [`Error::NotFinite`] if a latent is not finite.
    pub fn quantize(&self, latents: impl Into<Maps>) -> Result<Vec<u32>> {
        let codes = self.codebook.nearest(self.codebook.place(latents.into())?)?;
        codes.into_iter().map(|code| code.ok_or(Error::NotFinite)).collect()
    }

    /// Looks up the codebook entries of `codes`, as latents `[batch, embed_dim, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Code`] if a code is not in the codebook, [`Error::Batch`] if the number of codes is not
    /// `batch · rows · columns`.
    pub fn lookup(&self, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Result<Maps> {
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

    /// The output of all decoder layers but the last convolution, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a device fails.
    pub fn decode_features(&self, latents: impl Into<Maps>) -> Result<Maps> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let latents = self.codebook.place(latents.into())?;
        let dtype = latents.dtype();
        let latents = part.post_quant_conv.forward(part.decoder.in_precision(latents, dtype));
        Ok(part.decoder.features(latents, dtype).cast(dtype))
    }

    /// The last convolution of the decoder, `decoder.conv_out`: features of [`VqModel::decode_features`] to pixels. The
    /// adaptive weight of the adversarial loss is computed from its gradients.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a device fails.
    pub fn last_layer(&self, features: impl Into<Maps>) -> Result<Maps> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        Ok(part.decoder.last_layer(self.codebook.place(features.into())?))
    }

    /// Decodes latents of [`VqModel::lookup`] to pixels, `[batch, 3, rows · factor, columns · factor]`. They are not
    /// clamped.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Nn`] if a device fails.
    pub fn decode(&self, latents: impl Into<Maps>, bands: Bands) -> Result<Maps> {
        let part = self.decode.as_ref().ok_or(Error::NoDecoder)?;
        let latents = self.codebook.place(latents.into())?;
        let dtype = latents.dtype();
        let latents = part.post_quant_conv.forward(part.decoder.in_precision(latents, dtype));
        Ok(part.decoder.forward(latents, dtype, bands).cast(dtype))
    }
}

#[cfg(feature = "burn")]
impl VqModel {
    /// The codebook, `[n_codes, embed_dim]`: the parameter, or a copy on the processor.
    pub fn codebook(&self) -> burn::tensor::Tensor<2> {
        self.codebook.tensor()
    }

    /// Replaces the codebook, for training methods that do not update it by gradients.
    ///
    /// # Errors
    /// [`Error::CodebookShape`] if the shape differs, [`Error::Nn`] if a GPU fails.
    pub fn set_codebook(&mut self, entries: burn::tensor::Tensor<2>) -> Result<()> {
        let (found, expected) = (entries.dims(), self.codebook.dims());
        if found != expected {
            return Err(Error::CodebookShape { found, expected });
        }
        Ok(self.codebook.set(entries)?)
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
