//! Resizes and crops an input image to a size that the model was trained with.

use std::borrow::Cow;

use image::RgbImage;
use image::metadata::Orientation as ExifOrientation;
use lumina_core::{ImageSize, choose_size, crop_sizes, rank_sizes};

use super::color;
use super::decode::check_sides;
use super::input_image::{InputImage, Samples};
use super::raster::Raster;
use super::resample::{Filter, Window, resize};
use crate::{Error, Result};

/// What to do with the orientation in the EXIF block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Ignore it and use the pixels as stored, like the original in training and inference.
    #[default]
    Ignore,
    /// Make the image upright first.
    Apply,
}

/// Which part of the scaled image to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crop {
    /// The centre. Of an odd remainder the larger half is cut off at the right and bottom.
    #[default]
    Center,
    /// The part that begins at column `left` and row `top`. Training draws them up to [`Fit::max_left`] and
    /// [`Fit::max_top`].
    At {
        /// Columns to the left of the crop, in pixels of the scaled image.
        left: u32,
        /// Rows above the crop, in pixels of the scaled image.
        top: u32,
    },
}

/// How an image is fitted to a size: halvings, then scaling, then a crop.
///
/// ```
/// use lumina_vq::preprocess::Fit;
///
/// let fit = Fit::new(511, 333, lumina_core::ImageSize::new(288, 192)?).expect("it has pixels");
/// assert_eq!((fit.scaled_width(), fit.scaled_height()), (295, 192));
/// assert_eq!((fit.max_left(), fit.max_top()), (7, 0));
/// # Ok::<(), lumina_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    size: ImageSize,
    n_halvings: u32,
    scaled: (u32, u32),
}

impl Fit {
    /// The fit of an image of `width` × `height` pixels to `size`. Mirrors `center_crop`.
    ///
    /// `None` if a side is 0, or if a scaled side would exceed `i32::MAX`, which an image of one pixel by some millions
    /// can reach.
    pub fn new(width: u32, height: u32, size: ImageSize) -> Option<Self> {
        if width == 0 || height == 0 {
            return None;
        }
        let halves = |n: u32| (width >> n, height >> n);
        let is_large = |(width, height): (u32, u32)| width / 2 >= size.width_px() && height / 2 >= size.height_px();
        let n_halvings = (0..u32::BITS).find(|&n| !is_large(halves(n)))?;
        let scaled = scaled(halves(n_halvings), size);
        let side = |side: f64| (side <= f64::from(i32::MAX)).then_some(side as u32);
        Some(Self { size, n_halvings, scaled: (side(scaled.0)?, side(scaled.1)?) })
    }

    /// The size after cropping.
    pub fn size(self) -> ImageSize {
        self.size
    }
    /// Width in pixels before cropping.
    pub fn scaled_width(self) -> u32 {
        self.scaled.0
    }
    /// Height in pixels before cropping.
    pub fn scaled_height(self) -> u32 {
        self.scaled.1
    }
    /// The largest `left` of a crop.
    pub fn max_left(self) -> u32 {
        self.scaled.0 - self.size.width_px()
    }
    /// The largest `top` of a crop.
    pub fn max_top(self) -> u32 {
        self.scaled.1 - self.size.height_px()
    }

    /// Column and row at which the crop begins.
    fn offset(self, crop: Crop) -> (u32, u32) {
        match crop {
            Crop::Center => (self.max_left() / 2, self.max_top() / 2),
            Crop::At { left, top } => (left, top),
        }
    }
}

/// The sides after scaling until the image just covers the size, rounded half to even like Python.
fn scaled((width, height): (u32, u32), size: ImageSize) -> (f64, f64) {
    let (width, height) = (f64::from(width), f64::from(height));
    let scale = (f64::from(size.width_px()) / width).max(f64::from(size.height_px()) / height);
    ((width * scale).round_ties_even(), (height * scale).round_ties_even())
}

/// Resizes and crops images to the sizes of a target, and converts them to RGB.
///
/// ```
/// use lumina_vq::preprocess::{InputImage, Preprocessor};
///
/// let preprocessor = Preprocessor::new(512)?;
/// let input = InputImage::from(image::RgbImage::new(1600, 1200));
/// let image = preprocessor.prepare(&input)?;
/// assert_eq!(image.dimensions(), (576, 448));
/// # Ok::<(), lumina_vq::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Preprocessor {
    sizes: Vec<ImageSize>,
    orientation: Orientation,
}

impl Preprocessor {
    /// A preprocessor for the [`crop_sizes`] of `target_px`: 512, 768 or 1024, as in the checkpoint's name.
    ///
    /// # Errors
    /// [`Error::Core`] if there are no sizes for the target.
    pub fn new(target_px: u32) -> Result<Self> {
        Ok(Self { sizes: crop_sizes(target_px)?, orientation: Orientation::default() })
    }

    /// A preprocessor for other sizes: those that a checkpoint states.
    ///
    /// # Errors
    /// [`Error::NoSizes`] if there are none.
    pub fn with_sizes(sizes: Vec<ImageSize>) -> Result<Self> {
        if sizes.is_empty() {
            return Err(Error::NoSizes);
        }
        Ok(Self { sizes, orientation: Orientation::default() })
    }

