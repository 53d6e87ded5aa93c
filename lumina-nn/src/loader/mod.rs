//! From a checkpoint to the parameters of a network.
//!
//! A network asks the loader for each of its tensors by name and shape, in its constructor; so names and shapes are
//! written once. What is missing or misshaped is collected, and [`Loader::finish`] reports all of it together, with
//! what the network did not ask for.

mod collect;
mod parts;
#[cfg(feature = "burn")]
mod tensors;

pub use collect::{LoadProgress, Loader};
