//! Memory for results as large as activations of a whole picture.

/// Results from this size on ask for large pages, in bytes.
const LARGE: usize = 8 << 20;

/// Zeros, in memory that the system may hand out in large pages.
///
/// The C library gives memory of this size back to the system as soon as it is free, so that each result is new memory, page by page:
/// with pages of 4 kB that takes longer than a convolution's own reading and writing.
pub(super) fn zeros(len: usize) -> Vec<f32> {
    let values = vec![0.0; len];
    prefer_large_pages(values.as_ptr(), len);
    values
}

/// Asks for large pages in memory that has not been touched. It is but a hint, and changes nothing else.
pub(super) fn prefer_large_pages(start: *const f32, len: usize) {
    #[cfg(target_os = "linux")]
    if len * size_of::<f32>() >= LARGE {
        // Whole pages inside, so that nobody else's memory is meant; all systems' pages divide this.
        const PAGE: usize = 1 << 16;
        let first = start.addr().next_multiple_of(PAGE);
        let bytes = (start.addr() + len * size_of::<f32>()).saturating_sub(first) / PAGE * PAGE;
        #[allow(unsafe_code, reason = "a hint to the system")]
        // SAFETY: the range is within an allocation, and the hint leaves what is in it as it is.
        unsafe {
            libc::madvise(start.with_addr(first).cast_mut().cast(), bytes, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len, LARGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_all_sizes_are_zero() {
        for len in [0, 1, 100, LARGE / 4 - 1, LARGE / 4, LARGE / 4 + 70_001] {
            let values = zeros(len);
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|&value| value == 0.0));
        }
    }
}
