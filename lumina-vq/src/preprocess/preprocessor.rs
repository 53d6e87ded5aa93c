//! From a picture to the image that the VQ encoder takes.

use std::borrow::Cow;

use image::RgbImage;
use image::metadata::Orientation as Exif;
use lumina_core::{ImageSize, choose_size, crop_sizes, rank_sizes};

use super::color;
use super::input_image::{Limits, Picture, Pixels};
use super::raster::Raster;
use super::resample::{Filter, Window, resize};
use crate::{Error, Result};

/// What to do with the orientation that EXIF states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Nothing: the picture as it is stored. The original does so, in training and after.
    #[default]
    Ignore,
    /// Turn the picture upright first.
    Apply,
}

/// Which part of the scaled picture is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crop {
    /// The middle; of an odd remainder the larger half is cut off at the right and below.
    #[default]
    Center,
    /// What begins after `left` columns and `top` rows. Training draws them from [`Fit::max_left`] and
    /// [`Fit::max_top`].
    At {
        /// Columns left of the crop, in pixels of the scaled picture.
        left: u32,
        /// Rows above the crop, in pixels of the scaled picture.
        top: u32,
    },
}

/// How a picture is brought to a size: halved, scaled, cropped.
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
    /// The fit of a picture of `width` × `height` pixels to `size`. Mirrors `center_crop`.
    ///
    /// `None` where a side is 0, or where a side would be longer than `i32::MAX` once scaled, which a picture of one
    /// pixel by some millions can reach.
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

    /// The size after the crop.
    pub fn size(self) -> ImageSize {
        self.size
    }
    /// Width in pixels before the crop.
    pub fn scaled_width(self) -> u32 {
        self.scaled.0
    }
    /// Height in pixels before the crop.
    pub fn scaled_height(self) -> u32 {
        self.scaled.1
    }
    /// The most columns that a crop can leave out at the left.
    pub fn max_left(self) -> u32 {
        self.scaled.0 - self.size.width_px()
    }
    /// The most rows that a crop can leave out above.
    pub fn max_top(self) -> u32 {
        self.scaled.1 - self.size.height_px()
    }

    /// Columns left of a crop and rows above it.
    fn offset(self, crop: Crop) -> (u32, u32) {
        match crop {
            Crop::Center => (self.max_left() / 2, self.max_top() / 2),
            Crop::At { left, top } => (left, top),
        }
    }
}

/// The sides after scaling so that both cover the size, rounded half to even as Python does.
fn scaled((width, height): (u32, u32), size: ImageSize) -> (f64, f64) {
    let (width, height) = (f64::from(width), f64::from(height));
    let scale = (f64::from(size.width_px()) / width).max(f64::from(size.height_px()) / height);
    ((width * scale).round_ties_even(), (height * scale).round_ties_even())
}

/// Brings pictures to the sizes of a target, as RGB.
///
/// ```
/// use lumina_vq::preprocess::{Picture, Preprocessor};
///
/// let preprocessor = Preprocessor::new(512)?;
/// let picture = Picture::from(image::RgbImage::new(1600, 1200));
/// let image = preprocessor.prepare(&picture)?;
/// assert_eq!(image.dimensions(), (576, 448));
/// # Ok::<(), lumina_vq::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Preprocessor {
    sizes: Vec<ImageSize>,
    orientation: Orientation,
}

impl Preprocessor {
    /// A preprocessor for the [`crop_sizes`] of `target_px`: 512, 768 or 1024 as the checkpoint's name says.
    ///
    /// # Errors
    /// [`Error::Core`] where there are no sizes for the target.
    pub fn new(target_px: u32) -> Result<Self> {
        Ok(Self { sizes: crop_sizes(target_px)?, orientation: Orientation::default() })
    }

    /// What to do with the orientation that EXIF states; by default nothing.
    pub fn orientation(mut self, orientation: Orientation) -> Self {
        self.orientation = orientation;
        self
    }

    /// The sizes that pictures are brought to.
    pub fn sizes(&self) -> &[ImageSize] {
        &self.sizes
    }

