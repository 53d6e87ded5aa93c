//! Memory for results as large as the activations of a whole image.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::parallel::*;

/// From this many values on, threads share the writing of zeros.
const MIN_PARALLEL: usize = 1 << 18;

/// Values that [`fill_in_parallel`] hands out at a time: they fit the first-level cache. An even number.
const PART: usize = 1 << 12;

/// From this size on, results ask for large pages, in bytes.
const MIN_LARGE_PAGES: usize = 8 << 20;

/// A vector of zeros, in memory that the system may map in large pages.
///
/// The C library returns large blocks to the system as soon as they are free, so each result is new memory, mapped page
/// by page. With pages of 4 kB that takes longer than a convolution's own reading and writing. Threads share the
/// writing.
pub fn zeros(len: usize) -> Vec<f32> {
    if len < MIN_PARALLEL { vec![0.0; len] } else { fill_in_parallel(len, MIN_PARALLEL / 4, |_, _, _| ()) }
}

/// A vector of `len` values that `fill` writes, in runs of `run_len` values that threads share.
///
/// `fill` gets the index of a run, the start of a part within the run, and the part: at most [`PART`] values, which are
/// zero. The zeros are written while the part is in the cache, so memory is written once.
pub(crate) fn fill_in_parallel(len: usize, run_len: usize, fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    prefer_large_pages(values.as_ptr(), len);
    let room = &mut values.spare_capacity_mut()[..len];
    room.par_chunks_mut(run_len.max(1)).enumerate().for_each(|(run, room)| {
        for (part, room) in room.chunks_mut(PART).enumerate() {
            room.fill(MaybeUninit::new(0.0));
            #[allow(unsafe_code, reason = "the line above initialises the part")]
            // SAFETY: all values of the part have just been written.
            fill(run, part * PART, unsafe { room.assume_init_mut() });
        }
    });
    #[allow(unsafe_code, reason = "several threads fill the vector")]
    // SAFETY: the capacity is at least `len`, and the runs and their parts, all initialised above, cover `len` values.
    unsafe {
        values.set_len(len);
    }
    values
}

/// Asks for large pages in memory that has not been touched yet. It is a hint, and has no other effect.
pub(crate) fn prefer_large_pages(start: *const f32, len: usize) {
    #[cfg(target_os = "linux")]
    if len * size_of::<f32>() >= MIN_LARGE_PAGES {
        // Only whole pages inside the block, so that no other memory is affected; the page size of any system divides
        // this.
        const PAGE: usize = 1 << 16;
        let first = start.addr().next_multiple_of(PAGE);
        let bytes = (start.addr() + len * size_of::<f32>()).saturating_sub(first) / PAGE * PAGE;
        #[allow(unsafe_code, reason = "a system call with a pointer")]
        // SAFETY: MADV_HUGEPAGE does not change the content of memory, whatever the range is.
        unsafe {
            libc::madvise(start.with_addr(first).cast_mut().cast(), bytes, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len, MIN_LARGE_PAGES);
}

/// Lets the C library of Linux keep up to `bytes` of freed memory instead of returning it to the system. A prompt or an
/// image then takes a quarter less time, as new memory is not mapped page by page. Returns whether it was done.
///
/// It is a setting of the whole process, so the app chooses it, at its start. With another allocator or on another
/// system nothing is done.
pub fn keep_freed_memory(bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        #[allow(unsafe_code, reason = "a call of the C library")]
        // SAFETY: `mallopt` takes two numbers, and may be called at any time.
        unsafe {
            // Large blocks then come from the heap instead of from mappings of their own, and the heap is trimmed above
            // `bytes`.
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        let _ = bytes;
        false
    }
}

/// A result that several threads write at once, each to places of its own.
///
/// It holds the exclusive borrow of the memory, so nobody reads or writes it in another way meanwhile.
#[derive(Debug)]
pub(crate) struct SharedOutput<'a> {
    start: NonNull<f32>,
    len: usize,
    borrow: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

#[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
// SAFETY: it is an exclusive borrow of plain numbers, which may be used on another thread.
unsafe impl Send for SharedOutput<'_> {}

#[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
// SAFETY: `write` is the only access through a shared reference, and its contract rules out data races.
unsafe impl Sync for SharedOutput<'_> {}

impl<'a> SharedOutput<'a> {
    /// A result in memory that need not be initialised. It stays so where nothing is written.
    pub(crate) fn new(room: &'a mut [MaybeUninit<f32>]) -> Self {
        Self { len: room.len(), start: NonNull::from(room).cast(), borrow: PhantomData }
    }

    /// A result in initialised memory.
    pub(crate) fn from_initialised(values: &'a mut [f32]) -> Self {
        // Only initialised values are ever written, so the memory stays initialised.
        Self { len: values.len(), start: NonNull::from(values).cast(), borrow: PhantomData }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes `value` to all places.
    pub(crate) fn fill(&mut self, value: f32) {
        #[allow(unsafe_code, reason = "the constructors take the slice apart")]
        // SAFETY: the parts of a slice whose borrow is still held; `&mut self` makes this the only access.
        let room: &mut [MaybeUninit<f32>] =
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) };
        room.fill(MaybeUninit::new(value));
    }

    /// Writes `values` from `start` on.
    ///
    /// # Safety
    ///
    /// No other thread writes any of these places while `self` is borrowed, unless something orders the two writes.
    ///
    /// # Panics
    ///
    /// If the values do not fit.
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
    pub(crate) unsafe fn write(&self, start: usize, values: &[f32]) {
        assert!(start <= self.len && values.len() <= self.len - start, "results must fit the memory for them");
        // SAFETY: the places are within the borrowed memory, by the line above. The caller rules out other writers, and
        // the borrow rules out readers.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.as_ptr().add(start), values.len());
        }
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
        let bytes = MIN_LARGE_PAGES / 4;
        for len in [0, 1, 100, MIN_PARALLEL - 1, MIN_PARALLEL + 3, bytes - 1, bytes, bytes + 70_001] {
            let values = zeros(len);
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|&value| value == 0.0));
        }
    }
}
