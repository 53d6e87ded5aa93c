#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod book;
pub mod checkpoint;
pub mod collective;
pub mod data;
mod error;
pub mod fine_tune;
pub mod metrics;
pub mod optim;
mod run;
mod shards;
pub mod vq;

pub use error::{Error, ImageBatchProblem, Result};
pub use run::{Ended, ObserverResult, RunEvent};
