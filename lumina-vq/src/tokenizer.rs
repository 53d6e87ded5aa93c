//! Encodes images to codes and decodes codes to images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::{RgbImage, imageops};
use lumina_checkpoint::Checkpoint;
use lumina_core::{CodeGrid, Limits};
use lumina_nn::ops::{Bands, Maps};
use lumina_nn::{Compute, Loader};

use crate::memory::{decode_bytes, encode_bytes, patches_at_once};
use crate::model::VqModel;
use crate::preprocess;
use crate::{Error, Result, VqConfig};

/// A VQGAN that encodes images to codes and decodes codes to images.
///
/// ```
/// use lumina_vq::{Bands, Compute, ImageTokenizer};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/vq");
/// let tokenizer = ImageTokenizer::open(folder, &Compute::cpu())?;
/// let image = image::RgbImage::from_fn(64, 32, |x, y| image::Rgb([4 * x as u8, 8 * y as u8, 128]));
/// let codes = tokenizer.encode(&image)?;
/// assert_eq!((codes.rows(), codes.columns()), (2, 4));
/// assert_eq!(tokenizer.decode(&codes, Bands::Whole)?.dimensions(), (64, 32));
/// # Ok::<(), lumina_vq::Error>(())
/// ```
pub struct ImageTokenizer {
    model: VqModel,
    config: VqConfig,
    compute: Compute,
    max_bytes: u64,
    f16_decoding: bool,
    known_patches: Mutex<HashMap<Vec<u8>, u32>>,
    max_known_patches: usize,
}

/// Bands that take hardly more than fewer rows would.
const FEWEST_BYTES: Bands = Bands::Rows(64);

/// Whether a tensor of a checkpoint is not of the network but of its training: the discriminator and the perceptual
/// loss (`loss.`), and the moving averages of weights (`model_ema.`, of `LitEma`). The original ignores them too.
pub fn is_training_state(name: &str) -> bool {
    ["loss.", "model_ema."].iter().any(|prefix| name.starts_with(prefix))
}

impl ImageTokenizer {
    /// The file of a folder's hyperparameters.
    pub const CONFIG: &str = "vqgan.yaml";
    /// The files of a folder's weights that are looked for, the published one first.
    pub const WEIGHTS: [&str; 3] = ["vqgan.ckpt", "vqgan.safetensors", "model.safetensors"];

    /// Opens a folder with `vqgan.yaml` and `vqgan.ckpt` (or `vqgan.safetensors`), such as Meta's `tokenizer/`.
    ///
    /// # Errors
    /// [`Error::Core`], [`Error::ParseConfig`], [`Error::Config`], [`Error::NoWeights`], and [`Error::Nn`] for
    /// tensors that are missing, unexpected or of the wrong shape.
    pub fn open(folder: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let config = VqConfig::open(&folder.join(Self::CONFIG))?;
        Self::from_file(&Self::weights_file(folder)?, config, compute)
    }

    /// The file of a folder's weights: the first of [`ImageTokenizer::WEIGHTS`] that there is.
    ///
    /// # Errors
    /// [`Error::NoWeights`] if there is none.
    pub fn weights_file(folder: &Path) -> Result<PathBuf> {
        let weights = Self::WEIGHTS.iter().map(|name| folder.join(name)).find(|file| file.exists());
        weights.ok_or_else(|| Error::NoWeights { folder: folder.to_owned(), names: Self::WEIGHTS.join(", ") })
    }

    /// Opens a weight file in any format that [`Checkpoint::open`] reads.
    ///
    /// # Errors
    /// As [`ImageTokenizer::open`].
    pub fn from_file(file: &Path, config: VqConfig, compute: &Compute) -> Result<Self> {
        let checkpoint = Checkpoint::open(file)?;
        Self::load(&checkpoint, "", config, compute, is_training_state)
    }

