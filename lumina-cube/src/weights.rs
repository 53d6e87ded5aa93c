//! Weights on a device: in 16-byte words, with the scales of blocks apart.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::gpu::{ALIGNMENT, Buffer, WORD};
use crate::staging::Staging;
use crate::{Error, Gpu, Result};

/// Numbers of a block that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Words of 32 bits in the unit that kernels load: 16 bytes.
pub(crate) const LOAD: usize = 4;

/// How weights are stored on a device. The numbers are those of the formats of the same name in `lumina-kernels`.
#[allow(non_camel_case_types, reason = "the names that GGUF's users know")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// Blocks of 32 signed bytes with a scale in `f16`.
    Q8_0,
    /// Blocks of 32 4-bit integers with a scale in `f16`.
    Q4_0,
}

impl Format {
    /// Numbers in a load of 16 bytes.
    pub(crate) const fn per_load(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 8,
            Self::Q8_0 => 16,
            Self::Q4_0 => 32,
        }
    }

    /// Whether blocks have scales.
    pub(crate) const fn has_scales(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// Bytes of a row of `columns` as files store it; `None` where it is no whole number of blocks.
    fn file_row_bytes(self, columns: usize) -> Option<usize> {
        match self {
            Self::F32 => columns.checked_mul(4),
            Self::F16 | Self::BF16 => columns.checked_mul(2),
            Self::Q8_0 => columns.is_multiple_of(BLOCK).then(|| columns / BLOCK * 34),
            Self::Q4_0 => columns.is_multiple_of(BLOCK).then(|| columns / BLOCK * 18),
        }
    }

    /// Loads of a row of `columns`; the last is padded with zeros.
    pub(crate) const fn row_loads(self, columns: usize) -> usize {
        let loads = columns.div_ceil(self.per_load());
        // A block of bytes is two loads.
        if matches!(self, Self::Q8_0) { loads.next_multiple_of(2) } else { loads }
    }

    /// Bytes on the device of a matrix `[rows, columns]`.
    pub fn device_bytes(self, rows: usize, columns: usize) -> u64 {
        let scales = if self.has_scales() { 2 * columns.div_ceil(BLOCK) } else { 0 };
        rows as u64 * (self.row_loads(columns) * LOAD * WORD + scales) as u64
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        })
    }
}

/// Where weights go: large buffers that are filled one matrix after the other, so that those of one input lie in one.
pub struct Arena {
    gpu: Gpu,
    words: Chunk,
    scales: Chunk,
    staging: Staging,
}

/// A buffer that is filled from the front.
struct Chunk {
    buffer: Option<Buffer>,
    used: usize,
    /// Words of the next buffer.
    next: usize,
}

/// Words of the first buffer, and of the largest: each is twice as large as the one before.
const CHUNK_WORDS: (usize, usize) = (1 << 18, 1 << 26);

impl Chunk {
    const NEW: Self = Self { buffer: None, used: 0, next: CHUNK_WORDS.0 };

    /// Room for so many words: the buffer, and where in it.
    fn take(&mut self, gpu: &Gpu, words: usize) -> Result<(Buffer, usize)> {
        let words = words.next_multiple_of(ALIGNMENT);
        match &self.buffer {
            Some(buffer) if self.used + words <= buffer.len() => {
                let start = self.used;
                self.used += words;
                Ok((buffer.clone(), start))
            }
            _ => {
                let buffer = gpu.empty(words.max(self.next));
                gpu.check(&buffer)?;
                let most = usize::try_from(gpu.max_buffer_bytes() / WORD as u64).unwrap_or(usize::MAX);
                self.next = (2 * self.next).min(CHUNK_WORDS.1).min(most);
                self.buffer = Some(buffer.clone());
                self.used = words;
                Ok((buffer, 0))
            }
        }
    }
}

