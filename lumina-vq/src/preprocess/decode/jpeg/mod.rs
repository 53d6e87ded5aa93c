//! Decodes baseline, extended and progressive JPEG with Huffman codes.
//!
//! No decoder that is kept up reads all files that libjpeg reads. `zune-jpeg` 0.5.15 gives wrong pixels without an
//! error for one scan a component, for chroma finer than luma, and where the JFIF and Adobe markers disagree;
//! `jpeg-decoder` 0.3.2 is no longer developed, and has errors of the same kind. So `zune-jpeg` decodes the usual
//! kinds, four times as fast ([`fast`]), and the code here the others, and what `zune-jpeg` refuses. Its pixels are
//! those of libjpeg-turbo. `tests/images/jpeg_matrix.py` makes files of all kinds.

mod bits;
mod fast;
mod frame;
mod huffman;
mod idct;
mod progressive;
mod scan;
mod segments;
mod upsample;

use rayon::prelude::*;

use self::frame::Frame;
use self::scan::{Decoded, ScanError};
use self::segments::{Segments, Tables};
use super::encoded::EncodedImage;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::InputImage;

/// More scans than any encoder writes: each one visits every block, however few bytes it has.
const MAX_SCANS: usize = 200;

/// How the components are to be understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colors {
    Grey,
    YCbCr,
    Rgb,
    Ycck,
    Cmyk,
}

/// The pixels of a file.
pub(super) struct Pixels<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    /// `[height, width, channels]`.
    pub(super) data: Vec<u8>,
    exif: Option<&'a [u8]>,
}

/// Mirrors `JpegImagePlugin.py`.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let Pixels { width, height, channels, data, exif } = decode_as(encoded, None)?;
    let mode = match channels {
        1 => ColorMode::Luma,
        3 => ColorMode::Rgb,
        _ => ColorMode::Cmyk,
    };
    let size = (width as u32, height as u32);
    Ok(InputImage::new(encoded.name, mode, size, channels, data).with_exif(exif))
}

/// Decodes a file whose components are to be understood as `known` says, or else as its markers say. Inks are inverted.
pub(super) fn decode_as<'a>(encoded: &EncodedImage<'a>, known: Option<Colors>) -> Result<Pixels<'a>> {
    let damaged = |reason: &'static str| encoded.damaged("JPEG", reason);
    let mut segments = Segments::new(encoded.bytes);
    let mut tables = Tables::default();
    let mut started: Option<(Frame, Decoded)> = None;
    let (mut adobe, mut jfif, mut exif, mut n_scans) = (None, false, None, 0);
    loop {
        let Some((marker, payload)) = segments.next().map_err(damaged)? else {
            // libjpeg reads a baseline file that ends without EOI, once all pixels are there.
            match &started {
                Some((frame, decoded)) if !frame.progressive && decoded.is_complete() => break,
                _ => return Err(damaged("it ends before its last scan")),
            }
        };
        match marker {
            0xC0..=0xC2 if started.is_none() => {
                started = Some((Frame::parse(encoded, payload, marker == 0xC2)?, Decoded::default()));
            }
            0xC0..=0xC2 => return Err(damaged("it has two frames")),
            0xC4 => tables.define_huffman(payload).map_err(damaged)?,
            0xC3 | 0xC5..=0xCF => {
                let kind = match marker {
                    0xC3 => "a lossless JPEG",
                    0xC9..=0xCF => "a JPEG with arithmetic coding",
                    _ => "a hierarchical JPEG",
                };
                return Err(encoded.unsupported(format!("{kind} is not supported")));
            }
            0xD9 => break,
            0xDA => {
                let (frame, decoded) = started.as_mut().ok_or_else(|| damaged("a scan comes before the frame"))?;
                if n_scans == 0 {
                    let colors = known.unwrap_or_else(|| colors(frame, jfif, adobe));
                    if let Some(data) = fast::decode(encoded, frame, colors, payload) {
                        return Ok(Pixels::new(frame, data, exif));
                    }
                    *decoded = Decoded::new(encoded, frame)?;
                }
                n_scans += 1;
                if n_scans > MAX_SCANS {
                    return Err(damaged("it has more than 200 scans"));
                }
                let read = decoded.read_scan(frame, &tables, payload, segments.rest());
                let n_read = read.map_err(|ScanError(reason)| damaged(reason))?;
                segments.skip(n_read);
            }
            0xDB => tables.define_quantization(payload).map_err(damaged)?,
            0xDD => tables.define_restart(payload).map_err(damaged)?,
            0xE0 => jfif |= payload.len() >= 14 && payload.starts_with(b"JFIF\0"),
            0xE1 if exif.is_none() => exif = payload.strip_prefix(b"Exif\0\0"),
            0xEE if payload.len() >= 12 && payload.starts_with(b"Adobe") => adobe = Some(payload[11]),
            _ => {}
        }
    }
    let (frame, decoded) = started.ok_or_else(|| damaged("it has no frame"))?;
    let planes = decoded.into_planes(encoded, &frame)?;
    let colors = known.unwrap_or_else(|| colors(&frame, jfif, adobe));
    let data = interleave(encoded, &frame, &planes, colors)?;
    Ok(Pixels::new(&frame, data, exif))
}

