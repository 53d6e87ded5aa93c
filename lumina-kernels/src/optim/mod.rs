//! Optimizer updates.

pub mod adamw;
