//! Counting allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Allocations of this thread. It needs no initialisation, so that counting does not allocate.
    static OWN_COUNT: Cell<usize> = const { Cell::new(0) };
}

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

    /// Allocations so far, of all threads.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Those of this thread: for what must not allocate at all, as the harness of tests has a thread of its own that
    /// may, at any time.
    pub fn own_count(&self) -> usize {
        OWN_COUNT.get()
    }

    /// The result of `run`, and the most bytes that were allocated at once meanwhile, beyond those of before.
    pub fn peak_of<T>(&self, run: impl FnOnce() -> T) -> (T, usize) {
        let before = self.bytes.load(Ordering::Relaxed);
        self.peak.store(before, Ordering::Relaxed);
        let result = run();
        (result, self.peak.load(Ordering::Relaxed).saturating_sub(before))
    }

    /// The bytes that are allocated after `run` and were not before: what it keeps. Unlike a peak, it does not depend
    /// on how many threads had work of their own at once.
    pub fn kept_by(&self, run: impl FnOnce()) -> usize {
        let before = self.bytes.load(Ordering::Relaxed);
        run();
        self.bytes.load(Ordering::Relaxed).saturating_sub(before)
    }

    fn add(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // A thread that ends may allocate when its own values are gone.
        let _ = OWN_COUNT.try_with(|count| count.set(count.get() + 1));
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
