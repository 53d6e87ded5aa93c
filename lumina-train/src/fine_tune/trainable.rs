//! A checkpoint's tensors as parameters that record gradients.

use std::collections::HashMap;
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
    /// Those of [`Transformer::open`].
    pub fn open(folder: &Path, compute: &Compute) -> Result<Self> {
        let file = folder.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        Self::from_checkpoint(&lumina_mgpt::convert::open(folder)?, architecture, compute)
    }

    /// The network in a checkpoint's tensors.
    ///
    /// # Errors
    /// Those of [`Transformer::from_checkpoint`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, architecture: Architecture, compute: &Compute) -> Result<Self> {
        let loader = Loader::new(checkpoint, &recording(compute));
        let model = Transformer::from_loader(&loader, architecture)?;
        Ok(Self { model, names: loader.parameter_names() })
    }

    /// Opens the Hugging Face folder `model` with a LoRA adapter on it, for training of the adapter alone. The model's
    /// own parameters are in the type of activations and have no gradients.
    ///
    /// # Errors
    /// Those of [`Transformer::open`], and [`Error::AdapterDropout`]: dropout of the adapter alone is not supported.
    pub fn open_with_adapter(model: &Path, adapter: &Adapter, compute: &Compute) -> Result<Self> {
        let file = model.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        if let Some(rate) = adapter.config().get("lora_dropout").filter(|rate| rate.as_f64() != Some(0.0)) {
            return Err(Error::AdapterDropout { rate: rate.to_string() });
        }
        let checkpoint = lumina_mgpt::convert::open(model)?;
        let loader = Loader::new(&checkpoint, &recording(compute)).with_adapter(adapter);
        let model = Transformer::from_loader(&loader, architecture)?;
        Ok(Self { model, names: loader.parameter_names() })
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
