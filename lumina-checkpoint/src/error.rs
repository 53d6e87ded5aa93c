//! The errors of this crate: what, where, and what to do.

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
    /// A folder holds none of the files that a checkpoint is made of.
    #[error("{}: holds no checkpoint; looked for {looked_for}", folder.display())]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// The file names looked for.
        looked_for: String,
    },
    /// A file is not of a kind that can be read.
    #[error("{}: {reason}; give a safetensors file, a folder of them, a GGUF file, or a file saved by torch", file.display())]
    NotACheckpoint {
        /// The file.
        file: PathBuf,
        /// What it is, as far as can be told.
        reason: String,
    },
    /// A file ends before its contents do.
    #[error("{}: cut short: {needed} bytes are needed, {found} are there; download it again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Its length by what it says of itself, at least, in bytes.
        needed: u64,
        /// Its length in bytes.
        found: u64,
    },
    /// A file contradicts itself or its format.
    #[error("{}: damaged: {reason}; download it again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where in the file.
        reason: String,
    },
    /// An index names a shard that is not there.
    #[error("{}: the shard `{shard}` is not in this folder; download it, or the whole folder again", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard as the index names it.
        shard: String,
    },
    /// An index says that a tensor is in a shard, and it is not.
    #[error("{}: says that tensor `{tensor}` is in `{shard}`, which does not hold it; index and shards are of different checkpoints", index.display())]
    MissingFromShard {
        /// The index file.
        index: PathBuf,
        /// The shard as the index names it.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// Two shards hold a tensor of one name.
    #[error("tensor `{tensor}` is both in {} and in {}; the shards are of different checkpoints", first.display(), second.display())]
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
    /// A pickle that torch would not have written, or one beyond the limits.
    #[error("{}: byte {position} of the pickle: {reason}; the file is damaged or not a checkpoint", file.display())]
    Pickle {
        /// The torch file.
        file: PathBuf,
        /// Offset in the pickle, in bytes.
        position: usize,
        /// What is wrong.
        reason: String,
    },
    /// A torch file with something else where the tensors should be.
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
    /// A setting of a GGUF file, or one that such a file needs, is missing or unusable.
    #[error("{}: `{key}`: {reason}; is this a model of the Chameleon architecture?", file.display())]
    Metadata {
        /// The GGUF file, or the `config.json`.
        file: PathBuf,
        /// The key.
        key: String,
        /// What was found, and what is expected.
        reason: String,
    },
    /// A tensor whose values the type asked for cannot hold.
    #[error("{}: tensor `{tensor}`: {reason}; choose another type for it, f32 holds all values", file.display())]
    Quantise {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value or shape, and the type.
        reason: String,
    },
    /// The caller stopped the writing of a file.
    #[error("{}: not written, as asked; what was there before is untouched", file.display())]
    Cancelled {
        /// The file that was to be written.
        file: PathBuf,
    },
    /// A tensor of an element type that is not usable here.
    #[error("{}: tensor `{tensor}` has type {found}, expected {expected}; is this a quantized checkpoint?", file.display())]
    TensorType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type as the file names it.
        found: String,
        /// The types that are usable.
        expected: &'static str,
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
    /// A LoRA adapter that is not whole, or of a kind that is not supported.
    #[error("{}: {reason}; give a folder of plain LoRA that PEFT saved for this model", file.display())]
    Adapter {
        /// The file.
        file: PathBuf,
        /// The setting or tensor, what was found, and what is expected.
        reason: String,
    },
    /// The values of a tensor that was to be saved could not be had.
    #[error("a tensor to be saved could not be read from where it is")]
    Values {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
