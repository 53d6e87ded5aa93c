//! An image as its file stores it, before it is resized or converted.

use image::metadata::Orientation as ExifOrientation;
use image::{DynamicImage, RgbImage};

use super::color;
use super::color_mode::ColorMode;
use super::raster::Raster;

/// The samples of an image: 8 bits each, 16 bits for [`ColorMode::Luma16`], 32 bits for [`ColorMode::Integer`] and
/// [`ColorMode::Float`].
#[derive(Debug, Clone)]
pub(super) enum Samples {
    U8(Raster<u8>),
    U16(Raster<u16>),
    I32(Raster<i32>),
    F32(Raster<f32>),
}

/// An image in the colour mode of its file: the input of [`Preprocessor`](super::Preprocessor).
///
/// ```
/// use lumina_vq::preprocess::InputImage;
///
/// let image = InputImage::from(image::RgbImage::new(640, 480));
/// assert_eq!((image.width(), image.height()), (640, 480));
/// assert_eq!(image.mode().to_string(), "RGB");
/// ```
#[derive(Debug, Clone)]
pub struct InputImage {
    /// The file, or [`IN_MEMORY`]; for error messages.
    pub(super) name: String,
    pub(super) mode: ColorMode,
    /// Palettes are applied already: the nearest pixel is the same before and after the colour is looked up.
    pub(super) samples: Samples,
    /// The grey value that the file declares transparent.
    pub(super) transparent: Option<u8>,
    pub(super) exif: ExifOrientation,
}

impl InputImage {
    pub(super) fn new(
        name: &str,
        mode: ColorMode,
        (width, height): (u32, u32),
        channels: usize,
        data: Vec<u8>,
    ) -> Self {
        let samples = Samples::U8(Raster::new(width as usize, height as usize, channels, data));
        Self { name: name.to_owned(), mode, samples, transparent: None, exif: ExifOrientation::NoTransforms }
    }

    pub(super) fn grey16(name: &str, (width, height): (u32, u32), data: Vec<u16>) -> Self {
        let samples = Samples::U16(Raster::new(width as usize, height as usize, 1, data));
        Self::grey(name, ColorMode::Luma16, samples)
    }

    pub(super) fn numbers(name: &str, (width, height): (u32, u32), data: Vec<i32>) -> Self {
        let samples = Samples::I32(Raster::new(width as usize, height as usize, 1, data));
        Self::grey(name, ColorMode::Integer, samples)
    }

    pub(super) fn floats(name: &str, (width, height): (u32, u32), data: Vec<f32>) -> Self {
        let samples = Samples::F32(Raster::new(width as usize, height as usize, 1, data));
        Self::grey(name, ColorMode::Float, samples)
    }

    fn grey(name: &str, mode: ColorMode, samples: Samples) -> Self {
        Self { name: name.to_owned(), mode, samples, transparent: None, exif: ExifOrientation::NoTransforms }
    }

    /// Sets the orientation that an EXIF block states, if it states one.
    pub(super) fn with_exif(mut self, exif: Option<&[u8]>) -> Self {
        self.exif = exif.and_then(ExifOrientation::from_exif_chunk).unwrap_or(ExifOrientation::NoTransforms);
        self
    }

    /// Applies the orientation to the pixels.
    pub(super) fn upright(mut self) -> Self {
        if self.exif != ExifOrientation::NoTransforms {
            self.samples = match &self.samples {
                Samples::U8(raster) => Samples::U8(raster.oriented(self.exif)),
                Samples::U16(raster) => Samples::U16(raster.oriented(self.exif)),
                Samples::I32(raster) => Samples::I32(raster.oriented(self.exif)),
                Samples::F32(raster) => Samples::F32(raster.oriented(self.exif)),
            };
            self.exif = ExifOrientation::NoTransforms;
        }
        self
    }

    fn side(&self, side: impl Fn(usize, usize) -> usize) -> u32 {
        let side = match &self.samples {
            Samples::U8(raster) => side(raster.width, raster.height),
            Samples::U16(raster) => side(raster.width, raster.height),
            Samples::I32(raster) => side(raster.width, raster.height),
            Samples::F32(raster) => side(raster.width, raster.height),
        };
        u32::try_from(side).expect("images are made from u32 sides")
    }

