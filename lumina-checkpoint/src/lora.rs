//! LoRA adapters in the layout of Hugging Face's PEFT.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::source::Source;
use crate::{Checkpoint, Error, Result, TensorView};

/// The names of an adapter's tensors have this before the path of their layer.
const PREFIX: &str = "base_model.model.";
/// They have one of these after it, `A` first.
const SUFFIXES: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// Settings of PEFT that change what an adapter computes, and are not supported.
const UNSUPPORTED: [&str; 14] = [
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
];
/// Settings with other values of a setting for some layers. They are supported where they change no layer.
const PATTERNS: [(&str, &str); 2] = [("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")];

/// Entries of a pattern and names in `target_modules`, each of which is compared with each layer. PEFT writes one a
/// layer at most.
const MAX_NAMES: usize = 1 << 12;

/// Initialisations that leave the weights of the model as they are. Others (`pissa`, `loftq`, …) change the model too.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// A LoRA adapter: for some linear layers of a model, matrices `A` `[rank, inputs]` and `B` `[outputs, rank]` whose
/// product, scaled, is added to the weight. Cloning copies no data.
///
/// It is a folder of `adapter_config.json` and `adapter_model.safetensors`, which PEFT reads and writes
/// (`peft/tuners/lora`). The loader of `lumina-nn` adds it to a network.
#[derive(Clone)]
pub struct Adapter {
    config: Map<String, Value>,
    rank: usize,
    scale: f64,
    /// Ends of the paths of layers that must have a pair where the model has them, as far as the config lists them.
    targets: Vec<String>,
    layers: BTreeSet<String>,
    checkpoint: Checkpoint,
}

impl Adapter {
    /// The file of an adapter's settings.
    pub const CONFIG: &str = "adapter_config.json";
    /// The file of its tensors.
    pub const WEIGHTS: &str = "adapter_model.safetensors";

    /// Opens a PEFT folder. It checks that the adapter is complete, of one rank, and of the supported kind: plain LoRA,
    /// with or without `use_rslora`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Adapter`] for a setting or a tensor that does not fit, and those of
    /// [`Checkpoint::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::of_source(&Source::Folder(folder.as_ref().to_owned()))
    }

    /// Opens the files of a PEFT folder in memory: [`Adapter::CONFIG`] and [`Adapter::WEIGHTS`]. `name` is what errors
    /// call the folder.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn from_files<N: Into<String>, B: Into<Bytes>>(
        name: impl Into<PathBuf>,
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Self> {
        let files = files.into_iter().map(|(name, bytes)| (name.into(), bytes.into())).collect();
        Self::of_source(&Source::Files(name.into(), files))
    }

    fn of_source(source: &Source) -> Result<Self> {
        let config_file = source.file(Self::CONFIG);
        let text = source.document(Self::CONFIG)?.ok_or_else(|| source.missing(Self::CONFIG))?;
        lumina_core::file::check_json(&config_file, &text)?;
        let config: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| refused(&config_file, format!("not a config: {error}")))?;
        let (rank, scale) = check(&config).map_err(|reason| refused(&config_file, reason))?;
        let file = source.file(Self::WEIGHTS);
        let weights = source.weights(Self::WEIGHTS)?.ok_or_else(|| source.missing(Self::WEIGHTS))?;
        let checkpoint = Checkpoint::from_bytes(file.clone(), weights)?;
        let mut layers = BTreeSet::new();
        for name in checkpoint.names() {
            let layer = layer_of(name).ok_or_else(|| {
                let others = "PEFT leaves out whole weights with `save_embedding_layers=False`";
                refused(
                    &file,
                    format!("`{name}` is no matrix of a linear layer's LoRA, and all else is refused; {others}"),
                )
            })?;
            layers.insert(layer.to_owned());
        }
        let adapter = Self { targets: targets(&config), config, rank, scale, layers, checkpoint };
        if adapter.layers.is_empty() {
            return Err(refused(&file, "it holds no tensor".to_owned()));
        }
        for layer in &adapter.layers {
            adapter.check_pair(layer).map_err(|reason| refused(&file, reason))?;
        }
        check_patterns(&adapter.config, &adapter.layers).map_err(|reason| refused(&config_file, reason))?;
        Ok(adapter)
    }

    /// The settings, as the file has them.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Number of rows of `A` and of columns of `B`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The factor of the product of the matrices: `lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Paths of the layers that the adapter changes, `model.layers.0.self_attn.q_proj`, sorted.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(String::as_str)
    }

    /// The matrices of a layer: `A` `[rank, inputs]` and `B` `[outputs, rank]`.
    pub fn matrices(&self, layer: &str) -> Option<[TensorView; 2]> {
        let [a, b] = Self::tensor_names(layer);
        Some([self.checkpoint.get(&a)?, self.checkpoint.get(&b)?])
    }

    /// The names of a layer's matrices in the file.
    pub fn tensor_names(layer: &str) -> [String; 2] {
        SUFFIXES.map(|suffix| format!("{PREFIX}{layer}{suffix}"))
    }

    /// Whether `target` is the path of a layer, or the end of that path.
    ///
    /// Mirrors `peft/tuners/tuners_utils.py::check_target_module_exists`.
    pub fn is_target(path: &str, target: &str) -> bool {
        path.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether the layer at `path` must have matrices.
    pub fn adapts(&self, path: &str) -> bool {
        self.layers.contains(path) || self.target_of(path).is_some()
    }

    /// The name in `target_modules` that stands for the layer at `path`. A name that stands for no layer of a model is
    /// no error, as in PEFT: lists are written for many kinds of models.
    pub fn target_of(&self, path: &str) -> Option<&str> {
        self.targets.iter().map(String::as_str).find(|target| Self::is_target(path, target))
    }

    /// Checks the matrices of a layer, as far as that is possible without the model.
    fn check_pair(&self, layer: &str) -> Result<(), String> {
        let rank = self.rank;
        for (axis, name) in Self::tensor_names(layer).iter().enumerate() {
            let Some(view) = self.checkpoint.get(name) else {
                return Err(format!("`{name}` is missing, the other half of the pair is there"));
            };
            if view.shape().len() != 2 || view.shape()[axis] != rank {
                let expected = ["[rank, inputs]", "[outputs, rank]"][axis];
                return Err(format!("`{name}` has shape {:?}, expected {expected} with rank {rank}", view.shape()));
            }
            if !view.dtype().is_float() {
                return Err(format!("`{name}` has type {}, expected a float type", view.dtype()));
            }
        }
        Ok(())
    }
}

