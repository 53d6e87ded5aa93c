//! Prepares images for the VQGAN and converts between 8-bit images and its values, pixel for pixel like the original.
//!
//! [`InputImage`] is an image in the colour mode of its file. [`Preprocessor`] resizes and crops it to one of the sizes
//! of a target. [`to_tensor_values`] and [`to_image`] convert to the VQGAN's input and from its output.
//!
//! These steps of the original are mirrored, in order (`data/item_processor.py`,
//! `data/item_processor.py::var_center_crop` and the image tokenizer; Pillow does the pixel work there, here up to
//! version 13):
//!
//! 1. The file is opened in its own colour mode. The EXIF orientation is ignored unless [`Orientation::Apply`] is set.
//!    The orientation of a TIFF is always applied, as in Pillow.
//! 2. [`lumina_core::choose_size`] picks the size by the aspect ratio.
//! 3. While both sides are at least twice the size, the image is halved with a box filter. Then bicubic scaling makes
//!    it just cover the size. Both run in the image's colour mode: palette and black-and-white images use the nearest
//!    pixel, colours are premultiplied by alpha, and 16-bit grey is resized at 16 bits.
//! 4. The image is cropped in the centre, or where the caller says. (The original crops at a random position, also at
//!    inference.)
//! 5. The image is converted to RGB. Transparent pixels are blended with white, after resizing. 16-bit grey is clamped
//!    to 255, not scaled: an ordinary 16-bit image becomes white, as in the original. Colour profiles are ignored.
//!
//! Lossless files give exactly the original's pixels. Usual JPEG and lossy WebP are decoded by other libraries than
//! Pillow's, and their rounding differs by a few levels; unusual JPEG (CMYK, one scan a component, other sampling
//! factors) gives exactly Pillow's pixels. All later steps are exact.
//!
//! # Untrusted input
//! The size in the file's header is checked against [`Limits`] before pixels are allocated, and so is everything that
//! decoding will hold at one time. Damaged files are errors.
//! Only the cropped part of the scaled image is computed, so an image of 1×10,000 pixels costs no more than others.

mod color;
mod color_mode;
mod decode;
mod input_image;
mod preprocessor;
mod raster;
mod resample;
mod values;

pub use color_mode::ColorMode;
pub use input_image::InputImage;
pub use lumina_core::Limits;
pub use preprocessor::{Crop, Fit, Orientation, Preprocessor};
pub use values::{to_image, to_tensor_values};
