//! Decodes BMP and DIB, a BMP without its file header.

use super::encoded::EncodedImage;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::InputImage;

/// Bytes of the file header.
const FILE_HEADER: usize = 14;
/// More colours than any bitmap has.
const MAX_COLORS: usize = 65536;

const CUT_OFF: &str = "it is cut off";

/// How pixels are compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Rle { four_bits: bool },
    BitFields,
}

/// The header of a bitmap.
struct Header {
    size: (u32, u32),
    top_down: bool,
    bits: usize,
    compression: Compression,
    /// Colours that the palette has.
    n_colors: usize,
    /// Bytes of a colour.
    color_bytes: usize,
    /// Red, green, blue and alpha.
    masks: [u32; 4],
    /// The position of what follows the header and the masks.
    end: usize,
}

/// Mirrors `BmpImagePlugin.py`.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let offset = number(encoded.bytes, 10, 4).ok_or_else(|| encoded.damaged("BMP", CUT_OFF))?;
    decode_bitmap(encoded, FILE_HEADER, Some(offset as usize))
}

/// Mirrors `DibImageFile` of `BmpImagePlugin.py`.
pub(super) fn decode_without_file_header(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    decode_bitmap(encoded, 0, None)
}

/// A little-endian number of `n` ≤ 4 bytes.
fn number(bytes: &[u8], at: usize, n: usize) -> Option<u32> {
    let field = bytes.get(at..at + n)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
}

impl Header {
    fn parse(encoded: &EncodedImage<'_>, start: usize) -> Result<Self> {
        let cut_off = || encoded.damaged("BMP", CUT_OFF);
        let field = |at: usize, n: usize| number(encoded.bytes, start + at, n).ok_or_else(cut_off);
        let header_bytes = field(0, 4)? as usize;
        if header_bytes == 12 {
            let (size, bits) = ((field(4, 2)?, field(6, 2)?), field(10, 2)? as usize);
            let n_colors = 1 << bits.min(8);
            let (compression, end) = (Compression::None, start + header_bytes);
            let header =
                Self { size, top_down: false, bits, compression, n_colors, color_bytes: 3, masks: [0; 4], end };
            return header.check(encoded);
        }
        if !matches!(header_bytes, 16..=64 | 108 | 124) {
            return Err(encoded.unsupported(format!("a BMP with a header of {header_bytes} bytes is not supported")));
        }
        // OS/2 2.x may leave fields out from the end.
        let field = |at: usize, n: usize| if at + n <= header_bytes { field(at, n) } else { Ok(0) };
        let height = field(8, 4)? as i32;
        let size = (field(4, 4)?, height.unsigned_abs());
        let bits = field(14, 2)? as usize;
        let compression = match (field(16, 4)?, bits) {
            (0, _) => Compression::None,
            (1, 8) => Compression::Rle { four_bits: false },
            (2, 4) => Compression::Rle { four_bits: true },
            (3, 16 | 24 | 32) => Compression::BitFields,
            (4, _) => return Err(encoded.unsupported("a BMP that contains a JPEG is not supported")),
            (5, _) => return Err(encoded.unsupported("a BMP that contains a PNG is not supported")),
            (other, _) => {
                let reason = format!("a BMP of {bits} bits a pixel with compression {other} is not supported");
                return Err(encoded.unsupported(reason));
            }
        };
        let mut end = start + header_bytes;
        let masks = if compression != Compression::BitFields {
            if bits == 16 { [0x7C00, 0x3E0, 0x1F, 0] } else { [0xFF_0000, 0xFF00, 0xFF, 0] }
        } else if header_bytes >= 52 {
            [field(40, 4)?, field(44, 4)?, field(48, 4)?, field(52, 4)?]
        } else {
            let mask = |n: usize| number(encoded.bytes, end + 4 * n, 4).ok_or_else(cut_off);
            let masks = [mask(0)?, mask(1)?, mask(2)?, 0];
            end += 12;
            masks
        };
        // Programs write no masks and mean the usual ones.
        let masks = if bits == 32 && masks == [0; 4] { [0xFF_0000, 0xFF00, 0xFF, 0xFF00_0000] } else { masks };
        let n_colors = match field(32, 4)? as usize {
            0 => 1 << bits.min(8),
            stated => stated,
        };
        let top_down = height < 0;
        Self { size, top_down, bits, compression, n_colors, color_bytes: 4, masks, end }.check(encoded)
    }

