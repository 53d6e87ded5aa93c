//! The files that examples read and write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use lumina_mgpt::{InputImage, Lumina, Part};

/// The default prompt of examples that draw an image: a scene that the small model knows.
pub const SCENE_PROMPT: &str =
    "a large red circle in the top left and a small blue square in the bottom right on a white background";

/// A file or folder of the test data, which contains small networks with the published layouts and random weights.
pub fn test_data(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference")).join(path)
}

/// The folder of the small model in this repository. `train_tiny` trained it on images of simple scenes.
pub fn small_model() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../model")).to_owned()
}

/// Opens an image; by default a scene that the small model knows.
///
/// # Errors
/// Those of [`InputImage::open`].
pub fn open_image(file: Option<&Path>) -> Result<InputImage> {
    let file = file.map_or_else(|| small_model().join("scene.png"), Path::to_owned);
    Ok(InputImage::open(file)?)
}

/// Converts a message to the parts of a conversation: `@file` becomes the image in that file.
///
/// # Errors
/// Those of [`InputImage::open`] and [`Lumina::encode_image`].
pub fn message_parts(model: &Lumina, message: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for word in message.split_inclusive(' ') {
        match word.strip_prefix('@') {
            Some(file) => parts.extend([model.encode_image(&InputImage::open(file.trim())?)?.into(), " ".into()]),
            None => parts.push(word.into()),
        }
    }
    Ok(parts)
}

/// Writes an image as PNG under a temporary name and renames it, so that an image viewer never sees an incomplete file.
///
/// # Errors
/// The system's error, with the name of the file.
pub fn save_png(image: &RgbImage, file: &Path) -> Result<()> {
    let save = || {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut partial = OsString::from(file);
        partial.push(".partial");
        image.save_with_format(&partial, ImageFormat::Png)?;
        anyhow::Ok(std::fs::rename(&partial, file)?)
    };
    save().with_context(|| format!("{}: cannot be written", file.display()))
}
