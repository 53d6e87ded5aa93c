//! Decodes TIFF: the kinds that Pillow's `OPEN_INFO` lists, and RGB of 32-bit floats.
//!
//! The decompressors are libraries; what a file contains is read here, because the `tiff` crate refuses palettes, grey
//! with alpha and 12-bit samples, does not say whether alpha is premultiplied, and panics on some damaged files.

mod compression;
mod directory;
mod samples;

use image::metadata::Orientation as ExifOrientation;

use self::compression::{Chunk, Compression};
use self::directory::{Directory, tag};
use self::samples::{Encoding, Kind, Pixels, read_row};
use super::encoded::EncodedImage;
use super::palette::Palette;
use crate::Result;
use crate::preprocess::color::unpremultiply;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::{InputImage, Samples};

/// More samples a pixel than Pillow's table knows.
const MAX_SAMPLES: u64 = 6;

/// How the pixels are cut into strips or tiles.
struct Grid {
    /// Pixels of a chunk.
    width: usize,
    height: usize,
    /// Chunks in a row of the image, and rows of them.
    columns: usize,
    rows: usize,
    /// Whether each sample has chunks of its own.
    planar: bool,
}

/// Mirrors `TiffImagePlugin.py`. The orientation is a tag of the file itself, not of an EXIF block, and Pillow applies
/// it while reading.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let damaged = |reason: &'static str| encoded.damaged("TIFF", reason);
    let directory = Directory::parse(encoded.bytes).map_err(damaged)?;
    let one = |tag, default| directory.number(tag, default).map_err(damaged);
    let side = |value: u64| u32::try_from(value).map_err(|_| damaged("a side has more than 32 bits"));
    let size = (side(one(tag::WIDTH, 0)?)?, side(one(tag::HEIGHT, 0)?)?);
    encoded.check(size)?;
    let (width, height) = (size.0 as usize, size.1 as usize);

    let compression = Compression::new(one(tag::COMPRESSION, 1)?)
        .map_err(|name| encoded.unsupported(format!("a TIFF with {name} compression is not supported")))?;
    let photometric = one(tag::PHOTOMETRIC, 0)?;
    let default_samples = if compression == Compression::Jpeg && matches!(photometric, 2 | 6) { 3 } else { 1 };
    let n_samples = one(tag::SAMPLES, default_samples)?;
    let numbers = |tag| directory.numbers(tag).map_err(damaged);
    let (mut all_bits, formats) = (numbers(tag::BITS)?, numbers(tag::SAMPLE_FORMAT)?);
    // Some files state more samples than a pixel has.
    all_bits.truncate(usize::try_from(n_samples).unwrap_or(usize::MAX));
    let same = |values: &[u64]| values.windows(2).all(|pair| pair[0] == pair[1]);
    let bits = all_bits.first().copied().unwrap_or(1);
    let format = formats.first().copied().unwrap_or(1);
    if n_samples == 0 || n_samples > MAX_SAMPLES || !same(&all_bits) || !same(&formats) {
        let reason = format!("a TIFF of {n_samples} samples a pixel, or of samples of different kinds");
        return Err(encoded.unsupported(reason));
    }
    let extra = numbers(tag::EXTRA_SAMPLES)?.first().copied();
    let kind = Kind::new(photometric, bits, format, n_samples, extra, compression)
        .map_err(|reason| encoded.unsupported(reason))?;
    let encoding = Encoding {
        bits: bits as usize,
        n_samples: n_samples as usize,
        big_endian: directory.big_endian,
        predictor: one(tag::PREDICTOR, 1)?,
    };
    encoding.check().map_err(|reason| encoded.unsupported(reason))?;

    let grid = Grid::new(&directory, width, height).map_err(damaged)?;
    // Tiles extend beyond the image, and a few bytes can decompress to many large ones.
    let padded = |n: usize, side: usize| u32::try_from(n.saturating_mul(side)).unwrap_or(u32::MAX);
    if directory.has(tag::TILE_WIDTH) {
        encoded.check((padded(grid.columns, grid.width), padded(grid.rows, grid.height)))?;
    }
    let pixels = read(encoded, &directory, (width, height), &grid, &encoding, &kind, compression)?;
    let mut image = match (kind, pixels) {
        (Kind::Palette, Pixels::U8(indices)) => {
            let colors = numbers(tag::COLOR_MAP)?;
            let n = 1 << bits;
            let table = colors.get(..3 * n).ok_or_else(|| damaged("its palette is cut off"))?;
            let rgb: Vec<u8> =
                (0..n).flat_map(|i| [0, n, 2 * n].map(|channel| (table[channel + i] >> 8) as u8)).collect();
            let (channels, data) = Palette::new(&rgb).look_up(encoded, &indices)?;
            InputImage::new(encoded.name, ColorMode::Palette, size, channels, data)
        }
        (kind, Pixels::U8(data)) => InputImage::new(encoded.name, kind.mode(bits), size, kind.n_kept(), data),
        (_, Pixels::U16(data)) => InputImage::grey16(encoded.name, size, data),
        (_, Pixels::I32(data)) => InputImage::numbers(encoded.name, size, data),
        (_, Pixels::F32(data)) => InputImage::floats(encoded.name, size, data),
    };
    if let (Kind::LumaAlpha { premultiplied: true } | Kind::Rgba { premultiplied: true }, Samples::U8(raster)) =
        (kind, &mut image.samples)
    {
        unpremultiply(raster);
    }
    let orientation = u8::try_from(one(tag::ORIENTATION, 1)?).ok().and_then(ExifOrientation::from_exif);
    image.exif = orientation.unwrap_or(ExifOrientation::NoTransforms);
    Ok(image.upright())
}

