//! Settings of a training run.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the codebook follows the latents.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codebook {
    /// By the gradient of the codebook loss, as taming does.
    Gradient,
    /// As running means of the latents that chose each code (arXiv 1711.00937, appendix A.1); the codebook loss then
    /// has no gradient.
    Ema {
        /// What a step keeps of the means, between 0 and 1; 0.99 is usual.
        decay: f64,
    },
    /// Not at all: codebook and encoder stay what they are, and so do the codes of all pictures. The decoder alone learns.
    Fixed,
}

/// What the codebook is when training starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookStart {
    /// What the file says.
    File,
    /// Latents of the first batches, each a code of its own: nearly all codes are used from the start. It replaces what
    /// the file says, so it is for new networks.
    Latents,
}

/// The learning rate over the steps, as a share of [`VqTrainingOptions::learning_rate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same at every step.
    Constant,
    /// Linear from 0 over the first steps, then half a cosine down to `floor`.
    Cosine {
        /// Steps of the linear part.
        warmup_steps: u64,
        /// The share left at the last step.
        floor: f64,
    },
}

impl Schedule {
    /// The share at `step` of `steps`, both counted from 0.
    pub fn share(self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { warmup_steps, .. } if step < warmup_steps => (step + 1) as f64 / warmup_steps as f64,
            Self::Cosine { warmup_steps, floor } => {
                let falling = steps.saturating_sub(warmup_steps).max(1) as f64;
                let progress = ((step - warmup_steps) as f64 / falling).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// The patch discriminator and when it joins (`disc_*` in taming).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscriminatorOptions {
    /// The first step, counted from 0, at which it trains and judges. Default 10,000.
    pub start: u64,
    /// Factor on its part of the loss, besides the adaptive one. Default 0.8.
    pub weight: f64,
    /// Convolutions of stride 2, 1 to 6; each doubles what one judgement sees. Default 3.
    pub layers: usize,
    /// Channels of the first convolution. Default 64.
    pub channels: usize,
}

impl Default for DiscriminatorOptions {
    fn default() -> Self {
        Self { start: 10_000, weight: 0.8, layers: 3, channels: 64 }
    }
}

/// Settings of a training run; the default is what taming trains with, for a batch of 8 and without its perceptual loss.
///
/// ```
/// use lumina_train::vq::{Codebook, VqTrainingOptions};
/// let options = VqTrainingOptions::default().steps(500).learning_rate(1e-3).codebook(Codebook::Ema { decay: 0.99 });
/// assert_eq!(options.betas, (0.5, 0.9));
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqTrainingOptions {
    /// Steps of the whole run. Default 100,000.
    pub steps: u64,
    /// What all random choices depend on, each also on its step.
    pub seed: u64,
    /// The highest learning rate. Default 3.6e-5: 4.5e-6 a picture of the batch.
    pub learning_rate: f64,
    /// Its course. Default: constant.
    pub schedule: Schedule,
    /// Adam's decays of the means of gradients and of their squares. Default (0.5, 0.9).
    pub betas: (f64, f64),
    /// Factor on the mean absolute error of pixels in −1 ..= 1. Default 1.
    pub l1_weight: f64,
    /// Factor on their mean squared error. Default 0.
    pub l2_weight: f64,
    /// How the codebook follows the latents. Default: by gradient.
    pub codebook: Codebook,
    /// Factor on codebook loss and commitment loss together. Default 1.
    pub codebook_weight: f64,
    /// Factor on the commitment loss alone, `beta`. Default 0.25.
    pub commitment_weight: f64,
    /// What the codebook is at the start. Default: what the file says.
    pub codebook_start: CodebookStart,
    /// The first step, counted from 0, at which latents are quantized; until then encoder and decoder learn to agree
    /// without a codebook, which makes its first entries worth something. Default 0, as in taming.
    pub quantize_from: u64,
    /// After how many steps without use a code is replaced by a latent of the batch. Default: never.
    pub revive_after: Option<u64>,
    /// Steps that the reported use of the codebook looks back. Default 100.
    pub usage_window: u64,
    /// The discriminator. Default: none.
    pub discriminator: Option<DiscriminatorOptions>,
    /// Steps between checkpoints, at least 1. Default 1,000.
    pub checkpoint_every: u64,
    /// Checkpoints kept, at least 1. Default 2.
    pub keep_checkpoints: usize,
}

impl Default for VqTrainingOptions {
    fn default() -> Self {
        Self {
            steps: 100_000,
            seed: 0,
            learning_rate: 3.6e-5,
            schedule: Schedule::Constant,
            betas: (0.5, 0.9),
            l1_weight: 1.0,
            l2_weight: 0.0,
            codebook: Codebook::Gradient,
            codebook_weight: 1.0,
            commitment_weight: 0.25,
            codebook_start: CodebookStart::File,
            quantize_from: 0,
            revive_after: None,
            usage_window: 100,
            discriminator: None,
            checkpoint_every: 1_000,
            keep_checkpoints: 2,
        }
    }
}

macro_rules! setters {
    ($($field:ident: $kind:ty),* $(,)?) => {
        impl VqTrainingOptions {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(self, $field: $kind) -> Self {
                    Self { $field, ..self }
                }
            )*
        }
    };
}

setters! {
    steps: u64,
    seed: u64,
    learning_rate: f64,
    schedule: Schedule,
    betas: (f64, f64),
    l1_weight: f64,
    l2_weight: f64,
    codebook: Codebook,
    codebook_weight: f64,
    commitment_weight: f64,
    codebook_start: CodebookStart,
    quantize_from: u64,
    revive_after: Option<u64>,
    usage_window: u64,
    discriminator: Option<DiscriminatorOptions>,
    checkpoint_every: u64,
    keep_checkpoints: usize,
}

impl VqTrainingOptions {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that is out of range.
    pub fn check(&self) -> Result<()> {
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let share = |value: f64| (0.0..1.0).contains(&value);
        let decay = match self.codebook {
            Codebook::Gradient | Codebook::Fixed => 0.0,
            Codebook::Ema { decay } => decay,
        };
        let (warmup, floor) = match self.schedule {
            Schedule::Constant => (0, 0.0),
            Schedule::Cosine { warmup_steps, floor } => (warmup_steps, floor),
        };
        let none = DiscriminatorOptions::default();
        let judge = self.discriminator.as_ref().unwrap_or(&none);
        let checks = [
            (self.learning_rate.is_finite() && self.learning_rate > 0.0, "learning_rate", "must be above 0"),
            (share(self.betas.0) && share(self.betas.1), "betas", "must be at least 0 and below 1"),
            (not_negative(self.l1_weight), "l1_weight", "must not be negative"),
            (not_negative(self.l2_weight), "l2_weight", "must not be negative"),
            (self.l1_weight + self.l2_weight > 0.0, "l1_weight", "and `l2_weight` must not both be 0"),
            (not_negative(self.codebook_weight), "codebook_weight", "must not be negative"),
            (not_negative(self.commitment_weight), "commitment_weight", "must not be negative"),
            (share(decay), "codebook", "has a decay that is not at least 0 and below 1"),
            (warmup <= self.steps, "schedule", "has more steps of warm-up than the run has steps"),
            ((0.0..=1.0).contains(&floor), "schedule", "has a floor that is not between 0 and 1"),
            (self.revive_after != Some(0), "revive_after", "must be at least 1"),
            (self.usage_window > 0, "usage_window", "must be at least 1"),
            (self.checkpoint_every > 0, "checkpoint_every", "must be at least 1"),
            (self.keep_checkpoints > 0, "keep_checkpoints", "must be at least 1"),
            (not_negative(judge.weight), "discriminator", "has a weight that is negative or no number"),
            ((1..=6).contains(&judge.layers), "discriminator", "must have 1 to 6 layers"),
            ((1..=1024).contains(&judge.channels), "discriminator", "must have 1 to 1024 channels"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, reason)) => Err(Error::Setting { field, reason: reason.to_owned() }),
            None => Ok(()),
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate_at(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.share(step, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_rises_to_one_and_falls_to_the_floor() {
        let schedule = Schedule::Cosine { warmup_steps: 4, floor: 0.1 };
        assert_eq!([0, 1, 3, 4].map(|step| schedule.share(step, 24)), [0.25, 0.5, 1.0, 1.0]);
        assert!((schedule.share(14, 24) - 0.55).abs() < 1e-12);
        assert!((schedule.share(24, 24) - 0.1).abs() < 1e-12);
        assert!((schedule.share(1000, 24) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let base = VqTrainingOptions::default;
        let broken = [
            (base().learning_rate(f64::NAN), "learning_rate"),
            (base().betas((0.5, 1.0)), "betas"),
            (base().l1_weight(0.0), "l1_weight"),
            (base().codebook(Codebook::Ema { decay: 1.5 }), "codebook"),
            (base().steps(3).schedule(Schedule::Cosine { warmup_steps: 4, floor: 0.0 }), "schedule"),
            (base().revive_after(Some(0)), "revive_after"),
            (base().discriminator(Some(DiscriminatorOptions { layers: 0, ..Default::default() })), "discriminator"),
        ];
        for (options, field) in broken {
            let message = options.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}`")), "{message}");
        }
        assert!(base().check().is_ok());
    }

    #[test]
    fn options_survive_json_and_unknown_keys_do_not() {
        let options = VqTrainingOptions::default()
            .codebook(Codebook::Ema { decay: 0.99 })
            .schedule(Schedule::Cosine { warmup_steps: 10, floor: 0.0 })
            .discriminator(Some(DiscriminatorOptions::default()));
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<VqTrainingOptions>(&json).unwrap(), options);
        assert!(serde_json::from_str::<VqTrainingOptions>(r#"{"learning_rat": 1}"#).is_err());
    }
}