    fn check(self, encoded: &EncodedImage<'_>) -> Result<Self> {
        encoded.check(self.size)?;
        if !matches!(self.bits, 1 | 2 | 4 | 8 | 16 | 24 | 32) {
            return Err(encoded.unsupported(format!("a BMP of {} bits a pixel is not supported", self.bits)));
        }
        Ok(self)
    }
}

fn decode_bitmap(encoded: &EncodedImage<'_>, start: usize, offset: Option<usize>) -> Result<InputImage> {
    let header = Header::parse(encoded, start)?;
    let cut_off = || encoded.damaged("BMP", CUT_OFF);
    let (width, height) = (header.size.0 as usize, header.size.1 as usize);
    let n_pixels = (width * height) as u64;
    if header.bits > 8 {
        let n = if header.masks[3] == 0 { 3 } else { 4 };
        encoded.check_bytes(n_pixels * n as u64)?;
        let mut data = encoded.zeroed(width * height * n)?;
        let bytes = encoded.bytes.get(offset.unwrap_or(header.end)..).ok_or_else(cut_off)?;
        header.read_colors(bytes, n, &mut data).ok_or_else(cut_off)?;
        let mode = if n == 3 { ColorMode::Rgb } else { ColorMode::Rgba };
        return Ok(InputImage::new(encoded.name, mode, header.size, n, data));
    }
    // Indices and colours are held at one time.
    encoded.check_bytes(n_pixels * 4)?;
    if header.n_colors > MAX_COLORS {
        return Err(encoded.damaged("BMP", "its palette has too many colours"));
    }
    let palette_bytes = header.n_colors * header.color_bytes;
    let palette = encoded.bytes.get(header.end..).ok_or_else(cut_off)?;
    let palette = &palette[..palette_bytes.min(palette.len())];
    let colors: Vec<[u8; 3]> =
        palette.chunks_exact(header.color_bytes).map(|bgr| [bgr[2], bgr[1], bgr[0]]).take(256).collect();
    // Some writers forget the palette in the position of the pixels.
    let offset = offset.filter(|&offset| offset != header.end).unwrap_or(header.end + palette_bytes);
    let pixels = encoded.bytes.get(offset..).ok_or_else(cut_off)?;
    let mut indices = encoded.zeroed(width * height)?;
    match header.compression {
        Compression::Rle { four_bits } => read_rle(pixels, four_bits, width, &mut indices).ok_or_else(cut_off)?,
        _ => header.read_indices(pixels, &mut indices).ok_or_else(cut_off)?,
    }
    if !header.top_down {
        flip(&mut indices, width);
    }
    // A palette of the greys 0, 1, 2, … is treated as grey, so that it is resized with a filter.
    let is_grey = header.n_colors <= 256
        && colors.len() == header.n_colors
        && colors.iter().zip(0..=255u8).all(|(color, grey)| *color == [grey; 3]);
    if header.n_colors == 2 && colors == [[0; 3], [255; 3]] {
        indices.iter_mut().for_each(|index| *index = if *index == 0 { 0 } else { 255 });
        return Ok(InputImage::new(encoded.name, ColorMode::Bilevel, header.size, 1, indices));
    }
    if is_grey && header.n_colors > 2 {
        return Ok(InputImage::new(encoded.name, ColorMode::Luma, header.size, 1, indices));
    }
    let mut table = [[0; 3]; 256];
    table[..colors.len()].copy_from_slice(&colors);
    let mut data = encoded.zeroed(3 * indices.len())?;
    for (color, &index) in data.as_chunks_mut::<3>().0.iter_mut().zip(&indices) {
        *color = table[usize::from(index)];
    }
    Ok(InputImage::new(encoded.name, ColorMode::Palette, header.size, 3, data))
}

impl Header {
    /// The rows of an image that is not compressed, from the top. `None` if they are cut off.
    fn rows<'a>(&self, bytes: &'a [u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
        let (width, height) = (self.size.0 as usize, self.size.1 as usize);
        // Rows begin at multiples of four bytes. The last one may lack its padding.
        let (used, stride) = ((width * self.bits).div_ceil(8), (width * self.bits).div_ceil(32) * 4);
        let needed = stride.checked_mul(height - 1)?.checked_add(used)?;
        let bytes = bytes.get(..needed)?;
        let top_down = self.top_down;
        Some((0..height).map(move |y| {
            let row = if top_down { y } else { height - 1 - y };
            &bytes[row * stride..][..used]
        }))
    }

