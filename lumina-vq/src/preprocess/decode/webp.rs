//! Decodes WebP, of an animation the first frame.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation as ExifOrientation;
use image::{DynamicImage, ImageDecoder};

use super::encoded::EncodedImage;
use crate::Result;
use crate::preprocess::input_image::InputImage;

/// Mirrors `WebPImagePlugin.py`. Lossy WebP can differ from libwebp's pixels by a few levels.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    // The decoder takes the memory that chunks state before it reads them.
    let bytes = &encoded.bytes[..chunks_end(encoded.bytes).map_err(|reason| encoded.damaged("WebP", reason))?];
    let damaged = |error| encoded.damaged("WebP", error);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    encoded.check((width, height))?;
    // At most: the decoded frame with its tables, the canvas of an animation, and the pixels that are handed out.
    encoded.check_bytes(u64::from(width) * u64::from(height) * 12)?;
    let exif = decoder.orientation().unwrap_or(ExifOrientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(InputImage { name: encoded.name.to_owned(), exif, ..InputImage::from(image) })
}

/// The end of the last chunk. Fails if a chunk, or one inside a frame of an animation, is longer than what contains it.
fn chunks_end(bytes: &[u8]) -> Result<usize, &'static str> {
    const HEADER: usize = 12;
    let stated = bytes.get(4..8).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_le_bytes(*size) as usize);
    // Bytes after the file's own end are not its.
    let file = &bytes[..stated.saturating_add(8).min(bytes.len())];
    let mut at = HEADER;
    while let Some((kind, payload)) = chunk(file, at)? {
        if kind == *b"ANMF" {
            let mut inner = 16;
            while let Some((_, payload)) = chunk(payload, inner)? {
                inner += 8 + payload.len().next_multiple_of(2);
            }
        }
        at += 8 + payload.len().next_multiple_of(2);
    }
    Ok(file.len())
}

/// The kind and the payload of a chunk.
type Chunk<'a> = ([u8; 4], &'a [u8]);

/// The chunk at a position; `None` where no chunk begins any more.
fn chunk(bytes: &[u8], at: usize) -> Result<Option<Chunk<'_>>, &'static str> {
    let Some((kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first_chunk::<4>) else { return Ok(None) };
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let payload = rest.get(..u32::from_le_bytes(*length) as usize).ok_or("a chunk is longer than the file")?;
    Ok(Some((*kind, payload)))
}
