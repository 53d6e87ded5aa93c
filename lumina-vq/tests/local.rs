//! Local networks, where the code of a patch depends on this patch alone: on every compute target that is available.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::path::Path;

use image::{RgbImage, imageops};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_core::CodeGrid;
use lumina_nn::{Compute, Loader};
use lumina_testing::lcg;
use lumina_vq::{Bands, ImageTokenizer, Maps, VqConfig, VqHyperparameters, VqModel, preprocess};

const SIDE: u32 = 16;

fn config(n_res_blocks: usize) -> VqConfig {
    let hyperparameters = VqHyperparameters {
        embed_dim: 8,
        n_codes: 512,
        channels: 32,
        multipliers: vec![1; 5],
        n_res_blocks,
        latent_channels: 8,
        resolution: 256,
        is_local: true,
        ..VqHyperparameters::default()
    };
    VqConfig::new(hyperparameters).unwrap()
}

/// The tensors of a network with random weights, in a file.
fn write(folder: &Path, config: &VqConfig) {
    let shapes = Loader::shapes_of(&Compute::cpu(), |loader| VqModel::new(loader, config, true));
    let tensors = shapes.into_iter().enumerate().map(|(index, (name, shape))| {
        let n: usize = shape.iter().product();
        // Uniform numbers that keep the variance; those of norms are about 1 and 0, those of codes as latents are.
        let scale = (3.0 * shape[0] as f32 / n as f32).sqrt().min(1.0);
        let (mean, scale) = if name.contains("norm") {
            (f32::from(u8::from(name.ends_with("weight"))), 0.3)
        } else if name.contains("embedding") {
            (0.0, 0.1)
        } else if name.ends_with("bias") {
            (0.0, 0.02)
        } else {
            (0.0, scale)
        };
        let values = lcg(index as u32).take(n);
        let values = values.map(move |state| mean + ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name, Dtype::F32, shape, move || Ok(bytes.into()))
    });
    save_safetensors(folder.join("vqgan.safetensors"), tensors).unwrap();
    std::fs::write(folder.join("vqgan.yaml"), config.to_yaml()).unwrap();
}

fn targets() -> Vec<Compute> {
    #[cfg_attr(not(feature = "burn"), allow(unused_mut, reason = "one more with it"))]
    let mut targets = Compute::available();
    #[cfg(feature = "burn")]
    targets.push(Compute::flex());
    targets
}

/// One of these networks on each target.
fn each(n_res_blocks: usize, check: impl Fn(&ImageTokenizer, &str)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config(n_res_blocks));
    for compute in targets() {
        check(&ImageTokenizer::open(folder.path(), &compute).unwrap(), &compute.to_string());
    }
}

