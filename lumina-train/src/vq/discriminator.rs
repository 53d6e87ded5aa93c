//! The patch discriminator, its losses, and the adaptive weight.

use std::collections::HashMap;

use burn::module::{Module, Param, ParamId};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::init::{normal, rng, uniform};
use super::options::DiscriminatorOptions;
use crate::Result;

/// The prefix of the names of the original's discriminator. The tokenizer ignores these tensors.
pub(super) const PREFIX: &str = "loss.discriminator.main";
/// The highest adaptive weight.
const HIGHEST_WEIGHT: f64 = 1e4;

/// Classifies patches of an image as real or reconstructed: `[batch, 3, height, width]` to logits
/// `[batch, 1, rows, columns]`.
///
/// Mirrors `taming.modules.discriminator.model.NLayerDiscriminator`. As there, its batch norms are always in training
/// mode: they use the statistics of the batch, so there are no running ones.
#[derive(Module, Debug)]
pub(super) struct Discriminator {
    layers: Vec<Layer>,
}

/// A 4×4 convolution, batch norm, leaky ReLU.
#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    norm: Option<Norm>,
    stride: usize,
}

#[derive(Module, Debug)]
struct Norm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

/// The values of a discriminator's parameters, by name and shape.
pub(super) type ParameterValues<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>> + 'a;

impl Discriminator {
    pub(super) fn new(
        options: &DiscriminatorOptions,
        values: &mut ParameterValues<'_>,
        device: &Device,
    ) -> Result<(Self, HashMap<ParamId, String>)> {
        let mut builder = Builder { values, device, names: HashMap::new() };
        let mut layers = vec![builder.layer(0, [3, options.channels], 2, LayerKind::First)?];
        let mut inputs = options.channels;
        for index in 1..=options.layers {
            let outputs = options.channels * (1 << index.min(3));
            let stride = if index < options.layers { 2 } else { 1 };
            layers.push(builder.layer(3 * index - 1, [inputs, outputs], stride, LayerKind::Middle)?);
            inputs = outputs;
        }
        layers.push(builder.layer(3 * options.layers + 2, [inputs, 1], 1, LayerKind::Last)?);
        Ok((Self { layers }, builder.names))
    }

    /// Values of a new discriminator: weights of convolutions normal with deviation 0.02 about 0, those of norms about
    /// 1, as in the original's `weights_init`; biases of convolutions as PyTorch initialises them.
    pub(super) fn initial_values(seed: u64) -> impl FnMut(&str, &[usize]) -> Result<Vec<f32>> {
        // A bias comes right after its weight: a convolution's, whose inputs bound it, or a norm's.
        let mut bound = 0.0;
        move |name, shape| {
            let mut rng = rng(seed, name, 0);
            let mut value = || match (shape.len(), name.ends_with("bias")) {
                (4, _) => 0.02 * normal(&mut rng),
                (_, false) => 1.0 + 0.02 * normal(&mut rng),
                (_, true) => (2.0 * uniform(&mut rng) - 1.0) * bound,
            };
            let values = (0..shape.iter().product::<usize>()).map(|_| value() as f32).collect();
            bound = if shape.len() == 4 { 1.0 / (shape[1..].iter().product::<usize>() as f64).sqrt() } else { 0.0 };
            Ok(values)
        }
    }

    /// Whether images of this side have logits after all convolutions.
    pub(super) fn accepts(&self, side: usize) -> bool {
        let left = self.layers.iter().try_fold(side, |side, layer| Some((side + 2).checked_sub(4)? / layer.stride + 1));
        left.is_some_and(|side| side > 0)
    }

    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(pixels, |x, layer| layer.forward(x))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum LayerKind {
    First,
    Middle,
    Last,
}

struct Builder<'a, 'b> {
    values: &'a mut ParameterValues<'b>,
    device: &'a Device,
    names: HashMap<ParamId, String>,
}

impl Builder<'_, '_> {
    fn param<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Result<Param<Tensor<D>>> {
        let values = (self.values)(&name, &shape)?;
        let param = Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device));
        self.names.insert(param.id, name);
        Ok(param)
    }

    /// `index` is the convolution's index in the original's list of modules. Its norm has the next one.
    fn layer(&mut self, index: usize, [inputs, outputs]: [usize; 2], stride: usize, kind: LayerKind) -> Result<Layer> {
        let weight = self.param(format!("{PREFIX}.{index}.weight"), [outputs, inputs, 4, 4])?;
        let (mut bias, mut norm) = (None, None);
        if kind == LayerKind::Middle {
            let name = |part: &str| format!("{PREFIX}.{}.{part}", index + 1);
            norm = Some(Norm {
                weight: self.param(name("weight"), [outputs])?,
                bias: self.param(name("bias"), [outputs])?,
            });
        } else {
            bias = Some(self.param(format!("{PREFIX}.{index}.bias"), [outputs])?);
        }
        Ok(Layer { weight, bias, norm, stride })
    }
}

impl Layer {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        let is_last = self.weight.dims()[0] == 1 && self.norm.is_none();
        let mut x = conv2d(x, self.weight.val(), bias, ConvOptions::new([self.stride; 2], [1, 1], [1, 1], 1));
        if let Some(norm) = &self.norm {
            x = norm.forward(x);
        }
        if is_last { x } else { activation::leaky_relu(x, 0.2) }
    }
}

