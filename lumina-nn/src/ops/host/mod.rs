//! Operators on slices in host memory, by the kernels of `lumina-kernels`.

pub(crate) mod buffer;
mod codebook;
mod maps;
mod matrix;
mod real;
mod rows;

pub(crate) use codebook::HostCodebook;
pub(crate) use maps::HostConv;
pub(super) use maps::{HostMaps, HostNorm};
pub use matrix::HostMatrix;
pub(super) use rows::HostRows;