/// An image whose pixels are all different.
fn noise(width: u32, height: u32, seed: u32) -> RgbImage {
    let bytes = lcg(seed).map(|state| (state >> 24) as u8).take((3 * width * height) as usize);
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

/// The patch at a row and a column.
fn patch(image: &RgbImage, row: u32, column: u32) -> RgbImage {
    imageops::crop_imm(image, column * SIDE, row * SIDE, SIDE, SIDE).to_image()
}

fn put(image: &mut RgbImage, patch: &RgbImage, row: u32, column: u32) {
    imageops::replace(image, patch, i64::from(column * SIDE), i64::from(row * SIDE));
}

fn code(grid: &CodeGrid, row: u32, column: u32) -> u32 {
    grid.codes()[(row * grid.columns() + column) as usize]
}

fn n_distinct(grid: &CodeGrid) -> usize {
    grid.codes().iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_patch_has_one_code_wherever_it_is() {
    each(1, |tokenizer, target| {
        let own = noise(SIDE, SIDE, 1);
        let expected = tokenizer.encode(&own).unwrap().codes()[0];
        for (seed, (rows, columns)) in [(1, 2), (3, 3), (4, 2), (2, 5)].into_iter().enumerate() {
            for (row, column) in [(0, 0), (rows - 1, columns - 1), (rows / 2, columns / 2)] {
                let mut image = noise(columns * SIDE, rows * SIDE, 7 + seed as u32);
                put(&mut image, &own, row, column);
                let grid = tokenizer.encode(&image).unwrap();
                assert_eq!(code(&grid, row, column), expected, "{target}: {row}, {column} of {rows}x{columns}");
                // And of one colour around it.
                let mut image = RgbImage::from_pixel(columns * SIDE, rows * SIDE, image::Rgb([200, 30, 90]));
                put(&mut image, &own, row, column);
                let grid = tokenizer.encode(&image).unwrap();
                assert_eq!(code(&grid, row, column), expected, "{target}: {row}, {column} of {rows}x{columns}");
                assert_eq!(n_distinct(&grid), 2, "{target}");
            }
        }
    });
}

/// Also where equal patches are encoded once, in images that have some and in a batch.
#[test]
fn an_image_is_its_patches() {
    for n_res_blocks in [0, 1] {
        each(n_res_blocks, |tokenizer, target| {
            let mut images = [noise(80, 48, 2), noise(80, 48, 3)];
            let twice = patch(&images[0], 1, 2);
            put(&mut images[0], &twice, 2, 4);
            put(&mut images[1], &twice, 0, 0);
            let grids = tokenizer.encode_batch(&images).unwrap();
            assert!(n_distinct(&grids[0]) > 8, "{target}: {:?}", grids[0]);
            for (image, grid) in images.iter().zip(&grids) {
                assert_eq!((grid.rows(), grid.columns()), (3, 5));
                for (row, column) in (0..3).flat_map(|row| (0..5).map(move |column| (row, column))) {
                    let alone = tokenizer.encode(&patch(image, row, column)).unwrap();
                    assert_eq!(alone.codes(), [code(grid, row, column)], "{target}: {row}, {column}");
                }
            }
            // The network itself, which sees whole images in training.
            let values = images.iter().flat_map(preprocess::to_tensor_values).collect();
            let pixels = Maps::new(&Compute::cpu(), values, [2, 3, 48, 80]);
            let latents = tokenizer.model().latents(pixels, Bands::Whole).unwrap();
            assert_eq!(latents.dims(), [2, 8, 3, 5]);
            let codes = tokenizer.model().quantize(latents).unwrap();
            assert_eq!(codes, [grids[0].codes(), grids[1].codes()].concat(), "{target}");
        });
    }
}

#[test]
fn many_patches_are_encoded_in_parts() {
    each(0, |tokenizer, target| {
        let image = noise(48 * SIDE, 24 * SIDE, 5);
        let grid = tokenizer.encode(&image).unwrap();
        assert!(n_distinct(&grid) > 16, "{target}: {}", n_distinct(&grid));
        let tight = patch(&image, 23, 47);
        assert_eq!(code(&grid, 23, 47), tokenizer.encode(&tight).unwrap().codes()[0], "{target}");
        let first = tokenizer.encode(&imageops::crop_imm(&image, 0, 0, 48 * SIDE, SIDE).to_image()).unwrap();
        assert_eq!(grid.codes()[..48], *first.codes(), "{target}");
    });
}

/// With room for some patches of an image or for all, now or later.
#[test]
fn known_patches_keep_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config(1));
    let open = || ImageTokenizer::open(folder.path(), &Compute::cpu()).unwrap();
    let images = [1, 2, 1].map(|seed| noise(64, 48, seed));
    let expected = images.each_ref().map(|image| open().encode(image).unwrap());
    assert_ne!(expected[0], expected[1]);
    for n in [0, 5, 1000] {
        let tokenizer = open().with_known_patches(n);
        assert_eq!(images.each_ref().map(|image| tokenizer.encode(image).unwrap()), expected, "{n}");
        assert_eq!(tokenizer.encode_batch(&images).unwrap(), expected, "{n}");
    }
}

#[test]
fn decoding_in_bands_is_decoding_whole() {
    each(1, |tokenizer, target| {
        let grid = CodeGrid::new(5, 4, (0..20).map(|at| at * 23 % 512).collect()).unwrap();
        let whole = tokenizer.decode(&grid, Bands::Whole).unwrap();
        assert_eq!(whole.dimensions(), (64, 80));
        assert!(whole.iter().collect::<std::collections::BTreeSet<_>>().len() > 64, "{target}: a flat image");
        for rows in [1, 7, 32] {
            let banded = tokenizer.decode(&grid, Bands::Rows(rows)).unwrap();
            let worst = whole.iter().zip(banded.iter()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{target}: {worst:?} with bands of {rows} rows");
        }
    });
}

/// Every target has the latents and the pixels of the host.
#[test]
fn targets_agree() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config(1));
    let host = ImageTokenizer::open(folder.path(), &Compute::cpu()).unwrap();
    let (image, grid) = (noise(48, 32, 9), CodeGrid::new(2, 3, vec![5, 100, 7, 511, 0, 5]).unwrap());
    let run = |tokenizer: &ImageTokenizer| {
        let pixels = Maps::new(&Compute::cpu(), preprocess::to_tensor_values(&image), [1, 3, 32, 48]);
        let latents = tokenizer.model().latents(pixels, Bands::Whole).unwrap().read().unwrap();
        let looked_up = tokenizer.model().lookup(grid.codes(), [1, 2, 3]).unwrap();
        [latents, tokenizer.model().decode(looked_up, Bands::Whole).unwrap().read().unwrap()]
    };
    let expected = run(&host);
    for compute in targets() {
        let found = run(&ImageTokenizer::open(folder.path(), &compute).unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            assert!(found.len() == expected.len() && worst <= 1e-4 * largest, "{compute}: {worst} of {largest}");
        }
    }
}

