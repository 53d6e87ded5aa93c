//! FP-SFT and Omni-SFT: training of the transformer, or of a LoRA adapter on it.
//!
//! Each of these is made of the next: [`Recipe`] runs stages with data of their own; [`FineTune`] is one run, begun or
//! resumed; [`Trainer::run`] is its loop over a data set; [`Trainer::step`] is one step, forward, backward, clip,
//! update; [`gradients`] is the forward and backward pass.

mod devices;
mod epochs;
mod lora;
mod loss;
mod merge;
mod network;
mod new_model;
mod open;
mod options;
mod rank;
mod recipe;
mod report;
mod run;
mod start;
mod step;
mod trainable;
mod trainer;
mod weights;

pub use devices::Devices;
pub use lora::LoraOptions;
pub use loss::{ActivationMemory, Example, Loss, LossOptions, gradients, loss};
pub use merge::merge;
pub use new_model::NewModel;
pub use options::FineTuneOptions;
pub use recipe::{Recipe, Stage};
pub use report::{Position, StepReport};
pub use run::{FineTune, ImageRows};
pub use trainable::{Trainable, recording};
pub use trainer::Trainer;

pub use crate::shards::Sharding;
