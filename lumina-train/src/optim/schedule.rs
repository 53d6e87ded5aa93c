//! Learning rates: a warm-up, then a cosine.

/// Learning rate by fractional epoch: linear up to `learning_rate` in `warmup_epochs`, then a cosine down to
/// `min_learning_rate` at `epochs`.
///
/// Mirrors `adjust_learning_rate_epoch` of the original.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct EpochSchedule {
    /// The highest learning rate. Default 2e-5.
    #[serde(alias = "lr")]
    pub learning_rate: f64,
    /// The learning rate at the end. Default 0.
    #[serde(alias = "min_lr")]
    pub min_learning_rate: f64,
    /// Length of the warm-up, in epochs. Default 0.01.
    pub warmup_epochs: f64,
    /// Length of the run, in epochs. Default 2.
    pub epochs: u64,
}

impl Default for EpochSchedule {
    fn default() -> Self {
        Self { learning_rate: 2e-5, min_learning_rate: 0.0, warmup_epochs: 0.01, epochs: 2 }
    }
}

impl EpochSchedule {
    /// Whether the learning rates of steps that are done stay the same if `epochs` grows: it is constant after the
    /// warm-up.
    pub(crate) fn may_grow(&self) -> bool {
        self.learning_rate.to_bits() == self.min_learning_rate.to_bits()
    }

    /// The learning rate at `epoch`.
    ///
    /// ```
    /// use lumina_train::optim::EpochSchedule;
    /// let schedule = EpochSchedule { learning_rate: 1.0, min_learning_rate: 0.0, warmup_epochs: 0.5, epochs: 1 };
    /// assert_eq!([0.0, 0.25, 0.5, 1.0].map(|epoch| schedule.learning_rate_at(epoch)), [0.0, 0.5, 1.0, 0.0]);
    /// ```
    pub fn learning_rate_at(&self, epoch: f64) -> f64 {
        if epoch < self.warmup_epochs {
            return self.learning_rate * epoch / self.warmup_epochs;
        }
        let rest = self.epochs as f64 - self.warmup_epochs;
        let done = if rest > 0.0 { ((epoch - self.warmup_epochs) / rest).min(1.0) } else { 1.0 };
        self.min_learning_rate + (self.learning_rate - self.min_learning_rate) * half_cosine(done)
    }
}

/// Learning rate by step, as a fraction of the highest.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepSchedule {
    /// The same at every step.
    Constant,
    /// Linear from 0 over the first steps, then half a cosine down to `floor`.
    Cosine {
        /// Steps of the linear part.
        warmup_steps: u64,
        /// The fraction at the last step.
        floor: f64,
    },
}

impl StepSchedule {
    /// The fraction at `step` of `steps`, both counted from 0.
    ///
    /// ```
    /// use lumina_train::optim::StepSchedule;
    /// let schedule = StepSchedule::Cosine { warmup_steps: 2, floor: 0.0 };
    /// assert_eq!([0, 1, 2, 6].map(|step| schedule.factor_at(step, 6)), [0.5, 1.0, 1.0, 0.0]);
    /// ```
    pub fn factor_at(self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { warmup_steps, .. } if step < warmup_steps => (step + 1) as f64 / warmup_steps as f64,
            Self::Cosine { warmup_steps, floor } => {
                let falling = steps.saturating_sub(warmup_steps).max(1) as f64;
                let done = ((step - warmup_steps) as f64 / falling).min(1.0);
                floor + (1.0 - floor) * half_cosine(done)
            }
        }
    }
}

/// From 1 down to 0, for `done` from 0 to 1.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_rises_to_one_and_falls_to_the_floor() {
        let schedule = StepSchedule::Cosine { warmup_steps: 4, floor: 0.1 };
        assert_eq!([0, 1, 3, 4].map(|step| schedule.factor_at(step, 24)), [0.25, 0.5, 1.0, 1.0]);
        assert!((schedule.factor_at(14, 24) - 0.55).abs() < 1e-12);
        assert!((schedule.factor_at(24, 24) - 0.1).abs() < 1e-12);
        assert!((schedule.factor_at(1000, 24) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn schedules_saved_under_earlier_names_are_read() {
        let saved = r#"{"lr": 0.5, "min_lr": 0.25, "warmup_epochs": 0.1, "epochs": 3}"#;
        let expected = EpochSchedule { learning_rate: 0.5, min_learning_rate: 0.25, warmup_epochs: 0.1, epochs: 3 };
        assert_eq!(serde_json::from_str::<EpochSchedule>(saved).unwrap(), expected);
    }
}
