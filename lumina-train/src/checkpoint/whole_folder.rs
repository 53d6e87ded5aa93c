//! Folders that are complete or absent.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Makes `folder` with what `fill` writes into it: under a temporary name, renamed at the end.
///
/// What an earlier run left under the temporary name is removed. An existing folder is an error.
pub(crate) fn create(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Err(Error::Write { file: folder.to_owned(), source: ErrorKind::AlreadyExists.into() });
    }
    let partial = partial(folder)?;
    let failed = |source| Error::Write { file: partial.clone(), source };
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir_all(&partial).map_err(failed)?;
    fill(&partial)?;
    sync(&partial).map_err(failed)?;
    fs::rename(&partial, folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
    // The rename is durable once the parent folder is synced. Where a system cannot sync folders, a power cut may lose
    // it.
    let _ = folder.parent().map_or(Ok(()), sync);
    Ok(())
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

#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
