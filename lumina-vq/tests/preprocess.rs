//! Image preparation compared with the original: `preprocess/` of the reference data, and invalid input.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows them in test functions, but not in what they share"
)]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};
use lumina_core::{ImageSize, choose_size, crop_size_list, crop_sizes};
use lumina_testing::{cases, integers, part, report, sha256};
use lumina_vq::preprocess::{Crop, Fit, InputImage, Limits, Orientation, Preprocessor, to_tensor_values};
use serde_json::Value;

fn pair(value: &Value) -> (u32, u32) {
    match integers(value)[..] {
        [width, height] => (width, height),
        _ => panic!("expected a width and a height, found {value}"),
    }
}

fn integer(case: &Value, key: &str) -> u32 {
    let number = case[key].as_u64().unwrap_or_else(|| panic!("no integer `{key}` in {case:.200}"));
    u32::try_from(number).unwrap()
}

#[test]
fn sizes() {
    let cases = cases("preprocess/crop_sizes.json");
    for case in &cases {
        let expected: Vec<(u32, u32)> = case["sizes"].as_array().unwrap().iter().map(pair).collect();
        let (n_patches, patch_px) = (integer(case, "num_patches"), integer(case, "patch_size"));
        let sizes = crop_size_list(n_patches, patch_px, case["max_ratio"].as_f64().unwrap_or(4.0));
        assert_eq!(sizes, expected, "{n_patches} patches of {patch_px}, ratio {}", case["max_ratio"]);
        if case["max_ratio"].is_null() && patch_px == 32 && case["target_size"].is_u64() {
            let of_target = crop_sizes(integer(case, "target_size")).unwrap();
            assert_eq!(of_target.into_iter().map(<(u32, u32)>::from).collect::<Vec<_>>(), expected);
        }
    }
    report("preprocess/crop_sizes", cases.len());
}

#[test]
fn choice() {
    let cases = cases("preprocess/choose.json");
    for case in &cases {
        let (width, height) = (integer(case, "width"), integer(case, "height"));
        for (target, chosen) in case["chosen"].as_object().unwrap() {
            let sizes = crop_sizes(target.parse().unwrap()).unwrap();
            let size = choose_size(width, height, &sizes).unwrap();
            assert_eq!(<(u32, u32)>::from(size), pair(chosen), "{width}x{height} for {target}");
        }
    }
    report("preprocess/choose", cases.len());
}

/// Tolerance of the statistics of the tensor: the reference sums in `f64`, in another order.
const STATISTICS_TOLERANCE: f64 = 1e-6;
/// Levels by which JPEG decoders differ: each library rounds differently in the inverse transform and the colour
/// conversion, and the bicubic filter can amplify that (up to 4 in 14 files).
const JPEG_LEVELS: u8 = 8;
/// The same on average. A wrong offset or filter would exceed it by far.
const JPEG_MEAN: f64 = 1.0;

#[test]
fn images() {
    let cases = cases("preprocess/images.json");
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let preprocessor = Preprocessor::new(integer(case, "target_size")).unwrap();
        let open = |key: &str| {
            let file = case[key].as_str().unwrap_or_else(|| panic!("{name}: no `{key}`"));
            InputImage::open(part(&format!("preprocess/{file}"))).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let input = open("file");
        assert_eq!((input.width(), input.height()), (integer(case, "width"), integer(case, "height")), "{name}");
        assert_eq!(input.mode().to_string(), case["pillow_mode"].as_str().unwrap(), "{name}");
        assert_eq!(u64::from(input.exif_orientation()), case["exif_orientation"].as_u64().unwrap_or(1), "{name}");

        let chosen = preprocessor.ranked_sizes(&input)[0];
        assert_eq!(<(u32, u32)>::from(chosen), pair(&case["chosen"]), "{name}");
        let fit = preprocessor.fit(&input, chosen).unwrap();
        assert_eq!((fit.scaled_width(), fit.scaled_height()), pair(&case["resized"]), "{name}");
        let prepare = |input: &InputImage| {
            let (left, top) = (integer(case, "left"), integer(case, "top"));
            let image = preprocessor.prepare_as(input, chosen, Crop::At { left, top }).unwrap();
            if case["crop"] == "center" {
                assert_eq!(preprocessor.prepare(input).unwrap(), image, "{name}: centre");
            }
            image
        };
        let expected = image::open(part(&format!("preprocess/{}", case["expected"].as_str().unwrap()))).unwrap();
        let expected = expected.into_rgb8();
        let image = if case["decoded_file"].is_string() {
            assert_near(name, &prepare(&input), &expected);
            prepare(&open("decoded_file"))
        } else {
            prepare(&input)
        };
        assert!(image == expected, "{name}: {}", first_difference(&image, &expected));
        assert_eq!(sha256(&image), case["sha256_rgb"].as_str().unwrap(), "{name}");
        assert_tensor(name, &image, &case["tensor"]);
    }
    report("preprocess/images", cases.len());
}

