//! A step of fine-tuning: forward, backward, clip, update, on one device or several.

use burn::optim::{GradientsAccumulator, GradientsParams};
use lumina_mgpt::Dropout;

use super::{Example, Loss, LossOptions, StepReport, Trainer, gradients};
use crate::optim::{clip_factor, global_norm, scale};
use crate::{Error, Result};

impl Trainer {
    /// Makes one step: the mean gradient of the passes, clipped, updates all parameters. If it fails, nothing has
    /// changed.
    ///
    /// # Errors
    /// [`Error::PassCount`] where there are no passes, or more than [`Trainer::passes`]; [`Error::NotFinite`] where the
    /// loss or the gradients are not finite; those of [`gradients`].
    pub fn step(&mut self, passes: &[Vec<Example<'_>>], steps_per_epoch: u64) -> Result<StepReport> {
        // A step is thousands of small pieces of parallel work. From a thread of the pool they are shared at once; from
        // another thread each piece wakes the pool and puts the thread to sleep. The pool is the trainer's own, so that
        // a thread that waits for its piece can only steal work of this step.
        match self.pool.clone() {
            Some(pool) => pool.install(|| self.step_in_pool(passes, steps_per_epoch)),
            None => self.step_in_pool(passes, steps_per_epoch),
        }
    }

    fn step_in_pool(&mut self, passes: &[Vec<Example<'_>>], steps_per_epoch: u64) -> Result<StepReport> {
        let epoch = self.position.fractional_epoch(steps_per_epoch);
        let learning_rate = self.options.schedule.learning_rate_at(epoch);

        // Forward and backward.
        let (losses, gradients) = self.mean_gradients(passes)?;
        let gradient_norm = global_norm(&self.trainable.model, &gradients)?;
        let mean = |term: fn(&Loss) -> f64| losses.iter().map(term).sum::<f64>() / losses.len() as f64;
        let report = StepReport {
            step: self.position.step + 1,
            epoch,
            learning_rate,
            loss: mean(|loss| loss.total),
            cross_entropy: mean(|loss| loss.cross_entropy),
            z_loss: mean(|loss| loss.z_loss),
            gradient_norm,
            tokens: passes.iter().flatten().map(|example| example.tokens.len() as u64).sum(),
            predicted: losses.iter().map(|loss| loss.counted as u64).sum(),
        };
        if !report.loss.is_finite() || !gradient_norm.is_finite() {
            let (step, loss) = (report.step, report.loss);
            return Err(Error::NotFinite { step, loss, gradient_norm, items: Vec::new() });
        }

        // Clip.
        let factor = clip_factor(gradient_norm, self.options.max_gradient_norm);
        let gradients = scale(&self.trainable.model, gradients, factor);

        // Update.
        let model = self.trainable.model.clone();
        self.trainable.model = self.optimizer.step(learning_rate, model, gradients);
        self.replicate();
        self.position = self.position.after_step(report.tokens);
        Ok(report)
    }

    /// The most passes that a step has: `accumulation` on each device.
    pub fn passes(&self) -> usize {
        self.devices.len() * self.options.accumulation
    }

    /// The losses of the passes and their mean gradient. Passes go to the devices in turn, which compute at the same
    /// time.
    fn mean_gradients(&self, passes: &[Vec<Example<'_>>]) -> Result<(Vec<Loss>, GradientsParams)> {
        if passes.is_empty() || passes.len() > self.passes() {
            return Err(Error::PassCount { found: passes.len(), max: self.passes() });
        }
        let n_devices = self.devices.len();
        let model = &self.trainable.model;
        let on_device = |device: usize, pass: usize| -> Result<(Loss, GradientsParams)> {
            let model = device.checked_sub(1).map_or(model, |index| &self.replicas[index]);
            gradients(model, &passes[pass], &self.loss_options(pass))
        };
        let mut losses = Vec::with_capacity(passes.len());
        let mut sum = GradientsAccumulator::new();
        for first in (0..passes.len()).step_by(n_devices) {
            let n_parallel = n_devices.min(passes.len() - first);
            let results: Vec<Result<(Loss, GradientsParams)>> = if n_parallel == 1 {
                vec![on_device(0, first)]
            } else {
                std::thread::scope(|scope| {
                    let on_device = &on_device;
                    let start = |device| scope.spawn(move || on_device(device, first + device));
                    let threads: Vec<_> = (0..n_parallel).map(start).collect();
                    let results = threads
                        .into_iter()
                        .enumerate()
                        .map(|(device, thread)| thread.join().unwrap_or_else(|_| Err(Error::DeviceThread { device })));
                    results.collect()
                })
            };
            // Summed in the order of the passes, so that the number of devices does not change the sum.
            for result in results {
                let (loss, gradients) = result?;
                losses.push(loss);
                let on_first =
                    if n_devices == 1 { gradients } else { gradients.to_device(&self.devices[0].device(), model) };
                sum.accumulate(model, on_first);
            }
        }
        let gradients = sum.grads();
        Ok((losses, if passes.len() == 1 { gradients } else { scale(model, gradients, 1.0 / passes.len() as f64) }))
    }

    fn loss_options(&self, pass: usize) -> LossOptions {
        // Each pass of a run drops other values.
        let number = self.position.step * self.passes() as u64 + pass as u64;
        LossOptions {
            z_loss_weight: self.options.z_loss_weight,
            dropout: Dropout::new(self.options.dropout, self.options.seed, number),
            activation_memory: self.options.activation_memory,
        }
    }
}
