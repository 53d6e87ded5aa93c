//! The types of a tensor's elements.

use std::fmt;

/// The type of a tensor's elements. Stored little-endian.
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
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether this is a float type.
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

    pub(super) fn to_safetensors(self) -> safetensors::Dtype {
        use safetensors::Dtype as Stored;
        match self {
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
        }
    }
}

impl fmt::Display for Dtype {
    /// `f32`, `bf16`, `bool` and so on.
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
        })
    }
}
