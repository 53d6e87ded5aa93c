//! Operations element by element, with their gradients.

pub mod dropout_add;
pub mod scaled_swish;
pub mod swiglu;
