//! Steps of fine-tuning, on one device or several.

use std::path::Path;
use std::sync::Arc;

use burn::optim::{GradientsAccumulator, GradientsParams};
use lumina_checkpoint::Adapter;
use lumina_checkpoint::Dtype;
use lumina_mgpt::{Dropout, Transformer};
use lumina_nn::Compute;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::lora::base_of;
use super::{
    AdamW, Example, FineTuneOptions, Loss, LossOptions, Trainable, clip_factor, global_norm, gradients, recording,
    save_parameters, scale,
};
use crate::checkpoint::Carried;
use crate::checkpoint::folder::{self, read_json, write_json};
use crate::{Error, Result};

/// Where a run is: everything that it does next follows from this, the weights and the optimizer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Epochs done.
    pub epoch: u64,
    /// Steps done in this epoch.
    pub step_in_epoch: u64,
    /// Steps done in all.
    pub step: u64,
    /// Tokens seen in all, without what was cut off.
    pub tokens: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Epochs done, with the fraction of this one.
    pub epoch: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// What was minimised, mean over the passes.
    pub loss: f64,
    /// Mean cross entropy in nats.
    pub cross_entropy: f64,
    /// Mean squared log-sum-exp, before its weight.
    pub z_loss: f64,
    /// Norm of all gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens of the step, predicted or not.
    pub tokens: u64,
    /// Predicted tokens of the step.
    pub predicted: u64,
}

/// A transformer in training: weights, optimizer, and where the run is.
#[derive(Debug)]
pub struct Trainer {
    options: FineTuneOptions,
    trainable: Trainable,
    replicas: Vec<Transformer>,
    devices: Vec<Compute>,
    optimizer: AdamW,
    position: Position,
    carried: Carried,
    pool: Option<Arc<ThreadPool>>,
}

/// A checkpoint's files besides those of the model.
pub(crate) const STATE: &str = "trainer.json";
const OPTIMIZER: &str = "optimizer.safetensors";

/// What [`STATE`] holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    position: Position,
    options: FineTuneOptions,
    /// How many devices share a step: part of the batch.
    devices: usize,
}

impl Trainer {
    /// Begins a run on the model in a Hugging Face folder. The first device holds optimizer and master weights; passes
    /// are spread over all of them.
    ///
    /// # Errors
    /// [`Error::Setting`] where an option is out of range or no device is given, [`Error::Model`] where the folder
    /// cannot be opened.
    pub fn new(model: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        let trainable = Trainable::open(model, first(&options, devices)?)?;
        Ok(Self::with(trainable, options, devices, Carried::of_model(model)?))
    }

    /// Begins a run that trains only the LoRA adapter in the folder `adapter`, on the model in the folder `model`. What
    /// is saved is an adapter, too. A new one is made by [`LoraOptions::create`](super::LoraOptions::create).
    ///
    /// # Errors
    /// As [`Trainer::new`], and those of [`Adapter::open`] and [`Trainable::open_with_adapter`].
    pub fn with_adapter(model: &Path, adapter: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        let adapter = Adapter::open(adapter)?;
        let trainable = Trainable::open_with_adapter(model, &adapter, first(&options, devices)?)?;
        Ok(Self::with(trainable, options, devices, Carried::of_adapter(&adapter, model)?))
    }

    /// A run on a network that is open already.
    fn with(trainable: Trainable, options: FineTuneOptions, devices: &[Compute], carried: Carried) -> Self {
        let optimizer = AdamW::new(options.adamw, trainable.names.clone());
        let devices: Vec<Compute> = devices.iter().map(recording).collect();
        let mut trainer = Self {
            options,
            trainable,
            replicas: Vec::new(),
            devices,
            optimizer,
            position: Position::default(),
            carried,
            // Without one, steps are slower.
            pool: ThreadPoolBuilder::new().build().ok().map(Arc::new),
        };
        trainer.replicate();
        trainer
    }

