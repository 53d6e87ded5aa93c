//! The training loop of the VQGAN.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use lumina_checkpoint::{Checkpoint, Dtype, save_bytes};
use lumina_nn::{Compute, Loader};
use lumina_vq::{VqConfig, VqModel, preprocess};

use super::adversarial_loss::Adversary;
use super::codebook::CodebookState;
use super::discriminator::{self, Discriminator};
use super::evaluate::psnr_db;
use super::init::{CONFIG, WEIGHTS, rng, weights_file};
use super::loss::{Losses, losses};
use super::options::{Codebook, VqTrainingOptions};
use super::patch_clusters::PatchSorts;
use super::report::{Adversarial, VqStep};
use super::state::{self, Progress};
use crate::checkpoint::folder;
use crate::fine_tune::{AdamW, AdamWOptions, global_norm, save_parameters};
use crate::tensors::{floats, values};
use crate::{Error, Result};

/// Trains the VQGAN of a folder.
///
/// ```no_run
/// use lumina_nn::Compute;
/// use lumina_checkpoint::Dtype;
/// use lumina_train::vq::{VqTrainer, VqTrainingOptions, init_vq};
/// use lumina_vq::{VqConfig, VqHyperparameters};
///
/// let config = VqConfig::new(VqHyperparameters { channels: 32, n_codes: 512, ..VqHyperparameters::default() })?;
/// init_vq(&config, 7, "start", &Compute::cpu())?;
/// let mut trainer = VqTrainer::open("start", VqTrainingOptions::default().steps(100), &Compute::cpu())?;
/// let batch = |step: u64| Ok(vec![image::RgbImage::from_pixel(64, 64, image::Rgb([step as u8, 0, 0])); 4]);
/// trainer.run("checkpoints", batch, |step| println!("{} {:.2} dB", step.step, step.psnr_db))?;
/// trainer.save("trained", Dtype::F32)?;
/// # Ok::<(), lumina_train::Error>(())
/// ```
#[derive(Debug)]
pub struct VqTrainer {
    config: VqConfig,
    options: VqTrainingOptions,
    compute: Compute,
    model: VqModel,
    names: HashMap<ParamId, String>,
    optimizer: AdamW,
    codebook: CodebookState,
    adversary: Option<Adversary>,
    sorts: Option<PatchSorts>,
    step: u64,
}

/// The decoder's last weight, at which the adaptive weight is measured.
const LAST_WEIGHT: &str = "decoder.conv_out.weight";

impl VqTrainer {
    /// Opens a folder with `vqgan.yaml` and `vqgan.safetensors` (or `vqgan.ckpt`), from [`init_vq`](super::init_vq) or a
    /// published one, to train it from step 0. `compute` says on which device.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings, [`Error::Images`] and [`Error::Checkpoint`] for files.
    pub fn open(folder: impl AsRef<Path>, options: VqTrainingOptions, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let weights = Checkpoint::open(weights_file(folder))?;
        // A file of the original has a discriminator in it; a new network has none.
        let has_judge = weights.names().any(|name| name.starts_with(discriminator::PREFIX));
        Self::load(folder, &weights, has_judge.then_some(&weights), options, compute)
    }

    /// Gives patches of the known sorts the codes of their sorts, rather than the nearest ones: what is near at first is
    /// often the code of another sort. To be said again after [`VqTrainer::resume`].
    ///
    /// # Errors
    /// [`Error::Setting`] where there are more sorts than codes.
    pub fn assign(mut self, sorts: PatchSorts) -> Result<Self> {
        let n_codes = self.config.n_codes();
        if sorts.len() > n_codes {
            let reason = format!("are {}, more than the codebook's {n_codes} entries", sorts.len());
            return Err(Error::Setting { field: "sorts", reason });
        }
        self.sorts = Some(sorts);
        Ok(self)
    }

    fn load(
        folder: &Path,
        weights: &Checkpoint,
        judge: Option<&Checkpoint>,
        options: VqTrainingOptions,
        compute: &Compute,
    ) -> Result<Self> {
        options.check()?;
        let config = VqConfig::open(&folder.join(CONFIG))?;
        let compute = Compute::new(compute.device().clone().autodiff());
        compute.check()?;
        let loader = Loader::new(weights, &compute);
        let model = VqModel::new(&loader, &config, true);
        loader.finish(|name| name.starts_with("loss."))?;
        let names = loader.parameter_names();
        let entries = values(model.codebook())?;
        let codebook = CodebookState::new(&entries, config.embed_dim(), &options);
        // The network asked for it, or loading had failed.
        let last_weight = names.iter().find(|(_, name)| *name == LAST_WEIGHT).map(|(id, _)| *id);
        let adversary = match options.discriminator.as_ref().zip(last_weight) {
            None => None,
            Some((shape, last_weight)) => {
                let mut drawn = Discriminator::initial_values(options.seed);
                let mut values = |name: &str, shape: &[usize]| match judge {
                    Some(file) => floats(file, name, shape.iter().product()),
                    None => drawn(name, shape),
                };
                let (model, names) = Discriminator::new(shape, &mut values, compute.device())?;
                let optimizer = adam(&options, &names);
                Some(Adversary { model, names, optimizer, last_weight })
            }
        };
        let optimizer = adam(&options, &names);
        Ok(Self { config, options, compute, model, names, optimizer, codebook, adversary, sorts: None, step: 0 })
    }

