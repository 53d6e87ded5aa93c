//! Image files of kinds that are seldom, compared with Pillow, and files that are refused.
//!
//! In `image_files`, `NAME.rgb.png` has the pixels of `NAME` as Pillow 13 reads them, in RGB, and `NAME.128.png` those
//! of `Preprocessor::new(128)` as the original makes them. `tests/images` has the scripts that write such files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows them in test functions, but not in what they share"
)]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, RgbImage};
use lumina_vq::Error;
use lumina_vq::preprocess::{InputImage, Limits, Preprocessor};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image_files")
}

/// The files that have a right value with this ending, each with it.
fn cases(ending: &str) -> Vec<(PathBuf, RgbImage)> {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let of_case = |expected: PathBuf| {
        let file = expected.to_str()?.strip_suffix(ending)?;
        Some((PathBuf::from(file), image::open(&expected).unwrap().into_rgb8()))
    };
    let cases: Vec<_> = names.filter_map(of_case).collect();
    assert!(cases.len() > 5, "{}: {} cases", folder().display(), cases.len());
    cases
}

/// JPEG within 8 levels a sample and 1 on average, everything else to the bit.
fn assert_equals(file: &Path, found: &RgbImage, expected: &RgbImage) {
    let name = file.display();
    assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
    let differences = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b));
    let largest = differences.clone().max().unwrap();
    let mean = differences.map(f64::from).sum::<f64>() / found.len() as f64;
    let is_jpeg = file.extension().is_some_and(|extension| extension == "jpg") || name.to_string().contains("jpeg");
    let (levels, on_average) = if is_jpeg { (8, 1.0) } else { (0, 0.0) };
    assert!(largest <= levels && mean <= on_average, "{name}: differs by {largest}, on average by {mean}");
}

#[test]
fn pixels_are_those_of_pillow() {
    for (file, expected) in cases(".rgb.png") {
        let image = InputImage::open(&file).unwrap_or_else(|error| panic!("{error}: {:?}", source(&error)));
        assert_equals(&file, &image.to_rgb(), &expected);
    }
}

#[test]
fn prepared_images_are_those_of_the_original() {
    let preprocessor = Preprocessor::new(128).unwrap();
    for (file, expected) in cases(".128.png") {
        let image = InputImage::open(&file).unwrap_or_else(|error| panic!("{error}: {:?}", source(&error)));
        assert_equals(&file, &preprocessor.prepare(&image).unwrap(), &expected);
    }
}

fn source(error: &Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut states = lumina_testing::lcg(3);
    let image = RgbImage::from_fn(40, 30, |_, _| image::Rgb([0; 3].map(|_: u8| (states.next().unwrap() >> 24) as u8)));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn files_that_lack_only_their_end_are_read() {
    for (format, end) in [(ImageFormat::Png, 12), (ImageFormat::Png, 5), (ImageFormat::Jpeg, 2), (ImageFormat::Gif, 1)]
    {
        let bytes = encoded(format);
        let whole = InputImage::from_bytes(&bytes).unwrap().to_rgb();
        let cut = InputImage::from_bytes(&bytes[..bytes.len() - end]).unwrap().to_rgb();
        let differs = whole.iter().zip(cut.iter()).any(|(a, b)| a.abs_diff(*b) > 4);
        assert!(!differs, "{format:?}");
    }
}

#[test]
fn files_that_are_no_images_are_named() {
    let message = |file: &str| InputImage::open(folder().join(file)).unwrap_err().to_string();
    let heic = message("heic.heic");
    assert!(heic.contains("HEIC") && heic.contains("convert it to PNG"), "{heic}");
    let pointer = message("lfs_pointer.jpg");
    assert!(pointer.contains("lfs_pointer.jpg") && pointer.contains("git lfs pull"), "{pointer}");
    let text = InputImage::from_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>").unwrap_err().to_string();
    assert!(text.contains("SVG"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn devices_pipes_and_large_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for file in [Path::new("/dev/zero"), &pipe] {
        let error = InputImage::open(file).unwrap_err();
        assert!(matches!(&error, Error::Core(lumina_core::Error::NotAFile { .. })), "{error}");
    }
    let file = folder.path().join("a.png");
    std::fs::write(&file, encoded(ImageFormat::Png)).unwrap();
    let mut limits = Limits::default();
    limits.image_file_bytes = 100;
    let error = InputImage::open_with_limits(&file, limits).unwrap_err();
    assert!(matches!(&error, Error::Core(lumina_core::Error::FileTooLarge { limit: 100, .. })), "{error}");
}

/// Every file of this folder, cut off and with bytes changed.
#[test]
fn damaged_files_never_panic() {
    let mut limits = Limits::default();
    limits.image_bytes = 8 << 20;
    for (file, _) in cases(".rgb.png") {
        let bytes = std::fs::read(&file).unwrap();
        for n in (0..bytes.len()).step_by(bytes.len() / 61 + 1) {
            let _ = InputImage::from_bytes_with_limits(&bytes[..n], limits);
        }
        for (position, value) in (0..bytes.len()).step_by(bytes.len() / 311 + 1).zip(lumina_testing::lcg(9)) {
            let mut bytes = bytes.clone();
            bytes[position] = (value >> 24) as u8;
            let _ = InputImage::from_bytes_with_limits(&bytes, limits);
        }
    }
}
