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
    /// The state of an optimizer that does not fit the model.
    #[error("{file}: `{tensor}` is missing or not of the model's shape; is this the state of another model?", file = file.display())]
    OptimizerState {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A step whose loss or gradients are not finite. The weights are those before the step.
    #[error(
        "step {step}: the loss is {loss} and the norm of the gradients {grad_norm}; lower the learning rate, or look at the items of the batch: {items:?}"
    )]
    NotFinite {
        /// The step, from 1 on.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The norm of its gradients.
        grad_norm: f64,
        /// The items of the data set that it was made of, where they come from one.
        items: Vec<usize>,
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
    /// A value of the training of the image tokenizer is not finite. The weights are those before the step.
    #[error(
        "step {step}: the {what} is not finite; lower the learning rate, or resume from a checkpoint with other settings"
    )]
    NotFiniteValue {
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
    /// A vocabulary, an image size or a grid of codes.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
    /// Loading parameters, or computing with them.
    #[error(transparent)]
    Nn(#[from] lumina_nn::Error),
    /// The transformer.
    #[error(transparent)]
    Model(#[from] lumina_mgpt::Error),
    /// The image tokenizer.
    #[error(transparent)]
    Images(#[from] lumina_vq::Error),
    /// The text tokenizer and the stream.
    #[error(transparent)]
    Tokenizer(#[from] lumina_tokenizer::Error),
    /// A file of the training data is not of its format.
    #[error("{file}: {reason}", file = file.display())]
    Data {
        /// The file.
        file: PathBuf,
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// Another process writes the same shard.
    #[error("{file}: another process is writing this; give each rank to one process", file = file.display())]
    Busy {
        /// The shard.
        file: PathBuf,
    },
    /// A shard was begun with other settings.
    #[error(
        "{file}: this shard was begun with {found}, not with {wanted}; go on with the same settings, or take another folder",
        file = file.display()
    )]
    OtherRun {
        /// The file with the settings.
        file: PathBuf,
        /// How it was begun.
        found: String,
        /// How it was to be continued.
        wanted: String,
    },
    /// Shards are missing.
    #[error("{folder}: of {splits} splits, {missing:?} are missing; pre-tokenise these ranks first", folder = folder.display())]
    MissingRanks {
        /// The folder.
        folder: PathBuf,
        /// How many splits there are.
        splits: u64,
        /// The ranks that are not there.
        missing: Vec<u64>,
    },
    /// A text tokenizer could not be trained.
    #[error("the text tokenizer cannot be trained")]
    TrainTokenizer {
        /// What the `tokenizers` crate said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
