//! AdamW on all parameters alike, and clipping by the global norm.
//!
//! Burn's optimizer restores its state on its default device, which may be one that the machine lacks, and clips each
//! tensor by itself; the original clips all together.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_nn::ops::{AdamWStep, Moments, adamw, square_sum};

use crate::{Error, Result};

/// How AdamW moves; the default is the original's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    pub beta_2: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// Share of the learning rate by which weights shrink at each step.
    pub weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.1 }
    }
}

/// AdamW, with a state for each parameter under its checkpoint name. Mirrors `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    names: HashMap<ParamId, String>,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

impl AdamW {
    /// An optimizer without history of the parameters that have these names.
    pub fn new(options: AdamWOptions, names: HashMap<ParamId, String>) -> Self {
        Self { options, names, moments: BTreeMap::new(), steps: 0 }
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves each parameter that has a gradient.
    pub fn step<M: Module>(&mut self, lr: f64, model: M, grads: GradientsParams) -> M {
        self.steps += 1;
        model.map(&mut Update { optimizer: self, grads, lr })
    }

    /// Writes the state to a safetensors file: `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it cannot be written, [`Error::Compute`].
    pub fn save(&self, file: &Path) -> Result<()> {
        let both = self.moments.iter().flat_map(|(name, moments)| {
            [(format!("{name}.exp_avg"), &moments.first), (format!("{name}.exp_avg_sq"), &moments.second)]
        });
        let tensors = both.map(|(name, tensor)| {
            let bytes = move || Ok(crate::checkpoint::bytes_of(tensor.clone(), Dtype::F32)?);
            (name, Dtype::F32, tensor.dims(), bytes)
        });
        Ok(save_safetensors(file, tensors)?)
    }

    /// Takes up the state that [`AdamW::save`] wrote after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file cannot be read, [`Error::OptimizerState`] where it is of another model.
    pub fn load(&mut self, file: &Path, steps: u64, model: &impl Module) -> Result<()> {
        let checkpoint = Checkpoint::open(file)?;
        let mut load =
            LoadState { names: &self.names, checkpoint: &checkpoint, moments: BTreeMap::new(), problem: None };
        model.visit(&mut load);
        // What is left over is of a larger model; nothing at all is no state of a run that has made steps.
        let known = |name: &str| {
            let parameter = name.strip_suffix(".exp_avg").or_else(|| name.strip_suffix(".exp_avg_sq"));
            parameter.is_some_and(|parameter| load.moments.contains_key(parameter))
        };
        let foreign = checkpoint.names().find(|name| !known(name)).map(str::to_owned);
        let absent = || (steps > 0 && load.moments.is_empty()).then(|| "<parameter>.exp_avg".to_owned());
        if let Some(tensor) = load.problem.clone().or(foreign).or_else(absent) {
            return Err(Error::OptimizerState { file: file.to_owned(), tensor });
        }
        self.moments = load.moments;
        self.steps = steps;
        Ok(())
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    grads: GradientsParams,
    lr: f64,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let AdamWOptions { beta_1, beta_2, epsilon, weight_decay } = self.optimizer.options;
        let (id, tensor, mapper) = param.consume();
        let name = self.optimizer.names.get(&id);
        let (Some(grad), Some(name)) = (self.grads.remove::<D>(id), name) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let step =
            AdamWStep { learning_rate: self.lr, beta_1, beta_2, epsilon, weight_decay, step: self.optimizer.steps };
        let moments = self.optimizer.moments.remove(name);
        let (moved, moments) = adamw(tensor.inner(), grad, moments, &step);
        self.optimizer.moments.insert(name.clone(), moments);
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

struct LoadState<'a> {
    names: &'a HashMap<ParamId, String>,
    checkpoint: &'a Checkpoint,
    moments: BTreeMap<String, Moments>,
    problem: Option<String>,
}

impl ModuleVisitor for LoadState<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(name) = self.names.get(&param.id) else { return };
        let tensor = param.val().inner();
        let elements = tensor.shape().num_elements();
        let mut read = |suffix: &str| {
            let key = format!("{name}.{suffix}");
            let values =
                self.checkpoint.get(&key).filter(|view| view.shape() == [elements] && view.dtype() == Dtype::F32);
            let Some(view) = values else {
                self.problem = Some(key);
                return None;
            };
            let values: Vec<f32> = view
                .bytes()
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect();
            Some(Tensor::from_data(TensorData::new(values, [elements]), &tensor.device()))
        };
        // A parameter that never had a gradient has no state.
        if !self.checkpoint.contains(&format!("{name}.exp_avg")) {
            return;
        }
        if let (Some(first), Some(second)) = (read("exp_avg"), read("exp_avg_sq")) {
            self.moments.insert(name.clone(), Moments { first, second });
        }
    }
}

/// The norm of all gradients together.
///
/// # Errors
/// [`Error::Compute`].
pub fn global_norm(model: &impl Module, grads: &GradientsParams) -> Result<f64> {
    struct Squares<'a> {
        grads: &'a GradientsParams,
        sums: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.get::<D>(param.id) {
                self.sums.push(square_sum(grad));
            }
        }
    }
    let mut squares = Squares { grads, sums: Vec::new() };
    model.visit(&mut squares);
    if squares.sums.is_empty() {
        return Ok(0.0);
    }
    let sums = lumina_nn::ops::read(Tensor::cat(squares.sums, 0))?;
    Ok(sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt())
}

/// The gradients times `factor`.
pub fn scale(model: &impl Module, grads: GradientsParams, factor: f64) -> GradientsParams {
    if factor == 1.0 {
        return grads;
    }
    struct Scale {
        from: GradientsParams,
        to: GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scale {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.from.remove::<D>(param.id) {
                self.to.register(param.id, grad * self.factor);
            }
        }
    }
    let mut scale = Scale { from: grads, to: GradientsParams::new(), factor };
    model.visit(&mut scale);
    scale.to
}

/// What gradients of norm `norm` are multiplied by so that the norm is at most `max`.
///
/// Mirrors `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).min(1.0)
}