/// Checks that a config is supported, and returns rank and scale.
fn check(config: &Map<String, Value>) -> Result<(usize, f64), String> {
    let get = |key: &str| config.get(key).unwrap_or(&Value::Null);
    if get("peft_type") != "LORA" {
        return Err(format!("`peft_type` is {}, expected \"LORA\"", shown(get("peft_type"))));
    }
    if let Some(key) = UNSUPPORTED.into_iter().find(|key| is_set(get(key))) {
        return Err(format!("`{key}` is {}, which is not supported", shown(get(key))));
    }
    if is_set(get("bias")) && get("bias") != "none" {
        return Err(format!("`bias` is {}, expected \"none\"", shown(get("bias"))));
    }
    if let first @ Value::String(name) = get("init_lora_weights")
        && !INITIALISATIONS.contains(&name.as_str())
    {
        let reason = "it changes the model's own weights; save the adapter as a plain LoRA from PEFT";
        return Err(format!("`init_lora_weights` is {}, which is not supported: {reason}", shown(first)));
    }
    for key in PATTERNS.map(|(pattern, _)| pattern).into_iter().chain(["target_modules"]) {
        let names = match get(key) {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        if names > MAX_NAMES {
            return Err(format!("`{key}` has {names} names, more than {MAX_NAMES}; is it the right file?"));
        }
    }
    // Far above any real rank, and so small that no product of two sizes overflows.
    const LARGEST: u64 = 1 << 24;
    let rank = get("r").as_u64().filter(|rank| (1..=LARGEST).contains(rank));
    let rank = rank.ok_or_else(|| format!("`r` is {}, expected an integer from 1 to {LARGEST}", shown(get("r"))))?;
    let alpha = get("lora_alpha").as_f64().filter(|alpha| alpha.is_finite());
    let alpha = alpha.ok_or_else(|| format!("`lora_alpha` is {}, expected a number", shown(get("lora_alpha"))))?;
    let divisor = if is_set(get("use_rslora")) { (rank as f64).sqrt() } else { rank as f64 };
    Ok((rank as usize, alpha / divisor))
}

/// Checks that no pattern gives a layer another rank or scale than the config gives to all.
fn check_patterns(config: &Map<String, Value>, layers: &BTreeSet<String>) -> Result<(), String> {
    for (pattern, setting) in PATTERNS {
        let Some(value) = config.get(pattern).filter(|value| is_set(value)) else { continue };
        let of_all = config.get(setting).and_then(Value::as_f64);
        let same = |other: &Value| other.as_f64().is_some_and(|other| Some(other) == of_all);
        let is_noop = value.as_object().is_some_and(|entries| {
            entries.iter().all(|(key, other)| same(other) || !layers.iter().any(|layer| can_match(key, layer)))
        });
        if !is_noop {
            let reason = format!("only one `{setting}` for all layers is supported");
            return Err(format!("`{pattern}` is {}: {reason}", shown(value)));
        }
    }
    Ok(())
}

/// Whether a key of a pattern can be that of a layer. It is a regular expression for the path or the end of the path
/// after a dot. A key that is no plain name, in which only dots stand for any character, counts as one of every layer.
///
/// Mirrors `peft/utils/other.py::get_pattern_key`.
fn can_match(key: &str, layer: &str) -> bool {
    if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return true;
    }
    let (layer, key) = (layer.as_bytes(), key.as_bytes());
    let Some((rest, end)) = layer.len().checked_sub(key.len()).map(|at| layer.split_at(at)) else { return false };
    let is_end = end.iter().zip(key).all(|(byte, expected)| byte == expected || *expected == b'.');
    is_end && (rest.is_empty() || rest.ends_with(b"."))
}

/// A value of the config, for messages.
fn shown(value: &Value) -> String {
    const MOST: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether a setting exists and is not the empty default.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

/// The ends of paths in `target_modules`. The list is empty where that is a pattern, or where other settings exclude
/// layers: then the layers are those that have tensors.
fn targets(config: &Map<String, Value>) -> Vec<String> {
    if ["exclude_modules", "layers_to_transform"].iter().any(|key| config.get(*key).is_some_and(is_set)) {
        return Vec::new();
    }
    let list = config.get("target_modules").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The path of the layer that a tensor belongs to.
fn layer_of(name: &str) -> Option<&str> {
    let path = name.strip_prefix(PREFIX)?;
    SUFFIXES.iter().find_map(|suffix| path.strip_suffix(suffix))
}

fn refused(file: &Path, reason: String) -> Error {
    Error::Adapter { file: PathBuf::from(file), reason }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter")
            .field("rank", &self.rank)
            .field("scale", &self.scale)
            .field("layers", &self.layers.len())
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}
