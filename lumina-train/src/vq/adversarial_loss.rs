//! The discriminator's part of a step: its judgement, how much that weighs, and its own learning.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_vq::VqModel;

use super::discriminator::{Discriminator, adaptive_weight, hinge};
use super::loss::{errors, reconstruction};
use super::options::VqTrainingOptions;
use crate::fine_tune::AdamW;
use crate::tensors::values;
use crate::{Error, Result};

/// The discriminator with what trains it.
#[derive(Debug)]
pub(super) struct Adversary {
    pub(super) model: Discriminator,
    pub(super) names: HashMap<ParamId, String>,
    pub(super) optimizer: AdamW,
    /// The decoder's last weight, at which the adaptive weight is measured.
    pub(super) last_weight: ParamId,
}

/// What the discriminator says of a batch.
pub(super) struct Judged {
    /// The mean of minus its judgement of the output, without a gradient.
    pub(super) generator_loss: Tensor<1>,
    /// Of that loss with respect to the output.
    pub(super) gradient: Tensor<4>,
    /// The adaptive weight.
    pub(super) weight: f64,
    /// The discriminator's own loss, on a graph of its own.
    discriminator_loss: Tensor<1>,
    pub(super) discriminator_value: f64,
}

impl Judged {
    pub(super) fn check(&self, step: u64) -> Result<()> {
        let values =
            [(self.weight, "weight of the adversarial loss"), (self.discriminator_value, "discriminator's loss")];
        match values.into_iter().find(|(value, _)| !value.is_finite()) {
            Some((_, what)) => Err(Error::NotFiniteValue { step, what }),
            None => Ok(()),
        }
    }
}

impl Adversary {
    /// Judges `output`, which the last layer of `vq` made of `features`, against `pixels`.
    ///
    /// The gradients at the last layer need neither the encoder nor the rest of the decoder: they are taken on graphs
    /// of their own, which begin at the last layer's input.
    pub(super) fn judge(
        &self,
        vq: &VqModel,
        features: &Tensor<4>,
        output: &Tensor<4>,
        pixels: &Tensor<4>,
        options: &VqTrainingOptions,
    ) -> Result<Judged> {
        let missing = || Error::Compute { reason: "a gradient of the adversarial loss is missing".to_owned() };
        let leaf = output.clone().detach().require_grad();
        let generator_loss = self.model.forward(leaf.clone()).mean().neg();
        let gradient = leaf.grad(&generator_loss.backward()).ok_or_else(missing)?;
        let gradient = Tensor::from_inner(gradient);

        let norm_of = |loss: &dyn Fn(Tensor<4>) -> Tensor<1>| -> Result<f64> {
            let mut grads = loss(vq.last_layer(features.clone().detach())?).backward();
            let grads = GradientsParams::from_params(&mut grads, vq, &[self.last_weight]);
            let grad = grads.get::<4>(self.last_weight).ok_or_else(missing)?;
            Ok(f64::from(values(grad.square().sum())?[0]).sqrt())
        };
        let of_reconstruction = norm_of(&|output| {
            let (l1, l2) = errors(&output, pixels);
            reconstruction(&l1, &l2, options)
        })?;
        let of_judgement = norm_of(&|output| (output * gradient.clone()).sum())?;

        let fake = output.clone().detach();
        let discriminator_loss = hinge(self.model.forward(pixels.clone()), self.model.forward(fake));
        let discriminator_value = f64::from(values(discriminator_loss.clone().detach())?[0]);
        Ok(Judged {
            generator_loss: generator_loss.detach(),
            gradient,
            weight: adaptive_weight(of_reconstruction, of_judgement),
            discriminator_loss,
            discriminator_value,
        })
    }

    /// The discriminator's own step.
    pub(super) fn learn(&mut self, judged: Judged, rate: f64) {
        let grads = GradientsParams::from_grads(judged.discriminator_loss.backward(), &self.model);
        self.model = self.optimizer.step(rate, self.model.clone(), grads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fine_tune::AdamWOptions;
    use crate::vq::DiscriminatorOptions;
    use crate::vq::loss::tests::tiny;

    #[test]
    fn the_adaptive_weight_is_the_ratio_of_the_whole_networks_gradients() {
        let (vq, names, pixels) = tiny();
        let options = VqTrainingOptions::default().l2_weight(0.5);
        let shape = DiscriminatorOptions { layers: 1, channels: 4, ..DiscriminatorOptions::default() };
        let mut initial = Discriminator::initial_values(2);
        let (model, judge_names) = Discriminator::new(&shape, &mut initial, &pixels.device()).unwrap();
        let last_weight = *names.iter().find(|(_, name)| *name == "decoder.conv_out.weight").unwrap().0;
        let optimizer = AdamW::new(AdamWOptions::default(), judge_names.clone());
        let adversary = Adversary { model, names: judge_names, optimizer, last_weight };

        let forward = || {
            let features = vq.decode_features(vq.latents(pixels.clone())).unwrap();
            (vq.last_layer(features.clone()).unwrap(), features)
        };
        // Each loss by itself, back through all layers.
        let norm = |loss: Tensor<1>| {
            let grads = GradientsParams::from_grads(loss.backward(), &vq);
            f64::from(values(grads.get::<4>(last_weight).unwrap().square().sum()).unwrap()[0]).sqrt()
        };
        let (l1, l2) = errors(&forward().0, &pixels);
        let of_reconstruction = norm(reconstruction(&l1, &l2, &options));
        let of_judgement = norm(adversary.model.forward(forward().0).mean().neg());
        let expected = of_reconstruction / (of_judgement + 1e-4);

        let (output, features) = forward();
        let judged = adversary.judge(&vq, &features, &output, &pixels, &options).unwrap();
        assert!((judged.weight - expected).abs() < 1e-4 * expected, "{} and {expected}", judged.weight);
        assert!(expected > 0.0 && expected < 1e4);
        let direct = values(adversary.model.forward(output).mean().neg()).unwrap()[0];
        assert_eq!(values(judged.generator_loss.clone()).unwrap(), [direct]);
        assert!(judged.check(0).is_ok());
        let broken = Judged { weight: f64::NAN, ..judged };
        assert!(broken.check(4).unwrap_err().to_string().contains("step 4: the weight of the adversarial loss"));
    }
}
