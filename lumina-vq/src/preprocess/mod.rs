//! Pictures to the images that the VQGAN takes, and its values to images: pixel for pixel as the original does it.
//!
//! [`Picture`] is a file in its own mode; [`Preprocessor`] brings it to one of the sizes of a target;
//! [`to_tensor_values`] and [`to_image`] are the two ends of the VQGAN.
//!
//! What is mirrored, in order (`data/item_processor.py`, `data/item_processor.py::var_center_crop` and the image
//! tokenizer of the original, which leave pixels to Pillow, here to version 13):
//!
//! 1. The file is opened in its own mode, and EXIF's orientation is ignored ([`Orientation::Apply`] differs; that of a
//!    TIFF is always applied, as Pillow does it).
//! 2. [`lumina_core::choose_size`] picks the size by the ratio of the sides.
//! 3. While both sides are at least twice the size: halving with a box filter. Then bicubic scaling until the picture
//!    covers the size. Both in the picture's mode: palettes and black-and-white pictures take the nearest pixel,
//!    colours are weighed by alpha, 16-bit grey is resized at 16 bits.
//! 4. The crop: in the middle, or where the caller says. (The original draws it at random, at inference too.)
//! 5. To RGB: transparent pixels are blended on white, after resizing. 16-bit grey is held at 255, not scaled: an
//!    ordinary 16-bit picture turns white, in the original as here. Colour profiles are ignored.
//!
//! Lossless files give the original's pixels to the last bit. JPEG and lossy WebP are decoded by other libraries
//! than Pillow's, whose rounding differs by a few levels; what follows is exact.
//!
//! # Untrusted input
//! The size that a file states is checked against [`Limits`] before its pixels are allocated, damaged files are
//! errors, and only the part of the scaled picture that the crop keeps is ever computed, so that a picture of
//! 1×10,000 pixels costs no more than others.

mod color;
mod decode;
mod input_image;
mod preprocessor;
mod raster;
mod resample;
mod values;

pub use input_image::{Limits, Mode, Picture};
pub use preprocessor::{Crop, Fit, Orientation, Preprocessor};
pub use values::{to_image, to_tensor_values};
