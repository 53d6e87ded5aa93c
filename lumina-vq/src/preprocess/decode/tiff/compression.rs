//! Decompresses strips and tiles.

use std::borrow::Cow;
use std::io::Read;

use super::super::encoded::EncodedImage;
use super::super::jpeg;
use crate::Result;

/// The methods of compression that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

/// A strip or a tile.
pub(super) struct Chunk<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) n_samples: usize,
    pub(super) photometric: u64,
    /// 2: the lowest bit of a byte comes first.
    pub(super) fill_order: u64,
    /// The tables that all JPEG chunks share.
    pub(super) tables: Option<&'a [u8]>,
}

impl Compression {
    /// The method of a number in a file. Fails with the name of one that is not supported.
    pub(super) fn new(number: u64) -> Result<Self, String> {
        Ok(match number {
            1 => Self::None,
            4 => Self::Group4,
            5 => Self::Lzw,
            7 => Self::Jpeg,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            2 => return Err("CCITT Huffman".to_owned()),
            3 => return Err("CCITT group 3".to_owned()),
            6 => return Err("old-style JPEG".to_owned()),
            34925 => return Err("LZMA".to_owned()),
            50000 => return Err("Zstandard".to_owned()),
            50001 => return Err("WebP".to_owned()),
            other => return Err(format!("number {other}")),
        })
    }

    /// Fills `out` with the bytes of a chunk.
    pub(super) fn decode(self, encoded: &EncodedImage<'_>, chunk: &Chunk<'_>, out: &mut [u8]) -> Result<()> {
        let reverse = chunk.fill_order == 2 && self != Self::Jpeg;
        let bytes: Cow<'_, [u8]> = if reverse {
            chunk.bytes.iter().map(|byte| byte.reverse_bits()).collect::<Vec<_>>().into()
        } else {
            chunk.bytes.into()
        };
        let n_read = match self {
            Self::None => {
                let n = bytes.len().min(out.len());
                out[..n].copy_from_slice(&bytes[..n]);
                n
            }
            Self::Deflate => read_all(flate2::read::ZlibDecoder::new(&bytes[..]), out),
            Self::Lzw => {
                let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
                let (mut n_in, mut n_out) = (0, 0);
                while n_out < out.len() {
                    let result = decoder.decode_bytes(&bytes[n_in..], &mut out[n_out..]);
                    (n_in, n_out) = (n_in + result.consumed_in, n_out + result.consumed_out);
                    if !matches!(result.status, Ok(weezl::LzwStatus::Ok))
                        || result.consumed_in + result.consumed_out == 0
                    {
                        break;
                    }
                }
                n_out
            }
            Self::PackBits => unpack_bits(&bytes, out),
            Self::Group4 => group4(&bytes, chunk, out),
            Self::Jpeg => return decode_jpeg(encoded, chunk, out),
        };
        if n_read < out.len() { Err(encoded.damaged("TIFF", "a chunk is cut off or damaged")) } else { Ok(()) }
    }
}

/// Reads until `out` is full, the bytes end or are damaged; returns how many bytes were read.
fn read_all(mut reader: impl Read, out: &mut [u8]) -> usize {
    let mut n_read = 0;
    while let Ok(n @ 1..) = reader.read(&mut out[n_read..]) {
        n_read += n;
    }
    n_read
}

fn unpack_bits(mut bytes: &[u8], out: &mut [u8]) -> usize {
    let mut n_read = 0;
    while let [head, rest @ ..] = bytes {
        let room = out.len() - n_read;
        if room == 0 {
            break;
        }
        // 0..=127: that many bytes and one more follow. 129..=255: 257 minus it times the next byte.
        bytes = match (*head, rest) {
            (128, _) => rest,
            (0..=127, _) => {
                let n = (usize::from(*head) + 1).min(rest.len());
                let used = n.min(room);
                out[n_read..n_read + used].copy_from_slice(&rest[..used]);
                n_read += used;
                &rest[n..]
            }
            (_, [value, rest @ ..]) => {
                let n = (257 - usize::from(*head)).min(room);
                out[n_read..n_read + n].fill(*value);
                n_read += n;
                rest
            }
            (_, []) => break,
        };
    }
    n_read
}

/// One bit a pixel; 1 is black.
fn group4(bytes: &[u8], chunk: &Chunk<'_>, out: &mut [u8]) -> usize {
    let (Ok(width), Ok(height)) = (u16::try_from(chunk.width), u16::try_from(chunk.height)) else { return 0 };
    out.fill(0);
    let row_bytes = out.len() / chunk.height;
    let mut rows = out.chunks_exact_mut(row_bytes);
    let mut n_rows = 0;
    fax::decoder::decode_g4(bytes.iter().copied(), width, Some(height), |transitions| {
        let Some(row) = rows.next() else { return };
        n_rows += 1;
        for (x, color) in fax::decoder::pels(transitions, width).enumerate() {
            if color == fax::Color::Black {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
    });
    n_rows * row_bytes
}

/// The chunk is a JPEG file that may lack its tables.
fn decode_jpeg(encoded: &EncodedImage<'_>, chunk: &Chunk<'_>, out: &mut [u8]) -> Result<()> {
    let body = chunk.bytes.strip_prefix(b"\xFF\xD8").unwrap_or(chunk.bytes);
    let tables = chunk.tables.unwrap_or(b"\xFF\xD8");
    let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
    let bytes = [tables, body].concat();
    let file = EncodedImage { name: encoded.name, bytes: &bytes, limits: encoded.limits };
    let colors = match (chunk.n_samples, chunk.photometric) {
        (1, _) => jpeg::Colors::Grey,
        (3, 6) => jpeg::Colors::YCbCr,
        (3, _) => jpeg::Colors::Rgb,
        _ => jpeg::Colors::Cmyk,
    };
    let decoded = jpeg::decode_as(&file, Some(colors))?;
    let is_whole =
        decoded.width == chunk.width && decoded.height >= chunk.height && decoded.channels == chunk.n_samples;
    match decoded.data.get(..out.len()) {
        Some(data) if is_whole => out.copy_from_slice(data),
        _ => return Err(encoded.damaged("TIFF", "a JPEG chunk has another size than its place")),
    }
    if colors == jpeg::Colors::Cmyk {
        // Inks in TIFF are not inverted.
        out.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok(())
}
