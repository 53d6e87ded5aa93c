//! Steps of optimizers.

pub mod adamw;
