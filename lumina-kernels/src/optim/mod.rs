//! Optimizer updates.

pub mod adamw;
pub mod muon;