impl<'a> Pixels<'a> {
    fn new(frame: &Frame, data: Vec<u8>, exif: Option<&'a [u8]>) -> Self {
        Self { width: frame.width, height: frame.height, channels: frame.components.len(), data, exif }
    }
}

/// The rules of libjpeg's `default_decompress_parms`: JFIF before Adobe before the ids of the components.
fn colors(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Colors {
    let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
    match (ids.len(), adobe) {
        (1, _) => Colors::Grey,
        (3, Some(0)) if !jfif => Colors::Rgb,
        (3, None) if !jfif && ids == *b"RGB" => Colors::Rgb,
        (3, _) => Colors::YCbCr,
        (_, None | Some(0)) => Colors::Cmyk,
        _ => Colors::Ycck,
    }
}

/// Upsamples the components, row by row, and converts them to the colours of the mode.
fn interleave(encoded: &EncodedImage<'_>, frame: &Frame, planes: &[Vec<u8>], colors: Colors) -> Result<Vec<u8>> {
    let n = planes.len();
    let mut data = encoded.zeroed(frame.width * frame.height * n)?;
    let rows = data.par_chunks_exact_mut(frame.width * n).enumerate().with_min_len(16);
    rows.for_each_init(
        || vec![vec![0; frame.padded_width()]; n],
        |samples, (y, row)| {
            for ((samples, component), plane) in samples.iter_mut().zip(&frame.components).zip(planes) {
                upsample::row(frame, component, plane, y, samples);
            }
            match &samples[..] {
                [grey] => row.copy_from_slice(&grey[..frame.width]),
                [a, b, c] => {
                    for (((pixel, &a), &b), &c) in row.as_chunks_mut::<3>().0.iter_mut().zip(a).zip(b).zip(c) {
                        *pixel = if colors == Colors::YCbCr { ycc_to_rgb(a, b, c) } else { [a, b, c] };
                    }
                }
                [a, b, c, d] => {
                    let inks = a.iter().zip(b).zip(c).zip(d);
                    for (pixel, (((&a, &b), &c), &d)) in row.as_chunks_mut::<4>().0.iter_mut().zip(inks) {
                        // Adobe stores inks inverted, and Pillow takes every file of four components for Adobe's.
                        // libjpeg inverts YCC for YCCK, and the two inversions undo each other.
                        let [r, g, b] =
                            if colors == Colors::Ycck { ycc_to_rgb(a, b, c) } else { [255 - a, 255 - b, 255 - c] };
                        *pixel = [r, g, b, 255 - d];
                    }
                }
                _ => {}
            }
        },
    );
    Ok(data)
}

/// Mirrors libjpeg's `ycc_rgb_convert`.
#[inline(always)]
fn ycc_to_rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    /// Fixed point with 16 fractional bits, rounded.
    const fn fixed(value: f64) -> i32 {
        (value * 65536.0 + 0.5) as i32
    }
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let level = |value: i32| value.clamp(0, 255) as u8;
    [
        level(luma + ((fixed(1.402) * red + HALF) >> 16)),
        level(luma + ((-fixed(0.344_14) * blue - fixed(0.714_14) * red + HALF) >> 16)),
        level(luma + ((fixed(1.772) * blue + HALF) >> 16)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutral_chroma_gives_neutral_colors() {
        for luma in 0..=255 {
            assert_eq!(ycc_to_rgb(luma, 128, 128), [luma; 3]);
        }
        assert_eq!(ycc_to_rgb(76, 85, 255), [254, 0, 0]);
    }
}
