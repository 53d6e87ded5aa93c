//! A step of the VQGAN's training: forward, backward, update.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use lumina_nn::ops::read;
use lumina_vq::{Bands, preprocess};

use super::adversarial_loss::AdversarialLoss;
use super::evaluate::psnr_db;
use super::init::rng;
use super::loss::{Losses, losses};
use super::options::CodebookUpdate;
use super::report::{AdversarialReport, VqStepReport};
use super::terms::Terms;
use super::trainer::VqTrainer;
use crate::collective::{Collective, bytes_f32, f32_bytes, gather_numbers, gather_of_same, tell};
use crate::optim::{clip_factor, global_norm, scale};
use crate::shards::{Part, Values, scaled};
use crate::{Error, ImageBatchProblem, Result};

/// The encoder's output.
struct Latents {
    /// `[batch, embed, rows, columns]`, with gradients.
    tensor: Tensor<4>,
    /// A latent after the other, `[batch · rows · columns, embed]`.
    values: Vec<f32>,
}

/// Latents with their codes.
struct Quantized {
    /// The codebook's entries at the latents, `[batch, embed, rows, columns]`; the latents before quantization begins.
    nearest: Tensor<4>,
    /// The code of each latent; none before quantization begins.
    codes: Vec<u32>,
}

/// The images of a pass.
struct Input {
    /// `[batch, 3, height, width]`.
    pixels: Tensor<4>,
}

/// What a pass leaves behind.
struct Pass {
    gradients: GradientsParams,
    /// Those of the discriminator, once it is active.
    of_discriminator: Option<GradientsParams>,
    terms: Terms,
    latents: Vec<f32>,
    codes: Vec<u32>,
}

/// What all passes of a step leave behind, in their order. The same on all ranks.
#[derive(Default)]
struct Step {
    gradients: Values,
    of_discriminator: Values,
    terms: Vec<Terms>,
    latents: Vec<f32>,
    codes: Vec<u32>,
    /// Dead codes that were replaced.
    revived: usize,
}

impl VqTrainer {
    /// Makes one step on a batch of images of one size, whose sides are multiples of the network's factor. If it fails,
    /// nothing has changed; but after an [`Error::Rank`] the run has to be resumed from its last checkpoint.
    ///
    /// Where there are other ranks, this is a pass of each.
    ///
    /// # Errors
    /// [`Error::ImageBatch`] where the images do not fit, [`Error::NotFiniteValue`] where a loss is not finite,
    /// [`Error::Rank`] where another rank failed.
    pub fn step(&mut self, images: &[RgbImage]) -> Result<VqStepReport> {
        self.step_on_passes(&[images])
    }

    /// Makes one step on the batches of several passes, by the mean of their gradients.
    ///
    /// Where there are other ranks, these are the passes of this one, and all make the step together: its first pass is
    /// the first of rank 0, its second the first of rank 1, and so on. The others may have none.
    ///
    /// # Errors
    /// As [`VqTrainer::step`].
    pub fn step_on_passes(&mut self, passes: &[&[RgbImage]]) -> Result<VqStepReport> {
        let ranks = self.ranks.clone();
        // The forward pass may replace dead codes.
        let before = (self.codebook.clone(), self.model.codebook());
        let report = self.step_with(&*ranks, passes);
        if let Err(error) = &report {
            tell(&*ranks, error);
            self.codebook = before.0;
            self.model.set_codebook(before.1)?;
        }
        report
    }

