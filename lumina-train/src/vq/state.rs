//! Checkpoints of a run: folders that are there whole or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::VqTrainingOptions;
use crate::checkpoint::folder;
use crate::{Error, Result};

/// The files of a checkpoint besides those of the tokenizer.
pub(super) const PROGRESS: &str = "training.json";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const CODEBOOK: &str = "codebook.safetensors";
pub(super) const DISCRIMINATOR: &str = "discriminator.safetensors";
pub(super) const DISCRIMINATOR_OPTIMIZER: &str = "discriminator-optimizer.safetensors";
/// What this version writes.
const FORMAT: u32 = 1;

/// Where a run stands, besides its tensors. Random choices depend on seed and step alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    format: u32,
    /// Steps taken.
    pub(super) step: u64,
    /// Steps that the discriminator has taken.
    pub(super) discriminator_steps: u64,
    pub(super) options: VqTrainingOptions,
}

impl Progress {
    pub(super) fn new(step: u64, discriminator_steps: u64, options: VqTrainingOptions) -> Self {
        Self { format: FORMAT, step, discriminator_steps, options }
    }

    pub(super) fn read(checkpoint: &Path) -> Result<Self> {
        let file = checkpoint.join(PROGRESS);
        let progress: Self = folder::read_json(&file)?;
        if progress.format != FORMAT {
            let reason = format!("has format {}, this version reads {FORMAT}", progress.format);
            return Err(Error::TrainingState { file, reason });
        }
        Ok(progress)
    }

    pub(super) fn write(&self, checkpoint: &Path) -> Result<()> {
        folder::write_json(&checkpoint.join(PROGRESS), self)
    }
}

/// What the name of a checkpoint begins with.
const PREFIX: &str = "step-";

/// The name of the checkpoint after `step` steps.
pub(super) fn checkpoint_at(run: &Path, step: u64) -> PathBuf {
    run.join(format!("{PREFIX}{step:010}"))
}

/// The checkpoints of a run, the oldest first, each with its step.
pub(super) fn checkpoints(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    folder::numbered(run, PREFIX)
}
