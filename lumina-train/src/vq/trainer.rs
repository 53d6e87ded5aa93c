//! A VQGAN in training: opened, resumed, run over images, saved.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::ParamId;
use image::RgbImage;
use lumina_checkpoint::{Checkpoint, Dtype, save_bytes};
use lumina_nn::ops::read;
use lumina_nn::{Compute, Loader};
use lumina_vq::{ImageTokenizer, VqConfig, VqModel, is_training_state};

use super::adversarial_loss::DiscriminatorTrainer;
use super::codebook::CodebookState;
use super::discriminator::{self, Discriminator};
use super::init::WEIGHTS;
use super::options::VqTrainingOptions;
use super::report::VqStepReport;
use crate::checkpoint::{
    FolderLock, WeightType, check_same_options, create_together, read_json, run_folder, save_parameters, state_values,
    write_json,
};
use crate::collective::{Alone, Collective, lead};
use crate::optim::{AdamW, AdamWOptions, StepSchedule};
use crate::run::{Checkpoints, Steps, run};
use crate::shards::{Names, Shards};
use crate::{Ended, Error, ObserverResult, Result, RunEvent};

/// Trains the VQGAN of a folder.
///
/// ```no_run
/// use std::path::Path;
/// use lumina_checkpoint::Dtype;
/// use lumina_nn::Compute;
/// use lumina_train::RunEvent;
/// use lumina_train::vq::{VqTrainer, VqTrainingOptions, init_vq};
/// use lumina_vq::{VqConfig, VqHyperparameters};
///
/// let config = VqConfig::new(VqHyperparameters { channels: 32, n_codes: 512, ..VqHyperparameters::default() })?;
/// init_vq(&config, 7, "start", &Compute::cpu())?;
/// let options = VqTrainingOptions::default().steps(100);
/// let mut trainer = VqTrainer::new("start", options, &Compute::cpu())?;
/// let batch = |step: u64| Ok(vec![image::RgbImage::from_pixel(64, 64, image::Rgb([step as u8, 0, 0])); 4]);
/// trainer.run(Path::new("run"), batch, |event| {
///     if let RunEvent::Step(step) = event {
///         println!("{step}");
///     }
/// })?;
/// trainer.export("trained", Dtype::F32)?;
/// # Ok::<(), lumina_train::Error>(())
/// ```
#[derive(Debug)]
pub struct VqTrainer {
    pub(super) config: VqConfig,
    pub(super) options: VqTrainingOptions,
    pub(super) compute: Compute,
    pub(super) model: VqModel,
    pub(super) optimizer: AdamW,
    pub(super) codebook: CodebookState,
    pub(super) discriminator: Option<DiscriminatorTrainer>,
    pub(super) steps_done: u64,
    /// Those that share the passes of a step.
    pub(super) ranks: Arc<dyn Collective>,
    pub(super) shards: Shards,
    names: HashMap<ParamId, String>,
}

/// The decoder's last weight, at which the adaptive weight is measured.
const LAST_WEIGHT: &str = "decoder.conv_out.weight";

// The files of a checkpoint, besides those of the tokenizer and the state of the run.
const OPTIMIZER: &str = "optimizer.safetensors";
const CODEBOOK: &str = "codebook.safetensors";
const DISCRIMINATOR: &str = "discriminator.safetensors";
const DISCRIMINATOR_OPTIMIZER: &str = "discriminator-optimizer.safetensors";
/// The version of checkpoints.
const FORMAT: u32 = 1;

/// The state of a run besides its tensors. Random choices depend on seed and step alone.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    /// Steps done.
    step: u64,
    /// Steps of the discriminator.
    discriminator_steps: u64,
    options: VqTrainingOptions,
    /// Older states say that patches were given no codes; runs that gave them some cannot go on.
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "reading it is the check")]
    clusters: Option<NoClusters>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum NoClusters {
    None,
}

impl VqTrainer {
    /// Begins a run on a folder that [`ImageTokenizer::open`] opens, made by [`init_vq`](super::init_vq) or a published
    /// one.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; [`Error::Images`], [`Error::Checkpoint`] and [`Error::Nn`] for files.
    pub fn new(folder: impl AsRef<Path>, options: VqTrainingOptions, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let weights = Checkpoint::open(ImageTokenizer::weights_file(folder)?)?;
        // A file of the original has a discriminator in it; a new network has none.
        let has_discriminator = weights.names().any(|name| name.starts_with(discriminator::PREFIX));
        Self::load(folder, &weights, has_discriminator.then_some(&weights), options, compute)
    }