/// A matrix `[rows, columns]` on a device. Clones are the same memory.
#[derive(Clone)]
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    words: Buffer,
    /// The first load in `words`.
    first_load: usize,
    scales: Buffer,
    /// The first scale in `scales`, which has two in a word.
    first_scale: usize,
}

/// Some rows of a matrix.
#[derive(Clone, Debug)]
pub struct MatrixRows<'a> {
    /// The matrix.
    pub matrix: &'a Matrix,
    /// Which rows of it.
    pub rows: Range<usize>,
}

impl Arena {
    /// An empty one.
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), words: Chunk::NEW, scales: Chunk::NEW, staging: Staging::new(gpu) }
    }

    /// Copies a matrix to the device. `bytes` are its rows as safetensors and GGUF store them; threads copy them from a
    /// mapped file to memory from which the device copies. It takes [turns](Gpu::turn) itself, so its caller has none.
    ///
    /// # Errors
    /// [`Error::MatrixBytes`] where there are more or fewer bytes than the shape takes, or a row is no whole number of
    /// blocks; [`Error::OutOfMemory`], [`Error::Device`].
    pub fn matrix(&mut self, format: Format, [rows, columns]: [usize; 2], bytes: Bytes) -> Result<Matrix> {
        let row_bytes = format.file_row_bytes(columns);
        let expected = row_bytes.and_then(|bytes| bytes.checked_mul(rows));
        let (Some(row_bytes), true) = (row_bytes, expected == Some(bytes.len())) else {
            let expected = expected.unwrap_or(0);
            return Err(Error::MatrixBytes { found: bytes.len(), rows, columns, format, expected });
        };
        let slice = |rows: Range<usize>| Ok(bytes.slice(rows.start * row_bytes..rows.end * row_bytes));
        self.matrix_of_rows(format, [rows, columns], slice)
    }

    /// [`Arena::matrix`] of rows that `read` makes, some at a time, in order, so that no more than 32 MB of them need
    /// to be in memory.
    ///
    /// # Errors
    /// As [`Arena::matrix`], and those of `read`.
    pub fn matrix_of_rows<E: From<Error>>(
        &mut self,
        format: Format,
        [rows, columns]: [usize; 2],
        mut read: impl FnMut(Range<usize>) -> Result<Bytes, E>,
    ) -> Result<Matrix, E> {
        let wrong = |found, rows, expected| E::from(Error::MatrixBytes { found, rows, columns, format, expected });
        let row_bytes = format.file_row_bytes(columns).ok_or_else(|| wrong(0, rows, 0))?;
        let padded = format.row_loads(columns) * LOAD * WORD;
        let row_scales = if format.has_scales() { 2 * columns.div_ceil(BLOCK) } else { 0 };
        let bytes = rows.checked_mul(padded).ok_or(Error::OutOfMemory { bytes: u64::MAX })?;
        let turn = self.gpu.turn();
        let (words, first_word) = self.words.take(&self.gpu, bytes / WORD)?;
        let (scales, first_scale) = self.scales.take(&self.gpu, (rows * row_scales).div_ceil(WORD))?;
        drop(turn);
        let part = ((READ / row_bytes.max(1)) / ROWS * ROWS).max(ROWS);
        for first in (0..rows).step_by(part) {
            let rows_of_part = first..rows.min(first + part);
            let n = rows_of_part.len();
            let bytes = read(rows_of_part)?;
            if bytes.len() != n * row_bytes {
                return Err(wrong(bytes.len(), n, n * row_bytes));
            }
            let start = first_word + first * padded / WORD;
            let room = words.part(start..start + n * padded / WORD);
            self.staging.upload(&room, |at, out| match format {
                Format::F32 | Format::F16 | Format::BF16 if row_bytes == padded => {
                    out.copy_from_slice(&bytes[at..at + out.len()]);
                }
                Format::F32 | Format::F16 | Format::BF16 => pad_rows(&bytes, [row_bytes, padded], at, out),
                Format::Q8_0 => numbers_of_blocks::<34, 32>(&bytes, at, out),
                Format::Q4_0 => numbers_of_blocks::<18, 16>(&bytes, at, out),
            })?;
            if row_scales > 0 {
                let start = first_scale + first * row_scales / WORD;
                let room = scales.part(start..start + (n * row_scales).div_ceil(WORD));
                self.staging.upload(&room, |at, out| match format {
                    Format::Q4_0 => scales_of_blocks::<18>(&bytes, at, out),
                    _ => scales_of_blocks::<34>(&bytes, at, out),
                })?;
            }
        }
        let (first_load, first_scale) = (first_word / LOAD, first_scale * 2);
        Ok(Matrix { format, rows, columns, words, first_load, scales, first_scale })
    }
}

