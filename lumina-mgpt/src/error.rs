//! The errors of this crate: what, where, and what to do.

use std::path::PathBuf;

use lumina_core::{Cause, ImageSize, quoted, shown};

use crate::stop_reason::StopReason;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Calls what may panic, where one request must not end all others; `what` names it.
///
/// # Errors
/// [`Error::Panicked`].
pub(crate) fn catch<T>(what: &'static str, call: impl FnOnce() -> T) -> Result<T> {
    lumina_core::unwind::catch(call).map_err(|message| Error::Panicked { what, message })
}

/// What can go wrong in `lumina-mgpt`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: cannot be read; check that the path is right and the file is readable", shown(file))]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A model by its name on the hub, of which there is no folder, where nothing is downloaded.
    #[error(
        "{}: there is no such folder or file. Models are downloaded by their names with the Cargo feature `hub`; without \
         it get one by `huggingface-cli download {} --local-dir FOLDER`, and open FOLDER",
        quoted(name), name.replacen('@', " --revision ", 1)
    )]
    NotDownloaded {
        /// The name, `owner/name` or `owner/name@revision`.
        name: String,
    },
    /// A model on the hub could not be downloaded, or is not in the cache.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] lumina_hub::Error),
    /// A model without a text tokenizer, as most published ones are.
    #[error(
        "{}: has no `tokenizer.json`; give what has one to `LuminaBuilder::tokenizer`: that of all Lumina-mGPT models is \
         in `Alpha-VLLM/Lumina-mGPT-7B-768` on the hub",
        shown(model)
    )]
    NoTokenizer {
        /// The folder, the file or the name on the hub.
        model: PathBuf,
    },
    /// A config is broken or asks for what is not supported.
    #[error("{}: {}", shown(file), Cause::new(reason))]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that the model has no embedding for.
    #[error(
        "token {token} is beyond the model's vocabulary of {vocab_size}; do the tokenizer and the model belong \
         together?"
    )]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// More tokens than a cache was made for.
    #[error("a sequence of {needed} tokens does not fit the KV cache of {capacity}; make a larger one")]
    CacheFull {
        /// Tokens in all.
        needed: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// Devices with less memory than the model takes.
    #[error(
        "the model takes {} on {}, which {}; {remedy}", gigabytes(*needed), place(*devices), memory(*devices, *free, *total)
    )]
    DoesNotFit {
        /// Bytes of weights, and of what kernels take.
        needed: u64,
        /// Bytes that are free on the device, or on all devices together, where drivers say so.
        free: Option<u64>,
        /// Bytes that they have in all, where drivers say so.
        total: Option<u64>,
        /// Number of devices, each of which takes whole layers.
        devices: usize,
        /// What to do.
        remedy: String,
    },
    /// The system has no memory for keys and values.
    #[error(
        "the system has no memory for the keys and values of {tokens} tokens, {needed} bytes; shorten the prompt or the \
         answer, choose a smaller image or a narrower `Compute::kv_cache`, or bound all requests by \
         `EngineOptions::kv_budget_bytes`"
    )]
    KvMemory {
        /// Bytes of all of them.
        needed: u64,
        /// Tokens in all.
        tokens: usize,
    },
    /// Keys and values of a request are more than one request may have.
    #[error(
        "the request needs {needed} bytes of keys and values, more than the limit of {limit}; shorten the \
         prompt or the answer, choose a smaller image, a narrower `Compute::kv_cache`, or raise \
         `Limits::kv_cache_bytes`"
    )]
    KvLimit {
        /// Bytes that it needs.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A generation with nothing to continue.
    #[error("the prompt is empty; the human's last turn needs a text or an image")]
    EmptyPrompt,
    /// A prompt that leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens, and the model's context holds {context}; shorten it, or leave out turns \
         or images"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the model's context holds.
        context: usize,
    },
    /// An option that is out of range.
    #[error("`{field}` is {value}, expected {expected}")]
    Option {
        /// The option's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// Its range.
        expected: &'static str,
    },
    /// The request has or asks for images, and the model was opened without an image tokenizer.
    #[error(
        "this model was opened without an image tokenizer; give the folder of `vqgan.yaml` and `vqgan.ckpt` to \
         `LuminaBuilder::image_tokenizer`"
    )]
    NoImageTokenizer,
    /// Image tokenizer and text tokenizer disagree.
    #[error(
        "the image tokenizer has {codes} codes, the text tokenizer names {tokens} image tokens; do they belong \
         together?"
    )]
    Codebook {
        /// Entries of the codebook.
        codes: usize,
        /// Image tokens of the vocabulary.
        tokens: usize,
    },
    /// An image tokenizer whose codes the token stream cannot lay out.
    #[error(
        "a code of this image tokenizer stands for {found}x{found} pixels, the token stream needs {expected}x{expected}"
    )]
    Factor {
        /// Pixels a side.
        found: u32,
        /// Pixels a side that the stream's sizes are made of.
        expected: u32,
    },
    /// An image of the answer is cut off or malformed, and the caller wants whole ones.
    #[error(
        "{malformed}; {}, or take the whole `Output` with `Malformed::Partial` to get the rows that are there",
        remedy(malformed, *stop)
    )]
    Malformed {
        /// What is wrong with it.
        malformed: Box<lumina_tokenizer::MalformedImage>,
        /// Why the answer ended, if it had.
        stop: Option<StopReason>,
    },
    /// The answer is not what the task promises.
    #[error("the answer has no {expected}; it ended by {stop}, and its text is {}", quoted(found))]
    Answer {
        /// What was expected.
        expected: &'static str,
        /// The beginning of the answer's text, at most 400 characters, with control characters escaped.
        found: String,
        /// Why it ended.
        stop: StopReason,
    },
    /// An image of the size that images are resized to, which the model's vocabulary cannot state.
    #[error(
        "images are resized to {size} for a target size of {target_px} pixels, but the model's size tokens end at \
         {largest_px} pixels a side; open the model with the target size that it was trained with \
         (`LuminaBuilder::target_size_px`)"
    )]
    TargetSize {
        /// The size after resizing.
        size: ImageSize,
        /// The target size.
        target_px: u32,
        /// The longest side that has a size token, in pixels.
        largest_px: u32,
    },
    /// A request in JSON is malformed.
    #[error("the request cannot be read: {reason}")]
    Request {
        /// What is wrong, and where.
        reason: String,
    },
    /// `generation_config.json` is not JSON.
    #[error("{}: not a JSON file; correct it or remove it", shown(file))]
    GenerationConfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Cause,
    },
    /// A value in `generation_config.json` that cannot be used.
    #[error("{}: {key} is {}, expected {expected}; correct it or remove it", shown(file), quoted(value))]
    Preset {
        /// The file.
        file: PathBuf,
        /// The key, such as `image_sizes` in the section `lumina`, in words.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What it can be.
        expected: String,
    },
    /// A task that the model has not learnt, as its `generation_config.json` says.
    #[error("the model has not learnt the task `{task}`; it knows {known}")]
    UnknownTask {
        /// The task.
        task: &'static str,
        /// The tasks that it has learnt.
        known: String,
    },
    /// A size of images that the model has not learnt, as its `generation_config.json` says.
    #[error("the model has not learnt to draw images of {size} pixels; it knows {known}")]
    UnknownSize {
        /// The size.
        size: ImageSize,
        /// The sizes that it has learnt.
        known: String,
    },
    /// An image that does not fit the model's context.
    #[error(
        "an image of {size} pixels takes {tokens} tokens after {prompt} of the prompt, and the model has {context} in \
         all; ask for a smaller image or a shorter prompt"
    )]
    ImageBeyondContext {
        /// The size.
        size: ImageSize,
        /// Tokens of the image.
        tokens: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that a sequence of the model can have.
        context: usize,
    },
    /// Keys and values that another model, or the same on another device, keeps.
    #[error("a KV cache of another model or device; make it with `new_cache` of the model that runs")]
    ForeignCache,
    /// A pass with nothing to run.
    #[error("a pass needs at least one row, and each row at least one token")]
    EmptyRow,
    /// Drafts that branch where they cannot, or whose parents are no tree.
    #[error(
        "a row of {tokens} tokens with {parents} parents: each token but the first has one, before it in the row, and \
         keys and values are in host memory"
    )]
    Tree {
        /// Tokens of the row.
        tokens: usize,
        /// Parents that were given.
        parents: usize,
    },
    /// A layer that the network does not have.
    #[error("there is no layer {index}; the network has {layers}, counted from 0")]
    NoLayer {
        /// What was asked for.
        index: usize,
        /// How many there are.
        layers: usize,
    },
    /// Logits were asked of a position that the pass did not have.
    #[error("there is no position {position}: the pass had {tokens} tokens")]
    Position {
        /// Which, from 0.
        position: usize,
        /// How many there are.
        tokens: usize,
    },
    /// Keys and values of a request are more than the engine may hold.
    #[error(
        "the request needs {needed} bytes of keys and values, and the engine may hold {budget}; shorten the prompt or \
         the answer, choose a smaller image or a narrower `Compute::kv_cache`, or raise `EngineOptions::kv_budget_bytes`"
    )]
    KvBudget {
        /// Bytes that it needs at least.
        needed: u64,
        /// Bytes that the engine may hold.
        budget: u64,
    },
    /// A pass failed, and with it all requests that were in it.
    #[error(transparent)]
    Pass(std::sync::Arc<Error>),
    /// Code that the program gave panicked, or a backend of Burn did.
    #[error("{what} panicked: {message}")]
    Panicked {
        /// Which code.
        what: &'static str,
        /// The message of the panic, at most 200 characters of it.
        message: String,
    },
    /// The thread that decodes images has ended, as the system or a fault in the image tokenizer ended it.
    #[error("the thread that decodes images has ended before this image was decoded; ask for it again")]
    DecoderLost,
    /// An engine's thread could not be started.
    #[error(
        "the system starts no thread for the engine; lower the number of threads, or raise its limit (`ulimit -u`)"
    )]
    Thread {
        /// What the system reports.
        source: std::io::Error,
    },
    /// Too many requests wait for an engine.
    #[error("{}; try again later, or raise `HandleOptions::max_waiting`", who_waits(*limit))]
    QueueFull {
        /// [`HandleOptions::max_waiting`](crate::HandleOptions).
        limit: usize,
    },
    /// The engine's thread has ended, or takes no further requests.
    #[error("the engine has been shut down before this request was answered")]
    Stopped,
    /// A vocabulary, an image size or a grid of codes.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
    /// Loading parameters, or computing with them.
    #[error(transparent)]
    Nn(#[from] lumina_nn::Error),
    /// An error of the text and UniRep tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] lumina_tokenizer::Error),
    /// An error of the sampler.
    #[error(transparent)]
    Sampling(#[from] lumina_sampling::Error),
    /// An error of the image tokenizer.
    #[error(transparent)]
    Vq(#[from] lumina_vq::Error),
}

/// Where memory is.
fn place(devices: usize) -> String {
    if devices == 1 { "the device".to_owned() } else { format!("{devices} devices") }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// The memory of devices as far as it is known.
fn memory(devices: usize, free: Option<u64>, total: Option<u64>) -> String {
    let (has, each) = if devices == 1 { ("has", "") } else { ("have", " for whole layers") };
    match (free, total) {
        (Some(free), Some(total)) => format!("{has} {} free of {}{each}", gigabytes(free), gigabytes(total)),
        (Some(free), None) => format!("{has} {} free{each}", gigabytes(free)),
        (None, total) => format!("{has} {}{each}", gigabytes(total.unwrap_or(0))),
    }
}

/// Why an engine takes no further request.
fn who_waits(limit: usize) -> String {
    match limit {
        0 => "as many requests run as may, and none may wait".to_owned(),
        limit => format!("{limit} requests wait already"),
    }
}

/// What a caller does against an image that was cut off.
fn remedy(malformed: &lumina_tokenizer::MalformedImage, stop: Option<StopReason>) -> &'static str {
    match (malformed.found, stop) {
        (Some(_), _) | (None, None | Some(StopReason::TurnEnd)) => {
            "the model wrote it so: ask again with another `seed`"
        }
        (None, Some(StopReason::MaxNewTokens)) => "raise `max_new_tokens`",
        (None, Some(StopReason::MaxImages)) => "raise `max_images`",
        (None, Some(StopReason::ContextFull)) => {
            "the model's context is full: choose a smaller image, or shorten the prompt"
        }
        (None, Some(StopReason::Deadline)) => "the deadline has passed: raise `deadline_ms`",
        (None, Some(StopReason::Cancelled)) => "the request was cancelled: ask again",
        (None, Some(StopReason::Failed)) => "the request failed: see its error",
    }
}
