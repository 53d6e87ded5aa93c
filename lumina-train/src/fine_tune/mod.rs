//! FP-SFT and Omni-SFT: training of the transformer, or of a LoRA adapter on it.

mod lora;
mod loss;
mod merge;
mod new_model;
mod options;
mod recipe;
mod run;
mod trainable;
mod trainer;

pub use crate::checkpoint::{convert, save_parameters};
pub use crate::optim::{AdamW, AdamWOptions, Schedule, clip_factor, global_norm, scale};
pub use lora::LoraOptions;
pub(crate) use lora::with_base;
pub use loss::{Activations, Example, Loss, LossOptions, gradients, loss};
pub use merge::merge;
pub use new_model::NewModel;
pub use options::FineTuneOptions;
pub use recipe::{ImageRows, Recipe, Stage};
pub use run::{Ended, RunEvent, run};
pub use trainable::{Trainable, recording};
pub use trainer::{Position, StepReport, Trainer};