fn first_difference(found: &RgbImage, expected: &RgbImage) -> String {
    let differs = found.enumerate_pixels().zip(expected.pixels()).find(|((_, _, a), b)| *a != *b);
    format!("{:?} and {:?}; first difference {differs:?}", found.dimensions(), expected.dimensions())
}

fn assert_near(name: &str, found: &RgbImage, expected: &RgbImage) {
    assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
    let differences: Vec<u8> = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let largest = differences.iter().copied().max().unwrap();
    let mean = differences.iter().copied().map(f64::from).sum::<f64>() / differences.len() as f64;
    assert!(largest <= JPEG_LEVELS && mean <= JPEG_MEAN, "{name}: differs by {largest}, on average by {mean}");
}

fn assert_tensor(name: &str, image: &RgbImage, tensor: &Value) {
    let values = to_tensor_values(image);
    assert_eq!(integers::<u32>(&tensor["shape"]), [1, 3, image.height(), image.width()], "{name}");
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(sha256(&bytes), tensor["sha256_f32_le"].as_str().unwrap(), "{name}");
    let numbers = |key: &str| tensor[key].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    let floats = |key: &str| numbers(key).into_iter().map(|number| number as f32).collect::<Vec<_>>();
    assert_eq!(values[..16], floats("first16"), "{name}");
    assert_eq!(values[values.len() - 4..], floats("last4"), "{name}");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let all: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let mean_of_all = mean(&all);
    let variance = mean(&all.iter().map(|value| (value - mean_of_all).powi(2)).collect::<Vec<_>>());
    let near = |key: &str, found: f64, expected: f64| {
        assert!((found - expected).abs() <= STATISTICS_TOLERANCE, "{name}: {key} is {found}, not {expected}");
    };
    near("mean", mean_of_all, tensor["mean"].as_f64().unwrap());
    near("std", variance.sqrt(), tensor["std"].as_f64().unwrap());
    for (channel, expected) in all.chunks(all.len() / 3).zip(numbers("channel_means")) {
        near("channel mean", mean(channel), expected);
    }
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut states = lumina_testing::lcg(1);
    RgbImage::from_fn(width, height, |_, _| image::Rgb([0; 3].map(|_: u8| (states.next().unwrap() >> 24) as u8)))
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];

#[test]
fn every_lossless_format_gives_the_same_pixels() {
    let image = noise(300, 217);
    let preprocessor = Preprocessor::new(256).unwrap();
    let expected = preprocessor.prepare(&InputImage::from(image.clone())).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let input = InputImage::from_bytes(&encoded(&image, format)).unwrap();
        assert_eq!(preprocessor.prepare(&input).unwrap(), expected, "{format:?}");
    }
}

#[test]
fn truncated_and_corrupted_files_never_panic() {
    let image = noise(70, 53);
    for format in FORMATS {
        let bytes = encoded(&image, format);
        let refused =
            (0..bytes.len()).step_by(bytes.len() / 97).filter(|&n| InputImage::from_bytes(&bytes[..n]).is_err());
        assert!(refused.count() >= 97, "{format:?}: a truncated file was accepted");
        for (position, flip) in (0..bytes.len()).step_by(bytes.len() / 211).zip(lumina_testing::lcg(5)) {
            let mut bytes = bytes.clone();
            bytes[position] ^= (flip >> 24) as u8;
            if let Ok(input) = InputImage::from_bytes(&bytes) {
                let _ = Preprocessor::new(64).unwrap().prepare(&input);
            }
        }
    }
}

#[test]
fn errors_name_the_damaged_file() {
    let folder = tempfile::tempdir().unwrap();
    for (file, format) in [("broken.png", ImageFormat::Png), ("broken.jpg", ImageFormat::Jpeg)] {
        let mut bytes = encoded(&noise(64, 64), format);
        bytes.truncate(bytes.len() / 2);
        let path = folder.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        let message = InputImage::open(&path).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains("damaged or cut off"), "{message}");
    }
    let mut png = encoded(&noise(64, 64), ImageFormat::Png);
    let middle = png.len() / 2;
    png[middle] ^= 0x55;
    let message = InputImage::from_bytes(&png).unwrap_err().to_string();
    assert!(message.contains("image in memory") && message.contains("PNG"), "{message}");

    let message = InputImage::open(folder.path().join("none.png")).unwrap_err().to_string();
    assert!(message.contains("none.png") && message.contains("cannot be read"), "{message}");
    for (bytes, reason) in [(&b""[..], "empty"), (b"no image", "not those of a known"), (b"qoif1234", "qoi")] {
        let message = InputImage::from_bytes(bytes).unwrap_err().to_string();
        assert!(message.contains(reason) && message.contains("convert it"), "{message}");
    }
}

/// The start of a PNG file whose header states a size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(&RgbImage::new(1, 1), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &bytes[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