    fn step_with(&mut self, ranks: &dyn Collective, passes: &[&[RgbImage]]) -> Result<VqStepReport> {
        let learning_rate = self.options.learning_rate_at(self.steps_done);
        let first_is_missing = passes.is_empty() && ranks.rank() == 0;
        let passes = if first_is_missing { &[&[][..]] } else { passes };
        let inputs = passes.iter().map(|images| self.input(images)).collect::<Result<Vec<Input>>>()?;
        let Step { gradients, of_discriminator, terms, latents, codes, revived } = self.passes(ranks, inputs)?;
        let n_passes = terms.len() as f64;

        // Clip.
        let gradients = self.shards.gradients_of(&self.model, scaled(gradients, 1.0 / n_passes));
        let gradient_norm = global_norm(&self.model, &gradients)?;
        self.check_finite("gradient", gradient_norm)?;
        let factor = self.options.max_gradient_norm.map_or(1.0, |max| clip_factor(gradient_norm, max));
        let gradients = scale(&self.model, gradients, factor);

        // Update: the network, the codebook, the discriminator. Each rank does all of it.
        let is_adversarial = self.is_discriminator_active();
        self.model = self.optimizer.step(learning_rate, self.model.clone(), gradients);
        if !codes.is_empty() {
            self.update_codebook(&latents, &codes)?;
        }
        if let Some(discriminator) = self.discriminator.as_mut().filter(|_| is_adversarial) {
            discriminator.step(learning_rate, scaled(of_discriminator, 1.0 / n_passes));
        }
        self.steps_done += 1;

        let mean = |term: fn(&Terms) -> f64| terms.iter().map(term).sum::<f64>() / n_passes;
        let l2 = mean(|terms| terms.l2);
        Ok(VqStepReport {
            step: self.steps_done,
            learning_rate,
            loss: mean(|terms| terms.loss),
            l1: mean(|terms| terms.l1),
            l2,
            quantization: mean(|terms| terms.quantization),
            gradient_norm,
            adversarial: is_adversarial.then(|| AdversarialReport {
                generator_loss: mean(|terms| terms.generator_loss),
                discriminator_loss: mean(|terms| terms.discriminator_loss),
                adaptive_weight: mean(|terms| terms.adaptive_weight),
            }),
            psnr_db: psnr_db(l2, 2.0),
            codes_used: self.codebook.used(self.options.usage_window),
            perplexity: self.codebook.perplexity(),
            codes_revived: revived,
            images: terms.iter().map(|terms| terms.images).sum::<f64>() as u64,
        })
    }

    /// Makes the passes of this rank, and adds up those of all in their order.
    fn passes(&mut self, ranks: &dyn Collective, inputs: Vec<Input>) -> Result<Step> {
        let counts = gather_of_same(ranks, self.checksum(), &[inputs.len() as f64])?;
        let rounds = counts.iter().map(|counts| counts[0] as usize).max().unwrap_or(0);
        let mut step = Step { gradients: self.shards.none(), ..Step::default() };
        if let Some(discriminator) = &self.discriminator {
            step.of_discriminator = discriminator.shards.none();
        }
        let mut inputs = inputs.into_iter();
        for round in 0..rounds {
            let input = inputs.next();
            let latents = input.as_ref().map(|input| self.encode(&input.pixels)).transpose()?;
            if round == 0 {
                step.revived = self.revive_codes(ranks, latents.as_ref())?;
            }
            let pass = input.zip(latents).map(|(input, latents)| self.pass(&input, latents)).transpose()?;
            self.add(ranks, pass, &mut step)?;
        }
        step.gradients = self.shards.gather(ranks, Part::All, step.gradients)?;
        if let Some(discriminator) = self.discriminator.as_ref().filter(|_| self.is_discriminator_active()) {
            step.of_discriminator = discriminator.shards.gather(ranks, Part::All, step.of_discriminator)?;
        }
        Ok(step)
    }

