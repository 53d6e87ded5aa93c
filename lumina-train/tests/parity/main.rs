//! Losses, gradients, optimizer steps and schedules against the original: `training/` of the reference data.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]

mod schedule;
mod starting_point;
mod steps;
