//! What the samples of a TIFF mean: the kinds of Pillow's table, and how their bits become samples of an image.

use super::super::encoded::EncodedImage;
use super::compression::Compression;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;

/// What the samples of a pixel mean.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Grey of at most 8 bits. Zero is white if `inverted`.
    Luma {
        inverted: bool,
    },
    LumaAlpha {
        premultiplied: bool,
    },
    /// Grey of 12 or 16 bits. Pillow does not invert it.
    Luma16,
    /// Grey of signed 16 bits, or of 32 bits.
    Integer,
    Float,
    Palette,
    Rgb {
        luma_chroma: bool,
    },
    Rgba {
        premultiplied: bool,
    },
    Cmyk,
}

impl Kind {
    /// Fails with what is not supported.
    pub(super) fn new(
        photometric: u64,
        bits: u64,
        format: u64,
        n_samples: u64,
        extra: Option<u64>,
        compression: Compression,
    ) -> Result<Self, String> {
        let kind = match (photometric, n_samples, bits, format) {
            (0 | 1, 1, 1 | 2 | 4 | 8, 1) | (1, 1, 8, 2) => Self::Luma { inverted: photometric == 0 },
            (6, 1, 8, 1) => Self::Luma { inverted: false },
            (1, 1, 12, 1) | (0 | 1, 1, 16, 1) => Self::Luma16,
            (1, 1, 16, 2) | (1, 1, 32, 1 | 2) => Self::Integer,
            (0 | 1, 1, 32, 3) => Self::Float,
            (1, 2, 8, 1) if extra == Some(0) => Self::Luma { inverted: false },
            (1, 2, 8, 1) if matches!(extra, Some(1 | 2)) => Self::LumaAlpha { premultiplied: extra == Some(1) },
            (2, 3, 8 | 16, 1) | (2, 3, 32, 3) => Self::Rgb { luma_chroma: false },
            (2, 4.., 8 | 16, 1) | (2, 4, 32, 3) => match extra {
                Some(0) => Self::Rgb { luma_chroma: false },
                Some(1) => Self::Rgba { premultiplied: true },
                None | Some(2 | 999) => Self::Rgba { premultiplied: false },
                Some(other) => return Err(format!("a TIFF with extra samples of kind {other}")),
            },
            (3, 1, 1 | 2 | 4 | 8, 1) => Self::Palette,
            (3, 2, 8, 1) if extra == Some(0) => Self::Palette,
            (5, 4.., 8 | 16, 1) if matches!(extra, None | Some(0)) => Self::Cmyk,
            (6, 3, 8, 1) if compression == Compression::Jpeg => Self::Rgb { luma_chroma: true },
            _ => {
                let colors = match photometric {
                    0 | 1 => "grey",
                    2 => "RGB",
                    3 => "palette",
                    4 => "a mask",
                    5 => "CMYK",
                    6 => "YCbCr",
                    8..=10 => "Lab",
                    _ => "an unknown colour space",
                };
                let format = match format {
                    1 => "unsigned",
                    2 => "signed",
                    3 => "float",
                    _ => "other",
                };
                let reason = format!("a TIFF of {colors} with {n_samples} {format} samples of {bits} bits a pixel");
                return Err(format!("{reason} is not supported"));
            }
        };
        Ok(kind)
    }

    /// Samples of a pixel that are kept.
    pub(super) fn n_kept(self) -> usize {
        match self {
            Self::Luma { .. } | Self::Luma16 | Self::Integer | Self::Float | Self::Palette => 1,
            Self::LumaAlpha { .. } => 2,
            Self::Rgb { .. } => 3,
            Self::Rgba { .. } | Self::Cmyk => 4,
        }
    }

    pub(super) fn sample_bytes(self) -> usize {
        match self {
            Self::Luma16 => 2,
            Self::Integer | Self::Float => 4,
            _ => 1,
        }
    }

    pub(super) fn mode(self, bits: u64) -> ColorMode {
        match self {
            Self::Luma { .. } if bits == 1 => ColorMode::Bilevel,
            Self::Luma { .. } => ColorMode::Luma,
            Self::LumaAlpha { .. } => ColorMode::LumaAlpha,
            Self::Luma16 => ColorMode::Luma16,
            Self::Integer => ColorMode::Integer,
            Self::Float => ColorMode::Float,
            Self::Palette => ColorMode::Palette,
            Self::Rgb { .. } => ColorMode::Rgb,
            Self::Rgba { .. } => ColorMode::Rgba,
            Self::Cmyk => ColorMode::Cmyk,
        }
    }

    /// What JPEG chunks contain, by TIFF's number.
    pub(super) fn photometric(self) -> u64 {
        match self {
            Self::Rgb { luma_chroma: true } => 6,
            _ => 2,
        }
    }

