//! Parallel iterators: rayon's with the feature `threads`, otherwise those of the standard library under the same
//! names, which run on the calling thread.
//!
//! Kernels import `crate::parallel::*` and write rayon's idiom. Work is split in the same way with and without threads,
//! so results are the same to the bit.

#[cfg(feature = "threads")]
pub(crate) use rayon::current_num_threads;
#[cfg(feature = "threads")]
pub(crate) use rayon::prelude::*;
#[cfg(not(feature = "threads"))]
pub(crate) use serial::*;

#[cfg(not(feature = "threads"))]
mod serial {
    use std::slice::{Chunks, ChunksExact, ChunksExactMut, ChunksMut, Iter, IterMut};

    /// The calling thread is the only one.
    pub(crate) fn current_num_threads() -> usize {
        1
    }

    /// Stands in for rayon's traits of shared slices.
    pub(crate) trait ParallelSlice<T> {
        fn par_iter(&self) -> Iter<'_, T>;
        fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
        fn par_chunks_exact(&self, size: usize) -> ChunksExact<'_, T>;
    }

    impl<T> ParallelSlice<T> for [T] {
        fn par_iter(&self) -> Iter<'_, T> {
            self.iter()
        }
        fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
            self.chunks(size)
        }
        fn par_chunks_exact(&self, size: usize) -> ChunksExact<'_, T> {
            self.chunks_exact(size)
        }
    }

    /// Stands in for rayon's traits of mutable slices.
    pub(crate) trait ParallelSliceMut<T> {
        fn par_iter_mut(&mut self) -> IterMut<'_, T>;
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
        fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T>;
    }

    impl<T> ParallelSliceMut<T> for [T] {
        fn par_iter_mut(&mut self) -> IterMut<'_, T> {
            self.iter_mut()
        }
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
            self.chunks_mut(size)
        }
        fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T> {
            self.chunks_exact_mut(size)
        }
    }

    /// Stands in for rayon's trait of the same name.
    pub(crate) trait IntoParallelIterator: IntoIterator + Sized {
        fn into_par_iter(self) -> Self::IntoIter {
            self.into_iter()
        }
    }

    impl<I: IntoIterator> IntoParallelIterator for I {}

    /// Methods of rayon's iterators that those of the standard library lack.
    pub(crate) trait ParallelIterator: Iterator + Sized {
        fn for_each_init<T>(self, init: impl Fn() -> T, work: impl Fn(&mut T, Self::Item)) {
            let mut state = init();
            self.for_each(|item| work(&mut state, item));
        }

        fn map_init<T, R>(
            self,
            init: impl Fn() -> T,
            work: impl Fn(&mut T, Self::Item) -> R,
        ) -> impl Iterator<Item = R> {
            let mut state = init();
            self.map(move |item| work(&mut state, item))
        }
    }

    impl<I: Iterator> ParallelIterator for I {}
}