    /// Forward and backward. It changes nothing.
    fn pass(&self, input: &Input, latents: Latents) -> Result<Pass> {
        let Quantized { nearest, codes } = self.quantize(&latents)?;
        let losses = losses(&self.model, &input.pixels, latents.tensor, nearest, &self.options)?;
        let adversarial = self.adversarial_loss(&losses, &input.pixels)?;
        let terms = self.terms(&losses, adversarial.as_ref(), input.pixels.dims()[0])?;
        let loss = match &adversarial {
            Some((adversarial, factor)) => {
                let gradient = adversarial.gradient.clone();
                losses.total + (losses.output * gradient).sum() * (adversarial.weight * factor)
            }
            None => losses.total,
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        let of_discriminator = self.discriminator.as_ref().zip(adversarial).map(|(own, (loss, _))| own.gradients(loss));
        Ok(Pass { gradients, of_discriminator, terms, latents: latents.values, codes })
    }

    /// Adds a pass of each rank, of which some have none, in the order of ranks.
    fn add(&self, ranks: &dyn Collective, pass: Option<Pass>, step: &mut Step) -> Result<()> {
        let (mut gradients, mut of_discriminator) = (GradientsParams::new(), None);
        let (mut terms, mut latents, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(pass) = pass {
            (gradients, of_discriminator) = (pass.gradients, pass.of_discriminator);
            (terms, latents, codes) = (pass.terms.numbers().to_vec(), pass.latents, pass.codes);
        }
        let values = self.shards.values_of(&self.model, gradients);
        self.shards.reduce(ranks, Part::All, values, &mut step.gradients)?;
        if let Some(own) = self.discriminator.as_ref().filter(|_| self.is_discriminator_active()) {
            let values = own.shards.values_of(&own.model, of_discriminator.unwrap_or_default());
            own.shards.reduce(ranks, Part::All, values, &mut step.of_discriminator)?;
        }
        step.terms.extend(gather_numbers(ranks, &terms)?.into_iter().filter_map(Terms::of_numbers));
        let codes: Vec<u8> = codes.iter().flat_map(|code| code.to_ne_bytes()).collect();
        for codes in ranks.all_gather(codes.into())? {
            step.codes.extend(codes.as_chunks().0.iter().map(|&code| u32::from_ne_bytes(code)));
        }
        // Nothing else is made of latents.
        if matches!(self.options.codebook, CodebookUpdate::Ema { .. }) {
            for latents in ranks.all_gather(f32_bytes(latents))? {
                step.latents.extend(bytes_f32(&latents));
            }
        }
        Ok(())
    }

    /// A checksum of what has to be the same on all ranks.
    fn checksum(&self) -> u32 {
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(&self.shards.fingerprint().to_ne_bytes());
        crc32.update(format!("{:?} {}", self.options, self.steps_done).as_bytes());
        crc32.finalize()
    }

    /// Whether the discriminator is trained, and part of the loss.
    fn is_discriminator_active(&self) -> bool {
        let start = self.options.discriminator.as_ref().map(|options| options.start);
        self.discriminator.is_some() && start.is_some_and(|start| self.steps_done >= start)
    }

    fn encode(&self, pixels: &Tensor<4>) -> Result<Latents> {
        // What is recorded stays in memory until a backward pass comes through it. Here none would.
        let tensor = match self.options.codebook {
            CodebookUpdate::Fixed => {
                let latents = self.model.valid().latents(pixels.clone().inner(), Bands::Whole)?;
                Tensor::from_inner(latents.into_tensor()?)
            }
            _ => self.model.latents(pixels.clone(), Bands::Whole)?.into_tensor()?,
        };
        let [batch, embed, rows, columns] = tensor.dims();
        let flat = tensor.clone().inner().permute([0, 2, 3, 1]).reshape([batch * rows * columns, embed]);
        let values = read(flat)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFiniteValue { step: self.steps_done, what: "encoder's output" });
        }
        Ok(Latents { tensor, values })
    }

    fn quantize(&self, latents: &Latents) -> Result<Quantized> {
        if self.steps_done < self.options.quantize_from {
            return Ok(Quantized { nearest: latents.tensor.clone().detach(), codes: Vec::new() });
        }
        let [batch, _, rows, columns] = latents.tensor.dims();
        let unrecorded = self.model.valid();
        let codes = unrecorded.quantize(latents.tensor.clone().inner())?;
        let nearest = match self.options.codebook {
            CodebookUpdate::Gradient => self.model.lookup(&codes, [batch, rows, columns])?.into_tensor()?,
            _ => Tensor::from_inner(unrecorded.lookup(&codes, [batch, rows, columns])?.into_tensor()?),
        };
        Ok(Quantized { nearest, codes })
    }

    /// The adversarial loss and its configured factor, once the discriminator is active.
    fn adversarial_loss(&self, losses: &Losses, pixels: &Tensor<4>) -> Result<Option<(AdversarialLoss, f64)>> {
        let (Some(options), Some(discriminator)) = (&self.options.discriminator, &self.discriminator) else {
            return Ok(None);
        };
        if !self.is_discriminator_active() {
            return Ok(None);
        }
        let loss = discriminator.loss(&self.model, losses, pixels, &self.options)?;
        loss.check(self.steps_done)?;
        Ok(Some((loss, options.weight)))
    }

