//! AdamW, and Muon for some parameters where asked to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use lumina_checkpoint::{Checkpoint, Dtype, TensorView, save_safetensors};
use lumina_nn::ops::{AdamWStep, Moments, MuonStep, adamw, muon};

use super::muon::{MuonOptions, is_for};
use crate::checkpoint::{WeightType, tensor_bytes};
use crate::{Error, Result};

/// The numbers of AdamW. The default is the original's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct AdamWOptions {
    /// Decay factor of the mean of gradients. Default 0.9.
    pub beta_1: f64,
    /// Decay factor of the mean of squared gradients. Default 0.95.
    pub beta_2: f64,
    /// Added to the root of the mean of squares. Default 1e-8.
    pub epsilon: f64,
    /// At each step weights lose this fraction of themselves, times the learning rate. Default 0.1.
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
    muon: Option<MuonOptions>,
    names: HashMap<ParamId, String>,
    states: BTreeMap<String, State>,
    steps: u64,
}

/// What is remembered of a parameter's gradients.
#[derive(Debug)]
struct State {
    /// AdamW's mean of gradients, or Muon's sum. `[elements]`.
    first: Tensor<1>,
    /// AdamW's mean of squared gradients; Muon has none.
    second: Option<Tensor<1>>,
}

impl State {
    /// The tensors' names in a file, behind that of the parameter. They are those of `torch.optim`.
    const OF_ADAMW: [&str; 2] = ["exp_avg", "exp_avg_sq"];
    const OF_MUON: [&str; 1] = ["momentum_buffer"];

    fn tensors(&self) -> Vec<(&'static str, &Tensor<1>)> {
        match &self.second {
            Some(second) => Self::OF_ADAMW.into_iter().zip([&self.first, second]).collect(),
            None => Self::OF_MUON.into_iter().zip([&self.first]).collect(),
        }
    }
}

impl AdamW {
    /// An optimizer, before its first step, of the parameters that have these names.
    pub fn new(options: AdamWOptions, names: HashMap<ParamId, String>) -> Self {
        Self { options, muon: None, names, states: BTreeMap::new(), steps: 0 }
    }

    /// With Muon for the weights of linear layers: matrices whose names have `_proj.` in them. AdamW updates the rest.
    #[must_use]
    pub fn with_muon(mut self, options: Option<MuonOptions>) -> Self {
        self.muon = options;
        self
    }

    /// The numbers of Muon where this parameter is updated by it.
    fn muon_for(&self, name: &str, dimensions: usize) -> Option<MuonOptions> {
        self.muon.filter(|_| is_for(name, dimensions))
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates each parameter that has a gradient.
    pub fn step<M: Module>(&mut self, learning_rate: f64, model: M, gradients: GradientsParams) -> M {
        self.steps += 1;
        model.map(&mut Update { optimizer: self, gradients, learning_rate })
    }

    /// Writes the state to a safetensors file: `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`, and of parameters
    /// that Muon updates `<parameter>.momentum_buffer`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file cannot be written or the device fails.
    pub fn save(&self, file: &Path) -> Result<()> {
        Self::save_all([self], file)
    }

    /// As [`AdamW::save`], the states of optimizers that have different parameters.
    pub(crate) fn save_all<'a>(optimizers: impl IntoIterator<Item = &'a Self>, file: &Path) -> Result<()> {
        let states: BTreeMap<&String, &State> =
            optimizers.into_iter().flat_map(|optimizer| &optimizer.states).collect();
        let all = states.into_iter().flat_map(|(name, state)| {
            state.tensors().into_iter().map(move |(part, tensor)| (format!("{name}.{part}"), tensor))
        });
        let tensors = all.map(|(name, tensor)| {
            (name, Dtype::F32, tensor.dims(), move || tensor_bytes(tensor.clone(), WeightType::F32))
        });
        Ok(save_safetensors(file, tensors)?)
    }

