//! Asking for memory before it is needed. A prefetch reads nothing, and has no effect where there is no memory.

#[cfg(target_arch = "x86_64")]
use super::weight_rows::Rows;

/// Bytes of a cache line; processors with longer ones are asked twice for the same.
pub(super) const LINE: usize = 64;

/// Asks for the line of memory `bytes` after an address, which may be anywhere, into the second-level cache.
#[inline(always)]
pub(super) fn fetch(address: *const u8, bytes: usize) {
    let address = address.wrapping_add(bytes);
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: see above.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    #[allow(unsafe_code, reason = "the intrinsic is not stable yet")]
    // SAFETY: see above.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

/// Asks for the line of a word of the tile of activations that is multiplied next, into the first-level cache: the tiles of a part lie apart,
/// so that the processor does not foresee them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn fetch_near(tile: *const u32, word: usize) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: see above.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(word).cast());
    }
}

/// Asks for a share of the weights that are packed next.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn fetch_share(next: Rows) {
    (0..next.len).step_by(LINE).for_each(|byte| fetch(next.address, byte));
}
