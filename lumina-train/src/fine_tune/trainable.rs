//! A checkpoint's tensors as parameters that record gradients.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use lumina_checkpoint::{Adapter, Checkpoint};
use lumina_mgpt::{Architecture, ModelConfig, Transformer};
use lumina_nn::{Compute, Loader};

use crate::{Error, Result};

/// A transformer to be trained, with the checkpoint names of its parameters.
#[derive(Debug)]
pub struct Trainable {
    /// The network.
    pub model: Transformer,
    /// The checkpoint names of the parameters that are trained: all, or those of the adapter.
    pub names: HashMap<ParamId, String>,
}

/// `compute` for training: gradients are recorded, and parameters are in `f32` whatever the type of activations.
pub fn recording(compute: &Compute) -> Compute {
    let device = compute.device().autodiff();
    compute.clone().on_device(device).master_weights()
}

impl Trainable {
    /// Opens a Hugging Face folder for training.
    ///
    /// # Errors
    /// Those of [`Transformer::open`], and [`Error::SharedParameter`] where the head is the embedding.
    pub fn open(folder: &Path, compute: &Compute) -> Result<Self> {
        Ok(Source::open(folder, None)?.load(compute, &|_| true)?.trainable)
    }

    /// The network in a checkpoint's tensors.
    ///
    /// # Errors
    /// Those of [`Transformer::from_checkpoint`], and [`Error::SharedParameter`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, architecture: Architecture, compute: &Compute) -> Result<Self> {
        let loader = Loader::new(checkpoint, &recording(compute));
        Ok(Loaded::new(&loader, architecture)?.trainable)
    }

    /// Opens the Hugging Face folder `model` with a LoRA adapter on it, for training of the adapter alone. The model's
    /// own parameters are in the type of activations and have no gradients.
    ///
    /// # Errors
    /// Those of [`Transformer::open`], and [`Error::AdapterDropout`]: dropout of the adapter alone is not supported.
    pub fn open_with_adapter(model: &Path, adapter: &Adapter, compute: &Compute) -> Result<Self> {
        Ok(Source::open(model, Some(adapter))?.load(compute, &|_| true)?.trainable)
    }

    /// Sets the head's rows of these tokens to zero, if the head itself is trained. FP-SFT starts so: the language
    /// model has never predicted image tokens, and their rows mean nothing.
    #[must_use]
    pub fn zero_head_rows(self, tokens: &[u32]) -> Self {
        let head = self.names.iter().find(|(_, name)| *name == "lm_head.weight").map(|(id, _)| *id);
        let Some(head) = head else { return self };
        let model = self.model.map(&mut ZeroRows { head, tokens });
        Self { model, names: self.names }
    }
}

/// What a network is loaded from.
pub(super) struct Source<'a> {
    checkpoint: Checkpoint,
    architecture: Architecture,
    adapter: Option<&'a Adapter>,
}

impl<'a> Source<'a> {
    /// The model in a Hugging Face folder, with an adapter on it if there is one.
    pub(super) fn open(folder: &Path, adapter: Option<&'a Adapter>) -> Result<Self> {
        let file = folder.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        let rate = adapter.and_then(|adapter| adapter.config().get("lora_dropout"));
        if let Some(rate) = rate.filter(|rate| rate.as_f64() != Some(0.0)) {
            return Err(Error::AdapterDropout { rate: rate.to_string() });
        }
        Ok(Self { checkpoint: lumina_mgpt::convert::open(folder)?, architecture, adapter })
    }

    /// The network, with placeholders for the parameters that `keep` does not accept by their names.
    pub(super) fn load(&self, compute: &Compute, keep: &dyn Fn(&str) -> bool) -> Result<Loaded> {
        let loader = Loader::new(&self.checkpoint, &recording(compute)).keeping(keep);
        let loader = match self.adapter {
            None => loader,
            Some(adapter) => loader.with_adapter(adapter),
        };
        Loaded::new(&loader, self.architecture.clone())
    }
}

/// A network whose parameters may be placeholders, and what its loader knows of them.
pub(super) struct Loaded {
    pub(super) trainable: Trainable,
    /// The checkpoint's names of the parameters that are shared out without being trained.
    pub(super) frozen: HashMap<ParamId, String>,
    /// The shapes of all by their names.
    pub(super) shapes: BTreeMap<String, Vec<usize>>,
}

impl Loaded {
    fn new(loader: &Loader<'_>, architecture: Architecture) -> Result<Self> {
        let model = Transformer::from_loader(loader, architecture)?;
        let trainable = Trainable { model, names: loader.parameter_names() };
        let mut once = HashSet::new();
        if let Some(name) = trainable.names.values().find(|&name| !once.insert(name)) {
            return Err(Error::SharedParameter { name: name.clone() });
        }
        Ok(Self { trainable, frozen: loader.frozen_names(), shapes: loader.shapes() })
    }
}

struct ZeroRows<'a> {
    head: ParamId,
    tokens: &'a [u32],
}

impl ModuleMapper for ZeroRows<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        if id != self.head {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let tensor = tensor.inner();
        let shape = tensor.shape();
        let mut factors = vec![1.0f32; shape[0]];
        for &token in self.tokens {
            if let Some(factor) = factors.get_mut(token as usize) {
                *factor = 0.0;
            }
        }
        let mut column = [1; D];
        column[0] = factors.len();
        let zeroed = tensor.clone() * Tensor::from_data(TensorData::new(factors, column), &tensor.device());
        Param::from_mapped_value(id, Tensor::from_inner(zeroed).require_grad(), mapper)
    }
}
