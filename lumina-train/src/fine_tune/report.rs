//! Where a run is, and what it reports of a step.

use std::fmt;

use crate::metrics::StepMetrics;

/// Where a run is. What it does next follows from this, the weights and the optimizer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Epochs done.
    pub epoch: u64,
    /// Steps done in this epoch.
    pub step_in_epoch: u64,
    /// Steps done in all.
    pub step: u64,
    /// Tokens seen in all, without what was cut off.
    pub tokens: u64,
}

impl Position {
    /// Epochs done, with the fraction of this one.
    pub(super) fn fractional_epoch(&self, steps_per_epoch: u64) -> f64 {
        self.epoch as f64 + self.step_in_epoch as f64 / steps_per_epoch.max(1) as f64
    }

    /// After a step on this many tokens.
    pub(super) fn after_step(self, tokens: u64) -> Self {
        Self { step_in_epoch: self.step_in_epoch + 1, step: self.step + 1, tokens: self.tokens + tokens, ..self }
    }

    /// The same place, in the next epoch if this one is done.
    pub(super) fn in_epoch_of(self, steps_per_epoch: u64) -> Self {
        if self.step_in_epoch < steps_per_epoch {
            return self;
        }
        Self { epoch: self.epoch + 1, step_in_epoch: 0, ..self }
    }
}

/// The report of a step. [`Display`](fmt::Display) is a line with its number and loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct StepReport {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Epochs done before it, with the fraction of this one.
    pub epoch: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// The loss that was minimised, mean over the passes.
    pub loss: f64,
    /// Mean cross entropy in nats.
    pub cross_entropy: f64,
    /// Mean squared log-sum-exp, before its weight.
    pub z_loss: f64,
    /// Norm of all gradients, before clipping.
    pub gradient_norm: f64,
    /// Tokens of the step, predicted or not.
    pub tokens: u64,
    /// Predicted tokens of the step.
    pub predicted: u64,
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: loss {:.4}", self.step, self.cross_entropy)
    }
}

impl StepMetrics for StepReport {
    fn step(&self) -> u64 {
        self.step
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("cross_entropy", self.cross_entropy),
            ("z_loss", self.z_loss),
            ("learning_rate", self.learning_rate),
            ("gradient_norm", self.gradient_norm),
        ]
    }

    fn work(&self) -> (u64, &'static str) {
        (self.tokens, "tokens")
    }
}
