//! The element types of safetensors.

use safetensors::Dtype as Stored;

use crate::Dtype;

/// The type with this name in a file; `None` for the types that this crate does not read.
pub(super) fn from_safetensors(dtype: Stored) -> Option<Dtype> {
    Some(match dtype {
        Stored::F64 => Dtype::F64,
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::I64 => Dtype::I64,
        Stored::I32 => Dtype::I32,
        Stored::I16 => Dtype::I16,
        Stored::I8 => Dtype::I8,
        Stored::U8 => Dtype::U8,
        Stored::BOOL => Dtype::Bool,
        _ => return None,
    })
}

/// The type as a file names it; `None` for quantised types, which the format does not have.
pub(crate) fn to_safetensors(dtype: Dtype) -> Option<Stored> {
    Some(match dtype {
        Dtype::F64 => Stored::F64,
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::BF16,
        Dtype::I64 => Stored::I64,
        Dtype::I32 => Stored::I32,
        Dtype::I16 => Stored::I16,
        Dtype::I8 => Stored::I8,
        Dtype::U8 => Stored::U8,
        Dtype::Bool => Stored::BOOL,
        Dtype::Q8_0
        | Dtype::Q4_0
        | Dtype::Q4_1
        | Dtype::Q5_0
        | Dtype::Q5_1
        | Dtype::Q2_K
        | Dtype::Q3_K
        | Dtype::Q4_K
        | Dtype::Q5_K
        | Dtype::Q6_K => {
            return None;
        }
    })
}
