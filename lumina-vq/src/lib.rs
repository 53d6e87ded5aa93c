//! The image tokenizer of Lumina-mGPT: pictures to grids of codes and back, as the original does it.
//!
//! A VQGAN (arXiv 2012.09841) turns each square of 16×16 pixels into one of 8,192 codes, and codes into pixels. This
//! crate runs the one that Chameleon and Lumina-mGPT checkpoints were trained with, and prepares pictures for it. It
//! knows nothing of text or of a transformer: a program that wants images as codes needs no other crate.
//!
//! - [`ImageTokenizer`] is the VQGAN opened from its files: [`encode`](ImageTokenizer::encode) and
//!   [`decode`](ImageTokenizer::decode), alone or in batches.
//! - [`preprocess::Preprocessor`] brings a [`Picture`](preprocess::Picture) from a file to a size that the model
//!   knows, pixel for pixel like the original.
//! - [`Bands`] says how many rows are computed at a time.
//!
//! [`VqModel`] is the network itself, tensors to tensors, for those who train one.
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use lumina_vq::preprocess::{Picture, Preprocessor};
//! use lumina_vq::{Bands, Compute, ImageTokenizer};
//!
//! let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference");
//! // `vqgan.yaml` and `vqgan.ckpt`: with the published models, Meta's folder `tokenizer`.
//! let tokenizer = ImageTokenizer::open(format!("{data}/vq"), &Compute::cpu())?;
//!
//! // 511×333 pixels; of the sizes of about 128² pixels, this one leaves the most of it.
//! let picture = Picture::open(format!("{data}/preprocess/images/rgb_shapes_511x333.png"))?;
//! let image = Preprocessor::new(128)?.prepare(&picture)?;
//! assert_eq!(image.dimensions(), (160, 96));
//!
//! let codes = tokenizer.encode(&image)?;
//! assert_eq!((codes.rows(), codes.columns()), (6, 10));
//! let restored = tokenizer.decode(&codes, Bands::Whole)?;
//! assert_eq!(restored.dimensions(), (160, 96));
//!
//! // The same picture, with the temporaries of 32 rows at a time.
//! let banded = tokenizer.decode(&codes, Bands::Rows(32))?;
//! assert!(restored.iter().zip(banded.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
//! # }
//! # Ok::<(), lumina_vq::Error>(())
//! ```
//!
//! # Features
//!
//! Each is the backend of that name, and forwards to `lumina-core`.
//!
//! | feature | where it computes |
//! | --- | --- |
//! | `flex` (default) | the processor, in Rust alone |
//! | `ndarray` | the processor through `ndarray`, to compare with |
//! | `wgpu` | GPUs through wgpu; `vulkan` and `metal` add the compilers of these systems |
//! | `cuda` | GPUs of NVIDIA; its build downloads an LLVM |
//!
//! # Memory and speed
//!
//! The weights of convolutions are copied to the device, whatever [`Compute`] says of linear layers. Encoding and
//! decoding are bound by arithmetic: their time grows with the number of pixels. Decoding whole holds several
//! activations at full resolution; [`Bands::Rows`] bounds the temporaries of the residual and upsampling layers and
//! costs the rows that neighbouring bands share. There are no seams, because group norms take their statistics over
//! the whole image either way. `cargo bench -p lumina-vq` measures both ends and the preparation of a photograph.
//!
//! # Untrusted input
//!
//! Pictures are checked against [`Limits`](preprocess::Limits) before their pixels are allocated, `vqgan.yaml` is
//! checked before the network is built from it, and the pickle in `vqgan.ckpt` is read by an interpreter that runs
//! nothing. Codes beyond the codebook, sides that do not fit and latents that are no numbers are errors.
#![forbid(unsafe_code)]

mod config;
mod error;
mod layers;
mod model;
mod networks;
pub mod preprocess;
mod tokenizer;

pub use config::{VqConfig, VqShape};
pub use error::{Error, Result};
pub use layers::Bands;
pub use lumina_nn::Compute;
pub use model::VqModel;
pub use tokenizer::ImageTokenizer;
