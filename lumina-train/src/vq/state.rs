//! Checkpoints of a run: folders that are there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::VqTrainingOptions;
use crate::fine_tune::folder;
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

/// The name of the checkpoint after `step` steps.
pub(super) fn checkpoint_at(run: &Path, step: u64) -> PathBuf {
    run.join(format!("step-{step:010}"))
}

/// The checkpoints of a run, the oldest first, each with its step. One that is being written has another name.
pub(super) fn checkpoints(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |source| Error::Read { file: run.to_owned(), source };
    let entries = match fs::read_dir(run) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// Removes all checkpoints but the newest `keep`.
pub(super) fn prune(run: &Path, keep: usize) -> Result<()> {
    let all = checkpoints(run)?;
    for (_, old) in &all[..all.len().saturating_sub(keep)] {
        fs::remove_dir_all(old).map_err(|source| Error::Write { file: old.clone(), source })?;
    }
    Ok(())
}
