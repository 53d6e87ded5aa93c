//! The hyperparameters of a VQGAN: as files state them, and as the network uses them.

use std::path::Path;

use lumina_core::file;
use serde::Deserialize;

use crate::{Error, Result};

/// The content of `vqgan.yaml`. Keys that do not change the result are ignored.
#[derive(Debug, Clone, Deserialize)]
struct YamlFile {
    model: YamlModel,
}

#[derive(Debug, Clone, Deserialize)]
struct YamlModel {
    params: YamlParams,
}

#[derive(Debug, Clone, Deserialize)]
struct YamlParams {
    embed_dim: usize,
    n_embed: usize,
    ddconfig: YamlNetwork,
}

#[derive(Debug, Clone, Deserialize)]
struct YamlNetwork {
    ch: usize,
    ch_mult: Vec<usize>,
    num_res_blocks: usize,
    #[serde(default)]
    attn_resolutions: Option<Vec<usize>>,
    z_channels: usize,
    in_channels: usize,
    out_ch: usize,
    resolution: usize,
    #[serde(default)]
    double_z: bool,
    #[serde(default)]
    attn_type: Option<String>,
    /// A key of ours.
    #[serde(default)]
    local: bool,
    #[serde(default)]
    resamp_with_conv: Option<bool>,
    #[serde(default)]
    use_linear_attn: Option<bool>,
    #[serde(default)]
    give_pre_end: Option<bool>,
    #[serde(default)]
    tanh_out: Option<bool>,
}

/// The content of `vq_config` in a Hugging Face `config.json`.
#[derive(Debug, Clone, Deserialize)]
struct HfConfig {
    #[serde(default = "defaults::embed_dim")]
    embed_dim: usize,
    #[serde(default = "defaults::num_embeddings")]
    num_embeddings: usize,
    #[serde(default)]
    double_latent: bool,
    #[serde(default = "defaults::latent_channels")]
    latent_channels: usize,
    #[serde(default = "defaults::resolution")]
    resolution: usize,
    #[serde(default = "defaults::in_channels")]
    in_channels: usize,
    #[serde(default = "defaults::base_channels")]
    base_channels: usize,
    #[serde(default = "defaults::channel_multiplier")]
    channel_multiplier: Vec<usize>,
    #[serde(default = "defaults::num_res_blocks")]
    num_res_blocks: usize,
    #[serde(default)]
    attn_resolutions: Option<Vec<usize>>,
    #[serde(default)]
    attn_type: Option<String>,
    /// A key of ours.
    #[serde(default)]
    local: bool,
}

/// The defaults of `ChameleonVQVAEConfig`. A `config.json` omits values that equal them.
mod defaults {
    pub(super) fn embed_dim() -> usize {
        256
    }
    pub(super) fn num_embeddings() -> usize {
        8192
    }
    pub(super) fn latent_channels() -> usize {
        256
    }
    pub(super) fn resolution() -> usize {
        512
    }
    pub(super) fn in_channels() -> usize {
        3
    }
    pub(super) fn base_channels() -> usize {
        128
    }
    pub(super) fn channel_multiplier() -> Vec<usize> {
        vec![1, 1, 2, 2, 4]
    }
    pub(super) fn num_res_blocks() -> usize {
        2
    }
}

/// The checked hyperparameters of a VQGAN.
///
/// ```
/// let yaml = "
/// model:
///   params:
///     embed_dim: 256
///     n_embed: 8192
///     ddconfig:
///       {double_z: false, z_channels: 256, resolution: 512, in_channels: 3, out_ch: 3, ch: 128,
///        ch_mult: [1, 1, 2, 2, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}";
/// let config = lumina_vq::VqConfig::from_yaml(yaml, "vqgan.yaml".as_ref())?;
/// assert_eq!((config.n_codes(), config.factor()), (8192, 16));
/// # Ok::<(), lumina_vq::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VqConfig {
    pub(crate) embed_dim: usize,
    pub(crate) n_codes: usize,
    pub(crate) channels: usize,
    pub(crate) multipliers: Vec<usize>,
    pub(crate) n_res_blocks: usize,
    pub(crate) attention_resolutions: Vec<usize>,
    pub(crate) latent_channels: usize,
    pub(crate) resolution: usize,
    pub(crate) is_local: bool,
}