/// A small file of each format whose header states 30,000 × 30,000 pixels.
#[test]
fn headers_of_huge_images_are_refused() {
    let small = RgbImage::new(16, 16);
    let mut jpeg = encoded(&small, ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    let mut gif = encoded(&small, ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0x30, 0x75, 0x30, 0x75]);
    let mut bmp = encoded(&small, ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&30_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&30_000u32.to_le_bytes());
    for bytes in [png_header(30_000, 30_000), jpeg, gif, bmp] {
        let message = InputImage::from_bytes(&bytes).unwrap_err().to_string();
        assert!(message.contains("30000x30000") && message.contains("178956970"), "{message}");
    }
    let limits = Limits::default().max_pixels(255);
    let message =
        InputImage::from_bytes_with_limits(&encoded(&small, ImageFormat::Png), limits).unwrap_err().to_string();
    assert!(message.contains("16x16") && message.contains("255"), "{message}");
}

#[test]
fn images_without_pixels_are_errors() {
    let preprocessor = Preprocessor::new(256).unwrap();
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        let message = preprocessor.prepare(&InputImage::from(RgbImage::new(width, height))).unwrap_err().to_string();
        assert!(message.contains(&format!("{width}x{height}")) && message.contains("at least 1"), "{message}");
    }
    let message = InputImage::from_bytes(&png_header(0, 7)).unwrap_err().to_string();
    assert!(message.contains("PNG") || message.contains("0x7"), "{message}");
}

/// Scaled to cover 128×512 this image has 128×1,280,000 pixels, of which only the crop is computed.
#[test]
fn a_long_narrow_image_costs_no_more_than_others() {
    let preprocessor = Preprocessor::new(256).unwrap();
    let input = InputImage::from(noise(1, 10_000));
    let size = preprocessor.ranked_sizes(&input)[0];
    let fit = preprocessor.fit(&input, size).unwrap();
    assert_eq!((size.to_string().as_str(), fit.scaled_height()), ("128x512", 1_280_000));
    let image = preprocessor.prepare(&input).unwrap();
    assert_eq!(image.dimensions(), (128, 512));
    // The crop depends only on pixels around the centre: a short piece of the image gives the same result.
    let piece = image::imageops::crop_imm(&noise(1, 10_000), 0, 4_900, 1, 200).to_image();
    let top = fit.max_top() / 2 - 4_900 * 128;
    assert_eq!(preprocessor.prepare_as(&InputImage::from(piece), size, Crop::At { left: 0, top }).unwrap(), image);
}

#[test]
fn an_image_that_cannot_be_scaled_is_an_error() {
    let input = InputImage::from(DynamicImage::new_luma8(1, 40_000_000));
    let message = Preprocessor::new(256).unwrap().prepare(&input).unwrap_err().to_string();
    assert!(message.contains("1x40000000") && message.contains("5120000000"), "{message}");
    assert!(Fit::new(1, u32::MAX, ImageSize::new(128, 512).unwrap()).is_none());
}

#[test]
fn a_crop_outside_the_image_is_an_error() {
    let preprocessor = Preprocessor::new(256).unwrap();
    let (input, size) = (InputImage::from(RgbImage::new(511, 333)), ImageSize::new(288, 192).unwrap());
    assert!(preprocessor.prepare_as(&input, size, Crop::At { left: 7, top: 0 }).is_ok());
    for (left, top) in [(8, 0), (0, 1), (u32::MAX, u32::MAX)] {
        let message = preprocessor.prepare_as(&input, size, Crop::At { left, top }).unwrap_err().to_string();
        assert!(message.contains("0..=7") && message.contains(&format!("left {left}")), "{message}");
    }
}

#[test]
fn targets_without_sizes_are_errors() {
    for target_px in [0, 31, 1921] {
        let message = Preprocessor::new(target_px).unwrap_err().to_string();
        assert!(message.contains(&format!("target size {target_px}")), "{message}");
    }
}

/// With [`Orientation::Apply`] the result is that of the rotated pixels.
#[test]
fn orientation_is_applied_on_request() {
    let image = noise(300, 200);
    for value in 1..=8u8 {
        let mut bytes = encoded(&image, ImageFormat::Jpeg);
        // APP1 with one entry, the orientation, big-endian; it directly follows the start of the image.
        let exif =
            [b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[value][..], b"\0\0\0\0\0\0"].concat();
        let segment = [&[0xFF, 0xE1][..], &(exif.len() as u16 + 2).to_be_bytes(), &exif].concat();
        bytes.splice(2..2, segment);
        let input = InputImage::from_bytes(&bytes).unwrap();
        assert_eq!(input.exif_orientation(), value);
        let mut rotated = image::load_from_memory(&bytes).unwrap();
        let ignoring = Preprocessor::new(256).unwrap();
        let applying = ignoring.clone().orientation(Orientation::Apply);
        assert_eq!(ignoring.prepare(&input).unwrap(), ignoring.prepare(&rotated.clone().into()).unwrap());
        rotated.apply_orientation(image::metadata::Orientation::from_exif(value).unwrap());
        assert_eq!(applying.prepare(&input).unwrap(), ignoring.prepare(&rotated.into()).unwrap(), "{value}");
    }
}
