//! Files of a checkpoint: JSON, and the tokenizer's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lumina_checkpoint::save_bytes;

use crate::{Error, Result};

/// The files of a tokenizer in a Hugging Face folder.
pub(crate) const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

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

/// Copies a file if it exists.
pub(crate) fn copy_if_present(from: &Path, to: &Path) -> Result<()> {
    match fs::copy(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Read { file: from.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}
