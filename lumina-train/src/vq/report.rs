//! What the trainer reports of a step.

use std::fmt;

use serde::Serialize;

use crate::metrics::StepMetrics;

/// The report of a step. Losses are before their weights and before the step's update. [`Display`](fmt::Display) is a
/// line with its number, the quality of the images and the use of the codebook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VqStepReport {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// The loss that was minimised: the weighted sum of all terms.
    pub loss: f64,
    /// Mean absolute error of pixels in −1 ..= 1.
    pub l1: f64,
    /// Mean squared error of pixels in −1 ..= 1.
    pub l2: f64,
    /// Mean squared distance of latents from their codes: both the codebook and the commitment loss.
    pub quantization: f64,
    /// Norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// The adversarial loss, once the discriminator is active.
    pub adversarial: Option<AdversarialReport>,
    /// Peak signal-to-noise ratio of the batch, in decibels, before rounding to 8 bits.
    pub psnr_db: f64,
    /// Distinct codes chosen over the window.
    pub codes_used: usize,
    /// The number of codes that, used evenly, would carry as much information as those of the window.
    pub perplexity: f64,
    /// Dead codes replaced in this step.
    pub codes_revived: usize,
    /// Images of the step.
    pub images: u64,
}

/// The adversarial loss of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdversarialReport {
    /// Minus the mean of the discriminator's logits of the reconstructions.
    pub generator_loss: f64,
    /// The discriminator's own hinge loss.
    pub discriminator_loss: f64,
    /// The weight from the gradients at the decoder's last layer, without the configured factor.
    pub adaptive_weight: f64,
}

impl fmt::Display for VqStepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, psnr_db, codes_used, perplexity, .. } = self;
        write!(f, "step {step}: {psnr_db:.2} dB, {codes_used} codes in use, perplexity {perplexity:.0}")
    }
}

impl StepMetrics for VqStepReport {
    fn step(&self) -> u64 {
        self.step
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss", self.loss),
            ("l1", self.l1),
            ("l2", self.l2),
            ("quantization", self.quantization),
            ("learning_rate", self.learning_rate),
            ("gradient_norm", self.gradient_norm),
            ("psnr_db", self.psnr_db),
            ("codes_used", self.codes_used as f64),
            ("perplexity", self.perplexity),
        ];
        if let Some(adversarial) = &self.adversarial {
            scalars.extend([
                ("generator_loss", adversarial.generator_loss),
                ("discriminator_loss", adversarial.discriminator_loss),
                ("adaptive_weight", adversarial.adaptive_weight),
            ]);
        }
        scalars
    }

    fn work(&self) -> (u64, &'static str) {
        (self.images, "images")
    }
}
