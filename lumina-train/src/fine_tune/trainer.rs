//! A transformer in training: opened, resumed, run over a data set, saved.

use std::path::Path;
use std::sync::Arc;

use lumina_checkpoint::{Adapter, Dtype};
use lumina_mgpt::Transformer;
use lumina_nn::Compute;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::epochs::Epochs;
use super::{FineTuneOptions, Position, StepReport, Trainable, recording};
use crate::checkpoint::{
    self, ModelFiles, WeightType, base_model, check_same_options, read_json, run_folder, save_parameters, write_json,
};
use crate::data::Dataset;
use crate::optim::AdamW;
use crate::run::{Checkpoints, run};
use crate::{Ended, Error, ObserverResult, Result, RunEvent};

/// A transformer in training: weights, optimizer, and where the run is.
#[derive(Debug)]
pub struct Trainer {
    pub(super) options: FineTuneOptions,
    pub(super) trainable: Trainable,
    /// The network on the devices after the first.
    pub(super) replicas: Vec<Transformer>,
    pub(super) devices: Vec<Compute>,
    pub(super) optimizer: AdamW,
    pub(super) position: Position,
    pub(super) pool: Option<Arc<ThreadPool>>,
    files: ModelFiles,
}

/// The file of a checkpoint with the optimizer's state.
const OPTIMIZER: &str = "optimizer.safetensors";

/// The state of a run besides its tensors.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    position: Position,
    options: FineTuneOptions,
    /// How many devices share a step: part of the batch.
    devices: usize,
}

impl Trainer {
    /// Begins a run on the model in a Hugging Face folder. The first device has optimizer and master weights. Passes
    /// are spread over all devices.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::NoDevices`], [`Error::Model`] where the folder cannot be opened.
    pub fn new(model: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        let trainable = Trainable::open(model, first_device(&options, devices)?)?;
        Ok(Self::with(trainable, options, devices, ModelFiles::of_model(model)?))
    }

    /// Begins a run that trains only the LoRA adapter in the folder `adapter`, on the model in the folder `model`. What
    /// is saved is an adapter, too. A new one is made by [`LoraOptions::create`](super::LoraOptions::create).
    ///
    /// # Errors
    /// As [`Trainer::new`], and those of [`Adapter::open`] and [`Trainable::open_with_adapter`].
    pub fn with_adapter(model: &Path, adapter: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        let adapter = Adapter::open(adapter)?;
        let trainable = Trainable::open_with_adapter(model, &adapter, first_device(&options, devices)?)?;
        Ok(Self::with(trainable, options, devices, ModelFiles::of_adapter(&adapter, model)?))
    }

    /// A run on a network that is open already.
    fn with(trainable: Trainable, options: FineTuneOptions, devices: &[Compute], files: ModelFiles) -> Self {
        let optimizer = AdamW::new(options.adamw, trainable.names.clone());
        let devices: Vec<Compute> = devices.iter().map(recording).collect();
        let mut trainer = Self {
            options,
            trainable,
            replicas: Vec::new(),
            devices,
            optimizer,
            position: Position::default(),
            // Without one, steps are slower.
            pool: ThreadPoolBuilder::new().build().ok().map(Arc::new),
            files,
        };
        trainer.replicate();
        trainer
    }

    /// Resumes a run from a checkpoint, or from the newest one in the folder of a run. A checkpoint of an adapter names
    /// the folder of its model as `base_model_name_or_path` in `adapter_config.json`.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::NoCheckpoint`], [`Error::Read`], [`Error::TrainerState`]; where options or
    /// devices are not those of the run, [`Error::DifferentOptions`] and [`Error::DifferentDevices`]. Only
    /// `checkpoint_every` and `keep_checkpoints` may change.
    pub fn resume(folder: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        options.check()?;
        let checkpoint = run_folder::find(folder)?;
        let state: State = read_json(&run_folder::state_file(&checkpoint))?;
        check_same_options(&checkpoint, &state.options, &options)?;
        if state.devices != devices.len() {
            let (saved, given) = (state.devices, devices.len());
            return Err(Error::DifferentDevices { checkpoint, saved, given });
        }
        let mut trainer = match base_model(&checkpoint)? {
            None => Self::new(&checkpoint, options, devices)?,
            Some(model) => Self::with_adapter(&model, &checkpoint, options, devices)?,
        };
        trainer.position = state.position;
        trainer.optimizer.load(&checkpoint.join(OPTIMIZER), state.position.step, &trainer.trainable.model)?;
        Ok(trainer)
    }