/// The hyperparameters of a new [`VqConfig`]. The defaults are those of the published model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VqHyperparameters {
    /// Dimensions of a codebook entry (`embed_dim`).
    pub embed_dim: usize,
    /// Number of entries in the codebook (`n_embed`).
    pub n_codes: usize,
    /// Channels at full resolution (`ch`), a multiple of 32; of 4 if the network [is local](Self::is_local), whose
    /// norms have no groups: GPUs load four at a time.
    pub channels: usize,
    /// Channels of each level as multiples of `channels`, the finest level first (`ch_mult`). Each level but the first
    /// halves the resolution.
    pub multipliers: Vec<usize>,
    /// Residual blocks of each encoder level (`num_res_blocks`); a decoder level has one more. With 0 the levels of the
    /// encoder are single convolutions, which is several times as fast; all levels must then have the same channels.
    pub n_res_blocks: usize,
    /// The levels with attention (`attn_resolutions`), each given by its side for an image of `resolution`, in pixels.
    pub attention_resolutions: Vec<usize>,
    /// Channels between encoder and codebook (`z_channels`).
    pub latent_channels: usize,
    /// Image side in pixels that `attention_resolutions` refers to.
    pub resolution: usize,
    /// Whether the code of a patch (16×16 pixels with five levels) depends on this patch alone (`local`, a key of
    /// ours). The encoder then sees each patch by itself, all norms are a scale and a shift of each channel without
    /// statistics, and there is no attention, so equal patches have one code wherever they are. The decoder sees all
    /// codes near a pixel. For drawings and other flat images, in networks that are trained so.
    pub is_local: bool,
}

impl Default for VqHyperparameters {
    fn default() -> Self {
        Self {
            embed_dim: defaults::embed_dim(),
            n_codes: defaults::num_embeddings(),
            channels: defaults::base_channels(),
            multipliers: defaults::channel_multiplier(),
            n_res_blocks: defaults::num_res_blocks(),
            attention_resolutions: Vec::new(),
            latent_channels: defaults::latent_channels(),
            resolution: defaults::resolution(),
            is_local: false,
        }
    }
}

/// Groups of every group norm.
pub(crate) const GROUPS: usize = 32;
/// Upper bound of every dimension. Published networks are smaller, and larger products could overflow.
const MAX_DIMENSION: usize = 1 << 20;
/// Upper bound of the residual blocks of a level: published networks have 2.
const MAX_RES_BLOCKS: usize = 1 << 10;

impl VqConfig {
    /// The config of a new network.
    ///
    /// # Errors
    /// [`Error::Config`] if a value is out of range.
    pub fn new(hyperparameters: VqHyperparameters) -> Result<Self> {
        let VqHyperparameters {
            embed_dim,
            n_codes,
            channels,
            multipliers,
            n_res_blocks,
            attention_resolutions,
            latent_channels,
            resolution,
            is_local,
        } = hyperparameters;
        let config = Self {
            embed_dim,
            n_codes,
            channels,
            multipliers,
            n_res_blocks,
            attention_resolutions,
            latent_channels,
            resolution,
            is_local,
        };
        config.validated("VqHyperparameters".as_ref())
    }

    /// The same config with another number of codebook entries.
    ///
    /// # Errors
    /// [`Error::Config`] if the number is out of range.
    pub fn with_n_codes(&self, n_codes: usize) -> Result<Self> {
        Self { n_codes, ..self.clone() }.validated("VqConfig".as_ref())
    }

