//! Operators on a GPU, by the kernels of `lumina-cube`.

mod attention;
mod rows;

pub use attention::{GpuKv, GpuKvPool, GpuPass, GpuRow, norm_attention};
pub(super) use rows::GpuRows;