    /// Reads the terms of the loss from the device.
    fn terms(&self, losses: &Losses, adversarial: Option<&(AdversarialLoss, f64)>, images: usize) -> Result<Terms> {
        let mut terms = vec![losses.l1.clone(), losses.l2.clone(), losses.distance.clone()];
        terms.extend(adversarial.map(|(adversarial, _)| adversarial.generator_loss.clone()));
        let terms = read(Tensor::cat(terms, 0))?;
        let [l1, l2, quantization] = [0, 1, 2].map(|index| f64::from(terms[index]));
        let generator_loss = terms.get(3).copied().map_or(0.0, f64::from);
        let quantization_factor = match self.options.codebook {
            CodebookUpdate::Gradient => 1.0 + self.options.commitment_weight,
            CodebookUpdate::Ema { .. } => self.options.commitment_weight,
            CodebookUpdate::Fixed => 0.0,
        };
        let mut loss = l1 * self.options.l1_weight + l2 * self.options.l2_weight;
        loss += quantization * self.options.codebook_weight * quantization_factor;
        let mut terms = Terms { l1, l2, quantization, images: images as f64, ..Terms::default() };
        if let Some((adversarial, factor)) = adversarial {
            terms.generator_loss = generator_loss;
            terms.discriminator_loss = adversarial.discriminator_value;
            terms.adaptive_weight = adversarial.weight;
            loss += generator_loss * adversarial.weight * factor;
        }
        self.check_finite("loss", loss)?;
        Ok(Terms { loss, ..terms })
    }

    fn check_finite(&self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() { Ok(()) } else { Err(Error::NotFiniteValue { step: self.steps_done, what }) }
    }

    /// The images of a pass.
    fn input(&self, images: &[RgbImage]) -> Result<Input> {
        Ok(Input { pixels: self.pixels(images)? })
    }

    /// The images as pixels in −1 ..= 1, `[batch, 3, height, width]`.
    fn pixels(&self, images: &[RgbImage]) -> Result<Tensor<4>> {
        let refuse = |problem| Err(Error::ImageBatch { step: self.steps_done, problem });
        let Some(first) = images.first() else { return refuse(ImageBatchProblem::Empty) };
        let (width, height) = first.dimensions();
        let multiple = self.config.factor();
        if width == 0 || height == 0 || !width.is_multiple_of(multiple) || !height.is_multiple_of(multiple) {
            return refuse(ImageBatchProblem::Size { width, height, multiple });
        }
        if let Some(other) = images.iter().find(|image| image.dimensions() != (width, height)) {
            return refuse(ImageBatchProblem::MixedSizes { first: (width, height), other: other.dimensions() });
        }
        if let Some(discriminator) = &self.discriminator
            && !discriminator.model.accepts(width.min(height) as usize)
        {
            return refuse(ImageBatchProblem::TooSmallForDiscriminator { width, height });
        }
        let values: Vec<f32> = images.iter().flat_map(preprocess::to_tensor_values).collect();
        let shape = [images.len(), 3, height as usize, width as usize];
        let (device, dtype) = self.compute.options();
        Ok(Tensor::from_data(TensorData::new(values, shape), (&device, dtype)))
    }

    /// Replaces dead codes by latents of the step's first pass, which rank 0 gives to the others. Returns how many.
    fn revive_codes(&mut self, ranks: &dyn Collective, own: Option<&Latents>) -> Result<usize> {
        let can_change = self.options.codebook != CodebookUpdate::Fixed;
        let is_due = can_change && self.steps_done >= self.options.quantize_from;
        if !is_due || !self.codebook.has_dead_codes(&self.options) {
            return Ok(0);
        }
        let own = own.map_or(Vec::new(), |own| own.values.clone());
        let latents = bytes_f32(&ranks.broadcast(0, f32_bytes(own))?);
        let mut entries = read(self.model.codebook())?;
        let mut rng = rng(self.options.seed, "dead codes", self.steps_done);
        let revived = self.codebook.revive(&mut entries, &latents, &self.options, &mut rng);
        if revived > 0 {
            self.set_entries(entries)?;
        }
        Ok(revived)
    }

    /// Counts the use of the codes, and makes the EMA update.
    fn update_codebook(&mut self, latents: &[f32], codes: &[u32]) -> Result<()> {
        self.codebook.record(codes, self.options.usage_window);
        if let CodebookUpdate::Ema { decay } = self.options.codebook {
            let mut entries = read(self.model.codebook())?;
            self.codebook.ema_update(&mut entries, latents, codes, decay);
            self.set_entries(entries)?;
        }
        Ok(())
    }

    fn set_entries(&mut self, entries: Vec<f32>) -> Result<()> {
        let shape = self.model.codebook().shape();
        let (device, dtype) = self.compute.options();
        let entries = Tensor::from_data(TensorData::new(entries, shape), (&device, dtype));
        Ok(self.model.set_codebook(entries)?)
    }
}