    /// Pixels of 16, 24 or 32 bits. `None` if they are cut off.
    fn read_colors(&self, bytes: &[u8], n: usize, data: &mut [u8]) -> Option<()> {
        let pixel_bytes = self.bits / 8;
        let usual = self.masks[..3] == [0xFF_0000, 0xFF00, 0xFF] && n == 3 && self.bits >= 24;
        for (row, out) in self.rows(bytes)?.zip(data.chunks_exact_mut(self.size.0 as usize * n)) {
            for (pixel, out) in row.chunks_exact(pixel_bytes).zip(out.chunks_exact_mut(n)) {
                if usual {
                    out.copy_from_slice(&[pixel[2], pixel[1], pixel[0]]);
                    continue;
                }
                let value = pixel.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
                for (out, mask) in out.iter_mut().zip(self.masks) {
                    let largest = u64::from(mask.checked_shr(mask.trailing_zeros()).unwrap_or(0));
                    let level = u64::from((value & mask).checked_shr(mask.trailing_zeros()).unwrap_or(0));
                    *out = (level * 255).checked_div(largest).unwrap_or(0) as u8;
                }
            }
        }
        Some(())
    }

    /// Indices of 1, 2, 4 or 8 bits, in the order of the file. `None` if they are cut off.
    fn read_indices(&self, bytes: &[u8], indices: &mut [u8]) -> Option<()> {
        let width = self.size.0 as usize;
        let upright = Self { top_down: true, masks: self.masks, ..*self };
        let (bits, mask) = (self.bits, (1u16 << self.bits) - 1);
        for (row, out) in upright.rows(bytes)?.zip(indices.chunks_exact_mut(width)) {
            for (x, out) in out.iter_mut().enumerate() {
                let at = x * bits;
                *out = (u16::from(row[at / 8]) >> (8 - bits - at % 8) & mask) as u8;
            }
        }
        Some(())
    }
}

/// Turns the rows upside down.
fn flip(indices: &mut [u8], width: usize) {
    let height = indices.len() / width;
    for y in 0..height / 2 {
        let (upper, lower) = indices.split_at_mut((height - 1 - y) * width);
        upper[y * width..][..width].swap_with_slice(&mut lower[..width]);
    }
}

/// Mirrors `BmpRleDecoder` of `BmpImagePlugin.py`: pixels that are passed over are 0, and pixels that run over the end
/// of a row are left out. `None` if the pixels are cut off.
fn read_rle(bytes: &[u8], four_bits: bool, width: usize, indices: &mut [u8]) -> Option<()> {
    // Runs fill the pixels one after the other, as Pillow's do.
    let (mut at, mut x, mut bytes_left) = (0usize, 0usize, bytes);
    while at < indices.len() {
        let [first, second, rest @ ..] = bytes_left else { return None };
        bytes_left = rest;
        match (*first, *second) {
            (0, 0) => {
                // End of the row.
                at = at.next_multiple_of(width);
                x = 0;
            }
            // End of the bitmap.
            (0, 1) => break,
            (0, 2) => {
                let [right, up, rest @ ..] = bytes_left else { return None };
                bytes_left = rest;
                at += usize::from(*right) + usize::from(*up) * width;
                x = at % width;
            }
            (0, n) => {
                let n_bytes = if four_bits { usize::from(n).div_ceil(2) } else { usize::from(n) };
                let values = bytes_left.get(..n_bytes)?;
                bytes_left = bytes_left.get(n_bytes.next_multiple_of(2)..).unwrap_or_default();
                let pixels =
                    values.iter().flat_map(|&value| if four_bits { [value >> 4, value & 15] } else { [value; 2] });
                let step = if four_bits { 1 } else { 2 };
                for value in pixels.step_by(step).take(usize::from(n)) {
                    if let Some(index) = indices.get_mut(at) {
                        *index = value;
                    }
                    at += 1;
                }
                x += usize::from(n);
            }
            (n, value) => {
                let n = usize::from(n).min(width.saturating_sub(x));
                for i in 0..n {
                    let value = match (four_bits, i % 2) {
                        (false, _) => value,
                        (true, 0) => value >> 4,
                        (true, _) => value & 15,
                    };
                    if let Some(index) = indices.get_mut(at) {
                        *index = value;
                    }
                    at += 1;
                }
                x += n;
            }
        }
    }
    Some(())
}
