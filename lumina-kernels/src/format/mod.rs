//! How the elements of a matrix lie in bytes, and plain functions that read and write its rows.
//!
//! A row is a whole number of blocks, without padding between blocks or rows, little-endian and at any alignment: what
//! safetensors (`f32`, `f16`, `bf16`) and GGUF (all) store. The functions here are the definition that the kernels are
//! tested against; they are made to be read, not to be fast.
//!
//! | format | elements a block | bytes a block | bits an element | an element's value |
//! | --- | --- | --- | --- | --- |
//! | `F32` | 1 | 4 | 32 | itself |
//! | `F16`, `BF16` | 1 | 2 | 16 | itself |
//! | `Q8_0` | 32 | 34 | 8.5 | `d · q`, `q` −127 … 127 |
//! | `Q4_0` | 32 | 18 | 4.5 | `d · (q − 8)`, `q` 0 … 15 |
//! | `Q4_K` | 256 | 144 | 4.5 | `d · s · q − m · t`, `q` 0 … 15, with 6-bit `s` and `t` for each 32 elements |
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

use half::{bf16, f16};

use crate::{Error, Result};

pub(crate) mod q4_0;
mod q4_k;
mod q6_k;
pub(crate) mod q8_0;

/// How the elements of a matrix lie in bytes.
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
    /// Blocks of 32: an `f16` scale and signed bytes.
    Q8_0,
    /// Blocks of 32: an `f16` scale and 4-bit numbers.
    Q4_0,
    /// Blocks of 256: two `f16` scales, 8 six-bit scales and minima, and 4-bit numbers. Read only.
    Q4_K,
    /// Blocks of 256: 4- and 2-bit parts of 6-bit numbers, 16 signed scales and an `f16` scale. Read only.
    Q6_K,
}

impl Format {
    /// Every format, from the widest to the narrowest.
    pub const ALL: [Self; 7] = [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q6_K, Self::Q4_K, Self::Q4_0];

