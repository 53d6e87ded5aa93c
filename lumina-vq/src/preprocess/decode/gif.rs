//! Decodes the first frame of a GIF. Uses the `gif` crate itself, because `image` does not return palette indices.

use std::io::Cursor;
use std::num::NonZeroU64;

use gif::{DecodeOptions, MemoryLimit};

use super::encoded::EncodedImage;
use super::palette::Palette;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::InputImage;

/// Mirrors `GifImagePlugin.py`.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let damaged = |error| encoded.damaged("GIF", error);
    let mut options = DecodeOptions::new();
    options.set_memory_limit(
        NonZeroU64::new(encoded.limits.image_bytes).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = options.read_info(Cursor::new(encoded.bytes)).map_err(damaged)?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let no_frame = || encoded.damaged("GIF", "it has no frame");
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or_else(no_frame)?;
    // A frame that extends beyond the screen enlarges the image.
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let size = (screen.0.max(left + u32::from(frame.width)), screen.1.max(top + u32::from(frame.height)));
    encoded.check(size)?;
    // The frame's indices, the image's, and their colours.
    let n_pixels = u64::from(size.0) * u64::from(size.1);
    let frame_pixels = u64::from(frame.width) * u64::from(frame.height);
    let channels = if frame.transparent.is_some() { 4 } else { 3 };
    encoded.check_bytes(n_pixels + (n_pixels * channels).max(frame_pixels))?;
    let transparent = frame.transparent;
    let frame_width = usize::from(frame.width);
    let local_palette = frame.palette.clone();
    let mut indices: Vec<u8> = encoded.zeroed(decoder.buffer_size())?;
    decoder.read_into_buffer(&mut indices).map_err(damaged)?;

    // Pixels outside the frame have the transparent colour, or else the first one.
    let width = size.0 as usize;
    let mut canvas: Vec<u8> = encoded.zeroed(width * size.1 as usize)?;
    canvas.fill(transparent.unwrap_or(0));
    if frame_width > 0 {
        let rows = canvas.chunks_exact_mut(width).skip(top as usize);
        for (row, frame_row) in rows.zip(indices.chunks_exact(frame_width)) {
            row[left as usize..][..frame_width].copy_from_slice(frame_row);
        }
    }
    drop(indices);
    let rgb = local_palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    let mut palette = Palette::new(rgb);
    if palette.is_grey(rgb.len() / 3) {
        let mut image = InputImage::new(encoded.name, ColorMode::Luma, size, 1, canvas);
        image.transparent = transparent;
        return Ok(image);
    }
    if let Some(index) = transparent {
        palette.0[usize::from(index)][3] = 0;
    }
    let (channels, colors) = palette.look_up(encoded, &canvas)?;
    Ok(InputImage::new(encoded.name, ColorMode::Palette, size, channels, colors))
}
