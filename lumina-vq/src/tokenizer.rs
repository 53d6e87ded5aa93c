//! Images to codes and back: what a program holds.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use lumina_checkpoint::Checkpoint;
use lumina_core::CodeGrid;
use lumina_nn::{Compute, Loader};

use crate::layers::Bands;
use crate::model::VqModel;
use crate::preprocess;
use crate::{Error, Result, VqConfig};

/// A VQGAN with what is needed to feed it: images in, codes out, and back.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use lumina_vq::{Bands, Compute, ImageTokenizer};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/vq");
/// let tokenizer = ImageTokenizer::open(folder, &Compute::cpu())?;
/// let image = image::RgbImage::from_fn(64, 32, |x, y| image::Rgb([4 * x as u8, 8 * y as u8, 128]));
/// let codes = tokenizer.encode(&image)?;
/// assert_eq!((codes.rows(), codes.columns()), (2, 4));
/// assert_eq!(tokenizer.decode(&codes, Bands::Whole)?.dimensions(), (64, 32));
/// # }
/// # Ok::<(), lumina_vq::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageTokenizer {
    model: VqModel,
    config: VqConfig,
    compute: Compute,
}

/// The names that weights go by, the published one first.
const WEIGHTS: [&str; 3] = ["vqgan.ckpt", "vqgan.safetensors", "model.safetensors"];

impl ImageTokenizer {
    /// Opens a folder with `vqgan.yaml` and `vqgan.ckpt` (or `vqgan.safetensors`), Meta's `tokenizer/`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`] and, for tensors that are missing, unexpected or misshaped, [`Error::Checkpoint`].
    pub fn open(folder: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let config = VqConfig::open(&folder.join("vqgan.yaml"))?;
        let weights = WEIGHTS.iter().map(|name| folder.join(name)).find(|file| file.exists());
        let file = weights.ok_or_else(|| Error::NoWeights { folder: folder.to_owned(), names: WEIGHTS.join(", ") })?;
        Self::from_file(&file, config, compute)
    }

    /// Opens a file of weights in any form that [`Checkpoint::open`] reads.
    ///
    /// # Errors
    /// As [`ImageTokenizer::open`].
    pub fn from_file(file: &Path, config: VqConfig, compute: &Compute) -> Result<Self> {
        let checkpoint = Checkpoint::open(file)?;
        // Training leftovers that the original ignores too: the discriminator and the perceptual loss.
        Self::load(&checkpoint, "", config, compute, |name| name.starts_with("loss."))
    }

    /// The encoder in a Hugging Face folder (`model.vqmodel.*`), or `None` where it has none. It cannot decode.
    ///
    /// # Errors
    /// As [`ImageTokenizer::open`].
    pub fn from_model(
        checkpoint: &Checkpoint,
        vq_config: &serde_json::Value,
        compute: &Compute,
    ) -> Result<Option<Self>> {
        const PREFIX: &str = "model.vqmodel";
        if !checkpoint.names().any(|name| name.starts_with(PREFIX)) {
            return Ok(None);
        }
        let config = VqConfig::from_json(vq_config, &checkpoint.path().join("config.json"))?;
        // The folder has this one layer of the decoder, and no other.
        let ignored = |name: &str| !name.starts_with(PREFIX) || name.starts_with("model.vqmodel.post_quant_conv.");
        Self::load(checkpoint, PREFIX, config, compute, ignored).map(Some)
    }

    fn load(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: VqConfig,
        compute: &Compute,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        compute.check()?;
        // Convolutions have no mapped form; only where they compute matters.
        let compute = compute.clone().in_tensors();
        let root = Loader::new(checkpoint, &compute);
        let loader = if prefix.is_empty() { root.clone() } else { root.pp(prefix) };
        let with_decoder = loader.contains("decoder.conv_in.weight") || prefix.is_empty();
        let model = VqModel::new(&loader, &config, with_decoder);
        root.finish(ignored)?;
        Ok(Self { model, config, compute })
    }

