//! Memory for results, as large as activations of a whole picture.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Values from which on threads share the writing of zeros.
const PARALLEL: usize = 1 << 18;

/// Values that [`written`] hands out at a time. An even number.
const PART: usize = 1 << 12;

/// Results from this size on ask for large pages, in bytes.
const LARGE: usize = 8 << 20;

/// Zeros, in memory that the system may hand out in large pages.
///
/// The C library gives memory of this size back to the system as soon as it is free, so that each result is new memory, page by page:
/// with pages of 4 kB that takes longer than a convolution's own reading and writing.
///
/// Threads share the writing, which takes as long as a kernel that does little.
pub fn zeros(len: usize) -> Vec<f32> {
    if len < PARALLEL { vec![0.0; len] } else { written(len, PARALLEL / 4, |_, _, _| ()) }
}

/// What `write` makes of zeros, in runs of `size` that threads share. It gets the number of a run, where in it a part begins, and the
/// part, of at most [`PART`], which is zeros in the cache: memory is written once.
pub fn written(len: usize, size: usize, write: impl Fn(usize, usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    prefer_large_pages(values.as_ptr(), len);
    let room = &mut values.spare_capacity_mut()[..len];
    room.par_chunks_mut(size.max(1)).enumerate().for_each(|(run, room)| {
        for (part, room) in room.chunks_mut(PART).enumerate() {
            room.fill(MaybeUninit::new(0.0));
            #[allow(unsafe_code, reason = "has just been written")]
            // SAFETY: all of the part is initialised.
            write(run, part * PART, unsafe { room.assume_init_mut() });
        }
    });
    #[allow(unsafe_code, reason = "the vector is filled by several threads")]
    // SAFETY: there is room for `len` values, and runs and their parts have just covered all of them.
    unsafe {
        values.set_len(len);
    }
    values
}

/// Asks for large pages in memory that has not been touched. It is but a hint, and changes nothing else.
pub fn prefer_large_pages(start: *const f32, len: usize) {
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

/// Lets the C library of Linux keep up to `bytes` of freed memory for what is computed next, rather than give it back to the system and get it
/// anew, page by page: a prompt or a picture then takes a quarter less time. Whether it was done.
///
/// It is a setting of the whole process, and so for the app to choose, at its start. With another allocator, or on another system, nothing is done.
pub fn keep_freed_memory(bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        #[allow(unsafe_code, reason = "a call of the C library")]
        // SAFETY: it takes two numbers, and may be called at any time.
        unsafe {
            // Large blocks come from where small ones do, and the end of that is given back from so much on.
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        let _ = bytes;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_can_be_kept() {
        assert_eq!(keep_freed_memory(1 << 30), cfg!(all(target_os = "linux", target_env = "gnu")));
        assert_eq!(zeros(1 << 22)[1 << 21], 0.0);
    }

    #[test]
    fn zeros_of_all_sizes_are_zero() {
        for len in [0, 1, 100, PARALLEL - 1, PARALLEL + 3, LARGE / 4 - 1, LARGE / 4, LARGE / 4 + 70_001] {
            let values = zeros(len);
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|&value| value == 0.0));
        }
    }
}
