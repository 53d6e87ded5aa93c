//! Decodes image files in the colour mode in which Pillow opens them.

mod encoded;
mod gif;
mod jpeg;
mod other;
mod palette;
mod png;

use std::path::Path;

use image::ImageFormat;
use lumina_core::Limits;

pub(super) use self::encoded::check_sides;
use self::encoded::EncodedImage;
use super::input_image::{IN_MEMORY, InputImage};
use crate::{Error, Result};

impl InputImage {
    /// Reads a PNG, JPEG, WebP, GIF (first frame), BMP or TIFF file, within the default [`Limits`].
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::UnsupportedImage`], [`Error::Decode`], [`Error::NoPixels`] and
    /// [`Error::TooManyPixels`]. They name the file.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_limits(file, Limits::default())
    }

    /// [`InputImage::open`] with other limits. They are checked before pixels are allocated.
    ///
    /// # Errors
    /// As [`InputImage::open`].
    pub fn open_with_limits(file: impl AsRef<Path>, limits: Limits) -> Result<Self> {
        let file = file.as_ref();
        let bytes = lumina_core::file::read(file, limits.image_file_bytes)?;
        decode(EncodedImage { name: &file.display().to_string(), bytes: &bytes, limits })
    }

    /// Decodes the bytes of an image file, as [`InputImage::open`] does.
    ///
    /// # Errors
    /// As [`InputImage::open`], with "image in memory" in place of the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes_with_limits(bytes, Limits::default())
    }

    /// [`InputImage::from_bytes`] with other limits.
    ///
    /// # Errors
    /// As [`InputImage::from_bytes`].
    pub fn from_bytes_with_limits(bytes: &[u8], limits: Limits) -> Result<Self> {
        decode(EncodedImage { name: IN_MEMORY, bytes, limits })
    }
}

fn decode(encoded: EncodedImage<'_>) -> Result<InputImage> {
    match image::guess_format(encoded.bytes) {
        Ok(ImageFormat::Png) => png::decode(&encoded),
        Ok(ImageFormat::Jpeg) => jpeg::decode(&encoded),
        Ok(ImageFormat::Gif) => gif::decode(&encoded),
        Ok(ImageFormat::Bmp) => other::decode_bmp(&encoded),
        Ok(ImageFormat::Tiff) => other::decode_tiff(&encoded),
        Ok(ImageFormat::WebP) => other::decode_webp(&encoded),
        Ok(format) => {
            let extension = format.extensions_str().first().unwrap_or(&"such");
            Err(encoded.unsupported(format!("{extension} files are not supported")))
        }
        Err(_) if encoded.bytes.is_empty() => Err(encoded.unsupported("the file is empty")),
        Err(_) => Err(encoded.unsupported("the first bytes are not those of a known image format")),
    }
}
