//! The values of the terms of a pass's loss.

/// The values of the terms of a pass's loss, and the number of its images.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Terms {
    pub(super) l1: f64,
    pub(super) l2: f64,
    pub(super) quantization: f64,
    /// The weighted sum of all.
    pub(super) loss: f64,
    /// The adversarial loss and its weight, and the discriminator's own loss; 0 until that is active.
    pub(super) generator_loss: f64,
    pub(super) discriminator_loss: f64,
    pub(super) adaptive_weight: f64,
    pub(super) images: f64,
}

impl Terms {
    /// As ranks give them to each other.
    pub(super) fn numbers(self) -> [f64; 8] {
        let Self { l1, l2, quantization, loss, generator_loss, discriminator_loss, adaptive_weight, images } = self;
        [l1, l2, quantization, loss, generator_loss, discriminator_loss, adaptive_weight, images]
    }

    /// What [`Terms::numbers`] made; `None` of a rank that had no pass.
    pub(super) fn of_numbers(numbers: Vec<f64>) -> Option<Self> {
        let [l1, l2, quantization, loss, generator_loss, discriminator_loss, adaptive_weight, images] =
            numbers.try_into().ok()?;
        Some(Self { l1, l2, quantization, loss, generator_loss, discriminator_loss, adaptive_weight, images })
    }
}
