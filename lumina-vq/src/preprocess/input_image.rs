//! A picture as its file holds it, before anything is done to its pixels.

use std::fmt;
use std::path::Path;

use image::metadata::Orientation as Exif;
use image::{DynamicImage, RgbImage};

use super::decode;
use super::raster::Raster;
use crate::{Error, Result};

/// How a picture holds its colours; it decides how it is resized. The names ([`Display`](fmt::Display)) are Pillow's.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `1`: black and white. Resized by the nearest pixel.
    Bilevel,
    /// `P`: indices of a palette, which may have alpha. Resized by the nearest pixel.
    Palette,
    /// `L`: grey.
    Luma,
    /// `LA`: grey and alpha.
    LumaAlpha,
    /// `I;16`: 16-bit grey, whose values above 255 all become white.
    Luma16,
    /// `RGB`.
    Rgb,
    /// `RGBA`.
    Rgba,
    /// `CMYK`.
    Cmyk,
}

impl Mode {
    /// Whether resizing takes the nearest pixel, whatever the filter.
    pub(super) fn is_nearest(self) -> bool {
        matches!(self, Self::Bilevel | Self::Palette)
    }

    /// Whether resizing weighs colours by their alpha.
    pub(super) fn has_weighing_alpha(self) -> bool {
        matches!(self, Self::LumaAlpha | Self::Rgba)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bilevel => "1",
            Self::Palette => "P",
            Self::Luma => "L",
            Self::LumaAlpha => "LA",
            Self::Luma16 => "I;16",
            Self::Rgb => "RGB",
            Self::Rgba => "RGBA",
            Self::Cmyk => "CMYK",
        })
    }
}

/// What a picture may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    max_pixels: u64,
}

impl Default for Limits {
    /// The pixels above which Pillow refuses a file as a decompression bomb: 178,956,970, of at most 8 bytes.
    fn default() -> Self {
        Self { max_pixels: 178_956_970 }
    }
}

impl Limits {
    /// Refuses pictures of more pixels than `max_pixels`; a pixel costs up to 8 bytes while it is decoded.
    pub fn max_pixels(mut self, max_pixels: u64) -> Self {
        self.max_pixels = max_pixels;
        self
    }

    /// The most bytes that a decoder may take for pixels.
    pub(super) fn max_bytes(self) -> u64 {
        self.max_pixels.saturating_mul(8)
    }

    /// An error where a picture has no pixels, or too many.
    pub(super) fn check(self, picture: &str, (width, height): (u32, u32)) -> Result<()> {
        let picture = || picture.to_owned();
        if width == 0 || height == 0 {
            return Err(Error::NoPixels { picture: picture(), width, height });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(Error::TooManyPixels { picture: picture(), width, height, max_pixels: self.max_pixels });
        }
        Ok(())
    }
}

/// The samples of a picture: 8 bits, but for [`Mode::Luma16`].
#[derive(Debug, Clone)]
pub(super) enum Pixels {
    Bytes(Raster<u8>),
    Words(Raster<u16>),
}

/// A picture in the mode of its file: what [`Preprocessor`](super::Preprocessor) takes.
///
/// ```
/// use lumina_vq::preprocess::Picture;
///
/// let picture = Picture::from(image::RgbImage::new(640, 480));
/// assert_eq!((picture.width(), picture.height()), (640, 480));
/// assert_eq!(picture.mode().to_string(), "RGB");
/// ```
#[derive(Debug, Clone)]
pub struct Picture {
    pub(super) name: String,
    pub(super) mode: Mode,
    /// A palette is applied already: picking pixels and looking up their colours can change places.
    pub(super) pixels: Pixels,
    /// The grey that the file calls transparent.
    pub(super) transparent: Option<u8>,
    pub(super) exif: Exif,
}

