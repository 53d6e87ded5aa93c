//! Operators on a GPU, by the kernels of `lumina-cube`.

mod attention;
mod rows;
mod step;

pub use attention::{GpuKv, GpuKvPool, GpuRow, norm_attention};
pub use lumina_cube::draw::Draw as GpuDraw;
pub(super) use rows::GpuRows;
pub use step::{GpuInputs, GpuPass, GpuPassValues, GpuResult, GpuTokens, Recordings};