    /// Sets what to do with the orientation in the EXIF block. Default: ignore it.
    pub fn orientation(mut self, orientation: Orientation) -> Self {
        self.orientation = orientation;
        self
    }

    /// The sizes that images are resized to.
    pub fn sizes(&self) -> &[ImageSize] {
        &self.sizes
    }

    /// The sizes ranked by how well they fit the image, best first. Training draws one of the first few.
    pub fn ranked_sizes(&self, image: &InputImage) -> Vec<ImageSize> {
        let (width, height) = self.dimensions(image);
        rank_sizes(width, height, &self.sizes)
    }

    /// How an image is fitted to a size, with the offsets that a crop can have.
    ///
    /// # Errors
    /// [`Error::NoPixels`] if the image has none, [`Error::TooNarrow`] if a scaled side is too long.
    pub fn fit(&self, image: &InputImage, size: ImageSize) -> Result<Fit> {
        let (width, height) = self.dimensions(image);
        check_sides(&image.name, (width, height))?;
        Fit::new(width, height, size).ok_or_else(|| {
            let (scaled_width, scaled_height) = scaled((width, height), size);
            let scaled_px = scaled_width.max(scaled_height) as u64;
            Error::TooNarrow { image: image.name.clone(), width, height, size, scaled_px }
        })
    }

    /// Resizes the image to the size that fits best, and crops the centre.
    ///
    /// # Errors
    /// As [`Preprocessor::fit`].
    pub fn prepare(&self, image: &InputImage) -> Result<RgbImage> {
        let (width, height) = self.dimensions(image);
        let size = choose_size(width, height, &self.sizes).expect("there is at least one size");
        self.prepare_as(image, size, Crop::Center)
    }

    /// Resizes the image to a size and crops it as `crop` says.
    ///
    /// # Errors
    /// As [`Preprocessor::fit`], and [`Error::Crop`] if the crop extends beyond the scaled image.
    pub fn prepare_as(&self, image: &InputImage, size: ImageSize, crop: Crop) -> Result<RgbImage> {
        let fit = self.fit(image, size)?;
        let ((left, top), (max_left, max_top)) = (fit.offset(crop), (fit.max_left(), fit.max_top()));
        if left > max_left || top > max_top {
            return Err(Error::Crop { image: image.name.clone(), left, top, max_left, max_top });
        }
        let window = Window {
            left: left as usize,
            top: top as usize,
            width: size.width_px() as usize,
            height: size.height_px() as usize,
        };
        let exif = self.exif(image);
        let cropped = match &image.samples {
            Samples::U8(raster) => scale(&oriented(raster, exif), &fit, window, |raster, size, filter, window| {
                if image.mode.is_nearest() {
                    resize(raster, size, Filter::Nearest, window)
                } else if image.mode.is_premultiplied() && size != (raster.width, raster.height) {
                    let mut resized = resize(&color::premultiply(raster), size, filter, window);
                    color::unpremultiply(&mut resized);
                    resized
                } else {
                    resize(raster, size, filter, window)
                }
            }),
            Samples::U16(raster) => color::clamp_to_u8(&scale(&oriented(raster, exif), &fit, window, resize)),
            Samples::I32(raster) => color::clamp_to_u8(&scale(&oriented(raster, exif), &fit, window, resize)),
            Samples::F32(raster) => color::clamp_to_u8(&scale(&oriented(raster, exif), &fit, window, resize)),
        };
        let pixels = color::to_rgb(cropped, image.mode, image.transparent);
        Ok(RgbImage::from_raw(size.width_px(), size.height_px(), pixels)
            .expect("the window has as many pixels as the size"))
    }

    fn exif(&self, image: &InputImage) -> ExifOrientation {
        match self.orientation {
            Orientation::Ignore => ExifOrientation::NoTransforms,
            Orientation::Apply => image.exif,
        }
    }

    /// Width and height after the orientation is applied.
    fn dimensions(&self, image: &InputImage) -> (u32, u32) {
        match self.exif(image) {
            ExifOrientation::Rotate90
            | ExifOrientation::Rotate270
            | ExifOrientation::Rotate90FlipH
            | ExifOrientation::Rotate270FlipH => (image.height(), image.width()),
            _ => (image.width(), image.height()),
        }
    }
}

fn oriented<T: Copy>(raster: &Raster<T>, exif: ExifOrientation) -> Cow<'_, Raster<T>> {
    match exif {
        ExifOrientation::NoTransforms => Cow::Borrowed(raster),
        exif => Cow::Owned(raster.oriented(exif)),
    }
}

/// Halves, scales and crops. `resize` does each step.
fn scale<T: Copy>(
    source: &Raster<T>,
    fit: &Fit,
    window: Window,
    resize: impl Fn(&Raster<T>, (usize, usize), Filter, Window) -> Raster<T>,
) -> Raster<T> {
    let mut current = Cow::Borrowed(source);
    for _ in 0..fit.n_halvings {
        let (width, height) = (current.width / 2, current.height / 2);
        let whole = Window { left: 0, top: 0, width, height };
        current = Cow::Owned(resize(&current, (width, height), Filter::Box, whole));
    }
    resize(&current, (fit.scaled.0 as usize, fit.scaled.1 as usize), Filter::Bicubic, window)
}