/// Bytes of rows, as files store them, that are read at a time.
const READ: usize = 1 << 25;

/// Rows that are read at a time are a multiple of so many: their words and scales then begin where parts of buffers do.
const ROWS: usize = 2 * ALIGNMENT;

/// Rows of `row` bytes as rows of `padded` bytes that end with zeros: those from byte `at` of the latter on.
fn pad_rows(bytes: &[u8], [row, padded]: [usize; 2], mut at: usize, mut out: &mut [u8]) {
    while !out.is_empty() {
        let (index, column) = (at / padded, at % padded);
        let (part, rest) = out.split_at_mut((padded - column).min(out.len()));
        let stored = row.saturating_sub(column).min(part.len());
        let first = index * row + column.min(row);
        part[..stored].copy_from_slice(&bytes[first..first + stored]);
        part[stored..].fill(0);
        at += part.len();
        out = rest;
    }
}

/// The numbers of blocks of a scale and `N` = `BLOCK_BYTES` − 2 bytes: those from byte `at` on, where a block begins.
fn numbers_of_blocks<const BLOCK_BYTES: usize, const N: usize>(bytes: &[u8], at: usize, out: &mut [u8]) {
    let blocks = &bytes.as_chunks::<BLOCK_BYTES>().0[at / N..];
    for (numbers, block) in out.as_chunks_mut::<N>().0.iter_mut().zip(blocks) {
        numbers.copy_from_slice(&block[2..]);
    }
}

/// The scales of such blocks from byte `at` on; zero beyond the last.
fn scales_of_blocks<const BLOCK_BYTES: usize>(bytes: &[u8], at: usize, out: &mut [u8]) {
    let blocks = &bytes.as_chunks::<BLOCK_BYTES>().0[at / 2..];
    out.fill(0);
    for (scale, block) in out.as_chunks_mut::<2>().0.iter_mut().zip(blocks) {
        scale.copy_from_slice(&block[..2]);
    }
}

impl Matrix {
    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of rows: outputs of a linear layer, entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of a linear layer, width of an embedding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All rows.
    pub fn all(&self) -> MatrixRows<'_> {
        MatrixRows { matrix: self, rows: 0..self.rows }
    }

    /// Columns with the zeros that fill the last load.
    pub(crate) fn padded_columns(&self) -> usize {
        self.format.row_loads(self.columns) * self.format.per_load()
    }

    pub(crate) fn words(&self) -> &Buffer {
        &self.words
    }

    pub(crate) fn scales(&self) -> &Buffer {
        &self.scales
    }

    /// Whether a kernel can read both by one pair of buffers.
    pub(crate) fn lies_with(&self, other: &Self) -> bool {
        self.format == other.format
            && self.columns == other.columns
            && self.words.is_same(&other.words)
            && (!self.format.has_scales() || self.scales.is_same(&other.scales))
    }

    /// The first load of a row.
    pub(crate) fn load_of(&self, row: usize) -> usize {
        self.first_load + row * self.format.row_loads(self.columns)
    }

    /// The first scale of a row.
    pub(crate) fn scale_of(&self, row: usize) -> usize {
        self.first_scale + row * (self.columns / BLOCK)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix")
            .field("format", &self.format)
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").finish_non_exhaustive()
    }
}
