//! The files that examples read and write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use lumina_mgpt::{Lumina, Part};
use lumina_vq::preprocess::InputImage;

/// A file or folder of the tests' data: networks of the published layouts with random weights, among others.
pub fn sample(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference")).join(path)
}

/// The small model in this repository, which `train_tiny` made: it knows pictures of simple scenes.
pub fn small_model() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../model")).to_owned()
}

/// Opens a picture, or where none is given one that the small model understands.
///
/// # Errors
/// Those of [`InputImage::open`].
pub fn open_picture(file: Option<&Path>) -> Result<InputImage> {
    let file = file.map_or_else(|| small_model().join("scene.png"), Path::to_owned);
    Ok(InputImage::open(file)?)
}

/// A message as what goes into a conversation: `@file` in it becomes the picture in that file.
///
/// # Errors
/// Those of [`InputImage::open`] and [`Lumina::encode_image`].
pub fn parts(model: &Lumina, message: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for word in message.split_inclusive(' ') {
        match word.strip_prefix('@') {
            Some(file) => parts.extend([model.encode_image(&InputImage::open(file.trim())?)?.into(), " ".into()]),
            None => parts.push(word.into()),
        }
    }
    Ok(parts)
}

/// Writes a picture as PNG under a temporary name and renames it: a viewer sees the old file or the new one, whole.
///
/// # Errors
/// Where the system refuses, with the file's name.
pub fn save_png(picture: &RgbImage, file: &Path) -> Result<()> {
    let save = || {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut partial = OsString::from(file);
        partial.push(".partial");
        picture.save_with_format(&partial, ImageFormat::Png)?;
        anyhow::Ok(std::fs::rename(&partial, file)?)
    };
    save().with_context(|| format!("{}: cannot be written", file.display()))
}