    /// Continues from a checkpoint that [`VqTrainer::run`] or [`VqTrainer::checkpoint`] wrote, or from the newest in a
    /// folder of them. The run goes on as if it had not stopped, to the bit on the same machine.
    ///
    /// # Errors
    /// As [`VqTrainer::open`], and [`Error::TrainingState`] and [`Error::OptimizerState`] where a checkpoint is incomplete.
    pub fn resume(folder: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let mut folder = folder.as_ref().to_owned();
        if !folder.join(state::PROGRESS).exists() {
            let newest = state::checkpoints(&folder)?.pop();
            let reason = "holds no checkpoint of a run, such as `step-0000001000`".to_owned();
            folder = newest.ok_or(Error::TrainingState { file: folder, reason })?.1;
        }
        let Progress { step, discriminator_steps, options, .. } = Progress::read(&folder)?;
        let weights = Checkpoint::open(folder.join(WEIGHTS))?;
        let judge = match options.discriminator {
            Some(_) => Some(Checkpoint::open(folder.join(state::DISCRIMINATOR))?),
            None => None,
        };
        let mut trainer = Self::load(&folder, &weights, judge.as_ref(), options, compute)?;
        trainer.step = step;
        trainer.codebook.load(&folder.join(state::CODEBOOK))?;
        trainer.optimizer.load(&folder.join(state::OPTIMIZER), step, &trainer.model)?;
        if let Some(Adversary { model, optimizer, .. }) = &mut trainer.adversary {
            optimizer.load(&folder.join(state::DISCRIMINATOR_OPTIMIZER), discriminator_steps, model)?;
        }
        Ok(trainer)
    }

    /// The network's shape.
    pub fn config(&self) -> &VqConfig {
        &self.config
    }

    /// The settings.
    pub fn options(&self) -> &VqTrainingOptions {
        &self.options
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The network as it is now.
    pub fn model(&self) -> &VqModel {
        &self.model
    }

    /// Takes the steps that are left, with the pictures that `batch` gives for each step (counted from 0), and writes
    /// checkpoints to `folder`, the last one at the end. `batch` must depend on the step alone for a resumed run to
    /// equal one that did not stop.
    ///
    /// # Errors
    /// As [`VqTrainer::train`] and [`VqTrainer::checkpoint`], [`Error::TrainingState`] where `folder` holds later
    /// checkpoints, and what `batch` says.
    pub fn run(
        &mut self,
        folder: impl AsRef<Path>,
        mut batch: impl FnMut(u64) -> Result<Vec<RgbImage>>,
        mut report: impl FnMut(&VqStep),
    ) -> Result<()> {
        if let Some((_, later)) = state::checkpoints(folder.as_ref())?.into_iter().find(|(step, _)| *step > self.step) {
            let reason = format!("is of a run that is beyond step {}; resume it, or remove it", self.step);
            return Err(Error::TrainingState { file: later, reason });
        }
        while self.step < self.options.steps {
            let step = self.train(&batch(self.step)?)?;
            report(&step);
            if self.step.is_multiple_of(self.options.checkpoint_every) || self.step == self.options.steps {
                self.checkpoint(folder.as_ref())?;
            }
        }
        Ok(())
    }

    /// Takes one step on a batch of pictures of one size, whose sides are multiples of the network's factor.
    ///
    /// # Errors
    /// [`Error::Pictures`] where they are not, [`Error::NotFiniteValue`] where a loss is no number; the step is then not taken.
    pub fn train(&mut self, pictures: &[RgbImage]) -> Result<VqStep> {
        let pixels = self.pixels(pictures)?;
        let before = (self.codebook.clone(), self.model.codebook());
        let assigned = match &self.sorts {
            Some(sorts) => {
                let codes = pictures.iter().map(|picture| sorts.codes(picture)).collect::<Result<Vec<_>>>()?;
                codes.concat()
            }
            None => Vec::new(),
        };
        let step = self.train_on(pixels, &assigned);
        if step.is_err() {
            // Codes may have been replaced already.
            self.codebook = before.0;
            self.model.set_codebook(before.1)?;
        }
        step
    }

    /// `assigned` has a code for those patches that are not to choose theirs.
    fn train_on(&mut self, pixels: Tensor<4>, assigned: &[Option<u32>]) -> Result<VqStep> {
        let rate = self.options.rate_at(self.step);
        let latents = self.model.latents(pixels.clone());
        let latents = if self.options.codebook == Codebook::Fixed { latents.detach() } else { latents };
        let [batch, embed, rows, columns] = latents.dims();
        let flat = latents.clone().detach().permute([0, 2, 3, 1]).reshape([batch * rows * columns, embed]);
        let flat = values(flat)?;
        if flat.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFiniteValue { step: self.step, what: "encoder's output" });
        }
        let quantized = self.step >= self.options.quantize_from;
        let (codes_revived, codes, nearest) = if quantized {
            // A code that is assigned stays that of its sort, however rare.
            let can_change = self.sorts.is_none() && self.options.codebook != Codebook::Fixed;
            let revived = if can_change { self.revive(&flat)? } else { 0 };
            let mut codes = self.model.quantize(latents.clone().detach())?;
            for (code, assigned) in codes.iter_mut().zip(assigned) {
                *code = assigned.unwrap_or(*code);
            }
            let nearest = self.model.lookup(&codes, [batch, rows, columns])?;
            (revived, codes, nearest)
        } else {
            (0, Vec::new(), latents.clone().detach())
        };

