//! Counting allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting: the `#[global_allocator]` of a test binary of its own, as it counts those of a
/// whole process.
#[derive(Debug, Default)]
pub struct Counting(AtomicUsize);

impl Counting {
    /// One that has counted nothing.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Allocations so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

// SAFETY: everything is handed to the system's allocator; counting changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
