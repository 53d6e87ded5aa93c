//! Reconstruction, codebook and commitment losses, with a straight-through estimate of the gradients.

use burn::tensor::Tensor;
use lumina_vq::VqModel;

use super::options::{CodebookUpdate, VqTrainingOptions};
use crate::Result;

/// The losses of a batch, and the decoder's output.
pub(super) struct Losses {
    /// Input of the decoder's last layer.
    pub(super) features: Tensor<4>,
    /// Output of the decoder's last layer: pixels.
    pub(super) output: Tensor<4>,
    /// Mean absolute error.
    pub(super) l1: Tensor<1>,
    /// Mean squared error.
    pub(super) l2: Tensor<1>,
    /// Mean squared distance of latents from their codes, without a gradient.
    pub(super) distance: Tensor<1>,
    /// The weighted sum that is minimised.
    pub(super) total: Tensor<1>,
}

/// The losses of `latents` of `pixels`, quantized to `nearest`.
///
/// Mirrors `VectorQuantizer2` (with `legacy=False`) and `VQLPIPSWithDiscriminator` without its perceptual loss.
pub(super) fn losses(
    model: &VqModel,
    pixels: &Tensor<4>,
    latents: Tensor<4>,
    nearest: Tensor<4>,
    options: &VqTrainingOptions,
) -> Result<Losses> {
    let commitment = (nearest.clone().detach() - latents.clone()).square().mean();
    let distance = commitment.clone().detach();
    let commitment = commitment * options.commitment_weight;
    let quantization = match options.codebook {
        CodebookUpdate::Gradient => (nearest.clone() - latents.clone().detach()).square().mean() + commitment,
        CodebookUpdate::Ema { .. } => commitment,
        CodebookUpdate::Fixed => commitment * 0.0,
    };
    let features = model.decode_features(straight_through(latents, nearest))?.into_tensor()?;
    let output = model.last_layer(features.clone())?.into_tensor()?;
    let (l1, l2) = errors(&output, pixels);
    let total = reconstruction(&l1, &l2, options) + quantization * options.codebook_weight;
    Ok(Losses { features, output, l1: l1.detach(), l2: l2.detach(), distance, total })
}

/// The value is that of the codes, the gradient goes to the latents.
fn straight_through(latents: Tensor<4>, nearest: Tensor<4>) -> Tensor<4> {
    latents.clone() + (nearest - latents).detach()
}

/// Mean absolute and mean squared error.
pub(super) fn errors(output: &Tensor<4>, pixels: &Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let difference = output.clone() - pixels.clone();
    (difference.clone().abs().mean(), difference.square().mean())
}

