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
use super::trainer::VqTrainer;
use crate::optim::{clip_factor, global_norm, scale};
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
    codes: Option<Vec<u32>>,
    /// Dead codes that were replaced.
    revived: usize,
}

/// The values of the terms of the loss.
struct Terms {
    l1: f64,
    l2: f64,
    quantization: f64,
    generator_loss: f64,
    /// Their weighted sum.
    loss: f64,
}

impl VqTrainer {
    /// Makes one step on a batch of images of one size, whose sides are multiples of the network's factor. If it fails,
    /// nothing has changed.
    ///
    /// # Errors
    /// [`Error::ImageBatch`] where the images do not fit, [`Error::NotFiniteValue`] where a loss is not finite.
    pub fn step(&mut self, images: &[RgbImage]) -> Result<VqStepReport> {
        let pixels = self.pixels(images)?;
        // The forward pass may replace dead codes.
        let before = (self.codebook.clone(), self.model.codebook());
        let report = self.step_on(pixels);
        if report.is_err() {
            self.codebook = before.0;
            self.model.set_codebook(before.1)?;
        }
        report
    }

    fn step_on(&mut self, pixels: Tensor<4>) -> Result<VqStepReport> {
        let learning_rate = self.options.learning_rate_at(self.steps_done);

        // Forward.
        let latents = self.encode(&pixels)?;
        let quantized = self.quantize(&latents)?;
        let losses = losses(&self.model, &pixels, latents.tensor, quantized.nearest, &self.options)?;
        let adversarial = self.adversarial_loss(&losses, &pixels)?;
        let terms = self.terms(&losses, adversarial.as_ref())?;

        // Backward.
        let loss = match &adversarial {
            Some((adversarial, factor)) => {
                let gradient = adversarial.gradient.clone();
                losses.total + (losses.output * gradient).sum() * (adversarial.weight * factor)
            }
            None => losses.total,
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        let gradient_norm = global_norm(&self.model, &gradients)?;
        self.check_finite("gradient", gradient_norm)?;

        let factor = self.options.max_gradient_norm.map_or(1.0, |max| clip_factor(gradient_norm, max));
        let gradients = scale(&self.model, gradients, factor);

        // Update: the network, the codebook, the discriminator.
        self.model = self.optimizer.step(learning_rate, self.model.clone(), gradients);
        if let Some(codes) = &quantized.codes {
            self.update_codebook(&latents.values, codes)?;
        }
        let adversarial_report = adversarial.as_ref().map(|(adversarial, _)| AdversarialReport {
            generator_loss: terms.generator_loss,
            discriminator_loss: adversarial.discriminator_value,
            adaptive_weight: adversarial.weight,
        });
        if let (Some((adversarial, _)), Some(discriminator)) = (adversarial, &mut self.discriminator) {
            discriminator.step(learning_rate, adversarial);
        }
        self.steps_done += 1;

        let Terms { l1, l2, quantization, loss, .. } = terms;
        Ok(VqStepReport {
            step: self.steps_done,
            learning_rate,
            loss,
            l1,
            l2,
            quantization,
            gradient_norm,
            adversarial: adversarial_report,
            psnr_db: psnr_db(l2, 2.0),
            codes_used: self.codebook.used(self.options.usage_window),
            perplexity: self.codebook.perplexity(),
            codes_revived: quantized.revived,
            images: pixels.dims()[0] as u64,
        })
    }

    fn encode(&self, pixels: &Tensor<4>) -> Result<Latents> {
        // What is recorded stays in memory until a backward pass comes through it. Here none would.
        let is_trained = self.options.codebook != CodebookUpdate::Fixed;
        let model = if is_trained { self.model.clone() } else { self.model.clone().no_grad() };
        let tensor = model.latents(pixels.clone(), Bands::Whole)?.into_tensor()?;
        let [batch, embed, rows, columns] = tensor.dims();
        let flat = tensor.clone().detach().permute([0, 2, 3, 1]).reshape([batch * rows * columns, embed]);
        let values = read(flat)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFiniteValue { step: self.steps_done, what: "encoder's output" });
        }
        Ok(Latents { tensor, values })
    }

    fn quantize(&mut self, latents: &Latents) -> Result<Quantized> {
        let detached = latents.tensor.clone().detach();
        if self.steps_done < self.options.quantize_from {
            return Ok(Quantized { nearest: detached, codes: None, revived: 0 });
        }
        let can_change = self.options.codebook != CodebookUpdate::Fixed;
        let revived = if can_change { self.revive_codes(&latents.values)? } else { 0 };
        let [batch, _, rows, columns] = detached.dims();
        let codes = self.model.quantize(detached)?;
        let nearest = self.model.lookup(&codes, [batch, rows, columns])?.into_tensor()?;
        Ok(Quantized { nearest, codes: Some(codes), revived })
    }

    /// The adversarial loss and its configured factor, once the discriminator is active.
    fn adversarial_loss(&self, losses: &Losses, pixels: &Tensor<4>) -> Result<Option<(AdversarialLoss, f64)>> {
        let (Some(options), Some(discriminator)) = (&self.options.discriminator, &self.discriminator) else {
            return Ok(None);
        };
        if self.steps_done < options.start {
            return Ok(None);
        }
        let loss = discriminator.loss(&self.model, losses, pixels, &self.options)?;
        loss.check(self.steps_done)?;
        Ok(Some((loss, options.weight)))
    }

    /// Reads the terms of the loss from the device.
    fn terms(&self, losses: &Losses, adversarial: Option<&(AdversarialLoss, f64)>) -> Result<Terms> {
        let mut terms = vec![losses.l1.clone(), losses.l2.clone(), losses.distance.clone()];
        terms.extend(adversarial.map(|(adversarial, _)| adversarial.generator_loss.clone()));
        let terms = read(Tensor::cat(terms, 0))?;
        let [l1, l2, quantization] = [0, 1, 2].map(|index| f64::from(terms[index]));
        let quantization_factor = match self.options.codebook {
            CodebookUpdate::Gradient => 1.0 + self.options.commitment_weight,
            CodebookUpdate::Ema { .. } => self.options.commitment_weight,
            CodebookUpdate::Fixed => 0.0,
        };
        let mut loss = l1 * self.options.l1_weight + l2 * self.options.l2_weight;
        loss += quantization * self.options.codebook_weight * quantization_factor;
        let mut generator_loss = 0.0;
        if let Some((adversarial, factor)) = adversarial {
            generator_loss = f64::from(terms[3]);
            loss += generator_loss * adversarial.weight * factor;
        }
        self.check_finite("loss", loss)?;
        Ok(Terms { l1, l2, quantization, generator_loss, loss })
    }

    fn check_finite(&self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() { Ok(()) } else { Err(Error::NotFiniteValue { step: self.steps_done, what }) }
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

    /// Replaces dead codes by latents. Returns how many.
    fn revive_codes(&mut self, latents: &[f32]) -> Result<usize> {
        let mut entries = read(self.model.codebook())?;
        let mut rng = rng(self.options.seed, "dead codes", self.steps_done);
        let revived = self.codebook.revive(&mut entries, latents, &self.options, &mut rng);
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
