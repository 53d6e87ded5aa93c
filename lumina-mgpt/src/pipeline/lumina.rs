//! A checkpoint opened: the model that a program holds.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use image::RgbImage;
use lumina_checkpoint::Adapter;
use lumina_core::{CELL_PX, CodeGrid, ImageSize, LATENT_PX, Limits, Vocabulary, choose_size};
#[cfg(feature = "hub")]
use lumina_hub::{DownloadProgress, Hub};
use lumina_nn::{Compute, LoadProgress, Loader};
use lumina_tokenizer::{TextTokenizer, UniRep};
use lumina_vq::ImageTokenizer;
use lumina_vq::preprocess::{InputImage, Preprocessor};

use super::image_folder::folder_with_config;
use crate::convert;
use crate::document::{document, folder};
use crate::engine::{Clock, Engine, EngineOptions};
use crate::model::{Fit, ModelConfig, ModelParts, Transformer};
#[cfg(feature = "hub")]
use crate::pipeline::download::{self, Downloads, Select, Wanted};
use crate::preset::{Preset, SizeLimits};
use crate::trace::event;
use crate::{Error, Result};

/// An opened Lumina-mGPT or Chameleon checkpoint.
///
/// It is `Send + Sync`, and a clone is a handle to the same model: generate from as many threads as you like.
#[derive(Clone)]
pub struct Lumina {
    parts: Arc<ModelParts>,
    preprocessor: Preprocessor,
    target_size_px: u32,
}

/// The size that input images are resized to, where neither caller nor checkpoint states one.
const TARGET_SIZE_PX: u32 = 768;

impl Lumina {
    /// Opens a Hugging Face folder, a folder with a `model.gguf`, or a GGUF file, which contains config and tokenizer.
    ///
    /// With the feature `hub` it also takes the name of a repository on the Hugging Face hub, `owner/name` or
    /// `owner/name@revision`, whose files are downloaded as far as the cache lacks them. A folder of that name in the
    /// current folder comes first. The same holds for the builder's other paths.
    pub fn from_pretrained(path: impl Into<PathBuf>) -> LuminaBuilder<'static> {
        LuminaBuilder {
            path: path.into(),
            adapter: None,
            tokenizer: None,
            image_tokenizer: None,
            compute: None,
            target_size_px: None,
            limits: Limits::default(),
            progress: Box::new(|_| {}),
            #[cfg(feature = "hub")]
            hub: None,
            #[cfg(feature = "hub")]
            download_progress: Box::new(|_| {}),
        }
    }

    /// What the model in a folder or a GGUF file takes where `compute` says, and which layers go to which device,
    /// before anything is opened. An adapter and the image tokenizer, which is on the first device, come on top.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Config`], and [`Error::Nn`] where there is no such device.
    pub fn fit(path: impl AsRef<Path>, compute: &Compute) -> Result<Fit> {
        compute.check()?;
        Fit::of_checkpoint(&convert::open(path)?, compute)
    }

    /// Transformer and tokenizers.
    pub(crate) fn parts(&self) -> &ModelParts {
        &self.parts
    }

    /// The transformer.
    pub fn transformer(&self) -> &Transformer {
        &self.parts.transformer
    }

    /// The text and UniRep tokenizer.
    pub fn tokenizer(&self) -> &UniRep {
        &self.parts.unirep
    }

    /// The image tokenizer.
    ///
    /// # Errors
    /// [`Error::NoImageTokenizer`] where none was given and the folder has none.
    pub fn image_tokenizer(&self) -> Result<&ImageTokenizer> {
        self.parts.image_tokenizer()
    }

    /// An engine for many requests at once, as a server needs; it owns a handle to the model.
    pub fn engine(&self, options: EngineOptions, clock: Arc<dyn Clock>) -> Engine {
        Engine::new(self.parts.clone(), options, clock)
    }

    /// What the checkpoint states of how it is used: the defaults of the tasks.
    pub fn preset(&self) -> &Preset {
        &self.parts.preset
    }

    /// The size that input images are resized to, about so many pixels a side. [`Lumina::preprocessor`] has the sizes.
    pub fn target_size_px(&self) -> u32 {
        self.target_size_px
    }

    /// The sizes of images that the model draws: those that its [`Preset`] states, else those of the target size.
    pub fn image_sizes(&self) -> Vec<ImageSize> {
        self.preset().sizes().unwrap_or_else(|| self.preprocessor.sizes().to_vec())
    }

    /// The size of an image that is drawn where none is asked for: the square of the target size, or of
    /// [`Lumina::image_sizes`] the one that is most like it.
    pub fn default_size(&self) -> ImageSize {
        let (px, sizes) = (self.target_size_px, self.image_sizes());
        let is_square = |size: &&ImageSize| (size.width_px(), size.height_px()) == (px, px);
        let size = sizes.iter().find(is_square).copied().or_else(|| choose_size(px, px, &sizes));
        size.expect("a preset states a size or none, and each target size has some")
    }

    /// Resizes images to a size that the model was trained on.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// The codes of an image, to go into a conversation: it is resized to the nearest allowed size, then encoded.
    ///
    /// # Errors
    /// [`Error::NoImageTokenizer`], [`Error::Vq`] where the image cannot be prepared, and [`Error::TargetSize`] where
    /// the model cannot state the size.
    pub fn encode_image(&self, image: &InputImage) -> Result<CodeGrid> {
        let prepared: RgbImage = self.preprocessor.prepare(image)?;
        let size = ImageSize::new(prepared.width(), prepared.height())?;
        let largest_px = largest_px(self.parts.unirep.vocabulary());
        if size.width_px().max(size.height_px()) > largest_px {
            return Err(Error::TargetSize { size, target_px: self.target_size_px, largest_px });
        }
        Ok(self.image_tokenizer()?.encode(&prepared)?)
    }
}

