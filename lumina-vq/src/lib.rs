//! The image tokenizer of Lumina-mGPT: encodes images to grids of codes and decodes codes to images, like the original.
//!
//! A VQGAN (arXiv 2012.09841) maps each square of 16×16 pixels to one of 8,192 codes, and codes to pixels. This crate
//! runs the VQGAN that Chameleon and Lumina-mGPT checkpoints were trained with, and prepares images for it. It does not
//! depend on text or on a transformer: a program that needs images as codes needs no other crate.
//!
//! - [`ImageTokenizer`] is the VQGAN opened from its files: [`encode`](ImageTokenizer::encode) and
//!   [`decode`](ImageTokenizer::decode), for single images and batches.
//! - [`preprocess::Preprocessor`] resizes and crops an [`InputImage`](preprocess::InputImage) to a size that the model
//!   was trained with, pixel for pixel like the original.
//! - [`Bands`] sets how many rows the decoder computes at a time.
//!
//! [`VqModel`] is the network itself, from feature maps to feature maps.
//!
//! ```
//! use lumina_vq::preprocess::{InputImage, Preprocessor};
//! use lumina_vq::{Bands, Compute, ImageTokenizer};
//!
//! let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference");
//! // `vqgan.yaml` and `vqgan.ckpt`; for the published models, Meta's folder `tokenizer`.
//! let tokenizer = ImageTokenizer::open(format!("{data}/vq"), &Compute::cpu())?;
//!
//! // 511×333 pixels. Of the sizes with about 128² pixels, 160×96 has the nearest aspect ratio.
//! let input = InputImage::open(format!("{data}/preprocess/images/rgb_shapes_511x333.png"))?;
//! let image = Preprocessor::new(128)?.prepare(&input)?;
//! assert_eq!(image.dimensions(), (160, 96));
//!
//! let codes = tokenizer.encode(&image)?;
//! assert_eq!((codes.rows(), codes.columns()), (6, 10));
//! let decoded = tokenizer.decode(&codes, Bands::Whole)?;
//! assert_eq!(decoded.dimensions(), (160, 96));
//!
//! // The same image, with temporaries of 32 rows.
//! let banded = tokenizer.decode(&codes, Bands::Rows(32))?;
//! assert!(decoded.iter().zip(banded.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
//! # Ok::<(), lumina_vq::Error>(())
//! ```
//!
//! # Features
//!
//! None is on by default: [`Compute::cpu`] needs none.
//!
//! | feature | |
//! | --- | --- |
//! | `wgpu` | GPUs through wgpu; `vulkan` and `metal` add the shader compilers of these systems |
//! | `cuda` | NVIDIA GPUs; the build downloads an LLVM |
//! | `burn` | Burn's tensors, for training, with its CPU backend; `flex` is the same |
//! | `ndarray` | Burn's backend of that name, for comparison |
//!
//! # Memory and speed
//!
//! The weights of convolutions are copied to the heap or to the device; the weight settings of [`Compute`] apply to
//! linear layers only. On a GPU the kernels of `lumina-cube` compute, with norms, swish and doubled pixels inside of
//! convolutions; with tensor cores they multiply as exactly as in `f32`, or, to decode faster, in `f16`
//! ([`ImageTokenizer::with_f16_decoding`]). Encoding and decoding are bound by arithmetic: their time grows with the
//! number of pixels. [`Bands::Whole`] keeps several activations at full resolution. [`Bands::Rows`] bounds the
//! temporaries of residual blocks and upsampling, and recomputes the rows at the edges of bands. There are no seams,
//! because group norms use the statistics of the whole image. `cargo bench -p lumina-vq` measures encoding, decoding
//! and the preparation of a photo.
//!
//! # Untrusted input
//!
//! Image files are checked against [`Limits`](preprocess::Limits), in pixels and in bytes, before memory is allocated.
//! `vqgan.yaml` is checked before the network is built. The pickle in `vqgan.ckpt` is read by an interpreter that
//! executes no code.
//! Codes outside the codebook, image sides that are not multiples of the factor, and latents with NaN are errors.
#![forbid(unsafe_code)]

mod config;
mod error;
mod layers;
mod memory;
mod model;
mod networks;
pub mod preprocess;
mod tokenizer;

pub use config::{VqConfig, VqHyperparameters};
pub use error::{Error, Result};
pub use lumina_nn::Compute;
pub use lumina_nn::ops::{Bands, Maps};
pub use model::VqModel;
pub use tokenizer::{ImageTokenizer, is_training_state};