    /// The config as the text of a `vqgan.yaml`, with the keys of the original, and `local: true` where it is.
    pub fn to_yaml(&self) -> String {
        let Self {
            embed_dim,
            n_codes,
            channels,
            multipliers,
            n_res_blocks,
            attention_resolutions,
            latent_channels,
            resolution,
            is_local,
        } = self;
        let local = if *is_local { "      attn_type: none\n      local: true\n" } else { "" };
        format!(
            "model:
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: {embed_dim}
    n_embed: {n_codes}
    ddconfig:
      double_z: false
      z_channels: {latent_channels}
      resolution: {resolution}
      in_channels: 3
      out_ch: 3
      ch: {channels}
      ch_mult: {multipliers:?}
      num_res_blocks: {n_res_blocks}
      attn_resolutions: {attention_resolutions:?}
      dropout: 0.0
{local}"
        )
    }

    /// Reads `vqgan.yaml`.
    ///
    /// # Errors
    /// [`Error::Core`] where it cannot be read, and those of [`VqConfig::from_yaml`].
    pub fn open(path: &Path) -> Result<Self> {
        let text = file::read_document_text(path)?;
        Self::from_yaml(&text, path)
    }

    /// Parses the text of a `vqgan.yaml`; `file` is named in error messages.
    ///
    /// # Errors
    /// [`Error::ParseConfig`] if a key is missing, [`Error::Config`] if a value is not supported.
    pub fn from_yaml(text: &str, file: &Path) -> Result<Self> {
        let parsed: YamlFile = serde_saphyr::from_str(text).map_err(|error| parse_error(file, error))?;
        let YamlParams { embed_dim, n_embed, ddconfig: network } = parsed.model.params;
        let unsupported = [
            (network.double_z, "double_z: true"),
            (network.resamp_with_conv == Some(false), "resamp_with_conv: false"),
            (network.use_linear_attn == Some(true), "use_linear_attn: true"),
            (network.give_pre_end == Some(true), "give_pre_end: true"),
            (network.tanh_out == Some(true), "tanh_out: true"),
            (network.in_channels != 3, "in_channels other than 3"),
            (network.out_ch != 3, "out_ch other than 3"),
        ];
        if let Some((_, what)) = unsupported.iter().find(|(found, _)| *found) {
            return Err(config_error(file, format!("`{what}` is not supported")));
        }
        if let Some(reason) = refused_attention(network.attn_type.as_deref(), network.local) {
            return Err(config_error(file, reason));
        }
        let config = Self {
            embed_dim,
            n_codes: n_embed,
            channels: network.ch,
            multipliers: network.ch_mult,
            n_res_blocks: network.num_res_blocks,
            attention_resolutions: network.attn_resolutions.unwrap_or_default(),
            latent_channels: network.z_channels,
            resolution: network.resolution,
            is_local: network.local,
        };
        config.validated(file)
    }

    /// Reads the `vq_config` of a Hugging Face `config.json`; `file` is named in error messages.
    ///
    /// # Errors
    /// [`Error::ParseConfig`] if a value has the wrong type, [`Error::Config`] if it is not supported.
    pub fn from_json(vq_config: &serde_json::Value, file: &Path) -> Result<Self> {
        let parsed: HfConfig = serde_json::from_value(vq_config.clone()).map_err(|error| parse_error(file, error))?;
        let unsupported =
            [(parsed.double_latent, "double_latent: true"), (parsed.in_channels != 3, "in_channels other than 3")];
        if let Some((_, what)) = unsupported.iter().find(|(found, _)| *found) {
            return Err(config_error(file, format!("vq_config: `{what}` is not supported")));
        }
        if let Some(reason) = refused_attention(parsed.attn_type.as_deref(), parsed.local) {
            return Err(config_error(file, format!("vq_config: {reason}")));
        }
        let config = Self {
            embed_dim: parsed.embed_dim,
            n_codes: parsed.num_embeddings,
            channels: parsed.base_channels,
            multipliers: parsed.channel_multiplier,
            n_res_blocks: parsed.num_res_blocks,
            attention_resolutions: parsed.attn_resolutions.unwrap_or_default(),
            latent_channels: parsed.latent_channels,
            resolution: parsed.resolution,
            is_local: parsed.local,
        };
        config.validated(file)
    }

