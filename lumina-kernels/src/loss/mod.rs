//! Losses with their gradients.

pub mod cross_entropy;
