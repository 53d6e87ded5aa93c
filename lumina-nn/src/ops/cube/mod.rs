//! Operators on a GPU, by the kernels of `lumina-cube`.

mod attention;
mod rows;
mod step;

pub use attention::{GpuKv, GpuKvPool, GpuRow, norm_attention};
pub(super) use rows::GpuRows;
pub use step::{GpuInputs, GpuPass, Recordings};
