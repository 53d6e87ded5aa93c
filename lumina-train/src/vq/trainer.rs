//! The training loop of the VQGAN.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use lumina_core::checkpoint::{Checkpoint, Dtype};
use lumina_core::{Compute, Loader};
use lumina_vq::{VqConfig, VqModel, preprocess};

use super::adam::Adam;
use super::codebook::CodebookState;
use super::discriminator::{self, Discriminator};
use super::evaluate::psnr_db;
use super::init::{CONFIG, WEIGHTS, rng};
use super::metrics::{Adversarial, VqStep};
use super::options::{Codebook, VqTrainingOptions};
use super::state::{self, Progress, STATE, checkpoints, write_checkpoint, write_file, write_tensors};
use super::tensors::{floats, parameters, values};
use crate::{Error, Result};

/// Trains the VQGAN of a folder.
///
/// ```no_run
/// use lumina_core::Compute;
/// use lumina_core::checkpoint::Dtype;
/// use lumina_train::vq::{VqTrainer, VqTrainingOptions, init_vq};
/// use lumina_vq::{VqConfig, VqShape};
///
/// let config = VqConfig::new(VqShape { channels: 32, n_codes: 512, ..VqShape::default() })?;
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
    adam: Adam,
    codebook: CodebookState,
    adversary: Option<Adversary>,
    step: u64,
}

#[derive(Debug)]
struct Adversary {
    model: Discriminator,
    names: HashMap<ParamId, String>,
    adam: Adam,
}

/// The decoder's last weight, at which the adaptive weight is measured.
const LAST_WEIGHT: &str = "decoder.conv_out.weight";
const CODEBOOK: &str = "quantize.embedding.weight";

impl VqTrainer {
    /// Opens a folder with `vqgan.yaml` and `vqgan.safetensors` (or `vqgan.ckpt`), from [`init_vq`](super::init_vq) or a
    /// published one, to train it from step 0. `compute` says on which device.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings, [`Error::Images`] and [`Error::Core`] for files.
    pub fn open(folder: impl AsRef<Path>, options: VqTrainingOptions, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let file = [WEIGHTS, "vqgan.ckpt"].map(|name| folder.join(name)).into_iter().find(|file| file.exists());
        Self::load(folder, &file.unwrap_or_else(|| folder.join(WEIGHTS)), options, compute)
    }

    fn load(folder: &Path, file: &Path, options: VqTrainingOptions, compute: &Compute) -> Result<Self> {
        options.check()?;
        let config = VqConfig::open(&folder.join(CONFIG))?;
        let compute = Compute::new(compute.device().clone().autodiff());
        compute.check()?;
        let checkpoint = Checkpoint::open(file)?;
        let loader = Loader::new(&checkpoint, &compute);
        let model = VqModel::new(&loader, &config, true);
        loader.finish(|name| name.starts_with("loss."))?;
        let names = loader.parameter_names();
        let entries = values(model.codebook())?;
        let codebook = CodebookState::new(&entries, config.embed_dim(), &options);
        let adversary = match &options.discriminator {
            None => None,
            Some(judge) => {
                // A checkpoint of a run, or of the original, has one; a new network has not.
                let has_one = checkpoint.names().any(|name| name.starts_with(discriminator::PREFIX));
                let mut drawn = Discriminator::initial_values(options.seed);
                let mut read =
                    |name: &str, shape: &[usize]| floats(&checkpoint, name, Some(shape.iter().product::<usize>()));
                let source: &mut discriminator::Values<'_> = if has_one { &mut read } else { &mut drawn };
                let (model, names) = Discriminator::new(judge, source, compute.device())?;
                Some(Adversary { model, names, adam: Adam::new(options.betas) })
            }
        };
        let adam = Adam::new(options.betas);
        Ok(Self { config, options, compute, model, names, adam, codebook, adversary, step: 0 })
    }