    /// Goes on from a checkpoint that [`Trainer::save`] wrote. The checkpoint of an adapter names the folder of its model
    /// as `base_model_name_or_path` in `adapter_config.json`.
    ///
    /// # Errors
    /// As [`Trainer::new`], [`Error::Read`], and [`Error::OptimizerState`].
    pub fn resume(checkpoint: &Path, options: FineTuneOptions, devices: &[Compute]) -> Result<Self> {
        let state: State = read_json(&checkpoint.join(STATE))?;
        let same = FineTuneOptions { save_every: options.save_every, keep: options.keep, ..state.options } == options;
        if !same {
            let reason = format!("differ from those that {} was saved with", checkpoint.display());
            return Err(Error::Setting { field: "options", reason });
        }
        if state.devices != devices.len() {
            let reason = format!("are {}, and the run was saved with {}", devices.len(), state.devices);
            return Err(Error::Setting { field: "devices", reason });
        }
        let mut trainer = match base_of(checkpoint)? {
            None => Self::new(checkpoint, options, devices)?,
            Some(model) => Self::with_adapter(&model, checkpoint, options, devices)?,
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

    /// Number of passes that make a step.
    pub fn passes(&self) -> usize {
        self.devices.len() * self.options.accumulate
    }

    /// Sets the head's rows of these tokens to zero, as before FP-SFT. Under an adapter the head is not trained, and stays.
    #[must_use]
    pub fn zero_head_rows(mut self, tokens: &[u32]) -> Self {
        self.trainable = self.trainable.zero_head_rows(tokens);
        self.replicate();
        self
    }

    /// One step: the mean gradient of the passes, clipped, moves all parameters. Nothing has moved where it fails.
    ///
    /// # Errors
    /// [`Error::Setting`] where there are no passes, or more than [`Trainer::passes`]; [`Error::NotFinite`] where the loss
    /// or the gradients are not finite; those of [`gradients`].
    pub fn step(&mut self, passes: &[Vec<Example<'_>>], steps_in_epoch: u64) -> Result<StepReport> {
        // A step is some thousand pieces of work for all threads. Begun on a thread of the pool, they are shared at once;
        // from elsewhere each wakes the pool, sleeps, and is woken. The pool is the trainer's own, so that a thread that waits
        // for its share can take up nothing but shares of this step.
        match self.pool.clone() {
            Some(pool) => pool.install(|| self.step_here(passes, steps_in_epoch)),
            None => self.step_here(passes, steps_in_epoch),
        }
    }

    fn step_here(&mut self, passes: &[Vec<Example<'_>>], steps_in_epoch: u64) -> Result<StepReport> {
        if passes.is_empty() || passes.len() > self.passes() {
            let reason = format!("of a step are {}, expected 1 to {}", passes.len(), self.passes());
            return Err(Error::Setting { field: "passes", reason });
        }
        let share = self.position.step_in_epoch as f64 / steps_in_epoch.max(1) as f64;
        let epoch = self.position.epoch as f64 + share;
        let lr = self.options.schedule.lr_at(epoch);
        let (losses, grads) = self.mean_gradients(passes)?;
        let n = losses.len() as f64;
        let mean = |part: fn(&Loss) -> f64| losses.iter().map(part).sum::<f64>() / n;
        let grad_norm = global_norm(&self.trainable.model, &grads)?;
        let report = StepReport {
            step: self.position.step + 1,
            epoch,
            lr,
            loss: mean(|loss| loss.total),
            cross_entropy: mean(|loss| loss.cross_entropy),
            z_loss: mean(|loss| loss.z_loss),
            grad_norm,
            tokens: passes.iter().flatten().map(|example| example.tokens.len() as u64).sum(),
            predicted: losses.iter().map(|loss| loss.counted as u64).sum(),
        };
        if !report.loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::NotFinite { step: report.step, loss: report.loss, grad_norm, items: Vec::new() });
        }
        let factor = clip_factor(grad_norm, self.options.clip_norm);
        let grads = scale(&self.trainable.model, grads, factor);
        let model = self.trainable.model.clone();
        self.trainable.model = self.optimizer.step(lr, model, grads);
        self.replicate();
        self.position.step += 1;
        self.position.step_in_epoch += 1;
        self.position.tokens += report.tokens;
        Ok(report)
    }

    /// Goes to the beginning of the next epoch.
    pub(crate) fn end_epoch(&mut self) {
        self.position.epoch += 1;
        self.position.step_in_epoch = 0;
    }

    /// Mean loss and gradients of the passes, each on the next device in turn, the devices at the same time.
    fn mean_gradients(&self, passes: &[Vec<Example<'_>>]) -> Result<(Vec<Loss>, GradientsParams)> {
        let n_devices = self.devices.len();
        let options = |pass: usize| LossOptions {
            z_loss_weight: self.options.z_loss_weight,
            // No two passes of a run drop the same.
            dropout: Dropout::new(
                self.options.dropout,
                self.options.seed,
                self.position.step * self.passes() as u64 + pass as u64,
            ),
            activations: self.options.activations,
        };
        let model = &self.trainable.model;
        let of_device = |device: usize, pass: usize| -> Result<(Loss, GradientsParams)> {
            let model = device.checked_sub(1).map_or(model, |index| &self.replicas[index]);
            gradients(model, &passes[pass], &options(pass))
        };
        let mut losses = Vec::with_capacity(passes.len());
        let mut sum = GradientsAccumulator::new();
        for first in (0..passes.len()).step_by(n_devices) {
            let of_round = n_devices.min(passes.len() - first);
            let results: Vec<Result<(Loss, GradientsParams)>> = if of_round == 1 {
                vec![of_device(0, first)]
            } else {
                std::thread::scope(|scope| {
                    let of_device = &of_device;
                    let start = |device| scope.spawn(move || of_device(device, first + device));
                    let threads: Vec<_> = (0..of_round).map(start).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(thread_lost()))).collect()
                })
            };
            // Summed in the order of the passes, so that the number of devices does not change the sum.
            for result in results {
                let (loss, grads) = result?;
                losses.push(loss);
                let grads = if n_devices == 1 { grads } else { grads.to_device(self.devices[0].device(), model) };
                sum.accumulate(model, grads);
            }
        }
        let factor = 1.0 / passes.len() as f64;
        let grads = sum.grads();
        Ok((losses, if passes.len() == 1 { grads } else { scale(model, grads, factor) }))
    }

    /// Gives the other devices the weights of the first.
    fn replicate(&mut self) {
        let others = self.devices.iter().skip(1);
        self.replicas = others.map(|device| self.trainable.model.replica(device)).collect();
    }

    /// Writes a folder from which [`Trainer::resume`] goes on, and which inference opens as a model, or as an adapter where
    /// one is trained.
    ///
    /// # Errors
    /// [`Error::Write`], also where the folder is there already; [`Error::Checkpoint`].
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        folder::create(checkpoint, |partial| {
            self.write_model(partial, Dtype::F32)?;
            self.optimizer.save(&partial.join(OPTIMIZER))?;
            write_json(
                &partial.join(STATE),
                &State { position: self.position, options: self.options.clone(), devices: self.devices.len() },
            )
        })
    }

    /// Writes the model as a Hugging Face folder, or the adapter as a PEFT folder, with weights in a type of 16 or 32 bits.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    pub fn export(&self, model: &Path, dtype: Dtype) -> Result<()> {
        folder::create(model, |partial| self.write_model(partial, dtype))
    }

    /// What is trained: the model, or the adapter alone.
    fn write_model(&self, partial: &Path, dtype: Dtype) -> Result<()> {
        let weights = self.carried.write(partial, dtype)?;
        save_parameters(&self.trainable.model, &self.trainable.names, dtype, &partial.join(weights))
    }
}

/// The first device, once the options are checked.
fn first<'a>(options: &FineTuneOptions, devices: &'a [Compute]) -> Result<&'a Compute> {
    options.check()?;
    let none = || Error::Setting { field: "devices", reason: "are none, expected at least one".to_owned() };
    devices.first().ok_or_else(none)
}

fn thread_lost() -> Error {
    Error::Compute { reason: "the thread of a device did not come back".to_owned() }
}
