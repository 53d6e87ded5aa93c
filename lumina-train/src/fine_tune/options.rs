//! What a user chooses of a run.

use super::{Activations, AdamWOptions, Schedule};
use crate::{Error, Result};

/// How a transformer is fine-tuned; the default is the original's.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct FineTuneOptions {
    /// Learning rate and length of the run.
    pub schedule: Schedule,
    /// How the optimizer moves.
    pub adamw: AdamWOptions,
    /// Gradients of a greater norm, all together, are scaled down to it.
    pub clip_norm: f64,
    /// What the mean squared log-sum-exp is multiplied by.
    pub z_loss_weight: f64,
    /// Share of what attention and MLP add that is dropped, 0 to below 1.
    pub dropout: f64,
    /// Share of the sequences that are shown without their questions: what guidance calls the unconditional model
    /// learns from them. The paper drops the context of a tenth (arXiv 2408.02657 §2.3; 2207.12598).
    pub context_dropout: f64,
    /// Sequences in a pass on one device.
    pub batch_size: usize,
    /// Passes on each device whose gradients make one step.
    pub accumulate: usize,
    /// Sequences are cut to this many tokens.
    pub max_tokens: usize,
    /// What the backward pass needs of the forward pass.
    pub activations: Activations,
    /// A checkpoint is saved after this many steps, when the run is stopped, and at its end.
    pub save_every: u64,
    /// How many checkpoints stay.
    pub keep: usize,
    /// Order of the data and dropout follow from it.
    pub seed: u64,
}

impl Default for FineTuneOptions {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            adamw: AdamWOptions::default(),
            clip_norm: 4.0,
            z_loss_weight: 1e-5,
            dropout: 0.05,
            context_dropout: 0.1,
            batch_size: 4,
            accumulate: 1,
            max_tokens: 4096,
            activations: Activations::Keep,
            save_every: 1000,
            keep: 2,
            seed: 0,
        }
    }
}

impl FineTuneOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] with field, value and range.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate as u64),
            ("max_tokens", self.max_tokens as u64),
            ("save_every", self.save_every),
            ("keep", self.keep as u64),
            ("schedule.epochs", self.schedule.epochs),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::Setting { field, reason: "is 0, expected at least 1".to_owned() });
            }
        }
        let numbers = [
            ("schedule.lr", self.schedule.lr, f64::MAX),
            ("schedule.min_lr", self.schedule.min_lr, f64::MAX),
            ("schedule.warmup_epochs", self.schedule.warmup_epochs, f64::MAX),
            ("clip_norm", self.clip_norm, f64::MAX),
            ("z_loss_weight", self.z_loss_weight, f64::MAX),
            ("dropout", self.dropout, 0.99),
            ("context_dropout", self.context_dropout, 1.0),
            ("adamw.beta_1", self.adamw.beta_1, 0.999_999),
            ("adamw.beta_2", self.adamw.beta_2, 0.999_999),
            ("adamw.epsilon", self.adamw.epsilon, f64::MAX),
            ("adamw.weight_decay", self.adamw.weight_decay, f64::MAX),
        ];
        for (field, value, most) in numbers {
            if !(0.0..=most).contains(&value) {
                return Err(Error::Setting { field, reason: format!("is {value}, expected 0 to {most:e}") });
            }
        }
        Ok(())
    }
}
