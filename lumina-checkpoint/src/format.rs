//! The formats that one file of a checkpoint can have, and how they are told apart.

use std::path::Path;

use bytes::Bytes;

use crate::gguf::{self, Metadata};
use crate::source::empty;
use crate::tensor_view::Stored;
use crate::{Error, Result, safetensors, torch};

/// Every format. A file has the first one whose [`matches`](FileFormat::matches) accepts it.
///
/// In a folder without an index of shards, the first one whose [`folder_file`](FileFormat::folder_file) exists is
/// opened.
const FORMATS: &[FileFormat] = &[safetensors::FORMAT, gguf::FORMAT, torch::FORMAT];

/// A format of files.
pub(crate) struct FileFormat {
    /// The name in messages.
    pub(crate) name: &'static str,
    /// The file that contains the whole model in a folder of this format.
    pub(crate) folder_file: Option<&'static str>,
    /// Whether a file with this path and these bytes has this format.
    pub(crate) matches: fn(&Path, &[u8]) -> bool,
    /// Finds the tensors in the bytes of a file. The path is for messages.
    pub(crate) read: fn(&Path, &Bytes) -> Result<Contents>,
}

/// The contents of one file.
pub(crate) struct Contents {
    pub(crate) tensors: Vec<Stored>,
    /// The metadata, if the format is GGUF.
    pub(crate) metadata: Option<Metadata>,
}

impl From<Vec<Stored>> for Contents {
    fn from(tensors: Vec<Stored>) -> Self {
        Self { tensors, metadata: None }
    }
}

/// The names of files that contain the whole model of a folder, in the order of preference.
pub(crate) fn folder_files() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().filter_map(|format| format.folder_file)
}

/// Reads one file of any format.
pub(crate) fn read(file: &Path, bytes: &Bytes) -> Result<Contents> {
    if bytes.is_empty() {
        return Err(empty(file));
    }
    lumina_core::file::check_lfs(file, bytes)?;
    match FORMATS.iter().find(|format| (format.matches)(file, bytes)) {
        Some(format) => (format.read)(file, bytes),
        None => {
            let start = &bytes[..bytes.len().min(8)];
            let reason = format!("neither {}; it begins with {start:02x?}", names(" nor "));
            Err(Error::NotACheckpoint { file: file.to_owned(), reason })
        }
    }
}

/// The names of all formats: `a, b or c`, if `last` is ` or `.
pub(crate) fn names(last: &str) -> String {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    match names.split_last() {
        Some((name, [])) => (*name).to_owned(),
        Some((name, others)) => [&others.join(", "), last, name].concat(),
        None => String::new(),
    }
}
