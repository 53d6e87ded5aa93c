//! A new VQGAN with seeded random weights.

use std::path::Path;

use lumina_checkpoint::{Dtype, save_bytes, save_safetensors};
use lumina_nn::{Compute, Loader};
use lumina_vq::{ImageTokenizer, VqConfig, VqModel};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Error, Result};

/// The file of weights that is written to the folder of `vqgan.yaml`.
pub(super) const WEIGHTS: &str = "vqgan.safetensors";

/// Writes `vqgan.yaml` and `vqgan.safetensors` with random weights, as PyTorch and taming initialise them: convolutions
/// uniform within ±1/√fan-in, norms 1 and 0, the codebook uniform within ±1/n. The same seed gives the same bytes.
///
/// # Errors
/// [`Error::Write`], [`Error::Checkpoint`] where the files cannot be written.
pub fn init_vq(config: &VqConfig, seed: u64, target: impl AsRef<Path>, compute: &Compute) -> Result<()> {
    let target = target.as_ref();
    std::fs::create_dir_all(target).map_err(|source| Error::Write { file: target.to_owned(), source })?;
    let shapes = Loader::shapes_of(compute, |loader| VqModel::new(loader, config, true));
    let tensors = shapes.iter().map(|(name, shape)| {
        let bytes = || {
            let values = initial_values(name, shape, &shapes, seed);
            Ok(values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into())
        };
        (name.clone(), Dtype::F32, shape.clone(), bytes)
    });
    save_safetensors(target.join(WEIGHTS), tensors)?;
    Ok(save_bytes(target.join(ImageTokenizer::CONFIG), config.to_yaml().as_bytes())?)
}

fn initial_values(
    name: &str,
    shape: &[usize],
    shapes: &std::collections::BTreeMap<String, Vec<usize>>,
    seed: u64,
) -> Vec<f32> {
    let n = shape.iter().product();
    let fan_in = |shape: &[usize]| shape[1..].iter().product::<usize>() as f64;
    let weight_of_bias = name.strip_suffix("bias").map(|stem| format!("{stem}weight"));
    let bound = match (shape, weight_of_bias.and_then(|weight| shapes.get(&weight))) {
        (shape, _) if shape.len() == 4 => gain(name) / fan_in(shape).sqrt(),
        (_, Some(weight)) if weight.len() == 4 => 1.0 / fan_in(weight).sqrt(),
        // Norms.
        (_, Some(_)) => return vec![0.0; n],
        (shape, None) if shape.len() == 1 => return vec![1.0; n],
        (shape, None) => 1.0 / shape[0] as f64,
    };
    let mut rng = rng(seed, name, 0);
    (0..n).map(|_| ((2.0 * uniform(&mut rng) - 1.0) * bound) as f32).collect()
}

/// Times 1/√fan-in, the bound of a convolution's initial weights.
///
/// With PyTorch's 1 the variance falls to a third in each convolution. That does not matter in residual blocks, which
/// begin with a norm, but colours reach codes and image along the path outside of them, and would hardly pass. So
/// convolutions on that path keep the variance, and blocks add little to it at first.
fn gain(name: &str) -> f64 {
    const PATH: [&str; 6] = ["downsample", "upsample", "conv_in", "nin_shortcut", "quant_conv", "encoder.conv_out"];
    if PATH.iter().any(|part| name.contains(part)) {
        3f64.sqrt()
    } else if name.contains(".conv2.") || name.contains(".proj_out.") {
        0.1
    } else {
        1.0
    }
}

/// A generator for one purpose at one step. It shares no state with those of other purposes and steps.
pub(super) fn rng(seed: u64, purpose: &str, step: u64) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    // FNV-1a: a name's bytes into the rest of the key.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in purpose.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(step);
    rng
}

/// A number in `[0, 1)`.
pub(super) fn uniform(rng: &mut ChaCha12Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A number of the standard normal distribution (Box and Muller).
pub(super) fn normal(rng: &mut ChaCha12Rng) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}
