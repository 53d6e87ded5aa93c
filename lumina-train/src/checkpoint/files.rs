//! Files of a checkpoint: JSON, and the tokenizer's.

use std::io::ErrorKind;
use std::path::Path;

use lumina_checkpoint::save_bytes;
use lumina_core::file;

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
    let text = file::read_document_text(file)?;
    file::check_json(file, text.as_bytes())?;
    serde_json::from_str(&text).map_err(|error| Error::Read { file: file.to_owned(), source: error.into() })
}

/// The bytes of a document, if it exists.
pub(crate) fn read_if_present(file: &Path) -> Result<Option<Vec<u8>>> {
    match file::read_document(file) {
        Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(bytes?)),
    }
}

/// Copies a document if it exists.
pub(crate) fn copy_if_present(from: &Path, to: &Path) -> Result<()> {
    match read_if_present(from)? {
        Some(bytes) => Ok(save_bytes(to, &bytes)?),
        None => Ok(()),
    }
}

/// Refuses to write to what is there and is no regular file: a pipe blocks, and a device keeps nothing.
pub(crate) fn check_regular(file: &Path) -> Result<()> {
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            let source = std::io::Error::new(ErrorKind::InvalidInput, "not a regular file");
            Err(Error::Write { file: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}