    fn load(
        folder: &Path,
        weights: &Checkpoint,
        discriminator: Option<&Checkpoint>,
        options: VqTrainingOptions,
        compute: &Compute,
    ) -> Result<Self> {
        options.check()?;
        let config = VqConfig::open(&folder.join(ImageTokenizer::CONFIG))?;
        compute.check_alone()?;
        let compute = Compute::new(compute.device().autodiff());
        compute.check()?;
        let loader = Loader::new(weights, &compute);
        let model = VqModel::new(&loader, &config, true);
        loader.finish(is_training_state)?;
        let names = loader.parameter_names();
        let entries = read(model.codebook())?;
        let codebook = CodebookState::new(&entries, config.embed_dim(), &options);
        // The network asked for it, or loading had failed.
        let last_weight = names.iter().find(|(_, name)| *name == LAST_WEIGHT).map(|(id, _)| *id);
        let discriminator = match options.discriminator.as_ref().zip(last_weight) {
            None => None,
            Some((shape, last_weight)) => {
                let mut initial = Discriminator::initial_values(options.seed);
                let mut values = |name: &str, shape: &[usize]| match discriminator {
                    Some(file) => state_values(file, name, shape.iter().product()),
                    None => initial(name, shape),
                };
                let (model, names) = Discriminator::new(shape, &mut values, &compute.device())?;
                let (optimizer, shards) = (adam(&options, &names), Shards::new(&model, &Names::trained(&names), 1));
                Some(DiscriminatorTrainer { model, names, optimizer, shards, last_weight })
            }
        };
        let (optimizer, shards) = (adam(&options, &names), Shards::new(&model, &Names::trained(&names), 1));
        Ok(Self {
            config,
            options,
            compute,
            model,
            optimizer,
            codebook,
            discriminator,
            steps_done: 0,
            ranks: Arc::new(Alone),
            shards,
            names,
        })
    }

    /// Resumes a run from a checkpoint, or from the newest one in the folder of a run. The run continues as if it had
    /// not stopped, to the bit on the same machine.
    ///
    /// # Errors
    /// As [`VqTrainer::new`]; [`Error::NoCheckpoint`]; [`Error::Read`], [`Error::StateFormat`] and
    /// [`Error::TrainerState`] where the checkpoint is damaged; [`Error::DifferentOptions`]: only `checkpoint_every`
    /// and `keep_checkpoints` may change, and `steps` may grow where the schedule is [`StepSchedule::Constant`].
    pub fn resume(folder: impl AsRef<Path>, options: VqTrainingOptions, compute: &Compute) -> Result<Self> {
        options.check()?;
        let checkpoint = run_folder::find(folder.as_ref())?;
        let file = run_folder::state_file(&checkpoint);
        let state: State = read_json(&file)?;
        if state.format != FORMAT {
            return Err(Error::StateFormat { file, found: state.format, expected: FORMAT });
        }
        // With a cosine, the steps that are done had been made with other learning rates.
        let may_grow: &[&str] = if options.schedule == StepSchedule::Constant { &["steps"] } else { &[] };
        check_same_options(&checkpoint, &state.options, &options, may_grow)?;
        let weights = Checkpoint::open(checkpoint.join(WEIGHTS))?;
        let discriminator = match options.discriminator {
            Some(_) => Some(Checkpoint::open(checkpoint.join(DISCRIMINATOR))?),
            None => None,
        };
        let mut trainer = Self::load(&checkpoint, &weights, discriminator.as_ref(), options, compute)?;
        trainer.steps_done = state.step;
        trainer.codebook.load(&checkpoint.join(CODEBOOK))?;
        trainer.optimizer.load(&checkpoint.join(OPTIMIZER), state.step, &trainer.model)?;
        if let Some(DiscriminatorTrainer { model, optimizer, .. }) = &mut trainer.discriminator {
            optimizer.load(&checkpoint.join(DISCRIMINATOR_OPTIMIZER), state.discriminator_steps, model)?;
        }
        Ok(trainer)
    }

    /// Shares the passes of each step, [`VqTrainingOptions::passes`], out to the ranks of a collective, of which this
    /// trainer is one. Each rank has a trainer of the same folder and options, with all weights, and they make all
    /// calls together. The weights are those of one rank that makes all passes, to the bit.
    #[must_use]
    pub fn over(mut self, ranks: impl Collective + 'static) -> Self {
        self.shards = Shards::new(&self.model, &Names::trained(&self.names), ranks.size());
        if let Some(DiscriminatorTrainer { model, names, shards, .. }) = &mut self.discriminator {
            *shards = Shards::new(model, &Names::trained(names), ranks.size());
        }
        self.ranks = Arc::new(ranks);
        self
    }

    /// The network's shape.
    pub fn config(&self) -> &VqConfig {
        &self.config
    }

