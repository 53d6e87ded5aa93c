//! A transformer in training: opened, resumed, run over a data set, saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use lumina_checkpoint::{Adapter, Dtype};
use lumina_mgpt::Transformer;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::epochs::Epochs;
use super::open::open;
use super::rank::Rank;
use super::start::Start;
use super::{Devices, FineTuneOptions, Position, Sharding, StepReport};
use crate::checkpoint::{
    ModelFiles, WeightType, base_model, check_same_options, different, read_json, run_folder, write_json,
};
use crate::data::Dataset;
use crate::optim::{AdamW, StateOf};
use crate::run::{Checkpoints, run};
use crate::{Ended, Error, ObserverResult, Result, RunEvent};

/// A transformer in training: weights, optimizer, and where the run is.
#[derive(Debug)]
pub struct Trainer {
    pub(super) options: FineTuneOptions,
    pub(super) devices: Devices,
    /// One for each device of this process.
    pub(super) ranks: Vec<Rank>,
    pub(super) position: Position,
    pub(super) pool: Option<Arc<ThreadPool>>,
    pub(super) files: ModelFiles,
    /// What the run began with, where that is known.
    pub(super) start: Option<Start>,
    /// The fingerprint of its data, once there are any.
    data: Option<String>,
}

/// The file of a checkpoint with the optimizer's state, or with the part of it that one of several processes wrote.
fn optimizer_file(process: usize, processes: usize) -> String {
    match processes {
        1 => "optimizer.safetensors".to_owned(),
        _ => format!("optimizer-{:05}-of-{processes:05}.safetensors", process + 1),
    }
}

/// The state of a run besides its tensors.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    position: Position,
    options: FineTuneOptions,
    /// How many devices share a step: part of the batch.
    devices: usize,
    /// How many files have parts of the optimizer's state. Older states have one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    optimizer_files: usize,
    /// What it began with. Older states and those of trainers without a [`FineTune`](super::FineTune) have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    /// The fingerprint of the data set. Older states and those of steps without a data set have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

fn one() -> usize {
    1
}

fn is_one(files: &usize) -> bool {
    *files == 1
}

/// The state in a checkpoint, if it is one of a run with these options and the same batch. The passes of a step may be
/// shared out to another number of devices: `accumulation` is then that of the state.
fn read_state(checkpoint: &Path, options: &FineTuneOptions, devices: usize, may_grow: &[&str]) -> Result<State> {
    let state: State = read_json(&run_folder::state_file(checkpoint))?;
    let passes = |options: &FineTuneOptions, devices: usize| options.accumulation.checked_mul(devices);
    let saved = match passes(&state.options, state.devices) == passes(options, devices) {
        true => FineTuneOptions { accumulation: options.accumulation, ..state.options.clone() },
        false => state.options.clone(),
    };
    check_same_options(checkpoint, &saved, options, may_grow)?;
    if saved.accumulation == state.options.accumulation && state.devices != devices {
        let (saved, given) = (state.devices, devices);
        return Err(Error::DifferentDevices { checkpoint: checkpoint.to_owned(), saved, given });
    }
    Ok(state)
}

/// An error where the checkpoint is of a run that began with something else or has other options. None may have grown.
pub(super) fn check_same_run(
    checkpoint: &Path,
    start: &Start,
    options: &FineTuneOptions,
    devices: usize,
) -> Result<()> {
    check_same_start(checkpoint, start)?;
    read_state(checkpoint, options, devices, &[]).map(|_| ())
}

/// An error where the checkpoint is of a run that began with something else.
pub(super) fn check_same_start(checkpoint: &Path, start: &Start) -> Result<()> {
    let state: State = read_json(&run_folder::state_file(checkpoint))?;
    start.check_same(checkpoint, state.start.as_ref())
}

impl Trainer {
    /// Begins a run on the model in a Hugging Face folder. Passes are spread over all devices, and so are the state of
    /// the optimizer and the weights, as [`FineTuneOptions::sharding`] says.
    ///
    /// # Errors
    /// Those of [`FineTuneOptions::check`], [`Error::NoDevices`], [`Error::Model`] where the folder cannot be opened.
    pub fn new(model: &Path, options: FineTuneOptions, devices: impl Into<Devices>) -> Result<Self> {
        let devices = devices.into();
        options.check()?;
        let ranks = open(model, None, &options, &devices)?;
        Ok(Self::with(ranks, options, devices, ModelFiles::of_model(model)?))
    }

