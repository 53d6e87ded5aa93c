//! The image tokenizer on a GPU, compared with itself. `parity.rs` compares it with the original.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is the failure, a print the report")]

use image::RgbImage;
use lumina_core::CodeGrid;
use lumina_nn::Compute;
use lumina_testing::part;
use lumina_vq::{Bands, ImageTokenizer};

fn tokenizer() -> Option<ImageTokenizer> {
    let is_gpu = |compute: &Compute| ["wgpu", "cuda"].iter().any(|name| compute.to_string().starts_with(name));
    let Some(compute) = Compute::available().into_iter().find(is_gpu) else {
        eprintln!("SKIPPED: this machine has no driver for a GPU");
        return None;
    };
    Some(ImageTokenizer::open(part("vq"), &compute).unwrap())
}

fn images(n: u32) -> Vec<RgbImage> {
    let pixel = |n: u32, x: u32, y: u32| image::Rgb([(x * 5) as u8, (y * 7) as u8, (x * y * (n + 1)) as u8]);
    (0..n).map(|n| RgbImage::from_fn(48, 32, |x, y| pixel(n, x, y))).collect()
}

/// Codes and pixels are equal alone, in a batch and in bands: here to the bit.
#[test]
fn an_image_does_not_depend_on_its_batch() {
    let Some(tokenizer) = tokenizer() else { return };
    let images = images(3);
    let grids = tokenizer.encode_batch(&images).unwrap();
    let singles: Vec<CodeGrid> = images.iter().map(|image| tokenizer.encode(image).unwrap()).collect();
    assert_eq!(grids, singles);
    let decoded = tokenizer.decode_batch(&grids, Bands::Whole).unwrap();
    for (grid, image) in grids.iter().zip(&decoded) {
        assert_eq!(&tokenizer.decode(grid, Bands::Whole).unwrap(), image);
        assert_eq!(&tokenizer.decode(grid, Bands::Rows(7)).unwrap(), image);
    }
    // In `f16` pixels are nearly the same, and without tensor cores they are the same.
    for (exact, image) in decoded.iter().zip(tokenizer.with_f16_decoding().decode_batch(&grids, Bands::Whole).unwrap())
    {
        assert!(exact.iter().zip(image.iter()).all(|(a, b)| a.abs_diff(*b) <= 3));
    }
}

#[test]
fn threads_share_a_device() {
    let Some(tokenizer) = tokenizer() else { return };
    let images = images(4);
    let expected = tokenizer.encode_batch(&images).unwrap();
    std::thread::scope(|scope| {
        for (image, expected) in images.iter().zip(&expected) {
            let tokenizer = &tokenizer;
            scope.spawn(move || assert_eq!(&tokenizer.encode(image).unwrap(), expected));
        }
    });
}
