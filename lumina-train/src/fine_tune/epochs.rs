//! The steps of a run over a data set: which sequences go into which pass.

use std::path::Path;

use lumina_tokenizer::IGNORED;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Example, FineTuneOptions, StepReport, Trainer};
use crate::collective::{Collective, tell};
use crate::data::{Batch, BatchSampler, Dataset, ItemOrder, SamplerOptions};
use crate::run::Steps;
use crate::{Error, Result};

/// A trainer with its data.
pub(super) struct Epochs<'a> {
    trainer: &'a mut Trainer,
    data: &'a Dataset,
    /// One for each device of this process.
    samplers: Vec<BatchSampler>,
    steps_per_epoch: u64,
    /// An epoch with the items of its batches, for each device.
    batches: (u64, Vec<Vec<Vec<usize>>>),
}

impl<'a> Epochs<'a> {
    pub(super) fn new(trainer: &'a mut Trainer, data: &'a Dataset) -> Result<Self> {
        let (options, ranks, first) = (&trainer.options, trainer.devices.count(), trainer.devices.first());
        let sampler = |rank| {
            let settings = SamplerOptions {
                batch_size: options.batch_size,
                accumulation: options.accumulation,
                rank,
                ranks,
                order: ItemOrder::Shuffled { seed: options.seed },
            };
            BatchSampler::new(data.groups(), settings)
        };
        let samplers: Vec<BatchSampler> = (first..first + trainer.ranks.len()).map(sampler).collect::<Result<_>>()?;
        let steps_per_epoch = samplers.first().map_or(0, |sampler| sampler.n_batches() / options.accumulation) as u64;
        // A checkpoint may be of the end of an epoch.
        trainer.position = trainer.position.in_epoch_of(steps_per_epoch);
        let batches = batches_of(&samplers, trainer.position.epoch);
        Ok(Self { trainer, data, samplers, steps_per_epoch, batches })
    }

    /// The items of the batches of the next step, a batch for each pass.
    fn next_batches(&mut self) -> Vec<Vec<usize>> {
        let position = self.trainer.position;
        if self.batches.0 != position.epoch {
            self.batches = batches_of(&self.samplers, position.epoch);
        }
        let accumulation = self.trainer.options.accumulation;
        let first = position.step_in_epoch as usize * accumulation;
        let batches = first..first + accumulation;
        batches.flat_map(|batch| self.batches.1.iter().map(move |of_device| of_device[batch].clone())).collect()
    }

    fn next_step(&mut self) -> Result<StepReport> {
        let indices = self.next_batches();
        let (options, epoch) = (&self.trainer.options, self.trainer.position.epoch);
        let mut batches: Vec<Batch> =
            indices.iter().map(|items| self.data.batch(items, options.max_tokens)).collect::<Result<_>>()?;
        for (batch, items) in batches.iter_mut().zip(&indices) {
            drop_contexts(batch, items, options, epoch);
        }
        let passes: Vec<Vec<Example<'_>>> = batches
            .iter()
            .map(|batch| {
                batch.tokens.iter().zip(&batch.labels).map(|(tokens, labels)| Example { tokens, labels }).collect()
            })
            .collect();
        let report = self.trainer.step(&passes, self.steps_per_epoch).map_err(|error| match error {
            Error::NotFinite { step, loss, gradient_norm, .. } => {
                Error::NotFinite { step, loss, gradient_norm, items: indices.concat() }
            }
            other => other,
        })?;
        self.trainer.position = self.trainer.position.in_epoch_of(self.steps_per_epoch);
        Ok(report)
    }
}

impl<E: From<Error>> Steps<E> for Epochs<'_> {
    type Report = StepReport;

    fn done(&self) -> u64 {
        self.trainer.position.step
    }

    fn left(&self) -> u64 {
        let position = self.trainer.position;
        let epochs_left = self.trainer.options.schedule.epochs.saturating_sub(position.epoch);
        (epochs_left * self.steps_per_epoch).saturating_sub(position.step_in_epoch)
    }

    fn step(&mut self) -> Result<StepReport, E> {
        Ok(self.next_step().inspect_err(|error| tell(&*self.trainer.devices.processes, error))?)
    }

    fn save(&self, checkpoint: &Path) -> Result<()> {
        self.trainer.save(checkpoint)
    }

    fn processes(&self) -> &dyn Collective {
        &*self.trainer.devices.processes
    }
}

fn batches_of(samplers: &[BatchSampler], epoch: u64) -> (u64, Vec<Vec<Vec<usize>>>) {
    (epoch, samplers.iter().map(|sampler| sampler.epoch(epoch)).collect())
}

/// Leaves of some sequences only what is predicted, without the token that ends the last turn: an image, say, from its
/// start on, as the unconditional branch of guidance sees it. Which sequences follows from seed, epoch and item.
fn drop_contexts(batch: &mut Batch, items: &[usize], options: &FineTuneOptions, epoch: u64) {
    let mut random = ChaCha12Rng::seed_from_u64(options.seed ^ epoch.rotate_left(32));
    for ((tokens, labels), &item) in batch.tokens.iter_mut().zip(&mut batch.labels).zip(items) {
        random.set_stream(item as u64);
        random.set_word_pos(0);
        if f64::from(random.next_u32()) >= options.context_dropout * (f64::from(u32::MAX) + 1.0) {
            continue;
        }
        let mut answers: Vec<u32> =
            tokens.iter().zip(&*labels).filter(|(_, label)| **label != IGNORED).map(|(token, _)| *token).collect();
        answers.pop();
        // The first token is not predicted, so one token alone has nothing to teach.
        if answers.len() > 1 {
            *labels = answers.iter().map(|&token| i64::from(token)).collect();
            *tokens = answers;
        }
    }
}
