//! Downloads from a hub on loopback: what arrives, what is refused, and what a cache is worth.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

mod cached;
mod faults;
mod hostile;
mod killed;
mod support;
mod whole;
