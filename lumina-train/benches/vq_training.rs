//! One step of VQGAN training, forward and backward, and the time of its operations.
//!
//! `cargo bench -p lumina-train --bench vq_training`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::time::{Duration, Instant};

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_nn::ops::{Conv3x3, conv3x3, scaled_swish, upsample2x};
use lumina_nn::{Compute, Loader};
use lumina_vq::{Bands, VqConfig, VqModel};

const YAML: &str = "
model:
  params:
    embed_dim: 16
    n_embed: 1024
    ddconfig: {double_z: false, z_channels: 64, resolution: 96, in_channels: 3, out_ch: 3, ch: 32,
               ch_mult: [1, 1, 2, 2, 2], num_res_blocks: 1, attn_resolutions: [], dropout: 0.0}
";

fn best(runs: usize, mut run: impl FnMut()) -> Duration {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn model(compute: &Compute) -> VqModel {
    let config = VqConfig::from_yaml(YAML, "vqgan.yaml".as_ref()).unwrap();
    let shapes = Loader::shapes_of(compute, |loader| VqModel::new(loader, &config, true));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vqgan.safetensors");
    let tensors = shapes.iter().map(|(name, shape)| {
        let n = shape.iter().product::<usize>();
        let scale = (1.0 / (n / shape[0]).max(1) as f32).sqrt();
        let bytes = move || {
            let values = lumina_testing::lcg(n as u32).take(n);
            let values = values.map(|state| ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 2.0 * scale);
            Ok(values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into())
        };
        (name.clone(), Dtype::F32, shape.clone(), bytes)
    });
    save_safetensors(&file, tensors).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    let loader = Loader::new(&checkpoint, compute);
    VqModel::new(&loader, &config, true)
}

fn step(side: usize, batch: usize) {
    let compute = Compute::new(Device::flex().autodiff());
    let model = model(&compute);
    let pixels = Tensor::<4>::random([batch, 3, side, side], Distribution::Default, &compute.device());
    let (mut forward, mut lookup, mut backward) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..2 {
        let start = Instant::now();
        let latents = model.latents(pixels.clone(), Bands::Whole).unwrap().into_tensor().unwrap();
        let quantizing = Instant::now();
        let codes = model.quantize(latents.clone()).unwrap();
        let [batch, _, rows, columns] = latents.dims();
        let nearest = model.lookup(&codes, [batch, rows, columns]).unwrap().into_tensor().unwrap();
        lookup = lookup.min(quantizing.elapsed());
        let straight = latents.clone() + (nearest - latents.clone()).detach();
        let output = model.decode(straight, Bands::Whole).unwrap().into_tensor().unwrap();
        let loss = (output - pixels.clone()).abs().mean();
        forward = forward.min(start.elapsed());
        let start = Instant::now();
        drop(loss.backward());
        backward = backward.min(start.elapsed());
    }
    println!(
        "{batch} images of {side}x{side}: {:.0} ms a step (forward {:.0}, of it quantization {:.1}; backward {:.0})",
        ms(forward + backward),
        ms(forward),
        ms(lookup),
        ms(backward)
    );
}

/// Forward and backward of one operation on an activation of the finest level.
fn operation(name: &str, run: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>) {
    let device = Device::flex().autodiff();
    let x = Tensor::<4>::random([8, 32, 96, 96], Distribution::Default, &device).require_grad();
    let weight = Tensor::<4>::random([32, 32, 3, 3], Distribution::Default, &device).require_grad();
    let one = Tensor::<4>::random([1, 32, 1, 1], Distribution::Default, &device).require_grad();
    let (mut forward, mut backward) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let start = Instant::now();
        let y = run(x.clone(), weight.clone(), one.clone());
        forward = forward.min(start.elapsed());
        let sum = y.sum();
        backward = backward.min(best(1, || drop(sum.backward())));
    }
    println!("  {name}: forward {:.1} ms, backward {:.1} ms", ms(forward), ms(backward));
}

fn main() {
    step(64, 8);
    step(96, 8);
    println!("operations on [8, 32, 96, 96]:");
    operation("sum alone", |x, _, _| x);
    operation("x + x", |x, _, _| x.clone() + x);
    operation("Burn's convolution 3x3", |x, weight, _| {
        conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
    });
    operation("convolution 3x3", |x, weight, _| {
        let bias = Tensor::zeros([32], &x.device());
        conv3x3(x, weight, bias, Conv3x3 { padding_rows: (1, 1), stride: 1 })
    });
    operation("convolution 3x3, stride 2, padded right and below", |x, weight, _| {
        conv2d(x, weight, None, ConvOptions::new_with_padding([2, 2], [(0, 1), (0, 1)], [1, 1], 1))
    });
    operation("scaled swish", |x, _, one| {
        let one: Tensor<4> = one.expand([8, 32, 1, 1]);
        scaled_swish(x, one.clone(), one)
    });
    operation("mean and variance of groups", |x, _, _| {
        let groups: Tensor<3> = x.reshape([8, 32, 96 * 96]);
        let mean = groups.clone().sum_dim(2) / (96 * 96) as f64;
        (groups - mean.clone()).square().sum_dim(2).reshape([8, 32, 1, 1]) + mean.reshape([8, 32, 1, 1])
    });
    operation("twice the size of a quarter", |x, _, _| upsample2x(&x.narrow(2, 0, 48).narrow(3, 0, 48), 0..96));
}
