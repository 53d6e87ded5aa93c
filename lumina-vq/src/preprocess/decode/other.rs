//! BMP, TIFF and WebP, through the `image` crate.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder};

use super::Source;
use crate::Result;
use crate::preprocess::input_image::{Mode, Picture, Pixels};

/// Mirrors `WebPImagePlugin.py`. Lossy WebP can differ by a few levels from what libwebp gives.
pub(super) fn webp(source: &Source<'_>) -> Result<Picture> {
    let decoder = WebPDecoder::new(Cursor::new(source.bytes)).map_err(|error| source.damaged("WebP", error))?;
    picture(source, "WebP", decoder)
}

/// Mirrors `TiffImagePlugin.py` for the kinds that `image` reads: no palettes, no CMYK. The orientation is a tag of the
/// file itself, not of an EXIF block, and Pillow applies it while reading.
pub(super) fn tiff(source: &Source<'_>) -> Result<Picture> {
    let decoder = TiffDecoder::new(Cursor::new(source.bytes)).map_err(|error| match error {
        image::ImageError::Unsupported(error) => source.unsupported(error.to_string()),
        error => source.damaged("TIFF", error),
    })?;
    let stored = decoder.original_color_type();
    if matches!(stored, ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(source.unsupported("a CMYK TIFF".to_owned()));
    }
    let mut picture = picture(source, "TIFF", decoder)?.upright();
    if stored == ExtendedColorType::L1 {
        picture.mode = Mode::Bilevel;
    }
    Ok(picture)
}

/// Mirrors `BmpImagePlugin.py`.
pub(super) fn bmp(source: &Source<'_>) -> Result<Picture> {
    let decoder = BmpDecoder::new(Cursor::new(source.bytes)).map_err(|error| source.damaged("BMP", error))?;
    let colors = decoder.get_palette().map(|colors| colors[..colors.len().min(bmp_colors(source.bytes))].to_vec());
    let mut picture = picture(source, "BMP", decoder)?;
    let Some(colors) = colors else { return Ok(picture) };
    // Grey values under another name are smoothed as grey; true palettes are not smoothed.
    let is_grey = colors.iter().zip(0..=255u8).all(|(color, grey)| *color == [grey; 3]);
    match (&mut picture.pixels, colors.len()) {
        (Pixels::Bytes(raster), 3..) if is_grey => {
            raster.data = raster.data.as_chunks::<3>().0.iter().map(|color| color[0]).collect();
            raster.channels = 1;
            picture.mode = Mode::Luma;
        }
        (_, ..=2) if colors == [[0; 3], [255; 3]] => picture.mode = Mode::Bilevel,
        _ => picture.mode = Mode::Palette,
    }
    Ok(picture)
}

/// How many colours the palette of a BMP file states.
fn bmp_colors(bytes: &[u8]) -> usize {
    let at = |position: usize| {
        bytes.get(position..position + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    // The header of OS/2 1.x, 12 bytes long, states no number.
    let (bits, stated) = if at(14) == 12 { (at(24), 0) } else { (at(28), at(46)) };
    if stated == 0 { 1 << bits.min(8) } else { stated }
}

fn picture(source: &Source<'_>, format: &'static str, decoder: impl ImageDecoder) -> Result<Picture> {
    let mut decoder = decoder;
    source.check(decoder.dimensions())?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(source.limits.max_bytes());
    let damaged = |error| source.damaged(format, error);
    decoder.set_limits(limits).map_err(damaged)?;
    let exif = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(Picture { name: source.name.to_owned(), exif, ..Picture::from(image) })
}
