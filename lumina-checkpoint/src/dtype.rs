//! The types of a tensor's elements.

use std::fmt;

use lumina_kernels::Format;

use super::tensor_view::element_count;

/// The type of a tensor's elements. Stored little-endian.
#[allow(non_camel_case_types, reason = "the names that GGUF's users know")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float of IEEE 754.
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
    /// [`Format::Q4_K`] of GGUF: 4.5 bits an element. Read, not written.
    Q4_K,
    /// [`Format::Q6_K`] of GGUF: 6.6 bits an element. Read, not written.
    Q6_K,
}

impl Dtype {
    /// The format that kernels know this type by; `None` for integers, `bool` and `f64`.
    pub const fn format(self) -> Option<Format> {
        Some(match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::BF16 => Format::BF16,
            Self::Q8_0 => Format::Q8_0,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_K => Format::Q4_K,
            Self::Q6_K => Format::Q6_K,
            Self::F64 | Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U8 | Self::Bool => return None,
        })
    }

    /// Elements of one block: 1 unless the type is quantised. Blocks lie within rows, along the last axis.
    pub const fn block_elements(self) -> usize {
        match self.format() {
            Some(format) => format.block_elements(),
            None => 1,
        }
    }

    /// Bytes of one block, which is one element unless the type is quantised.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Q8_0 => Format::Q8_0.block_bytes(),
            Self::Q4_0 => Format::Q4_0.block_bytes(),
            Self::Q4_K => Format::Q4_K.block_bytes(),
            Self::Q6_K => Format::Q6_K.block_bytes(),
        }
    }

    /// Bytes of a tensor of this shape, or `None` where that overflows or its rows (along the last axis) are no whole
    /// number of blocks.
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
        // A block has at most eight bytes an element, which `element_count` makes room for.
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

    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as Stored;
        Some(match dtype {
            Stored::F64 => Self::F64,
            Stored::F32 => Self::F32,
            Stored::F16 => Self::F16,
            Stored::BF16 => Self::BF16,
            Stored::I64 => Self::I64,
            Stored::I32 => Self::I32,
            Stored::I16 => Self::I16,
            Stored::I8 => Self::I8,
            Stored::U8 => Self::U8,
            Stored::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// `None` for quantised types, which that format does not have.
    pub(super) fn to_safetensors(self) -> Option<safetensors::Dtype> {
        use safetensors::Dtype as Stored;
        Some(match self {
            Self::F64 => Stored::F64,
            Self::F32 => Stored::F32,
            Self::F16 => Stored::F16,
            Self::BF16 => Stored::BF16,
            Self::I64 => Stored::I64,
            Self::I32 => Stored::I32,
            Self::I16 => Stored::I16,
            Self::I8 => Stored::I8,
            Self::U8 => Stored::U8,
            Self::Bool => Stored::BOOL,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_K | Self::Q6_K => return None,
        })
    }

    pub(super) fn from_gguf(number: u32) -> Option<Self> {
        GGUF.iter().find(|(known, _)| *known == number).map(|&(_, dtype)| dtype)
    }

    /// `None` for the types that GGUF does not have.
    pub(super) fn to_gguf(self) -> Option<u32> {
        GGUF.iter().find(|(_, known)| *known == self).map(|&(number, _)| number)
    }
}

/// GGUF's numbers for the types that are read and written.
const GGUF: [(u32, Dtype); 12] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Q4_0),
    (8, Dtype::Q8_0),
    (12, Dtype::Q4_K),
    (14, Dtype::Q6_K),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];

impl fmt::Display for Dtype {
    /// `f32`, `bf16`, `bool`, `q4_k` and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_K => "q4_k",
            Self::Q6_K => "q6_k",
        })
    }
}
