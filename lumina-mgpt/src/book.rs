//! The programs in the book and the READMEs, compiled and run with the documentation's tests.
//!
//! Only there: the published crate does not have these files.
#![cfg(all(doctest, feature = "burn"))]

#[doc = include_str!("../../README.md")]
mod readme {}
#[doc = include_str!("../README.md")]
mod readme_mgpt {}
#[doc = include_str!("../../lumina-core/README.md")]
mod readme_core {}
#[doc = include_str!("../../lumina-vq/README.md")]
mod readme_vq {}

#[doc = include_str!("../../docs/src/introduction.md")]
mod introduction {}
#[doc = include_str!("../../docs/src/first-image.md")]
mod first_image {}
#[doc = include_str!("../../docs/src/checkpoints.md")]
mod checkpoints {}
#[doc = include_str!("../../docs/src/hardware.md")]
mod hardware {}
#[doc = include_str!("../../docs/src/backends.md")]
mod backends {}
#[doc = include_str!("../../docs/src/gpu.md")]
mod gpu {}
#[doc = include_str!("../../docs/src/samplers.md")]
mod samplers {}
#[doc = include_str!("../../docs/src/streaming-and-batching.md")]
mod streaming_and_batching {}
#[doc = include_str!("../../docs/src/memory.md")]
mod memory {}
#[doc = include_str!("../../docs/src/untrusted-input.md")]
mod untrusted_input {}
#[doc = include_str!("../../docs/src/troubleshooting.md")]
mod troubleshooting {}
#[doc = include_str!("../../docs/src/faq.md")]
mod faq {}
#[doc = include_str!("../../docs/src/unirep.md")]
mod unirep {}
#[doc = include_str!("../../docs/src/parity.md")]
mod parity {}
