//! Element-wise operators with their gradients.
//!
//! Memory bandwidth bounds them: each reads its inputs and writes its results once, and fuses what would be several
//! passes.

pub mod dropout_add;
pub mod scaled_swish;
pub mod swiglu;
