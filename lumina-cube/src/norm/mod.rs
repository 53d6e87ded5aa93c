//! Norms.

pub(crate) mod rms_norm;

pub use rms_norm::{add_rms_norm, rms_norm};
