//! The adversarial loss: its gradient, its weight, and the discriminator's own step.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_nn::ops::read;
use lumina_vq::VqModel;

use super::discriminator::{Discriminator, adaptive_weight, hinge};
use super::loss::{Losses, errors, reconstruction};
use super::options::VqTrainingOptions;
use crate::optim::AdamW;
use crate::shards::{Shards, Values};
use crate::{Error, Result};

/// The discriminator with its optimizer.
#[derive(Debug)]
pub(super) struct DiscriminatorTrainer {
    pub(super) model: Discriminator,
    pub(super) names: HashMap<ParamId, String>,
    pub(super) optimizer: AdamW,
    pub(super) shards: Shards,
    /// The decoder's last weight, at which the adaptive weight is measured.
    pub(super) last_weight: ParamId,
}

/// The adversarial loss of a batch.
pub(super) struct AdversarialLoss {
    /// Minus the mean of the discriminator's logits of the output, without a gradient.
    pub(super) generator_loss: Tensor<1>,
    /// Gradient of that loss with respect to the output.
    pub(super) gradient: Tensor<4>,
    /// The adaptive weight.
    pub(super) weight: f64,
    /// The discriminator's own loss, on a graph of its own.
    discriminator_loss: Tensor<1>,
    pub(super) discriminator_value: f64,
}

impl AdversarialLoss {
    /// An error where one of its values is not finite.
    pub(super) fn check(&self, step: u64) -> Result<()> {
        let values =
            [(self.weight, "weight of the adversarial loss"), (self.discriminator_value, "discriminator's loss")];
        match values.into_iter().find(|(value, _)| !value.is_finite()) {
            Some((_, what)) => Err(Error::NotFiniteValue { step, what }),
            None => Ok(()),
        }
    }
}

impl DiscriminatorTrainer {
    /// The loss of the output, which the last layer of `vq` made of the features, against `pixels`.
    ///
    /// The gradients at the last layer need neither the encoder nor the rest of the decoder: they are computed on
    /// graphs of their own, which begin at the last layer's input.
    pub(super) fn loss(
        &self,
        vq: &VqModel,
        losses: &Losses,
        pixels: &Tensor<4>,
        options: &VqTrainingOptions,
    ) -> Result<AdversarialLoss> {
        let leaf = losses.output.clone().detach().require_grad();
        let generator_loss = self.model.forward(leaf.clone()).mean().neg();
        let gradient =
            leaf.grad(&generator_loss.backward()).ok_or(Error::MissingGradient { of: "decoder's output" })?;
        let gradient = Tensor::from_inner(gradient);

        let gradient_norm = |loss: &dyn Fn(Tensor<4>) -> Tensor<1>| -> Result<f64> {
            let mut grads = loss(vq.last_layer(losses.features.clone().detach())?.into_tensor()?).backward();
            let grads = GradientsParams::from_params(&mut grads, vq, &[self.last_weight]);
            let of_last_weight = grads.get::<4>(self.last_weight);
            let of_last_weight = of_last_weight.ok_or(Error::MissingGradient { of: "decoder's last weight" })?;
            Ok(f64::from(read(of_last_weight.square().sum())?[0]).sqrt())
        };
        let reconstruction_norm = gradient_norm(&|output| {
            let (l1, l2) = errors(&output, pixels);
            reconstruction(&l1, &l2, options)
        })?;
        let adversarial_norm = gradient_norm(&|output| (output * gradient.clone()).sum())?;

        let fake = losses.output.clone().detach();
        let discriminator_loss = hinge(self.model.forward(pixels.clone()), self.model.forward(fake));
        let discriminator_value = f64::from(read(discriminator_loss.clone().detach())?[0]);
        Ok(AdversarialLoss {
            generator_loss: generator_loss.detach(),
            gradient,
            weight: adaptive_weight(reconstruction_norm, adversarial_norm),
            discriminator_loss,
            discriminator_value,
        })
    }

    /// The gradients of the discriminator's own loss of a batch.
    pub(super) fn gradients(&self, loss: AdversarialLoss) -> GradientsParams {
        GradientsParams::from_grads(loss.discriminator_loss.backward(), &self.model)
    }

    /// The discriminator's own step, by the gradients of the step's passes.
    pub(super) fn step(&mut self, learning_rate: f64, gradients: Values) {
        let gradients = self.shards.gradients_of(&self.model, gradients);
        self.model = self.optimizer.step(learning_rate, self.model.clone(), gradients);
    }
}

#[cfg(test)]
mod tests {
    use lumina_vq::Bands;

    use super::*;
    use crate::optim::AdamWOptions;
    use crate::shards::Names;
    use crate::vq::DiscriminatorOptions;
    use crate::vq::loss::tests::tiny;

    #[test]
    fn the_adaptive_weight_is_the_ratio_of_the_whole_networks_gradients() {
        let (vq, names, pixels) = tiny();
        let options = VqTrainingOptions::default().l2_weight(0.5);
        let shape = DiscriminatorOptions { layers: 1, channels: 4, ..DiscriminatorOptions::default() };
        let mut initial = Discriminator::initial_values(2);
        let (model, discriminator_names) = Discriminator::new(&shape, &mut initial, &pixels.device()).unwrap();
        let last_weight = *names.iter().find(|(_, name)| *name == "decoder.conv_out.weight").unwrap().0;
        let optimizer = AdamW::new(AdamWOptions::default(), discriminator_names.clone());
        let shards = Shards::new(&model, &Names::trained(&discriminator_names), 1);
        let discriminator = DiscriminatorTrainer { model, names: discriminator_names, optimizer, shards, last_weight };

        let forward = || {
            let features = vq.decode_features(vq.latents(pixels.clone(), Bands::Whole).unwrap()).unwrap();
            (vq.last_layer(features.clone()).unwrap().into_tensor().unwrap(), features.into_tensor().unwrap())
        };
        // Each loss by itself, backward through all layers.
        let norm = |loss: Tensor<1>| {
            let grads = GradientsParams::from_grads(loss.backward(), &vq);
            f64::from(read(grads.get::<4>(last_weight).unwrap().square().sum()).unwrap()[0]).sqrt()
        };
        let (l1, l2) = errors(&forward().0, &pixels);
        let of_reconstruction = norm(reconstruction(&l1, &l2, &options));
        let of_adversarial = norm(discriminator.model.forward(forward().0).mean().neg());
        let expected = of_reconstruction / (of_adversarial + 1e-4);

        let (output, features) = forward();
        let (l1, l2) = errors(&output, &pixels);
        let (distance, total) = (l1.clone(), l1.clone());
        let losses = Losses { features, output, l1, l2, distance, total };
        let loss = discriminator.loss(&vq, &losses, &pixels, &options).unwrap();
        assert!((loss.weight - expected).abs() < 1e-4 * expected, "{} and {expected}", loss.weight);
        assert!(expected > 0.0 && expected < 1e4);
        let direct = read(discriminator.model.forward(losses.output).mean().neg()).unwrap()[0];
        assert_eq!(read(loss.generator_loss.clone()).unwrap(), [direct]);
        assert!(loss.check(0).is_ok());
        let broken = AdversarialLoss { weight: f64::NAN, ..loss };
        assert!(broken.check(4).unwrap_err().to_string().contains("step 4: the weight of the adversarial loss"));
    }
}
