//! What a training step reports.

use serde::Serialize;

/// What a training step reports; losses are before their weights and before the step's update.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VqStep {
    /// Steps taken, with this one.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// The weighted sum that the step descends.
    pub loss: f64,
    /// Mean absolute error of pixels in −1 ..= 1.
    pub l1: f64,
    /// Mean squared error of pixels in −1 ..= 1.
    pub l2: f64,
    /// Mean squared distance of latents from their codes: both the codebook and the commitment loss.
    pub quantization: f64,
    /// The norm of all gradients together.
    pub gradient_norm: f64,
    /// What the discriminator says, once it has joined.
    pub adversarial: Option<Adversarial>,
    /// Peak signal-to-noise ratio of the batch, in decibels, before rounding to 8 bits.
    pub psnr_db: f64,
    /// Distinct codes chosen over the window.
    pub codes_used: usize,
    /// The number of codes that, used evenly, would carry as much information as the window's.
    pub perplexity: f64,
    /// Dead codes replaced in this step.
    pub codes_revived: usize,
}

/// The discriminator's part of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Adversarial {
    /// The mean of minus its judgement of the reconstructions.
    pub generator_loss: f64,
    /// Its own hinge loss.
    pub discriminator_loss: f64,
    /// The weight from the gradients at the decoder's last layer, without the configured factor.
    pub adaptive_weight: f64,
}
