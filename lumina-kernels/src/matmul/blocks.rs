//! Packed blocks of 8-bit integers: of a row of activations, and of 16 rows of weights.
//!
//! The sum of a block is `Σ quants_x · quants_w`, in integers, times both scales. A *quad* is four integers in a word,
//! which the instructions multiply and add at once.

use crate::scratch::Lanes;

/// A block of an activation row: 32 signed integers with a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct ActivationBlock {
    /// Eight quads.
    pub(super) quads: [i32; 8],
    /// What an integer stands for. NaN where a value of the block is not finite.
    pub(super) scale: f32,
    /// What the integer sum starts with: `−offset · Σ quants`, as the packed weights are `offset` too large.
    pub(super) start: i32,
}

const _: () = assert!(size_of::<ActivationBlock>() == 40 && align_of::<ActivationBlock>() == align_of::<u32>());

impl ActivationBlock {
    /// Words of a block.
    pub(super) const WORDS: usize = size_of::<Self>() / size_of::<u32>();

    /// The blocks in packed words.
    pub(super) fn slice(words: &[u32]) -> &[Self] {
        let blocks = words.as_chunks::<{ Self::WORDS }>().0;
        #[allow(unsafe_code, reason = "a block is a number of words")]
        // SAFETY: a block has the size and alignment of ten words, and every pattern is valid. The result keeps the
        // borrow.
        unsafe {
            std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len())
        }
    }

    /// The blocks in packed words.
    pub(super) fn slice_mut(words: &mut [u32]) -> &mut [Self] {
        let blocks = words.as_chunks_mut::<{ Self::WORDS }>().0;
        #[allow(unsafe_code, reason = "a block is a number of words")]
        // SAFETY: as for `slice`; every block is a valid pattern of words, too.
        unsafe {
            std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), blocks.len())
        }
    }
}

/// A block of 16 weight rows, a lane each: 32 integers with a scale.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct PanelBlock {
    /// Eight quads.
    pub(super) quads: [Lanes; 8],
    /// The scales, as bits of `f32`.
    pub(super) scales: Lanes,
}

const _: () = assert!(size_of::<PanelBlock>() == 9 * size_of::<Lanes>());

impl PanelBlock {
    /// Vectors of a block.
    pub(super) const VECTORS: usize = size_of::<Self>() / size_of::<Lanes>();

    /// The blocks in a packed panel.
    pub(super) fn slice(panel: &[Lanes]) -> &[Self] {
        let blocks = panel.as_chunks::<{ Self::VECTORS }>().0;
        #[allow(unsafe_code, reason = "a block is a number of vectors")]
        // SAFETY: a block is nine vectors and nothing else. The result keeps the borrow.
        unsafe {
            std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len())
        }
    }

    /// Block `index` of packed vectors.
    pub(super) fn at(vectors: &mut [Lanes], index: usize) -> &mut Self {
        let block = &mut vectors[index * Self::VECTORS..][..Self::VECTORS];
        #[allow(unsafe_code, reason = "a block is a number of vectors")]
        // SAFETY: the line above checks that there are nine vectors, which a block is. The result keeps the borrow.
        unsafe {
            &mut *block.as_mut_ptr().cast()
        }
    }
}
