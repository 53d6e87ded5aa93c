//! Files to pictures, each in the mode in which Pillow opens it.

mod gif;
mod jpeg;
mod other;
mod png;

use image::ImageFormat;

use super::input_image::{Limits, Picture};
use crate::{Error, Result};

/// The picture in the bytes of a file; `name` is what errors call it.
pub(super) fn picture(name: &str, bytes: &[u8], limits: Limits) -> Result<Picture> {
    let source = Source { name, bytes, limits };
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => png::picture(&source),
        Ok(ImageFormat::Jpeg) => jpeg::picture(&source),
        Ok(ImageFormat::Gif) => gif::picture(&source),
        Ok(ImageFormat::Bmp) => other::bmp(&source),
        Ok(ImageFormat::Tiff) => other::tiff(&source),
        Ok(ImageFormat::WebP) => other::webp(&source),
        Ok(format) => {
            Err(source
                .unsupported(format!("{} files are not read", format.extensions_str().first().unwrap_or(&"such"))))
        }
        Err(_) if bytes.is_empty() => Err(source.unsupported("the file is empty".to_owned())),
        Err(_) => Err(source.unsupported("the first bytes are not those of a known image format".to_owned())),
    }
}

/// What every decoder is given.
struct Source<'a> {
    name: &'a str,
    bytes: &'a [u8],
    limits: Limits,
}

impl Source<'_> {
    fn check(&self, size: (u32, u32)) -> Result<()> {
        self.limits.check(self.name, size)
    }

    fn damaged(&self, format: &'static str, reason: impl ToString) -> Error {
        Error::Decode { picture: self.name.to_owned(), format, reason: reason.to_string() }
    }

    fn unsupported(&self, reason: String) -> Error {
        Error::UnsupportedPicture { picture: self.name.to_owned(), reason }
    }
}

/// The colours of a palette's 256 indices.
struct Palette([[u8; 4]; 256]);

impl Palette {
    /// A palette from the RGB triples of a file. Indices beyond it are black, as in Pillow.
    fn new(rgb: &[u8]) -> Self {
        let mut colors = [[0, 0, 0, 255]; 256];
        for (color, rgb) in colors.iter_mut().zip(rgb.as_chunks::<3>().0) {
            color[..3].copy_from_slice(rgb);
        }
        Self(colors)
    }

    /// Whether the `n` colours of a file are the greys 0, 1, 2, …: its indices are then grey values.
    fn is_grey(&self, n: usize) -> bool {
        self.0.iter().zip(0..=255u8).take(n).all(|(color, grey)| color[..3] == [grey; 3])
    }

    fn is_opaque(&self) -> bool {
        self.0.iter().all(|color| color[3] == 255)
    }

    /// The colours of indices: the number of channels, 3 or 4, and the samples.
    fn look_up(&self, indices: &[u8]) -> (usize, Vec<u8>) {
        let color = |index: &u8| self.0[usize::from(*index)];
        if self.is_opaque() {
            (3, indices.iter().flat_map(|index| color(index).into_iter().take(3)).collect())
        } else {
            (4, indices.iter().flat_map(color).collect())
        }
    }
}
