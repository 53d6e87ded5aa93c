//! Formats of weights: how the elements of a matrix are stored, and plain functions that read and write its rows.
//!
//! A row is a whole number of blocks, without padding between blocks or rows, little-endian and at any alignment: what
//! safetensors (`f32`, `f16`, `bf16`) and GGUF (all) store. The functions here are the definition that the kernels are
//! tested against; they are written to be read, not to be fast.
//!
//! | format | elements a block | bytes a block | bits an element | an element's value |
//! | --- | --- | --- | --- | --- |
//! | `F32` | 1 | 4 | 32 | itself |
//! | `F16`, `BF16` | 1 | 2 | 16 | itself |
//! | `Q8_0` | 32 | 34 | 8.5 | `d · q`, `q` −127 … 127 |
//! | `Q4_0` | 32 | 18 | 4.5 | `d · (q − 8)`, `q` 0 … 15 |
//! | `Q4_1` | 32 | 20 | 5 | `d · q + m`, `q` 0 … 15 |
//! | `Q5_0` | 32 | 22 | 5.5 | `d · (q − 16)`, `q` 0 … 31 |
//! | `Q5_1` | 32 | 24 | 6 | `d · q + m`, `q` 0 … 31 |
//! | `Q2_K` | 256 | 84 | 2.625 | `d · s · q − m · t`, `q` 0 … 3, with 4-bit `s` and `t` for each 16 elements |
//! | `Q3_K` | 256 | 110 | 3.4375 | `d · (s − 32) · (q − 4)`, `q` 0 … 7, with 6-bit `s` for each 16 elements |
//! | `Q4_K` | 256 | 144 | 4.5 | `d · s · q − m · t`, `q` 0 … 15, with 6-bit `s` and `t` for each 32 elements |
//! | `Q5_K` | 256 | 176 | 5.5 | `d · s · q − m · t`, `q` 0 … 31, with 6-bit `s` and `t` for each 32 elements |
//! | `Q6_K` | 256 | 210 | 6.5625 | `d · s · (q − 32)`, `q` 0 … 63, with 8-bit `s` for each 16 elements |
//!
//! ```
//! use lumina_kernels::Format;
//!
//! let row: Vec<f32> = (0..64).map(|i| (i as f32 * 0.3).sin()).collect();
//! let mut bytes = vec![0; Format::Q8_0.row_bytes(row.len())?];
//! Format::Q8_0.quantise_row(&row, &mut bytes)?;
//!
//! let mut back = vec![0.0; row.len()];
//! Format::Q8_0.dequantise_row(&bytes, &mut back)?;
//! assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.005));
//! # Ok::<(), lumina_kernels::Error>(())
//! ```

use std::fmt;

use crate::{Error, Result};

mod block;
mod float;
mod q2_k;
mod q3_k;
pub(crate) mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
pub(crate) mod q8_0;

pub(crate) use block::Block;
use block::Quantise;

/// How the elements of a matrix are stored.
#[non_exhaustive]
#[allow(non_camel_case_types, reason = "the names that GGUF's users know")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// Blocks of 32: signed 8-bit integers and an `f16` scale.
    Q8_0,
    /// Blocks of 32: 4-bit integers and an `f16` scale.
    Q4_0,
    /// Blocks of 32: 4-bit integers, an `f16` scale and an `f16` minimum. Read only.
    Q4_1,
    /// Blocks of 32: 5-bit integers and an `f16` scale. Read only.
    Q5_0,
    /// Blocks of 32: 5-bit integers, an `f16` scale and an `f16` minimum. Read only.
    Q5_1,
    /// Blocks of 256: 2-bit integers, 16 four-bit scales and minima, and two `f16` scales of those. Read only.
    Q2_K,
    /// Blocks of 256: 3-bit integers, 16 six-bit scales, and an `f16` scale of those. Read only.
    Q3_K,
    /// Blocks of 256: 4-bit integers, 8 six-bit scales and minima, and two `f16` scales of those. Read only.
    Q4_K,
    /// Blocks of 256: 5-bit integers, 8 six-bit scales and minima, and two `f16` scales of those. Read only.
    Q5_K,
    /// Blocks of 256: 6-bit integers, 16 eight-bit scales, and an `f16` scale of those. Read only.
    Q6_K,
}

/// Dequantises whole blocks.
type Read = fn(&[u8], &mut [f32]);
/// Quantises whole blocks, or fails with the index of an element.
type Write = fn(&[f32], &mut [u8]) -> std::result::Result<(), usize>;

/// What distinguishes a format: one line of [`Format::spec`].
struct Spec {
    /// Its name, as in GGUF.
    name: &'static str,
    block_elements: usize,
    block_bytes: usize,
    read: Read,
    /// `None` for formats that are only read.
    write: Option<Write>,
}

impl Spec {
    /// A format that is only read.
    const fn read_only<B: Block<N>, const N: usize>(name: &'static str) -> Self {
        Self { name, block_elements: N, block_bytes: size_of::<B>(), read: read_blocks::<B, N>, write: None }
    }