    pub(super) fn zeroed(self, encoded: &EncodedImage<'_>, n: usize) -> Result<Pixels> {
        Ok(match self {
            Self::Luma16 => Pixels::U16(encoded.zeroed(n)?),
            Self::Integer => Pixels::I32(encoded.zeroed(n)?),
            Self::Float => Pixels::F32(encoded.zeroed(n)?),
            _ => Pixels::U8(encoded.zeroed(n)?),
        })
    }
}

/// The samples that are kept, of all pixels.
pub(super) enum Pixels {
    U8(Vec<u8>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    F32(Vec<f32>),
}

/// How samples are stored in a chunk.
pub(super) struct Encoding {
    pub(super) bits: usize,
    /// Samples of a pixel.
    pub(super) n_samples: usize,
    pub(super) big_endian: bool,
    pub(super) predictor: u64,
}

impl Encoding {
    /// Fails with what is not supported.
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.predictor, self.bits) {
            (0 | 1, _) | (2, 8 | 16 | 32) | (3, 32) => Ok(()),
            (predictor, bits) => Err(format!("a TIFF with predictor {predictor} and samples of {bits} bits")),
        }
    }

    /// Undoes the prediction in a row of a chunk of `in_chunk` samples a pixel.
    pub(super) fn undo_prediction(&self, row: &mut [u8], in_chunk: usize, predicted: bool) {
        let width = self.bits / 8;
        match self.predictor {
            2 if predicted && width > 0 => {
                let step = in_chunk * width;
                for at in (step..=row.len().saturating_sub(width)).step_by(width) {
                    let sum = self.integer(&row[at - step..][..width]).wrapping_add(self.integer(&row[at..][..width]));
                    let bytes = sum.to_le_bytes();
                    for (i, byte) in row[at..][..width].iter_mut().enumerate() {
                        *byte = bytes[if self.big_endian { width - 1 - i } else { i }];
                    }
                }
            }
            3 if predicted => {
                for at in in_chunk..row.len() {
                    row[at] = row[at].wrapping_add(row[at - in_chunk]);
                }
                // The bytes of all values, the highest ones first, become values in the file's order.
                let n = row.len() / width;
                let planes = row.to_vec();
                for (value, bytes) in row.chunks_exact_mut(width).enumerate() {
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        let plane = if self.big_endian { i } else { width - 1 - i };
                        *byte = planes[plane * n + value];
                    }
                }
            }
            _ => {}
        }
    }

    /// An integer of at most four bytes.
    fn integer(&self, bytes: &[u8]) -> u32 {
        let add = |value: u32, &byte: &u8| value << 8 | u32::from(byte);
        if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    /// The bits of the sample with the index `i` in a row.
    fn sample(&self, row: &[u8], i: usize) -> u32 {
        match self.bits {
            8 => u32::from(row[i]),
            16 => self.integer(&row[2 * i..][..2]),
            32 => self.integer(&row[4 * i..][..4]),
            bits => (0..bits).fold(0, |value, bit| {
                let at = i * bits + bit;
                value << 1 | u32::from(row[at / 8] >> (7 - at % 8) & 1)
            }),
        }
    }
}

/// Stores the first `visible` pixels of a row of a chunk, whose pixels have `in_chunk` samples there, from the index
/// `first` on.
pub(super) fn read_row(
    row: &[u8],
    encoding: &Encoding,
    kind: &Kind,
    (in_chunk, visible): (usize, usize),
    pixels: &mut Pixels,
    first: usize,
) {
    let (kept, bits) = (kind.n_kept(), encoding.bits);
    let stored = kept.min(in_chunk);
    // A planar chunk has one sample a pixel, and the image more.
    let places = (0..visible).flat_map(|x| (0..stored).map(move |s| (x * in_chunk + s, first + x * kept + s)));
    let sample = |from| encoding.sample(row, from);
    match pixels {
        Pixels::U8(out) if bits == 8 && in_chunk == kept => {
            out[first..first + visible * kept].copy_from_slice(&row[..visible * kept]);
        }
        Pixels::U8(out) => {
            let scale = if matches!(kind, Kind::Palette) || bits > 8 { 1 } else { 255 / ((1 << bits) - 1) };
            places.for_each(|(from, to)| {
                out[to] = match bits {
                    16 => (sample(from) >> 8) as u8,
                    32 => (f32::from_bits(sample(from)).clamp(0.0, 1.0) * 255.0).round() as u8,
                    _ => (sample(from) * scale) as u8,
                }
            });
        }
        Pixels::U16(out) => places.for_each(|(from, to)| out[to] = sample(from) as u16),
        Pixels::I32(out) if bits == 16 => places.for_each(|(from, to)| out[to] = i32::from(sample(from) as i16)),
        Pixels::I32(out) => places.for_each(|(from, to)| out[to] = sample(from) as i32),
        Pixels::F32(out) => places.for_each(|(from, to)| out[to] = f32::from_bits(sample(from))),
    }
    if let (Pixels::U8(out), Kind::Luma { inverted: true }) = (pixels, kind) {
        out[first..first + visible].iter_mut().for_each(|grey| *grey = 255 - *grey);
    }
}