    /// Elements of one block: what the length of a row is a multiple of.
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 => q8_0::ELEMENTS,
            Self::Q4_0 => q4_0::ELEMENTS,
            Self::Q4_K => q4_k::ELEMENTS,
            Self::Q6_K => q6_k::ELEMENTS,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => q8_0::BYTES,
            Self::Q4_0 => q4_0::BYTES,
            Self::Q4_K => q4_k::BYTES,
            Self::Q6_K => q6_k::BYTES,
        }
    }

    /// Bits an element takes, scales included.
    pub fn bits_per_element(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_elements() as f64
    }

    /// Bytes of a row of `columns` elements.
    ///
    /// # Errors
    ///
    /// If `columns` is no whole number of blocks, or the bytes cannot be counted.
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
    /// If `columns` is no whole number of blocks, or the bytes cannot be counted.
    pub fn matrix_bytes(self, rows: usize, columns: usize) -> Result<usize> {
        self.row_bytes(columns)?.checked_mul(rows).ok_or(Error::TooLarge { format: self, rows, columns })
    }

    /// Writes a row of `values` into `bytes`, which has the length that [`row_bytes`](Self::row_bytes) says.
    ///
    /// Rounds to the nearest value, by the rules of GGUF's reference for `Q8_0` and `Q4_0`: the scale of a block is its largest
    /// magnitude ÷ 127, or its value of largest magnitude ÷ −8. So an element's error is at most half a scale in `Q8_0`, and
    /// in `Q4_0` at most half a scale but for values opposite to the largest, up to a whole one; the scale's own rounding to
    /// `f16` adds 2⁻¹¹ of the value.
    ///
    /// # Errors
    ///
    /// If the lengths do not fit, the format is read only, or a value is beyond it: infinite or not a number in a block,
    /// larger than `f16` can hold in `F16` or as a block's scale.
    pub fn quantise_row(self, values: &[f32], bytes: &mut [u8]) -> Result<()> {
        self.check_row(values.len(), bytes.len())?;
        match self {
            Self::F32 => {
                for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
                    *bytes = value.to_le_bytes();
                }
            }
            Self::F16 => {
                for (element, (&value, bytes)) in values.iter().zip(bytes.as_chunks_mut().0).enumerate() {
                    let half = f16::from_f32(value);
                    if half.is_infinite() && value.is_finite() {
                        return Err(Error::Value { format: self, element, value });
                    }
                    *bytes = half.to_le_bytes();
                }
            }
            Self::BF16 => {
                for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
                    *bytes = bf16::from_f32(*value).to_le_bytes();
                }
            }
            Self::Q8_0 => {
                let blocks = values.as_chunks().0.iter().zip(bytes.as_chunks_mut().0);
                for (index, (values, block)) in blocks.enumerate() {
                    q8_0::quantise(values, block).ok_or_else(|| self.bad_value(index, values))?;
                }
            }
            Self::Q4_0 => {
                let blocks = values.as_chunks().0.iter().zip(bytes.as_chunks_mut().0);
                for (index, (values, block)) in blocks.enumerate() {
                    q4_0::quantise(values, block).ok_or_else(|| self.bad_value(index, values))?;
                }
            }
            Self::Q4_K | Self::Q6_K => return Err(Error::ReadOnly { format: self }),
        }
        Ok(())
    }

    /// Reads a row into `values`; `bytes` has the length that [`row_bytes`](Self::row_bytes) says.
    ///
    /// # Errors
    ///
    /// If the lengths do not fit. Any bytes of the right length are a row, though perhaps one of values that are not numbers.
    pub fn dequantise_row(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        self.check_row(values.len(), bytes.len())?;
        self.read(bytes, values);
        Ok(())
    }

    /// Bytes of `elements`, a whole number of blocks, of a row.
    pub(crate) fn bytes_of(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }

    /// Reads whole blocks whose lengths have been checked.
    pub(crate) fn read(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => {
                for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16 => {
                for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
                    *value = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Self::BF16 => {
                for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
                    *value = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
            Self::Q8_0 => each_block(bytes, values, q8_0::dequantise),
            Self::Q4_0 => each_block(bytes, values, q4_0::dequantise),
            Self::Q4_K => each_block(bytes, values, q4_k::dequantise),
            Self::Q6_K => each_block(bytes, values, q6_k::dequantise),
        }
    }

    fn check_row(self, columns: usize, found: usize) -> Result<()> {
        let expected = self.row_bytes(columns)?;
        if expected != found {
            return Err(Error::Bytes { format: self, rows: 1, columns, expected, found });
        }
        Ok(())
    }

    /// The value that made block `index` fail: the first that is not finite, else the largest.
    fn bad_value(self, index: usize, values: &[f32]) -> Error {
        let mut worst = 0;
        for (element, value) in values.iter().enumerate() {
            if !value.is_finite() {
                worst = element;
                break;
            }
            if value.abs() > values[worst].abs() {
                worst = element;
            }
        }
        Error::Value { format: self, element: index * values.len() + worst, value: values[worst] }
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
            Self::Q4_K => "q4_k",
            Self::Q6_K => "q6_k",
        })
    }
}

fn each_block<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    values: &mut [f32],
    dequantise: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(values.as_chunks_mut().0) {
        dequantise(block, values);
    }
}

/// The largest magnitude of the values; nothing where one is not finite. By their bits, which vector code compares: without the sign
/// they are in the order of the magnitudes, with what is not finite above all others.
fn largest_magnitude(values: &[f32; 32]) -> Option<f32> {
    let largest = values.iter().map(|value| value.abs().to_bits() as i32).fold(0, i32::max);
    Some(f32::from_bits(largest as u32)).filter(|largest| largest.is_finite())
}

/// The `f16` at the start of `bytes`.
pub(crate) fn scale(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect()
    }

    #[test]
    fn lengths_are_those_of_gguf() {
        let bytes: Vec<usize> = Format::ALL.iter().map(|f| f.row_bytes(512).unwrap()).collect();
        assert_eq!(bytes, [2048, 1024, 1024, 544, 420, 288, 288]);
        assert_eq!(Format::Q4_0.matrix_bytes(3, 64).unwrap(), 108);
        assert_eq!(Format::Q8_0.bits_per_element(), 8.5);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
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
    fn values_beyond_a_format_are_named() {
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
    fn rows_come_back_within_the_stated_error() {
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
    fn what_was_read_is_written_alike() {
        // Values that a format holds survive a second round trip to the bit.
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
