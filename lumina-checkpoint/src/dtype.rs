//! The element types of tensors.

use std::fmt;

use lumina_kernels::Format;

use crate::tensor_view::element_count;

/// The element type of a tensor. Elements are stored little-endian.
#[allow(non_camel_case_types, reason = "the names of llama.cpp")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float of IEEE 754 (half precision).
    F16,
    /// 16-bit float with the exponent of an `f32`.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// [`Format::Q8_0`] of GGUF: 8.5 bits an element.
    Q8_0,
    /// [`Format::Q4_0`] of GGUF: 4.5 bits an element.
    Q4_0,
    /// [`Format::Q4_1`] of GGUF: 5 bits an element. Read, not written.
    Q4_1,
    /// [`Format::Q5_0`] of GGUF: 5.5 bits an element. Read, not written.
    Q5_0,
    /// [`Format::Q5_1`] of GGUF: 6 bits an element. Read, not written.
    Q5_1,
    /// [`Format::Q2_K`] of GGUF: 2.6 bits an element. Read, not written.
    Q2_K,
    /// [`Format::Q3_K`] of GGUF: 3.4 bits an element. Read, not written.
    Q3_K,
    /// [`Format::Q4_K`] of GGUF: 4.5 bits an element. Read, not written.
    Q4_K,
    /// [`Format::Q5_K`] of GGUF: 5.5 bits an element. Read, not written.
    Q5_K,
    /// [`Format::Q6_K`] of GGUF: 6.6 bits an element. Read, not written.
    Q6_K,
}

impl Dtype {
    /// The format of `lumina-kernels` for this type; `None` for integers, `bool` and `f64`.
    pub const fn format(self) -> Option<Format> {
        Some(match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::BF16 => Format::BF16,
            Self::Q8_0 => Format::Q8_0,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_1 => Format::Q4_1,
            Self::Q5_0 => Format::Q5_0,
            Self::Q5_1 => Format::Q5_1,
            Self::Q2_K => Format::Q2_K,
            Self::Q3_K => Format::Q3_K,
            Self::Q4_K => Format::Q4_K,
            Self::Q5_K => Format::Q5_K,
            Self::Q6_K => Format::Q6_K,
            Self::F64 | Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U8 | Self::Bool => return None,
        })
    }

    /// Elements of one block: 1 unless the type is quantised. Blocks are parts of rows, along the last axis.
    pub const fn block_elements(self) -> usize {
        match self.format() {
            Some(format) => format.block_elements(),
            None => 1,
        }
    }

    /// Bytes of one block. A block is one element unless the type is quantised.
    pub const fn block_bytes(self) -> usize {
        match (self.format(), self) {
            (Some(format), _) => format.block_bytes(),
            (None, Self::F64 | Self::I64) => 8,
            (None, Self::I32) => 4,
            (None, Self::I16) => 2,
            (None, _) => 1,
        }
    }

    /// Bytes of a tensor of this shape. `None` where the size overflows, or where a row (along the last axis) is not a
    /// whole number of blocks.
    ///
    /// ```
    /// # use lumina_checkpoint::Dtype;
    /// assert_eq!(Dtype::BF16.bytes_of(&[3, 5]), Some(30));
    /// assert_eq!(Dtype::Q8_0.bytes_of(&[3, 64]), Some(3 * 2 * 34));
    /// assert_eq!(Dtype::Q8_0.bytes_of(&[3, 5]), None);
    /// ```
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        let elements = element_count(shape)?;
        // No overflow: a block has at most eight bytes an element, and `element_count` checks for eight.
        row.is_multiple_of(self.block_elements()).then(|| elements / self.block_elements() * self.block_bytes())
    }

    /// Whether elements are packed into blocks with a common scale.
    pub const fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// Whether this is a float type. Quantised types are not.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for Dtype {
    /// `f32`, `bf16`, `bool`, `q4_k` and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
            _ => return self.format().map_or(Ok(()), |format| format.fmt(f)),
        })
    }
}
