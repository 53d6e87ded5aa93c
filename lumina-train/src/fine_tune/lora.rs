//! New LoRA adapters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::{Adapter, Dtype, save_safetensors};
use lumina_mgpt::{ModelConfig, Transformer};
use lumina_nn::Compute;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::checkpoint::{self, with_base_model, write_json};
use crate::{Error, Result};

/// A new LoRA adapter: a pair of small matrices for each of some linear layers. Only these are trained.
///
/// LoRA is arXiv 2106.09685. The original of Lumina-mGPT has none; layout, names and initial values are PEFT's.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LoraOptions {
    /// Inner width of the pairs. A larger rank can learn more and takes more memory. Default 16.
    pub rank: usize,
    /// The product of a pair is multiplied by `alpha / rank`. Default 32.
    pub alpha: f64,
    /// The layers, by path (`model.layers.0.self_attn.q_proj`) or the end of it (`q_proj`). The default is all linear
    /// layers of attention and MLP.
    pub targets: Vec<String>,
    /// The initial values follow from it.
    pub seed: u64,
}

impl Default for LoraOptions {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank: 16, alpha: 32.0, targets: targets.map(str::to_owned).to_vec(), seed: 0 }
    }
}

impl LoraOptions {
    /// An adapter of this rank, whose alpha is twice as large. The rest is the default.
    pub fn with_rank(rank: usize) -> Self {
        Self { rank, alpha: 2.0 * rank as f64, ..Self::default() }
    }

    /// Writes a new adapter for the model in the folder `model` as a PEFT folder, from which
    /// [`Trainer::with_adapter`](super::Trainer::with_adapter) begins. It changes nothing yet: `A` `[rank, inputs]` is
    /// uniform within `1 / √inputs`, `B` `[outputs, rank]` zero, as in
    /// `peft/tuners/lora/layer.py::reset_lora_parameters`.
    ///
    /// The folder is made under a temporary name and then renamed.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where the rank is 0 or above the widths of a layer, or alpha is not finite;
    /// [`Error::NoTargets`], [`Error::UnknownTarget`]; [`Error::Model`] where the folder's config is not a model's;
    /// [`Error::Write`], also where the adapter's folder exists already.
    pub fn create(&self, model: &Path, adapter: &Path, compute: &Compute) -> Result<()> {
        let file = model.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        let all = Transformer::linear_layers(&architecture, compute);
        let layers = self.layers(&all)?;
        checkpoint::create(adapter, |partial| {
            write_json(&partial.join(Adapter::CONFIG), &self.config(model)?)?;
            let tensors = layers.iter().enumerate().flat_map(|(stream, (layer, [outputs, inputs]))| {
                let [a, b] = Adapter::tensor_names(layer);
                [(a, [self.rank, *inputs], Some(stream)), (b, [*outputs, self.rank], None)]
            });
            let tensors = tensors.map(|(name, shape, stream)| {
                let values = move || Ok(self.values(shape, stream));
                (name, Dtype::F32, shape, values)
            });
            save_safetensors(partial.join(Adapter::WEIGHTS), tensors)?;
            Ok(())
        })
    }

    /// The layers that the targets name, out of all.
    fn layers<'a>(&self, all: &'a BTreeMap<String, [usize; 2]>) -> Result<Vec<(&'a str, [usize; 2])>> {
        let out_of_range = |field, value: String, expected| Err(Error::OutOfRange { field, value, expected });
        if !self.alpha.is_finite() {
            return out_of_range("alpha", self.alpha.to_string(), "a finite number".to_owned());
        }
        if self.targets.is_empty() {
            return Err(Error::NoTargets);
        }
        if let Some(unknown) =
            self.targets.iter().find(|target| !all.keys().any(|path| Adapter::is_target(path, target)))
        {
            let ends: BTreeSet<&str> =
                all.keys().map(|path| path.rsplit_once('.').map_or(path.as_str(), |(_, end)| end)).collect();
            let layers = ends.into_iter().map(str::to_owned).collect();
            return Err(Error::UnknownTarget { target: unknown.clone(), layers });
        }
        let is_chosen = |path: &str| self.targets.iter().any(|target| Adapter::is_target(path, target));
        let chosen: Vec<_> =
            all.iter().filter(|(path, _)| is_chosen(path)).map(|(path, &shape)| (path.as_str(), shape)).collect();
        let most = chosen.iter().flat_map(|(_, shape)| shape).copied().min().unwrap_or_default();
        if self.rank == 0 || self.rank > most {
            let expected = format!("1 to {most}, the least width of the layers");
            return out_of_range("rank", self.rank.to_string(), expected);
        }
        Ok(chosen)
    }

    /// `adapter_config.json`.
    fn config(&self, model: &Path) -> Result<Map<String, Value>> {
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": self.targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "use_rslora": false,
            "use_dora": false,
            "init_lora_weights": true,
            "modules_to_save": null,
        });
        match config {
            Value::Object(config) => with_base_model(config, model),
            _ => Ok(Map::new()),
        }
    }

    /// The initial values of a matrix, `f32`, random numbers of a stream; zero without one.
    fn values(&self, [rows, columns]: [usize; 2], stream: Option<usize>) -> Bytes {
        let Some(stream) = stream else { return vec![0; 4 * rows * columns].into() };
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        random.set_stream(stream as u64);
        let bound = (columns as f64).powf(-0.5);
        let mut uniform = move || f64::from(random.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
        (0..rows * columns).flat_map(|_| ((bound * uniform()) as f32).to_le_bytes()).collect()
    }
}
