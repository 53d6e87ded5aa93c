//! The options of a run.

use serde::{Deserialize, Serialize};

use crate::optim::StepSchedule;
use crate::{Error, Result};

/// How the codebook is updated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookUpdate {
    /// By the gradient of the codebook loss, as taming does.
    Gradient,
    /// By exponential moving averages (EMA) of the latents that chose each code (arXiv 1711.00937, appendix A.1). The
    /// codebook loss then has no gradient.
    Ema {
        /// Decay factor of the averages, 0 to below 1; 0.99 is usual.
        decay: f64,
    },
    /// Not at all: codebook and encoder stay as they are, and so do the codes of all images. Only the decoder is
    /// trained.
    Fixed,
}

/// The codebook when training starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookStart {
    /// That of the file.
    File,
    /// Latents of the first batches, each a code of its own: nearly all codes are used from the start. For new
    /// networks, as it replaces the codebook of the file.
    Latents,
}

/// The patch discriminator and when it becomes active (`disc_*` in taming).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscriminatorOptions {
    /// The first step, counted from 0, at which it is active: trained, and part of the loss. Default 10,000.
    pub start: u64,
    /// Factor on the adversarial loss, in addition to the adaptive one. Default 0.8.
    pub weight: f64,
    /// Convolutions of stride 2, 1 to 6; each doubles the receptive field of a logit. Default 3.
    pub layers: usize,
    /// Channels of the first convolution. Default 64.
    pub channels: usize,
}

impl Default for DiscriminatorOptions {
    fn default() -> Self {
        Self { start: 10_000, weight: 0.8, layers: 3, channels: 64 }
    }
}

/// Options of a run. The default is that of taming for a batch of 8, without its perceptual loss.
///
/// ```
/// use lumina_train::vq::{CodebookUpdate, VqTrainingOptions};
/// let options =
///     VqTrainingOptions::default().steps(500).learning_rate(1e-3).codebook(CodebookUpdate::Ema { decay: 0.99 });
/// assert_eq!(options.betas, (0.5, 0.9));
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqTrainingOptions {
    /// Steps of the whole run. Default 100,000.
    pub steps: u64,
    /// All random choices follow from it and from their step.
    pub seed: u64,
    /// What the images are, by a name or a digest of the program's: a run that is resumed with another is refused. The
    /// images come from a function, so nothing else can tell. Default: not said.
    pub data: Option<String>,
    /// Passes of a step, each over images of its own: their gradients are averaged, as for a batch that is so many
    /// times as large. Ranks share them ([`VqTrainer::over`](super::VqTrainer::over)). Default 1.
    pub passes: usize,
    /// The highest learning rate. Default 3.6e-5: 4.5e-6 for each image of the batch.
    pub learning_rate: f64,
    /// The learning rate over the steps, as a fraction of the highest. Default: constant.
    pub schedule: StepSchedule,
    /// Adam's decay factors of the means of gradients and of their squares. Default (0.5, 0.9).
    pub betas: (f64, f64),
    /// All gradients of the network together are scaled to this norm where theirs is larger. Networks without
    /// statistics in their norms ([local](lumina_vq::VqHyperparameters::is_local) ones) need it at high learning rates;
    /// 1 is usual. The discriminator's are not. Default: not at all, as in taming.
    pub max_gradient_norm: Option<f64>,
    /// Factor on the mean absolute error of pixels in −1 ..= 1. Default 1.
    pub l1_weight: f64,
    /// Factor on their mean squared error. Default 0.
    pub l2_weight: f64,
    /// How the codebook is updated. Default: by gradient.
    pub codebook: CodebookUpdate,
    /// Factor on codebook loss and commitment loss together. Default 1.
    pub codebook_weight: f64,
    /// Factor on the commitment loss alone, `beta`. Default 0.25.
    pub commitment_weight: f64,
    /// The codebook at the start. Default: that of the file.
    pub codebook_start: CodebookStart,
    /// The first step, counted from 0, at which latents are quantized. Until then encoder and decoder are trained
    /// without a codebook, so that its first entries are useful. Default 0, as in taming.
    pub quantize_from: u64,
    /// After this many steps without use a code is replaced by a latent of a step's first pass. Default: never.
    pub revive_after: Option<u64>,
    /// The reported use of the codebook is that of this many steps. Default 100.
    pub usage_window: u64,
    /// The discriminator. Default: none.
    pub discriminator: Option<DiscriminatorOptions>,
    /// Steps between checkpoints, at least 1. One is also saved when the run is stopped, and at its end. Default 1,000.
    pub checkpoint_every: u64,
    /// Checkpoints kept, at least 1. Default 2.
    pub keep_checkpoints: usize,
}

