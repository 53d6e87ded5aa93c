//! Folders that are complete or absent, and that one process writes at a time.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lumina_checkpoint::sync_folder;

use crate::collective::{Collective, agree};
use crate::{Error, Result};

/// Makes `folder` with what `fill` writes into it: under a temporary name, renamed at the end.
///
/// What an earlier run left under the temporary name is removed. An existing folder is an error, and so is another
/// process that is making the same one.
pub(crate) fn create(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let exists = || Error::Write { file: folder.to_owned(), source: ErrorKind::AlreadyExists.into() };
    if folder.exists() {
        return Err(exists());
    }
    let partial = partial(folder)?;
    let failed = |source| Error::Write { file: partial.clone(), source };
    let lock = FolderLock::new(&partial)?;
    // Whoever had the lock may have renamed it meanwhile, and then what is locked has another name.
    if folder.exists() || !partial.exists() {
        return Err(exists());
    }
    for left_over in fs::read_dir(&partial).map_err(failed)? {
        let left_over = left_over.map_err(failed)?.path();
        let is_folder = left_over.symlink_metadata().map_err(failed)?.is_dir();
        if !lock.is_own(&left_over) {
            let removed = if is_folder { fs::remove_dir_all(&left_over) } else { fs::remove_file(&left_over) };
            removed.map_err(failed)?;
        }
    }
    fill(&partial)?;
    lock.release_before_rename();
    sync_folder(&partial).map_err(failed)?;
    fs::rename(&partial, folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
    // The rename is durable once the parent folder is synced. Where a system cannot sync folders, a power cut may lose
    // it.
    let _ = folder.parent().map_or(Ok(()), sync_folder);
    Ok(())
}

/// Makes `folder` as [`create`], with what all ranks write into it. Either all have succeeded, and it is there, or all
/// have an error.
pub(crate) fn create_together(
    ranks: &dyn Collective,
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if ranks.rank() > 0 {
        agree(ranks, Ok(()))?;
        agree(ranks, partial(folder).and_then(|partial| write(&partial)))?;
        return agree(ranks, Ok(()));
    }
    // What the others know of this rank's failure.
    let (mut is_open, mut is_written) = (false, false);
    let created = create(folder, |partial| {
        is_open = true;
        agree(ranks, Ok(()))?;
        agree(ranks, write(partial))?;
        is_written = true;
        Ok(())
    });
    if is_open && !is_written { created } else { agree(ranks, created) }
}

/// The temporary name of a folder.
fn partial(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::Write { file: path.to_owned(), source: ErrorKind::InvalidInput.into() })?;
    let mut partial = name.to_owned();
    partial.push(".partial");
    Ok(path.with_file_name(partial))
}

/// A folder that this process alone writes, until the lock is dropped or the process ends, however it ends.
///
/// On Unix the folder itself is locked, and nothing is left behind; elsewhere a file in it is.
#[derive(Debug)]
pub(crate) struct FolderLock {
    locked: File,
    /// The file that is locked where it is not the folder.
    file: Option<PathBuf>,
}

impl FolderLock {
    /// Makes the folder, if there is none, and locks it.
    ///
    /// # Errors
    /// [`Error::FolderBusy`] where another process, or another run of this one, has the lock; [`Error::Write`].
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let failed = |source| Error::Write { file: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let (locked, file) = if cfg!(unix) {
            (File::open(folder).map_err(failed)?, None)
        } else {
            let file = folder.join(LOCK_FILE);
            (File::create(&file).map_err(failed)?, Some(file))
        };
        match locked.try_lock() {
            Ok(()) => Ok(Self { locked, file }),
            Err(TryLockError::WouldBlock) => Err(Error::FolderBusy { folder: folder.to_owned() }),
            // A file system without locks: the run goes on, as it did before there were any.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Self { locked, file }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Whether this is the file of the lock.
    fn is_own(&self, path: &Path) -> bool {
        self.file.as_deref() == Some(path)
    }

    /// A folder with an open file cannot be renamed on Windows. On Unix the lock stays.
    fn release_before_rename(&self) {
        if let Some(file) = &self.file {
            let _ = self.locked.unlock();
            let _ = fs::remove_file(file);
        }
    }
}

/// The file that is locked where folders cannot be.
const LOCK_FILE: &str = "run.lock";

impl Drop for FolderLock {
    /// Closing is not enough if a process is being started at that moment, by any thread: until it runs its program it
    /// has a copy of the file, and with it the lock.
    fn drop(&mut self) {
        let _ = self.locked.unlock();
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::collective::Threads;

    /// What three ranks get where each writes a file, and `bad` cannot.
    fn written_by_three(folder: &Path, bad: Option<usize>) -> Vec<Result<()>> {
        let write = |rank: usize, partial: &Path| match bad == Some(rank) {
            true => Err(Error::Write { file: partial.join("part"), source: ErrorKind::StorageFull.into() }),
            false => {
                let file = partial.join(rank.to_string());
                fs::write(&file, "part").map_err(|source| Error::Write { file, source })
            }
        };
        std::thread::scope(|scope| {
            let start = |rank: Threads| {
                scope.spawn(move || create_together(&rank, folder, |partial| write(rank.rank(), partial)))
            };
            let threads: Vec<_> = Threads::group(3, Duration::from_secs(60)).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_folder_of_all_ranks_is_whole_or_absent() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("result");
        for bad in 0..3 {
            for (rank, result) in written_by_three(&folder, Some(bad)).into_iter().enumerate() {
                let error = result.unwrap_err();
                match rank == bad {
                    true => assert!(matches!(error, Error::Write { .. }), "{error}"),
                    false => assert!(error.to_string().starts_with(&format!("rank {bad} has failed: ")), "{error}"),
                }
            }
            assert!(!folder.exists());
        }
        assert!(written_by_three(&folder, None).iter().all(Result::is_ok));
        assert!((0..3).all(|rank| folder.join(rank.to_string()).exists()));
        // The first rank cannot begin: all have an error.
        let again = written_by_three(&folder, None);
        assert!(again.iter().all(Result::is_err), "{again:?}");
    }

    #[test]
    fn one_at_a_time_makes_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("result");
        fs::create_dir_all(root.path().join("result.partial/old")).unwrap();
        create(&folder, |partial| {
            assert_eq!(fs::read_dir(partial).unwrap().count(), usize::from(!cfg!(unix)), "of an earlier run");
            let second = create(&folder, |_| panic!("two at a time")).unwrap_err();
            assert!(matches!(second, Error::FolderBusy { .. }), "{second}");
            assert!(second.to_string().contains("result.partial"), "{second}");
            fs::write(partial.join("a"), "a").map_err(|source| Error::Write { file: partial.to_owned(), source })
        })
        .unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(matches!(create(&folder, |_| Ok(())), Err(Error::Write { .. })));
        fs::remove_dir_all(&folder).unwrap();
        create(&folder, |_| Ok(())).unwrap();
    }
}
