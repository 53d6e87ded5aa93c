//! What one rank does in a step: forward and backward of its passes, clip, update, together with the others.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_mgpt::Dropout;
use lumina_nn::ops::{read, square_sum};

use super::loss::{gradients_by_part, no_pass};
use super::network::Network;
use super::{ActivationMemory, Example, FineTuneOptions, LossOptions, Position, Sharding, StepReport, Trainable};
use crate::collective::{Collective, gather_numbers, gather_of_same};
use crate::optim::{AdamW, clip_factor};
use crate::shards::{Part, Shards, Values, scaled};
use crate::{Error, Result};

/// A network on a device, with the optimizer of what this rank updates.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) trainable: Trainable,
    pub(super) optimizer: AdamW,
    pub(super) shards: Shards,
}

/// Where the run is as a step begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) options: &'a FineTuneOptions,
    pub(super) position: Position,
    pub(super) steps_per_epoch: u64,
}

impl Rank {
    pub(super) fn new(trainable: Trainable, shards: Shards, options: &FineTuneOptions) -> Self {
        let optimizer = AdamW::new(options.adamw, trainable.names.clone()).with_muon(options.muon);
        Self { trainable, optimizer, shards }
    }

    /// Makes a step with the passes of this rank. All ranks return the same report.
    pub(super) fn step(
        &mut self,
        all: &dyn Collective,
        step: &Step<'_>,
        passes: Vec<&[Example<'_>]>,
    ) -> Result<StepReport> {
        let Step { options, position, steps_per_epoch } = *step;
        let epoch = position.fractional_epoch(steps_per_epoch);
        let learning_rate = options.schedule.learning_rate_at(epoch);

        // Who has how many passes, of the same step of the same run.
        let tokens: usize = passes.iter().copied().flatten().map(|example| example.tokens.len()).sum();
        let counts = gather_of_same(all, self.fingerprint(step), &[passes.len() as f64, tokens as f64])?;
        let total = |column: usize| counts.iter().map(|counts| counts[column]).sum::<f64>();
        let (n_passes, tokens) = (total(0), total(1) as u64);

        // Forward and backward. Each sum of gradients is made by its owner, in the order of passes, so that the number
        // of ranks does not change it.
        let rounds = counts.iter().map(|counts| counts[0] as usize).max().unwrap_or(0);
        let (mut losses, mut sums) = (Vec::new(), self.shards.none());
        let (model, shards) = (&self.trainable.model, &self.shards);
        for round in 0..rounds {
            let mut network = match options.sharding.shares_weights(all.size()) {
                true => Network::shared_out(model, shards, all),
                false => Network::whole(model),
            };
            // With activations that are not kept, gradients are summed layer by layer: no rank has all of a pass.
            let take = &mut |part, gradients| shards.reduce(all, part, shards.values_of(model, gradients), &mut sums);
            let Some(pass) = passes.get(round) else {
                // The others have one more pass.
                match options.activation_memory {
                    ActivationMemory::Keep => take(Part::All, GradientsParams::new())?,
                    ActivationMemory::Recompute => no_pass(&mut network, take)?,
                }
                continue;
            };
            // Each pass of a run drops other values.
            let in_step = round * all.size() + all.rank();
            let number = position.step * (options.accumulation * all.size()) as u64 + in_step as u64;
            let loss = gradients_by_part(&mut network, pass, &loss_options(options, number), take)?;
            losses.extend([loss.total, loss.cross_entropy, loss.z_loss, loss.counted as f64]);
        }
        let mean = scaled(sums, 1.0 / n_passes);

        // Losses in the order of passes, and the norm.
        let losses = gather_numbers(all, &losses)?;
        let losses: Vec<&[f64]> =
            (0..rounds).flat_map(|round| losses.iter().filter_map(move |of| of.chunks(4).nth(round))).collect();
        let sum = |term: usize| losses.iter().map(|loss| loss[term]).sum::<f64>();
        let gradient_norm = self.norm(all, &mean)?;
        let report = StepReport {
            step: position.step + 1,
            epoch,
            learning_rate,
            loss: sum(0) / n_passes,
            cross_entropy: sum(1) / n_passes,
            z_loss: sum(2) / n_passes,
            gradient_norm,
            tokens,
            predicted: sum(3) as u64,
        };
        if !report.loss.is_finite() || !gradient_norm.is_finite() {
            let (step, loss) = (report.step, report.loss);
            return Err(Error::NotFinite { step, loss, gradient_norm, items: Vec::new() });
        }

        // Clip.
        let clipped = scaled(mean, clip_factor(gradient_norm, options.max_gradient_norm));

        // Update.
        self.update(all, options.sharding, learning_rate, clipped)?;
        Ok(report)
    }

    /// Updates the weights by the gradients of the parameters that this rank owns.
    fn update(&mut self, all: &dyn Collective, sharding: Sharding, learning_rate: f64, own: Values) -> Result<()> {
        let Self { trainable, optimizer, shards } = self;
        let model = trainable.model.clone();
        let gradients = match sharding {
            Sharding::None => shards.gather(all, Part::All, own)?,
            Sharding::Optimizer | Sharding::Full => own,
        };
        let updated: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        let gradients = shards.gradients_of(&model, gradients);
        let mut model = optimizer.step(learning_rate, model, gradients);
        if sharding == Sharding::Optimizer && all.size() > 1 {
            let weights = shards.gather(all, Part::All, shards.weights(&model, &updated))?;
            model = shards.with_weights(model, weights);
        }
        trainable.model = model;
        Ok(())
    }

    /// The norm of all gradients, of which each rank has those of its parameters.
    fn norm(&self, all: &dyn Collective, own: &Values) -> Result<f64> {
        let sums: Vec<Tensor<1>> = own.iter().flatten().cloned().map(square_sum).collect();
        let sums = if sums.is_empty() { Vec::new() } else { read(Tensor::cat(sums, 0))? };
        let mut sums = sums.into_iter();
        let of_own = |value: &Option<_>| value.as_ref().and_then(|_| sums.next()).map_or(0.0, f64::from);
        let own: Vec<f64> = own.iter().map(of_own).collect();
        // In the order of parameters, whoever has them. All but the owner have zero.
        let all = gather_numbers(all, &own)?;
        let of_parameter = |at: usize| all.iter().filter_map(|of| of.get(at)).sum::<f64>();
        Ok((0..all.first().map_or(0, Vec::len)).map(of_parameter).sum::<f64>().sqrt())
    }

    /// A checksum of what has to be the same on all ranks.
    fn fingerprint(&self, step: &Step<'_>) -> u32 {
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(&self.shards.fingerprint().to_ne_bytes());
        crc32.update(format!("{:?} {:?} {}", step.options, step.position, step.steps_per_epoch).as_bytes());
        crc32.finalize()
    }
}

fn loss_options(options: &FineTuneOptions, pass: u64) -> LossOptions {
    LossOptions {
        z_loss_weight: options.z_loss_weight,
        dropout: Dropout::new(options.dropout, options.seed, pass),
        activation_memory: options.activation_memory,
    }
}