    /// The network's shape.
    pub fn config(&self) -> &VqConfig {
        &self.config
    }

    /// The network, for functions on tensors.
    pub fn model(&self) -> &VqModel {
        &self.model
    }

    /// Whether codes can be decoded; the encoder of a Hugging Face folder cannot.
    pub fn has_decoder(&self) -> bool {
        self.model.has_decoder()
    }

    /// The codes of an image whose sides are multiples of the [factor](VqConfig::factor), 16 in published models.
    ///
    /// # Errors
    /// [`Error::Batch`] where a side is not, [`Error::Compute`] where the device fails.
    pub fn encode(&self, image: &RgbImage) -> Result<CodeGrid> {
        let mut grids = self.encode_batch(std::slice::from_ref(image))?;
        grids.pop().ok_or_else(|| Error::Batch { reason: "no image".to_owned() })
    }

    /// The codes of several images of one size, in one pass.
    ///
    /// # Errors
    /// As [`ImageTokenizer::encode`], and [`Error::Batch`] where sizes differ.
    pub fn encode_batch(&self, images: &[RgbImage]) -> Result<Vec<CodeGrid>> {
        let Some(first) = images.first() else { return Ok(Vec::new()) };
        let (width, height) = first.dimensions();
        let factor = self.config.factor();
        if width == 0 || height == 0 || !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            let reason = format!("an image of {width}x{height} pixels; both sides must be multiples of {factor}");
            return Err(Error::Batch { reason });
        }
        if let Some(other) = images.iter().find(|image| image.dimensions() != (width, height)) {
            let (other_width, other_height) = other.dimensions();
            let reason = format!("images of {width}x{height} and {other_width}x{other_height} pixels in one batch");
            return Err(Error::Batch { reason });
        }
        let values: Vec<f32> = images.iter().flat_map(preprocess::to_tensor_values).collect();
        let shape = [images.len(), 3, height as usize, width as usize];
        let pixels = Tensor::<4>::from_data(TensorData::new(values, shape), self.compute.options());
        let codes = self.model.quantize(self.model.latents(pixels))?;
        let (rows, columns) = (height / factor, width / factor);
        let grids =
            codes.chunks_exact((rows * columns) as usize).map(|codes| CodeGrid::new(rows, columns, codes.to_vec()));
        Ok(grids.collect::<lumina_core::Result<_>>()?)
    }

    /// The image that codes stand for, computed whole or in bands of rows; the result is the same.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Code`], [`Error::Compute`].
    pub fn decode(&self, codes: &CodeGrid, bands: Bands) -> Result<RgbImage> {
        let mut images = self.decode_batch(std::slice::from_ref(codes), bands)?;
        images.pop().ok_or_else(|| Error::Batch { reason: "no codes".to_owned() })
    }

    /// The images of several grids of one size, in one pass.
    ///
    /// # Errors
    /// As [`ImageTokenizer::decode`], and [`Error::Batch`] where sizes differ.
    pub fn decode_batch(&self, grids: &[CodeGrid], bands: Bands) -> Result<Vec<RgbImage>> {
        let Some(first) = grids.first() else { return Ok(Vec::new()) };
        let (rows, columns) = (first.rows(), first.columns());
        if let Some(other) = grids.iter().find(|grid| (grid.rows(), grid.columns()) != (rows, columns)) {
            let reason =
                format!("grids of {rows}x{columns} and {}x{} codes in one batch", other.rows(), other.columns());
            return Err(Error::Batch { reason });
        }
        let codes: Vec<u32> = grids.iter().flat_map(|grid| grid.codes().iter().copied()).collect();
        let latents = self.model.lookup(&codes, [grids.len(), rows as usize, columns as usize])?;
        let values = lumina_nn::ops::read(self.model.decode(latents, bands)?)?;
        let factor = self.config.factor();
        let (width, height) = (columns * factor, rows * factor);
        values
            .chunks_exact(3 * width as usize * height as usize)
            .map(|values| preprocess::to_image(values, width, height))
            .collect()
    }
}
