//! Lumina-mGPT in Rust: text to image, captioning, labelling, editing and chat with one transformer.
//!
//! Lumina-mGPT (arXiv 2408.02657) reads and writes one stream of tokens in which text and images are mixed. This
//! crate opens its published checkpoints, and Chameleon's, and generates with them as the original code does.
//!
//! - [`Lumina`] is an opened checkpoint: transformer, tokenizers, and where they compute. A clone is a handle to the
//!   same.
//! - [`Generation`] is what its methods return: a request bound to the model, to be configured and then
//!   [`run`](Generation::run) or [`stream`](Generation::stream)ed. The result of `run` depends on the task: an
//!   [`RgbImage`](image::RgbImage), a [`String`], or an [`Output`] with everything.
//! - [`Request`] is the same as a value: to be stored, sent, replayed, or run in a [batch](Lumina::run_batch).
//! - [`Handle`] is an engine on a thread of its own, for many callers: what a server is built on.
//! - [`Engine`] runs many requests at once, which join and leave between passes: the loop inside, for programs that
//!   drive it themselves.
//!
//! ```
//! use lumina_mgpt::{Compute, Conversation, Event, Lumina};
//!
//! # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference");
//! # let (folder, image_tokenizer) = (format!("{data}/model/prenorm"), format!("{data}/vq"));
//! let model = Lumina::from_pretrained(folder)     // a Hugging Face folder
//!     .image_tokenizer(image_tokenizer)           // the folder of `vqgan.yaml` and `vqgan.ckpt`
//!     .compute(Compute::cpu())
//!     .target_size_px(96)                         // 512, 768 or 1024, as the checkpoint's name says
//!     .load()?;
//!
//! let image = model.text_to_image("a red circle", (64, 96)).seed(7).run()?;
//! assert_eq!(image.dimensions(), (64, 96));
//!
//! let answer = model.ask("What is in it?", image).greedy().max_new_tokens(20).run()?;
//! println!("{answer}");
//!
//! // Text and images as the model chooses, streamed.
//! let conversation = Conversation::new().human("Draw a cat and say so");
//! for event in model.chat(conversation).seed(1).max_new_tokens(60).stream()? {
//!     match event? {
//!         Event::Text(piece) => print!("{piece}"),
//!         Event::ImageStarted { size } => println!("[an image of {size}]"),
//!         Event::Image { image, codes } => println!("[{} codes, {:?}]", codes.codes().len(), image.dimensions()),
//!         Event::Done { stats, .. } => println!("\n{:?} after {} tokens", stats.stop, stats.generated_tokens),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), lumina_mgpt::Error>(())
//! ```
//!
//! The same request, seed, model and [`Compute`] give the same tokens, streamed or not. On the processor they are the
//! same in a batch too. Other backends may round a matmul of more rows differently, which shows where two candidates
//! are almost equal.
//!
//! # Features
//!
//! None is on by default. [`Compute::cpu`] is always there: the processor, in Rust alone, with memory-mapped weights.
//! Those in this table add other places, and forward to `lumina-nn` and `lumina-vq`.
//!
//! | feature | where it computes |
//! | --- | --- |
//! | `wgpu` | GPUs through wgpu; `vulkan` and `metal` add the compilers of these systems |
//! | `cuda` | GPUs of NVIDIA; its build downloads an LLVM |
//! | `burn` | Burn's tensors, which training needs: `Compute::flex`, `Compute::in_tensors`; `flex` is the same |
//! | `ndarray` | Burn's tensors by its backend of that name, to compare with |
//!
//! Three features are no places. With `hub`, [`Lumina::from_pretrained`] and the builder's other paths also take
//! names on the Hugging Face hub, `owner/name` or `owner/name@revision`. With `tracing`, opening, requests, passes,
//! images and failures are events of the `tracing` crate, target `lumina_mgpt`; they contain no texts and no images.
//! With `async`, [`Events`] is a stream of `futures`.
//!
//! Several can be on at once. [`LuminaBuilder::compute`] sets where a model computes; the default is the first of
//! [`Compute::available`], which is the processor.
//!
//! # Memory and speed
//!
//! With [`Compute::cpu`](Compute) the weights of linear layers are page cache, not heap. A request takes its KV cache,
//! in blocks of 128 tokens as it grows: [`Architecture::cache_bytes_per_token`] times the tokens of prompt and answer,
//! and with guidance the tokens of the image again. [`EngineOptions::kv_budget_bytes`] bounds it for all requests.
//! Activations use up to 128 MB that are kept with the model: once begun, decoding allocates nothing but these blocks.
//!
//! A token costs a pass over the weights. Guidance adds a row to the pass, not a pass; so do the requests of a batch.
//! Tokens that the grammar forces (row-ends, sizes, the image's end) have no pass of their own. [`Stats`] has what a
//! request took. `cargo bench -p lumina-mgpt` measures a pass.
//!
//! # Untrusted input
//!
//! Checkpoints, tokenizer files and images are checked as they are opened, and no pickle is executed. Names of special
//! tokens in a user's text stay plain text. Whatever the options, the text and the tokens, the answer is an [`Error`]
//! or a result, never a panic; an image that was cut off is returned with its complete rows.
#![forbid(unsafe_code)]

mod book;
pub mod convert;
mod document;
mod engine;
mod error;
mod model;
mod pipeline;
mod preset;
mod serving;
mod stop_reason;
mod trace;
mod words;

pub use engine::{
    AdaptSampler, Cancel, Clock, DecodeResult, DecodeWork, Engine, EngineOptions, Event, GenerateOptions, ImageDecoder,
    Prompt, Request, RequestId, Stats, Submission,
};
pub use error::{Error, Result};
pub use image;
pub use lumina_checkpoint::Dtype;
pub use lumina_core::{CodeGrid, ImageSize, Limits, crop_sizes};
#[cfg(feature = "hub")]
pub use lumina_hub::{DownloadProgress, Hub};
pub use lumina_nn::{Compute, LoadProgress, Residence, Weights, keep_freed_memory};
pub use lumina_sampling::{Candidates, DrawRule, Modality, Sampler, SamplingOptions, Speculation, Step, StreamState};
pub use lumina_tokenizer::{Content, Conversation, Malformed, Part, Task, TaskInput};
pub use lumina_vq::preprocess::InputImage;
pub use lumina_vq::{Bands, ImageTokenizer};
pub use model::{Architecture, Fit, KvCache, Logits, ModelConfig, RopeScalingConfig, Row, StageFit, Transformer};
#[cfg(feature = "burn")]
pub use model::{Dropout, Pass};
pub use pipeline::{Answer, BatchStream, Generation, Lumina, LuminaBuilder, Output, Stream, SystemClock, WarmUp};
pub use preset::Preset;
pub use serving::{Events, Handle, HandleOptions, Metrics, NotYet};
pub use stop_reason::StopReason;
pub use words::Words;