    /// The options of the run.
    pub fn options(&self) -> &VqTrainingOptions {
        &self.options
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// The network as it is now.
    pub fn model(&self) -> &VqModel {
        &self.model
    }

    /// Makes the steps that are left, until all are done or `observe` stops the run, with checkpoints in `folder`.
    /// `batch` makes the images of each pass, counted from 0 over all steps; of several ranks each makes those of its
    /// own. They must depend on that number alone for a resumed run to equal one that was not stopped. With one pass a
    /// step, it is the step.
    ///
    /// # Errors
    /// Those of [`VqTrainer::step`] and [`VqTrainer::save`]; [`Error::FolderBusy`] where another process writes
    /// `folder`; [`Error::LaterCheckpoint`] where `folder` is of a run that
    /// is further; those of `batch` and of the observer.
    pub fn run<O: ObserverResult>(
        &mut self,
        folder: &Path,
        batch: impl FnMut(u64) -> Result<Vec<RgbImage>, O::Error>,
        observe: impl FnMut(RunEvent<'_, VqStepReport>) -> O,
    ) -> Result<Ended, O::Error> {
        let (every, keep) = (self.options.checkpoint_every, self.options.keep_checkpoints);
        run(&mut Batches { trainer: self, batch }, Checkpoints { folder, every, keep }, observe)
    }

    /// Writes `vqgan.yaml` and `vqgan.safetensors`, which [`lumina_vq::ImageTokenizer::open`] reads, with weights in
    /// `f32`, `bf16` or `f16`. Files of these names in the folder are replaced.
    ///
    /// # Errors
    /// [`Error::WeightType`]; [`Error::Write`] and [`Error::Checkpoint`] where the files cannot be written;
    /// [`Error::FolderBusy`].
    pub fn export(&self, folder: impl AsRef<Path>, dtype: Dtype) -> Result<()> {
        let (folder, weights) = (folder.as_ref(), dtype.try_into()?);
        lead(&*self.ranks, || {
            let _lock = FolderLock::new(folder)?;
            self.write_weights(folder, weights)
        })
    }

    /// The network with its config.
    fn write_weights(&self, folder: &Path, dtype: WeightType) -> Result<()> {
        save_parameters(&self.model, &self.names, dtype.dtype(), &folder.join(WEIGHTS))?;
        Ok(save_bytes(folder.join(ImageTokenizer::CONFIG), self.config.to_yaml().as_bytes())?)
    }

    /// Writes a checkpoint to a new folder. [`VqTrainer::resume`] continues from it, and it opens as an image
    /// tokenizer.
    ///
    /// # Errors
    /// [`Error::Write`], also where the folder exists already; [`Error::Checkpoint`].
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        create_together(&*self.ranks, checkpoint, |partial| {
            if self.ranks.rank() > 0 {
                return Ok(());
            }
            self.write_weights(partial, WeightType::F32)?;
            self.codebook.save(&partial.join(CODEBOOK))?;
            self.optimizer.save(&partial.join(OPTIMIZER))?;
            if let Some(DiscriminatorTrainer { model, names, optimizer, .. }) = &self.discriminator {
                save_parameters(model, names, Dtype::F32, &partial.join(DISCRIMINATOR))?;
                optimizer.save(&partial.join(DISCRIMINATOR_OPTIMIZER))?;
            }
            let discriminator_steps = self.discriminator.as_ref().map_or(0, |trainer| trainer.optimizer.steps());
            let (step, options) = (self.steps_done, self.options.clone());
            let state = State { format: FORMAT, step, discriminator_steps, options, clusters: None };
            write_json(&run_folder::new_state_file(partial), &state)
        })
    }
}

/// A trainer with its images.
struct Batches<'a, B> {
    trainer: &'a mut VqTrainer,
    batch: B,
}

impl<E: From<Error>, B: FnMut(u64) -> Result<Vec<RgbImage>, E>> Steps<E> for Batches<'_, B> {
    type Report = VqStepReport;

    fn done(&self) -> u64 {
        self.trainer.steps_done
    }

    fn left(&self) -> u64 {
        self.trainer.options.steps.saturating_sub(self.trainer.steps_done)
    }

    fn step(&mut self) -> Result<VqStepReport, E> {
        let (ranks, passes) = (self.trainer.ranks.clone(), self.trainer.options.passes as u64);
        let first = self.trainer.steps_done * passes;
        let own = (ranks.rank() as u64..passes).step_by(ranks.size());
        let images: Vec<Vec<RgbImage>> = own
            .map(|pass| (self.batch)(first + pass))
            .collect::<Result<_, E>>()
            .inspect_err(|_| ranks.fail("its images could not be made"))?;
        Ok(self.trainer.step_on_passes(&images.iter().map(Vec::as_slice).collect::<Vec<_>>())?)
    }

    fn save(&self, checkpoint: &Path) -> Result<()> {
        self.trainer.save(checkpoint)
    }

    fn processes(&self) -> &dyn Collective {
        &*self.trainer.ranks
    }
}

/// Adam: AdamW without weight decay.
fn adam(options: &VqTrainingOptions, names: &HashMap<ParamId, String>) -> AdamW {
    let (beta_1, beta_2) = options.betas;
    AdamW::new(AdamWOptions { beta_1, beta_2, epsilon: 1e-8, weight_decay: 0.0 }, names.clone())
}
