//! Encoding and decoding 512×512 pixels with the published VQGAN's size and random weights.
//!
//! `cargo bench -p lumina-vq --bench vqgan`. The time is compared with Burn's own convolution of the most expensive
//! layer, at the same number of multiply-adds.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Distribution, Tensor};
use image::RgbImage;
use lumina_checkpoint::{Dtype, save_safetensors};
use lumina_nn::{Compute, Loader, keep_freed_memory};
use lumina_vq::{Bands, ImageTokenizer, VqConfig, VqModel};

const SIDE: u32 = 512;
const YAML: &str = "
model:
  params:
    embed_dim: 256
    n_embed: 8192
    ddconfig: {double_z: false, z_channels: 256, resolution: 512, in_channels: 3, out_ch: 3, ch: 128,
               ch_mult: [1, 1, 2, 2, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
";

fn best(runs: usize, mut run: impl FnMut()) -> Duration {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .expect("at least one run")
}

/// Multiply-adds of the convolutions whose names begin with `part`, for an image of [`SIDE`].
fn multiply_adds(shapes: &std::collections::BTreeMap<String, Vec<usize>>, part: &str) -> f64 {
    let level_side = |name: &str| {
        let level = |mark: &str| name.split(mark).nth(1)?.split('.').next()?.parse::<u32>().ok();
        match (level("down."), level("up.")) {
            (Some(level), _) if name.contains("downsample") => SIDE >> (level + 1),
            (Some(level), _) => SIDE >> level,
            (_, Some(level)) if name.contains("upsample") => SIDE >> (level - 1),
            (_, Some(level)) => SIDE >> level,
            _ if name.ends_with("encoder.conv_in.weight") || name.ends_with("decoder.conv_out.weight") => SIDE,
            _ => SIDE / 16,
        }
    };
    shapes
        .iter()
        .filter(|(name, shape)| name.starts_with(part) && shape.len() == 4)
        .map(|(name, shape)| shape.iter().product::<usize>() as f64 * f64::from(level_side(name)).powi(2))
        .sum()
}

fn main() {
    // Recommended for applications.
    keep_freed_memory(1 << 30);
    let compute = Compute::cpu();
    let config = VqConfig::from_yaml(YAML, "vqgan.yaml".as_ref()).expect("valid");
    let shapes = Loader::shapes_of(&compute, |loader| VqModel::new(loader, &config, true));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("vqgan.safetensors");
    let tensors = shapes.iter().map(|(name, shape)| {
        let n = shape.iter().product::<usize>();
        // The scale keeps the variance of activations.
        let scale = (1.0 / (n / shape[0]).max(1) as f32).sqrt();
        let bytes = move || {
            let values = lumina_testing::lcg(n as u32).take(n);
            let values = values.map(|state| ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 2.0 * scale);
            Ok(values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into())
        };
        (name.clone(), Dtype::F32, shape.clone(), bytes)
    });
    save_safetensors(&file, tensors).expect("enough disk space");
    let tokenizer = ImageTokenizer::from_file(&file, config, &compute).expect("complete");

    let device = &compute.device();
    let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, device);
    let (x, weight) = (random([1, 128, 256, 256]), random([128, 128, 3, 3]));
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let convolution = best(3, || drop(black_box(conv2d(x.clone(), weight.clone(), None, options.clone()).into_data())));
    let per_second = 128.0 * 128.0 * 9.0 * 256.0 * 256.0 / convolution.as_secs_f64();
    println!("Burn's convolution 128→128, 3×3, 256²: {:.1} G multiply-adds/s", per_second / 1e9);

    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let codes = tokenizer.encode(&image).expect("encodes");
    let report = |what: &str, time: Duration, part: &str| {
        let limit = multiply_adds(&shapes, part) / per_second;
        println!("{what}: {:.2} s, {:.2} of Burn's speed", time.as_secs_f64(), limit / time.as_secs_f64());
    };
    report("encode 512×512", best(3, || drop(black_box(tokenizer.encode(&image)))), "encoder");
    for (what, bands) in [("whole", Bands::Whole), ("in bands of 64 rows", Bands::Rows(64))] {
        let time = best(3, || drop(black_box(tokenizer.decode(&codes, bands))));
        report(&format!("decode 512×512, {what}"), time, "decoder");
    }
}
