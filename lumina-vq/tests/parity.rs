//! The VQGAN compared with the original: `vq/` of the reference data, on every compute target that is available.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]

use std::collections::BTreeSet;

use image::RgbImage;
use lumina_checkpoint::{Checkpoint, Dtype, TensorView, save_safetensors};
use lumina_core::CodeGrid;
use lumina_nn::Compute;
use lumina_testing::{cases, integers, part, report};
use lumina_vq::{Bands, ImageTokenizer, Maps, VqConfig};

/// Relative to the largest magnitude: the reference's own tolerance for `z` and `decoded`.
const TOLERANCE: f32 = 1e-4;

struct Arrays(Checkpoint);

impl Arrays {
    fn get(&self, name: &str) -> TensorView {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }
    fn floats(&self, name: &str) -> Vec<f32> {
        self.get(name).to_f32().unwrap()
    }
    fn image(&self, name: &str) -> RgbImage {
        let view = self.get(name);
        let &[height, width, 3] = view.shape() else { panic!("{name}: {:?}", view.shape()) };
        RgbImage::from_raw(width as u32, height as u32, view.bytes().to_vec()).unwrap()
    }
    fn codes(&self, name: &str) -> CodeGrid {
        let view = self.get(name);
        let &[rows, columns] = view.shape() else { panic!("{name}: {:?}", view.shape()) };
        let codes = view.bytes().as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as u32).collect();
        CodeGrid::new(rows as u32, columns as u32, codes).unwrap()
    }
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(worst <= TOLERANCE * largest, "{what}: differs by {worst}, largest magnitude {largest}");
}

fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

fn targets() -> Vec<Compute> {
    #[cfg_attr(not(feature = "burn"), allow(unused_mut, reason = "one more with it"))]
    let mut targets = Compute::available();
    #[cfg(feature = "burn")]
    targets.push(Compute::flex());
    if cfg!(feature = "wgpu") && !targets.iter().any(|compute| compute.to_string().starts_with("wgpu")) {
        eprintln!("SKIPPED on wgpu: this machine has no driver for it");
    }
    targets
}

#[test]
fn vqgan() {
    let arrays = Arrays(Checkpoint::open(part("vq/cases.safetensors")).unwrap());
    let cases = cases("vq/cases.json");
    for compute in targets() {
        let tokenizer = ImageTokenizer::open(part("vq"), &compute).unwrap();
        let model = tokenizer.model();
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let what = format!("{name} on {compute}");
            let expected_codes = arrays.codes(&format!("{name}.codes"));
            let (rows, columns) = (expected_codes.rows() as usize, expected_codes.columns() as usize);
            if arrays.0.contains(&format!("{name}.pixels")) {
                let pixels = arrays.image(&format!("{name}.pixels"));
                let values = lumina_vq::preprocess::to_tensor_values(&pixels);
                let shape = [1, 3, pixels.height() as usize, pixels.width() as usize];
                let z = model.latents(Maps::new(&compute, values, shape), Bands::Whole).unwrap().read().unwrap();
                assert_close(&format!("{what}: z"), &z, &arrays.floats(&format!("{name}.z")));
                let codes = tokenizer.encode(&pixels).unwrap();
                assert_eq!((codes.rows(), codes.columns()), (expected_codes.rows(), expected_codes.columns()));
                let ties: BTreeSet<usize> = integers(&case["near_ties"]).into_iter().collect();
                for (position, (found, expected)) in codes.codes().iter().zip(expected_codes.codes()).enumerate() {
                    let equal = found == expected || ties.contains(&position);
                    assert!(equal, "{what}: code {position} is {found}, not {expected}");
                }
            }
            let expected = arrays.floats(&format!("{name}.decoded"));
            let expected_image = arrays.image(&format!("{name}.image"));
            // Bands of rows change the memory use, not the result.
            for bands in [Bands::Whole, Bands::Rows(24), Bands::Rows(7)] {
                let latents = model.lookup(expected_codes.codes(), [1, rows, columns]).unwrap();
                let decoded = model.decode(latents, bands).unwrap().read().unwrap();
                assert_close(&format!("{what}: decoded, {bands:?}"), &decoded, &expected);
                let image = tokenizer.decode(&expected_codes, bands).unwrap();
                let worst = largest_difference(&image, &expected_image);
                assert!(worst <= 1, "{what}: image, {bands:?}: differs by {worst}");
            }
        }
        report(&format!("vq on {compute}"), cases.len());
    }
}

