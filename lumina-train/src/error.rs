//! The errors of this crate: what, where, and what to do.

use std::path::PathBuf;

use lumina_checkpoint::Dtype;

use crate::collective::RankProblem;

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
    /// A file could not be written. What was there before is untouched.
    #[error("{file}: cannot be written", file = file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the training data is not of its format.
    #[error("{file}: {reason}", file = file.display())]
    Data {
        /// The file.
        file: PathBuf,
        /// What is wrong, where, and what to do.
        reason: String,
    },

    /// An option is out of its range.
    #[error("`{field}` is {value}, expected {expected}")]
    OutOfRange {
        /// The option.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values that are allowed.
        expected: String,
    },
    /// Weights that are shared out, and activations that would hold all of them.
    #[error(
        "`sharding` is full and `activation_memory` keep, whose activations hold the weights of all layers; set \
         `activation_memory` to recompute"
    )]
    KeptActivations,
    /// The whole network was asked for where no device has it.
    #[error(
        "the weights are shared out among {ranks} devices, and none has the network; export it, which all devices do \
         together, and open that"
    )]
    WeightsSharedOut {
        /// The number of devices.
        ranks: usize,
    },
    /// A run without a device.
    #[error("`devices` are none, expected at least one")]
    NoDevices,
    /// A step of no passes, or of more than the options say.
    #[error("a step of {found} passes, expected 1 to {max}: `accumulation` for each device")]
    PassCount {
        /// The passes given.
        found: usize,
        /// The most that a step has.
        max: usize,
    },
    /// Weights were to be saved in a type that is not supported for it.
    #[error("weights cannot be saved as {dtype}; choose f32, bf16 or f16")]
    WeightType {
        /// The type.
        dtype: Dtype,
    },
    /// [`average`](crate::checkpoint::average) was given no models.
    #[error("no models were given to average, expected at least one")]
    NoModels,
    /// Weights of different models were to be averaged.
    #[error(
        "{model}: `{tensor}` is not in this model and in {other} alike; average checkpoints of one training",
        model = model.display(), other = other.display()
    )]
    DifferentModels {
        /// One of them.
        model: PathBuf,
        /// The last one.
        other: PathBuf,
        /// The tensor that is in one of them alone, or of another shape.
        tensor: String,
    },
    /// A LoRA adapter without layers.
    #[error("`targets` are none, expected at least one linear layer")]
    NoTargets,
    /// A LoRA target that the model lacks.
    #[error(
        "`targets` has `{target}`, which is no linear layer of this model; it has {layers}",
        layers = layers.join(", ")
    )]
    UnknownTarget {
        /// The target.
        target: String,
        /// The last parts of the paths of the model's linear layers.
        layers: Vec<String>,
    },
    /// A tensor of the model is two parameters of the network.
    #[error(
        "`{name}` is the embedding and the head in one (`tie_word_embeddings`), which training would take apart; give \
         the model a `lm_head.weight` and set `tie_word_embeddings` to false in its config.json, or train an adapter"
    )]
    SharedParameter {
        /// The tensor.
        name: String,
    },
    /// The adapter asks for dropout of its own.
    #[error("the adapter's config has a `lora_dropout` of {rate}, expected 0; set `dropout` of the run instead")]
    AdapterDropout {
        /// Its value in the config.
        rate: String,
    },
    /// The adapter does not name its model.
    #[error(
        "{file}: `base_model_name_or_path` is missing, expected the folder of the adapter's model",
        file = file.display()
    )]
    NoBaseModel {
        /// The adapter's config.
        file: PathBuf,
    },

    /// There is no checkpoint of a run in a folder.
    #[error(
        "{folder}: holds no checkpoint of a run, neither `trainer.json` nor folders such as `step-0000001000`",
        folder = folder.display()
    )]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of a run has a checkpoint of a later step.
    #[error(
        "{checkpoint}: is of a run that is beyond step {step}; resume it, or remove it",
        checkpoint = checkpoint.display()
    )]
    LaterCheckpoint {
        /// The later checkpoint.
        checkpoint: PathBuf,
        /// Steps of the trainer.
        step: u64,
    },
    /// A run was to be resumed with other options.
    #[error(
        "{checkpoint}: saved with `{field}` {saved}, resumed with {given}; use the same options, or begin a new run",
        checkpoint = checkpoint.display()
    )]
    DifferentOptions {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The first option that differs, such as `schedule.learning_rate`; `model`, `lora` and `data` are what the run
        /// began with.
        field: String,
        /// Its value in the checkpoint, as JSON or as a fingerprint.
        saved: String,
        /// Its value now.
        given: String,
    },
    /// A run was to be resumed on another number of devices.
    #[error(
        "{checkpoint}: saved with {saved} devices, resumed with {given}; the number of devices is part of the batch, so \
         change `accumulation` with it",
        checkpoint = checkpoint.display()
    )]
    DifferentDevices {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Devices of the saved run.
        saved: usize,
        /// Devices now.
        given: usize,
    },
    /// A checkpoint of another version of this crate.
    #[error("{file}: has format {found}, this version reads {expected}", file = file.display())]
    StateFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The format that can be read.
        expected: u32,
    },
    /// A tensor of the trainer's state is missing or of another size.
    #[error(
        "{file}: `{tensor}` is missing or not of the model's shape; is this the state of another model?",
        file = file.display()
    )]
    TrainerState {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A sequence without a label for each token.
    #[error("a sequence of {tokens} tokens has {labels} labels, expected as many")]
    LabelCount {
        /// Its tokens.
        tokens: usize,
        /// Its labels.
        labels: usize,
    },
    /// A label that is not a token.
    #[error("labels hold {label} at position {position}; the vocabulary has {vocab_size} tokens")]
    UnknownLabel {
        /// The label.
        label: i64,
        /// Its position in the sequence.
        position: usize,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// A batch without anything to predict.
    #[error("the labels of the batch predict nothing; are its sequences cut off before their answers?")]
    NothingToPredict,
    /// A step whose loss or gradients are not finite. The weights are those before the step.
    #[error(
        "step {step}: the loss is {loss} and the norm of the gradients {gradient_norm}; lower the learning rate, or \
         look at the items of the batch: {items:?}"
    )]
    NotFinite {
        /// The step, from 1 on.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The norm of its gradients.
        gradient_norm: f64,
        /// The items of the data set that it was made of, where they come from one.
        items: Vec<usize>,
    },
    /// A value of the training of the image tokenizer is not finite. The weights are those before the step.
    #[error("step {step}: the {what} is not finite; lower the learning rate, or begin a new run from a checkpoint")]
    NotFiniteValue {
        /// The step, counted from 0.
        step: u64,
        /// Which value.
        what: &'static str,
    },

    /// No images were given.
    #[error("no images were given, expected at least one")]
    NoImages,
    /// No code of a codebook is left.
    #[error("no code occurs in {at_least} of {n_images} images; lower `at_least`, or give more images")]
    NoCodes {
        /// How many images were given.
        n_images: usize,
        /// In how many a code is to occur.
        at_least: u32,
    },
    /// The images of a batch do not fit together or to the network.
    #[error("step {step}: the batch cannot be trained on: {problem}")]
    ImageBatch {
        /// The step, counted from 0.
        step: u64,
        /// What does not fit.
        problem: ImageBatchProblem,
    },

    /// There is no item or record of an index.
    #[error("item {index} was asked for, there are {len}")]
    NoItem {
        /// The index.
        index: usize,
        /// Number of items.
        len: usize,
    },
    /// There are fewer items than a step takes.
    #[error("a step takes {needed} items of one kind, and no kind has more than {most}; lower `batch_size`")]
    TooFewItems {
        /// Items of a step.
        needed: usize,
        /// Items of the largest kind.
        most: usize,
    },
    /// Another process writes the same shard.
    #[error("{file}: another process is writing this; give each rank to one process", file = file.display())]
    Busy {
        /// The shard.
        file: PathBuf,
    },
    /// Another run writes the same folder.
    #[error(
        "{folder}: another run is writing this folder; wait until it has ended, or choose another folder",
        folder = folder.display()
    )]
    FolderBusy {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard was begun with other settings.
    #[error(
        "{file}: this shard was begun with {found}, not with {wanted}; use the same settings, or another folder",
        file = file.display()
    )]
    OtherRun {
        /// The file with the settings.
        file: PathBuf,
        /// The settings it was begun with.
        found: String,
        /// The settings given.
        wanted: String,
    },
    /// Shards are missing.
    #[error(
        "{folder}: of {splits} splits, {missing:?} are missing; pre-tokenise these ranks first",
        folder = folder.display()
    )]
    MissingRanks {
        /// The folder.
        folder: PathBuf,
        /// How many splits there are.
        splits: u64,
        /// The ranks that are missing.
        missing: Vec<u64>,
    },
    /// Shards are there and not complete.
    #[error(
        "{folder}: not all records are done, by (rank, records done, records of the rank): {unfinished:?}; run these \
         ranks again, which continues them",
        folder = folder.display()
    )]
    UnfinishedRanks {
        /// The folder.
        folder: PathBuf,
        /// The first of the ranks that are not done, each with the records that it has done, and how many it has.
        unfinished: Vec<(u64, u64, u64)>,
    },
    /// A text tokenizer could not be trained.
    #[error("the text tokenizer cannot be trained")]
    TrainTokenizer {
        /// What the `tokenizers` crate said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The report of a step cannot be written as JSON.
    #[error("the report of a step has no JSON form")]
    Report {
        /// Why.
        source: serde_json::Error,
    },

    /// A rank takes no further part: see [`collective`](crate::collective).
    #[error("rank {rank} {problem}")]
    Rank {
        /// The rank.
        rank: usize,
        /// Why.
        problem: RankProblem,
    },
    /// MPI could not be started.
    #[error("MPI cannot be started; make one `Mpi` in a process, and begin nothing of MPI before")]
    MpiStart,
    /// NCCL is missing, did not begin, or moved nothing.
    #[error("NCCL: {reason}; NCCL_DEBUG=INFO in the environment has it say more")]
    Nccl {
        /// What was tried, and what it answered.
        reason: String,
    },
    /// The thread of a device panicked.
    #[error("the thread of device {device} panicked")]
    DeviceThread {
        /// The place of the device in the list.
        device: usize,
    },
    /// The backward pass left no gradient where one is needed.
    #[error("the {of} has no gradient")]
    MissingGradient {
        /// Of what.
        of: &'static str,
    },
    /// A vocabulary, an image size or a grid of codes.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
    /// Parameters could not be loaded, or the compute device failed.
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
}

/// Why the image tokenizer cannot be trained on a batch.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageBatchProblem {
    /// It has no image.
    #[error("it is empty")]
    Empty,
    /// The network cannot take images of this size.
    #[error("{width}x{height} pixels; both sides must be multiples of {multiple}")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What both must be multiples of.
        multiple: u32,
    },
    /// It has images of two sizes.
    #[error("images of {}x{} and of {}x{} pixels", first.0, first.1, other.0, other.1)]
    MixedSizes {
        /// Width and height of the first image, in pixels.
        first: (u32, u32),
        /// Width and height of another one.
        other: (u32, u32),
    },
    /// The discriminator's convolutions leave nothing of images of this size.
    #[error("{width}x{height} pixels are too few for the discriminator's layers")]
    TooSmallForDiscriminator {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}
