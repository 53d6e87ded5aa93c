//! Which instructions the processor has, vectors in its registers, and functions compiled for each kind.

pub(crate) mod exp;
pub(crate) mod isa;
pub(crate) mod vector;
