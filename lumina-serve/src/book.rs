//! The programs of the pages on the server and on threads, and of the README, compiled and run with the documentation's
//! tests.
//!
//! Only there: the published crate does not have these files.
#![cfg(doctest)]

#[doc = include_str!("../README.md")]
mod readme {}
#[doc = include_str!("../../docs/src/server.md")]
mod server {}
#[doc = include_str!("../../docs/src/async.md")]
mod threads_and_async {}
