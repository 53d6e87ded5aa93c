//! The checkpoints in the folder of a run.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What names of checkpoints begin with; the number of steps follows. The first is written, both are read.
const PREFIXES: [&str; 2] = ["step-", "checkpoint-"];
/// The file of a checkpoint with options and position of the run. The first is written, both are read.
const STATE_FILES: [&str; 2] = ["trainer.json", "training.json"];

/// The newest checkpoint in the folder of a run, if there is one.
///
/// # Errors
/// [`Error::Read`].
pub fn latest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(all(run)?.pop().map(|(_, checkpoint)| checkpoint))
}

/// The checkpoint that a folder is, or the newest one of the run that it is the folder of.
pub(crate) fn find(folder: &Path) -> Result<PathBuf> {
    if is_checkpoint(folder) {
        return Ok(folder.to_owned());
    }
    latest(folder)?.ok_or_else(|| Error::NoCheckpoint { folder: folder.to_owned() })
}

/// The checkpoint of a run after `step` steps.
pub(crate) fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("{}{step:010}", PREFIXES[0]))
}

/// Whether a folder is a checkpoint.
pub(crate) fn is_checkpoint(folder: &Path) -> bool {
    STATE_FILES.iter().any(|name| folder.join(name).exists())
}

/// The file that a new checkpoint has its state in.
pub(crate) fn new_state_file(checkpoint: &Path) -> PathBuf {
    checkpoint.join(STATE_FILES[0])
}

/// The file that a checkpoint has its state in.
pub(crate) fn state_file(checkpoint: &Path) -> PathBuf {
    let files = STATE_FILES.map(|name| checkpoint.join(name));
    files.into_iter().find(|file| file.exists()).unwrap_or_else(|| new_state_file(checkpoint))
}

/// Removes all checkpoints of a run but the newest ones.
pub(crate) fn keep_last(run: &Path, keep: usize) -> Result<()> {
    let checkpoints = all(run)?;
    for (_, old) in &checkpoints[..checkpoints.len().saturating_sub(keep)] {
        fs::remove_dir_all(old).map_err(|source| Error::Write { file: old.clone(), source })?;
    }
    Ok(())
}

/// An error where the folder of a run has a checkpoint of a later step: it belongs to another run.
pub(crate) fn refuse_later(run: &Path, step: u64) -> Result<()> {
    match all(run)?.into_iter().find(|(later, _)| *later > step) {
        Some((_, checkpoint)) => Err(Error::LaterCheckpoint { checkpoint, step }),
        None => Ok(()),
    }
}

/// The checkpoints of a run with their steps, the oldest first. What is still being written has another name.
fn all(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |source| Error::Read { file: run.to_owned(), source };
    let entries = match fs::read_dir(run) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)));
        if let Some(step) = number.and_then(|number| number.parse().ok())
            && is_checkpoint(&path)
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_found_by_their_step_whatever_they_are_called() {
        let run = tempfile::tempdir().unwrap();
        let make = |name: &str, file: &str| {
            fs::create_dir(run.path().join(name)).unwrap();
            fs::write(run.path().join(name).join(file), "{}").unwrap();
        };
        assert_eq!(latest(run.path()).unwrap(), None);
        assert!(matches!(find(run.path()), Err(Error::NoCheckpoint { .. })));
        make("checkpoint-00000020", "trainer.json");
        make("step-0000000003", "training.json");
        make("step-0000000100.partial", "trainer.json");
        make("step-0000000200", "notes.txt");
        make("result", "trainer.json");
        assert_eq!(latest(run.path()).unwrap(), Some(run.path().join("checkpoint-00000020")));
        make("step-0000000021", "trainer.json");
        assert_eq!(find(run.path()).unwrap(), checkpoint(run.path(), 21));
        assert_eq!(find(&run.path().join("step-0000000003")).unwrap(), checkpoint(run.path(), 3));
        assert_eq!(state_file(&checkpoint(run.path(), 3)), checkpoint(run.path(), 3).join("training.json"));
        assert!(refuse_later(run.path(), 21).is_ok());
        assert!(matches!(refuse_later(run.path(), 20), Err(Error::LaterCheckpoint { step: 20, .. })));
        keep_last(run.path(), 2).unwrap();
        let left = all(run.path()).unwrap();
        assert_eq!(left.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20, 21]);
        assert!(run.path().join("step-0000000200").exists(), "not a checkpoint");
        assert_eq!(latest(&run.path().join("absent")).unwrap(), None);
    }
}