    /// Begins a run that trains only the LoRA adapter in the folder `adapter`, on the model in the folder `model`. What
    /// is saved is an adapter, too. A new one is made by [`LoraOptions::create`](super::LoraOptions::create).
    ///
    /// # Errors
    /// As [`Trainer::new`], and those of [`Adapter::open`] and
    /// [`Trainable::open_with_adapter`](super::Trainable::open_with_adapter).
    pub fn with_adapter(
        model: &Path,
        adapter: &Path,
        options: FineTuneOptions,
        devices: impl Into<Devices>,
    ) -> Result<Self> {
        let devices = devices.into();
        options.check()?;
        let adapter = Adapter::open(adapter)?;
        let ranks = open(model, Some(&adapter), &options, &devices)?;
        Ok(Self::with(ranks, options, devices, ModelFiles::of_adapter(&adapter, model)?))
    }

    /// A run on networks that are open already.
    fn with(ranks: Vec<Rank>, options: FineTuneOptions, devices: Devices, files: ModelFiles) -> Self {
        Self {
            options,
            devices,
            ranks,
            position: Position::default(),
            // Without one, steps are slower.
            pool: ThreadPoolBuilder::new().build().ok().map(Arc::new),
            files,
            start: None,
            data: None,
        }
    }

    /// Resumes a run from a checkpoint, or from the newest one in the folder of a run. A checkpoint of an adapter names
    /// the folder of its model as `base_model_name_or_path` in `adapter_config.json`.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::NoCheckpoint`], [`Error::Read`], [`Error::TrainerState`]; where options or
    /// devices are not those of the run, [`Error::DifferentOptions`] and [`Error::DifferentDevices`]. Only
    /// `checkpoint_every`, `keep_checkpoints` and `sharding` may change; `accumulation` and the number of devices, if
    /// their product stays the same; and `schedule.epochs` may grow where the learning rate is constant after the
    /// warm-up: with a cosine, the steps that are done had been made with other rates.
    pub fn resume(folder: &Path, options: FineTuneOptions, devices: impl Into<Devices>) -> Result<Self> {
        let devices = devices.into();
        options.check()?;
        let checkpoint = run_folder::find(folder)?;
        let may_grow: &[&str] = if options.schedule.may_grow() { &["schedule.epochs"] } else { &[] };
        let state = read_state(&checkpoint, &options, devices.count(), may_grow)?;
        let mut trainer = match base_model(&checkpoint)? {
            None => Self::new(&checkpoint, options, devices)?,
            Some(model) => Self::with_adapter(&model, &checkpoint, options, devices)?,
        };
        trainer.position = state.position;
        (trainer.start, trainer.data) = (state.start, state.data);
        let files: Vec<PathBuf> = (0..state.optimizer_files)
            .map(|process| checkpoint.join(optimizer_file(process, state.optimizer_files)))
            .collect();
        let first = trainer.devices.first();
        for (number, Rank { optimizer, shards, .. }) in trainer.ranks.iter_mut().enumerate() {
            let parameters = shards.parameters().iter().filter(|parameter| parameter.is_trained);
            let states = parameters.map(|parameter| StateOf {
                name: &parameter.name,
                dimensions: parameter.shape.len(),
                elements: parameter.elements,
                device: parameter.device.clone(),
                is_own: match trainer.options.sharding {
                    Sharding::None => true,
                    Sharding::Optimizer | Sharding::Full => shards.is_owned(first + number, &parameter.name),
                },
            });
            optimizer.load_part(&files, state.position.step, states.collect())?;
        }
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
    ///
    /// # Errors
    /// [`Error::WeightsSharedOut`] with [`Sharding::Full`] and more than one device: none has the network.
    pub fn model(&self) -> Result<&Transformer> {
        match self.shares_weights() {
            true => Err(Error::WeightsSharedOut { ranks: self.devices.count() }),
            false => Ok(&self.ranks[0].trainable.model),
        }
    }

    /// The number of weights that each device of this process has between steps: with [`Sharding::Full`] its share.
    pub fn weights_held(&self) -> Vec<usize> {
        self.ranks.iter().map(|rank| rank.trainable.model.num_params()).collect()
    }

    /// Whether no device has all weights.
    pub(super) fn shares_weights(&self) -> bool {
        self.options.sharding.shares_weights(self.devices.count())
    }

    /// Sets the head's rows of these tokens to zero, as before FP-SFT. Under an adapter the head is not trained, and
    /// stays.
    #[must_use]
    pub fn zero_head_rows(mut self, tokens: &[u32]) -> Self {
        let zeroed = |rank: Rank| Rank { trainable: rank.trainable.zero_head_rows(tokens), ..rank };
        self.ranks = self.ranks.into_iter().map(zeroed).collect();
        self
    }

    /// Makes the steps that are left until all epochs are done or `observe` stops the run, with checkpoints in
    /// `folder`.
    ///
    /// Data, their order and dropout follow from the options and the position, so a run that was killed at any point
    /// and resumed ends, on the CPU, with the same weights as one that was not.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], [`Trainer::save`] and the data set; [`Error::FolderBusy`] where another process
    /// writes `folder`; [`Error::LaterCheckpoint`] where `folder` is of a run that is further;
    /// [`Error::DifferentOptions`] where the data are not those that the run began with ([`Dataset::fingerprint`]); the
    /// observer's. [`Error::NotFinite`] names the items of the batch.
    pub fn run<O: ObserverResult>(
        &mut self,
        data: &Dataset,
        folder: &Path,
        observe: impl FnMut(RunEvent<'_, StepReport>) -> O,
    ) -> Result<Ended, O::Error> {
        self.check_data(data, folder)?;
        let (every, keep) = (self.options.checkpoint_every, self.options.keep_checkpoints);
        run(&mut Epochs::new(self, data)?, Checkpoints { folder, every, keep }, observe)
    }

    /// The run goes on with the data that it began with.
    fn check_data(&mut self, data: &Dataset, folder: &Path) -> Result<()> {
        let given = data.fingerprint();
        match &self.data {
            Some(saved) if *saved != given => Err(different(folder, "data", saved, &given)),
            _ => {
                self.data = Some(given);
                Ok(())
            }
        }
    }

    /// Writes a checkpoint to a new folder. [`Trainer::resume`] continues from it, and inference opens it as a model,
    /// or as an adapter where one is trained. All processes call it.
    ///
    /// # Errors
    /// [`Error::Write`], also where the folder exists already; [`Error::Checkpoint`]; [`Error::Rank`].
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        let processes = &*self.devices.processes;
        // Where nothing is shared out, the first rank has it all.
        let (optimizer_files, own) = match self.options.sharding {
            Sharding::None => (1, &self.ranks[..1]),
            Sharding::Optimizer | Sharding::Full => (processes.size(), &*self.ranks),
        };
        self.write_together(checkpoint, |partial| {
            if processes.rank() < optimizer_files {
                let file = partial.join(optimizer_file(processes.rank(), optimizer_files));
                AdamW::save_all(own.iter().map(|rank| &rank.optimizer), &file)?;
            }
            self.write_weights(partial, WeightType::F32)?;
            if processes.rank() > 0 {
                return Ok(());
            }
            let state = State {
                position: self.position,
                options: self.options.clone(),
                devices: self.devices.count(),
                optimizer_files,
                start: self.start.clone(),
                data: self.data.clone(),
            };
            write_json(&run_folder::new_state_file(partial), &state)
        })
    }

    /// Writes the model as a Hugging Face folder, or the adapter as a PEFT folder, with weights in `f32`, `bf16` or
    /// `f16`. All processes call it.
    ///
    /// # Errors
    /// [`Error::WeightType`], and as [`Trainer::save`].
    pub fn export(&self, folder: &Path, dtype: Dtype) -> Result<()> {
        let weights = dtype.try_into()?;
        self.write_together(folder, |partial| self.write_weights(partial, weights))
    }
}
