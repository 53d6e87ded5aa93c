//! Decodes PNG. Uses the `png` crate itself, because `image` applies palettes and transparent colours while decoding,
//! and Pillow does so only after resizing.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::encoded::EncodedImage;
use super::palette::Palette;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::{InputImage, grey_alpha_to_rgba};

/// Mirrors `PngImagePlugin.py`.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let damaged = |error| encoded.damaged("PNG", error);
    let limits = Limits { bytes: usize::try_from(encoded.limits.image_bytes).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(encoded.bytes), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let size = (header.width, header.height);
    encoded.check(size)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let n_bytes = reader.output_buffer_size().ok_or_else(|| encoded.damaged("PNG", "its size overflows"))?;
    let mut data = vec![0; n_bytes];
    reader.next_frame(&mut data).map_err(damaged)?;
    // EXIF may follow the pixels. Damage there does not affect them.
    let _ = reader.finish();

    let info = reader.info();
    let transparency = info.trns.as_deref();
    let bytes = match info.bit_depth {
        BitDepth::Sixteen if info.color_type != ColorType::Grayscale => {
            data.as_chunks::<2>().0.iter().map(|&[upper, _]| upper).collect()
        }
        BitDepth::Eight | BitDepth::Sixteen => data,
        depth => unpack(&data, info.width as usize, depth as usize),
    };
    let new = |mode, channels, bytes| InputImage::new(encoded.name, mode, size, channels, bytes);
    let mut image = match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            let samples = bytes.as_chunks::<2>().0.iter().map(|&sample| u16::from_be_bytes(sample)).collect();
            InputImage::grey16(encoded.name, size, samples)
        }
        (ColorType::Grayscale, depth) => {
            let mode = if depth == BitDepth::One { ColorMode::Bilevel } else { ColorMode::Luma };
            let scale = 255 / ((1u16 << depth as u16) - 1) as u8;
            new(mode, 1, bytes.into_iter().map(|value| value * scale).collect())
        }
        (ColorType::Indexed, _) => {
            let mut palette = Palette::new(info.palette.as_deref().unwrap_or_default());
            for (color, &alpha) in palette.0.iter_mut().zip(transparency.unwrap_or_default()) {
                color[3] = alpha;
            }
            let (channels, colors) = palette.look_up(&bytes);
            new(ColorMode::Palette, channels, colors)
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => new(ColorMode::Rgba, 4, grey_alpha_to_rgba(&bytes)),
        (ColorType::GrayscaleAlpha, _) => new(ColorMode::LumaAlpha, 2, bytes),
        (ColorType::Rgb, _) => new(ColorMode::Rgb, 3, bytes),
        (ColorType::Rgba, _) => new(ColorMode::Rgba, 4, bytes),
    };
    if info.color_type == ColorType::Grayscale {
        // Pillow compares the lower byte with 8-bit greys, and scales it only for 1-bit images.
        image.transparent = transparency.and_then(|grey| grey.last()).map(|&grey| match info.bit_depth {
            BitDepth::One if grey > 0 => 255,
            _ => grey,
        });
    }
    Ok(image.with_exif(info.exif_metadata.as_deref()))
}

/// Unpacks samples of 1, 2 or 4 bits to one byte each. Each row starts at a byte boundary.
fn unpack(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let rows = packed.chunks_exact(width.div_ceil(per_byte));
    let sample = |row: &[u8], x: usize| (row[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & mask;
    rows.flat_map(|row| (0..width).map(move |x| sample(row, x))).collect()
}