impl Picture {
    /// Reads a PNG, JPEG, WebP, GIF (first frame), BMP or TIFF file, within the default [`Limits`].
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::UnsupportedPicture`], [`Error::Decode`], [`Error::NoPixels`] and
    /// [`Error::TooManyPixels`], which name the file.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        Self::open_within(file, Limits::default())
    }

    /// [`Picture::open`] with limits of one's own, which are checked before pixels are allocated.
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn open_within(file: impl AsRef<Path>, limits: Limits) -> Result<Self> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        decode::picture(&file.display().to_string(), &bytes, limits)
    }

    /// The picture in the bytes of a file, as [`Picture::open`] reads it.
    ///
    /// # Errors
    /// As [`Picture::open`], with "picture in memory" in place of the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes_within(bytes, Limits::default())
    }

    /// [`Picture::from_bytes`] with limits of one's own.
    ///
    /// # Errors
    /// As [`Picture::from_bytes`].
    pub fn from_bytes_within(bytes: &[u8], limits: Limits) -> Result<Self> {
        decode::picture(IN_MEMORY, bytes, limits)
    }

    pub(super) fn new(name: &str, mode: Mode, (width, height): (u32, u32), channels: usize, data: Vec<u8>) -> Self {
        let pixels = Pixels::Bytes(Raster::new(width as usize, height as usize, channels, data));
        Self { name: name.to_owned(), mode, pixels, transparent: None, exif: Exif::NoTransforms }
    }

    pub(super) fn grey16(name: &str, (width, height): (u32, u32), data: Vec<u16>) -> Self {
        let pixels = Pixels::Words(Raster::new(width as usize, height as usize, 1, data));
        Self { name: name.to_owned(), mode: Mode::Luma16, pixels, transparent: None, exif: Exif::NoTransforms }
    }

    /// The picture with the orientation that an EXIF block states, if it states one.
    pub(super) fn with_exif(mut self, exif: Option<&[u8]>) -> Self {
        self.exif = exif.and_then(Exif::from_exif_chunk).unwrap_or(Exif::NoTransforms);
        self
    }

    /// The picture turned as its orientation says.
    pub(super) fn upright(mut self) -> Self {
        if self.exif != Exif::NoTransforms {
            self.pixels = match &self.pixels {
                Pixels::Bytes(raster) => Pixels::Bytes(raster.turned(self.exif)),
                Pixels::Words(raster) => Pixels::Words(raster.turned(self.exif)),
            };
            self.exif = Exif::NoTransforms;
        }
        self
    }

    fn side(&self, side: impl Fn(usize, usize) -> usize) -> u32 {
        let side = match &self.pixels {
            Pixels::Bytes(raster) => side(raster.width, raster.height),
            Pixels::Words(raster) => side(raster.width, raster.height),
        };
        u32::try_from(side).expect("pictures are made from u32 sides")
    }

    /// Width in pixels as stored, whatever EXIF says.
    pub fn width(&self) -> u32 {
        self.side(|width, _| width)
    }

    /// Height in pixels as stored, whatever EXIF says.
    pub fn height(&self) -> u32 {
        self.side(|_, height| height)
    }

    /// How the colours are held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The orientation that the file's EXIF block states, 1..=8; 1 is upright. That of a TIFF is applied already.
    pub fn exif_orientation(&self) -> u8 {
        self.exif.to_exif()
    }
}

/// What errors call a picture that has no file.
const IN_MEMORY: &str = "picture in memory";

impl From<RgbImage> for Picture {
    fn from(image: RgbImage) -> Self {
        Self::new(IN_MEMORY, Mode::Rgb, image.dimensions(), 3, image.into_raw())
    }
}

impl From<&RgbImage> for Picture {
    fn from(image: &RgbImage) -> Self {
        image.clone().into()
    }
}

impl From<DynamicImage> for Picture {
    /// The picture that a file with these samples gives: 16 bits a channel are cut to the upper 8, but single grey
    /// ones are kept ([`Mode::Luma16`]).
    fn from(image: DynamicImage) -> Self {
        let size = (image.width(), image.height());
        let new = |mode, channels, data| Self::new(IN_MEMORY, mode, size, channels, data);
        match image {
            DynamicImage::ImageLuma8(image) => new(Mode::Luma, 1, image.into_raw()),
            DynamicImage::ImageLumaA8(image) => new(Mode::LumaAlpha, 2, image.into_raw()),
            DynamicImage::ImageRgb8(image) => new(Mode::Rgb, 3, image.into_raw()),
            DynamicImage::ImageRgba8(image) => new(Mode::Rgba, 4, image.into_raw()),
            DynamicImage::ImageLuma16(image) => Self::grey16(IN_MEMORY, size, image.into_raw()),
            DynamicImage::ImageLumaA16(image) => new(Mode::Rgba, 4, grey_alpha_to_rgba(&upper_bytes(&image))),
            DynamicImage::ImageRgb16(image) => new(Mode::Rgb, 3, upper_bytes(&image)),
            DynamicImage::ImageRgba16(image) => new(Mode::Rgba, 4, upper_bytes(&image)),
            other if other.color().has_alpha() => new(Mode::Rgba, 4, other.into_rgba8().into_raw()),
            other => new(Mode::Rgb, 3, other.into_rgb8().into_raw()),
        }
    }
}

fn upper_bytes(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| (sample >> 8) as u8).collect()
}

/// Grey and alpha at 16 bits become RGBA in Pillow.
pub(super) fn grey_alpha_to_rgba(samples: &[u8]) -> Vec<u8> {
    samples.as_chunks::<2>().0.iter().flat_map(|&[grey, alpha]| [grey, grey, grey, alpha]).collect()
}
