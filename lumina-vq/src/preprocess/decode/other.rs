//! Decodes BMP, TIFF and WebP with the `image` crate.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation as ExifOrientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder};

use super::encoded::EncodedImage;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::{InputImage, Samples};

/// Mirrors `WebPImagePlugin.py`. Lossy WebP can differ from libwebp's pixels by a few levels.
pub(super) fn decode_webp(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let decoder = WebPDecoder::new(Cursor::new(encoded.bytes)).map_err(|error| encoded.damaged("WebP", error))?;
    read_pixels(encoded, "WebP", decoder)
}

/// Mirrors `TiffImagePlugin.py` for the kinds that `image` reads: no palettes, no CMYK. The orientation is a tag of the
/// file itself, not of an EXIF block, and Pillow applies it while reading.
pub(super) fn decode_tiff(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let decoder = TiffDecoder::new(Cursor::new(encoded.bytes)).map_err(|error| match error {
        image::ImageError::Unsupported(error) => encoded.unsupported_kind("TIFF", error),
        error => encoded.damaged("TIFF", error),
    })?;
    let stored = decoder.original_color_type();
    if matches!(stored, ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(encoded.unsupported("a CMYK TIFF"));
    }
    let mut image = read_pixels(encoded, "TIFF", decoder)?.upright();
    if stored == ExtendedColorType::L1 {
        image.mode = ColorMode::Bilevel;
    }
    Ok(image)
}

/// Mirrors `BmpImagePlugin.py`.
pub(super) fn decode_bmp(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let decoder = BmpDecoder::new(Cursor::new(encoded.bytes)).map_err(|error| encoded.damaged("BMP", error))?;
    let colors =
        decoder.get_palette().map(|colors| colors[..colors.len().min(bmp_palette_len(encoded.bytes))].to_vec());
    let mut image = read_pixels(encoded, "BMP", decoder)?;
    let Some(colors) = colors else { return Ok(image) };
    // A palette of the greys 0, 1, 2, … is treated as grey, so that it is resized with a filter.
    let is_grey = colors.iter().zip(0..=255u8).all(|(color, grey)| *color == [grey; 3]);
    match (&mut image.samples, colors.len()) {
        (Samples::U8(raster), 3..) if is_grey => {
            raster.data = raster.data.as_chunks::<3>().0.iter().map(|color| color[0]).collect();
            raster.channels = 1;
            image.mode = ColorMode::Luma;
        }
        (_, ..=2) if colors == [[0; 3], [255; 3]] => image.mode = ColorMode::Bilevel,
        _ => image.mode = ColorMode::Palette,
    }
    Ok(image)
}

/// The number of palette colours that the header of a BMP file states.
fn bmp_palette_len(bytes: &[u8]) -> usize {
    let u16_at = |position: usize| {
        bytes.get(position..position + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    // The 12-byte header of OS/2 1.x does not state the number.
    let (bits, stated) = if u16_at(14) == 12 { (u16_at(24), 0) } else { (u16_at(28), u16_at(46)) };
    if stated == 0 { 1 << bits.min(8) } else { stated }
}

fn read_pixels(encoded: &EncodedImage<'_>, format: &'static str, decoder: impl ImageDecoder) -> Result<InputImage> {
    let mut decoder = decoder;
    encoded.check(decoder.dimensions())?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(encoded.limits.image_bytes);
    let damaged = |error| encoded.damaged(format, error);
    decoder.set_limits(limits).map_err(damaged)?;
    let exif = decoder.orientation().unwrap_or(ExifOrientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(InputImage { name: encoded.name.to_owned(), exif, ..InputImage::from(image) })
}
