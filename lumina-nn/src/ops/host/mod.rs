//! Operators on slices in host memory, by the kernels of `lumina-kernels`.

pub(crate) mod buffer;
mod matrix;
mod rows;

pub use matrix::HostMatrix;
pub(super) use rows::HostRows;
