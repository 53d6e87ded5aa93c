//! The optimizer: AdamW, clipping by the global norm, learning rates.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWOptions, clip_factor, global_norm, scale};
pub use schedule::Schedule;