impl Norm {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let flat: Tensor<2> = x.permute([1, 0, 2, 3]).reshape([channels, batch * height * width]);
        let centred = flat.clone() - flat.mean_dim(1);
        let scale =
            (centred.clone().square().mean_dim(1) + 1e-5).sqrt().recip() * self.weight.val().reshape([channels, 1]);
        let y = centred * scale + self.bias.val().reshape([channels, 1]);
        y.reshape([channels, batch, height, width]).permute([1, 0, 2, 3])
    }
}

/// The discriminator's loss (hinge): half the sum of `relu(1 − real)` and `relu(1 + fake)`.
pub(super) fn hinge(real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    let real = activation::relu(real.neg() + 1.0).mean();
    let fake = activation::relu(fake + 1.0).mean();
    (real + fake) * 0.5
}

/// The weight of the adversarial loss: the ratio of the gradients' norms at the decoder's last layer.
pub(super) fn adaptive_weight(reconstruction: f64, adversarial: f64) -> f64 {
    (reconstruction / (adversarial + 1e-4)).clamp(0.0, HIGHEST_WEIGHT)
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::Distribution;
    use lumina_nn::ops::read;

    use super::*;
    use crate::optim::{AdamW, AdamWOptions};

    fn discriminator(layers: usize) -> (Discriminator, HashMap<ParamId, String>) {
        let options = DiscriminatorOptions { layers, channels: 4, ..DiscriminatorOptions::default() };
        Discriminator::new(&options, &mut Discriminator::initial_values(1), &Device::flex().autodiff()).unwrap()
    }

    #[test]
    fn shapes_are_those_of_the_original() {
        // taming's NLayerDiscriminator on 32×32: 3 layers give 2×2 logits, 1 layer 14×14.
        for (layers, side) in [(1, 14), (2, 6), (3, 2)] {
            let (discriminator, names) = discriminator(layers);
            let logits = discriminator.forward(Tensor::zeros([2, 3, 32, 32], &Device::flex().autodiff()));
            assert_eq!(logits.dims(), [2, 1, side, side], "{layers} layers");
            assert_eq!(names.len(), 4 + 3 * layers);
            assert!(discriminator.accepts(32));
        }
        assert!(!discriminator(3).0.accepts(16) && discriminator(3).0.accepts(24));
    }

    #[test]
    fn it_learns_to_tell_stripes_from_a_plain_background() {
        let device = Device::flex().autodiff();
        let (mut discriminator, names) = discriminator(2);
        let mut optimizer = AdamW::new(AdamWOptions { weight_decay: 0.0, ..AdamWOptions::default() }, names);
        let mut stripes = vec![0.0f32; 2 * 3 * 16 * 16];
        stripes.iter_mut().step_by(2).for_each(|value| *value = 1.0);
        let real = Tensor::<4>::from_data(TensorData::new(stripes, [2, 3, 16, 16]), &device);
        let fake = real.zeros_like() + 0.5;
        let mut losses = Vec::new();
        for _ in 0..12 {
            let loss = hinge(discriminator.forward(real.clone()), discriminator.forward(fake.clone()));
            losses.push(read(loss.clone()).unwrap()[0]);
            let grads = GradientsParams::from_grads(loss.backward(), &discriminator);
            discriminator = optimizer.step(5e-3, discriminator, grads);
        }
        assert!(losses[11] < 0.5 * losses[0], "{losses:?}");
    }

    #[test]
    fn the_hinge_is_as_computed_by_hand() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 1, 2]), &device);
        // relu(1 − 2) = 0 and relu(1 − 0.5) = 0.5; relu(1 + 1) = 2 and relu(1 − 3) = 0.
        let loss = hinge(tensor([2.0, 0.5]), tensor([1.0, -3.0]));
        assert_eq!(read(loss).unwrap(), [0.5 * (0.25 + 1.0)]);
    }

    #[test]
    fn batch_norm_uses_the_statistics_of_the_batch() {
        let device = Device::flex();
        let norm = Norm {
            weight: Param::from_tensor(Tensor::ones([3], &device) * 2.0),
            bias: Param::from_tensor(Tensor::ones([3], &device)),
        };
        let x = Tensor::<4>::random([4, 3, 5, 5], Distribution::Uniform(3.0, 9.0), &device);
        let y = norm.forward(x).permute([1, 0, 2, 3]).reshape([3, 100]);
        let mean = read(y.clone().mean_dim(1)).unwrap();
        let deviation = read(((y.clone() - y.mean_dim(1)).square().mean_dim(1)).sqrt()).unwrap();
        assert!(mean.iter().all(|value| (value - 1.0).abs() < 1e-4), "{mean:?}");
        assert!(deviation.iter().all(|value| (value - 2.0).abs() < 1e-3), "{deviation:?}");
    }

    #[test]
    fn the_adaptive_weight_is_a_bounded_ratio() {
        assert!((adaptive_weight(0.6, 0.3) - 2.0).abs() < 1e-3);
        assert_eq!(adaptive_weight(5.0, 0.0), 1e4);
        assert_eq!(adaptive_weight(0.0, 1.0), 0.0);
    }
}