/// The reconstruction loss.
pub(super) fn reconstruction(l1: &Tensor<1>, l2: &Tensor<1>, options: &VqTrainingOptions) -> Tensor<1> {
    l1.clone() * options.l1_weight + l2.clone() * options.l2_weight
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use burn::module::{Module, ModuleMapper, Param, ParamId};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, TensorData};
    use lumina_checkpoint::Checkpoint;
    use lumina_nn::ops::read;
    use lumina_nn::{Compute, Loader};
    use lumina_vq::{Bands, VqConfig, VqHyperparameters};

    use super::*;
    use crate::vq::init_vq;

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn tensor(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
    }

    #[test]
    fn gradients_go_straight_through_to_the_latents() {
        let shape = [1, 2, 1, 2];
        let latents = tensor(&[0.1, -0.7, 2.0, 0.4], shape).require_grad();
        let nearest = tensor(&[0.25, -1.0, 2.5, 0.5], shape).require_grad();
        let through = straight_through(latents.clone(), nearest.clone());
        let found = read(through.clone()).unwrap();
        assert!(found.iter().zip([0.25, -1.0, 2.5, 0.5]).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        let grads = (through * tensor(&[1.0, 2.0, 3.0, 4.0], shape)).sum().backward();
        assert_eq!(read(latents.grad(&grads).unwrap()).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(nearest.grad(&grads).is_none_or(|grad| read(grad).unwrap().iter().all(|&value| value == 0.0)));
    }

    /// Adds to one element of one parameter.
    struct Nudge {
        id: ParamId,
        element: usize,
        by: f32,
    }

    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.id != self.id {
                return param;
            }
            param.map(|tensor| {
                let (shape, device) = (tensor.shape(), tensor.device());
                let mut all = read(tensor).unwrap();
                all[self.element] += self.by;
                Tensor::from_data(TensorData::new(all, shape), &device)
            })
        }
    }

    /// The model, the names of its parameters, and pixels.
    pub(in crate::vq) fn tiny() -> (VqModel, HashMap<ParamId, String>, Tensor<4>) {
        let shape = VqHyperparameters {
            embed_dim: 3,
            n_codes: 5,
            channels: 32,
            multipliers: vec![1, 1],
            n_res_blocks: 1,
            latent_channels: 4,
            ..VqHyperparameters::default()
        };
        let config = VqConfig::new(shape).unwrap();
        let folder = tempfile::tempdir().unwrap();
        init_vq(&config, 3, folder.path(), &Compute::cpu()).unwrap();
        let checkpoint = Checkpoint::open(folder.path().join("vqgan.safetensors")).unwrap();
        let compute = Compute::new(device());
        let loader = Loader::new(&checkpoint, &compute);
        let model = VqModel::new(&loader, &config, true);
        let pixels: Vec<f32> = (0..2 * 3 * 64).map(|index| (index as f32 * 0.37).sin()).collect();
        (model, loader.parameter_names(), tensor(&pixels, [2, 3, 8, 8]))
    }

    #[test]
    fn gradients_are_the_numerical_gradients_of_the_loss() {
        let (model, names, pixels) = tiny();
        // Squares only: the absolute error is not differentiable everywhere.
        let options = VqTrainingOptions::default().l1_weight(0.0).l2_weight(1.5).commitment_weight(0.4);
        let latents = model.latents(pixels.clone(), Bands::Whole).unwrap().into_tensor().unwrap();
        let codes = model.quantize(latents.clone().detach()).unwrap();
        let grid = [latents.dims()[0], latents.dims()[2], latents.dims()[3]];
        let nearest = model.lookup(&codes, grid).unwrap().into_tensor().unwrap();
        let [at_latents, at_nearest] = [&latents, &nearest].map(|tensor| tensor.clone().detach());
        let losses = losses(&model, &pixels, latents, nearest, &options).unwrap();
        let value = f64::from(read(losses.total.clone()).unwrap()[0]);
        let grads = GradientsParams::from_grads(losses.total.backward(), &model);

        // The function whose gradient the estimate is: what was detached is constant, also the choice of codes.
        let loss = |model: &VqModel| -> f64 {
            let latents = model.latents(pixels.clone(), Bands::Whole).unwrap().into_tensor().unwrap();
            let nearest = model.lookup(&codes, grid).unwrap().into_tensor().unwrap();
            let square = |a: &Tensor<4>, b: &Tensor<4>| (a.clone() - b.clone()).square().mean();
            let quantization = square(&nearest, &at_latents) + square(&latents, &at_nearest) * 0.4;
            let offset = at_nearest.clone() - at_latents.clone();
            let features = model.decode_features(latents + offset).unwrap();
            let l2 = square(&model.last_layer(features).unwrap().into_tensor().unwrap(), &pixels);
            f64::from(read(l2 * 1.5 + quantization).unwrap()[0])
        };
        assert!((loss(&model) - value).abs() < 1e-6 * value.abs(), "{} and {value}", loss(&model));

        let used = codes[0] as usize * 3;
        for (name, element) in [
            ("decoder.conv_out.bias", 1),
            ("decoder.up.0.block.1.conv2.weight", 31),
            ("decoder.conv_in.weight", 7),
            ("decoder.norm_out.weight", 5),
            ("post_quant_conv.weight", 2),
            ("quantize.embedding.weight", used),
            ("quant_conv.bias", 0),
            ("encoder.mid.attn_1.v.weight", 40),
            ("encoder.down.0.downsample.conv.weight", 100),
            ("encoder.conv_in.weight", 3),
        ] {
            let id = *names.iter().find(|(_, found)| *found == name).unwrap().0;
            let grad = match name.rsplit('.').next().unwrap() {
                "bias" => grads.get::<1>(id).map(read),
                _ if name.contains("norm") => grads.get::<1>(id).map(read),
                _ if name.contains("embedding") => grads.get::<2>(id).map(read),
                _ => grads.get::<4>(id).map(read),
            };
            let gradient = f64::from(grad.unwrap().unwrap()[element]);
            let step = 4e-3f32;
            let at = |by: f32| loss(&model.clone().map(&mut Nudge { id, element, by }));
            let difference = (at(step) - at(-step)) / (2.0 * f64::from(step));
            // Values of f32 leave about 1e-7 / 4e-3 of absolute error.
            assert!(
                (gradient - difference).abs() < 0.02 * gradient.abs() + 1e-4,
                "{name}: {gradient} and {difference}"
            );
            assert!(gradient != 0.0, "{name} has no gradient to compare");
        }
    }

    #[test]
    fn the_ema_update_leaves_the_codebook_without_a_gradient() {
        let (model, names, pixels) = tiny();
        let options = VqTrainingOptions::default().codebook(CodebookUpdate::Ema { decay: 0.99 });
        let latents = model.latents(pixels.clone(), Bands::Whole).unwrap().into_tensor().unwrap();
        let codes = model.quantize(latents.clone().detach()).unwrap();
        let nearest = model
            .lookup(&codes, [latents.dims()[0], latents.dims()[2], latents.dims()[3]])
            .unwrap()
            .into_tensor()
            .unwrap();
        let losses = losses(&model, &pixels, latents, nearest, &options).unwrap();
        let grads = GradientsParams::from_grads(losses.total.backward(), &model);
        let id = *names.iter().find(|(_, name)| *name == "quantize.embedding.weight").unwrap().0;
        assert!(grads.get::<2>(id).is_none());
    }
}
