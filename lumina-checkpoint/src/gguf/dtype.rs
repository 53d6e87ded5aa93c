//! The element types of GGUF.

use crate::Dtype;

/// GGUF's numbers of the types that are read and written.
const NUMBERS: [(u32, Dtype); 12] = [
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

/// The type with this number in a file; `None` for the types that this crate does not read.
pub(super) fn from_gguf(number: u32) -> Option<Dtype> {
    NUMBERS.iter().find(|(known, _)| *known == number).map(|&(_, dtype)| dtype)
}

/// The number of the type in a file; `None` for the types that GGUF does not have.
pub(super) fn to_gguf(dtype: Dtype) -> Option<u32> {
    NUMBERS.iter().find(|(_, known)| *known == dtype).map(|&(number, _)| number)
}