/// Decodes the chunks, one after the other, into the pixels.
fn read(
    encoded: &EncodedImage<'_>,
    directory: &Directory<'_>,
    (width, height): (usize, usize),
    grid: &Grid,
    encoding: &Encoding,
    kind: &Kind,
    compression: Compression,
) -> Result<Pixels> {
    let damaged = |reason: &'static str| encoded.damaged("TIFF", reason);
    let numbers = |tag| directory.numbers(tag).map_err(damaged);
    let is_tiled = directory.has(tag::TILE_WIDTH);
    let (offsets, lengths) = if is_tiled {
        (numbers(tag::TILE_OFFSETS)?, numbers(tag::TILE_BYTES)?)
    } else {
        (numbers(tag::STRIP_OFFSETS)?, numbers(tag::STRIP_BYTES)?)
    };
    let in_chunk = if grid.planar { 1 } else { encoding.n_samples };
    let n_planes = if grid.planar { encoding.n_samples } else { 1 };
    let row_bytes = (grid.width as u64 * in_chunk as u64 * encoding.bits as u64).div_ceil(8);
    let chunk_bytes = row_bytes.checked_mul(grid.height as u64).ok_or_else(|| damaged("a chunk is too large"))?;
    let n_pixels = (width * height) as u64;
    let of_palette = if matches!(kind, Kind::Palette) { 3 } else { 0 };
    let decoded_bytes = n_pixels * (kind.n_kept() * kind.sample_bytes() + of_palette) as u64;
    // JPEG is decoded to samples of its own first.
    let copies = if compression == Compression::Jpeg { 3 } else { 1 };
    encoded.check_bytes(decoded_bytes.saturating_add(chunk_bytes.saturating_mul(copies)))?;

    let mut pixels = kind.zeroed(encoded, width * height * kind.n_kept())?;
    let mut buffer: Vec<u8> = encoded.zeroed(chunk_bytes as usize)?;
    let row_bytes = row_bytes as usize;
    let fill_order = directory.number(tag::FILL_ORDER, 1).map_err(damaged)?;
    let tables = directory.bytes(tag::JPEG_TABLES).map_err(damaged)?;
    for plane in 0..n_planes.min(kind.n_kept()) {
        for (row, column) in (0..grid.rows).flat_map(|row| (0..grid.columns).map(move |column| (row, column))) {
            let index = (plane * grid.rows + row) * grid.columns + column;
            let n_rows = grid.height.min(height - row * grid.height);
            // Tiles are whole, also at the borders.
            let stored_rows = if is_tiled { grid.height } else { n_rows };
            let (Some(&offset), Some(length)) = (
                offsets.get(index),
                lengths.get(index).copied().or(
                    // Old writers leave the length of a single uncompressed strip out.
                    (compression == Compression::None).then_some(chunk_bytes),
                ),
            ) else {
                return Err(damaged("chunks are missing"));
            };
            let start = usize::try_from(offset).ok().filter(|&start| start < encoded.bytes.len());
            let rest = &encoded.bytes[start.ok_or_else(|| damaged("a chunk is outside the file"))?..];
            let chunk = Chunk {
                bytes: &rest[..usize::try_from(length).unwrap_or(usize::MAX).min(rest.len())],
                width: grid.width,
                height: stored_rows,
                n_samples: in_chunk,
                photometric: kind.photometric(),
                fill_order,
                tables,
            };
            let out = &mut buffer[..row_bytes * stored_rows];
            compression.decode(encoded, &chunk, out)?;
            let visible = grid.width.min(width - column * grid.width);
            for (y, bytes) in out.chunks_exact_mut(row_bytes).take(n_rows).enumerate() {
                encoding.undo_prediction(bytes, in_chunk, compression != Compression::Jpeg);
                let first = ((row * grid.height + y) * width + column * grid.width) * kind.n_kept() + plane;
                read_row(bytes, encoding, kind, (in_chunk, visible), &mut pixels, first);
            }
        }
    }
    Ok(pixels)
}

impl Grid {
    fn new(directory: &Directory<'_>, width: usize, height: usize) -> Result<Self, directory::Damage> {
        let planar = directory.number(tag::PLANAR, 1)? == 2;
        let (chunk_width, chunk_height) = if directory.has(tag::TILE_WIDTH) {
            (directory.number(tag::TILE_WIDTH, 0)?, directory.number(tag::TILE_HEIGHT, 0)?)
        } else {
            (width as u64, directory.number(tag::ROWS_PER_STRIP, u64::MAX)?.min(height as u64))
        };
        let side = |side: u64| u32::try_from(side).ok().filter(|&side| side > 0).map(|side| side as usize);
        let (Some(chunk_width), Some(chunk_height)) = (side(chunk_width), side(chunk_height)) else {
            return Err("a chunk has no pixels");
        };
        let (columns, rows) = (width.div_ceil(chunk_width), height.div_ceil(chunk_height));
        Ok(Self { width: chunk_width, height: chunk_height, columns, rows, planar })
    }
}
