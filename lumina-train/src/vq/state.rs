//! Checkpoints of a run: folders that are there whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lumina_core::checkpoint::save_safetensors;
use serde::{Deserialize, Serialize};

use super::options::VqTrainingOptions;
use super::tensors::Named;
use crate::{Error, Result};

/// The file that says where a run stands.
pub(super) const PROGRESS: &str = "training.json";
/// The file of optimizer and codebook states.
pub(super) const STATE: &str = "state.safetensors";
/// What this version writes.
const FORMAT: u32 = 1;

/// Where a run stands, besides its tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    format: u32,
    /// Steps taken.
    pub(super) step: u64,
    /// Steps that each optimizer has taken.
    pub(super) optimizer_steps: [u64; 2],
    pub(super) options: VqTrainingOptions,
}

impl Progress {
    pub(super) fn new(step: u64, optimizer_steps: [u64; 2], options: VqTrainingOptions) -> Self {
        Self { format: FORMAT, step, optimizer_steps, options }
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(PROGRESS);
        let text = fs::read_to_string(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
        let broken = |reason: String| Error::TrainingState { file: file.clone(), reason };
        let progress: Self = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        if progress.format != FORMAT {
            return Err(broken(format!("has format {}, this version reads {FORMAT}", progress.format)));
        }
        Ok(progress)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Write { file: folder.join(PROGRESS), source: error.into() })?;
        write_file(&folder.join(PROGRESS), &json)
    }
}

/// Writes a file under a temporary name and renames it.
pub(super) fn write_file(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = file.with_file_name(name);
    let written = fs::File::create(&partial)
        .and_then(|mut target| target.write_all(bytes).and_then(|()| target.sync_all()))
        .and_then(|()| fs::rename(&partial, file));
    written.map_err(|source| Error::Write { file: file.to_owned(), source })
}

/// Writes a safetensors file.
pub(super) fn write_tensors(file: &Path, tensors: Vec<Named>) -> Result<()> {
    let tensors = tensors.into_iter().map(|tensor| (tensor.name, tensor.dtype, tensor.shape, || Ok(tensor.bytes)));
    Ok(save_safetensors(file, tensors)?)
}

/// Makes `folder/step-…` from what `fill` writes into a folder of another name, then removes all but the newest `keep`.
pub(super) fn write_checkpoint(
    folder: &Path,
    step: u64,
    keep: usize,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let write_error = |file: &Path, source| Error::Write { file: file.to_owned(), source };
    let target = folder.join(format!("step-{step:010}"));
    let partial = folder.join(format!("partial-{step:010}"));
    // Left behind by a run that was stopped while writing.
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|source| write_error(&partial, source))?;
    }
    fs::create_dir_all(&partial).map_err(|source| write_error(&partial, source))?;
    fill(&partial)?;
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|source| write_error(&target, source))?;
    }
    fs::rename(&partial, &target).map_err(|source| write_error(&target, source))?;
    let all = checkpoints(folder)?;
    for old in &all[..all.len().saturating_sub(keep)] {
        fs::remove_dir_all(old).map_err(|source| write_error(old, source))?;
    }
    Ok(target)
}

/// The checkpoints in a folder, the oldest first.
pub(super) fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Read { file: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