impl fmt::Debug for Lumina {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lumina")
            .field("architecture", self.parts.transformer.architecture())
            .field("compute", self.parts.transformer.compute())
            .finish_non_exhaustive()
    }
}

/// Where the parts of a model are, and where it will compute. Made by [`Lumina::from_pretrained`].
#[must_use = "nothing is opened before `load`"]
pub struct LuminaBuilder<'a> {
    path: PathBuf,
    adapter: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    image_tokenizer: Option<PathBuf>,
    compute: Option<Compute>,
    target_size_px: Option<u32>,
    limits: Limits,
    progress: Box<dyn Fn(LoadProgress) + 'a>,
    #[cfg(feature = "hub")]
    hub: Option<Hub>,
    #[cfg(feature = "hub")]
    download_progress: Box<dyn Fn(DownloadProgress<'_>) + 'a>,
}

impl<'a> LuminaBuilder<'a> {
    /// Sets the folder of `vqgan.ckpt` and `vqgan.yaml`, Meta's `tokenizer/`, if they are not in the model's folder or
    /// its subfolder `tokenizer` or `original_tokenizers`; the folder that is set may have such a subfolder, too.
    /// Without one a model with an encoder in its own weights (`model.vqmodel.*`) reads images but generates none, and
    /// another one has text only.
    pub fn image_tokenizer(mut self, folder: impl Into<PathBuf>) -> Self {
        self.image_tokenizer = Some(folder.into());
        self
    }

    /// Sets the folder of a LoRA adapter, in PEFT's layout, that is put on the transformer. Its matrices reside
    /// where the other weights do. Merging them into the weights beforehand saves their matmuls.
    pub fn adapter(mut self, folder: impl Into<PathBuf>) -> Self {
        self.adapter = Some(folder.into());
        self
    }