#[test]
fn encoder_of_the_model_folder() {
    let mut ran = 0;
    for entry in std::fs::read_dir(part("model")).unwrap() {
        let folder = entry.unwrap().path();
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let compute = &Compute::available()[0];
        if let Some(tokenizer) = ImageTokenizer::from_model(&checkpoint, &config["vq_config"], compute).unwrap() {
            assert!(!tokenizer.has_decoder());
            let factor = tokenizer.config().factor();
            let codes = tokenizer.encode(&RgbImage::new(3 * factor, 2 * factor)).unwrap();
            assert_eq!((codes.rows(), codes.columns()), (2, 3));
            let message = tokenizer.decode(&codes, Bands::Whole).unwrap_err().to_string();
            assert!(message.contains("vqgan.ckpt"), "{message}");
            ran += 1;
        }
    }
    match ran {
        0 => eprintln!("no model folder of this data holds an encoder"),
        _ => report("encoders in model folders", ran),
    }
}

/// Averages of the weights, which training with `use_ema` leaves next to them, change nothing.
#[test]
fn moving_averages_are_passed_over() {
    let compute = &Compute::available()[0];
    let config = VqConfig::open(&part("vq/vqgan.yaml")).unwrap();
    let checkpoint = Checkpoint::open(part("vq/vqgan.ckpt")).unwrap();
    let views = checkpoint.names().map(|name| checkpoint.get(name).unwrap());
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = views
        .map(|view| (view.name().to_owned(), view.dtype(), view.shape().to_vec(), view.bytes().to_vec()))
        .collect();
    let first = checkpoint.get("encoder.conv_in.weight").unwrap();
    let zeros = vec![0; first.bytes().len()];
    tensors.extend([
        ("model_ema.decay".to_owned(), Dtype::F32, vec![], 0.9999f32.to_le_bytes().to_vec()),
        ("model_ema.num_updates".to_owned(), Dtype::I32, vec![], 7i32.to_le_bytes().to_vec()),
        ("model_ema.encoderconv_inweight".to_owned(), first.dtype(), first.shape().to_vec(), zeros),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vqgan.safetensors");
    let open = |tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]| {
        let tensors = tensors.iter().cloned();
        save_safetensors(
            &file,
            tensors.map(|(name, dtype, shape, bytes)| (name, dtype, shape, move || Ok(bytes.into()))),
        )
        .unwrap();
        ImageTokenizer::from_file(&file, config.clone(), compute)
    };
    let image = RgbImage::from_fn(48, 32, |x, y| image::Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]));
    let codes = ImageTokenizer::open(part("vq"), compute).unwrap().encode(&image).unwrap();
    assert_eq!(open(&tensors).unwrap().encode(&image).unwrap(), codes);
    // A name that nothing is known of is still an error.
    tensors.push(("model_emas.decay".to_owned(), Dtype::F32, vec![], vec![0; 4]));
    let error = open(&tensors).unwrap_err().to_string();
    assert!(error.contains("model_emas.decay"), "{error}");
}

/// A batch gives the same codes and images as each image alone.
#[test]
fn batches_equal_singles() {
    let tokenizer = ImageTokenizer::open(part("vq"), &Compute::available()[0]).unwrap();
    let images: Vec<RgbImage> = (0..3u32)
        .map(|n| RgbImage::from_fn(48, 32, |x, y| image::Rgb([(x * 5) as u8, (y * 7) as u8, (x * y * (n + 1)) as u8])))
        .collect();
    let batched = tokenizer.encode_batch(&images).unwrap();
    let singles: Vec<CodeGrid> = images.iter().map(|image| tokenizer.encode(image).unwrap()).collect();
    assert_eq!(batched, singles);
    for (grid, image) in batched.iter().zip(tokenizer.decode_batch(&batched, Bands::Whole).unwrap()) {
        assert!(largest_difference(&image, &tokenizer.decode(grid, Bands::Whole).unwrap()) <= 1);
    }
}

#[test]
fn errors_name_the_invalid_input() {
    let tokenizer = ImageTokenizer::open(part("vq"), &Compute::available()[0]).unwrap();
    let factor = tokenizer.config().factor();
    for (width, height) in [(factor + 1, factor), (0, factor)] {
        let message = tokenizer.encode(&RgbImage::new(width, height)).unwrap_err().to_string();
        assert!(message.contains(&format!("{width}x{height}")), "{message}");
    }
    let n_codes = tokenizer.config().n_codes() as u32;
    let beyond = tokenizer.decode(&CodeGrid::new(1, 1, vec![n_codes]).unwrap(), Bands::Whole).unwrap_err().to_string();
    assert!(beyond.contains(&n_codes.to_string()), "{beyond}");
    let mixed = tokenizer.encode_batch(&[RgbImage::new(32, 32), RgbImage::new(32, 48)]).unwrap_err().to_string();
    assert!(mixed.contains("32x48"), "{mixed}");
}
