//! FP-SFT and Omni-SFT: training of the transformer, or of a LoRA adapter on it.

mod adamw;
mod carried;
mod export;
pub(crate) mod folder;
mod lora;
mod loss;
mod merge;
mod options;
mod recipe;
mod run;
mod schedule;
mod start;
mod trainable;
mod trainer;

pub use adamw::{AdamW, AdamWOptions, clip_factor, global_norm, scale};
pub use export::{convert, save_parameters};
pub use lora::LoraOptions;
pub use loss::{Activations, Example, Loss, LossOptions, gradients, loss};
pub use merge::merge;
pub use options::FineTuneOptions;
pub use recipe::{ImageRows, Recipe, Stage};
pub use run::{Ended, RunEvent, run};
pub use schedule::Schedule;
pub use start::NewModel;
pub use trainable::{Trainable, recording};
pub use trainer::{Position, StepReport, Trainer};
