//! PNG. Read with the `png` crate itself: `image` applies palettes and transparent colours, which Pillow keeps apart
//! until the picture has been resized.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::{Palette, Source};
use crate::Result;
use crate::preprocess::input_image::{Mode, Picture, grey_alpha_to_rgba};

/// Mirrors `PngImagePlugin.py`.
pub(super) fn picture(source: &Source<'_>) -> Result<Picture> {
    let damaged = |error| source.damaged("PNG", error);
    let limits = Limits { bytes: usize::try_from(source.limits.max_bytes()).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(source.bytes), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let size = (header.width, header.height);
    source.check(size)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let n_bytes = reader.output_buffer_size().ok_or_else(|| source.damaged("PNG", "its size overflows"))?;
    let mut data = vec![0; n_bytes];
    reader.next_frame(&mut data).map_err(damaged)?;
    // EXIF may lie behind the pixels; damage there does not concern them.
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
    let new = |mode, channels, bytes| Picture::new(source.name, mode, size, channels, bytes);
    let mut picture = match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            let words = bytes.as_chunks::<2>().0.iter().map(|&word| u16::from_be_bytes(word)).collect();
            Picture::grey16(source.name, size, words)
        }
        (ColorType::Grayscale, depth) => {
            let mode = if depth == BitDepth::One { Mode::Bilevel } else { Mode::Luma };
            let scale = 255 / ((1u16 << depth as u16) - 1) as u8;
            new(mode, 1, bytes.into_iter().map(|value| value * scale).collect())
        }
        (ColorType::Indexed, _) => {
            let mut palette = Palette::new(info.palette.as_deref().unwrap_or_default());
            for (color, &alpha) in palette.0.iter_mut().zip(transparency.unwrap_or_default()) {
                color[3] = alpha;
            }
            let (channels, colors) = palette.look_up(&bytes);
            new(Mode::Palette, channels, colors)
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => new(Mode::Rgba, 4, grey_alpha_to_rgba(&bytes)),
        (ColorType::GrayscaleAlpha, _) => new(Mode::LumaAlpha, 2, bytes),
        (ColorType::Rgb, _) => new(Mode::Rgb, 3, bytes),
        (ColorType::Rgba, _) => new(Mode::Rgba, 4, bytes),
    };
    if info.color_type == ColorType::Grayscale {
        // Pillow compares the lower byte with greys of 8 bits, though it does not scale it as it scales them.
        picture.transparent = transparency.and_then(|grey| grey.last()).map(|&grey| match info.bit_depth {
            BitDepth::One if grey > 0 => 255,
            _ => grey,
        });
    }
    Ok(picture.with_exif(info.exif_metadata.as_deref()))
}

/// Samples of 1, 2 or 4 bits, whose rows begin at whole bytes, as one byte each.
fn unpack(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let rows = packed.chunks_exact(width.div_ceil(per_byte));
    let sample = |row: &[u8], x: usize| (row[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & mask;
    rows.flat_map(|row| (0..width).map(move |x| sample(row, x))).collect()
}
