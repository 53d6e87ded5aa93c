//! The learning rate: a warm-up, then a cosine.

/// Learning rate by fractional epoch: linear up to `lr` in `warmup_epochs`, then a cosine down to `min_lr` at `epochs`.
///
/// Mirrors `adjust_learning_rate_epoch` of the original.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// The highest learning rate.
    pub lr: f64,
    /// The learning rate at the end.
    pub min_lr: f64,
    /// Length of the warm-up, in epochs.
    pub warmup_epochs: f64,
    /// Length of the run, in epochs.
    pub epochs: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { lr: 2e-5, min_lr: 0.0, warmup_epochs: 0.01, epochs: 2 }
    }
}

impl Schedule {
    /// The learning rate at `epoch`.
    ///
    /// ```
    /// let schedule = lumina_train::optim::Schedule { lr: 1.0, min_lr: 0.0, warmup_epochs: 0.5, epochs: 1 };
    /// assert_eq!([0.0, 0.25, 0.5, 1.0].map(|epoch| schedule.lr_at(epoch)), [0.0, 0.5, 1.0, 0.0]);
    /// ```
    pub fn lr_at(&self, epoch: f64) -> f64 {
        if epoch < self.warmup_epochs {
            return self.lr * epoch / self.warmup_epochs;
        }
        let rest = self.epochs as f64 - self.warmup_epochs;
        let done = if rest > 0.0 { ((epoch - self.warmup_epochs) / rest).min(1.0) } else { 1.0 };
        self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}
