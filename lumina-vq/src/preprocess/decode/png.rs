//! Decodes PNG. Uses the `png` crate itself, because `image` applies palettes and transparent colours while decoding,
//! and Pillow does so only after resizing.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::encoded::EncodedImage;
use super::palette::Palette;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::{InputImage, grey_alpha_to_rgba};

/// The last chunk of a file.
const IEND: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";

/// Mirrors `PngImagePlugin.py`. A file that ends after its pixels, without IEND, is read.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    decode_whole(encoded).or_else(|error| {
        let whole = whole_chunks(encoded.bytes);
        if whole.ends_with(IEND) {
            return Err(error);
        }
        let bytes = [whole, IEND].concat();
        decode_whole(&EncodedImage { bytes: &bytes, ..*encoded }).map_err(|_| error)
    })
}

/// The file up to the end of its last whole chunk.
fn whole_chunks(bytes: &[u8]) -> &[u8] {
    let mut end = 8;
    while let Some(length) = bytes.get(end..).and_then(<[u8]>::first_chunk) {
        // Length, kind and checksum are four bytes each.
        let next = (u32::from_be_bytes(*length) as usize).checked_add(end + 12);
        match next.filter(|&next| next <= bytes.len()) {
            Some(next) => end = next,
            None => break,
        }
    }
    &bytes[..end.min(bytes.len())]
}

fn decode_whole(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let damaged = |error| encoded.damaged("PNG", error);
    let limits = Limits { bytes: usize::try_from(encoded.limits.image_bytes).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(encoded.bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let size = (header.width, header.height);
    encoded.check(size)?;
    // Of 16-bit colours the upper 8 bits are kept. 16-bit grey is kept as it is.
    let narrowed = header.bit_depth == BitDepth::Sixteen && header.color_type != ColorType::Grayscale;
    decoder.set_transformations(if narrowed { Transformations::STRIP_16 } else { Transformations::IDENTITY });
    let mut reader = decoder.read_info().map_err(damaged)?;
    let n_bytes = reader.output_buffer_size().ok_or_else(|| encoded.damaged("PNG", "its size overflows"))?;
    let (n_pixels, is_packed) = (u64::from(size.0) * u64::from(size.1), (reader.info().bit_depth as u8) < 8);
    // The pixels as they are stored, and what they are converted to.
    let converted = match (reader.info().color_type, reader.info().bit_depth) {
        (ColorType::Indexed, _) => {
            let channels = if reader.info().trns.is_some() { 4 } else { 3 };
            if is_packed { (channels + 1) * n_pixels } else { channels * n_pixels }
        }
        (ColorType::Grayscale, BitDepth::Sixteen) => 2 * n_pixels,
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => 4 * n_pixels,
        _ if is_packed => n_pixels,
        _ => 0,
    };
    encoded.check_bytes(n_bytes as u64 + converted)?;
    let mut data = encoded.zeroed(n_bytes)?;
    reader.next_frame(&mut data).map_err(damaged)?;
    // EXIF may follow the pixels. Damage there does not affect them.
    let _ = reader.finish();

    let info = reader.info();
    let transparency = info.trns.as_deref();
    let bytes: Vec<u8> = match info.bit_depth {
        BitDepth::Eight | BitDepth::Sixteen => data,
        depth => unpack(encoded, &data, info.width as usize, depth as usize)?,
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
            // Collecting reuses the memory.
            new(mode, 1, bytes.into_iter().map(|value| value * scale).collect())
        }
        (ColorType::Indexed, _) => {
            let mut palette = Palette::new(info.palette.as_deref().unwrap_or_default());
            for (color, &alpha) in palette.0.iter_mut().zip(transparency.unwrap_or_default()) {
                color[3] = alpha;
            }
            let (channels, colors) = palette.look_up(encoded, &bytes)?;
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
fn unpack(encoded: &EncodedImage<'_>, packed: &[u8], width: usize, bits: usize) -> Result<Vec<u8>> {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let rows = packed.chunks_exact(width.div_ceil(per_byte));
    let mut samples = encoded.zeroed(rows.len() * width)?;
    for (row, samples) in rows.zip(samples.chunks_exact_mut(width)) {
        for (x, sample) in samples.iter_mut().enumerate() {
            *sample = (row[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & mask;
        }
    }
    Ok(samples)
}