    /// Width in pixels as stored; the EXIF orientation is not applied.
    pub fn width(&self) -> u32 {
        self.side(|width, _| width)
    }

    /// Height in pixels as stored; the EXIF orientation is not applied.
    pub fn height(&self) -> u32 {
        self.side(|_, height| height)
    }

    /// The image in RGB at its own size: transparent pixels are blended with white, and samples of more than 8 bits are
    /// clamped, as [`Preprocessor`](super::Preprocessor) does after resizing. The EXIF orientation is not applied.
    pub fn to_rgb(&self) -> RgbImage {
        let samples = match &self.samples {
            Samples::U8(raster) => raster.clone(),
            Samples::U16(raster) => color::clamp_to_u8(raster),
            Samples::I32(raster) => color::clamp_to_u8(raster),
            Samples::F32(raster) => color::clamp_to_u8(raster),
        };
        RgbImage::from_raw(self.width(), self.height(), color::to_rgb(samples, self.mode, self.transparent))
            .expect("the raster has as many pixels as its size says")
    }

    /// How the image stores its colours.
    pub fn mode(&self) -> ColorMode {
        self.mode
    }

    /// The orientation in the file's EXIF block, 1..=8; 1 is upright. The orientation of a TIFF is applied already.
    pub fn exif_orientation(&self) -> u8 {
        self.exif.to_exif()
    }
}

/// The name, in error messages, of an image without a file.
pub(super) const IN_MEMORY: &str = "image in memory";

impl From<RgbImage> for InputImage {
    fn from(image: RgbImage) -> Self {
        Self::new(IN_MEMORY, ColorMode::Rgb, image.dimensions(), 3, image.into_raw())
    }
}

impl From<&RgbImage> for InputImage {
    fn from(image: &RgbImage) -> Self {
        image.clone().into()
    }
}

impl From<DynamicImage> for InputImage {
    /// The image that a file with these samples would give. Of 16-bit channels the upper 8 bits are kept. 16-bit grey
    /// without alpha keeps all 16 bits ([`ColorMode::Luma16`]).
    fn from(image: DynamicImage) -> Self {
        let size = (image.width(), image.height());
        let new = |mode, channels, data| Self::new(IN_MEMORY, mode, size, channels, data);
        match image {
            DynamicImage::ImageLuma8(image) => new(ColorMode::Luma, 1, image.into_raw()),
            DynamicImage::ImageLumaA8(image) => new(ColorMode::LumaAlpha, 2, image.into_raw()),
            DynamicImage::ImageRgb8(image) => new(ColorMode::Rgb, 3, image.into_raw()),
            DynamicImage::ImageRgba8(image) => new(ColorMode::Rgba, 4, image.into_raw()),
            DynamicImage::ImageLuma16(image) => Self::grey16(IN_MEMORY, size, image.into_raw()),
            DynamicImage::ImageLumaA16(image) => new(ColorMode::Rgba, 4, grey_alpha_to_rgba(&upper_bytes(&image))),
            DynamicImage::ImageRgb16(image) => new(ColorMode::Rgb, 3, upper_bytes(&image)),
            DynamicImage::ImageRgba16(image) => new(ColorMode::Rgba, 4, upper_bytes(&image)),
            other if other.color().has_alpha() => new(ColorMode::Rgba, 4, other.into_rgba8().into_raw()),
            other => new(ColorMode::Rgb, 3, other.into_rgb8().into_raw()),
        }
    }
}

fn upper_bytes(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| (sample >> 8) as u8).collect()
}

/// RGBA from grey and alpha. Pillow does this with 16-bit files.
pub(super) fn grey_alpha_to_rgba(samples: &[u8]) -> Vec<u8> {
    samples.as_chunks::<2>().0.iter().flat_map(|&[grey, alpha]| [grey, grey, grey, alpha]).collect()
}
