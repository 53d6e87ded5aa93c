//! The files of a checkpoint other than its tensors.

use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use lumina_checkpoint::Checkpoint;

use crate::{Error, Result};

/// A file of the model's folder by its name, from the folder or from a GGUF file's metadata, and what messages call it.
///
/// # Errors
/// [`Error::Read`] where there is none, and [`Error::Checkpoint`] where it cannot be read.
pub(crate) fn document(checkpoint: &Checkpoint, name: &str) -> Result<(impl Deref<Target = [u8]>, PathBuf)> {
    let own = checkpoint.own_document(name)?;
    let file = if own.is_some() { checkpoint.path().to_owned() } else { folder(checkpoint).join(name) };
    let bytes = own.map_or_else(|| checkpoint.document(name), |bytes| Ok(Some(bytes)))?;
    match bytes {
        Some(bytes) => {
            lumina_core::file::check_lfs(&file, &bytes)?;
            Ok((bytes, file))
        }
        None => Err(Error::Read { file, source: io::Error::from(ErrorKind::NotFound) }),
    }
}

/// The folder of the checkpoint: itself, or that of its file.
pub(crate) fn folder(checkpoint: &Checkpoint) -> &Path {
    let path = checkpoint.path();
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}
