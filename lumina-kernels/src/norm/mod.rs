//! Norms over channels, heads and groups.
//!
//! Each kernel has `forward`, which allocates its result, `forward_into` where decoding reuses memory, and `backward`
//! with hand-written gradients. Rows go to threads in blocks of fixed size, so that sums over rows do not depend on
//! threads.

pub mod group_moments;
pub mod head_norm;
pub mod rms_norm;
