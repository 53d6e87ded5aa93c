//! The programs in the book's page on the server and in the README, compiled and run with the documentation's tests.
//!
//! Only there: the published crate does not have these files.
#![cfg(all(doctest, feature = "flex"))]

#[doc = include_str!("../README.md")]
mod readme {}
#[doc = include_str!("../../docs/src/server.md")]
mod server {}
