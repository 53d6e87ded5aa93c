//! A run over a data set: epochs, checkpoints, and going on where an earlier process ended.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lumina_nn::Compute;
use lumina_tokenizer::IGNORED;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::trainer::STATE;
use super::{Example, FineTuneOptions, Position, StepReport, Trainer};
use crate::checkpoint::folder;
use crate::data::{Batch, BatchSampler, Dataset, Order, SamplerOptions};
use crate::{Error, Result};

/// What a run tells its caller.
#[derive(Debug, Clone, Copy)]
pub enum RunEvent<'a> {
    /// The run begins here, or goes on.
    Started {
        /// Where it is; all zero for a new run.
        position: Position,
        /// Steps of an epoch.
        steps_per_epoch: u64,
    },
    /// A step was made.
    Step(&'a StepReport),
    /// A checkpoint was saved.
    Saved(&'a Path),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// The caller stopped it; the same call goes on with it.
    Stopped,
}

/// Trains until all epochs are done or `observe` breaks off, from the last checkpoint in `folder`, or from the
/// trainer that `start` makes where there is none.
///
/// Data, order and dropout follow from the options and the position alone, so a run that was killed at any point and
/// called again ends with the same weights as one that was not. At each end there is a checkpoint.
///
/// # Errors
/// Those of [`Trainer`], and of the data set. [`Error::NotFinite`] names the items of the batch.
pub fn run(
    data: &Dataset,
    folder: &Path,
    options: &FineTuneOptions,
    devices: &[Compute],
    start: impl FnOnce() -> Result<Trainer>,
    observe: &mut dyn FnMut(RunEvent<'_>) -> ControlFlow<()>,
) -> Result<(Trainer, Ended)> {
    let samplers: Vec<BatchSampler> = (0..devices.len())
        .map(|rank| {
            let settings = SamplerOptions {
                batch_size: options.batch_size,
                accumulation: options.accumulate,
                rank,
                ranks: devices.len(),
                order: Order::Shuffled { seed: options.seed },
            };
            BatchSampler::new(data.groups(), settings)
        })
        .collect::<Result<_>>()?;
    let steps_per_epoch = samplers.first().map_or(0, |sampler| sampler.n_batches() / options.accumulate) as u64;
    let mut trainer = match checkpoints(folder)?.last() {
        Some((_, latest)) => Trainer::resume(latest, options.clone(), devices)?,
        None => start()?,
    };
    let save = |trainer: &Trainer| -> Result<PathBuf> {
        let checkpoint = folder.join(format!("{PREFIX}{:08}", trainer.position().step));
        if !checkpoint.join(STATE).exists() {
            trainer.save(&checkpoint)?;
        }
        folder::keep_last(&checkpoints(folder)?, options.keep)?;
        Ok(checkpoint)
    };
    let mut flow = observe(RunEvent::Started { position: trainer.position(), steps_per_epoch });
    while trainer.position().epoch < options.schedule.epochs {
        let orders: Vec<Vec<Vec<usize>>> =
            samplers.iter().map(|sampler| sampler.epoch(trainer.position().epoch)).collect();
        while trainer.position().step_in_epoch < steps_per_epoch {
            if flow.is_break() {
                save(&trainer)?;
                return Ok((trainer, Ended::Stopped));
            }
            let first = trainer.position().step_in_epoch as usize * options.accumulate;
            let batches: Vec<&Vec<usize>> = (first..first + options.accumulate)
                .flat_map(|batch| orders.iter().map(move |of_rank| &of_rank[batch]))
                .collect();
            let report = step(&mut trainer, data, &batches, steps_per_epoch)?;
            flow = observe(RunEvent::Step(&report));
            if trainer.position().step.is_multiple_of(options.save_every) {
                let checkpoint = save(&trainer)?;
                if observe(RunEvent::Saved(&checkpoint)).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
        }
        trainer.end_epoch();
    }
    save(&trainer)?;
    Ok((trainer, Ended::Finished))
}

/// One step on the items of some batches.
fn step(trainer: &mut Trainer, data: &Dataset, batches: &[&Vec<usize>], steps_per_epoch: u64) -> Result<StepReport> {
    let max_tokens = trainer.options().max_tokens;
    let mut read: Vec<Batch> = batches.iter().map(|indices| data.batch(indices, max_tokens)).collect::<Result<_>>()?;
    for (batch, indices) in read.iter_mut().zip(batches) {
        drop_contexts(batch, indices, trainer);
    }
    let passes: Vec<Vec<Example<'_>>> = read
        .iter()
        .map(|batch| {
            batch.tokens.iter().zip(&batch.labels).map(|(tokens, labels)| Example { tokens, labels }).collect()
        })
        .collect();
    trainer.step(&passes, steps_per_epoch).map_err(|error| match error {
        Error::NotFinite { step, loss, grad_norm, .. } => Error::NotFinite {
            step,
            loss,
            grad_norm,
            items: batches.iter().flat_map(|batch| batch.iter().copied()).collect(),
        },
        other => other,
    })
}

/// Leaves of some sequences only what is predicted, without the token that ends the last turn: an image, say, from its
/// start on, as the unconditional branch of guidance sees it. Which ones follows from seed, epoch and item.
fn drop_contexts(batch: &mut Batch, items: &[usize], trainer: &Trainer) {
    let options = trainer.options();
    let mut random = ChaCha12Rng::seed_from_u64(options.seed ^ trainer.position().epoch.rotate_left(32));
    for ((tokens, labels), &item) in batch.tokens.iter_mut().zip(&mut batch.labels).zip(items) {
        random.set_stream(item as u64);
        random.set_word_pos(0);
        if f64::from(random.next_u32()) >= options.context_dropout * (f64::from(u32::MAX) + 1.0) {
            continue;
        }
        let mut answers: Vec<u32> =
            tokens.iter().zip(&*labels).filter(|(_, label)| **label != IGNORED).map(|(token, _)| *token).collect();
        answers.pop();
        // The first token is not predicted, so one alone has nothing to teach.
        if answers.len() > 1 {
            *labels = answers.iter().map(|&token| i64::from(token)).collect();
            *tokens = answers;
        }
    }
}

/// What the name of a checkpoint begins with.
const PREFIX: &str = "checkpoint-";

/// The complete checkpoints in a folder, the oldest first, each with its step.
fn checkpoints(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = folder::numbered(folder, PREFIX)?;
    found.retain(|(_, checkpoint)| checkpoint.join(STATE).exists());
    Ok(found)
}
