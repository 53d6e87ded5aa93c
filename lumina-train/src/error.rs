//! What can go wrong.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in training, with what is at fault and what to do.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{file}: cannot be read", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written; what was there before is untouched.
    #[error("{file}: cannot be written", file = file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A setting is out of range or does not fit the others.
    #[error("`{field}` {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// The device failed.
    #[error("the compute device failed: {reason}")]
    Compute {
        /// What it said.
        reason: String,
    },
    /// The saved state of a training run is broken, or of another run.
    #[error("{file}: {reason}; resume from another checkpoint", file = file.display())]
    TrainingState {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A loss is not finite. The step was not taken, and nothing was written.
    #[error(
        "step {step}: the {what} is not finite; lower the learning rate, or resume from a checkpoint with other settings"
    )]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// Which value.
        what: &'static str,
    },
    /// The pictures of a batch do not fit together or to the network.
    #[error("step {step}: the batch cannot be trained on: {reason}")]
    Pictures {
        /// The step, counted from 0.
        step: u64,
        /// What does not fit.
        reason: String,
    },
    /// A checkpoint, or a part that the crates share.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// The transformer.
    #[error(transparent)]
    Model(#[from] lumina_mgpt::Error),
    /// The image tokenizer.
    #[error(transparent)]
    Images(#[from] lumina_vq::Error),
    /// The text tokenizer and the stream.
    #[error(transparent)]
    Tokenizer(#[from] lumina_tokenizer::Error),
}
