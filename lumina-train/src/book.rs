//! The programs in the book's pages on training, compiled and run with the documentation's tests.
//!
//! Only there: the published crate does not have these files.
#![cfg(doctest)]

#[doc = include_str!("../../docs/src/lora.md")]
mod lora {}
#[doc = include_str!("../../docs/src/training.md")]
mod training {}
