//! Norms over channels, heads and groups.

pub mod group_moments;
pub mod head_norm;
pub mod rms_norm;
