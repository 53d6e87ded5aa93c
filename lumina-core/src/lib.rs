//! What the Lumina-mGPT crates share: checkpoints, vocabulary, image geometry, and where a model computes.
//!
//! A program that runs a model depends on `lumina-mgpt` and meets these types there. This crate alone is for those who
//! read checkpoints or build a network of their own beside the others.
//!
//! - [`checkpoint::Checkpoint`]: the tensors of a safetensors folder, a torch file or a GGUF file, by name, read where
//!   they lie. [`checkpoint::gguf::quantise`] writes narrower ones.
//! - `Compute`: device, type of activations, and where the weights of linear layers live.
//! - `Loader`: from a checkpoint to the parameters of a network, with every missing or misshaped tensor reported
//!   at once.
//! - [`Adapter`]: a LoRA adapter in PEFT's layout, which a `Loader` puts on a network.
//!
//! Beside them: [`Vocabulary`], which finds by name which token plays which role, and [`ImageSize`], [`CodeGrid`] and
//! [`crop_sizes`], the sizes that an image can have as tokens.
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use lumina_core::checkpoint::Checkpoint;
//! use lumina_core::ops::{Hidden, Linear, swiglu};
//! use lumina_core::{Compute, Loader};
//!
//! // A network asks for its tensors by name and shape, once, in its constructor.
//! struct Projections { gate: Linear, up: Linear }
//!
//! impl Projections {
//!     fn new(loader: &Loader<'_>) -> Self {
//!         let linear = |name| loader.pp(name).linear(64, 160, false);
//!         Self { gate: linear("gate_proj"), up: linear("up_proj") }
//!     }
//! }
//!
//! // Two shards with their index. Opening reads headers; the weights stay in the files.
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/model/prenorm");
//! let checkpoint = Checkpoint::open(folder)?;
//! let compute = Compute::cpu();
//!
//! let loader = Loader::new(&checkpoint, &compute);
//! let network = Projections::new(&loader.pp("model.layers.0.mlp"));
//! // The rest of the model is of no interest here; without saying so, it would be an error.
//! let mine = ["model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"];
//! loader.finish(|name| !mine.contains(&name))?;
//!
//! let x = Hidden::new(&compute, 3, 64, |values| values.fill(1.0));
//! assert_eq!(swiglu(network.gate.forward(&x), network.up.forward(&x)).dims(), [3, 160]);
//! # }
//! # Ok::<(), lumina_core::Error>(())
//! ```
//!
//! # Features
//!
//! | feature | what it brings |
//! | --- | --- |
//! | none | [`Vocabulary`] and the geometry; no Burn. `lumina-tokenizer` and `lumina-sampling` use it so |
//! | `checkpoint` | the module [`checkpoint`] and [`Adapter`]; no Burn either |
//! | `tensor` | `Compute`, `Loader`, `ops`, on Burn; every feature below implies it |
//! | `flex` (default) | the processor, in Rust alone |
//! | `ndarray` | the processor through `ndarray`, to compare with |
//! | `wgpu` | GPUs through wgpu; `vulkan` and `metal` add the compilers of these systems |
//! | `cuda` | GPUs of NVIDIA; its build downloads an LLVM |
//!
//! # Memory and speed
//!
//! With `Compute::cpu()`, weights of linear layers and embeddings are read from the file's mapping by the kernels of
//! `lumina-kernels`, in the type of the file: opening copies none of them, and what they take is page cache. With
//! `Weights::Q8` and `Q4` linear weights are narrowed to the heap while opening. All other tensors, and with
//! `Weights::Tensor` these too, are copied to the device one at a time. Unless weights are in tensors, a row's result
//! does not depend on how many rows are computed with it, which is what makes a batch equal to its requests. An app
//! on Linux that calls `keep_freed_memory` once gets prompts and pictures sooner.
//!
//! # Untrusted input
//!
//! A checkpoint may come from anywhere: sizes, offsets and names are checked before anything is allocated for them, and
//! a torch pickle is never executed. Only a file that is cut short while it is mapped can end the process; the module
//! [`checkpoint`] says what to do about that.
#![deny(unsafe_code)]

#[cfg(feature = "checkpoint")]
mod adapter;
mod error;
mod geometry;
mod vocabulary;

#[cfg(feature = "checkpoint")]
pub mod checkpoint;
#[cfg(feature = "tensor")]
mod compute;
#[cfg(feature = "tensor")]
mod loader;
#[cfg(feature = "tensor")]
pub mod ops;

#[cfg(feature = "checkpoint")]
pub use adapter::Adapter;
pub use error::{Error, Result};
pub use geometry::{
    CELL_PX, CodeGrid, ImageSize, LATENT_PX, MAX_TARGET_PX, choose_size, crop_size_list, crop_sizes, rank_sizes,
};
pub use vocabulary::Vocabulary;
#[cfg(feature = "tensor")]
pub use {
    compute::{Compute, Weights},
    loader::{LoadProgress, Loader},
    ops::keep_freed_memory,
};
