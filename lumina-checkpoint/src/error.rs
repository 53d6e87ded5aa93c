//! The errors of this crate. Each message says what is wrong, where, and what to do.

use std::path::PathBuf;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-checkpoint`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: cannot be read; check that the path is right and the file is readable", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder contains none of the files that a checkpoint consists of.
    #[error("{}: holds no checkpoint; looked for {looked_for}", folder.display())]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// The file names looked for.
        looked_for: String,
    },
    /// A file that is not a checkpoint, or one in a form that cannot be read.
    #[error("{}: {reason}; give a folder, or a file of this kind: {}", file.display(), crate::format::names(" or "))]
    NotACheckpoint {
        /// The file.
        file: PathBuf,
        /// What the file is, as far as its bytes say.
        reason: String,
    },
    /// A file that ends before its contents do.
    #[error("{}: cut short: {needed} bytes are needed, {found} are there; download it again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The smallest length that agrees with the header, in bytes.
        needed: u64,
        /// Its length in bytes.
        found: u64,
    },
    /// A file that contradicts itself or its format.
    #[error("{}: damaged: {reason}; download it again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where in the file.
        reason: String,
    },
    /// A file, or a part of one, that is not the JSON that its format asks for.
    #[error("{}: damaged: {problem}; download it again", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Which part, and what is wrong with it.
        problem: &'static str,
        /// What the parser reported.
        #[source]
        source: serde_json::Error,
    },
    /// A zip archive, or a file in one, that cannot be read.
    #[error("{}: damaged: {problem}; download it again", file.display())]
    Archive {
        /// The archive.
        file: PathBuf,
        /// What is wrong, and with which file in the archive.
        problem: String,
        /// What the reader of archives reported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An index names a shard that does not exist.
    #[error("{}: the shard `{shard}` is not in this folder; download it, or the whole folder again", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard as the index names it.
        shard: String,
    },
    /// An index names a shard for a tensor, and the shard does not have the tensor.
    #[error("{}: says that tensor `{tensor}` is in `{shard}`, which does not hold it; index and shards are of different checkpoints", index.display())]
    MissingFromShard {
        /// The index file.
        index: PathBuf,
        /// The shard as the index names it.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// Two tensors with one name after [`Checkpoint::map_tensors`](crate::Checkpoint::map_tensors).
    #[error("two tensors are called `{tensor}`, one in {} and one in {}; remove one of them from its file", first.display(), second.display())]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// One of the files.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// A pickle refers to something that is neither a tensor nor plain data.
    #[error("{}: the pickle refers to `{global}`, which is neither a tensor nor plain data; nothing was executed; if you trust the file, save its `state_dict` alone from Python and open that", file.display())]
    ForeignGlobal {
        /// The torch file.
        file: PathBuf,
        /// Module and name, `os.system`.
        global: String,
    },
    /// A pickle that torch would not write, or that exceeds the limits.
    #[error("{}: byte {position} of the pickle: {reason}; the file is damaged or not a checkpoint", file.display())]
    Pickle {
        /// The torch file.
        file: PathBuf,
        /// Offset in the pickle, in bytes.
        position: usize,
        /// What is wrong.
        reason: String,
    },
    /// A torch file that has other data where the tensors should be.
    #[error("{}: {reason}; give a file whose `state_dict`, or whose top level, is a dict of tensors", file.display())]
    StateDict {
        /// The torch file.
        file: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A tensor whose description does not fit its data.
    #[error("{}: tensor `{tensor}`: {reason}; the file is damaged", file.display())]
    TensorLayout {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What does not fit.
        reason: String,
    },
    /// A key in the metadata of a GGUF file, or a setting to be written there, that is missing or unusable.
    #[error("{}: `{key}`: {reason}", file.display())]
    Metadata {
        /// The GGUF file, or the file with the setting.
        file: PathBuf,
        /// The key.
        key: String,
        /// What was found, and what is expected.
        reason: String,
    },
    /// A tensor that cannot be converted to the type that was asked for.
    #[error("{}: tensor `{tensor}`: {reason}", file.display())]
    Quantise {
        /// The file that contains the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value or shape, the type, and what to do.
        reason: String,
    },
    /// The caller stopped the writing of a file before the end.
    #[error("{}: not written, as asked; what was there before is untouched", file.display())]
    Cancelled {
        /// The file that was to be written.
        file: PathBuf,
    },
    /// A tensor with an element type that cannot be used for the purpose.
    #[error("{}: tensor `{tensor}` has type {found}, expected {expected}; is this a quantized checkpoint?", file.display())]
    TensorType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type as the file names it.
        found: String,
        /// The types that can be used.
        expected: &'static str,
    },
    /// A tensor with an element type of GGUF that is not read.
    #[error("{}: tensor `{tensor}` has GGUF's type {found}; quantised types that are read are q8_0, q5_1, q5_0, q4_1, q4_0 and q2_k to q6_k; convert the file with llama.cpp's `llama-quantize --allow-requantize` to Q8_0, or open the folder that it was made from", file.display())]
    GgufType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name of the type.
        found: String,
    },
    /// A file could not be written.
    #[error("{}: cannot be written; check that the folder exists, is writable and has space", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A tensor given for saving does not fit its own description.
    #[error("{}: not written: tensor `{tensor}`: {reason}", file.display())]
    Unsavable {
        /// The file that was to be written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What does not fit.
        reason: String,
    },
    /// A LoRA adapter that is incomplete, or of a kind that is not supported.
    #[error("{}: {reason}; give a folder of plain LoRA that PEFT saved for this model", file.display())]
    Adapter {
        /// The file.
        file: PathBuf,
        /// The setting or tensor, what was found, and what is expected.
        reason: String,
    },
    /// The values of a tensor to be saved could not be computed or read.
    ///
    /// A function that supplies the values makes it by [`Error::values`], and
    /// [`save_safetensors`](crate::save_safetensors) adds the name of the tensor.
    #[error("the values of tensor `{tensor}`, which was to be saved, are not available")]
    Values {
        /// The tensor; empty before [`save_safetensors`](crate::save_safetensors) adds it.
        tensor: String,
        /// Why the values are not available.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was to be opened is no regular file, too large, or a pointer to a file.
    #[error(transparent)]
    Core(lumina_core::Error),
}

impl From<lumina_core::Error> for Error {
    fn from(error: lumina_core::Error) -> Self {
        match error {
            lumina_core::Error::Read { file, source } => Self::Read { file, source },
            other => Self::Core(other),
        }
    }
}

impl Error {
    /// The error of a function that supplies values to [`save_safetensors`](crate::save_safetensors).
    pub fn values(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Values { tensor: String::new(), source: source.into() }
    }

    /// Adds the name of the tensor to [`Error::Values`].
    pub(crate) fn of_tensor(self, name: &str) -> Self {
        match self {
            Self::Values { tensor, source } if tensor.is_empty() => Self::Values { tensor: name.to_owned(), source },
            other => other,
        }
    }
}