        let Losses { features, output, l1, l2, distance, total: mut loss } =
            losses(&self.model, &pixels, latents, nearest, &self.options)?;
        let mut terms = vec![l1, l2, distance];
        let judged = match self.joined() {
            Some((adversary, factor)) => {
                let judged = adversary.judge(&self.model, &features, &output, &pixels, &self.options)?;
                judged.check(self.step)?;
                loss = loss + (output * judged.gradient.clone()).sum() * (judged.weight * factor);
                terms.push(judged.generator_loss.clone());
                Some((judged, factor))
            }
            None => None,
        };
        let terms = values(Tensor::cat(terms, 0))?;
        let part = |index: usize| f64::from(terms[index]);
        let (l1, l2, quantization) = (part(0), part(1), part(2));
        let mut value = l1 * self.options.l1_weight + l2 * self.options.l2_weight;
        value += quantization * self.options.codebook_weight * self.quantization_factor();
        if let Some((judged, factor)) = &judged {
            value += part(3) * judged.weight * factor;
        }
        if !value.is_finite() {
            return Err(Error::NotFiniteValue { step: self.step, what: "loss" });
        }

        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        let gradient_norm = global_norm(&self.model, &grads)?;
        if !gradient_norm.is_finite() {
            return Err(Error::NotFiniteValue { step: self.step, what: "gradient" });
        }
        self.model = self.optimizer.step(rate, self.model.clone(), grads);
        if quantized {
            self.follow(&flat, &codes)?;
        }
        let adversarial = judged.map(|(judged, _)| {
            let report = Adversarial {
                generator_loss: part(3),
                discriminator_loss: judged.discriminator_value,
                adaptive_weight: judged.weight,
            };
            if let Some(adversary) = &mut self.adversary {
                adversary.learn(judged, rate);
            }
            report
        });
        self.step += 1;
        Ok(VqStep {
            step: self.step,
            learning_rate: rate,
            loss: value,
            l1,
            l2,
            quantization,
            gradient_norm,
            adversarial,
            psnr_db: psnr_db(l2, 2.0),
            codes_used: self.codebook.used(self.options.usage_window),
            perplexity: self.codebook.perplexity(),
            codes_revived,
        })
    }

    /// What multiplies the distance of latents from codes in the loss' value.
    fn quantization_factor(&self) -> f64 {
        match self.options.codebook {
            Codebook::Gradient => 1.0 + self.options.commitment_weight,
            Codebook::Ema { .. } => self.options.commitment_weight,
            Codebook::Fixed => 0.0,
        }
    }

    fn pixels(&self, pictures: &[RgbImage]) -> Result<Tensor<4>> {
        let refuse = |reason: String| Err(Error::Pictures { step: self.step, reason });
        let Some(first) = pictures.first() else { return refuse("it is empty".to_owned()) };
        let (width, height) = first.dimensions();
        let factor = self.config.factor();
        if width == 0 || height == 0 || !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            return refuse(format!("{width}x{height} pixels; both sides must be multiples of {factor}"));
        }
        if let Some(other) = pictures.iter().find(|picture| picture.dimensions() != (width, height)) {
            let (other_width, other_height) = other.dimensions();
            return refuse(format!("pictures of {width}x{height} and of {other_width}x{other_height} pixels"));
        }
        if let Some(adversary) = &self.adversary
            && !adversary.model.can_judge(width.min(height) as usize)
        {
            return refuse(format!("{width}x{height} pixels are too few for the discriminator's layers"));
        }
        let values: Vec<f32> = pictures.iter().flat_map(preprocess::to_tensor_values).collect();
        let shape = [pictures.len(), 3, height as usize, width as usize];
        Ok(Tensor::from_data(TensorData::new(values, shape), self.compute.options()))
    }

    /// Replaces dead codes by latents.
    fn revive(&mut self, latents: &[f32]) -> Result<usize> {
        let mut entries = values(self.model.codebook())?;
        let mut rng = rng(self.options.seed, "dead codes", self.step);
        let revived = self.codebook.revive(&mut entries, latents, &self.options, &mut rng);
        if revived > 0 {
            self.set_entries(entries)?;
        }
        Ok(revived)
    }

    /// Notes the use of codes and moves running means.
    fn follow(&mut self, latents: &[f32], codes: &[u32]) -> Result<()> {
        self.codebook.record(codes, self.options.usage_window);
        if let Codebook::Ema { decay } = self.options.codebook {
            let mut entries = values(self.model.codebook())?;
            self.codebook.follow(&mut entries, latents, codes, decay);
            self.set_entries(entries)?;
        }
        Ok(())
    }

    fn set_entries(&mut self, entries: Vec<f32>) -> Result<()> {
        let shape = self.model.codebook().shape();
        let entries = Tensor::from_data(TensorData::new(entries, shape), self.compute.options());
        Ok(self.model.set_codebook(entries)?)
    }

    /// The discriminator and its configured factor, from the step on at which it joins.
    fn joined(&self) -> Option<(&Adversary, f64)> {
        let judge = self.options.discriminator.as_ref().filter(|judge| self.step >= judge.start)?;
        Some((self.adversary.as_ref()?, judge.weight))
    }

    /// Writes `vqgan.yaml` and `vqgan.safetensors`, which [`lumina_vq::ImageTokenizer::open`] reads, with weights in
    /// `f32`, `bf16` or `f16`.
    ///
    /// # Errors
    /// [`Error::Setting`] for another type, [`Error::Write`] and [`Error::Checkpoint`] where the system refuses.
    pub fn save(&self, folder: impl AsRef<Path>, dtype: Dtype) -> Result<()> {
        let folder = folder.as_ref();
        if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            let reason = format!("is {dtype}; weights are saved in f32, bf16 or f16");
            return Err(Error::Setting { field: "dtype", reason });
        }
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
        self.write(folder, dtype)
    }

    fn write(&self, target: &Path, dtype: Dtype) -> Result<()> {
        save_parameters(&self.model, &self.names, dtype, &target.join(WEIGHTS))?;
        Ok(save_bytes(target.join(CONFIG), self.config.to_yaml().as_bytes())?)
    }

    /// Writes a checkpoint, `run/step-…`, with all that [`VqTrainer::resume`] needs, and removes older ones than the
    /// settings keep. Returns where it is. Its network, too, opens as an image tokenizer.
    ///
    /// # Errors
    /// [`Error::Write`] and [`Error::Checkpoint`] where the system refuses, or where it is there already.
    pub fn checkpoint(&self, run: impl AsRef<Path>) -> Result<PathBuf> {
        let run = run.as_ref();
        let target = state::checkpoint_at(run, self.step);
        folder::create(&target, |target| {
            self.write(target, Dtype::F32)?;
            self.codebook.save(&target.join(state::CODEBOOK))?;
            self.optimizer.save(&target.join(state::OPTIMIZER))?;
            if let Some(Adversary { model, names, optimizer, .. }) = &self.adversary {
                save_parameters(model, names, Dtype::F32, &target.join(state::DISCRIMINATOR))?;
                optimizer.save(&target.join(state::DISCRIMINATOR_OPTIMIZER))?;
            }
            let steps = self.adversary.as_ref().map_or(0, |adversary| adversary.optimizer.steps());
            Progress::new(self.step, steps, self.options.clone()).write(target)
        })?;
        folder::keep_last(&state::checkpoints(run)?, self.options.keep_checkpoints)?;
        Ok(target)
    }
}

/// Adam: AdamW that lets no weight shrink.
fn adam(options: &VqTrainingOptions, names: &HashMap<ParamId, String>) -> AdamW {
    let (beta_1, beta_2) = options.betas;
    AdamW::new(AdamWOptions { beta_1, beta_2, epsilon: 1e-8, weight_decay: 0.0 }, names.clone())
}