    /// Checks every value; `file` is named in error messages.
    fn validated(self, file: &Path) -> Result<Self> {
        let sizes = [
            ("embed_dim", self.embed_dim),
            ("n_embed", self.n_codes),
            ("ch", self.channels),
            ("z_channels", self.latent_channels),
            ("resolution", self.resolution),
            ("ch_mult (number of levels)", self.multipliers.len()),
        ];
        for (name, value) in sizes.into_iter().chain(self.multipliers.iter().map(|&value| ("ch_mult", value))) {
            if value == 0 || value > MAX_DIMENSION {
                return Err(config_error(file, format!("`{name}` is {value}, expected 1 to {MAX_DIMENSION}")));
            }
        }
        if self.multipliers.len() > 8 {
            return Err(config_error(
                file,
                format!("`ch_mult` has {} levels, expected 1 to 8", self.multipliers.len()),
            ));
        }
        if self.is_local && !self.attention_resolutions.is_empty() {
            let reason =
                format!("a local network has no attention, but `attn_resolutions` is {:?}", self.attention_resolutions);
            return Err(config_error(file, reason));
        }
        if self.n_res_blocks > MAX_RES_BLOCKS {
            return Err(config_error(
                file,
                format!("`num_res_blocks` is {}, expected up to {MAX_RES_BLOCKS}", self.n_res_blocks),
            ));
        }
        if self.n_res_blocks == 0 && self.multipliers.iter().any(|&multiplier| multiplier != 1) {
            let reason = format!(
                "without residual blocks all levels need the same channels, but `ch_mult` is {:?}",
                self.multipliers
            );
            return Err(config_error(file, reason));
        }
        for multiplier in &self.multipliers {
            let channels = self.channels * multiplier;
            let groups = if self.is_local { 4 } else { GROUPS };
            if channels == 0 || !channels.is_multiple_of(groups) || channels > MAX_DIMENSION {
                let reason = format!(
                    "`ch` × `ch_mult` = {channels} channels, expected a multiple of {groups} up to {MAX_DIMENSION}"
                );
                return Err(config_error(file, reason));
            }
        }
        Ok(self)
    }

    /// Dimensions of a codebook entry.
    pub fn embed_dim(&self) -> usize {
        self.embed_dim
    }

    /// Number of entries in the codebook.
    pub fn n_codes(&self) -> usize {
        self.n_codes
    }

    /// Pixels that one code covers along each side: 16 in the published models.
    pub fn factor(&self) -> u32 {
        1 << (self.multipliers.len() - 1)
    }

    /// Whether the code of a patch depends on this patch alone: [`VqHyperparameters::is_local`].
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Channels of each level, the finest level first.
    pub(crate) fn level_channels(&self) -> Vec<usize> {
        self.multipliers.iter().map(|multiplier| self.channels * multiplier).collect()
    }

    /// Whether level `level` has attention after its residual blocks.
    pub(crate) fn has_attention(&self, level: usize) -> bool {
        self.attention_resolutions.contains(&(self.resolution >> level))
    }
}

/// Why a kind of attention is not supported. No value and `vanilla` mean the original one, `none` that there is none.
fn refused_attention(attn_type: Option<&str>, is_local: bool) -> Option<String> {
    match (attn_type.unwrap_or("vanilla"), is_local) {
        ("vanilla", false) | ("none", true) => None,
        ("none", false) => Some("`attn_type: none` is not supported without `local: true`".to_owned()),
        (_, false) => Some("`attn_type other than vanilla` is not supported".to_owned()),
        (_, true) => Some("`local: true` has no attention; add `attn_type: none`".to_owned()),
    }
}

fn config_error(file: &Path, reason: String) -> Error {
    Error::Config { file: file.to_owned(), reason }
}

fn parse_error(file: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ParseConfig { file: file.to_owned(), source: error.into() }
}
