//! Training beyond the original's numbers: gradients, repeatability, checkpoints, errors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: a panic is the failure")]

mod checkpoints;
mod devices;
mod dropout;
mod finite_differences;
mod folders;
mod killed;
#[cfg(feature = "mpi")]
mod mpi;
mod ranks;
mod runs;
mod sharded;
mod small;
mod steps;
