//! Operators on Burn's tensors, with gradients.

pub(super) mod attention;
mod conv;
mod cross_entropy;
mod gather;
mod head_norm;
pub(super) mod kernel;
mod linear;
pub(super) mod read;
mod rms_norm;
mod swiglu;

pub(super) use attention::causal_attention;
pub(super) use conv::{Conv, ScaledSwish, Upsample2x};
pub(super) use cross_entropy::CrossEntropy;
pub(super) use gather::Gather;
pub(super) use head_norm::head_norm_rotated;
pub(super) use linear::{DropoutAdd, linear};
pub(super) use rms_norm::rms_norm;
pub(super) use swiglu::swiglu;