    /// Sets the folder of `tokenizer.json`, if it is not in the model's folder or file.
    pub fn tokenizer(mut self, folder: impl Into<PathBuf>) -> Self {
        self.tokenizer = Some(folder.into());
        self
    }

    /// Sets where to compute; the default is the first of [`Compute::available`].
    pub fn compute(mut self, compute: Compute) -> Self {
        self.compute = Some(compute);
        self
    }

    /// Sets the size that the checkpoint was trained for (512, 768 or 1024): input images are resized to the
    /// allowed size of about this many pixels a side. The default is what the checkpoint's [`Preset`] states, the sizes
    /// of images included, else 768.
    pub fn target_size_px(mut self, target_size_px: u32) -> Self {
        self.target_size_px = Some(target_size_px);
        self
    }

    /// Sets what one request may take: bytes of its keys and values ([`Limits::kv_cache_bytes`]) and of decoding an
    /// image ([`Limits::vq_decode_bytes`]). The defaults are far above what published models need. What all requests
    /// may hold together is [`EngineOptions::kv_budget_bytes`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets a function that is called for each tensor that is loaded.
    pub fn on_progress<'b>(self, progress: impl Fn(LoadProgress) + 'b) -> LuminaBuilder<'b>
    where
        'a: 'b,
    {
        LuminaBuilder { progress: Box::new(progress), ..self }
    }

    /// Sets where names on the hub are downloaded from, and to. The default is what the environment says:
    /// [`Hub::from_env`].
    #[cfg(feature = "hub")]
    pub fn hub(mut self, hub: Hub) -> Self {
        self.hub = Some(hub);
        self
    }

    /// Sets a function that is called as bytes of a download come, for each repository from its start. It comes before
    /// [`LuminaBuilder::on_progress`].
    #[cfg(feature = "hub")]
    pub fn on_download<'b>(self, progress: impl Fn(DownloadProgress<'_>) + 'b) -> LuminaBuilder<'b>
    where
        'a: 'b,
    {
        LuminaBuilder { download_progress: Box::new(progress), ..self }
    }

    /// Downloads what [`LuminaBuilder::load`] would, and opens nothing. Returns the folders: of the model, and of the
    /// text tokenizer, the image tokenizer and the adapter where these are set.
    ///
    /// # Errors
    /// [`Error::Hub`], and [`Error::NoTokenizer`].
    #[cfg(feature = "hub")]
    pub fn download(mut self) -> Result<Vec<PathBuf>> {
        self.localise()?;
        let parts = [self.tokenizer, self.image_tokenizer, self.adapter];
        Ok([self.path].into_iter().chain(parts.into_iter().flatten()).collect())
    }

    /// Puts folders of the hub's cache in the place of names on the hub.
    #[cfg(feature = "hub")]
    fn localise(&mut self) -> Result<()> {
        let names = Wanted { images: self.image_tokenizer.is_none(), tokenizer: self.tokenizer.is_none() };
        let mut downloads = Downloads { hub: self.hub.take(), progress: &*self.download_progress };
        downloads.localise(&mut self.path, &|files| names.model(files))?;
        let parts = [&mut self.tokenizer, &mut self.image_tokenizer, &mut self.adapter];
        let selects: [&Select<'_>; 3] = [&download::tokenizer, &download::image_tokenizer, &download::adapter];
        for (path, select) in parts.into_iter().zip(selects) {
            if let Some(path) = path {
                downloads.localise(path, select)?;
            }
        }
        Ok(())
    }

    /// Without downloads, a name on the hub is an error.
    #[cfg(not(feature = "hub"))]
    fn localise(&mut self) -> Result<()> {
        let parts = [&self.tokenizer, &self.image_tokenizer, &self.adapter];
        match [&self.path].into_iter().chain(parts.into_iter().flatten()).find_map(|path| convert::name_on_hub(path)) {
            Some(name) => Err(Error::NotDownloaded { name }),
            None => Ok(()),
        }
    }

    /// Opens everything and checks that the parts belong together.
    ///
    /// # Errors
    /// Whatever is missing, broken or does not fit, by file and name: see [`Error`].
    pub fn load(mut self) -> Result<Lumina> {
        let compute = match self.compute.take() {
            Some(compute) => compute,
            None => Compute::cpu(),
        };
        // Before anything large is downloaded.
        compute.check()?;
        event!(DEBUG, path = %self.path.display(), %compute, "opening");
        self.localise()?;
        let Self { path, adapter, tokenizer, image_tokenizer, target_size_px, limits, progress, .. } = self;
        let checkpoint = convert::open(&path)?;
        let (config, architecture) = ModelConfig::of_checkpoint(&checkpoint)?;
        Fit::new(&checkpoint, None, &architecture, &compute).check()?;

        let text = match tokenizer {
            Some(path) => TextTokenizer::open(path)?,
            None => {
                let (json, file) = document(&checkpoint, "tokenizer.json").map_err(|error| match error {
                    Error::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                        Error::NoTokenizer { model: path.clone() }
                    }
                    other => other,
                })?;
                TextTokenizer::from_json(&json, file)?
            }
        };
        text.check_fits(architecture.vocab_size())?;
        let unirep = UniRep::new(text)?;
        let limits_of_sizes =
            SizeLimits { largest_px: largest_px(unirep.vocabulary()), context: config.max_position_embeddings };
        let preset = Preset::of_checkpoint(&checkpoint, limits_of_sizes)?;

        let image_tokenizer = image_tokenizer.map(|images| folder_with_config(&images).unwrap_or(images));
        let image_tokenizer = match image_tokenizer.or_else(|| folder_with_config(folder(&checkpoint))) {
            Some(images) => {
                let names = images.join("text_tokenizer.json");
                if names.exists() {
                    unirep.check_image_tokens(&names)?;
                }
                Some(ImageTokenizer::open(images, &compute)?)
            }
            None => ImageTokenizer::from_model(&checkpoint, &config.vq_config, &compute)?,
        };
        if let Some(images) = &image_tokenizer
            && images.config().n_codes() != unirep.vocabulary().n_codes()
        {
            let (codes, tokens) = (images.config().n_codes(), unirep.vocabulary().n_codes());
            return Err(Error::Codebook { codes, tokens });
        }
        if let Some(images) = &image_tokenizer
            && images.config().factor() != LATENT_PX
        {
            return Err(Error::Factor { found: images.config().factor(), expected: LATENT_PX });
        }
        let image_tokenizer = image_tokenizer.map(|images| images.with_limits(limits));
        let adapter = adapter.map(Adapter::open).transpose()?;
        let mut loader = Loader::with_progress(&checkpoint, &compute, &*progress);
        if let Some(adapter) = &adapter {
            loader = loader.with_adapter(adapter);
        }
        let transformer = Transformer::from_loader(&loader, architecture)?;
        compute.sync()?;
        event!(INFO, path = %path.display(), %compute, layers = transformer.architecture().n_layers(), "opened");
        let preprocessor = match (target_size_px, preset.sizes()) {
            (None, Some(sizes)) => Preprocessor::with_sizes(sizes)?,
            _ => Preprocessor::new(target_size_px.or(preset.target_size_px).unwrap_or(TARGET_SIZE_PX))?,
        };
        let target_size_px = target_size_px.or(preset.target_size_px).unwrap_or(TARGET_SIZE_PX);
        let windows = Mutex::default();
        let parts = Arc::new(ModelParts { transformer, unirep, image_tokenizer, limits, preset, windows });
        Ok(Lumina { parts, preprocessor, target_size_px })
    }
}

impl fmt::Debug for LuminaBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LuminaBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The longest side that has a size token, in pixels.
fn largest_px(vocabulary: &Vocabulary) -> u32 {
    vocabulary.size_tokens().len() as u32 * CELL_PX
}
