//! Norms.

pub(crate) mod affine;
pub(crate) mod group_norm;
pub(crate) mod rms_norm;

pub use affine::affine;
pub use group_norm::{ScaleShift, group_norm, scaled};
pub use rms_norm::{add_rms_norm, rms_norm};
