//! Operations element by element, with their gradients.

pub mod add;
pub mod swiglu;
pub mod swish;