impl Default for VqTrainingOptions {
    fn default() -> Self {
        Self {
            steps: 100_000,
            seed: 0,
            data: None,
            passes: 1,
            learning_rate: 3.6e-5,
            schedule: StepSchedule::Constant,
            betas: (0.5, 0.9),
            max_gradient_norm: None,
            l1_weight: 1.0,
            l2_weight: 0.0,
            codebook: CodebookUpdate::Gradient,
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
    data: Option<String>,
    passes: usize,
    learning_rate: f64,
    schedule: StepSchedule,
    betas: (f64, f64),
    max_gradient_norm: Option<f64>,
    l1_weight: f64,
    l2_weight: f64,
    codebook: CodebookUpdate,
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
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for the first option that is out of its range.
    pub fn check(&self) -> Result<()> {
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        let decay = match self.codebook {
            CodebookUpdate::Gradient | CodebookUpdate::Fixed => 0.0,
            CodebookUpdate::Ema { decay } => decay,
        };
        let (warmup, floor) = match self.schedule {
            StepSchedule::Constant => (0, 0.0),
            StepSchedule::Cosine { warmup_steps, floor } => (warmup_steps, floor),
        };
        let none = DiscriminatorOptions::default();
        let discriminator = self.discriminator.as_ref().unwrap_or(&none);
        let checks: [(bool, &str, &dyn std::fmt::Debug, &str); 19] = [
            ((1..=1 << 16).contains(&self.passes), "passes", &self.passes, "1 to 65536"),
            (
                self.learning_rate.is_finite() && self.learning_rate > 0.0,
                "learning_rate",
                &self.learning_rate,
                "above 0",
            ),
            (fraction(self.betas.0) && fraction(self.betas.1), "betas", &self.betas, "two numbers of 0 to below 1"),
            (
                self.max_gradient_norm.is_none_or(|norm| norm.is_finite() && norm > 0.0),
                "max_gradient_norm",
                &self.max_gradient_norm,
                "above 0",
            ),
            (not_negative(self.l1_weight), "l1_weight", &self.l1_weight, "at least 0"),
            (not_negative(self.l2_weight), "l2_weight", &self.l2_weight, "at least 0"),
            (self.l1_weight + self.l2_weight > 0.0, "l1_weight", &self.l1_weight, "above 0, as `l2_weight` is 0"),
            (not_negative(self.codebook_weight), "codebook_weight", &self.codebook_weight, "at least 0"),
            (not_negative(self.commitment_weight), "commitment_weight", &self.commitment_weight, "at least 0"),
            (fraction(decay), "codebook", &self.codebook, "a decay of 0 to below 1"),
            (warmup <= self.steps, "schedule", &self.schedule, "no more steps of warm-up than the run has"),
            ((0.0..=1.0).contains(&floor), "schedule", &self.schedule, "a floor of 0 to 1"),
            (self.revive_after != Some(0), "revive_after", &self.revive_after, "at least 1"),
            (self.usage_window > 0, "usage_window", &self.usage_window, "at least 1"),
            (self.checkpoint_every > 0, "checkpoint_every", &self.checkpoint_every, "at least 1"),
            (self.keep_checkpoints > 0, "keep_checkpoints", &self.keep_checkpoints, "at least 1"),
            (not_negative(discriminator.weight), "discriminator", discriminator, "a weight of at least 0"),
            ((1..=6).contains(&discriminator.layers), "discriminator", discriminator, "1 to 6 layers"),
            ((1..=1024).contains(&discriminator.channels), "discriminator", discriminator, "1 to 1024 channels"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, value, expected)) => {
                Err(Error::OutOfRange { field, value: format!("{value:?}"), expected: expected.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.factor_at(step, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let base = VqTrainingOptions::default;
        let broken = [
            (base().passes(0), "passes"),
            (base().learning_rate(f64::NAN), "learning_rate"),
            (base().betas((0.5, 1.0)), "betas"),
            (base().max_gradient_norm(Some(0.0)), "max_gradient_norm"),
            (base().l1_weight(0.0), "l1_weight"),
            (base().codebook(CodebookUpdate::Ema { decay: 1.5 }), "codebook"),
            (base().steps(3).schedule(StepSchedule::Cosine { warmup_steps: 4, floor: 0.0 }), "schedule"),
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
            .codebook(CodebookUpdate::Ema { decay: 0.99 })
            .schedule(StepSchedule::Cosine { warmup_steps: 10, floor: 0.0 })
            .discriminator(Some(DiscriminatorOptions::default()));
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<VqTrainingOptions>(&json).unwrap(), options);
        assert!(serde_json::from_str::<VqTrainingOptions>(r#"{"learning_rat": 1}"#).is_err());
    }
}
