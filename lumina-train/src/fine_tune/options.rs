//! The options of a run.

use super::{ActivationMemory, Sharding};
use crate::optim::{AdamWOptions, EpochSchedule, MuonOptions};
use crate::{Error, Result};

/// How a transformer is fine-tuned. The default is the original's.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct FineTuneOptions {
    /// Learning rate and length of the run.
    pub schedule: EpochSchedule,
    /// The numbers of AdamW.
    pub adamw: AdamWOptions,
    /// Where given, Muon updates the weights of linear layers, and AdamW the rest. A transformer that is trained from
    /// nothing learns more from the same tokens; for published weights the original has none. Default none.
    pub muon: Option<MuonOptions>,
    /// Gradients of a greater norm, all together, are scaled down to it. Default 4.
    #[serde(alias = "clip_norm")]
    pub max_gradient_norm: f64,
    /// Factor on the mean squared log-sum-exp of the logits. Default 1e-5.
    pub z_loss_weight: f64,
    /// Probability that a value which attention or MLP adds is dropped, 0 to below 1. Default 0.05.
    pub dropout: f64,
    /// Fraction of the sequences that are shown without their questions: what guidance calls the unconditional model
    /// learns from them. The paper drops the context of a tenth (arXiv 2408.02657 §2.3; 2207.12598). Default 0.1.
    pub context_dropout: f64,
    /// Sequences in a pass on one device. Default 4.
    pub batch_size: usize,
    /// Passes on each device whose gradients make one step. Default 1. A run that is resumed on another number of
    /// devices needs another value, so that the product of both stays the same.
    #[serde(alias = "accumulate")]
    pub accumulation: usize,
    /// Sequences are cut to this many tokens. Default 4,096.
    pub max_tokens: usize,
    /// Whether the activations of the forward pass are kept for the backward pass.
    #[serde(alias = "activations")]
    pub activation_memory: ActivationMemory,
    /// What the devices share out among them. It may be another one when a run is resumed. `Full` needs
    /// [`ActivationMemory::Recompute`].
    pub sharding: Sharding,
    /// Steps between checkpoints. One is also saved when the run is stopped, and at its end. Default 1,000.
    #[serde(alias = "save_every")]
    pub checkpoint_every: u64,
    /// Checkpoints kept. Default 2.
    #[serde(alias = "keep")]
    pub keep_checkpoints: usize,
    /// The order of the data and dropout follow from it.
    pub seed: u64,
}

impl Default for FineTuneOptions {
    fn default() -> Self {
        Self {
            schedule: EpochSchedule::default(),
            adamw: AdamWOptions::default(),
            muon: None,
            max_gradient_norm: 4.0,
            z_loss_weight: 1e-5,
            dropout: 0.05,
            context_dropout: 0.1,
            batch_size: 4,
            accumulation: 1,
            max_tokens: 4096,
            activation_memory: ActivationMemory::Keep,
            sharding: Sharding::Optimizer,
            checkpoint_every: 1000,
            keep_checkpoints: 2,
            seed: 0,
        }
    }
}

impl FineTuneOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with field, value and range; [`Error::KeptActivations`] where weights are to be shared out
    /// and activations kept.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("batch_size", self.batch_size as u64),
            ("accumulation", self.accumulation as u64),
            ("max_tokens", self.max_tokens as u64),
            ("checkpoint_every", self.checkpoint_every),
            ("keep_checkpoints", self.keep_checkpoints as u64),
            ("schedule.epochs", self.schedule.epochs),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::OutOfRange { field, value: "0".to_owned(), expected: "at least 1".to_owned() });
            }
        }
        let numbers = [
            ("schedule.learning_rate", self.schedule.learning_rate, f64::MAX),
            ("schedule.min_learning_rate", self.schedule.min_learning_rate, f64::MAX),
            ("schedule.warmup_epochs", self.schedule.warmup_epochs, f64::MAX),
            ("max_gradient_norm", self.max_gradient_norm, f64::MAX),
            ("z_loss_weight", self.z_loss_weight, f64::MAX),
            ("dropout", self.dropout, 0.99),
            ("context_dropout", self.context_dropout, 1.0),
            ("adamw.beta_1", self.adamw.beta_1, 0.999_999),
            ("adamw.beta_2", self.adamw.beta_2, 0.999_999),
            ("adamw.epsilon", self.adamw.epsilon, f64::MAX),
            ("adamw.weight_decay", self.adamw.weight_decay, f64::MAX),
            ("muon.momentum", self.muon.unwrap_or_default().momentum, 0.999_999),
        ];
        for (field, value, most) in numbers {
            if !(0.0..=most).contains(&value) {
                let expected = format!("0 to {most:e}");
                return Err(Error::OutOfRange { field, value: value.to_string(), expected });
            }
        }
        if self.sharding == Sharding::Full && self.activation_memory == ActivationMemory::Keep {
            return Err(Error::KeptActivations);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_saved_under_earlier_names_are_read() {
        let saved = r#"{"clip_norm": 1.5, "accumulate": 3, "activations": "recompute", "save_every": 7, "keep": 5}"#;
        let expected = FineTuneOptions {
            max_gradient_norm: 1.5,
            accumulation: 3,
            activation_memory: ActivationMemory::Recompute,
            checkpoint_every: 7,
            keep_checkpoints: 5,
            ..FineTuneOptions::default()
        };
        assert_eq!(serde_json::from_str::<FineTuneOptions>(saved).unwrap(), expected);
    }
}
