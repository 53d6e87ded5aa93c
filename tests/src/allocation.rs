//! Counting allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting: the `#[global_allocator]` of a test binary of its own, as it counts those of a
/// whole process.
#[derive(Debug, Default)]
pub struct Counting {
    count: AtomicUsize,
    bytes: AtomicUsize,
    peak: AtomicUsize,
}

impl Counting {
    /// One that has counted nothing.
    pub const fn new() -> Self {
        Self { count: AtomicUsize::new(0), bytes: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Allocations so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The result of `run`, and the most bytes that were allocated at once meanwhile, beyond those of before.
    pub fn peak_of<T>(&self, run: impl FnOnce() -> T) -> (T, usize) {
        let before = self.bytes.load(Ordering::Relaxed);
        self.peak.store(before, Ordering::Relaxed);
        let result = run();
        (result, self.peak.load(Ordering::Relaxed).saturating_sub(before))
    }

    fn add(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

// SAFETY: everything is handed to the system's allocator; counting changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