    /// The sizes that suit a picture, best first. Training draws one of the first few.
    pub fn ranked_sizes(&self, picture: &Picture) -> Vec<ImageSize> {
        let (width, height) = self.dimensions(picture);
        rank_sizes(width, height, &self.sizes)
    }

    /// How a picture is brought to a size: what offsets a crop can have.
    ///
    /// # Errors
    /// [`Error::NoPixels`] where the picture has none, [`Error::TooNarrow`] where a side is too long once scaled.
    pub fn fit(&self, picture: &Picture, size: ImageSize) -> Result<Fit> {
        let (width, height) = self.dimensions(picture);
        Limits::default().max_pixels(u64::MAX).check(&picture.name, (width, height))?;
        Fit::new(width, height, size).ok_or_else(|| {
            let (scaled_width, scaled_height) = scaled((width, height), size);
            let scaled_px = scaled_width.max(scaled_height) as u64;
            Error::TooNarrow { picture: picture.name.clone(), width, height, size, scaled_px }
        })
    }

    /// The picture at the size that suits it best, cropped in the middle.
    ///
    /// # Errors
    /// As [`Preprocessor::fit`].
    pub fn prepare(&self, picture: &Picture) -> Result<RgbImage> {
        let (width, height) = self.dimensions(picture);
        let size = choose_size(width, height, &self.sizes).expect("a target has at least its square");
        self.prepare_as(picture, size, Crop::Center)
    }

    /// The picture at a size, cropped where `crop` says.
    ///
    /// # Errors
    /// As [`Preprocessor::fit`], and [`Error::Crop`] where the crop leaves the scaled picture.
    pub fn prepare_as(&self, picture: &Picture, size: ImageSize, crop: Crop) -> Result<RgbImage> {
        let fit = self.fit(picture, size)?;
        let ((left, top), (max_left, max_top)) = (fit.offset(crop), (fit.max_left(), fit.max_top()));
        if left > max_left || top > max_top {
            return Err(Error::Crop { picture: picture.name.clone(), left, top, max_left, max_top });
        }
        let window = Window {
            left: left as usize,
            top: top as usize,
            width: size.width_px() as usize,
            height: size.height_px() as usize,
        };
        let exif = self.exif(picture);
        let cropped = match &picture.pixels {
            Pixels::Bytes(raster) => scale(&turned(raster, exif), &fit, window, |raster, size, filter, window| {
                if picture.mode.is_nearest() {
                    resize(raster, size, Filter::Nearest, window)
                } else if picture.mode.has_weighing_alpha() && size != (raster.width, raster.height) {
                    let mut resized = resize(&color::premultiplied(raster), size, filter, window);
                    color::divide_by_alpha(&mut resized);
                    resized
                } else {
                    resize(raster, size, filter, window)
                }
            }),
            Pixels::Words(raster) => color::clipped(&scale(&turned(raster, exif), &fit, window, resize)),
        };
        let pixels = color::to_rgb(cropped, picture.mode, picture.transparent);
        Ok(RgbImage::from_raw(size.width_px(), size.height_px(), pixels).expect("a window has the size's pixels"))
    }

    fn exif(&self, picture: &Picture) -> Exif {
        match self.orientation {
            Orientation::Ignore => Exif::NoTransforms,
            Orientation::Apply => picture.exif,
        }
    }

    /// Width and height after turning.
    fn dimensions(&self, picture: &Picture) -> (u32, u32) {
        match self.exif(picture) {
            Exif::Rotate90 | Exif::Rotate270 | Exif::Rotate90FlipH | Exif::Rotate270FlipH => {
                (picture.height(), picture.width())
            }
            _ => (picture.width(), picture.height()),
        }
    }
}

fn turned<T: Copy>(raster: &Raster<T>, exif: Exif) -> Cow<'_, Raster<T>> {
    match exif {
        Exif::NoTransforms => Cow::Borrowed(raster),
        exif => Cow::Owned(raster.turned(exif)),
    }
}

/// Halves, scales and crops; `resize` does each step.
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
