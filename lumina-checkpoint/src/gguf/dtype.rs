//! The element types of GGUF.

use crate::Dtype;

/// GGUF's numbers of the types that are read and written.
const NUMBERS: [(u32, Dtype); 18] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Q4_0),
    (3, Dtype::Q4_1),
    (6, Dtype::Q5_0),
    (7, Dtype::Q5_1),
    (8, Dtype::Q8_0),
    (10, Dtype::Q2_K),
    (11, Dtype::Q3_K),
    (12, Dtype::Q4_K),
    (13, Dtype::Q5_K),
    (14, Dtype::Q6_K),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];

/// The names of the other types of `ggml`, some of which it no longer has.
const UNREAD: [(u32, &str); 24] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// The name of a type that is not read, for messages.
pub(super) fn unread(number: u32) -> String {
    match UNREAD.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("number {number}, which is not known"),
    }
}

/// The type with this number in a file; `None` for the types that this crate does not read.
pub(super) fn from_gguf(number: u32) -> Option<Dtype> {
    NUMBERS.iter().find(|(known, _)| *known == number).map(|&(_, dtype)| dtype)
}

/// The number of the type in a file; `None` for the types that GGUF does not have.
pub(super) fn to_gguf(dtype: Dtype) -> Option<u32> {
    NUMBERS.iter().find(|(_, known)| *known == dtype).map(|&(number, _)| number)
}
