//! Adam with its state under the parameters' names in the checkpoint.
//!
//! Burn's own optimizers key their state by ids that are drawn anew at each loading and pass over what a state file
//! lacks. A resumed run has to continue as if it had not stopped, so what is missing here is an error.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use lumina_core::checkpoint::{Checkpoint, Dtype};

use super::tensors::{Named, floats, named_floats};
use crate::Result;

/// As PyTorch has it.
const EPSILON: f64 = 1e-8;

/// Adam (arXiv 1412.6980), in the form of `torch.optim.Adam`.
#[derive(Debug)]
pub(super) struct Adam {
    betas: (f64, f64),
    /// Steps taken.
    step: u64,
    /// Running means of gradients and of their squares, flat.
    means: BTreeMap<String, [Tensor<1>; 2]>,
}

impl Adam {
    pub(super) fn new(betas: (f64, f64)) -> Self {
        Self { betas, step: 0, means: BTreeMap::new() }
    }

    /// One step of every parameter that has a gradient.
    pub(super) fn step<M: Module>(
        &mut self,
        rate: f64,
        module: M,
        grads: GradientsParams,
        names: &HashMap<ParamId, String>,
    ) -> M {
        self.step += 1;
        module.map(&mut Update { adam: self, rate, grads, names })
    }

    /// The state's tensors; the number of steps is the caller's to keep.
    pub(super) fn state(&self) -> Result<Vec<Named>> {
        let mut tensors = Vec::with_capacity(self.means.len() * 2);
        for (name, [first, second]) in &self.means {
            tensors.push(named_floats(format!("exp_avg.{name}"), first.clone(), Dtype::F32)?);
            tensors.push(named_floats(format!("exp_avg_sq.{name}"), second.clone(), Dtype::F32)?);
        }
        Ok(tensors)
    }

    pub(super) fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Reads what [`Adam::state`] gave after `step` steps, for parameters of these names and numbers of elements.
    pub(super) fn load<'a>(
        &mut self,
        checkpoint: &Checkpoint,
        step: u64,
        expected: impl Iterator<Item = (&'a str, usize)>,
        device: &Device,
    ) -> Result<()> {
        self.step = step;
        if step == 0 {
            return Ok(());
        }
        for (name, length) in expected {
            let read = |kind: &str| -> Result<Tensor<1>> {
                let values = floats(checkpoint, &format!("{kind}.{name}"), Some(length))?;
                Ok(Tensor::from_data(TensorData::from(values.as_slice()), device))
            };
            self.means.insert(name.to_owned(), [read("exp_avg")?, read("exp_avg_sq")?]);
        }
        Ok(())
    }
}

struct Update<'a> {
    adam: &'a mut Adam,
    rate: f64,
    grads: GradientsParams,
    names: &'a HashMap<ParamId, String>,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let (Some(grad), Some(name)) = (self.grads.remove::<D>(id), self.names.get(&id)) else {
            return Param::from_mapped_value(id, value, mapper);
        };
        let (tracked, shape) = (value.is_require_grad(), value.shape());
        let flat: Tensor<1> = value.inner().flatten(0, D - 1);
        let grad: Tensor<1> = grad.flatten(0, D - 1);
        let (beta_1, beta_2) = self.adam.betas;
        let zeros = || [grad.zeros_like(), grad.zeros_like()];
        let [first, second] = self.adam.means.remove(name).unwrap_or_else(zeros);
        let first = first * beta_1 + grad.clone() * (1.0 - beta_1);
        let second = second * beta_2 + grad.square() * (1.0 - beta_2);
        // Exponents beyond this leave nothing of either power.
        let step = self.adam.step.min(1 << 30) as i32;
        let root = (second.clone() / (1.0 - beta_2.powi(step))).sqrt() + EPSILON;
        let flat = flat - first.clone() * (self.rate / (1.0 - beta_1.powi(step))) / root;
        self.adam.means.insert(name.clone(), [first, second]);
        let value = Tensor::from_inner(flat.reshape(shape)).set_require_grad(tracked);
        Param::from_mapped_value(id, value, mapper)
    }
}
