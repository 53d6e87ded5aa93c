//! Folders that appear whole or not at all.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use lumina_checkpoint::save_bytes;

use crate::{Error, Result};

/// What belongs to a tokenizer in a Hugging Face folder.
pub(crate) const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

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
    // The rename itself is durable once the folder above is; a system that cannot sync folders loses at most the last one.
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

/// Writes a value as indented JSON.
pub(crate) fn write_json(file: &Path, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Write { file: file.to_owned(), source: error.into() })?;
    Ok(save_bytes(file, &json)?)
}

/// Reads a JSON file.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let failed = |source| Error::Read { file: file.to_owned(), source };
    serde_json::from_slice(&fs::read(file).map_err(failed)?).map_err(|error| failed(error.into()))
}

/// Copies a file where there is one.
pub(crate) fn copy_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::copy(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Read { file: from.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}

/// What lies in a folder under `prefix` and a number, in the order of the numbers. What [`create`] is still writing has
/// another name.
pub(crate) fn numbered(folder: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |source| Error::Read { file: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix(prefix)?.parse::<u64>().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Removes all of these folders but the last `keep`.
pub(crate) fn keep_last(folders: &[(u64, PathBuf)], keep: usize) -> Result<()> {
    for (_, old) in &folders[..folders.len().saturating_sub(keep)] {
        fs::remove_dir_all(old).map_err(|source| Error::Write { file: old.clone(), source })?;
    }
    Ok(())
}
