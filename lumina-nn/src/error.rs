//! The errors of this crate: what, where, and what to do.

use std::path::PathBuf;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-nn`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint's tensors are not those of the model.
    #[error("{}: {n_problems} tensors do not fit the model; is this the checkpoint of another size or kind?{list}", file.display())]
    Weights {
        /// The folder or file.
        file: PathBuf,
        /// How many tensors are at fault.
        n_problems: usize,
        /// One line for each, up to twenty.
        list: String,
    },
    /// The compute target cannot do what was asked.
    #[error("{reason}")]
    Compute {
        /// What, and what to choose instead.
        reason: String,
    },
    /// A checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
}

/// For functions that hand tensors to [`save_safetensors`](lumina_checkpoint::save_safetensors).
impl From<Error> for lumina_checkpoint::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Checkpoint(error) => error,
            other => Self::Values { source: Box::new(other) },
        }
    }
}
