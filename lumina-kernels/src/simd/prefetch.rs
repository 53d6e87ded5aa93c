//! Prefetches of memory that is needed soon. A prefetch reads nothing, and has no effect where there is no memory.

/// Bytes of a cache line. With longer lines some prefetches are redundant.
pub(crate) const LINE: usize = 64;

/// Prefetches the cache line `bytes` after an address, which may be anywhere, into the first-level cache.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8, bytes: usize) {
    let address = address.wrapping_add(bytes);
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a prefetch is allowed at any address, and any processor of this architecture has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    #[allow(unsafe_code, reason = "the intrinsic is not stable yet")]
    // SAFETY: a prefetch is allowed at any address, and any processor of this architecture has it.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Prefetches a word of the next tile of activations into the first-level cache. The tiles of a part are not
/// consecutive in memory, so the processor does not predict them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch_tile(tile: *const u32, word: usize) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a prefetch is allowed at any address, and any processor of this architecture has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(word).cast());
    }
}
