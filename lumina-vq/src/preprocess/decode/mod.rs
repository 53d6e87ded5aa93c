//! Decodes image files in the colour mode in which Pillow opens them.

mod bmp;
mod encoded;
mod gif;
mod jpeg;
mod kind;
mod palette;
mod png;
mod tiff;
mod webp;

use std::path::Path;

use lumina_core::Limits;

use self::encoded::EncodedImage;
pub(super) use self::encoded::check_sides;
use self::kind::{FileKind, file_kind};
use super::input_image::{IN_MEMORY, InputImage};
use crate::Result;

impl InputImage {
    /// Reads a PNG, JPEG, WebP (first frame), GIF (first frame), BMP or TIFF (first page) file, within the default
    /// [`Limits`].
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) if it is no regular file, is too large, is a Git LFS pointer or cannot be
    /// read; [`UnsupportedImage`](crate::Error::UnsupportedImage), [`Decode`](crate::Error::Decode),
    /// [`NoPixels`](crate::Error::NoPixels), [`TooManyPixels`](crate::Error::TooManyPixels) and
    /// [`ImageMemory`](crate::Error::ImageMemory). They name the file.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_limits(file, Limits::default())
    }

    /// [`InputImage::open`] with other limits: `image_file_bytes`, `image_pixels` and `image_bytes`. They are checked
    /// before memory is allocated.
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
    match file_kind(encoded.bytes) {
        FileKind::Png => png::decode(&encoded),
        FileKind::Jpeg => jpeg::decode(&encoded),
        FileKind::Gif => gif::decode(&encoded),
        FileKind::Bmp => bmp::decode(&encoded),
        FileKind::Dib => bmp::decode_without_file_header(&encoded),
        FileKind::Tiff => tiff::decode(&encoded),
        FileKind::WebP => webp::decode(&encoded),
        FileKind::Other(name) => Err(encoded.unsupported(format!("this is a file of {name}, which is not supported"))),
        FileKind::Unknown if encoded.bytes.is_empty() => Err(encoded.unsupported("the file is empty")),
        FileKind::Unknown => Err(encoded.unsupported("the first bytes are not those of a known image format")),
    }
}