    /// Where the run is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The options of the run.
    pub fn options(&self) -> &FineTuneOptions {
        &self.options
    }

    /// The network as it is now.
    pub fn model(&self) -> &Transformer {
        &self.trainable.model
    }

    /// Sets the head's rows of these tokens to zero, as before FP-SFT. Under an adapter the head is not trained, and
    /// stays.
    #[must_use]
    pub fn zero_head_rows(mut self, tokens: &[u32]) -> Self {
        self.trainable = self.trainable.zero_head_rows(tokens);
        self.replicate();
        self
    }

    /// Makes the steps that are left until all epochs are done or `observe` stops the run, with checkpoints in
    /// `folder`.
    ///
    /// Data, their order and dropout follow from the options and the position, so a run that was killed at any point
    /// and resumed ends, on the CPU, with the same weights as one that was not.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], [`Trainer::save`] and the data set; [`Error::LaterCheckpoint`] where `folder` is of
    /// a run that is further; the observer's. [`Error::NotFinite`] names the items of the batch.
    pub fn run<O: ObserverResult>(
        &mut self,
        data: &Dataset,
        folder: &Path,
        observe: impl FnMut(RunEvent<'_, StepReport>) -> O,
    ) -> Result<Ended, O::Error> {
        let (every, keep) = (self.options.checkpoint_every, self.options.keep_checkpoints);
        run(&mut Epochs::new(self, data)?, Checkpoints { folder, every, keep }, observe)
    }

    /// Copies the first device's weights to the others.
    pub(super) fn replicate(&mut self) {
        let others = self.devices.iter().skip(1);
        self.replicas = others.map(|device| self.trainable.model.replica(device)).collect();
    }

    /// Writes a checkpoint to a new folder. [`Trainer::resume`] continues from it, and inference opens it as a model,
    /// or as an adapter where one is trained.
    ///
    /// # Errors
    /// [`Error::Write`], also where the folder exists already; [`Error::Checkpoint`].
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        checkpoint::create(checkpoint, |partial| {
            self.write_weights(partial, WeightType::F32)?;
            self.optimizer.save(&partial.join(OPTIMIZER))?;
            let state = State { position: self.position, options: self.options.clone(), devices: self.devices.len() };
            write_json(&run_folder::new_state_file(partial), &state)
        })
    }

    /// Writes the model as a Hugging Face folder, or the adapter as a PEFT folder, with weights in `f32`, `bf16` or
    /// `f16`.
    ///
    /// # Errors
    /// [`Error::WeightType`], and as [`Trainer::save`].
    pub fn export(&self, folder: &Path, dtype: Dtype) -> Result<()> {
        let weights = dtype.try_into()?;
        checkpoint::create(folder, |partial| self.write_weights(partial, weights))
    }

    /// The model, or the adapter alone, with its config.
    fn write_weights(&self, folder: &Path, dtype: WeightType) -> Result<()> {
        let file = folder.join(self.files.write(folder, dtype)?);
        save_parameters(&self.trainable.model, &self.trainable.names, dtype.dtype(), &file)
    }
}

/// The first device, once the options are checked.
pub(super) fn first_device<'a>(options: &FineTuneOptions, devices: &'a [Compute]) -> Result<&'a Compute> {
    options.check()?;
    devices.first().ok_or(Error::NoDevices)
}
