//! Reading and writing checkpoints: what is read, what is refused, and that nothing panics.
#![cfg(feature = "checkpoint")]

mod build;
mod corruption;
mod hostile;
mod reading;
mod reference;
mod writing;