#[test]
fn the_config_survives_and_has_no_attention() {
    let (config, file) = (config(1), Path::new("vqgan.yaml"));
    let yaml = config.to_yaml();
    assert!(yaml.contains("attn_type: none") && config.is_local(), "{yaml}");
    assert_eq!(VqConfig::from_yaml(&yaml, file).unwrap(), config);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config);
    let checkpoint = Checkpoint::open(folder.path().join("vqgan.safetensors")).unwrap();
    assert!(checkpoint.names().any(|name| name == "encoder.mid.block_2.conv2.weight"));
    assert!(!checkpoint.names().any(|name| name.contains("attn")));

    let json = serde_json::json!({
        "embed_dim": 8, "num_embeddings": 512, "latent_channels": 8, "resolution": 256, "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1, 1], "num_res_blocks": 1, "attn_type": "none", "local": true,
    });
    assert_eq!(VqConfig::from_json(&json, file).unwrap(), config);
}

/// Norms without statistics have no groups, which channels would have to divide into; GPUs load four at a time.
#[test]
fn channels_are_a_multiple_of_four() {
    let hyperparameters = |is_local| VqHyperparameters {
        channels: 12,
        multipliers: vec![1, 2],
        attention_resolutions: Vec::new(),
        is_local,
        ..VqHyperparameters::default()
    };
    assert!(VqConfig::new(hyperparameters(true)).is_ok());
    let message = VqConfig::new(hyperparameters(false)).unwrap_err().to_string();
    assert!(message.contains("multiple of 32"), "{message}");
    assert!(VqConfig::new(VqHyperparameters { channels: 0, ..hyperparameters(true) }).is_err());
    let message = VqConfig::new(VqHyperparameters { channels: 6, ..hyperparameters(true) }).unwrap_err().to_string();
    assert!(message.contains("multiple of 4"), "{message}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let (yaml, file) = (config(1).to_yaml(), Path::new("vqgan.yaml"));
    for (from, to, expected) in [
        ("local: true", "local: false", "`attn_type: none` is not supported without `local: true`"),
        ("attn_type: none", "attn_type: vanilla", "`local: true` has no attention; add `attn_type: none`"),
        ("      attn_type: none\n", "", "`local: true` has no attention; add `attn_type: none`"),
        ("attn_type: none\n      local: true", "attn_type: linear", "`attn_type other than vanilla`"),
        ("attn_resolutions: []", "attn_resolutions: [16]", "`attn_resolutions` is [16]"),
        ("local: true", "local: 3", "not a config of an image tokenizer"),
    ] {
        assert!(yaml.contains(from), "{yaml}");
        let message = VqConfig::from_yaml(&yaml.replace(from, to), file).unwrap_err().to_string();
        assert!(message.contains(expected), "{to}: {message}");
    }
    let json = serde_json::json!({ "local": true });
    let message = VqConfig::from_json(&json, file).unwrap_err().to_string();
    assert!(message.contains("vq_config: `local: true` has no attention"), "{message}");
}

/// A network that is not local has other tensors, and its file is no file of a local one.
#[test]
fn files_of_other_networks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let local = config(1);
    write(folder.path(), &local);
    let other = local.to_yaml().replace("      attn_type: none\n      local: true\n", "");
    std::fs::write(folder.path().join("vqgan.yaml"), other).unwrap();
    let message = ImageTokenizer::open(folder.path(), &Compute::cpu()).unwrap_err().to_string();
    assert!(message.contains("encoder.mid.attn_1"), "{message}");
}