    /// Opens the encoder in a Hugging Face folder (`model.vqmodel.*`). It cannot decode. `None` if the folder
    /// contains no encoder.
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
        // The folder contains this one layer of the decoder and no others.
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
        let compute = compute.devices().swap_remove(0);
        let root = Loader::new(checkpoint, &compute);
        let loader = if prefix.is_empty() { root.clone() } else { root.pp(prefix) };
        let with_decoder = loader.contains("decoder.conv_in.weight") || prefix.is_empty();
        let model = VqModel::new(&loader, &config, with_decoder);
        root.finish(ignored)?;
        let max_bytes = Limits::default().vq_decode_bytes.min(Maps::max_bytes(&compute));
        let (known_patches, max_known_patches) = (Mutex::default(), 0);
        Ok(Self { model, config, compute, max_bytes, f16_decoding: false, known_patches, max_known_patches })
    }

    /// Sets the most bytes that decoding images, and encoding them, may take: [`Limits::vq_decode_bytes`]. Images are
    /// encoded in bands of rows where that keeps the limit and encoding them whole does not. On a GPU it is 16 GiB at
    /// most.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let max_bytes = limits.vq_decode_bytes.min(Maps::max_bytes(&self.compute));
        Self { max_bytes, ..self }
    }

    /// Decodes with numbers rounded to `f16` where tensor cores multiply them, with sums in `f32`: a third of the
    /// products, and values of pixels differ by a few of 255. Without it each number is two in `f16`, and images
    /// are those of the CPU up to rounding. Elsewhere nothing changes.
    #[must_use]
    pub fn with_f16_decoding(self) -> Self {
        Self { f16_decoding: true, ..self }
    }

    /// The most bytes that decoding a grid of `rows` × `columns` codes takes at once, apart from the weights.
    pub fn decode_bytes(&self, [rows, columns]: [usize; 2], bands: Bands) -> u64 {
        decode_bytes(&self.config, [1, rows, columns], bands)
    }

    /// The most bytes that encoding an image of `height` × `width` pixels whole takes at once, apart from the weights.
    pub fn encode_bytes(&self, [height, width]: [usize; 2]) -> u64 {
        encode_bytes(&self.config, [1, height, width], Bands::Whole)
    }

    /// [`Bands::Whole`] where decoding a grid of `rows` × `columns` codes then keeps the limit, else bands of 64 rows.
    ///
    /// # Errors
    /// [`Error::Memory`] where neither does.
    pub fn bands_within_limits(&self, [rows, columns]: [usize; 2]) -> Result<Bands> {
        if self.decode_bytes([rows, columns], Bands::Whole) <= self.max_bytes {
            return Ok(Bands::Whole);
        }
        self.check_decode([1, rows, columns], FEWEST_BYTES)?;
        Ok(FEWEST_BYTES)
    }

    /// Whether decoding keeps the limit.
    fn check_decode(&self, grids: [usize; 3], bands: Bands) -> Result<()> {
        let limit = self.max_bytes;
        let bytes = decode_bytes(&self.config, grids, bands);
        if bytes <= limit {
            return Ok(());
        }
        let [batch, rows, columns] = grids;
        let in_bands = decode_bytes(&self.config, grids, FEWEST_BYTES);
        let advice = if in_bands <= limit {
            format!("decode it in bands of rows (`Bands::Rows`), which takes {in_bands}")
        } else if batch > 1 {
            format!("decode fewer than {batch} together")
        } else {
            "choose a smaller image".to_owned()
        };
        Err(Error::Memory { what: "decoding an image", rows, columns, bytes, limit, advice })
    }

    /// The hyperparameters of the network.
    pub fn config(&self) -> &VqConfig {
        &self.config
    }

    /// The network itself, which maps feature maps to feature maps.
    pub fn model(&self) -> &VqModel {
        &self.model
    }

    /// Whether codes can be decoded. The encoder of a Hugging Face folder cannot.
    pub fn has_decoder(&self) -> bool {
        self.model.has_decoder()
    }

    /// Encodes an image whose sides are multiples of the [factor](VqConfig::factor), 16 in published models.
    ///
    /// # Errors
    /// [`Error::Sides`] if they are not, [`Error::Memory`] if it would take more than the limit, [`Error::NotFinite`],
    /// [`Error::Nn`] if the device fails.
    pub fn encode(&self, image: &RgbImage) -> Result<CodeGrid> {
        let mut grids = self.encode_batch(std::slice::from_ref(image))?;
        grids.pop().ok_or_else(|| Error::Batch { reason: "no image".to_owned() })
    }

    /// Remembers the codes of this many patches, if the network
    /// [is local](crate::VqHyperparameters::is_local): of images that share most of theirs, as drawings do, hardly any
    /// patch is encoded twice. Each takes about a kilobyte. Default: none.
    #[must_use]
    pub fn with_known_patches(self, n: usize) -> Self {
        Self { max_known_patches: n, ..self }
    }

    /// Encodes several images of one size in one pass. A [local](crate::VqHyperparameters::is_local) network encodes
    /// equal patches once.
    ///
    /// # Errors
    /// As [`ImageTokenizer::encode`], and [`Error::Batch`] if sizes differ.
    pub fn encode_batch(&self, images: &[RgbImage]) -> Result<Vec<CodeGrid>> {
        let Some(first) = images.first() else { return Ok(Vec::new()) };
        let (width, height) = first.dimensions();
        let factor = self.config.factor();
        if width == 0 || height == 0 || !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            return Err(Error::Sides { width, height, factor });
        }
        if let Some(other) = images.iter().find(|image| image.dimensions() != (width, height)) {
            let (other_width, other_height) = other.dimensions();
            let reason = format!("images of {width}x{height} and {other_width}x{other_height} pixels in one batch");
            return Err(Error::Batch { reason });
        }
        let (limit, sides) = (self.max_bytes, [height as usize, width as usize]);
        let bytes = |bands| encode_bytes(&self.config, [images.len(), sides[0], sides[1]], bands);
        let bands = if bytes(Bands::Whole) <= limit { Bands::Whole } else { FEWEST_BYTES };
        if bytes(bands) > limit {
            let [rows, columns] = sides.map(|side| side / factor as usize);
            let advice = match images.len() {
                1 => "make the image smaller".to_owned(),
                n => format!("encode fewer than {n} together"),
            };
            return Err(Error::Memory { what: "encoding an image", rows, columns, bytes: bytes(bands), limit, advice });
        }
        let codes = if self.config.is_local { self.local_codes(images, bands)? } else { self.codes(images, bands)? };
        let (rows, columns) = (height / factor, width / factor);
        let grids =
            codes.chunks_exact((rows * columns) as usize).map(|codes| CodeGrid::new(rows, columns, codes.to_vec()));
        Ok(grids.collect::<lumina_core::Result<_>>()?)
    }

    /// The codes of images of one size, in the order image, row, column.
    fn codes(&self, images: &[RgbImage], bands: Bands) -> Result<Vec<u32>> {
        let Some(first) = images.first() else { return Ok(Vec::new()) };
        let shape = [images.len(), 3, first.height() as usize, first.width() as usize];
        let values: Vec<f32> = images.iter().flat_map(preprocess::to_tensor_values).collect();
        let _turn = Maps::turn(&self.compute);
        let pixels = Maps::new(&self.compute, values, shape);
        self.model.quantize(self.model.latents(pixels, bands)?)
    }

    /// The codes of images of one size, in the order image, row, column, where a patch is all that its code depends on:
    /// equal patches are encoded once.
    fn local_codes(&self, images: &[RgbImage], bands: Bands) -> Result<Vec<u32>> {
        let side = self.config.factor();
        let cut = images.iter().flat_map(|image| {
            let places = (0..image.height() / side).flat_map(|y| (0..image.width() / side).map(move |x| (x, y)));
            places.map(|(x, y)| imageops::crop_imm(image, x * side, y * side, side, side).to_image().into_raw())
        });
        let patches: Vec<Vec<u8>> = cut.collect();
        let known = || self.known_patches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut codes: HashMap<&[u8], Option<u32>> = HashMap::new();
        let mut new = Vec::new();
        {
            let known = known();
            for patch in &patches {
                codes.entry(patch.as_slice()).or_insert_with(|| {
                    let code = known.get(patch).copied();
                    new.extend(code.is_none().then_some(patch));
                    code
                });
            }
        }
        for new in new.chunks(patches_at_once(bands)) {
            let image =
                |patch: &&Vec<u8>| RgbImage::from_raw(side, side, patch.to_vec()).expect("a patch has its pixels");
            let new_codes = self.codes(&new.iter().map(image).collect::<Vec<_>>(), bands)?;
            let mut known = known();
            for (&patch, code) in new.iter().zip(new_codes) {
                codes.insert(patch.as_slice(), Some(code));
                if known.len() < self.max_known_patches {
                    known.insert(patch.clone(), code);
                }
            }
        }
        Ok(patches.iter().filter_map(|patch| codes[patch.as_slice()]).collect())
    }

    /// Decodes codes to an image, whole or in bands of rows; the result is the same up to rounding.
    ///
    /// # Errors
    /// [`Error::NoDecoder`], [`Error::Code`] if a code is not in the codebook, [`Error::Memory`] if it would take more
    /// than the limit, [`Error::Nn`] if the device fails.
    pub fn decode(&self, codes: &CodeGrid, bands: Bands) -> Result<RgbImage> {
        let mut images = self.decode_batch(std::slice::from_ref(codes), bands)?;
        images.pop().ok_or_else(|| Error::Batch { reason: "no codes".to_owned() })
    }

    /// Decodes several grids of one size in one pass.
    ///
    /// # Errors
    /// As [`ImageTokenizer::decode`], and [`Error::Batch`] if sizes differ.
    pub fn decode_batch(&self, grids: &[CodeGrid], bands: Bands) -> Result<Vec<RgbImage>> {
        let Some(first) = grids.first() else { return Ok(Vec::new()) };
        let (rows, columns) = (first.rows(), first.columns());
        if let Some(other) = grids.iter().find(|grid| (grid.rows(), grid.columns()) != (rows, columns)) {
            let reason =
                format!("grids of {rows}x{columns} and {}x{} codes in one batch", other.rows(), other.columns());
            return Err(Error::Batch { reason });
        }
        self.check_decode([grids.len(), rows as usize, columns as usize], bands)?;
        let codes: Vec<u32> = grids.iter().flat_map(|grid| grid.codes().iter().copied()).collect();
        let turn = Maps::turn(&self.compute);
        let latents = self.model.lookup(&codes, [grids.len(), rows as usize, columns as usize])?;
        let latents = if self.f16_decoding { latents.in_halves() } else { latents };
        let values = self.model.decode(latents, bands)?.read()?;
        drop(turn);
        let factor = self.config.factor();
        let (width, height) = (columns * factor, rows * factor);
        values
            .chunks_exact(3 * width as usize * height as usize)
            .map(|values| preprocess::to_image(values, width, height))
            .collect()
    }
}

impl std::fmt::Debug for ImageTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageTokenizer")
            .field("config", &self.config)
            .field("compute", &self.compute)
            .field("has_decoder", &self.has_decoder())
            .finish_non_exhaustive()
    }
}
