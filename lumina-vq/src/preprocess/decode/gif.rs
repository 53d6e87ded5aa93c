//! GIF, its first frame. Read with the `gif` crate itself, because `image` gives no indices.

use std::io::Cursor;
use std::num::NonZeroU64;

use gif::{DecodeOptions, MemoryLimit};

use super::{Palette, Source};
use crate::Result;
use crate::preprocess::input_image::{Mode, Picture};

/// Mirrors `GifImagePlugin.py`.
pub(super) fn picture(source: &Source<'_>) -> Result<Picture> {
    let damaged = |error| source.damaged("GIF", error);
    let mut options = DecodeOptions::new();
    options.set_memory_limit(
        NonZeroU64::new(source.limits.max_bytes()).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = options.read_info(Cursor::new(source.bytes)).map_err(damaged)?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let no_frame = || source.damaged("GIF", "it has no frame");
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or_else(no_frame)?;
    // A frame that leaves the screen makes the picture larger.
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let size = (screen.0.max(left + u32::from(frame.width)), screen.1.max(top + u32::from(frame.height)));
    source.check(size)?;
    let transparent = frame.transparent;
    let frame_width = usize::from(frame.width);
    let local = frame.palette.clone();
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(damaged)?;

    // What the frame does not cover shows the transparent colour, or the first.
    let width = size.0 as usize;
    let mut canvas = vec![transparent.unwrap_or(0); width * size.1 as usize];
    if frame_width > 0 {
        let rows = canvas.chunks_exact_mut(width).skip(top as usize);
        for (row, frame_row) in rows.zip(indices.chunks_exact(frame_width)) {
            row[left as usize..][..frame_width].copy_from_slice(frame_row);
        }
    }
    let rgb = local.as_deref().or(decoder.global_palette()).unwrap_or_default();
    let mut palette = Palette::new(rgb);
    if palette.is_grey(rgb.len() / 3) {
        let mut picture = Picture::new(source.name, Mode::Luma, size, 1, canvas);
        picture.transparent = transparent;
        return Ok(picture);
    }
    if let Some(index) = transparent {
        palette.0[usize::from(index)][3] = 0;
    }
    let (channels, colors) = palette.look_up(&canvas);
    Ok(Picture::new(source.name, Mode::Palette, size, channels, colors))
}
