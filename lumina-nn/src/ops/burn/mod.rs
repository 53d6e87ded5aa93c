//! Operators on Burn's tensors, with gradients.

mod adamw;
mod attention;
mod codebook;
mod conv;
mod cross_entropy;
mod dropout_add;
mod gather;
mod group_moments;
mod head_norm;
mod hidden;
mod kernel;
mod kv;
mod linear;
mod maps;
mod module;
mod muon;
mod read;
mod rms_norm;
mod row_writer;
mod swiglu;

pub use adamw::{AdamWStep, Moments, adamw, square_sum};
pub(super) use attention::{cached_attention, causal_attention};
pub use conv::{Conv3x3, conv3x3, scaled_swish, upsample2x};
pub use cross_entropy::cross_entropy;
pub use dropout_add::dropout_add;
pub use gather::gather;
pub(super) use gather::select;
pub use group_moments::group_moments;
pub(super) use head_norm::head_norm_rotated;
pub(super) use hidden::{first_device, host_rows};
pub use kv::TensorKv;
pub(super) use linear::{add_bias, linear};
pub(crate) use maps::TensorConv;
pub(super) use maps::{
    can_be_precise, cast, dtype_of, grids, group_norm, lookup, maps, maps_attention, maps_on, nearest, norm_swish,
    patches,
};
pub use muon::{MuonStep, muon};
pub use read::read;
pub(super) use rms_norm::rms_norm;
use row_writer::RowWriter;
pub(super) use swiglu::swiglu;

/// Why values can be read from a GPU to make a tensor of them.
#[cfg(feature = "cube")]
const GPU_WORKS: &str = "weights on a GPU make no tensors; only a program that mixes both gets here, and its GPU works";
