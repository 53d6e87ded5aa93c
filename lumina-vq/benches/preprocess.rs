//! Preparing a photo of 12 megapixels, compared in the same run with reading its bytes once (`sum`).

use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::{DynamicImage, ImageFormat, RgbImage};
use lumina_vq::preprocess::{InputImage, Preprocessor, to_tensor_values};

/// A gradient with noise: it compresses about as well as a photo.
fn photo() -> RgbImage {
    let mut state = 1u32;
    RgbImage::from_fn(4000, 3000, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(x / 20) as u8, (y / 15) as u8, 90].map(|base| base.saturating_add((state >> 27) as u8)))
    })
}

fn benches(criterion: &mut Criterion) {
    let photo = photo();
    let mut jpeg = Cursor::new(Vec::new());
    DynamicImage::from(photo.clone()).write_to(&mut jpeg, ImageFormat::Jpeg).expect("a photo is encoded");
    let jpeg = jpeg.into_inner();
    let mut group = criterion.benchmark_group("preprocess/12 megapixels");
    group.sample_size(20).throughput(Throughput::Bytes(photo.len() as u64));
    group.bench_function("limit: read the bytes once", |bencher| {
        bencher.iter(|| black_box(&photo).iter().map(|&byte| u64::from(byte)).sum::<u64>())
    });
    let input = InputImage::from(photo.clone());
    for target_px in [512, 768, 1024] {
        let preprocessor = Preprocessor::new(target_px).expect("a target of the published models");
        group.bench_function(format!("in memory, target {target_px}"), |bencher| {
            bencher.iter(|| preprocessor.prepare(black_box(&input)).expect("it has pixels"))
        });
    }
    let odd = InputImage::from(image::imageops::crop_imm(&photo, 0, 0, 3999, 2999).to_image());
    let preprocessor = Preprocessor::new(768).expect("a target of the published models");
    group.bench_function("in memory, odd sides, target 768", |bencher| {
        bencher.iter(|| preprocessor.prepare(black_box(&odd)).expect("it has pixels"))
    });
    group.bench_function("decode JPEG", |bencher| {
        bencher.iter(|| InputImage::from_bytes(black_box(&jpeg)).expect("it is complete"))
    });
    group.bench_function("decode JPEG, prepare, tensor values, target 768", |bencher| {
        bencher.iter(|| {
            let input = InputImage::from_bytes(black_box(&jpeg)).expect("it is complete");
            to_tensor_values(&preprocessor.prepare(&input).expect("it has pixels"))
        })
    });
    group.finish();
}

criterion_group!(preprocess, benches);
criterion_main!(preprocess);
