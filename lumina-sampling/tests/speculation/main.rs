//! Several tokens a pass give the tokens of plain decoding.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

mod equality;
mod model;
mod properties;
