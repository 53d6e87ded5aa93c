//! Blocks as typed structs, as GGUF stores them.

use half::f16;

/// A block of a quantised format, as it is in a file: a `#[repr(C)]` struct of byte arrays.
///
/// # Safety
///
/// The type has an alignment of 1 and no padding, and every pattern of bytes is a valid value.
#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
pub(crate) unsafe trait Block<const ELEMENTS: usize>: Copy {
    /// Stores the values of the elements.
    fn dequantise(&self, values: &mut [f32; ELEMENTS]);

    /// The blocks in the bytes of a row, as far as they are whole.
    #[inline(always)]
    fn slice(bytes: &[u8]) -> &[Self] {
        const { assert!(align_of::<Self>() == 1) };
        let blocks = bytes.len() / size_of::<Self>();
        // SAFETY: there are bytes for so many blocks, and by the contract of the trait bytes are valid blocks. The
        // result keeps the borrow.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), blocks) }
    }

    /// The blocks in the bytes of a row, as far as they are whole.
    #[inline(always)]
    fn slice_mut(bytes: &mut [u8]) -> &mut [Self] {
        const { assert!(align_of::<Self>() == 1) };
        let blocks = bytes.len() / size_of::<Self>();
        // SAFETY: as for `slice`; a block has no padding, so its bytes stay initialised.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), blocks) }
    }
}

/// A block that can be written, too.
pub(crate) trait Quantise<const ELEMENTS: usize>: Block<ELEMENTS> {
    /// The block of some values, or `None` where a value, or the scale in `f16`, is not finite.
    fn quantise(values: &[f32; ELEMENTS]) -> Option<Self>;
}

/// An `f16` in the bytes of a block.
#[inline(always)]
pub(crate) fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The largest magnitude of a block's values; `None` where one is not finite. It compares bits, which vector code does
/// well: without the sign they are ordered like the magnitudes, and what is not finite comes last.
pub(super) fn largest_magnitude(values: &[f32; 32]) -> Option<f32> {
    let largest = values.iter().map(|value| value.abs().to_bits() as i32).fold(0, i32::max);
    Some(f32::from_bits(largest as u32)).filter(|largest| largest.is_finite())
}
