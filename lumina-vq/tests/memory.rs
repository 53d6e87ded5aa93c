//! What decoding and encoding take, against what they are said to take. A test binary of its own, as it counts the
//! allocations of a whole process.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests: a panic is the failure")]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;
use lumina_checkpoint::{Dtype, save_safetensors};
use lumina_core::{CodeGrid, Limits};
use lumina_nn::{Compute, Loader};
use lumina_testing::Counting;
use lumina_vq::{Bands, Error, ImageTokenizer, VqConfig, VqHyperparameters, VqModel};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Bytes are those of the whole process, so one test counts at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A network with random weights.
fn tokenizer(folder: &Path, hyperparameters: VqHyperparameters, compute: &Compute) -> ImageTokenizer {
    let config = VqConfig::new(hyperparameters).unwrap();
    let shapes = Loader::shapes_of(compute, |loader| VqModel::new(loader, &config, true));
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let n: usize = shape.iter().product();
        let scale = (n as f32 / shape[0] as f32).max(1.0).sqrt().recip();
        let values = lumina_testing::lcg(n as u32).take(n);
        let values = values.map(move |state| ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name, Dtype::F32, shape, move || Ok(bytes.into()))
    });
    let file = folder.join("vqgan.safetensors");
    save_safetensors(&file, tensors).unwrap();
    ImageTokenizer::from_file(&file, config, compute).unwrap()
}

fn hyperparameters(channels: usize, multipliers: &[usize], attention: &[usize]) -> VqHyperparameters {
    VqHyperparameters {
        embed_dim: 16,
        n_codes: 64,
        channels,
        multipliers: multipliers.to_vec(),
        n_res_blocks: 1,
        attention_resolutions: attention.to_vec(),
        latent_channels: 16,
        resolution: 256,
        is_local: false,
    }
}

fn grid(rows: u32, columns: u32) -> CodeGrid {
    CodeGrid::new(rows, columns, (0..rows * columns).map(|position| position % 64).collect()).unwrap()
}

/// What is taken is at most what is said, and at least two thirds of it, but for a constant.
#[test]
fn estimates_are_bounds_and_near() {
    const CONSTANT: u64 = 48 << 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let networks = [
        (hyperparameters(32, &[1, 1, 2, 2, 4], &[]), 512),
        (hyperparameters(64, &[1, 2], &[]), 128),
        (hyperparameters(32, &[1, 1, 1], &[64]), 192),
        (VqHyperparameters { is_local: true, ..hyperparameters(32, &[1, 1, 2, 2, 4], &[]) }, 512),
        (VqHyperparameters { is_local: true, ..hyperparameters(64, &[1, 2], &[]) }, 128),
    ];
    let targets = [
        Compute::cpu(),
        #[cfg(feature = "burn")]
        Compute::flex(),
    ];
    for ((hyperparameters, side), compute) in
        networks.iter().flat_map(|network| targets.iter().map(move |on| (network, on)))
    {
        let (tokenizer, side) = (tokenizer(folder.path(), hyperparameters.clone(), compute), *side);
        let factor = tokenizer.config().factor();
        // About as many pixels each.
        let shapes = [(side, side), (16, side * side / 16), (side * 8, side / 8), (side / 8, side * 8)];
        let n_shapes = if side == 512 { 4 } else { 2 };
        for &(width, height) in &shapes[..n_shapes] {
            let (rows, columns) = (height / factor, width / factor);
            let check = |what: &str, taken: usize, said: u64| {
                let taken = taken as u64;
                let what = format!("{what} {columns}x{rows} codes, factor {factor}, on {compute}");
                eprintln!("{what}: {} of {} MiB", taken >> 20, said >> 20);
                assert!(taken <= said, "{what}: {taken}, said {said}");
                assert!(said <= taken + taken / 2 + CONSTANT, "{what}: {taken}, said {said}");
            };
            let codes = grid(rows, columns);
            let n_bands = if width == height { 3 } else { 2 };
            for bands in [Bands::Whole, Bands::Rows(64), Bands::Rows(7)].into_iter().take(n_bands) {
                let (image, taken) = ALLOCATOR.peak_of(|| tokenizer.decode(&codes, bands).unwrap());
                assert_eq!(image.dimensions(), (width, height));
                let said = tokenizer.decode_bytes([rows as usize, columns as usize], bands);
                check(&format!("decoding {bands:?}"), taken, said);
            }
            // All patches differ, as a local network encodes equal ones once.
            let noise = lumina_testing::lcg(1).map(|state| (state >> 24) as u8).take((3 * width * height) as usize);
            let image = RgbImage::from_raw(width, height, noise.collect()).unwrap();
            let (_, taken) = ALLOCATOR.peak_of(|| tokenizer.encode(&image).unwrap());
            check("encoding", taken, tokenizer.encode_bytes([height as usize, width as usize]));
        }
    }
}

#[test]
fn what_would_take_more_than_the_limit_is_refused_before_it_is_taken() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(folder.path(), hyperparameters(32, &[1, 1, 1, 1, 2], &[]), &Compute::cpu());
    // The scores of its attention alone would be 17 GB.
    let (large, taken) = ALLOCATOR.peak_of(|| tokenizer.decode(&grid(256, 256), Bands::Rows(16)).unwrap_err());
    assert!(matches!(large, Error::Memory { .. }) && taken < 1 << 20, "{large}, after {taken} bytes");
    assert!(large.to_string().contains("8589934592") && large.to_string().contains("smaller"), "{large}");
    assert!(tokenizer.bands_within_limits([usize::MAX; 2]).is_err());

    let [whole, bands] = [Bands::Whole, Bands::Rows(64)].map(|bands| tokenizer.decode_bytes([30, 30], bands));
    assert!(bands < whole);
    let mut limits = Limits::default();
    limits.vq_decode_bytes = whole;
    let tokenizer = tokenizer.with_limits(limits);
    assert_eq!(tokenizer.bands_within_limits([30, 30]).unwrap(), Bands::Whole);
    assert!(tokenizer.decode(&grid(30, 30), Bands::Whole).is_ok());
    let both = tokenizer.decode_batch(&[grid(30, 30), grid(30, 30)], Bands::Whole).unwrap_err().to_string();
    assert!(both.contains("fewer than 2"), "{both}");
    limits.vq_decode_bytes = whole - 1;
    let tokenizer = tokenizer.with_limits(limits);
    assert_eq!(tokenizer.bands_within_limits([30, 30]).unwrap(), Bands::Rows(64));
    let message = tokenizer.decode(&grid(30, 30), Bands::Whole).unwrap_err().to_string();
    for part in ["30x30", &whole.to_string(), &(whole - 1).to_string(), "Bands::Rows", &bands.to_string()] {
        assert!(message.contains(part), "{message}");
    }
    // Images are encoded in bands by themselves.
    let image = RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let codes = tokenizer.encode(&image).unwrap();
    limits.vq_decode_bytes = tokenizer.encode_bytes([256, 256]) - 1;
    let tokenizer = tokenizer.with_limits(limits);
    assert_eq!(tokenizer.encode(&image).unwrap(), codes);
    limits.vq_decode_bytes = 1 << 20;
    let message = tokenizer.with_limits(limits).encode(&image).unwrap_err().to_string();
    assert!(message.contains("16x16") && message.contains("1048576"), "{message}");
}