    /// Continues from a checkpoint that [`VqTrainer::run`] or [`VqTrainer::checkpoint`] wrote, or from the newest in a
    /// folder of them. The run goes on as if it had not stopped, to the bit on the same machine.
    ///
    /// # Errors
    /// As [`VqTrainer::open`], and [`Error::TrainingState`] where a checkpoint is incomplete.
    pub fn resume(folder: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let mut folder = folder.as_ref().to_owned();
        if !folder.join(state::PROGRESS).exists() {
            let newest = checkpoints(&folder)?.pop();
            folder = newest.ok_or_else(|| Error::TrainingState {
                file: folder.clone(),
                reason: "holds no checkpoint of a run, such as `step-0000001000`".to_owned(),
            })?;
        }
        let Progress { step, optimizer_steps, options, .. } = Progress::read(&folder)?;
        let mut trainer = Self::load(&folder, &folder.join(WEIGHTS), options, compute)?;
        let checkpoint = Checkpoint::open(folder.join(STATE))?;
        trainer.step = step;
        trainer.codebook.load(&checkpoint)?;
        // The state is kept where gradients are: on the device without autodiff.
        let device = trainer.compute.device().clone().without_autodiff();
        let weights = Checkpoint::open(folder.join(WEIGHTS))?;
        let length = |name: &str| weights.get(name).map_or(0, |view| view.shape().iter().product::<usize>());
        // Running means, not gradients, move the codebook.
        let moved = |name: &&String| !(trainer.options.codebook != Codebook::Gradient && *name == CODEBOOK);
        let expected = trainer.names.values().filter(moved).map(|name| (name.as_str(), length(name)));
        trainer.adam.load(&checkpoint, optimizer_steps[0], expected, &device)?;
        if let Some(adversary) = &mut trainer.adversary {
            let expected = adversary.names.values().map(|name| (name.as_str(), length(name)));
            adversary.adam.load(&checkpoint, optimizer_steps[1], expected, &device)?;
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
    /// As [`VqTrainer::train`] and [`VqTrainer::checkpoint`], and what `batch` says.
    pub fn run(
        &mut self,
        folder: impl AsRef<Path>,
        mut batch: impl FnMut(u64) -> Result<Vec<RgbImage>>,
        mut report: impl FnMut(&VqStep),
    ) -> Result<()> {
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
    /// [`Error::Pictures`] where they are not, [`Error::LossNotFinite`] where a loss is no number; the step is then not taken.
    pub fn train(&mut self, pictures: &[RgbImage]) -> Result<VqStep> {
        let pixels = self.pixels(pictures)?;
        let before = (self.codebook.clone(), self.model.codebook());
        let step = self.train_on(pixels);
        if step.is_err() {
            // Codes may have been replaced already.
            self.codebook = before.0;
            self.model.set_codebook(before.1)?;
        }
        step
    }

    fn train_on(&mut self, pixels: Tensor<4>) -> Result<VqStep> {
        let rate = self.options.rate_at(self.step);
        let latents = self.model.latents(pixels.clone());
        let [batch, embed, rows, columns] = latents.dims();
        let flat = latents.clone().detach().permute([0, 2, 3, 1]).reshape([batch * rows * columns, embed]);
        let flat = values(flat)?;
        if flat.iter().any(|value| !value.is_finite()) {
            return Err(Error::LossNotFinite { step: self.step, what: "encoder's output" });
        }
        let codes_revived = self.revive(&flat)?;
        let codes = self.model.quantize(latents.clone().detach())?;
        let nearest = self.model.lookup(&codes, [batch, rows, columns])?;

        let distance = (nearest.clone().detach() - latents.clone()).square().mean();
        let quantization = match self.options.codebook {
            Codebook::Gradient => {
                let codebook = (nearest.clone() - latents.clone().detach()).square().mean();
                codebook + distance.clone() * self.options.commitment_weight
            }
            Codebook::Ema { .. } => distance.clone() * self.options.commitment_weight,
        };
        // Straight through: the value of the codes, the gradient of the latents.
        let straight = latents.clone() + (nearest - latents).detach();
        let features = self.model.decode_features(straight)?;
        let output = self.model.last_layer(features.clone())?;

        let (l1, l2) = errors(&output, &pixels);
        let reconstruction = l1.clone() * self.options.l1_weight + l2.clone() * self.options.l2_weight;
        let mut loss = reconstruction + quantization * self.options.codebook_weight;
        let mut terms = vec![l1.detach(), l2.detach(), distance.detach()];
        let judged = match self.joined() {
            Some(factor) => {
                let judged = self.judge(&features, &output, &pixels)?;
                loss = loss + (output.clone() * judged.gradient.clone()).sum() * (judged.weight * factor);
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
            return Err(Error::LossNotFinite { step: self.step, what: "loss" });
        }

        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.adam.step(rate, self.model.clone(), grads, &self.names);
        self.follow(&flat, &codes)?;
        let adversarial = judged.map(|(judged, _)| {
            self.train_adversary(judged.discriminator_loss, rate);
            Adversarial {
                generator_loss: part(3),
                discriminator_loss: judged.discriminator_value,
                adaptive_weight: judged.weight,
            }
        });
        self.step += 1;
        Ok(VqStep {
            step: self.step,
            learning_rate: rate,
            loss: value,
            l1,
            l2,
            quantization,
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

    /// The discriminator's configured factor, from the step on at which it joins.
    fn joined(&self) -> Option<f64> {
        self.options.discriminator.as_ref().filter(|judge| self.step >= judge.start).map(|judge| judge.weight)
    }

    /// What the discriminator says of the output, and how much it weighs.
    ///
    /// The gradients at the last layer need neither the encoder nor the rest of the decoder: they are taken on graphs
    /// of their own, which begin at the last layer's input.
    fn judge(&self, features: &Tensor<4>, output: &Tensor<4>, pixels: &Tensor<4>) -> Result<Judged> {
        let Some(adversary) = &self.adversary else {
            return Err(Error::Setting { field: "discriminator", reason: "is not set".to_owned() });
        };
        let leaf = output.clone().detach().require_grad();
        let generator_loss = adversary.model.forward(leaf.clone()).mean().neg();
        let missing = || Error::Compute { reason: "a gradient of the adversarial loss is missing".to_owned() };
        let gradient = leaf.grad(&generator_loss.backward()).ok_or_else(missing)?;
        let gradient = Tensor::from_inner(gradient);

        let last = self.names.iter().find(|(_, name)| *name == LAST_WEIGHT).map(|(id, _)| *id).ok_or_else(missing)?;
        let norm_of = |loss: &dyn Fn(Tensor<4>) -> Tensor<1>| -> Result<f64> {
            let output = self.model.last_layer(features.clone().detach())?;
            let mut grads = loss(output).backward();
            let grads = GradientsParams::from_params(&mut grads, &self.model, &[last]);
            let grad = grads.get::<4>(last).ok_or_else(missing)?;
            Ok(f64::from(values(grad.square().sum())?[0]).sqrt())
        };
        let reconstruction = norm_of(&|output| {
            let (l1, l2) = errors(&output, pixels);
            l1 * self.options.l1_weight + l2 * self.options.l2_weight
        })?;
        let adversarial = norm_of(&|output| (output * gradient.clone()).sum())?;
        let weight = discriminator::adaptive_weight(reconstruction, adversarial);
        if !weight.is_finite() {
            return Err(Error::LossNotFinite { step: self.step, what: "weight of the adversarial loss" });
        }
        let fake = output.clone().detach();
        let discriminator_loss =
            discriminator::hinge(adversary.model.forward(pixels.clone()), adversary.model.forward(fake));
        let discriminator_value = f64::from(values(discriminator_loss.clone().detach())?[0]);
        if !discriminator_value.is_finite() {
            return Err(Error::LossNotFinite { step: self.step, what: "discriminator's loss" });
        }
        let generator_loss = generator_loss.detach();
        Ok(Judged { generator_loss, gradient, weight, discriminator_loss, discriminator_value })
    }

    /// The discriminator's own step.
    fn train_adversary(&mut self, loss: Tensor<1>, rate: f64) {
        if let Some(adversary) = &mut self.adversary {
            let grads = GradientsParams::from_grads(loss.backward(), &adversary.model);
            adversary.model = adversary.adam.step(rate, adversary.model.clone(), grads, &adversary.names);
        }
    }

    /// Writes `vqgan.yaml` and `vqgan.safetensors`, which [`lumina_vq::ImageTokenizer::open`] reads, with weights in
    /// `f32`, `bf16` or `f16`.
    ///
    /// # Errors
    /// [`Error::Setting`] for another type, [`Error::Write`] and [`Error::Core`] where the system refuses.
    pub fn save(&self, folder: impl AsRef<Path>, dtype: Dtype) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
        write_tensors(&folder.join(WEIGHTS), parameters(&self.model, &self.names, dtype)?)?;
        write_file(&folder.join(CONFIG), self.config.to_yaml().as_bytes())
    }

    /// Writes a checkpoint, `folder/step-…`, with all that [`VqTrainer::resume`] needs, and removes older ones than the
    /// settings keep. Returns where it is. Its network, too, opens as an image tokenizer.
    ///
    /// # Errors
    /// [`Error::Write`] and [`Error::Core`] where the system refuses.
    pub fn checkpoint(&self, folder: impl AsRef<Path>) -> Result<PathBuf> {
        write_checkpoint(folder.as_ref(), self.step, self.options.keep_checkpoints, |folder| {
            let mut weights = parameters(&self.model, &self.names, Dtype::F32)?;
            let mut tensors = self.codebook.tensors();
            tensors.extend(self.adam.state()?);
            let mut optimizer_steps = [self.adam.steps_taken(), 0];
            if let Some(adversary) = &self.adversary {
                weights.extend(parameters(&adversary.model, &adversary.names, Dtype::F32)?);
                tensors.extend(adversary.adam.state()?);
                optimizer_steps[1] = adversary.adam.steps_taken();
            }
            write_tensors(&folder.join(WEIGHTS), weights)?;
            write_file(&folder.join(CONFIG), self.config.to_yaml().as_bytes())?;
            write_tensors(&folder.join(STATE), tensors)?;
            Progress::new(self.step, optimizer_steps, self.options.clone()).write(folder)
        })
    }
}

/// The discriminator's part of a step.
struct Judged {
    generator_loss: Tensor<1>,
    /// Of its loss with respect to the output.
    gradient: Tensor<4>,
    weight: f64,
    /// The discriminator's own loss, on a graph of its own.
    discriminator_loss: Tensor<1>,
    discriminator_value: f64,
}

/// Mean absolute and mean squared error.
fn errors(output: &Tensor<4>, pixels: &Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let difference = output.clone() - pixels.clone();
    (difference.clone().abs().mean(), difference.square().mean())
}