    /// Reads the state that [`AdamW::save`] wrote after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file cannot be read, [`Error::TrainerState`] where it is of another model.
    pub fn load(&mut self, file: &Path, steps: u64, model: &impl Module) -> Result<()> {
        struct List<'a> {
            names: &'a HashMap<ParamId, String>,
            parameters: Vec<StateOf<'a>>,
        }
        impl ModuleVisitor for List<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(name) = self.names.get(&param.id) {
                    let tensor = param.val().inner();
                    let (elements, device) = (tensor.shape().num_elements(), tensor.device());
                    self.parameters.push(StateOf { name, dimensions: D, elements, device, is_own: true });
                }
            }
        }
        let names = std::mem::take(&mut self.names);
        let mut list = List { names: &names, parameters: Vec::new() };
        model.visit(&mut list);
        let loaded = self.load_part(&[file.to_owned()], steps, list.parameters);
        self.names = names;
        loaded
    }

    /// As [`AdamW::load`], from the files that ranks wrote, of all parameters that are trained.
    pub(crate) fn load_part(&mut self, files: &[PathBuf], steps: u64, parameters: Vec<StateOf<'_>>) -> Result<()> {
        let mut found = HashSet::new();
        let mut states = BTreeMap::new();
        for file in files {
            let failed = |tensor: &str| Error::TrainerState { file: file.clone(), tensor: tensor.to_owned() };
            let checkpoint = Checkpoint::open(file)?;
            let mut of_file = HashSet::new();
            for StateOf { name, dimensions, elements, device, is_own } in &parameters {
                let parts: &[&str] =
                    if self.muon_for(name, *dimensions).is_some() { &State::OF_MUON } else { &State::OF_ADAMW };
                let keys: Vec<String> = parts.iter().map(|part| format!("{name}.{part}")).collect();
                // A parameter that never had a gradient has no state.
                if !keys.iter().any(|key| checkpoint.contains(key)) {
                    continue;
                }
                let fits = |view: &TensorView| view.shape() == [*elements] && view.dtype() == Dtype::F32;
                let read = |key: &String| {
                    let view = checkpoint.get(key).filter(fits).ok_or_else(|| failed(key))?;
                    Ok(is_own.then(|| state_tensor(&view, device)))
                };
                let mut tensors = keys.iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().flatten();
                if let Some(first) = tensors.next() {
                    states.insert((*name).to_owned(), State { first, second: tensors.next() });
                }
                of_file.extend(keys);
                found.insert(*name);
            }
            // Tensors of unknown parameters are of a larger model, or of a run with another optimizer.
            if let Some(tensor) = checkpoint.names().find(|name| !of_file.contains(*name)) {
                return Err(failed(tensor));
            }
        }
        // Files without any are not of a run that made steps.
        if steps > 0
            && found.is_empty()
            && let Some(file) = files.first()
        {
            return Err(Error::TrainerState { file: file.clone(), tensor: "<parameter>.exp_avg".to_owned() });
        }
        self.states = states;
        self.steps = steps;
        Ok(())
    }
}

/// A parameter whose state is read.
pub(crate) struct StateOf<'a> {
    /// Its name in the checkpoint.
    pub(crate) name: &'a str,
    pub(crate) dimensions: usize,
    pub(crate) elements: usize,
    /// Where its state goes.
    pub(crate) device: Device,
    /// Whether it does; the others' are looked at alone.
    pub(crate) is_own: bool,
}

/// `f32` values of a file.
fn state_tensor(view: &TensorView, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = view.bytes().as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
    let elements = values.len();
    Tensor::from_data(TensorData::new(values, [elements]), device)
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    gradients: GradientsParams,
    learning_rate: f64,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Self { optimizer, gradients, learning_rate } = self;
        let learning_rate = *learning_rate;
        let AdamWOptions { beta_1, beta_2, epsilon, weight_decay } = optimizer.options;
        let (id, tensor, mapper) = param.consume();
        let name = optimizer.names.get(&id).cloned();
        let (Some(gradient), Some(name)) = (gradients.remove::<D>(id), name) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let state = optimizer.states.remove(&name);
        let (updated, state) = match optimizer.muon_for(&name, D) {
            Some(MuonOptions { momentum }) => {
                let step = MuonStep { learning_rate, weight_decay, momentum };
                let (updated, first) = muon(tensor.inner(), gradient, state.map(|state| state.first), &step);
                (updated, State { first, second: None })
            }
            None => {
                let step = AdamWStep { learning_rate, beta_1, beta_2, epsilon, weight_decay, step: optimizer.steps };
                let moments = state.and_then(|State { first, second }| Some(Moments { first, second: second? }));
                let (updated, Moments { first, second }) = adamw(tensor.inner(), gradient, moments, &step);
                (updated, State { first, second: Some(second) })
            }
        };
        optimizer.states.insert(name, state);
        Param::from_mapped_value(id, Tensor::from_inner(updated).require_grad(), mapper)
    }
}