    /// A format that is read and written.
    const fn blocks<B: Quantise<N>, const N: usize>(name: &'static str) -> Self {
        Self { write: Some(write_blocks::<B, N>), ..Self::read_only::<B, N>(name) }
    }
}

impl Format {
    /// Every format, from the widest to the narrowest.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6_K,
        Self::Q5_1,
        Self::Q5_K,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_K,
        Self::Q4_0,
        Self::Q3_K,
        Self::Q2_K,
    ];

    const fn spec(self) -> &'static Spec {
        use float::*;
        const fn float(name: &'static str, block_bytes: usize, read: Read, write: Write) -> Spec {
            Spec { name, block_elements: 1, block_bytes, read, write: Some(write) }
        }
        match self {
            Self::F32 => const { &float("f32", 4, read_f32, write_f32) },
            Self::F16 => const { &float("f16", 2, read_f16, write_f16) },
            Self::BF16 => const { &float("bf16", 2, read_bf16, write_bf16) },
            Self::Q8_0 => const { &Spec::blocks::<q8_0::BlockQ8_0, 32>("q8_0") },
            Self::Q4_0 => const { &Spec::blocks::<q4_0::BlockQ4_0, 32>("q4_0") },
            Self::Q4_1 => const { &Spec::read_only::<q4_1::BlockQ4_1, 32>("q4_1") },
            Self::Q5_0 => const { &Spec::read_only::<q5_0::BlockQ5_0, 32>("q5_0") },
            Self::Q5_1 => const { &Spec::read_only::<q5_1::BlockQ5_1, 32>("q5_1") },
            Self::Q2_K => const { &Spec::read_only::<q2_k::BlockQ2K, 256>("q2_k") },
            Self::Q3_K => const { &Spec::read_only::<q3_k::BlockQ3K, 256>("q3_k") },
            Self::Q4_K => const { &Spec::read_only::<q4_k::BlockQ4K, 256>("q4_k") },
            Self::Q5_K => const { &Spec::read_only::<q5_k::BlockQ5K, 256>("q5_k") },
            Self::Q6_K => const { &Spec::read_only::<q6_k::BlockQ6K, 256>("q6_k") },
        }
    }

    /// Elements of one block: what the length of a row is a multiple of.
    pub const fn block_elements(self) -> usize {
        self.spec().block_elements
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.spec().block_bytes
    }

    /// Bits of an element, scales included.
    pub fn bits_per_element(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_elements() as f64
    }

    /// Bytes of a row of `columns` elements.
    ///
    /// # Errors
    ///
    /// If `columns` is not a whole number of blocks, or the bytes are more than `usize` counts.
    pub fn row_bytes(self, columns: usize) -> Result<usize> {
        let block = self.block_elements();
        if !columns.is_multiple_of(block) {
            return Err(Error::PartialBlock { format: self, columns, block });
        }
        (columns / block).checked_mul(self.block_bytes()).ok_or(Error::TooLarge { format: self, rows: 1, columns })
    }

    /// Bytes of a matrix `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// If `columns` is not a whole number of blocks, or the bytes are more than `usize` counts.
    pub fn matrix_bytes(self, rows: usize, columns: usize) -> Result<usize> {
        self.row_bytes(columns)?.checked_mul(rows).ok_or(Error::TooLarge { format: self, rows, columns })
    }

    /// Writes a row of `values` into `bytes`, which has the length that [`row_bytes`](Self::row_bytes) says.
    ///
    /// Rounds to the nearest value, by the rules of GGUF's reference for `Q8_0` and `Q4_0`: the scale of a block is its
    /// largest magnitude ÷ 127, or its value of largest magnitude ÷ −8. So an element's error is at most half a scale
    /// in `Q8_0`, and in `Q4_0` at most half a scale but for values opposite to the largest, up to a whole one. The
    /// scale's own rounding to `f16` adds 2⁻¹¹ of the value.
    ///
    /// # Errors
    ///
    /// If the lengths do not match, the format is read only, or it cannot hold a value: infinite or NaN in a block,
    /// larger than `f16` can hold in `F16` or as a block's scale.
    pub fn quantise_row(self, values: &[f32], bytes: &mut [u8]) -> Result<()> {
        self.check_row(values.len(), bytes.len())?;
        let write = self.spec().write.ok_or(Error::ReadOnly { format: self })?;
        write(values, bytes).map_err(|element| Error::Value { format: self, element, value: values[element] })
    }

    /// Reads a row into `values`; `bytes` has the length that [`row_bytes`](Self::row_bytes) says.
    ///
    /// # Errors
    ///
    /// If the lengths do not match. Any bytes of the right length are a row, though perhaps one with values that are
    /// not finite.
    pub fn dequantise_row(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        self.check_row(values.len(), bytes.len())?;
        self.dequantise_blocks(bytes, values);
        Ok(())
    }

    /// Bytes of `elements`, a whole number of blocks, of a row.
    pub(crate) fn bytes_of(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }

    /// Reads whole blocks whose lengths have been checked.
    pub(crate) fn dequantise_blocks(self, bytes: &[u8], values: &mut [f32]) {
        (self.spec().read)(bytes, values);
    }

    fn check_row(self, columns: usize, found: usize) -> Result<()> {
        let expected = self.row_bytes(columns)?;
        if expected != found {
            return Err(Error::Bytes { format: self, rows: 1, columns, expected, found });
        }
        Ok(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

fn read_blocks<B: Block<N>, const N: usize>(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in B::slice(bytes).iter().zip(values.as_chunks_mut().0) {
        block.dequantise(values);
    }
}

fn write_blocks<B: Quantise<N>, const N: usize>(values: &[f32], bytes: &mut [u8]) -> std::result::Result<(), usize> {
    let blocks = values.as_chunks::<N>().0.iter().zip(B::slice_mut(bytes));
    for (index, (values, block)) in blocks.enumerate() {
        *block = B::quantise(values).ok_or_else(|| index * N + worst(values))?;
    }
    Ok(())
}

/// The value for which a block cannot be written: the first that is not finite, or else the largest.
fn worst(values: &[f32]) -> usize {
    let mut worst = 0;
    for (element, value) in values.iter().enumerate() {
        if !value.is_finite() {
            return element;
        }
        if value.abs() > values[worst].abs() {
            worst = element;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect()
    }

    #[test]
    fn sizes_are_those_of_gguf() {
        let bytes: Vec<usize> = Format::ALL.iter().map(|f| f.row_bytes(512).unwrap()).collect();
        assert_eq!(bytes, [2048, 1024, 1024, 544, 420, 384, 352, 352, 320, 288, 288, 220, 168]);
        assert_eq!(Format::Q4_0.matrix_bytes(3, 64).unwrap(), 108);
        assert_eq!(Format::Q8_0.bits_per_element(), 8.5);
    }

    #[test]
    fn mismatches_are_errors() {
        assert_eq!(
            Format::Q8_0.row_bytes(33).unwrap_err().to_string(),
            "a row of 33 elements cannot be q8_0, which stores blocks of 32 elements"
        );
        assert!(matches!(Format::F32.row_bytes(usize::MAX), Err(Error::TooLarge { .. })));
        assert!(matches!(Format::Q4_K.matrix_bytes(usize::MAX, 256), Err(Error::TooLarge { .. })));
        assert!(matches!(Format::Q4_0.dequantise_row(&[0; 17], &mut [0.0; 32]), Err(Error::Bytes { .. })));
        assert!(matches!(Format::BF16.quantise_row(&[0.0; 2], &mut [0; 3]), Err(Error::Bytes { .. })));
        assert!(matches!(Format::Q6_K.quantise_row(&[0.0; 256], &mut [0; 210]), Err(Error::ReadOnly { .. })));
    }

    #[test]
    fn values_that_a_format_cannot_hold_are_named() {
        let mut row = wave(64);
        row[40] = f32::NAN;
        for format in [Format::Q8_0, Format::Q4_0] {
            let mut bytes = vec![0; format.row_bytes(64).unwrap()];
            assert!(matches!(format.quantise_row(&row, &mut bytes), Err(Error::Value { element: 40, .. })));
        }
        row[40] = 1e9;
        for format in [Format::F16, Format::Q8_0, Format::Q4_0] {
            let mut bytes = vec![0; format.row_bytes(64).unwrap()];
            assert!(matches!(format.quantise_row(&row, &mut bytes), Err(Error::Value { element: 40, .. })));
        }
    }

    #[test]
    fn round_trips_are_within_the_stated_error() {
        let row = wave(512);
        for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
            let mut bytes = vec![0; format.row_bytes(512).unwrap()];
            format.quantise_row(&row, &mut bytes).unwrap();
            let mut back = vec![0.0; 512];
            format.dequantise_row(&bytes, &mut back).unwrap();
            for (start, (values, back)) in row.chunks(32).zip(back.chunks(32)).enumerate() {
                let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (value, back) in values.iter().zip(back) {
                    let bound = match format {
                        Format::F32 => 0.0,
                        Format::F16 => value.abs() / 2048.0,
                        Format::BF16 => value.abs() / 256.0,
                        Format::Q8_0 => largest / 127.0 * 0.5 + value.abs() / 2048.0,
                        _ => largest / 8.0 + value.abs() / 2048.0,
                    };
                    assert!((value - back).abs() <= bound * 1.001, "{format} block {start}: {value} {back}");
                }
            }
        }
    }

    #[test]
    fn a_second_round_trip_changes_nothing() {
        let row = wave(256);
        for format in [Format::F16, Format::BF16, Format::Q8_0] {
            let mut bytes = vec![0; format.row_bytes(256).unwrap()];
            format.quantise_row(&row, &mut bytes).unwrap();
            let mut back = vec![0.0; 256];
            format.dequantise_row(&bytes, &mut back).unwrap();
            let mut again = vec![0; bytes.len()];
            format.quantise_row(&back, &mut again).unwrap();
            assert_eq!(bytes, again, "{format}");
        }
    }
}
